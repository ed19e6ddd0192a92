//! Where addresses come from: a file, Redis, the configuration, each with a list of its own.
//!
//! Place in the pipeline: what `WhitelistKeeper` unites. Invariants: a source's fault, its shrink
//! and its age are its own; a list that is faulty, cannot be read, or lost more than `max_shrink` of
//! its addresses replaces nothing: the old list stays and the status tells why.
//!
//! What each source last knew is kept in the state directory, with what tells whether it is of the
//! same file or key, and whether that has changed since.

use std::{
    mem,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use slog::{Logger, info, o, warn};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    file::FileFault,
    list::{AddressList, ListBuilder, ListFault},
    redis::{RedisFault, Skipped},
    status::{SourceKind, SourceState},
};
use crate::{
    config::{RedisUrl, WhitelistConfig},
    event::{Address, Timestamp},
};

mod configured;
mod file;
mod redis;

pub use self::{
    configured::{ConfigSource, read as read_config},
    file::{FileSource, read as read_file},
    redis::{RedisSource, read as read_redis},
};

/// Where the lists lie in the state directory.
const FOLDER: &str = "whitelist";

/// Pause after a list could not be kept; it doubles from try to try. Each one writes the whole list:
/// 200 MB of ten million addresses.
const KEEP_AGAIN: Duration = Duration::from_secs(5);

const KEEP_AGAIN_MAX: Duration = Duration::from_secs(5 * 60);

/// Why there is no new list.
#[derive(Debug, thiserror::Error)]
pub enum WhitelistError {
    /// At the start the daemon refuses to run; later the old list stays.
    #[error("whitelist file {}: {fault}", path.display())]
    File { path: PathBuf, fault: FileFault },
    /// The last known list stays. A start without one refuses to run.
    #[error("whitelist key {key:?} in {url}: {fault}")]
    Redis { url: RedisUrl, key: String, fault: RedisFault },
    /// A key that had a list is gone: deleted on purpose, or by an accident such as FLUSHALL. The old
    /// list stays until that is confirmed.
    #[error(
        "whitelist key {key:?} in {url}: the key does not exist any more: fill it again, or reload \
         (SIGHUP) to confirm that nobody is listed there"
    )]
    Gone { url: RedisUrl, key: String },
    /// In the configuration.
    #[error("whitelist.addresses: {address:?} is not 0x and 40 hexadecimal digits")]
    BadAddress { address: String },
    /// The old list stays until the new one is confirmed.
    #[error(
        "whitelist {source_name}: the new list lost {removed} of {of} addresses, more than \
         whitelist.max_shrink allows: reload (SIGHUP) to confirm it"
    )]
    Shrunk { source_name: String, removed: usize, of: usize },
}

/// A folder of lists: that of the state directory, or one that a command throws away.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// What the last run kept of a source.
#[derive(Clone)]
pub struct Kept {
    pub list: AddressList,
    /// Of which file or key it is.
    identity: u64,
    loaded_at: Timestamp,
    /// By which the source recognises its content; empty: by nothing.
    content: Vec<u8>,
}

/// A source's list, and what is said of it.
pub struct Held {
    kind: SourceKind,
    name: String,
    identity: u64,
    list: AddressList,
    loaded_at: Timestamp,
    content: Vec<u8>,
    /// Whether the state directory has this list with this content.
    is_kept: bool,
    /// Why the source's present content is not used.
    fault: Option<String>,
    unkept: Option<Unkept>,
    skipped: Skipped,
    logger: Logger,
}

/// That the last try to keep the list failed.
struct Unkept {
    why: String,
    /// Until the next try.
    pause: Duration,
    since: Instant,
}

impl Unkept {
    fn new(why: String, before: Option<&Self>) -> Self {
        let pause = before.map_or(KEEP_AGAIN, |before| (2 * before.pause).min(KEEP_AGAIN_MAX));
        Self { why, pause, since: Instant::now() }
    }

    fn is_due(&self, now: Instant) -> bool {
        now >= self.since + self.pause
    }
}

impl Folder {
    pub fn of_state(state_dir: &Path) -> Self {
        Self(state_dir.join(FOLDER))
    }

    pub fn at(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    pub(super) fn builder(&self, kind: SourceKind) -> ListBuilder {
        ListBuilder::new(Some(&self.0), kind.as_str())
    }

    /// What the last run kept. What cannot be used is as good as nothing: the source has it.
    pub fn last(&self, kind: SourceKind, logger: &Logger) -> Option<Kept> {
        match AddressList::open(&self.0, kind.as_str()) {
            Ok(found) => found.and_then(|(list, stamp)| Kept::read(list, &stamp)),
            Err(error) => {
                warn!(logger, "last known whitelist cannot be used";
                    "source" => %kind, "error" => %error);
                None
            }
        }
    }

    /// Forgets a source that is configured no more. An empty list stands for none.
    pub fn forget(&self, kind: SourceKind) -> Result<(), ListFault> {
        AddressList::default().keep(&self.0, kind.as_str(), &[]).map(drop)
    }
}

impl Kept {
    fn read(list: AddressList, stamp: &[u8]) -> Option<Self> {
        let (identity, rest) = stamp.split_first_chunk()?;
        let (loaded_at, content) = rest.split_first_chunk()?;
        Some(Self {
            list,
            identity: u64::from_le_bytes(*identity),
            loaded_at: Timestamp(i64::from_le_bytes(*loaded_at)),
            content: content.to_owned(),
        })
    }
}

/// What is the same file or key as before.
fn identity(parts: &[&[u8]]) -> u64 {
    xxh3_64(&parts.join(&0))
}

impl Held {
    /// Nothing is known yet.
    fn new(kind: SourceKind, name: String, identity: u64, logger: &Logger) -> Self {
        Self {
            kind,
            name,
            identity,
            list: AddressList::default(),
            loaded_at: Timestamp::now(),
            content: Vec::new(),
            is_kept: false,
            fault: None,
            unkept: None,
            skipped: Skipped::default(),
            logger: logger.new(o!("source" => kind.as_str())),
        }
    }

    /// Goes on with what the last run kept, if that is of the same file or key.
    fn restore(&mut self, kept: Option<Kept>) -> bool {
        match kept {
            Some(kept) if kept.identity == self.identity => {
                (self.list, self.content) = (kept.list, kept.content);
                (self.loaded_at, self.is_kept) = (kept.loaded_at, true);
                true
            }
            _ => false,
        }
    }

    /// Takes what the source says now, unless it lost more than `max_shrink` of the old list; that
    /// is noted. Gives the old list, if the new one is another.
    ///
    /// # Errors
    /// With [`WhitelistError::Shrunk`]; the old list stays.
    fn take(
        &mut self,
        list: AddressList,
        content: Vec<u8>,
        max_shrink: Option<f64>,
    ) -> Result<Option<AddressList>, WhitelistError> {
        if self.list.len() == list.len() && self.list.iter().eq(list.iter()) {
            self.recognise(content);
            self.settle();
            return Ok(None);
        }
        if let Some(most) = max_shrink {
            let (of, removed) = (self.list.len(), self.list.difference(&list).count());
            if is_too_much(removed, of, most) {
                let error = WhitelistError::Shrunk { source_name: self.name.clone(), removed, of };
                self.note_fault(&error);
                return Err(error);
            }
        }
        let old = self.put(list, content);
        self.settle();
        Ok(Some(old))
    }

    /// Puts another list in the place of the old one, which it gives back.
    fn put(&mut self, list: AddressList, content: Vec<u8>) -> AddressList {
        self.is_kept = false;
        self.content = content;
        mem::replace(&mut self.list, list)
    }

    /// Notes by what the content of the list is recognised.
    fn recognise(&mut self, content: Vec<u8>) {
        if self.content != content {
            (self.content, self.is_kept) = (content, false);
        }
    }

    /// Notes that the list in use is what the source says.
    fn settle(&mut self) {
        self.loaded_at = Timestamp::now();
        if self.fault.take().is_some() {
            info!(self.logger, "whitelist source is well again"; "name" => &self.name);
        }
    }

    /// Whether this has been told, and still holds.
    fn is_noted(&self, error: &WhitelistError) -> bool {
        self.fault.as_ref() == Some(&error.to_string())
    }

    /// Tells once why the old list stays.
    pub fn note_fault(&mut self, error: &WhitelistError) {
        let text = error.to_string();
        if self.fault.as_ref() != Some(&text) {
            warn!(self.logger, "whitelist not replaced, the old one stays";
                "addresses" => self.list.len(), "error" => %error);
        }
        self.fault = Some(text);
    }

    /// Tells of members that are no addresses, once while their number is the same.
    fn note_skipped(&mut self, skipped: Skipped) {
        if skipped.count > 0 && skipped.count != self.skipped.count {
            warn!(self.logger, "members of the whitelist in Redis are no addresses and are skipped";
                "members" => skipped.count, "example" => &skipped.example);
        }
        self.skipped = skipped;
    }

    /// Makes the list the last known one, where it is not; not at every look when that fails. Gives
    /// whether it is another object now, which should be used in its place.
    pub fn keep(&mut self, folder: &Folder) -> bool {
        let is_due = |unkept: &Unkept| unkept.is_due(Instant::now());
        if self.is_kept || !self.unkept.as_ref().is_none_or(is_due) {
            return false;
        }
        let mut stamp = self.identity.to_le_bytes().to_vec();
        stamp.extend(self.loaded_at.0.to_le_bytes());
        stamp.extend(&self.content);
        match self.list.keep(&folder.0, self.kind.as_str(), &stamp) {
            Ok(list) => {
                (self.list, self.is_kept, self.unkept) = (list, true, None);
                true
            }
            Err(fault) => {
                let text = format!(
                    "whitelist {}: its list holds, but cannot be kept for the next start: {fault}",
                    self.name
                );
                if self.unkept.as_ref().is_none_or(|before| before.why != text) {
                    warn!(self.logger, "whitelist cannot be kept for the next start";
                        "error" => %fault);
                }
                self.unkept = Some(Unkept::new(text, self.unkept.as_ref()));
                false
            }
        }
    }

    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    pub fn list(&self) -> &AddressList {
        &self.list
    }

    /// Whether the list is the last known one.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    pub fn state(&self) -> SourceState {
        SourceState {
            kind: self.kind,
            name: self.name.clone(),
            size: self.list.len(),
            loaded_at: self.loaded_at,
            problem: self.fault.clone().or_else(|| Some(self.unkept.as_ref()?.why.clone())),
            is_used: self.fault.is_none(),
            skipped: self.skipped.count,
            skipped_example: self.skipped.example.clone(),
        }
    }
}

/// Whether a list lost so much that its source may be broken.
pub fn is_too_much(removed: usize, of: usize, max_shrink: f64) -> bool {
    removed as f64 > max_shrink * of as f64
}

#[cfg(test)]
mod tests {
    use slog::Discard;

    use super::*;

    #[test]
    fn a_list_that_cannot_be_kept_is_written_again_after_a_growing_pause() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("taken");
        std::fs::write(&place, "a file where the directory should be").unwrap();
        let folder = Folder::at(&place);
        let logger = Logger::root(Discard, o!());
        let mut held = Held::new(SourceKind::File, "list".to_owned(), 1, &logger);

        assert!(!held.keep(&folder));

        let first = held.unkept.as_ref().unwrap();
        assert!(held.state().problem.unwrap().contains("cannot be kept") && held.state().is_used);
        assert!(!first.is_due(first.since) && first.is_due(first.since + KEEP_AGAIN));
        let pauses: Vec<_> = std::iter::successors(Some(first.pause), |pause| {
            let before = Unkept { why: String::new(), pause: *pause, since: first.since };
            Some(Unkept::new(String::new(), Some(&before)).pause)
        })
        .take(9)
        .map(|pause| pause.as_secs())
        .collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);

        // The place is free again: not every look tries it, but the next one that is due does.
        std::fs::remove_file(&place).unwrap();
        held.keep(&folder);
        assert!(!held.is_kept());
        held.unkept.as_mut().unwrap().pause = Duration::ZERO;
        assert!(held.keep(&folder) && held.is_kept());
        assert_eq!(held.state().problem, None);
    }
}

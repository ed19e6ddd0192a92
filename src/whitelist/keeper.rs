//! Owns the whitelist's sources, watches them and hands every new list to the filters.
//!
//! Place in the pipeline: beside it. `WhitelistKeeper` -[`ReplaceWhitelist`]-> each
//! `WhitelistFilter`. Reading and building a long list takes seconds, so it runs on a thread that
//! serves nobody else.
//! A list in Redis is asked for on that thread too, one request at a time; see `follow`.
//! Invariants: a list that is faulty, cannot be read, or lost more than `max_shrink` of its
//! addresses replaces nothing: the old list stays and the status tells why, until the source is
//! mended or the shrink is confirmed by [`ReloadWhitelist`].

use std::{
    fs, io, mem,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use actix::prelude::*;
use ahash::HashSet;
use inotify::{EventMask, EventOwned, Inotify, WatchMask};
use serde::Serialize;
use slog::{Logger, error, info, o, warn};

use super::{
    change::{ListChanged, WhitelistChange},
    file::{self, FileFault},
    filter::ReplaceWhitelist,
    redis::{RedisFault, RedisList},
    set::Whitelist,
};
use crate::{
    config::{RedisUrl, WhitelistConfig},
    event::{Address, Timestamp},
};

mod follow;

/// Bytes for the events of one read from inotify: some hundred.
const EVENT_BUFFER_BYTES: usize = 16 << 10;

/// Reads the sources again and accepts what they say, a large shrink too. Sent on SIGHUP.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<WhitelistChange, WhitelistError>")]
pub struct ReloadWhitelist;

/// Why there is no new list.
#[derive(Debug, thiserror::Error)]
pub enum WhitelistError {
    /// At the start the daemon refuses to run; later the old list stays.
    #[error("whitelist file {}: {fault}", path.display())]
    File { path: PathBuf, fault: FileFault },
    /// At the start the daemon refuses to run; later the old list stays.
    #[error("whitelist key {key:?} in {url}: {fault}")]
    Redis { url: RedisUrl, key: String, fault: RedisFault },
    /// In the configuration.
    #[error("whitelist.addresses: {address:?} is not 0x and 40 hexadecimal digits")]
    BadAddress { address: String },
    /// The old list stays until the new one is confirmed.
    #[error(
        "the new list lost {removed} of {of} addresses, more than whitelist.max_shrink allows: \
         reload (SIGHUP) to confirm it"
    )]
    Shrunk { removed: usize, of: usize },
}

/// What status answers tell about the whitelist.
#[derive(Clone, Debug, Serialize)]
pub struct WhitelistState {
    /// Number of listed addresses; `None`: everybody.
    pub size: Option<usize>,
    /// Where the list comes from.
    pub source: String,
    /// When the list that holds now was read.
    pub loaded_at: Timestamp,
    /// Why the source's present content is not used; `None` while all is well.
    pub problem: Option<String>,
    /// Members of the source that are no addresses.
    pub skipped: usize,
    /// One of them.
    pub skipped_example: Option<String>,
}

/// [`WhitelistState`], shared between the keeper and those who tell it.
#[derive(Debug)]
pub struct WhitelistStatus(Mutex<WhitelistState>);

/// The actor.
pub struct WhitelistKeeper {
    config: WhitelistConfig,
    list: Arc<Whitelist>,
    filters: Vec<Recipient<ReplaceWhitelist>>,
    /// Who wants to know of changes.
    listener: Option<Recipient<ListChanged>>,
    status: Arc<WhitelistStatus>,
    /// The file as it was when it was last read, whatever came of it.
    read: Option<FileStamp>,
    /// A change that the timer saw. It is read when it looks the same one interval later: a file
    /// that is still being written is not.
    settling: Option<FileStamp>,
    /// Where the list is in Redis; away while it is asked.
    redis: Option<RedisList>,
    /// Digest of the members of Redis that the list holds.
    digest: Option<u64>,
    /// Looks at Redis that failed since the last one that did not.
    failures: u32,
    logger: Logger,
}

/// By which a change of a file is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    modified: Option<SystemTime>,
    size: u64,
    inode: u64,
}

impl WhitelistStatus {
    pub fn get(&self) -> WhitelistState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut WhitelistState)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl WhitelistKeeper {
    /// Reads the first list, from wherever it is.
    ///
    /// # Errors
    /// When a source is faulty: without a whole list nothing should start.
    pub async fn open(config: &WhitelistConfig, logger: &Logger) -> Result<Self, WhitelistError> {
        match &config.redis_url {
            Some(url) if !config.all => Self::open_redis(url, config, logger).await,
            _ => Self::load(config, logger),
        }
    }

    /// Reads the first list of file and configuration.
    fn load(config: &WhitelistConfig, logger: &Logger) -> Result<Self, WhitelistError> {
        let read = config.file.as_deref().and_then(|path| FileStamp::of(path).ok());
        let list = if config.all {
            Whitelist::all()
        } else {
            Whitelist::build(read_sources(config, logger)?, config)
        };
        Ok(Self { read, ..Self::with(list, config, logger) })
    }

    fn with(list: Whitelist, config: &WhitelistConfig, logger: &Logger) -> Self {
        let logger = logger.new(o!("actor" => "whitelist_keeper"));
        let state = WhitelistState {
            size: list.size(),
            source: source_of(config),
            loaded_at: Timestamp::now(),
            problem: None,
            skipped: 0,
            skipped_example: None,
        };
        info!(logger, "whitelist loaded"; "whitelist" => ?list, "source" => &state.source);
        let keeper = Self {
            config: config.clone(),
            list: Arc::new(list),
            filters: Vec::new(),
            listener: None,
            status: Arc::new(WhitelistStatus(Mutex::new(state))),
            read: None,
            settling: None,
            redis: None,
            digest: None,
            failures: 0,
            logger,
        };
        keeper.warn_if_empty();
        keeper
    }

    /// The list that holds now: what the filters are born with.
    pub fn list(&self) -> Arc<Whitelist> {
        self.list.clone()
    }

    pub fn status(&self) -> Arc<WhitelistStatus> {
        self.status.clone()
    }

    /// Names the filters that get every new list.
    pub fn feed(mut self, filters: Vec<Recipient<ReplaceWhitelist>>) -> Self {
        self.filters = filters;
        self
    }

    /// Names who is told of every change, when the filters have the new list.
    pub fn tell(mut self, listener: Recipient<ListChanged>) -> Self {
        self.listener = Some(listener);
        self
    }

    /// The file that is watched.
    fn watched(&self) -> Option<&Path> {
        self.config.file.as_deref().filter(|_| !self.config.all)
    }

    /// Reads the sources and replaces the list, or notes why not.
    fn reload(&mut self, accept_shrink: bool) -> Result<WhitelistChange, WhitelistError> {
        if self.config.all {
            return Ok(WhitelistChange { added: 0, removed: 0 });
        }
        // Taken before reading, so that a change in the meantime is noticed by the timer.
        self.read = self.watched().and_then(|path| FileStamp::of(path).ok());
        self.settling = None;
        let result = read_sources(&self.config, &self.logger)
            .and_then(|addresses| self.replace(addresses, accept_shrink));
        match &result {
            Ok(_) => self.settle(),
            Err(error) => self.note_problem(error),
        }
        result
    }

    fn replace(
        &mut self,
        addresses: HashSet<Address>,
        accept_shrink: bool,
    ) -> Result<WhitelistChange, WhitelistError> {
        let old_size = self.list.size().unwrap_or_default();
        let change = match self.list.exact() {
            Some(old) => WhitelistChange {
                added: addresses.difference(old).count(),
                removed: old.difference(&addresses).count(),
            },
            None => WhitelistChange {
                added: addresses.len().saturating_sub(old_size),
                removed: old_size.saturating_sub(addresses.len()),
            },
        };
        let most = self.config.max_shrink * old_size as f64;
        if change.removed as f64 > most && !accept_shrink {
            return Err(WhitelistError::Shrunk { removed: change.removed, of: old_size });
        }
        // Equal sizes prove nothing when the addresses themselves are not kept.
        let same = change.added == 0 && change.removed == 0 && self.list.exact().is_some();
        if !same {
            let new = Arc::new(Whitelist::build(addresses, &self.config));
            let old = mem::replace(&mut self.list, new);
            for filter in &self.filters {
                filter.do_send(ReplaceWhitelist(self.list.clone()));
            }
            if let (Some(listener), Some(old)) = (&self.listener, old.exact()) {
                let new = self.list.exact().into_iter().flatten().copied();
                let mut added: Vec<_> = new.filter(|address| !old.contains(address)).collect();
                added.sort_unstable();
                let exact = self.list.exact();
                let removed =
                    old.iter().filter(|address| !exact.is_some_and(|new| new.contains(address)));
                listener.do_send(ListChanged::of(added, removed.copied()));
            }
            info!(self.logger, "whitelist reloaded"; "whitelist" => ?self.list,
                "added" => change.added, "removed" => change.removed);
            self.warn_if_empty();
        }
        Ok(change)
    }

    /// Notes that the list in use is what the sources say.
    fn settle(&self) {
        let size = self.list.size();
        let mut had_problem = false;
        self.status.update(|state| {
            (state.size, state.loaded_at) = (size, Timestamp::now());
            had_problem = state.problem.take().is_some();
        });
        if had_problem {
            info!(self.logger, "whitelist source is well again");
        }
    }

    /// Tells once that the old list stays.
    fn note_problem(&self, error: &WhitelistError) {
        let text = error.to_string();
        let mut is_new = false;
        self.status.update(|state| {
            is_new = state.problem.as_ref() != Some(&text);
            state.problem = Some(text);
        });
        if is_new {
            warn!(self.logger, "whitelist not replaced, the old one stays";
                "whitelist" => ?self.list, "error" => %error);
        }
    }

    fn warn_if_empty(&self) {
        if self.list.size() == Some(0) {
            warn!(self.logger, "the whitelist is empty: nobody's events are kept");
        }
    }

    /// Reads the file when it has changed. Answers are in the log and the status.
    fn reload_if_changed(&mut self) {
        let Some(path) = self.watched() else { return };
        match FileStamp::of(path) {
            Ok(stamp) if self.read == Some(stamp) => self.settling = None,
            Ok(stamp) if self.settling == Some(stamp) => self.reload_and_tell(),
            Ok(stamp) => self.settling = Some(stamp),
            Err(fault) => {
                let error = WhitelistError::File { path: path.to_owned(), fault: fault.into() };
                // The same file may come back: it is then to be read.
                self.read = None;
                self.note_problem(&error);
            }
        }
    }

    fn reload_and_tell(&mut self) {
        if let Err(error) = self.reload(false) {
            slog::debug!(self.logger, "whitelist not reloaded"; "error" => %error);
        }
    }

    /// Watches the directory of the file: an editor replaces the file itself.
    fn watch(&self, path: &Path, ctx: &mut Context<Self>) -> io::Result<()> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let inotify = Inotify::init()?;
        inotify.watches().add(directory, WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO)?;
        ctx.add_stream(inotify.into_event_stream(vec![0; EVENT_BUFFER_BYTES])?);
        Ok(())
    }
}

/// All addresses of all sources.
fn read_sources(
    config: &WhitelistConfig,
    logger: &Logger,
) -> Result<HashSet<Address>, WhitelistError> {
    let mut addresses = HashSet::default();
    if let Some(path) = &config.file {
        let list =
            file::read(path).map_err(|fault| WhitelistError::File { path: path.clone(), fault })?;
        if list.duplicates > 0 {
            info!(logger, "addresses stand in the whitelist file more than once";
                "path" => %path.display(), "duplicates" => list.duplicates);
        }
        addresses = list.addresses;
    }
    add_configured(config, &mut addresses)?;
    Ok(addresses)
}

fn add_configured(
    config: &WhitelistConfig,
    addresses: &mut HashSet<Address>,
) -> Result<(), WhitelistError> {
    for text in &config.addresses {
        let address = text
            .trim()
            .parse()
            .map_err(|_| WhitelistError::BadAddress { address: text.clone() })?;
        addresses.insert(address);
    }
    Ok(())
}

fn source_of(config: &WhitelistConfig) -> String {
    let configured = config.addresses.len();
    let list = match (&config.file, &config.redis_url) {
        _ if config.all => return "all".to_owned(),
        (Some(path), _) => path.display().to_string(),
        (None, Some(url)) => format!("{url} {}", config.redis_key),
        (None, None) => return format!("{configured} configured addresses"),
    };
    if configured == 0 { list } else { format!("{list} and {configured} configured addresses") }
}

impl FileStamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let modified = metadata.modified().ok();
        Ok(Self { modified, size: metadata.len(), inode: metadata.ino() })
    }
}

impl Actor for WhitelistKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if self.redis.is_some() {
            self.look_later(ctx);
        }
        let Some(path) = self.watched().map(Path::to_owned) else { return };
        if let Err(error) = self.watch(&path, ctx) {
            warn!(self.logger, "whitelist file is not watched, only looked at on a timer";
                "path" => %path.display(), "error" => %error);
        }
        // What changed between loading and watching.
        if FileStamp::of(&path).ok() != self.read {
            self.reload_and_tell();
        }
        ctx.run_interval(self.config.refresh_interval, |keeper, _| keeper.reload_if_changed());
    }
}

impl StreamHandler<io::Result<EventOwned>> for WhitelistKeeper {
    fn handle(&mut self, event: io::Result<EventOwned>, _ctx: &mut Self::Context) {
        let Some(path) = self.watched() else { return };
        match event {
            // An overflow may have swallowed the event of our file.
            Ok(event) if event.mask.contains(EventMask::Q_OVERFLOW) => self.reload_and_tell(),
            Ok(event) if event.name.is_some() && event.name.as_deref() == path.file_name() => {
                self.reload_and_tell();
            }
            Ok(_) => {}
            Err(error) => error!(self.logger, "watch of the whitelist file failed";
                "path" => %path.display(), "error" => %error),
        }
    }

    /// The timer goes on looking when the watch ends.
    fn finished(&mut self, _ctx: &mut Self::Context) {}
}

impl Handler<ReloadWhitelist> for WhitelistKeeper {
    /// No look at Redis runs beside it: the older of two scans could win.
    type Result = AtomicResponse<Self, Result<WhitelistChange, WhitelistError>>;

    fn handle(&mut self, _: ReloadWhitelist, _ctx: &mut Self::Context) -> Self::Result {
        AtomicResponse::new(match self.redis.take() {
            Some(redis) => self.confirm(redis),
            None => Box::pin(fut::ready(self.reload(true))),
        })
    }
}

#[cfg(test)]
mod tests;

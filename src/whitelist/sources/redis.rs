//! A list in Redis: looked at in short intervals, with growing pauses while it is away.

use std::{sync::Arc, time::Duration};

use slog::{Logger, warn};
use tokio::sync::Mutex;

use super::{
    super::redis::{News, RedisFault, RedisList, SHORT_LIST, Scan},
    AddressList, Folder, Held, Kept, SourceKind, WhitelistConfig, WhitelistError, identity,
};
use crate::{config::RedisUrl, event::Timestamp};

/// Pause after the first failed look; it doubles with each further one,
const FIRST_RETRY: Duration = Duration::from_millis(250);

/// up to this.
const LAST_RETRY: Duration = Duration::from_secs(5);

/// `whitelist.redis_url` and `whitelist.redis_key`.
pub struct RedisSource {
    url: RedisUrl,
    key: String,
    pub held: Held,
    /// Whether a list of this key is known, an empty one too.
    is_known: bool,
    /// One request is under way at a time; who wants the next one waits.
    server: Arc<Mutex<RedisList>>,
    /// Looks that failed since the last one that did not.
    failures: u32,
    /// The pause until the next look while none fails.
    pause: Duration,
}

/// What Redis answered, for the source to take.
pub struct Answer<T> {
    found: Result<T, RedisFault>,
    /// The pause until the next look, unless this one failed.
    pause: Duration,
}

impl RedisSource {
    /// Reads the list. When Redis cannot give it, that of the last run is used and its state tells
    /// why. A long one of the last run is used at once and compared when the daemon runs.
    ///
    /// # Errors
    /// When Redis cannot give the list and none is known.
    pub async fn open(
        url: &RedisUrl,
        config: &WhitelistConfig,
        kept: Option<Kept>,
        folder: &Folder,
        logger: &Logger,
    ) -> Result<Self, WhitelistError> {
        let key = &config.redis_key;
        let server = RedisList::new(url, key, folder.clone());
        let server = server.map_err(|fault| fault_of(url, key, fault))?;
        let shown = url.to_string();
        let identity = identity(&[shown.as_bytes(), key.as_bytes()]);
        let mut held = Held::new(SourceKind::Redis, format!("{shown} {key}"), identity, logger);
        let is_known = held.restore(kept);
        let mut source = Self {
            url: url.clone(),
            key: key.clone(),
            held,
            is_known,
            server: Arc::new(Mutex::new(server)),
            failures: 0,
            pause: Duration::ZERO,
        };
        if is_known && source.held.list.len() as u64 > SHORT_LIST {
            return Ok(source);
        }
        let answer = source.scan(config.refresh_interval, source.digest()).await;
        // The keeper goes on on a thread of its own.
        source.server.lock().await.disconnect();
        let max_shrink = is_known.then_some(config.max_shrink);
        match source.take(answer.map(News::Whole), max_shrink) {
            Err(error) if !is_known => Err(error),
            Err(_) => {
                warn!(logger, "start with the last known whitelist of Redis";
                    "addresses" => source.held.list.len(),
                    "age_secs" => Timestamp::now().since(source.held.loaded_at).as_secs());
                Ok(source)
            }
            Ok(_) => Ok(Self { is_known: true, ..source }),
        }
    }

    /// The pause until the next look.
    pub fn pause(&self) -> Duration {
        match self.failures {
            0 => self.pause,
            failures => retry_after(failures),
        }
    }

    /// Asks for what is new.
    pub fn look(&self, refresh_interval: Duration) -> impl Future<Output = Answer<News>> + use<> {
        let (server, list, digest) = (self.server.clone(), self.held.list.clone(), self.digest());
        async move {
            let mut server = server.lock().await;
            let found = server.look(&list, digest).await;
            Answer { found, pause: server.pause(refresh_interval) }
        }
    }

    /// Asks for everything. Without the digest of a known list it is built in any case.
    pub fn scan(
        &self,
        refresh_interval: Duration,
        digest: Option<u64>,
    ) -> impl Future<Output = Answer<Scan>> + use<> {
        let server = self.server.clone();
        async move {
            let mut server = server.lock().await;
            let found = server.scan(digest).await;
            Answer { found, pause: server.pause(refresh_interval) }
        }
    }

    /// Takes an answer. Gives the old list, if the new one is another. Without `max_shrink` the answer
    /// is confirmed, however much it lost; that the key is gone, if that had been told before.
    ///
    /// # Errors
    /// When there is no list or it lost too much; the old one stays, and that is told.
    pub fn take(
        &mut self,
        answer: Answer<News>,
        max_shrink: Option<f64>,
    ) -> Result<Option<AddressList>, WhitelistError> {
        self.pause = answer.pause;
        self.failures = if answer.found.is_err() { self.failures.saturating_add(1) } else { 0 };
        match answer.found {
            Err(RedisFault::Missing) if self.is_known => self.take_gone(max_shrink.is_none()),
            Err(fault) => {
                let error = fault_of(&self.url, &self.key, fault);
                // Else there is no old list that stays, and whoever starts says why nothing does.
                if self.is_known {
                    self.held.note_fault(&error);
                }
                Err(error)
            }
            // What a scan refused is still refused: only the next one can say that all is well.
            Ok(News::Nothing) => Ok(None),
            Ok(News::Added { addresses, digest }) => {
                let content = match self.digest() {
                    Some(old) => content_of(old.wrapping_add(digest)),
                    None => Vec::new(),
                };
                let list = self.held.list.changed(addresses, []);
                Ok(Some(self.held.put(list, content)))
            }
            Ok(News::Whole(scan)) => self.take_scan(scan, max_shrink),
        }
    }

    /// A key that had a list is not there.
    fn take_gone(&mut self, confirms: bool) -> Result<Option<AddressList>, WhitelistError> {
        let error = WhitelistError::Gone { url: self.url.clone(), key: self.key.clone() };
        if self.held.list.is_empty() || (confirms && self.held.is_noted(&error)) {
            // Redis answers, and as is known: the pause is that of a key that is there.
            self.failures = 0;
            return self.held.take(AddressList::default(), Vec::new(), None);
        }
        self.held.note_fault(&error);
        Err(error)
    }

    fn take_scan(
        &mut self,
        scan: Scan,
        max_shrink: Option<f64>,
    ) -> Result<Option<AddressList>, WhitelistError> {
        self.held.note_skipped(scan.skipped);
        match scan.list {
            Some(list) => self.held.take(list, content_of(scan.digest), max_shrink),
            None if self.digest() == Some(scan.digest) => {
                self.held.settle();
                Ok(None)
            }
            // It was compared with a list that was replaced meanwhile: the next one will tell.
            None => Ok(None),
        }
    }

    /// The digest of the list's members.
    fn digest(&self) -> Option<u64> {
        self.held.content.as_slice().try_into().ok().map(u64::from_le_bytes)
    }
}

impl<T> Answer<T> {
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { found: self.found.map(change), pause: self.pause }
    }
}

/// The list of a key, read once.
///
/// # Errors
/// When Redis cannot give it.
pub async fn read(
    url: &RedisUrl,
    key: &str,
    folder: &Folder,
) -> Result<AddressList, WhitelistError> {
    let fault = |fault| fault_of(url, key, fault);
    let mut server = RedisList::new(url, key, folder.clone()).map_err(fault)?;
    let scan = server.scan(None).await.map_err(fault)?;
    Ok(scan.list.unwrap_or_default())
}

fn content_of(digest: u64) -> Vec<u8> {
    digest.to_le_bytes().to_vec()
}

fn fault_of(url: &RedisUrl, key: &str, fault: RedisFault) -> WhitelistError {
    WhitelistError::Redis { url: url.clone(), key: key.to_owned(), fault }
}

fn retry_after(failures: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LAST_RETRY)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        config::{Inputs, Need},
        event::Address,
        testing::log,
    };

    fn config(key: &str) -> WhitelistConfig {
        let given = [
            // Nobody listens there.
            ("NODECAST_WHITELIST__REDIS_URL", "redis://127.0.0.1:1"),
            ("NODECAST_WHITELIST__REDIS_KEY", key),
            ("HOME", "/home/node"),
        ];
        let environment = given.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let inputs = Inputs { environment, ..Inputs::default() };
        inputs.load(Need::Nothing).unwrap().config.whitelist
    }

    /// A folder that keeps a list of one address, read from the key `one`.
    fn with_a_list_of_one(directory: &Path) -> Folder {
        let folder = Folder::at(directory);
        let url = config("one").redis_url.unwrap();
        let of_one = identity(&[url.to_string().as_bytes(), b"one"]);
        let mut held = Held::new(SourceKind::Redis, "one".to_owned(), of_one, &log());
        held.take([Address([1; 20])].into_iter().collect(), Vec::new(), None).unwrap();
        held.keep(&folder);
        folder
    }

    #[actix_rt::test]
    async fn the_list_of_another_key_is_not_the_last_known_one() {
        let directory = tempfile::tempdir().unwrap();
        let folder = with_a_list_of_one(directory.path());
        let url = config("one").redis_url.unwrap();
        let open = async |key: &str| {
            let kept = folder.last(SourceKind::Redis, &log());
            RedisSource::open(&url, &config(key), kept, &folder, &log()).await
        };

        assert_eq!(open("one").await.unwrap().held.list().len(), 1);
        assert!(matches!(open("two").await, Err(WhitelistError::Redis { .. })));
    }

    #[actix_rt::test]
    async fn a_key_that_is_gone_waits_for_its_confirmation_and_is_no_fault_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let folder = with_a_list_of_one(directory.path());
        let url = config("one").redis_url.unwrap();
        let kept = folder.last(SourceKind::Redis, &log());
        let mut source =
            RedisSource::open(&url, &config("one"), kept, &folder, &log()).await.unwrap();
        let gone = || Answer { found: Err(RedisFault::Missing), pause: Duration::from_secs(1) };

        // What was not told yet cannot be meant by a confirmation; a look confirms nothing.
        for max_shrink in [None, Some(0.2), Some(1.0)] {
            let refused = source.take(gone(), max_shrink);
            assert!(matches!(refused, Err(WhitelistError::Gone { .. })), "{refused:?}");
            assert_eq!(source.held.list().len(), 1);
        }
        assert_eq!(source.take(gone(), None).unwrap().unwrap().len(), 1);

        assert!(source.take(gone(), Some(0.2)).unwrap().is_none());
        assert_eq!((source.held.list().len(), source.held.state().problem), (0, None));
        assert_eq!(source.pause(), Duration::from_secs(1));
    }

    #[test]
    fn the_pause_between_failed_looks_grows_up_to_five_seconds() {
        let pauses = [1, 2, 3, 5, 6, u32::MAX].map(|failures| retry_after(failures).as_millis());

        assert_eq!(pauses, [250, 500, 1_000, 4_000, 5_000, 5_000]);
    }
}

//! Tools of the unit tests.

pub mod samples;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actix::prelude::*;
use slog::{Discard, Drain, KV, Logger, Never, OwnedKVList, Record, Serializer, o};
use tempfile::TempDir;

use crate::{
    config::{Config, LiveConfig, StoreConfig},
    delivery::Foundation,
    router::log::Log,
    source::node,
    store,
    whitelist::{Listing, Whitelist},
};

/// An actor that keeps every message it gets.
pub struct Probe<M> {
    received: Arc<Mutex<Vec<M>>>,
}

/// The test's end of a [`Probe`].
pub struct ProbeHandle<M: Message<Result = ()> + Send + Unpin + 'static> {
    address: Addr<Probe<M>>,
    received: Arc<Mutex<Vec<M>>>,
}

impl<M: Message<Result = ()> + Send + Unpin + 'static> Probe<M> {
    /// Starts a probe in the arbiter of the test.
    pub fn start() -> ProbeHandle<M> {
        let received = Arc::new(Mutex::new(Vec::new()));
        let address = Actor::start(Self { received: received.clone() });
        ProbeHandle { address, received }
    }
}

impl<M: Message<Result = ()> + Send + Unpin + 'static> ProbeHandle<M> {
    pub fn recipient(&self) -> Recipient<M> {
        self.address.clone().recipient()
    }

    /// Takes what has come so far, after every message that is already under way on this arbiter.
    pub async fn take(&self) -> Vec<M> {
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
        std::mem::take(&mut *self.lock())
    }

    /// Waits until at least `count` messages have come, and takes all.
    ///
    /// # Panics
    /// When they do not come within [`PATIENCE`].
    pub async fn take_at_least(&self, count: usize) -> Vec<M> {
        let what = format!("{count} messages come");
        until(&what, async || self.lock().len() >= count).await;
        std::mem::take(&mut *self.lock())
    }
}

impl<M: Message<Result = ()> + Send + Unpin + 'static> ProbeHandle<M> {
    fn lock(&self) -> MutexGuard<'_, Vec<M>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Message<Result = ()> + Send + Unpin + 'static> Actor for Probe<M> {
    type Context = Context<Self>;
}

impl<M: Message<Result = ()> + Send + Unpin + 'static> Handler<M> for Probe<M> {
    type Result = ();

    fn handle(&mut self, message: M, _ctx: &mut Self::Context) {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).push(message);
    }
}

/// How long a test waits for what has to happen. Only broken code needs so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until a condition holds.
///
/// # Panics
/// When it does not hold within [`PATIENCE`].
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "did not happen: {what}");
        actix_rt::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A logger that says nothing.
pub fn log() -> Logger {
    Logger::root(Discard, o!())
}

/// What a [`recorded_log`] was told: a line a record, the message and then `key=value`.
#[derive(Clone, Default)]
pub struct Records(Arc<Mutex<Vec<String>>>);

impl Records {
    /// The lines that hold this text.
    pub fn with(&self, text: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line.contains(text)).cloned().collect()
    }
}

struct Pairs(String);

impl Serializer for Pairs {
    fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments) -> slog::Result {
        self.0 += &format!(" {key}={value}");
        Ok(())
    }
}

impl Drain for Records {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record, _values: &OwnedKVList) -> Result<(), Never> {
        let mut pairs = Pairs(format!("{} {}", record.level(), record.msg()));
        if record.kv().serialize(record, &mut pairs).is_err() {
            pairs.0 += " (pairs that cannot be shown)";
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(pairs.0);
        Ok(())
    }
}

/// A logger whose records can be read.
pub fn recorded_log() -> (Logger, Records) {
    let records = Records::default();
    (Logger::root(records.clone(), o!()), records)
}

/// What delivery stands on: a store in a folder of its own, everybody listed, fills alone, nobody's log.
pub async fn foundation(log: Arc<Log>) -> (Foundation, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("nodecast.db").display());
    let foundation = Foundation {
        store: store::open(&url, &StoreConfig::default()).await.unwrap(),
        log,
        readers: Arc::default(),
        config: Arc::new(LiveConfig::new(Config::default())),
        listing: Listing::unchanging(Whitelist::all()),
        stats: Arc::default(),
        keys: node::keys_of,
        earlier_runs: Vec::new(),
        topics: vec![node::FILLS],
        logger: self::log(),
    };
    (foundation, folder)
}

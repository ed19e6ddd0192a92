//! Delivery: sessions (WebSockets, streams, polls), and the shards that feed them from the log.
//!
//! Place in the pipeline: `Router` -> log -> `Shard`, one per HTTP worker -> outboxes ->
//! sessions. Knows the router and the store's order, nothing of sources.
//! Invariants: one client's slowness is its own; a frame is encoded once per dialect and shared, and what
//! several sessions of a worker get of a burst is put together once; every frame that was queued is either
//! sent or counted as dropped.

mod body;
mod bundle;
pub mod close;
pub mod deflate;
pub mod dialect;
pub mod drain;
pub mod feed;
pub mod frame;
pub mod index;
mod lobby;
mod members;
mod outbox;
mod outlet;
pub mod peer;
pub mod policy;
mod rate;
mod relief;
pub mod replay;
mod seat;
mod server;
mod session;
pub mod set;
mod shard;
mod socket;
pub mod subscription;
pub mod view;

use std::sync::Arc;

use slog::{Logger, o};

use self::replay::{KeysOf, Pages};
pub use self::{close::CloseReason, server::serve, set::SessionSet};
use crate::{
    config::LiveConfig,
    event::Topic,
    official::info::Info,
    router::{log::Log, readers::Readers},
    stats::Stats,
    store::{EarlierRun, EventStore},
    whitelist::Listing,
};

/// What all workers share.
pub struct Casting {
    pub log: Arc<Log>,
    pub readers: Arc<Readers>,
    pub sessions: Arc<SessionSet>,
    /// What has been, for those who are behind.
    pub pages: Pages,
    pub stats: Arc<Stats>,
    pub config: Arc<LiveConfig>,
    /// Answers of the official protocol.
    pub info: Arc<Info>,
    /// Whose events are kept.
    pub listing: Arc<Listing>,
    /// What clients may subscribe to.
    pub topics: Vec<Topic>,
    pub logger: Logger,
}

/// What delivery stands on.
pub struct Foundation {
    pub store: Arc<dyn EventStore>,
    pub log: Arc<Log>,
    pub readers: Arc<Readers>,
    pub config: Arc<LiveConfig>,
    pub listing: Arc<Listing>,
    pub stats: Arc<Stats>,
    pub keys: KeysOf,
    /// Oldest first.
    pub earlier_runs: Vec<EarlierRun>,
    pub topics: Vec<Topic>,
    pub logger: Logger,
}

impl Casting {
    pub fn new(foundation: Foundation) -> Arc<Self> {
        let Foundation { store, log, readers, config, listing, stats, topics, .. } = foundation;
        let Foundation { keys, earlier_runs, logger, .. } = foundation;
        let info = Info::new(
            store.clone(),
            log.clone(),
            config.clone(),
            listing.clone(),
            stats.clone(),
            logger.new(o!("component" => "info")),
        );
        Arc::new(Self {
            sessions: SessionSet::new(stats.clone()),
            pages: Pages::new(store, log.clone(), keys, earlier_runs, stats.clone()),
            info: Arc::new(info),
            log,
            readers,
            stats,
            config,
            listing,
            topics,
            logger: logger.new(o!("component" => "delivery")),
        })
    }

    /// Whether more waits for all clients together than may.
    pub fn is_too_full(&self) -> bool {
        self.waiting_bytes() > self.config.get().session.outbox_total_bytes
    }

    /// Most bytes that are queued for each of those who are behind. What has been may wait where it is, so as soon
    /// as a quarter of what may wait does, they share another one: who is live finds room, and nobody has to be
    /// closed for it.
    fn replay_room(&self) -> usize {
        let quarter = self.config.get().session.outbox_total_bytes / 4;
        let behind = usize::try_from(self.stats.sessions.behind.get()).unwrap_or(0);
        if self.waiting_bytes() < quarter { usize::MAX } else { (quarter / behind.max(1)).max(1) }
    }

    /// What waits for all clients together, as of the last flush of each outbox.
    fn waiting_bytes(&self) -> usize {
        // Below zero for a moment where one thread counts what went before another what came.
        usize::try_from(self.stats.sessions.outbox_bytes.get()).unwrap_or(0)
    }
}

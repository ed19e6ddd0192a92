//! The wiring: the only place that knows every actor, and the order of living and dying.
//!
//! Downstream first, so that an actor is born with every address that it needs. Stop order:
//! sources, pipeline, writer (last flush), sessions (each told why), server.

mod panic;
mod signals;
mod supervisor;

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::prelude::*;
use actix_server::ServerHandle;
use anyhow::Context as _;
use async_trait::async_trait;
use slog::{Logger, info, o, warn};
use tokio::sync::watch;

use self::supervisor::{Begin, StopSupervising, Supervisor};
pub use self::supervisor::Fault;
use crate::{
    config::Config,
    delivery::{self, Casting},
    event::{EventId, Topic},
    http::{self, ApiState},
    router::{
        Router, StoredIds,
        log::{Heads, Log},
        readers::Readers,
    },
    source::{
        Budget, Horizon,
        node::{FileWatcher, Parser, StopReading},
        quarantine::Quarantine,
    },
    stats::Stats,
    store::{self, DbWriter, EventStore, Flush},
    whitelist::{ReloadWhitelist, WhitelistFilter, WhitelistKeeper},
};

/// How long stopping may take in all; the service manager kills after more.
const STOP_WITHIN: Duration = Duration::from_secs(9);

/// Runs until a signal or a fault ends it.
///
/// # Errors
/// When the daemon cannot start, or an invariant broke while it ran; the text says which.
pub fn run(config: Config, logger: Logger) -> anyhow::Result<()> {
    panic::abort_on_essential_threads();
    System::new().block_on(async move {
        let signals = signals::Signals::listen().context("cannot listen for signals")?;
        let daemon = Daemon::start(config, &logger).await?;
        daemon.until_stopped(signals).await
    })
}

/// A daemon that lives.
pub struct Daemon {
    address: SocketAddr,
    watchers: Vec<Addr<FileWatcher>>,
    budgets: Vec<Arc<Budget>>,
    writer: Addr<DbWriter>,
    keeper: Addr<WhitelistKeeper>,
    supervisor: Addr<Supervisor>,
    sessions: Arc<Casting>,
    server: ServerHandle,
    /// Threads of the pipeline, stopped last.
    threads: Vec<Arbiter>,
    faults: watch::Receiver<Option<Arc<Fault>>>,
    logger: Logger,
}

/// Lets the Router ask the store without knowing it.
struct AskStore(Arc<dyn EventStore>);

#[async_trait]
impl StoredIds for AskStore {
    async fn stored(
        &self,
        ids: Vec<EventId>,
    ) -> Result<std::collections::HashSet<EventId>, String> {
        self.0.stored(ids).await.map_err(|error| error.to_string())
    }
}

impl Daemon {
    /// Starts everything; returns when the port answers and the first read is on its way.
    pub async fn start(config: Config, logger: &Logger) -> anyhow::Result<Self> {
        create_state_dir(&config.state_dir)?;
        let listener = TcpListener::bind(config.http.listen)
            .with_context(|| format!("cannot listen on {}", config.http.listen))?;
        let address = listener.local_addr()?;
        let stats = Arc::new(Stats::default());
        let quarantine =
            Arc::new(Quarantine::open(&config.state_dir, config.source.quarantine_max_bytes)?);
        let (keeper, whitelist) = WhitelistKeeper::load(&config.whitelist, &stats, logger)?;

        let store = store::open(&config.store.url, &config.store)?;
        let (writer, recovered) = store.open_writer().await?;
        info!(logger, "store opened"; "store" => store.describe(),
            "last_seq" => recovered.last_seq, "streams" => recovered.streams.len());
        let heads = Heads {
            epoch: recovered.run.epoch,
            run: recovered.run.id,
            positions: recovered.heads.clone(),
        };
        let log = Log::new(config.router.recent_bytes, recovered.last_seq, heads);
        let readers = Arc::new(Readers::default());
        let horizon = Arc::new(Horizon::new(config.store.retention, recovered.newest_time));

        let mut threads = Threads::default();
        let (fault_sender, faults) = watch::channel(None);
        let supervisor = Supervisor::new(log.clone(), stats.clone(), fault_sender, logger).start();

        todo_wire()
    }
}

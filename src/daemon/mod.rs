//! The wiring: the only place that knows every actor, and the order of living and dying.
//!
//! Downstream first, so that an actor is born with every address that it needs. Stop order:
//! sources, pipeline, writer (last flush), sessions (each told why), server. Nothing is started
//! before the configuration, the port, the whitelist and the store are known to be good.

mod ground;
mod panic;
mod reload;
mod signals;
mod standby;
mod stop;
mod supervisor;
mod threads;
mod watchdog;

use std::{
    future::{self, Future},
    mem,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use actix::prelude::*;
use actix_server::ServerHandle;
use anyhow::Context as _;
use async_trait::async_trait;
use sd_notify::NotifyState;
use slog::{Logger, info, o, warn};
use tokio::sync::watch;

use self::{
    ground::{Ground, Leased},
    reload::Live,
    supervisor::{Begin, Supervisor},
    threads::Threads,
    watchdog::Stage,
};
pub use self::{
    reload::Origins,
    signals::{Signals, Wish},
    supervisor::Fault,
};
use crate::{
    backfill::{self, BackfillCommand, Backfiller, Backfills},
    config::{Config, LiveConfig},
    control::{Command, ControlServer, Socket},
    delivery::{self, Casting, SessionSet},
    event::EventId,
    http::{self, ApiState, Exports, metrics::Metrics},
    mirror::{self, MirrorWriter},
    router::{
        Restart, Router, StoredIds,
        log::{Heads, Log},
        readers::{Purpose, Readers},
    },
    source::{
        Budget, Horizon,
        node::{self, FileWatcher, Parser},
        quarantine::Quarantine,
    },
    stats::Stats,
    store::{AttachReader, DbWriter, EventStore, Recovered, Shared, StoreWriter},
    whitelist::{WhitelistFilter, WhitelistKeeper},
};

/// The life of the pipeline that a start of the process begins with.
const FIRST_GENERATION: u64 = 1;

/// Runs until a signal or a fault ends it. `origins` is what a reload starts from.
///
/// # Errors
/// When the daemon cannot start, or an invariant broke while it ran; the text says which.
pub fn run(config: Config, origins: Origins, logger: Logger) -> anyhow::Result<()> {
    block_on(async move {
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        let mut ground = Ground::prepare(config, &logger).await?;
        let leased = standby::take_lease(&mut ground, &mut signals, &logger).await?;
        let Some(leased) = leased else { return Ok(()) };
        let daemon = Daemon::on(ground, leased, &logger).await?;
        daemon.until_stopped(signals, origins).await
    })
}

/// Runs what holds a [`Daemon`]: on a system of actors, in which a panic of the pipeline ends the
/// process.
pub fn block_on<T>(life: impl Future<Output = T>) -> T {
    panic::abort_on_essential_threads();
    System::new().block_on(life)
}

/// A daemon that lives, until [`Daemon::stop`]. It belongs into [`block_on`].
pub struct Daemon {
    address: SocketAddr,
    watchers: Vec<Addr<FileWatcher>>,
    budgets: Vec<Arc<Budget>>,
    writer: Addr<DbWriter>,
    keeper: Addr<WhitelistKeeper>,
    /// Where `redis.positions` says so.
    mirror: Option<Addr<MirrorWriter>>,
    supervisor: Addr<Supervisor>,
    backfills: Arc<Backfills>,
    sessions: Arc<SessionSet>,
    live: Live,
    /// Everybody who has to answer the watchdog.
    stages: Vec<Stage>,
    server: ServerHandle,
    /// Where `http.metrics_listen` names an address.
    metrics: Option<ServerHandle>,
    /// The control socket, to be removed; `None` where it could not be made.
    control: Option<PathBuf>,
    stats: Arc<Stats>,
    threads: Threads,
    faults: watch::Receiver<Option<Arc<Fault>>>,
    logger: Logger,
}

/// What is shared by the pipeline, the sessions and HTTP.
struct Commons {
    config: Config,
    store: Arc<dyn EventStore>,
    log: Arc<Log>,
    readers: Arc<Readers>,
    horizon: Arc<Horizon>,
    quarantine: Arc<Quarantine>,
    stats: Arc<Stats>,
    logger: Logger,
}

/// The actors between the files and the store.
struct Pipeline {
    watchers: Vec<Addr<FileWatcher>>,
    budgets: Vec<Arc<Budget>>,
    writer: Addr<DbWriter>,
    keeper: Addr<WhitelistKeeper>,
    mirror: Option<Addr<MirrorWriter>>,
    supervisor: Addr<Supervisor>,
    backfills: Arc<Backfills>,
    stages: Vec<Stage>,
}

impl Daemon {
    /// Starts everything. When it returns, the port answers and reading has begun.
    ///
    /// # Errors
    /// When the state directory, the port, the whitelist or the store cannot be used.
    pub async fn start(config: Config, logger: &Logger) -> anyhow::Result<Self> {
        let mut ground = Ground::prepare(config, logger).await?;
        let leased = ground.lease().await?;
        Self::on(ground, leased, logger).await
    }

    /// Starts everything on ground that is known to be good.
    async fn on(ground: Ground, leased: Leased, logger: &Logger) -> anyhow::Result<Self> {
        let address = ground.address()?;
        let Ground { config, started, listener, metrics_listener, keeper, quarantine, .. } = ground;
        let Leased { store, writer, recovered } = leased;
        let whitelist = keeper.status();
        let run = recovered.run;
        info!(logger, "store opened"; "store" => store.describe(),
            "last_seq" => recovered.last_seq, "streams" => recovered.streams.len());

        for warning in store.warnings() {
            warn!(logger, "store opened with a restriction"; "reason" => warning);
        }
        let positions = recovered.heads.clone();
        let reached =
            recovered.streams.iter().filter_map(|stream| stream.state.last_position).max();
        let horizon = Horizon::new(config.store.retention, recovered.newest_time);
        let heads = Heads { epoch: run.epoch, run: run.id, positions };
        let commons = Commons {
            log: Log::new(config.router.recent_bytes, recovered.last_seq, heads),
            store,
            readers: Arc::default(),
            horizon: Arc::new(horizon.resuming_at(reached)),
            quarantine: Arc::new(quarantine),
            stats: Arc::default(),
            logger: logger.clone(),
            config,
        };
        let mut threads = Threads::default();
        let (fault_sender, faults) = watch::channel(None);
        let pipeline = commons
            .start_pipeline(&mut threads, keeper, writer, recovered, fault_sender)
            .await
            .context("the pipeline cannot start")?;

        let topics = vec![node::FILLS, node::MISC];
        let Commons { config, store, log, stats, readers, quarantine, horizon, .. } = commons;
        let state_dir = config.state_dir.clone();
        let sessions = SessionSet::new(config.session.max_sessions, stats.clone());
        let nodes = config.source.data_dirs.iter();
        let live = Live { config: Arc::new(LiveConfig::new(config.clone())), horizon };
        let api = Arc::new(ApiState {
            store,
            stats: stats.clone(),
            log: log.clone(),
            config: live.config.clone(),
            budgets: pipeline.budgets.clone(),
            topics: topics.clone(),
            nodes: nodes.map(|node| node.display().to_string().into()).collect(),
            whitelist: Box::new(move || whitelist.get()),
            run,
            started,
            exports: Exports::default(),
            logger: logger.new(o!("component" => "http")),
        });
        let metrics = metrics_listener.map(|listener| {
            info!(logger, "metrics listening"; "address" => %listener.local_addr()?);
            let state = api.clone();
            http::metrics::serve(listener, Arc::new(Metrics { state, quarantine }))
        });
        let metrics = metrics.transpose()?.map(|server| {
            let handle = server.handle();
            actix_rt::spawn(server);
            handle
        });
        let casting = Arc::new(Casting {
            log,
            readers,
            sessions: sessions.clone(),
            stats: stats.clone(),
            config: live.config.clone(),
            topics,
            logger: logger.new(o!("component" => "delivery")),
        });
        let server = delivery::serve(listener, casting, http::routes(api))?;
        let handle = server.handle();
        actix_rt::spawn(server);
        info!(logger, "listening"; "address" => %address);
        let commands: Vec<Box<dyn Command>> =
            vec![Box::new(BackfillCommand(pipeline.backfills.clone()))];
        let control = listen_for_commands(&state_dir, commands, &mut threads, logger);
        let Pipeline {
            watchers,
            budgets,
            writer,
            keeper,
            mirror,
            supervisor,
            backfills,
            mut stages,
        } = pipeline;
        stages.push(Stage::shards(sessions.clone()));
        Ok(Self {
            address,
            watchers,
            budgets,
            writer,
            keeper,
            mirror,
            supervisor,
            backfills,
            sessions,
            live,
            stages,
            server: handle,
            metrics,
            control,
            stats,
            threads,
            faults,
            logger: logger.clone(),
        })
    }

    /// Where it listens: the configured address, with the port that was found for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Waits for what ends the daemon from inside. It has to be stopped then.
    ///
    /// # Cancel safety
    /// The next call gives the same fault.
    pub async fn fault(&self) -> Arc<Fault> {
        let mut faults = self.faults.clone();
        let fault = match faults.wait_for(Option::is_some).await {
            Ok(fault) => fault.clone(),
            Err(_) => None,
        };
        match fault {
            Some(fault) => fault,
            // Whoever could tell of a fault is gone without one.
            None => future::pending().await,
        }
    }

    /// Lives until a signal asks it to stop or a fault ends it, then stops in order.
    async fn until_stopped(mut self, mut signals: Signals, origins: Origins) -> anyhow::Result<()> {
        let status = format!("listening on {}", self.address);
        watchdog::tell(&[NotifyState::Ready, NotifyState::Status(&status)], &self.logger);
        let stages = mem::take(&mut self.stages);
        let watching = watchdog::start(stages, self.stats.clone(), &self.logger);
        let reloading = Rc::new(self.reloading(origins));
        let fault = loop {
            tokio::select! {
                wish = signals.next() => match wish {
                    Wish::Stop => break None,
                    Wish::Reload => reloading.clone().start(),
                },
                fault = self.fault() => break Some(fault),
            }
        };
        // A stop has its own time limit.
        if let Some(watching) = watching {
            watching.abort();
        }
        watchdog::tell(&[NotifyState::Stopping, NotifyState::Status("stopping")], &self.logger);
        signals.stop_at_once_on_the_next(self.logger.clone());
        let stopped = self.stop().await;
        match fault {
            Some(fault) => Err(anyhow::Error::new(fault)),
            None => stopped,
        }
    }
}

impl Commons {
    /// The drawing of the pipeline.
    async fn start_pipeline(
        &self,
        threads: &mut Threads,
        keeper: WhitelistKeeper,
        writer: Box<dyn StoreWriter>,
        recovered: Recovered,
        faults: watch::Sender<Option<Arc<Fault>>>,
    ) -> anyhow::Result<Pipeline> {
        let Self { config, log, readers, stats, quarantine, logger, .. } = self;
        let imported = self.import_positions(&recovered).await?;
        let supervisor = Supervisor::new(log.clone(), stats.clone(), faults, logger);
        let supervisor = threads.start(c"supervisor", supervisor);

        let shared = Shared {
            log: log.clone(),
            horizon: self.horizon.clone(),
            quarantine: quarantine.clone(),
            stats: stats.clone(),
        };
        let writer = DbWriter::new(
            writer,
            config.store.clone(),
            shared,
            supervisor.clone().recipient(),
            logger,
        );
        let (writer, mirror) = match self.mirror_of(&recovered)? {
            Some((committed, mirror)) => {
                (writer.with_mirror(committed), Some(threads.start(c"mirror", mirror)))
            }
            None => (writer, None),
        };
        let writer_thread = threads.new_thread(c"db_writer");
        let writer = threads.start_on(&writer_thread, writer);
        let reader = readers.register(writer.clone().recipient(), Purpose::Storing);
        writer.send(AttachReader(reader)).await?;

        // One thread a node directory: a hop between threads costs more than all three actors. A
        // single directory spares the hop to the Router as well; of several, none shall wait for
        // what another one has to catch up on.
        let nodes = &config.source.data_dirs;
        let chains: Vec<_> = nodes.iter().map(|_| threads.new_thread(c"chain")).collect();
        let router_thread = match &chains[..] {
            [chain] => chain.clone(),
            _ => threads.new_thread(c"router"),
        };
        let ask_store = Arc::new(AskStore(self.store.clone()));
        let router = Router::new(log.clone(), readers.clone(), ask_store, stats.clone(), logger);
        let router = threads.start_on(&router_thread, router);
        router
            .send(Restart {
                generation: FIRST_GENERATION,
                streams: recovered.streams.clone(),
                seen: recovered.seen,
                gaps: recovered.gaps,
                heads: recovered.heads,
            })
            .await?;

        let share = config.source.budget_bytes / nodes.len().max(1);
        let budget = || Budget::new(share, supervisor.clone().recipient());
        let budgets: Vec<_> = nodes.iter().map(|_| budget()).collect();
        #[cfg(feature = "failpoints")]
        crate::failpoint::measure_with({
            let budgets = budgets.clone();
            move || budgets.iter().map(|budget| budget.in_flight_bytes()).sum()
        });
        let (mut watchers, mut filters, mut probes) = (Vec::new(), Vec::new(), Vec::new());
        let mut stages = vec![
            Stage::new("db_writer", writer.clone().recipient()).or_waits(
                &writer_thread,
                stats,
                |stats| stats.store.at_work.get() > 0,
            ),
            Stage::new("router", router.clone().recipient()).or_waits(
                &router_thread,
                stats,
                |stats| stats.router.asking.get() > 0,
            ),
        ];
        for ((node, thread), budget) in nodes.iter().zip(&chains).zip(&budgets) {
            let filter = WhitelistFilter::new(
                keeper.list(),
                router.clone().recipient(),
                quarantine.clone(),
                stats.clone(),
                logger,
            );
            let filter = threads.start_on(thread, filter);
            let parser = Parser::new(
                filter.clone().recipient(),
                self.horizon.clone(),
                quarantine.clone(),
                stats.clone(),
                logger,
            );
            let parser = threads.start_on(thread, parser);
            let watcher = FileWatcher::new(
                node,
                &config.source,
                recovered.streams.clone(),
                FIRST_GENERATION,
                budget.clone(),
                parser.clone().recipient(),
                stats.clone(),
                logger,
            )
            .with_quarantine(quarantine.clone())
            .with_imported(imported.clone());
            let watcher = threads.start_on(thread, watcher);
            stages.push(Stage::new("file_watcher", watcher.clone().recipient()));
            stages.push(Stage::new("parser", parser.recipient()));
            stages.push(Stage::new("whitelist_filter", filter.clone().recipient()));
            watchers.push(watcher);
            probes.push(filter.clone().recipient());
            filters.push(filter.recipient());
        }
        let backfills = Backfills::new(
            config.state_dir.clone(),
            config.backfill.enabled,
            keeper.list(),
            stats.clone(),
            logger.new(o!("component" => "backfill")),
        );
        let backfiller = Backfiller::new(backfill::Parts {
            backfills: backfills.clone(),
            writer: writer.clone(),
            router: router.clone(),
            filters: probes,
            // Beside those of the chains: a batch at a time.
            budget: budget(),
            log: log.clone(),
            horizon: self.horizon.clone(),
            stats: stats.clone(),
            config: config.clone(),
            logger: logger.clone(),
        });
        let backfiller = threads.start(c"backfill", backfiller);
        filters.push(backfiller.clone().recipient());
        let keeper = keeper.feed(filters).tell(backfiller.recipient());
        let keeper = threads.start(c"whitelist", keeper);
        supervisor
            .send(Begin {
                generation: FIRST_GENERATION,
                writer: writer.clone(),
                router,
                watchers: watchers.clone(),
            })
            .await?;
        Ok(Pipeline { watchers, budgets, writer, keeper, mirror, supervisor, backfills, stages })
    }

    /// Where streams begin that were never read before, as the older service left them.
    async fn import_positions(&self, recovered: &Recovered) -> anyhow::Result<mirror::Imported> {
        let Config { redis, source, .. } = &self.config;
        match self.config.positions_url().filter(|_| redis.positions.imports()) {
            Some(url) => {
                let nodes = &source.data_dirs;
                Ok(mirror::import(url, nodes, &recovered.streams, &self.logger).await?)
            }
            None => Ok(mirror::Imported::new()),
        }
    }

    /// What writes the positions of the first node directory: a key holds one path.
    fn mirror_of(
        &self,
        recovered: &Recovered,
    ) -> anyhow::Result<Option<(Arc<mirror::Committed>, MirrorWriter)>> {
        let Config { redis, source, .. } = &self.config;
        let url = self.config.positions_url().filter(|_| redis.positions.mirrors());
        let (Some(url), Some(node)) = (url, source.data_dirs.first()) else { return Ok(None) };
        let committed = Arc::new(mirror::Committed::new(node, &recovered.streams));
        let writer = MirrorWriter::new(url, committed.clone(), self.stats.clone(), &self.logger)
            .with_context(|| format!("cannot mirror positions to {url}"))?;
        Ok(Some((committed, writer)))
    }
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

/// Starts to answer commands. Without them everything else works, so a socket that cannot be made is
/// no reason to refuse the start.
fn listen_for_commands(
    state_dir: &Path,
    commands: Vec<Box<dyn Command>>,
    threads: &mut Threads,
    logger: &Logger,
) -> Option<PathBuf> {
    match Socket::bind(state_dir) {
        Ok(socket) => {
            let path = socket.path().to_owned();
            threads.start(c"control", ControlServer::new(socket, commands, logger));
            Some(path)
        }
        Err(error) => {
            warn!(logger, "no control socket: commands cannot ask this daemon";
                "state_dir" => %state_dir.display(), "error" => %error);
            None
        }
    }
}

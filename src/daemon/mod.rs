//! The wiring: the only place that knows every actor, and the order of living and dying.
//!
//! Downstream first, so that an actor is born with every address that it needs. Stop order:
//! sources, pipeline, writer (last flush), sessions (each told why), server. Nothing is started
//! before the configuration, the port, the whitelist and the store are known to be good.

pub mod capacity;
mod ground;
mod head_start;
mod panic;
mod pipeline;
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
    net::{SocketAddr, TcpListener},
    path::Path,
    rc::Rc,
    sync::Arc,
};

use actix::prelude::*;
use actix_server::ServerHandle;
use anyhow::Context as _;
use sd_notify::NotifyState;
use slog::{Logger, info, o, warn};
use tokio::sync::watch;

use self::{
    ground::{Ground, Leased},
    pipeline::{Commons, Pipeline},
    reload::Live,
    supervisor::Supervisor,
    threads::Threads,
    watchdog::Stage,
};
pub use self::{
    reload::Origins,
    signals::{Signals, Wish},
    supervisor::Fault,
};
use crate::{
    backfill::{BackfillCommand, Backfills},
    config::{Config, LiveConfig},
    control::{Command, ControlServer, Socket, SocketFile},
    delivery::{self, Casting, Foundation, SessionSet, drain::DrainCommand},
    http::{self, ApiState, Exports, metrics::Metrics},
    logging::Queued,
    mirror::MirrorWriter,
    router::log::{Heads, Log},
    source::{
        Budget, Horizon,
        node::{self, FileWatcher},
    },
    stats::Stats,
    store::{DbWriter, PruneCommand},
    whitelist::{Listing, WhitelistKeeper},
};

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
        let daemon = Daemon::on(ground, leased, Some(origins.queued.clone()), &logger).await?;
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
    /// The listening socket of that server.
    door: TcpListener,
    /// Where `http.metrics_listen` names an address.
    metrics: Option<ServerHandle>,
    /// The control socket, to be removed; `None` where it could not be made.
    control: Option<SocketFile>,
    stats: Arc<Stats>,
    threads: Threads,
    faults: watch::Receiver<Option<Arc<Fault>>>,
    logger: Logger,
}

impl Daemon {
    /// Starts everything. When it returns, the port answers and reading has begun.
    ///
    /// # Errors
    /// When the state directory, the port, the whitelist or the store cannot be used.
    pub async fn start(config: Config, logger: &Logger) -> anyhow::Result<Self> {
        let mut ground = Ground::prepare(config, logger).await?;
        let leased = ground.lease().await?;
        Self::on(ground, leased, None, logger).await
    }

    /// Starts everything on ground that is known to be good.
    async fn on(
        ground: Ground,
        leased: Leased,
        queued: Option<Queued>,
        logger: &Logger,
    ) -> anyhow::Result<Self> {
        let address = ground.address()?;
        let Ground { config, started, listener, metrics_listener, keeper, quarantine, .. } = ground;
        let Leased { store, writer, recovered } = leased;
        let (whitelist, current) = (keeper.status(), keeper.current());
        let run = recovered.run;
        info!(logger, "store opened"; "store" => store.describe(),
            "last_seq" => recovered.last_seq, "streams" => recovered.streams.len());

        for warning in store.warnings() {
            warn!(logger, "store opened with a restriction"; "reason" => warning);
        }
        let positions = recovered.heads.clone();
        let earlier_runs = recovered.earlier_runs.clone();
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
        let (state_dir, described) = (config.state_dir.clone(), store.describe());
        let nodes = config.source.data_dirs.iter();
        let live = Live { config: Arc::new(LiveConfig::new(config.clone())), horizon };
        let listing_logger = logger.new(o!("component" => "whitelist"));
        let listing = Listing::new(current, &config.whitelist, stats.clone(), listing_logger);
        let casting = Casting::new(Foundation {
            store: store.clone(),
            log: log.clone(),
            readers,
            config: live.config.clone(),
            listing,
            stats: stats.clone(),
            keys: node::keys_of,
            earlier_runs,
            topics: topics.clone(),
            logger: logger.clone(),
        });
        let sessions = casting.sessions.clone();
        let api = Arc::new(ApiState {
            store,
            stats: stats.clone(),
            log,
            config: live.config.clone(),
            budgets: pipeline.budgets.clone(),
            topics,
            nodes: nodes.map(|node| node.display().to_string().into()).collect(),
            whitelist: Box::new(move || whitelist.get()),
            run,
            started,
            exports: Exports::default(),
            info: casting.info.clone(),
            logger: logger.new(o!("component" => "http")),
        });
        let metrics = metrics_listener.map(|listener| {
            info!(logger, "metrics listening"; "address" => %listener.local_addr()?);
            let state = api.clone();
            http::metrics::serve(listener, Arc::new(Metrics { state, quarantine, queued }))
        });
        let metrics = metrics.transpose()?.map(|server| {
            let handle = server.handle();
            actix_rt::spawn(server);
            handle
        });
        let door = listener.try_clone()?;
        let server = delivery::serve(listener, casting, http::routes(api))?;
        let handle = server.handle();
        actix_rt::spawn(server);
        info!(logger, "listening"; "address" => %address);
        let commands: Vec<Box<dyn Command>> = vec![
            Box::new(BackfillCommand(pipeline.backfills.clone())),
            Box::new(PruneCommand {
                store: described,
                writer: pipeline.writer.clone().recipient(),
            }),
            Box::new(DrainCommand {
                sessions: sessions.clone(),
                logger: logger.new(o!("component" => "delivery")),
            }),
        ];
        let control = listen_for_commands(&state_dir, commands, &mut threads, &stats, logger);
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
            door,
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

/// Starts to answer commands. Without them everything else works, so a socket that cannot be made is
/// no reason to refuse the start.
fn listen_for_commands(
    state_dir: &Path,
    commands: Vec<Box<dyn Command>>,
    threads: &mut Threads,
    stats: &Arc<Stats>,
    logger: &Logger,
) -> Option<SocketFile> {
    match Socket::bind(state_dir) {
        Ok(socket) => {
            let file = socket.file().clone();
            threads.start(c"control", ControlServer::new(socket, commands, stats.clone(), logger));
            Some(file)
        }
        Err(error) => {
            warn!(logger, "no control socket: commands cannot ask this daemon";
                "state_dir" => %state_dir.display(), "error" => %error);
            None
        }
    }
}

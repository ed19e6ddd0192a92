//! The drawing of the pipeline: which actor feeds which, on which thread.
//!
//! Downstream first, so that an actor is born with every address that it needs.

use std::{collections::HashSet, sync::Arc};

use actix::prelude::*;
use anyhow::Context as _;
use async_trait::async_trait;
use slog::{Logger, o};
use tokio::sync::watch;

use super::{
    supervisor::{Begin, Fault, Supervisor},
    threads::Threads,
    watchdog::Stage,
};
use crate::{
    backfill::{self, Backfiller, Backfills, StoreBooks},
    config::Config,
    event::EventId,
    mirror::{self, MirrorWriter},
    router::{
        Restart, Router, StoredIds,
        log::Log,
        readers::{Purpose, Readers},
    },
    source::{
        Budget, Horizon,
        node::{FileWatcher, Parser},
        quarantine::Quarantine,
    },
    stats::Stats,
    store::{AttachReader, DbWriter, EventStore, Recovered, Shared, StoreWriter},
    whitelist::{WhitelistFilter, WhitelistKeeper},
};

/// The life of the pipeline that a start of the process begins with.
const FIRST_GENERATION: u64 = 1;

/// What is shared by the pipeline, the sessions and HTTP.
pub struct Commons {
    pub config: Config,
    pub store: Arc<dyn EventStore>,
    pub log: Arc<Log>,
    pub readers: Arc<Readers>,
    pub horizon: Arc<Horizon>,
    pub quarantine: Arc<Quarantine>,
    pub stats: Arc<Stats>,
    pub logger: Logger,
}

/// The actors between the files and the store.
pub struct Pipeline {
    pub watchers: Vec<Addr<FileWatcher>>,
    pub budgets: Vec<Arc<Budget>>,
    pub writer: Addr<DbWriter>,
    pub keeper: Addr<WhitelistKeeper>,
    pub mirror: Option<Addr<MirrorWriter>>,
    pub supervisor: Addr<Supervisor>,
    pub backfills: Arc<Backfills>,
    pub stages: Vec<Stage>,
}

impl Commons {
    /// The drawing of the pipeline.
    pub async fn start_pipeline(
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
                |stats| stats.store.at_work_since.get() > 0,
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
            Arc::new(StoreBooks(writer.clone())),
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
    async fn stored(&self, ids: Vec<EventId>) -> Result<HashSet<EventId>, String> {
        self.0.stored(ids).await.map_err(|error| error.to_string())
    }
}

//! Starts a new life of the pipeline when a batch was lost.
//!
//! The ledger runs ahead of the commit: reading one batch again would find it "seen" and lose it.
//! So the whole pipeline goes back together: the writer refuses older batches and reads the state
//! of the last commit, the Router loads its ledger from it, the watchers go to its checkpoints.

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use slog::{Logger, error, o, warn};
use tokio::sync::watch;

use crate::{
    fail_point,
    router::{Restart as RestartRouter, Router, log::Log},
    source::{
        BatchLost,
        node::{FileWatcher, Restart as RestartReading},
    },
    stats::Stats,
    store::{DbWriter, NewGeneration, Recovered, StoreError, StoreFault},
};

/// Lives without a single commit after which the daemon gives up: the next start of the process
/// would do no better, and the operator has to see it.
const MAX_FRUITLESS: u32 = 8;

/// Wait before the first new life that follows a fruitless one; doubled for each further one.
const FRUITLESS_DELAY: Duration = Duration::from_millis(250);

/// Time between two attempts to read the checkpoints from a store that is away.
const AWAY_DELAY: Duration = Duration::from_secs(1);

/// What ends the daemon from inside.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{MAX_FRUITLESS} batches were lost one after the other, with no commit between them")]
    NoProgress,
    #[error("the actor {0} is gone")]
    ActorGone(&'static str),
}

/// Gives the supervisor the actors, which need its address before they are born.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Begin {
    pub generation: u64,
    pub writer: Addr<DbWriter>,
    pub router: Addr<Router>,
    pub watchers: Vec<Addr<FileWatcher>>,
}

/// The daemon stops: batches that are lost from now on are read at the next start.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopSupervising;

/// Leads the whole pipeline back to the last commit when a batch was lost.
pub struct Supervisor {
    pipeline: Option<Begin>,
    log: Arc<Log>,
    stats: Arc<Stats>,
    /// Commits at the start of the current life.
    commits: u64,
    fruitless: u32,
    faults: watch::Sender<Option<Arc<Fault>>>,
    logger: Logger,
}

impl Supervisor {
    pub fn new(
        log: Arc<Log>,
        stats: Arc<Stats>,
        faults: watch::Sender<Option<Arc<Fault>>>,
        logger: &Logger,
    ) -> Self {
        let logger = logger.new(o!("actor" => "supervisor"));
        Self { pipeline: None, log, stats, commits: 0, fruitless: 0, faults, logger }
    }

    fn batch_lost(&mut self, lost: BatchLost, ctx: &mut Context<Self>) {
        let Some(pipeline) = &mut self.pipeline else { return };
        // The other batches that were under way are lost with it and say so too.
        if lost.generation != pipeline.generation {
            return;
        }
        pipeline.generation += 1;
        let generation = pipeline.generation;
        let commits = self.stats.store.commits.get();
        self.fruitless = if commits > self.commits { 0 } else { self.fruitless + 1 };
        self.commits = commits;
        if self.fruitless >= MAX_FRUITLESS {
            self.give_up(Fault::NoProgress);
            return;
        }
        warn!(self.logger, "a batch was lost, going back to the checkpoints";
            "generation" => generation);
        self.stats.router.generations.add(1);
        let delay = match self.fruitless {
            0 => Duration::ZERO,
            fruitless => FRUITLESS_DELAY * 2_u32.saturating_pow(fruitless - 1),
        };
        let writer = pipeline.writer.clone();
        let recovering = async move {
            actix_rt::time::sleep(delay).await;
            loop {
                match writer.send(NewGeneration { generation }).await {
                    Ok(Err(StoreError::Unavailable(_))) => actix_rt::time::sleep(AWAY_DELAY).await,
                    answer => return answer,
                }
            }
        };
        // Nothing else is looked at meanwhile: lives begin one after the other.
        ctx.wait(recovering.into_actor(self).map(move |answer, supervisor, _ctx| match answer {
            Ok(Ok(recovered)) => supervisor.begin(generation, recovered),
            Ok(Err(error)) => supervisor.give_up(error.into()),
            Err(_) => supervisor.give_up(Fault::ActorGone("db_writer")),
        }));
    }

    fn begin(&mut self, generation: u64, recovered: Recovered) {
        fail_point!("supervisor.begin");
        let Some(pipeline) = &self.pipeline else { return };
        self.log.abandon_uncommitted();
        pipeline.router.do_send(RestartRouter {
            generation,
            streams: recovered.streams.clone(),
            seen: recovered.seen,
            gaps: recovered.gaps,
            heads: recovered.heads,
        });
        for watcher in &pipeline.watchers {
            let checkpoints = recovered.streams.clone();
            watcher.do_send(RestartReading { generation, checkpoints });
        }
    }

    fn give_up(&mut self, fault: Fault) {
        error!(self.logger, "cannot go on"; "error" => %fault);
        // The first fault is the cause; those after it are its consequences.
        self.faults.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert_with(|| Arc::new(fault));
            first
        });
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;
}

impl Handler<Begin> for Supervisor {
    type Result = ();

    fn handle(&mut self, begin: Begin, _ctx: &mut Self::Context) {
        self.pipeline = Some(begin);
    }
}

impl Handler<BatchLost> for Supervisor {
    type Result = ();

    fn handle(&mut self, lost: BatchLost, ctx: &mut Self::Context) {
        self.batch_lost(lost, ctx);
    }
}

impl Handler<StoreFault> for Supervisor {
    type Result = ();

    fn handle(&mut self, fault: StoreFault, ctx: &mut Self::Context) {
        match fault {
            StoreFault::BatchLost { generation } => self.batch_lost(BatchLost { generation }, ctx),
            StoreFault::Fatal(error) => self.give_up(error.into()),
        }
    }
}

impl Handler<StopSupervising> for Supervisor {
    type Result = ();

    fn handle(&mut self, _stop: StopSupervising, _ctx: &mut Self::Context) {
        self.pipeline = None;
    }
}

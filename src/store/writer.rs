//! Writes what the log holds to the store; in between, `upkeep` deletes what is too old.
//!
//! Place in the pipeline: a reader of the log beside the shards; the last stage on the way of the
//! data. It blocks while SQLite works, so it has a thread of its own.
//! Invariants: batches are committed in the order of the log, one at a time; credits of a batch
//! go back after its commit; a store that is away delays commits and never loses or reorders them.

mod aside;
mod outage;
mod upkeep;

use std::{pin::pin, sync::Arc, time::Duration};

use actix::prelude::*;
use slog::{Logger, o};
use tokio::time::Instant;

pub use self::aside::{Backfill, GetCheckpoints, GetPending, SavePending, Stored};
use self::{outage::told_when_late, upkeep::Retention};
use super::{
    Recovered, StoreError, StoreWriter,
    committer::{Committer, Due, Parts},
};
use crate::{
    config::StoreConfig,
    event::Timestamp,
    fail_point, mirror,
    roll_call::RollCall,
    router::{
        log::Log,
        readers::{Appended, Reader},
    },
    source::{Horizon, quarantine::Quarantine},
    stats::Stats,
};

/// Delay before a failed commit is tried again: it doubles from the first to the second. Who stands by
/// asks as often, so that a holder is not the later one to find the server back.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A store that has not answered for so long is told, long before its time limit ends: commits wait for
/// it. Half as long as a lease.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Tells the writer how it is woken, before the first [`Appended`] comes.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AttachReader(pub Arc<Reader>);

/// The pipeline starts anew from what is committed: what is of an older generation is refused
/// from now on. To be asked again when the store is [`StoreError::Unavailable`].
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Recovered, StoreError>")]
pub struct NewGeneration {
    pub generation: u64,
}

/// Commits without waiting for more, from now on: the daemon stops and waits for each batch.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Hurry;

/// Commits what is in the log and closes the store, as part of stopping.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), StoreError>")]
pub struct Flush {
    /// After this time no further commit is begun. What is left is read again at the next start.
    pub within: Duration,
}

/// Looks at the log again.
#[derive(Message)]
#[rtype(result = "()")]
struct Turn;

/// What the writer cannot mend; the daemon decides.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum StoreFault {
    /// The outcome of a commit is not known: nothing more is committed until [`NewGeneration`].
    BatchLost { generation: u64 },
    /// The daemon has to stop.
    Fatal(StoreError),
}

/// The configuration has changed. The limits of the disk hold from the next retention on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Reconfigure(pub StoreConfig);

/// Whether commits are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// A commit failed and a timer brings it again.
    Retrying,
    /// A batch was lost: until [`NewGeneration`].
    Halted,
    /// Closed, or not ours any more.
    Over,
}

/// Commits the log to the store, one batch at a time.
pub struct DbWriter {
    /// Away only while one of its futures runs; the actor handles nothing then.
    committer: Option<Committer>,
    /// Makes the next wake-up possible; `None` until it is attached.
    reader: Option<Arc<Reader>>,
    phase: Phase,
    /// Delay before the next try.
    retry: Duration,
    /// The timer of the next commit and its time.
    timer: Option<(SpawnHandle, Instant)>,
    retention: Retention,
    /// When the store last did what it was asked for.
    well_at: Timestamp,
    /// Reasons of the outage that were logged.
    told: Vec<String>,
    config: StoreConfig,
    horizon: Arc<Horizon>,
    stats: Arc<Stats>,
    faults: Recipient<StoreFault>,
    logger: Logger,
}

/// What [`DbWriter`] shares with others.
pub struct Shared {
    pub log: Arc<Log>,
    pub horizon: Arc<Horizon>,
    pub quarantine: Arc<Quarantine>,
    pub stats: Arc<Stats>,
}

impl DbWriter {
    pub fn new(
        writer: Box<dyn StoreWriter>,
        config: StoreConfig,
        shared: Shared,
        faults: Recipient<StoreFault>,
        logger: &Logger,
    ) -> Self {
        let logger = logger.new(o!("actor" => "db_writer"));
        let Shared { log, horizon, quarantine, stats } = shared;
        let parts = Parts {
            horizon: horizon.clone(),
            quarantine,
            stats: stats.clone(),
            logger: logger.clone(),
        };
        Self {
            committer: Some(Committer::new(writer, log, &config, parts)),
            reader: None,
            phase: Phase::Running,
            retry: RETRY.0,
            timer: None,
            retention: Retention::default(),
            well_at: Timestamp::now(),
            told: Vec::new(),
            config,
            horizon,
            stats,
            faults,
            logger,
        }
    }

    /// Tells this one of every commit.
    pub fn with_mirror(mut self, committed: Arc<mirror::Committed>) -> Self {
        if let Some(committer) = &mut self.committer {
            committer.set_mirror(committed);
        }
        self
    }

    /// Commits a batch if one is due, or sets the timer for it.
    fn turn(&mut self, ctx: &mut Context<Self>) {
        let Some(committer) = &mut self.committer else { return };
        if !matches!(self.phase, Phase::Running | Phase::Retrying) {
            return;
        }
        let now = Instant::now();
        committer.collect(now);
        if self.phase == Phase::Retrying {
            return; // The timer of the failed batch goes on from here.
        }
        match committer.due() {
            Due::Never => {}
            Due::At(time) if time > now => self.wake_at(time, ctx),
            Due::At(_) | Due::Now => self.commit(ctx),
        }
    }

    fn wake_at(&mut self, time: Instant, ctx: &mut Context<Self>) {
        if let Some((handle, set)) = self.timer {
            if set <= time {
                return;
            }
            ctx.cancel_future(handle);
        }
        let handle = ctx.run_later(time - Instant::now(), |actor, ctx| {
            actor.timer = None;
            actor.turn(ctx);
        });
        self.timer = Some((handle, time));
    }

    /// Runs a piece of work of the committer; no message is handled until it is done.
    fn run<T: 'static>(
        &mut self,
        ctx: &mut Context<Self>,
        work: impl AsyncFnOnce(&mut Committer) -> T + 'static,
        then: impl FnOnce(&mut Self, T, &mut Context<Self>) + 'static,
    ) {
        let Some(mut committer) = self.committer.take() else { return };
        self.stats.store.at_work_since.set(Timestamp::now().0);
        let logger = self.logger.clone();
        let work = async move {
            let done = told_when_late(pin!(work(&mut committer)), &logger).await;
            (committer, done)
        };
        ctx.wait(work.into_actor(self).map(|(committer, done), actor, ctx| {
            actor.committer = Some(committer);
            actor.stats.store.at_work_since.set(0);
            then(actor, done, ctx);
        }));
    }

    fn commit(&mut self, ctx: &mut Context<Self>) {
        self.run(ctx, async |committer| committer.commit_next().await, Self::committed);
    }

    fn committed(&mut self, result: Result<(), StoreError>, ctx: &mut Context<Self>) {
        match result {
            Ok(()) => {
                self.recovered_from_outage();
                // By a message, so that what else has come gets its turn between two batches.
                ctx.notify(Turn);
            }
            Err(error @ StoreError::Unavailable(_)) => {
                self.note_outage(error);
                self.phase = Phase::Retrying;
                ctx.run_later(self.retry, |actor, ctx| {
                    // A new generation or the end may have come in between.
                    if actor.phase == Phase::Retrying {
                        actor.commit(ctx);
                    }
                });
                self.retry = (self.retry * 2).min(RETRY.1);
            }
            Err(error) => self.fail(error),
        }
    }
}

/// Commits what is in the log. A store that is away is tried once more after the time is over.
async fn flush(committer: &mut Committer, within: Duration) -> Result<(), StoreError> {
    let deadline = Instant::now() + within;
    let mut retry = RETRY.0;
    let mut over = false;
    loop {
        committer.collect(Instant::now());
        if committer.is_idle() || over {
            return Ok(());
        }
        over = Instant::now() >= deadline;
        match committer.commit_next().await {
            Ok(()) => {}
            Err(StoreError::Unavailable(_)) if Instant::now() + retry < deadline => {
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY.1);
            }
            Err(error) => return Err(error),
        }
    }
}

impl Actor for DbWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.schedule_upkeep(ctx);
        ctx.notify(Turn);
    }
}

impl Handler<Reconfigure> for DbWriter {
    type Result = ();

    fn handle(&mut self, Reconfigure(config): Reconfigure, _ctx: &mut Self::Context) {
        self.reconfigure(config);
    }
}

impl Handler<AttachReader> for DbWriter {
    type Result = ();

    fn handle(&mut self, message: AttachReader, ctx: &mut Self::Context) {
        self.reader = Some(message.0);
        self.turn(ctx);
    }
}

impl Handler<Appended> for DbWriter {
    type Result = ();

    fn handle(&mut self, _: Appended, ctx: &mut Self::Context) {
        fail_point!("writer.handle");
        if let Some(reader) = &self.reader {
            reader.answered();
        }
        self.turn(ctx);
    }
}

impl Handler<Turn> for DbWriter {
    type Result = ();

    fn handle(&mut self, _: Turn, ctx: &mut Self::Context) {
        self.turn(ctx);
    }
}

impl Handler<NewGeneration> for DbWriter {
    type Result = AtomicResponse<Self, Result<Recovered, StoreError>>;

    fn handle(&mut self, message: NewGeneration, _ctx: &mut Self::Context) -> Self::Result {
        let mut committer = self.committer.take().expect("no message is handled while it is away");
        self.stats.store.at_work_since.set(Timestamp::now().0);
        let work = async move {
            let recovered = committer.begin(message.generation).await;
            (committer, recovered)
        };
        AtomicResponse::new(Box::pin(work.into_actor(self).map(
            |(committer, recovered), actor, ctx| {
                actor.committer = Some(committer);
                actor.stats.store.at_work_since.set(0);
                if recovered.is_ok() && actor.phase != Phase::Over {
                    actor.phase = Phase::Running;
                    actor.retry = RETRY.0;
                    actor.end_of_failures();
                    ctx.notify(Turn);
                }
                recovered
            },
        )))
    }
}

impl Handler<Hurry> for DbWriter {
    type Result = ();

    fn handle(&mut self, _: Hurry, ctx: &mut Self::Context) {
        if let Some(committer) = &mut self.committer {
            committer.hurry();
        }
        self.turn(ctx);
    }
}

impl Handler<Flush> for DbWriter {
    type Result = AtomicResponse<Self, Result<(), StoreError>>;

    fn handle(&mut self, message: Flush, _ctx: &mut Self::Context) -> Self::Result {
        let mut committer = self.committer.take().expect("no message is handled while it is away");
        // After a lost batch nothing may be committed that came behind it.
        let may_commit = matches!(self.phase, Phase::Running | Phase::Retrying);
        self.phase = Phase::Over;
        let work = async move {
            let flushed =
                if may_commit { flush(&mut committer, message.within).await } else { Ok(()) };
            let closed = committer.writer.close().await;
            (committer, flushed.and(closed))
        };
        AtomicResponse::new(Box::pin(work.into_actor(self).map(|(committer, result), actor, _| {
            actor.committer = Some(committer);
            result
        })))
    }
}

impl Handler<RollCall> for DbWriter {
    type Result = ();

    fn handle(&mut self, _: RollCall, _ctx: &mut Self::Context) {}
}

#[cfg(test)]
mod tests;

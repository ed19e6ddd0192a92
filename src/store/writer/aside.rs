//! What `DbWriter` does for others than the log, between two commits: it stores what back-fills bring,
//! deletes what a command names, and tells how far the streams are.
//!
//! Place in the pipeline: beside the commits, on the same thread and the same `Committer`. Invariant:
//! the live stream comes first: while more than a few of its events wait, nothing is stored here.

use actix::prelude::*;
use tokio::time::Instant;

use super::{DbWriter, Phase, Turn, upkeep::PORTION};
use crate::{
    event::{Event, Timestamp},
    source::StreamCheckpoint,
    store::{
        Backfilled, Pending, Prune, Pruned, RetentionLimits, Setting, StoreError, StoreWriter,
    },
};

/// Stores events outside the order of arrival, between two commits.
#[derive(Debug, Message)]
#[rtype(result = "Result<Stored, StoreError>")]
pub struct Backfill {
    pub events: Vec<Event>,
    pub setting: Setting,
}

/// What became of a [`Backfill`].
#[derive(Debug)]
pub enum Stored {
    Done(Backfilled),
    /// Nothing: the live stream has more waiting than a few events, or the store is away. To be asked
    /// for again later.
    Postponed(Vec<Event>),
}

/// Asks how far each stream is in the store.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Vec<StreamCheckpoint>, StoreError>")]
pub struct GetCheckpoints;

/// Asks what is to be back-filled by list.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Pending, StoreError>")]
pub struct GetPending;

/// Replaces that.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), StoreError>")]
pub struct SavePending(pub Pending);

impl Handler<Backfill> for DbWriter {
    type Result = AtomicResponse<Self, Result<Stored, StoreError>>;

    fn handle(&mut self, message: Backfill, _ctx: &mut Self::Context) -> Self::Result {
        let mut committer = self.committer.take().expect("no message is handled while it is away");
        let Backfill { events, setting } = message;
        let phase = self.phase;
        committer.collect(Instant::now());
        let work = async move {
            let stored = match phase {
                Phase::Over => Err(StoreError::Unusable("the writer is closed".to_owned())),
                Phase::Running if !committer.is_busy() => {
                    committer.backfill(events, setting).await.map(Stored::Done)
                }
                _ => Ok(Stored::Postponed(events)),
            };
            (committer, stored)
        };
        self.stats.store.at_work_since.set(Timestamp::now().0);
        AtomicResponse::new(Box::pin(work.into_actor(self).map(
            |(committer, stored), actor, ctx| {
                actor.committer = Some(committer);
                actor.stats.store.at_work_since.set(0);
                actor.heed(stored.as_ref().err());
                // What came meanwhile has waited.
                ctx.notify(Turn);
                stored
            },
        )))
    }
}

impl Handler<Prune> for DbWriter {
    type Result = AtomicResponse<Self, Result<Pruned, StoreError>>;

    fn handle(&mut self, Prune { edge }: Prune, _ctx: &mut Self::Context) -> Self::Result {
        let mut committer = self.committer.take().expect("no message is handled while it is away");
        let phase = self.phase;
        committer.collect(Instant::now());
        let limits = RetentionLimits {
            now: Timestamp::now(),
            edge,
            max_bytes: None,
            min_free_bytes: 0,
            portion: PORTION,
        };
        let work = async move {
            let pruned = match phase {
                Phase::Over => Err(StoreError::Unusable("the writer is closed".to_owned())),
                Phase::Running if committer.is_busy() => Ok(Pruned::Postponed),
                Phase::Running => committer.writer.retain(limits).await.map(Pruned::Done),
                Phase::Retrying | Phase::Halted => {
                    Err(StoreError::Unavailable("its last commit has failed".to_owned()))
                }
            };
            (committer, pruned)
        };
        self.stats.store.at_work_since.set(Timestamp::now().0);
        AtomicResponse::new(Box::pin(work.into_actor(self).map(
            |(committer, pruned), actor, ctx| {
                actor.committer = Some(committer);
                actor.stats.store.at_work_since.set(0);
                if let Ok(Pruned::Done(retained)) = &pruned {
                    actor.stats.store.deleted.add(retained.deleted as u64);
                }
                actor.heed(pruned.as_ref().err());
                // What came meanwhile has waited.
                ctx.notify(Turn);
                pruned
            },
        )))
    }
}

impl DbWriter {
    /// Runs a short piece of work on the store itself, between two commits.
    fn aside<T: 'static>(
        &mut self,
        work: impl AsyncFnOnce(&mut dyn StoreWriter) -> Result<T, StoreError> + 'static,
    ) -> AtomicResponse<Self, Result<T, StoreError>> {
        let mut committer = self.committer.take().expect("no message is handled while it is away");
        self.stats.store.at_work_since.set(Timestamp::now().0);
        let work = async move {
            let done = work(&mut *committer.writer).await;
            (committer, done)
        };
        AtomicResponse::new(Box::pin(work.into_actor(self).map(|(committer, done), actor, _| {
            actor.committer = Some(committer);
            actor.stats.store.at_work_since.set(0);
            done
        })))
    }

    /// Stops where work for others has shown that the store is not ours any more.
    fn heed(&mut self, error: Option<&StoreError>) {
        let fatal = match error {
            Some(StoreError::LeaseLost(text)) => StoreError::LeaseLost(text.clone()),
            Some(StoreError::Unusable(text)) => StoreError::Unusable(text.clone()),
            _ => return,
        };
        if self.phase != Phase::Over {
            self.fail(fatal);
        }
    }
}

impl Handler<GetCheckpoints> for DbWriter {
    type Result = AtomicResponse<Self, Result<Vec<StreamCheckpoint>, StoreError>>;

    fn handle(&mut self, _: GetCheckpoints, _ctx: &mut Self::Context) -> Self::Result {
        self.aside(async |writer| writer.checkpoints().await)
    }
}

impl Handler<GetPending> for DbWriter {
    type Result = AtomicResponse<Self, Result<Pending, StoreError>>;

    fn handle(&mut self, _: GetPending, _ctx: &mut Self::Context) -> Self::Result {
        self.aside(async |writer| writer.pending().await)
    }
}

impl Handler<SavePending> for DbWriter {
    type Result = AtomicResponse<Self, Result<(), StoreError>>;

    fn handle(
        &mut self,
        SavePending(pending): SavePending,
        _ctx: &mut Self::Context,
    ) -> Self::Result {
        self.aside(async move |writer| writer.save_pending(&pending).await)
    }
}

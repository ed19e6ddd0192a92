//! What `DbWriter` does for its store between two commits: retention, the size on the disk, room for
//! the next days, and compaction.
//!
//! Place in the pipeline: beside the commits, on the same thread and the same `Committer`.
//! Invariants: commits go first, so retention works in portions with a pause between them; while the
//! store is away nothing of this runs but the renewal of the lease, where there is nothing to commit; an
//! outage is logged once, however many tries it takes; a failure costs nothing but the try, unless the store is
//! not ours any more.

use std::time::Duration;

use actix::prelude::*;
use slog::{info, warn};

use super::{DbWriter, Phase};
use crate::{
    config::StoreConfig,
    event::Timestamp,
    store::{Retained, RetentionLimits, StoreError, StoreSize},
};

/// Time from the start to the first look for what is too old.
const FIRST_RETENTION: Duration = Duration::from_secs(5);

/// Rows that retention deletes in one transaction: about ten milliseconds.
pub(super) const PORTION: usize = 1_000;

/// Time between two portions, in which commits go first.
const PORTION_PAUSE: Duration = Duration::from_millis(10);

/// Delay before retention that failed is tried again, because of readers in the way for example: it
/// doubles from the first to the second.
const RETENTION_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// How often room is made ahead of the events.
const PREPARATION: Duration = Duration::from_secs(60);

/// How often the size of the store and the free space are looked at.
const DISK_CHECK: Duration = Duration::from_secs(10);

/// How often the lease is renewed when nothing is committed: three times before it ends.
const RENEWAL: Duration = Duration::from_secs(3);

/// How often the ledger's rows are merged.
const COMPACTION: Duration = Duration::from_secs(60);

/// How far retention is.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// Portions follow each other; a timer that fires meanwhile starts nothing.
    under_way: bool,
    /// Whether the full disk, of which retention cannot free more, has been reported.
    exhausted: bool,
    /// Failures in a row, and the timer of the next try.
    failures: u32,
    retry: Option<SpawnHandle>,
}

impl DbWriter {
    /// Sets the timers, and looks at the disk at once: status is to show a true size from the start.
    pub(super) fn schedule_upkeep(&mut self, ctx: &mut Context<Self>) {
        ctx.run_later(FIRST_RETENTION, Self::retain);
        ctx.run_interval(self.config.retention_interval, Self::retain);
        ctx.run_interval(DISK_CHECK, Self::check_disk);
        ctx.run_interval(PREPARATION, Self::prepare);
        ctx.run_interval(COMPACTION, Self::compact);
        ctx.run_interval(RENEWAL, Self::renew);
        self.check_disk(ctx);
    }

    /// Starts deleting what is due, portion by portion.
    fn retain(&mut self, ctx: &mut Context<Self>) {
        if !self.retention.under_way {
            self.retain_portion(ctx);
        }
    }

    /// Takes over what can change while it runs; batches stay as large as they were.
    pub(super) fn reconfigure(&mut self, config: StoreConfig) {
        self.config = config;
    }

    fn retain_portion(&mut self, ctx: &mut Context<Self>) {
        // A store that is away is not bothered; the next timer comes back.
        self.retention.under_way = self.is_well();
        if !self.retention.under_way {
            return;
        }
        let now = Timestamp::now();
        let limits = RetentionLimits {
            now,
            // Before the first block nothing is too old.
            edge: self.horizon.edge(now).unwrap_or(Timestamp(i64::MIN)),
            max_bytes: (self.config.max_bytes > 0).then_some(self.config.max_bytes),
            min_free_bytes: self.config.min_free_bytes,
            portion: PORTION,
        };
        self.run(ctx, async move |committer| committer.writer.retain(limits).await, Self::retained);
    }

    fn retained(&mut self, result: Result<Retained, StoreError>, ctx: &mut Context<Self>) {
        self.retention.under_way = false;
        let Some(retained) = self.upkeep("retention failed, it is tried again", result) else {
            self.retry_retention(ctx);
            return;
        };
        self.retention.failures = 0;
        self.stats.store.deleted.add(retained.deleted as u64);
        let was_shortened = self.stats.store.retention_shortened.get() != 0;
        if retained.shortened != was_shortened {
            self.stats.store.retention_shortened.set(i64::from(retained.shortened));
            if retained.shortened {
                warn!(self.logger, "retention shortened for want of disk space");
            } else {
                info!(self.logger, "retention is no longer shortened");
            }
        }
        if retained.exhausted && !self.retention.exhausted {
            warn!(
                self.logger,
                "disk space is short, and what is left of the store is too young to be deleted"
            );
        }
        self.retention.exhausted = retained.exhausted;
        if retained.more {
            self.retention.under_way = true;
            ctx.run_later(PORTION_PAUSE, Self::retain_portion);
        }
        // What waits has become due in the meantime.
        self.turn(ctx);
    }

    fn retry_retention(&mut self, ctx: &mut Context<Self>) {
        let (first, last) = RETENTION_RETRY;
        let delay = first * 2_u32.saturating_pow(self.retention.failures);
        self.retention.failures += 1;
        let retry = ctx.run_later(delay.min(last), |actor, ctx| {
            actor.retention.retry = None;
            actor.retain(ctx);
        });
        // There is one, whatever else calls retention meanwhile.
        if let Some(earlier) = self.retention.retry.replace(retry) {
            ctx.cancel_future(earlier);
        }
    }

    fn check_disk(&mut self, ctx: &mut Context<Self>) {
        if self.is_well() {
            self.run(ctx, async |committer| committer.writer.size().await, Self::disk_checked);
        }
    }

    fn disk_checked(&mut self, result: Result<StoreSize, StoreError>, ctx: &mut Context<Self>) {
        let Some(size) = self.upkeep("size of the store is not known", result) else { return };
        self.stats.store.size_bytes.set(size.bytes as i64);
        if let Some(bytes) = size.free_disk_bytes {
            self.stats.store.free_disk_bytes.set(bytes as i64);
        }
        let over = self.config.max_bytes > 0 && size.bytes > self.config.max_bytes;
        let short = size.free_disk_bytes.is_some_and(|free| free < self.config.min_free_bytes);
        if over || short {
            self.retain(ctx);
        }
    }

    fn renew(&mut self, ctx: &mut Context<Self>) {
        if self.phase == Phase::Running {
            self.run(ctx, async |committer| committer.writer.renew().await, Self::renewed);
        }
    }

    /// With nothing to commit this is what finds out that the store is away, and that it is back.
    fn renewed(&mut self, result: Result<(), StoreError>, ctx: &mut Context<Self>) {
        match result {
            Ok(()) => {
                self.recovered_from_outage();
                self.turn(ctx);
            }
            Err(error @ (StoreError::LeaseLost(_) | StoreError::Unusable(_))) => self.fail(error),
            Err(error) => {
                self.stats.store.failures.add(1);
                self.note_outage(error);
            }
        }
    }

    /// Whether there is a store to look after.
    fn is_well(&self) -> bool {
        self.phase == Phase::Running && !self.is_away()
    }

    fn prepare(&mut self, ctx: &mut Context<Self>) {
        if self.is_well() {
            self.run(
                ctx,
                async |committer| committer.writer.prepare().await,
                |actor, result, _| {
                    actor.upkeep("room could not be made ahead, it is tried again", result);
                },
            );
        }
    }

    fn compact(&mut self, ctx: &mut Context<Self>) {
        if self.is_well() {
            self.run(
                ctx,
                async |committer| committer.writer.compact().await,
                |actor, result, _| {
                    actor.upkeep("compaction failed", result);
                },
            );
        }
    }

    /// Judges a piece of work besides the commits: its failure costs nothing but this try, unless
    /// the store is not ours any more.
    fn upkeep<T>(&mut self, what: &'static str, result: Result<T, StoreError>) -> Option<T> {
        match result {
            Ok(done) => {
                self.well_at = Timestamp::now();
                Some(done)
            }
            Err(error @ (StoreError::LeaseLost(_) | StoreError::Unusable(_))) => {
                self.fail(error);
                None
            }
            Err(error) => {
                warn!(self.logger, "{}", what; "error" => %error);
                self.stats.store.failures.add(1);
                None
            }
        }
    }
}

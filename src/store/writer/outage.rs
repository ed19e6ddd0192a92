//! What `DbWriter` makes of a store that does not do what it is asked for.
//!
//! Place in the pipeline: beside commits and upkeep, which both find it out. Invariants: an outage is
//! counted once and logged once for each reason, however many tries it takes; what mends itself is waited for, a lost batch
//! starts a new generation, and a store that is not ours any more ends the daemon.

use slog::{Logger, error, info, warn};
use tokio::time::{Instant, timeout};

use super::{ANSWER_WITHIN, DbWriter, Phase, RETRY, StoreFault};
use crate::{event::Timestamp, store::StoreError};

/// Most reasons of one outage that are logged: they come in a row, such as a connection that breaks, then
/// a server that starts, then a password that is another one.
const MAX_TOLD: usize = 4;

impl DbWriter {
    /// Whether the last that was asked of the store failed.
    pub(super) fn is_away(&self) -> bool {
        self.stats.store.failing_since.get() != 0
    }

    /// Notes that the store is away, and says so once for each reason.
    pub(super) fn note_outage(&mut self, error: StoreError) {
        let reason = match error {
            StoreError::Unavailable(reason) => reason,
            other => other.to_string(),
        };
        let stats = &self.stats.store;
        if !self.is_away() {
            warn!(self.logger, "store unavailable, it is tried again"; "error" => &reason);
            stats.failing_since.set(self.well_at.0);
            stats.outages.add(1);
            self.told = vec![reason.clone()];
        } else if self.told.len() < MAX_TOLD && !self.told.contains(&reason) {
            warn!(self.logger, "store still unavailable"; "error" => &reason);
            self.told.push(reason.clone());
        }
        stats.failure.set(reason);
    }

    /// Notes that the store has done what it was asked for.
    pub(super) fn recovered_from_outage(&mut self) {
        if self.is_away() {
            let since = Timestamp(self.stats.store.failing_since.get());
            let outage = Timestamp::now().since(since);
            info!(self.logger, "store available again"; "outage_ms" => outage.as_millis() as u64);
        }
        if self.phase == Phase::Retrying {
            self.phase = Phase::Running;
        }
        self.end_of_failures();
        self.retry = RETRY.0;
    }

    /// A new generation begins without failures, too.
    pub(super) fn end_of_failures(&mut self) {
        self.well_at = Timestamp::now();
        self.stats.store.failing_since.set(0);
        self.stats.store.failure.set("");
    }

    /// Stops committing and tells the daemon why.
    pub(super) fn fail(&mut self, error: StoreError) {
        if !self.is_away() {
            self.stats.store.failing_since.set(self.well_at.0);
            self.stats.store.outages.add(1);
        }
        self.stats.store.failure.set(error.to_string());
        error!(self.logger, "commit failed"; "error" => %error);
        let fault = match error {
            StoreError::Failed(_)
            | StoreError::Unavailable(_)
            | StoreError::TooSlow(_)
            | StoreError::Refused(_) => {
                self.phase = Phase::Halted;
                let generation = self.committer.as_ref().map_or(0, |known| known.generation);
                StoreFault::BatchLost { generation }
            }
            StoreError::LeaseLost(_) | StoreError::Unusable(_) | StoreError::Denied(_) => {
                self.phase = Phase::Over;
                StoreFault::Fatal(error)
            }
        };
        self.faults.do_send(fault);
    }
}

/// Waits for a piece of work, and says once when that takes long.
pub(super) async fn told_when_late<T>(
    mut work: impl Future<Output = T> + Unpin,
    logger: &Logger,
) -> T {
    if let Ok(done) = timeout(ANSWER_WITHIN, &mut work).await {
        return done;
    }
    warn!(logger, "store does not answer"; "within_ms" => ANSWER_WITHIN.as_millis() as u64);
    let late = Instant::now();
    let done = work.await;
    let waited = ANSWER_WITHIN + late.elapsed();
    info!(logger, "the wait for the store is over"; "after_ms" => waited.as_millis() as u64);
    done
}

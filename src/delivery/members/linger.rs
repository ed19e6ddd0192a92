//! Live events that may wait a little, so that several go out in one write.
//!
//! Invariants: nothing waits longer than the shortest of the times that its session's subscriptions
//! allow; whatever flushes an outbox takes along what waits there.

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
    time::Duration,
};

use tokio::time::Instant;

use super::{Member, Members};
use crate::delivery::index::SessionId;

/// An outbox with as much is flushed at once: more would gain nothing, and hold memory.
const MAX_BYTES: usize = 16 << 10;

/// The sessions for which something waits, by when it has to go.
#[derive(Debug, Default)]
pub(super) struct Lingering(BTreeSet<(Instant, SessionId)>);

impl Members {
    /// When the next outbox has to be flushed, whatever else happens.
    pub fn next_due(&self) -> Option<Instant> {
        self.lingering.0.first().map(|(due, _)| *due)
    }

    /// Flushes the outboxes in which something has waited long enough.
    pub fn flush_due(&mut self, now: Instant) {
        while let Some(&(due, id)) = self.lingering.0.first()
            && due <= now
        {
            self.lingering.0.pop_first();
            if let Some(member) = self.members.get_mut(&id) {
                member.due = None;
                member.touch(id, &mut self.flushing.touched);
            }
        }
        // A portion now; turns see to the rest.
        self.release();
        self.flush();
        if self.has_due() || !self.catch_up.line.is_empty() {
            self.ring();
        }
    }
}

impl Member {
    /// What was queued may wait for so long.
    pub(super) fn leave_by(
        &mut self,
        id: SessionId,
        linger: Duration,
        touched: &mut VecDeque<SessionId>,
        lingering: &mut Lingering,
    ) {
        if self.touched {
            // It goes with something that does not wait.
            return;
        }
        if linger.is_zero() || self.wire.waiting_bytes() >= MAX_BYTES {
            self.touch(id, touched);
            return;
        }
        // It counts among what waits for clients, though nothing is flushed.
        self.wire.count();
        let due = Instant::now() + linger;
        if self.due.is_none_or(|earlier| due < earlier) {
            self.forget_due(id, lingering);
            self.due = Some(due);
            lingering.0.insert((due, id));
        }
    }

    /// What waits goes now, or never.
    pub(super) fn forget_due(&mut self, id: SessionId, lingering: &mut Lingering) {
        if let Some(due) = mem::take(&mut self.due) {
            lingering.0.remove(&(due, id));
        }
    }
}

#[cfg(test)]
mod tests;

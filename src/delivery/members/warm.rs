//! Reads the memory of several sessions before they are visited.
//!
//! With thousands of sessions, what belongs to one has left the processor's caches when it is visited again.
//! Between two visits lies a system call, so the processor would fetch it for one session after the other; read
//! together, these fetches overlap. That was a third of the program's part of a delivery.

use std::hint::black_box;

use super::Members;
use crate::delivery::index::SessionId;

/// How many sessions are read together.
pub(super) const WARMED: usize = 16;

impl Members {
    /// Reads what a visit to the first of these sessions will read.
    pub(super) fn warm(&self, sessions: impl Iterator<Item = SessionId>) {
        let members = sessions.take(WARMED).filter_map(|id| self.members.get(&id));
        // Nobody needs the sum, but it has to be made.
        black_box(members.map(|member| member.wire.warm()).sum::<usize>());
    }
}

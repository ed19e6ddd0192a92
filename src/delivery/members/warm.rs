//! Looks at the memory of several sessions before they are visited.
//!
//! With thousands of sessions that of each one has left the processor's caches when its turn comes, and in a
//! loop with a system call for each the processor waits for one after the other. Looked at together they come
//! together: 0.2 of 0.7 us that the program has for a delivery.

use std::hint::black_box;

use super::Members;
use crate::delivery::index::SessionId;

/// How many sessions are looked at together.
pub(super) const WARMED: usize = 16;

impl Members {
    /// Looks at what a visit to these sessions will look at.
    pub(super) fn warm(&self, sessions: impl Iterator<Item = SessionId>) {
        let members = sessions.take(WARMED).filter_map(|id| self.members.get(&id));
        // Nobody needs it, but it has to be read.
        black_box(members.map(|member| member.wire.warm()).sum::<usize>());
    }
}

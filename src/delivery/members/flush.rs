//! Hands on what was queued, a portion in each turn.
//!
//! A write costs some microseconds, and that of a session which is behind a hundred: where many wait, the
//! thread has to come back to what is live between them. So sockets that have become writable are not
//! written to at once either, they stand in the same line.

use std::{collections::VecDeque, mem};

use super::{Member, Members, warm::WARMED};
use crate::delivery::{
    index::SessionId,
    outlet::Flush,
    replay::{Behind, Waits},
    session::Told,
};

/// Outboxes of live sessions that one turn flushes: some 3 ms.
const FLUSHES: usize = 512;
/// The same of sessions that are behind, each of up to 256 KiB: the same time.
const FLUSHES_BEHIND: usize = 32;

/// Outboxes that have something to flush.
#[derive(Debug, Default)]
pub(super) struct Flushing {
    /// In whose outboxes something was put, and how many of them, from the front, may be flushed now.
    pub touched: VecDeque<SessionId>,
    pub due: usize,
    /// The same of sessions that are behind: their outboxes are flushed as they are filled.
    pub late: VecDeque<SessionId>,
    /// Events that were cast since outboxes were last released.
    pub unflushed: usize,
}

impl Members {
    /// All that is queued may leave: what is cast from now on waits for the next time.
    pub(super) fn release(&mut self) {
        self.flushing.unflushed = 0;
        self.flushing.due = self.flushing.touched.len();
    }

    /// Flushes a portion of what may leave: those first who have waited longest, the live ones before
    /// those who are behind.
    pub(super) fn flush(&mut self) {
        for flush in 0..self.flushing.due.min(FLUSHES) {
            if flush % WARMED == 0 {
                self.warm(self.flushing.touched.iter().copied());
            }
            let Some(id) = self.flushing.touched.pop_front() else { break };
            self.flushing.due -= 1;
            self.flush_one(id);
        }
        for _ in 0..self.flushing.late.len().min(FLUSHES_BEHIND) {
            let Some(id) = self.flushing.late.pop_front() else { break };
            self.flush_one(id);
        }
    }

    /// Whether something may leave and has not.
    pub(super) fn has_due(&self) -> bool {
        self.flushing.due > 0 || !self.flushing.late.is_empty()
    }

    /// The socket of a session takes more. Gives whether it is written to in a turn: for who is live the
    /// session does it itself.
    pub fn writable(&mut self, id: SessionId) -> bool {
        let member = self.members.get_mut(&id);
        let Some(member) = member.filter(|member| member.behind.is_some()) else { return false };
        member.touch(id, &mut self.flushing.late);
        self.ring();
        true
    }

    fn flush_one(&mut self, id: SessionId) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.touched = false;
        member.forget_due(id, &mut self.lingering);
        match member.wire.flush() {
            Flush::Drained => {
                if let Some(behind) = &mut member.behind {
                    behind.note_room();
                    if behind.waits == Waits::No && !mem::replace(&mut behind.in_line, true) {
                        // Without ringing: the turn sees that somebody is there.
                        self.catch_up.line.push_back(id);
                    }
                }
            }
            Flush::Blocked => {
                if let Some(behind) = member.behind.as_mut().filter(|one| one.waits == Waits::No) {
                    behind.waits = Waits::Room;
                }
                if member.wire.claim_wait() {
                    member.session.do_send(Told::Blocked);
                }
                // A place at the store is not for those whose clients are slow.
                let rests = |one: &Behind| one.admitted && one.waits == Waits::Room;
                if member.behind.as_deref().is_some_and(rests) {
                    self.release_place(id);
                }
            }
            Flush::Broken => member.session.do_send(Told::Broken),
        }
    }
}

impl Member {
    /// Puts a session into one of the lines of those to be flushed, unless it is in one.
    pub(super) fn touch(&mut self, id: SessionId, line: &mut VecDeque<SessionId>) {
        if !mem::replace(&mut self.touched, true) {
            line.push_back(id);
        }
    }
}

//! Sending sessions away: who is told to end, and when.
//!
//! Invariants: within the time that was given each is told once, in an order that nobody can choose and
//! in even steps; who waits for one answer has it at once; a turn tells a bounded number.

use std::time::Duration;

use tokio::time::Instant;

use super::Members;
use crate::delivery::{close::CloseReason, dialect::Transport, index::SessionId, session::Told};

/// Most sessions that are told in one turn: each writes its farewell then, some 10 us.
const TOLD_AT_ONCE: usize = 256;

/// Time between two turns while more are due than one turn tells: the least that timers know.
const BREATH: Duration = Duration::from_millis(1);

/// Sessions that are sent away.
pub(super) struct Parting {
    pub reason: CloseReason,
    /// Those who are told at once.
    urgent: Vec<SessionId>,
    paced: Paced,
}

/// Sessions that are told one after the other over a time, the last of the list first.
struct Paced {
    left: Vec<SessionId>,
    /// At the beginning.
    all: usize,
    start: Instant,
    over: Duration,
}

impl Paced {
    /// When the next one is due, counted from the beginning.
    fn next(&self) -> Option<Duration> {
        let told = self.all - self.left.len();
        (!self.left.is_empty()).then(|| self.over.mul_f64(told as f64 / self.all as f64))
    }

    /// Takes one that is due.
    fn take(&mut self, now: Instant) -> Option<SessionId> {
        let is_due = self.next()? <= now.saturating_duration_since(self.start);
        if is_due { self.left.pop() } else { None }
    }
}

impl Members {
    /// Sends all away over a time, and those who join later at once.
    pub fn send_away(&mut self, reason: CloseReason, over: Duration, now: Instant) {
        let mut urgent = Vec::new();
        let mut left = Vec::new();
        for (id, member) in self.members.iter().filter(|(_, member)| !member.closing) {
            match member.dialect.transport() {
                Transport::Answer => urgent.push(*id),
                transport => left.push((*id, transport)),
            }
        }
        fastrand::shuffle(&mut left);
        if matches!(reason, CloseReason::ShuttingDown) {
            // Streams of HTTP end with the server, so they are told first.
            left.sort_by_key(|(_, transport)| matches!(transport, Transport::Stream));
        }
        let left: Vec<_> = left.into_iter().map(|(id, _)| id).collect();
        let paced = Paced { all: left.len(), left, start: now, over };
        self.parting = Some(Parting { reason, urgent, paced });
    }

    /// Nobody else is sent away.
    pub fn let_stay(&mut self) {
        self.parting = None;
    }

    /// Tells those whose time has come, and gives when to go on.
    pub fn part(&mut self, now: Instant) -> Option<Duration> {
        let parting = self.parting.as_mut()?;
        let mut told = 0;
        while told < TOLD_AT_ONCE {
            let Some(id) = parting.urgent.pop().or_else(|| parting.paced.take(now)) else { break };
            // Others have left by themselves.
            if let Some(member) = self.members.get_mut(&id).filter(|member| !member.closing) {
                member.closing = true;
                member.session.do_send(Told::Close(parting.reason.clone()));
                told += 1;
            }
        }
        if !parting.urgent.is_empty() {
            return Some(BREATH);
        }
        let next = parting.paced.start + parting.paced.next()?;
        Some(next.saturating_duration_since(now).max(BREATH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_due_one_by_one_in_even_steps_over_the_whole_time() {
        let start = Instant::now();
        let over = Duration::from_secs(10);
        let mut paced = Paced { left: (0..5).collect(), all: 5, start, over };
        let mut due_at = |seconds: u64| {
            std::iter::from_fn(|| paced.take(start + Duration::from_secs(seconds))).count()
        };

        assert_eq!([0, 1, 2, 3, 7, 8, 20].map(&mut due_at), [1, 0, 1, 0, 2, 1, 0]);
        assert_eq!(paced.next(), None);
        let mut at_once = Paced { left: vec![1, 2], all: 2, start, over: Duration::ZERO };
        assert_eq!(std::iter::from_fn(|| at_once.take(start)).count(), 2);
    }
}

//! The head start that the last holder of the lease has after an outage.
//!
//! Place: the plain state beside `standby`, which brings the time. While the server is away nobody can
//! renew a lease, so behind an outage that is longer than a lease it has ended whoever held it; the
//! holder may be in the best of health, with clients that would be dropped if it lost it.
//! Rule: a lease that has merely ended is taken only by who has had the server's answers for as long as
//! a lease lasts. The first answer behind a failure, or behind a silence in which a holder could not
//! have renewed either, begins that time anew. A holder tries again each second, so it is back long
//! before; one that is dead, or that alone has lost its way to the server, is followed all the same.
//! A server that answered all the time is no excuse: then the lease is taken within a second of its end.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::LEASE;

/// A silence from which on answers are as new. Outages that can end a lease are longer: a holder renews
/// it three times before its end.
const SILENCE: Duration = LEASE.checked_div(2).expect("two is not zero");

/// How the server has answered us.
#[derive(Debug)]
pub struct HeadStart {
    /// Of the last one.
    answered: Instant,
    outage: Outage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outage {
    /// Since we stand by.
    None,
    UnderWay,
    OverSince(Instant),
}

impl HeadStart {
    /// Of who begins to stand by; its first question was answered, or not.
    pub fn new(was_answered: bool, now: Instant) -> Self {
        let outage = if was_answered { Outage::None } else { Outage::UnderWay };
        Self { answered: now, outage }
    }

    pub fn failed(&mut self) {
        self.outage = Outage::UnderWay;
    }

    pub fn answered(&mut self, now: Instant) {
        if self.outage == Outage::UnderWay || now.duration_since(self.answered) > SILENCE {
            self.outage = Outage::OverSince(now);
        }
        self.answered = now;
    }

    /// What is left of it; `None` when a lease that has ended may be taken.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        match self.outage {
            Outage::None => None,
            Outage::UnderWay => Some(LEASE),
            Outage::OverSince(since) => {
                LEASE.checked_sub(now.duration_since(since)).filter(|left| !left.is_zero())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Lets the server answer each second.
    fn answer(head_start: &mut HeadStart, now: &mut Instant, seconds: u32) {
        for _ in 0..seconds {
            *now += SECOND;
            head_start.answered(*now);
        }
    }

    #[test]
    fn nobody_has_one_while_the_server_answers() {
        let mut now = Instant::now();
        let mut head_start = HeadStart::new(true, now);

        answer(&mut head_start, &mut now, 3);
        now += SILENCE;
        head_start.answered(now);

        assert_eq!(head_start.left(now), None);
    }

    #[test]
    fn it_lasts_as_long_as_a_lease_from_the_first_answer_on() {
        let mut now = Instant::now();
        let mut head_start = HeadStart::new(false, now);
        assert_eq!(head_start.left(now + 100 * SECOND), Some(LEASE), "nothing was answered yet");

        answer(&mut head_start, &mut now, 1);
        assert_eq!(head_start.left(now), Some(LEASE));
        answer(&mut head_start, &mut now, 9);
        assert_eq!(head_start.left(now), Some(SECOND));
        answer(&mut head_start, &mut now, 1);
        assert_eq!(head_start.left(now), None);
    }

    #[test]
    fn it_begins_anew_behind_a_failure_and_behind_a_long_silence() {
        let mut now = Instant::now();
        let mut head_start = HeadStart::new(true, now);

        head_start.failed();
        answer(&mut head_start, &mut now, 8);
        head_start.failed();
        answer(&mut head_start, &mut now, 1);
        assert_eq!(head_start.left(now), Some(LEASE));

        answer(&mut head_start, &mut now, 20);
        assert_eq!(head_start.left(now), None);
        // A server that hung answers the question that it was asked before.
        now += SILENCE;
        answer(&mut head_start, &mut now, 1);
        assert_eq!(head_start.left(now), Some(LEASE));
    }
}

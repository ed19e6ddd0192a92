//! Clients whose latency nobody measures. They are read in turn and not when something comes: several
//! events at a time, so that reading takes little of the processors on which the server runs too.

use std::time::{Duration, Instant};

/// How often each of them is read. What comes meanwhile fits into the buffers of its connection.
const PERIOD: Duration = Duration::from_millis(250);
/// Clients that are read until those who are measured are looked at again.
const AT_ONCE: usize = 32;

/// A place among all clients, and the number of its owner.
pub type Seat = (u32, usize);

pub struct Turns {
    seats: Vec<Seat>,
    next: usize,
    /// Turns that have come and were not taken.
    due: f64,
    since: Instant,
}

impl Turns {
    pub fn new() -> Self {
        Self { seats: Vec::new(), next: 0, due: 0.0, since: Instant::now() }
    }

    /// Whoever is gone keeps his turns: his number says that they are nobody's.
    pub fn add(&mut self, seat: Seat) {
        self.seats.push(seat);
    }

    /// Whether more turns have come than were taken.
    pub fn is_due(&self) -> bool {
        self.due >= 1.0
    }

    /// Those whose turn it is now.
    pub fn take(&mut self, now: Instant) -> Vec<Seat> {
        let all = self.seats.len();
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        self.due = (self.due + passed / PERIOD.as_secs_f64() * all as f64).min(all as f64);
        let count = (self.due as usize).min(AT_ONCE);
        self.due -= count as f64;
        let taken = (self.next..self.next + count).map(|at| self.seats[at % all]).collect();
        self.next = (self.next + count).checked_rem(all).unwrap_or(0);
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn each_has_its_turn_once_a_period_however_often_it_is_asked() {
        let mut turns = Turns::new();
        (0..100).for_each(|at| turns.add((1, at)));
        let begun = turns.since;

        let mut taken = BTreeMap::<Seat, u32>::new();
        for step in 1..=1_000 {
            for seat in turns.take(begun + PERIOD * step / 500) {
                *taken.entry(seat).or_default() += 1;
            }
        }

        assert_eq!(taken.len(), 100);
        assert!(taken.values().all(|turns| (1..=2).contains(turns)), "{taken:?}");
        assert!(taken.values().sum::<u32>() >= 199, "{taken:?}");
    }

    #[test]
    fn turns_that_were_missed_are_not_made_up_for() {
        let mut turns = Turns::new();
        assert!(turns.take(Instant::now()).is_empty());
        (0..10).for_each(|at| turns.add((1, at)));

        let late = turns.since + 10 * PERIOD;
        assert_eq!(turns.take(late), (0..10).map(|at| (1, at)).collect::<Vec<_>>());
        assert!(turns.take(late).is_empty() && !turns.is_due());
    }
}

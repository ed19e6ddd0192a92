//! Things that happen at a rate, whatever they take.

use std::time::Instant;

/// When the next of something is due that happens at a rate.
pub struct Pace {
    per_second: f64,
    since: Instant,
    done: u64,
}

impl Pace {
    pub fn new(per_second: f64) -> Self {
        Self { per_second, since: Instant::now(), done: 0 }
    }

    pub fn due(&mut self) -> bool {
        let due = (self.since.elapsed().as_secs_f64() * self.per_second) as u64 > self.done;
        self.done += u64::from(due);
        due
    }
}

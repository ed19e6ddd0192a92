//! Which block times are believed.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use crate::event::Timestamp;

/// How far a block may lie ahead of our clock: a wrong year in one line must not move retention.
const MAX_AHEAD: Duration = Duration::from_secs(86_400);

/// The span of block times that is kept; shared by parsers and retention.
///
/// It reaches back `retention` from the newest block time seen, or from now if that is earlier:
/// so recorded data of any year can be replayed into a fresh store.
#[derive(Debug)]
pub struct Horizon {
    retention: Duration,
    /// Microseconds since 1970; `i64::MIN` before the first block.
    newest: AtomicI64,
}

impl Horizon {
    pub fn new(retention: Duration, newest: Option<Timestamp>) -> Self {
        Self { retention, newest: AtomicI64::new(newest.map_or(i64::MIN, |time| time.0)) }
    }

    /// Whether a block of this time is kept; one that is moves the newest time forward.
    pub fn admit(&self, block_time: Timestamp, now: Timestamp) -> bool {
        let admitted = block_time <= now.plus(MAX_AHEAD)
            && self.edge(now).is_none_or(|edge| block_time >= edge);
        if admitted {
            self.newest.fetch_max(block_time.0, Ordering::Relaxed);
        }
        admitted
    }

    /// What is older goes; `None` before the first block.
    pub fn edge(&self, now: Timestamp) -> Option<Timestamp> {
        self.newest().map(|newest| newest.min(now).minus(self.retention))
    }

    /// The latest block time that was admitted.
    pub fn newest(&self) -> Option<Timestamp> {
        match self.newest.load(Ordering::Relaxed) {
            i64::MIN => None,
            newest => Some(Timestamp(newest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: Timestamp = Timestamp(1_773_532_800_000_000);

    #[test]
    fn recorded_data_of_an_earlier_year_is_kept() {
        let horizon = Horizon::new(7 * DAY, None);
        let then = NOW.minus(400 * DAY);

        assert!(horizon.admit(then, NOW));
        assert!(horizon.admit(then.minus(6 * DAY), NOW));
        assert!(!horizon.admit(then.minus(8 * DAY), NOW));
    }

    #[test]
    fn a_time_far_ahead_neither_passes_nor_moves_the_edge() {
        let horizon = Horizon::new(7 * DAY, Some(NOW));

        assert!(!horizon.admit(NOW.plus(2 * DAY), NOW));

        assert_eq!(horizon.edge(NOW), Some(NOW.minus(7 * DAY)));
    }

    #[test]
    fn a_time_that_is_ahead_and_passes_shortens_nobodys_retention() {
        let horizon = Horizon::new(7 * DAY, None);

        assert!(horizon.admit(NOW.plus(DAY / 2), NOW));

        assert_eq!(horizon.edge(NOW), Some(NOW.minus(7 * DAY)));
    }
}

//! Which blocks are believed: their times and their numbers.
//!
//! A number is held against the block that was believed before it, of whichever stream: all node
//! directories follow one chain. It may differ by [`MAX_RATE`] blocks for each second of block time
//! between the two, and by [`SLACK`]; so a sparse stream, a backlog beside a live node, a rewind and
//! an old checkpoint pass, and one damaged number does not move the height or open a hole of 10^15
//! blocks. A chain that really is elsewhere is believed after [`AGREEING`] blocks in a row that go on
//! from each other. Nothing of this is stored: after a restart the positions of the streams and the
//! newest block time stand for the last block.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::event::Timestamp;

/// How far a block may lie ahead of our clock: a wrong year in one line must not move retention.
const MAX_AHEAD: Duration = Duration::from_secs(86_400);

/// Blocks a second that are believed. A chain makes 12 to 15.
const MAX_RATE: u64 = 100;

/// Blocks by which a number may always differ: at real rates most of a day.
const SLACK: u64 = 1_000_000;

/// Refused blocks in a row, each higher than the one before and plausible behind it, after which the
/// chain is believed to have jumped.
const AGREEING: u32 = 64;

/// Why a block is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disbelief {
    /// Older than what is kept: ordinary when old files are read.
    Old,
    /// Its time lies further ahead of our clock than clocks differ.
    Ahead,
    /// Its number does not fit the blocks before it.
    Number,
}

impl fmt::Display for Disbelief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Old => "block_time is older than what is kept",
            Self::Ahead => "block_time is more than a day ahead",
            Self::Number => "block_number does not fit the blocks before it",
        })
    }
}

/// What is believed of blocks; shared by parsers and retention.
///
/// Times reach back `retention` from the newest block time seen, or from now if that is earlier:
/// so recorded data of any year can be replayed into a fresh store.
#[derive(Debug)]
pub struct Horizon {
    /// Microseconds.
    retention: AtomicU64,
    /// Microseconds since 1970; `i64::MIN` before the first block.
    newest: AtomicI64,
    numbers: Mutex<Numbers>,
}

/// The blocks that the next number is held against.
#[derive(Debug, Default)]
struct Numbers {
    last: Option<Place>,
    /// The last of the refused blocks in a row that go on from each other, and their count.
    rival: Option<(Place, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    position: u64,
    time: Timestamp,
}

impl Place {
    /// Whether one chain can hold both.
    fn fits(self, other: Self) -> bool {
        let seconds = self.time.0.abs_diff(other.time.0).div_ceil(1_000_000);
        let room = seconds.saturating_mul(MAX_RATE).saturating_add(SLACK);
        self.position.abs_diff(other.position) <= room
    }

    /// Whether any chain can hold it: one that began at block 0, in 1970 or later.
    fn is_possible(self) -> bool {
        self.fits(Self { position: 0, time: Timestamp(0) })
    }
}

impl Numbers {
    fn admit(&mut self, place: Place) -> bool {
        if !place.is_possible() {
            return false;
        }
        let fits = self.last.is_none_or(|last| last.fits(place)) || self.has_jumped(place);
        if fits {
            *self = Self { last: Some(place), rival: None };
        }
        fits
    }

    /// Counts a block that does not fit. A run of pieces of one block proves no more than one line.
    fn has_jumped(&mut self, place: Place) -> bool {
        let agreeing = match self.rival {
            Some((rival, count)) if rival.position == place.position => count,
            Some((rival, count)) if rival.position < place.position && rival.fits(place) => {
                count + 1
            }
            _ => 1,
        };
        self.rival = Some((place, agreeing));
        agreeing >= AGREEING
    }
}

impl Horizon {
    pub fn new(retention: Duration, newest: Option<Timestamp>) -> Self {
        Self {
            retention: AtomicU64::new(micros(retention)),
            newest: AtomicI64::new(newest.map_or(i64::MIN, |time| time.0)),
            numbers: Mutex::default(),
        }
    }

    /// Changes how far back times reach. What retention has deleted meanwhile stays deleted.
    pub fn set_retention(&self, retention: Duration) {
        self.retention.store(micros(retention), Ordering::Relaxed);
    }

    /// How far back times reach now.
    pub fn retention(&self) -> Duration {
        Duration::from_micros(self.retention.load(Ordering::Relaxed))
    }

    /// Holds the first number against the highest position of a checkpoint, unless no chain can be
    /// there.
    pub fn resuming_at(self, position: Option<u64>) -> Self {
        let last = position.zip(self.newest()).map(|(position, time)| Place { position, time });
        let numbers = Numbers { last: last.filter(|last| last.is_possible()), rival: None };
        Self { numbers: Mutex::new(numbers), ..self }
    }

    /// Judges a block; one that is believed moves the newest time forward.
    ///
    /// # Errors
    /// With the reason when it is not.
    pub fn admit(
        &self,
        position: u64,
        block_time: Timestamp,
        now: Timestamp,
    ) -> Result<(), Disbelief> {
        if block_time > now.plus(MAX_AHEAD) {
            return Err(Disbelief::Ahead);
        }
        if self.edge(now).is_some_and(|edge| block_time < edge) {
            return Err(Disbelief::Old);
        }
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if !numbers.admit(Place { position, time: block_time }) {
            return Err(Disbelief::Number);
        }
        self.newest.fetch_max(block_time.0, Ordering::Relaxed);
        Ok(())
    }

    /// What is older goes; `None` before the first block.
    pub fn edge(&self, now: Timestamp) -> Option<Timestamp> {
        self.newest().map(|newest| newest.min(now).minus(self.retention()))
    }

    /// The latest block time that was admitted.
    pub fn newest(&self) -> Option<Timestamp> {
        match self.newest.load(Ordering::Relaxed) {
            i64::MIN => None,
            newest => Some(Timestamp(newest)),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
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

        assert_eq!(horizon.admit(7, then, NOW), Ok(()));
        assert_eq!(horizon.admit(6, then.minus(6 * DAY), NOW), Ok(()));
        assert_eq!(horizon.admit(5, then.minus(8 * DAY), NOW), Err(Disbelief::Old));
    }

    #[test]
    fn a_time_far_ahead_neither_passes_nor_moves_the_edge() {
        let horizon = Horizon::new(7 * DAY, Some(NOW));

        assert_eq!(horizon.admit(7, NOW.plus(2 * DAY), NOW), Err(Disbelief::Ahead));

        assert_eq!(horizon.edge(NOW), Some(NOW.minus(7 * DAY)));
    }

    #[test]
    fn a_time_that_is_ahead_and_passes_shortens_nobodys_retention() {
        let horizon = Horizon::new(7 * DAY, None);

        assert_eq!(horizon.admit(1, NOW.plus(DAY / 2), NOW), Ok(()));

        assert_eq!(horizon.edge(NOW), Some(NOW.minus(7 * DAY)));
    }

    const REAL: u64 = 923_950_857;
    const SECOND: Duration = Duration::from_secs(1);
    const FAR: u64 = 9_000_000_000_000_000;

    fn horizon() -> Horizon {
        Horizon::new(7 * DAY, Some(NOW)).resuming_at(Some(REAL))
    }

    #[test]
    fn one_number_far_off_is_refused_in_both_directions_and_the_next_block_is_believed() {
        let horizon = horizon();
        for (ordinal, wrong) in [FAR, 5, REAL + 2 * SLACK, 1].into_iter().enumerate() {
            let time = NOW.plus(SECOND * ordinal as u32);

            assert_eq!(horizon.admit(wrong, time, NOW), Err(Disbelief::Number), "{wrong}");
            assert_eq!(horizon.admit(REAL + ordinal as u64, time, NOW), Ok(()));
        }
        // Far ahead of every chain, it is no beginning and no checkpoint either.
        for horizon in
            [Horizon::new(7 * DAY, None), Horizon::new(7 * DAY, Some(NOW)).resuming_at(Some(FAR))]
        {
            assert_eq!(horizon.admit(FAR, NOW, NOW), Err(Disbelief::Number));
            assert_eq!(horizon.admit(REAL, NOW, NOW), Ok(()));
        }
    }

    #[test]
    fn old_checkpoints_sparse_streams_and_a_backlog_beside_a_live_node_are_believed() {
        let horizon = horizon();
        let later = |days: u32| NOW.plus(DAY * days);
        let per_day = 15 * 86_400;

        // Down for three days; then one node reads them while the other is live.
        for days in [3, 1, 3, 2] {
            let position = REAL + per_day * u64::from(days);
            assert_eq!(horizon.admit(position, later(days), later(3)), Ok(()), "{days} days");
        }
        // A line an hour, and a rewind.
        let now = later(4);
        assert_eq!(horizon.admit(REAL + 4 * per_day, now, now), Ok(()));
        let hour = now.plus(SECOND * 3_600);
        assert_eq!(horizon.admit(REAL + 4 * per_day + 54_000, hour, hour), Ok(()));
        assert_eq!(horizon.admit(REAL + 4 * per_day, now, hour), Ok(()));
    }

    #[test]
    fn a_chain_that_really_jumped_is_believed_and_a_repeated_number_is_not() {
        let elsewhere = 7_000_000_000;
        for (jumped, start) in [(true, elsewhere), (true, 1), (false, elsewhere)] {
            let horizon = horizon();
            let step = u64::from(jumped);
            let verdicts: Vec<_> = (0..2 * u64::from(AGREEING))
                .map(|ordinal| horizon.admit(start + ordinal * step, NOW, NOW))
                .collect();

            let refused = verdicts.iter().filter(|verdict| verdict.is_err()).count();
            let expected = if jumped { AGREEING as usize - 1 } else { verdicts.len() };
            assert_eq!(refused, expected, "from {start}");
        }
    }

    #[test]
    fn believed_blocks_between_the_strange_ones_keep_the_chain() {
        let horizon = horizon();
        for ordinal in 0..4 * u64::from(AGREEING) {
            assert_eq!(horizon.admit(REAL + ordinal, NOW, NOW), Ok(()));
            let strange = horizon.admit(7_000_000_000 + ordinal, NOW, NOW);
            assert_eq!(strange, Err(Disbelief::Number));
        }
    }
}

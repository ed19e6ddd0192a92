//! How one stream moves through the blocks, and the order of arrival.

use std::{ops::Range, time::Duration};

use crate::{
    event::Timestamp,
    source::{DENSE_AFTER, Density, Stream, StreamState, consecutive},
};

/// How often a stream's blocks of other content are logged at most: a node that follows another chain
/// brings one with every block.
const CONFLICT_LOGGED: Duration = Duration::from_secs(60);

/// The walk of one stream: where a jump in its numbers is a hole.
#[derive(Clone, Debug)]
pub(super) struct Track {
    density: Density,
    last_position: Option<u64>,
    consecutive: u32,
    /// Lines were lost behind this block, and no later one has come since.
    lost_after: Option<u64>,
    conflicts: Conflicts,
}

/// The blocks of a stream that came with other content than was delivered.
#[derive(Clone, Copy, Debug, Default)]
struct Conflicts {
    logged_at: Option<Timestamp>,
    /// Since then.
    left_out: u64,
}

/// A jump in the numbers of a stream that means something. It holds the last block before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Jump {
    /// The stream is dense: every block between is missing where nobody else brings it.
    Dense(u64),
    /// Lines of a stream that is not dense were lost: somewhere between, blocks may be missing.
    Suspected(u64),
}

impl Track {
    pub fn new(stream: &Stream, state: Option<&StreamState>) -> Self {
        Self {
            density: stream.density,
            last_position: state.and_then(|state| state.last_position),
            consecutive: state.map_or(0, |state| state.consecutive),
            lost_after: None,
            conflicts: Conflicts::default(),
        }
    }

    /// The source says that lines were lost before the next block. It is remembered until a block
    /// beyond the last one comes: what comes after a rewind tells nothing of the hole.
    pub fn note_discontinuity(&mut self) {
        self.lost_after = self.lost_after.max(self.last_position);
    }

    /// Notes a block of other content. Gives whether it is to be logged, and then how many before it
    /// were not.
    pub fn note_conflict(&mut self, now: Timestamp) -> Option<u64> {
        let Conflicts { logged_at, left_out } = &mut self.conflicts;
        // A clock that stepped back silences nothing.
        if logged_at.is_some_and(|at| at <= now && now.since(at) < CONFLICT_LOGGED) {
            *left_out += 1;
            return None;
        }
        *logged_at = Some(now);
        Some(std::mem::take(left_out))
    }

    /// Goes on to a block. Gives the jump that may have skipped some: in a dense stream, or in any
    /// where lines were lost.
    pub fn advance(&mut self, position: u64) -> Option<Jump> {
        let was_dense = match self.density {
            Density::Dense => true,
            Density::Learned => self.consecutive >= DENSE_AFTER,
            Density::Sparse => false,
        };
        self.consecutive = consecutive(self.consecutive, self.last_position, position);
        let previous = self.last_position.replace(position)?;
        // No sum here or in the ledger can overflow: the parser refuses what is above
        // `MAX_POSITION`, and the store holds signed numbers.
        let skipped = |last: u64| position > last + 1;
        let lost_after = self.lost_after.take_if(|last| position > *last);
        if was_dense {
            return skipped(previous).then_some(Jump::Dense(previous));
        }
        lost_after.filter(|&last| skipped(last)).map(Jump::Suspected)
    }
}

/// Gives each event its `seq`: microseconds since 1970, made strictly monotonic. Where a batch ends can be seen
/// by a number that is left free.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequencer {
    last: u64,
}

impl Sequencer {
    /// Goes on above the highest `seq` of the store.
    pub fn above(last: u64) -> Self {
        Self { last }
    }

    /// The numbers of a batch.
    pub fn of_batch(&mut self, now: Timestamp, count: usize) -> Range<u64> {
        let first = (self.last + 2).max(u64::try_from(now.0).unwrap_or(0));
        let numbers = first..first + count as u64;
        if count > 0 {
            self.last = numbers.end - 1;
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(density: Density) -> Track {
        let conflicts = Conflicts::default();
        Track { density, last_position: None, consecutive: 0, lost_after: None, conflicts }
    }

    #[test]
    fn a_dense_stream_reports_a_jump_and_a_rewind_is_none() {
        let mut track = track(Density::Dense);

        let jumps = [5, 6, 9, 7, 8, 9].map(|position| track.advance(position));

        assert_eq!(jumps, [None, None, Some(Jump::Dense(6)), None, None, None]);
    }

    #[test]
    fn conflicts_are_logged_once_a_minute_with_the_number_of_those_left_out() {
        let mut track = track(Density::Dense);
        let at = |seconds: i64| Timestamp(seconds * 1_000_000);

        let logged = [100, 101, 159, 160, 161, 400, 90].map(|now| track.note_conflict(at(now)));

        let clock_stepped_back = Some(0);
        assert_eq!(logged, [Some(0), None, None, Some(2), None, Some(1), clock_stepped_back]);
    }

    #[test]
    fn density_is_learned_from_a_long_run() {
        let mut track = track(Density::Learned);

        assert_eq!(track.advance(1), None);
        assert_eq!(track.advance(9), None);
        for position in 10..=110 {
            assert_eq!(track.advance(position), None);
        }
        assert_eq!(track.advance(120), Some(Jump::Dense(110)));
    }

    #[test]
    fn what_was_learned_survives_a_hole_and_a_rewind() {
        let mut track = track(Density::Learned);
        for position in 1..=120 {
            track.advance(position);
        }

        assert_eq!(track.advance(130), Some(Jump::Dense(120)));
        assert_eq!(track.advance(118), None);
        assert_eq!(track.advance(125), Some(Jump::Dense(118)));
    }

    #[test]
    fn lost_lines_make_a_jump_of_a_sparse_stream_a_hole() {
        let mut track = track(Density::Sparse);

        assert_eq!(track.advance(1), None);
        assert_eq!(track.advance(5), None);
        track.note_discontinuity();
        assert_eq!(track.advance(9), Some(Jump::Suspected(5)));
        assert_eq!(track.advance(20), None);
    }

    // A file that is read again from its start after lines were lost.
    #[test]
    fn a_rewind_does_not_use_up_what_is_known_of_lost_lines() {
        let mut track = track(Density::Sparse);
        track.advance(1);
        track.advance(9);

        track.note_discontinuity();

        assert_eq!([3, 7, 9].map(|position| track.advance(position)), [None; 3]);
        assert_eq!(track.advance(14), Some(Jump::Suspected(9)));
        assert_eq!(track.advance(18), None);
    }

    #[test]
    fn a_clock_that_steps_back_does_not_disturb_the_order() {
        let mut sequencer = Sequencer::above(1_000);

        let times = [(5, 1), (2_000, 3), (3_000, 0), (1_500, 2), (3_000, 1)];
        let seqs = times.map(|(now, count)| sequencer.of_batch(Timestamp(now), count));

        let seqs: Vec<_> = seqs.into_iter().flatten().collect();
        assert_eq!(seqs, [1_002, 2_000, 2_001, 2_002, 2_004, 2_005, 3_000]);
    }
}

//! How one stream moves through the blocks, and the order of arrival.

use crate::{
    event::Timestamp,
    source::{DENSE_AFTER, Density, Stream, StreamState, consecutive},
};

/// The walk of one stream: where a jump in its numbers is a hole.
#[derive(Clone, Debug)]
pub(super) struct Track {
    density: Density,
    last_position: Option<u64>,
    consecutive: u32,
}

impl Track {
    pub fn new(stream: &Stream, state: Option<&StreamState>) -> Self {
        Self {
            density: stream.density,
            last_position: state.and_then(|state| state.last_position),
            consecutive: state.map_or(0, |state| state.consecutive),
        }
    }

    /// Goes on to a block. Gives the last block before a jump that may have skipped some:
    /// in a dense stream, or in any where the source says that lines were lost (`discontinuity`).
    pub fn advance(&mut self, position: u64, discontinuity: bool) -> Option<u64> {
        let was_dense = match self.density {
            Density::Dense => true,
            Density::Learned => self.consecutive >= DENSE_AFTER,
            Density::Sparse => false,
        };
        self.consecutive = consecutive(self.consecutive, self.last_position, position);
        let previous = self.last_position.replace(position)?;
        let skipped = position > previous + 1;
        (skipped && (was_dense || discontinuity)).then_some(previous)
    }
}

/// Gives each event its `seq`: microseconds since 1970, made strictly monotonic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequencer {
    last: u64,
}

impl Sequencer {
    /// Goes on above the highest `seq` of the store.
    pub fn above(last: u64) -> Self {
        Self { last }
    }

    pub fn next(&mut self, now: Timestamp) -> u64 {
        self.last = (self.last + 1).max(u64::try_from(now.0).unwrap_or(0));
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(density: Density) -> Track {
        Track { density, last_position: None, consecutive: 0 }
    }

    #[test]
    fn a_dense_stream_reports_a_jump_and_a_rewind_is_none() {
        let mut track = track(Density::Dense);

        let jumps = [5, 6, 9, 7, 8, 9].map(|position| track.advance(position, false));

        assert_eq!(jumps, [None, None, Some(6), None, None, None]);
    }

    #[test]
    fn density_is_learned_from_a_long_run() {
        let mut track = track(Density::Learned);

        assert_eq!(track.advance(1, false), None);
        assert_eq!(track.advance(9, false), None);
        for position in 10..=110 {
            assert_eq!(track.advance(position, false), None);
        }
        assert_eq!(track.advance(120, false), Some(110));
    }

    #[test]
    fn what_was_learned_survives_a_hole_and_a_rewind() {
        let mut track = track(Density::Learned);
        for position in 1..=120 {
            track.advance(position, false);
        }

        assert_eq!(track.advance(130, false), Some(120));
        assert_eq!(track.advance(118, false), None);
        assert_eq!(track.advance(125, false), Some(118));
    }

    #[test]
    fn lost_lines_make_a_jump_of_a_sparse_stream_a_hole() {
        let mut track = track(Density::Sparse);

        assert_eq!(track.advance(1, false), None);
        assert_eq!(track.advance(5, false), None);
        assert_eq!(track.advance(9, true), Some(5));
    }

    #[test]
    fn a_clock_that_steps_back_does_not_disturb_the_order() {
        let mut sequencer = Sequencer::above(1_000);

        let seqs = [5, 2_000, 1_500, 3_000].map(|now| sequencer.next(Timestamp(now)));

        assert_eq!(seqs, [1_001, 2_000, 2_001, 3_000]);
    }
}

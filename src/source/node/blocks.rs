//! Which ordinal an element of a streaming file has in its block.
//!
//! Place in the pipeline: rules of the `Parser` for streaming files, where a block spans several
//! lines, perhaps in two hour files, and a node that restarts writes blocks again from their
//! beginning. A line says only its block, so the ordinals follow from what came before:
//!
//! * a block that is not known starts at 0;
//! * a line whose elements repeat what the block holds at its next ordinal goes on repeating;
//! * else a line whose elements repeat the block's beginning starts it anew: a rewind;
//! * else it is new content, and stands behind everything the block holds.
//!
//! So a lower block number alone is no rewind: late lines of an earlier block go on where they
//! were. Two elements of one block with the same bytes are told apart by their order only.
//!
//! Invariant: however a block is cut into lines and wherever the node rewinds, an element gets the
//! same ordinal. Memory is bounded by [`MAX_BLOCKS`] and [`MAX_DIGESTS`].

use std::collections::{HashMap, VecDeque};

use crate::source::OpenBlock;

/// Blocks that are remembered; at 15 blocks a second more than a minute.
const MAX_BLOCKS: usize = 1_024;

/// Elements of one block whose content is remembered.
const MAX_DIGESTS: usize = 16_384;

/// Blocks that go through a checkpoint.
const MAX_OPEN: usize = 16;

/// Stands for a digest that is not known; [`known`] gives it to no element.
const UNKNOWN: u64 = 0;

/// The ordinals of one stream.
#[derive(Debug, Default)]
pub struct BlockIndexes {
    blocks: HashMap<u64, Content>,
    /// Their positions; the one that grew last stands last.
    order: VecDeque<u64>,
}

/// What is known of one block.
#[derive(Debug)]
struct Content {
    /// The ordinal that the next element gets. Below `extent` while the block is repeated.
    next: u32,
    /// Number of ordinals that were given.
    extent: u32,
    /// Digest of each element from 0, [`UNKNOWN`] where it is not known. May be shorter than
    /// `extent`.
    digests: Vec<u64>,
}

impl BlockIndexes {
    /// Goes on from a checkpoint, which keeps only the first digest of each block.
    pub fn resume(open: &[OpenBlock]) -> Self {
        let mut indexes = Self::default();
        for block in open {
            let content = Content {
                next: block.next_index,
                extent: block.next_index,
                digests: vec![block.first_digest],
            };
            indexes.insert(block.position, content);
        }
        indexes
    }

    /// Gives the ordinal of the first of these elements, which stand on one line.
    pub fn place(&mut self, position: u64, elements: &[u64]) -> u32 {
        if self.order.back() != Some(&position) {
            if self.blocks.contains_key(&position) {
                self.order.retain(|other| *other != position);
                self.order.push_back(position);
            } else {
                let fresh = Content { next: 0, extent: 0, digests: Vec::new() };
                self.insert(position, fresh);
            }
        }
        let content = self.blocks.get_mut(&position).expect("it is there or was just inserted");
        content.place(elements)
    }

    /// The newest blocks, for the checkpoint. A block that is being repeated goes on from where
    /// the repetition stands.
    pub fn open(&self) -> Vec<OpenBlock> {
        let newest = self.order.iter().skip(self.order.len().saturating_sub(MAX_OPEN));
        newest
            .filter_map(|&position| {
                let content = self.blocks.get(&position)?;
                let first_digest = content.digest(0);
                Some(OpenBlock { position, next_index: content.next, first_digest })
            })
            .collect()
    }

    fn insert(&mut self, position: u64, content: Content) {
        self.blocks.insert(position, content);
        self.order.push_back(position);
        if self.order.len() > MAX_BLOCKS
            && let Some(oldest) = self.order.pop_front()
        {
            self.blocks.remove(&oldest);
        }
    }
}

/// How elements compare with what is known at a place.
#[derive(PartialEq, Eq)]
enum Match {
    /// At least one is the same and none differs.
    Same,
    /// Nothing is known there.
    Unknown,
    Different,
}

impl Content {
    fn place(&mut self, elements: &[u64]) -> u32 {
        let first = match self.compare(self.next, elements) {
            Match::Same => self.next,
            at_next => match self.compare(0, elements) {
                Match::Same => 0,
                _ if at_next == Match::Different => self.extent,
                _ => self.next,
            },
        };
        for (ordinal, &digest) in (first as usize..MAX_DIGESTS).zip(elements) {
            if self.digests.len() <= ordinal {
                self.digests.resize(ordinal + 1, UNKNOWN);
            }
            self.digests[ordinal] = known(digest);
        }
        // More than u32::MAX elements would take terabytes of lines.
        self.next = first.saturating_add(elements.len() as u32);
        self.extent = self.extent.max(self.next);
        first
    }

    fn compare(&self, from: u32, elements: &[u64]) -> Match {
        let mut matched = Match::Unknown;
        for (ordinal, &digest) in (from..self.extent).zip(elements) {
            match self.digest(ordinal) {
                UNKNOWN => {}
                held if held == known(digest) => matched = Match::Same,
                _ => return Match::Different,
            }
        }
        matched
    }

    fn digest(&self, ordinal: u32) -> u64 {
        self.digests.get(ordinal as usize).copied().unwrap_or(UNKNOWN)
    }
}

/// A digest that is never [`UNKNOWN`].
fn known(digest: u64) -> u64 {
    digest.max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Elements of a block: each digest occurs once.
    fn elements(position: u64, range: std::ops::Range<u64>) -> Vec<u64> {
        range.map(|ordinal| position * 1_000 + ordinal + 1).collect()
    }

    #[test]
    fn a_block_goes_on_over_lines() {
        let mut indexes = BlockIndexes::default();

        assert_eq!(indexes.place(7, &elements(7, 0..2)), 0);
        assert_eq!(indexes.place(7, &elements(7, 2..3)), 2);
        assert_eq!(indexes.place(8, &elements(8, 0..1)), 0);
    }

    #[test]
    fn a_late_line_of_an_earlier_block_is_no_rewind() {
        let mut indexes = BlockIndexes::default();
        indexes.place(7, &elements(7, 0..2));
        indexes.place(8, &elements(8, 0..2));

        assert_eq!(indexes.place(7, &elements(7, 2..4)), 2);
        assert_eq!(indexes.place(8, &elements(8, 2..3)), 2);
    }

    #[test]
    fn what_differs_from_the_block_that_is_repeated_comes_behind_all_of_it() {
        let mut indexes = BlockIndexes::default();
        indexes.place(7, &elements(7, 0..3));

        assert_eq!(indexes.place(7, &elements(7, 0..1)), 0);
        assert_eq!(indexes.place(7, &elements(7, 5..6)), 3);
    }

    #[test]
    fn a_repeated_block_starts_anew_and_may_grow() {
        let mut indexes = BlockIndexes::default();
        indexes.place(7, &elements(7, 0..2));
        indexes.place(8, &elements(8, 0..2));

        assert_eq!(indexes.place(7, &elements(7, 0..1)), 0);
        assert_eq!(indexes.place(7, &elements(7, 1..3)), 1);
        assert_eq!(indexes.place(7, &elements(7, 3..4)), 3);
    }

    #[test]
    fn the_current_block_may_be_repeated_at_once() {
        let mut indexes = BlockIndexes::default();
        indexes.place(7, &elements(7, 0..2));

        assert_eq!(indexes.place(7, &elements(7, 0..3)), 0);
        assert_eq!(indexes.place(7, &elements(7, 3..4)), 3);
    }

    #[test]
    fn a_checkpoint_in_the_middle_of_a_repetition_keeps_its_place() {
        let mut indexes = BlockIndexes::default();
        indexes.place(7, &elements(7, 0..5));
        indexes.place(8, &elements(8, 0..2));
        indexes.place(7, &elements(7, 0..2));

        let mut resumed = BlockIndexes::resume(&indexes.open());

        assert_eq!(resumed.place(7, &elements(7, 2..4)), 2);
        assert_eq!(resumed.place(7, &elements(7, 0..1)), 0);
        assert_eq!(resumed.place(8, &elements(8, 2..3)), 2);
    }

    #[test]
    fn memory_is_bounded() {
        let mut indexes = BlockIndexes::default();
        for position in 0..5_000 {
            indexes.place(position, &[position]);
        }
        indexes.place(9_000, &vec![5; 100_000]);

        assert_eq!(indexes.blocks.len(), MAX_BLOCKS);
        assert_eq!(indexes.order.len(), MAX_BLOCKS);
        assert_eq!(indexes.blocks[&9_000].digests.len(), MAX_DIGESTS);
        assert_eq!(indexes.open().len(), MAX_OPEN);
        assert_eq!(indexes.place(9_000, &[7]), 100_000);
    }

    /// Writes the blocks from `from` on as lines, each of `cuts` elements in turn.
    fn lines(
        from: u64,
        to: u64,
        size: u64,
        cuts: &mut impl Iterator<Item = u64>,
    ) -> Vec<(u64, u64, u64)> {
        let mut lines = Vec::new();
        for position in from..to {
            let mut start = 0;
            while start < size {
                let end = (start + cuts.next().unwrap()).min(size);
                lines.push((position, start, end));
                start = end;
            }
        }
        lines
    }

    proptest! {
        #[test]
        fn cuts_rewinds_and_restarts_leave_the_ordinals_alone(
            size in 1..12_u64,
            cuts in prop::collection::vec(1..6_u64, 1..20),
            // After how many lines the node falls back, and by how many blocks.
            rewinds in prop::collection::vec((1..12_usize, 0..6_u64), 0..6),
            // Every how many lines we restart from a checkpoint.
            restart in 1..40_usize,
        ) {
            let mut cuts = cuts.into_iter().cycle();
            let mut written = Vec::new();
            let mut from = 0;
            for (count, back) in rewinds {
                let run = lines(from, from + 10, size, &mut cuts);
                let kept = &run[..count.min(run.len())];
                written.extend_from_slice(kept);
                from = kept.last().unwrap().0.saturating_sub(back);
            }
            written.extend(lines(from, from + 3, size, &mut cuts));

            let mut indexes = BlockIndexes::default();
            for (ordinal, (position, start, end)) in written.into_iter().enumerate() {
                if ordinal % restart == restart - 1 {
                    indexes = BlockIndexes::resume(&indexes.open());
                }
                let first = indexes.place(position, &elements(position, start..end));
                prop_assert_eq!(u64::from(first), start, "block {} at {}", position, start);
            }
        }
    }
}

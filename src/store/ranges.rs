//! Ledger ranges: how the rows of many commits become few.
//!
//! Invariant: merging changes what is remembered only beyond [`KEPT_BLOCKS`] and
//! [`OLD_RANGES`]; what is complete stays complete.

use std::{cmp::Reverse, mem};

use crate::router::ledger::BlockRange;

/// Blocks of a topic, counted back from its newest, of which the digests and the partial blocks
/// are kept.
const KEPT_BLOCKS: u64 = 100_000;

/// Blocks in one row that has digests, so that growing the newest row rewrites 32 KiB and not the
/// digests of all kept blocks.
const ROW_BLOCKS: u64 = 4_096;

/// Ranges without digests that a topic keeps: a sparse topic never becomes one interval.
const OLD_RANGES: usize = 10_000;

/// Brings ranges, in any order and overlapping, into order and merges what is adjacent.
pub fn merge(mut ranges: Vec<BlockRange>) -> Vec<BlockRange> {
    ranges.sort_by_key(|range| (range.topic, range.first, range.next_index.is_some()));
    let mut merged = Vec::new();
    for topic in ranges.chunk_by_mut(|a, b| a.topic == b.topic) {
        merge_topic(topic, &mut merged);
    }
    merged
}

fn merge_topic(ranges: &mut [BlockRange], merged: &mut Vec<BlockRange>) {
    let newest = ranges.iter().map(|range| range.last).max().unwrap_or_default();
    let kept_from = newest.saturating_sub(KEPT_BLOCKS - 1);
    let mut complete: Vec<BlockRange> = Vec::new();
    let mut partial = Vec::new();
    for range in ranges {
        let mut range = BlockRange { digests: mem::take(&mut range.digests), ..range.clone() };
        if range.next_index.is_some() {
            partial.push(range);
            continue;
        }
        // A row without a digest for each block is as good as one without any.
        if range.last < kept_from || range.digests.len() as u64 != blocks(&range) {
            range.digests = Vec::new();
        }
        append(&mut complete, range);
    }
    partial.retain(|open| open.first >= kept_from && !covers(&complete, open.first));
    let old = complete.iter().take_while(|range| range.digests.is_empty()).count();
    complete.drain(..old.saturating_sub(OLD_RANGES));
    merged.append(&mut complete);
    merged.append(&mut partial);
}

/// Appends a range that starts at or behind the start of the last one.
fn append(complete: &mut Vec<BlockRange>, mut range: BlockRange) {
    if let Some(last) = complete.last_mut() {
        if range.last <= last.last {
            return;
        }
        let overlap = (last.last + 1).saturating_sub(range.first);
        range.first += overlap;
        if !range.digests.is_empty() {
            range.digests.drain(..overlap as usize);
        }
        let adjacent = range.first == last.last + 1;
        let both_old = last.digests.is_empty() && range.digests.is_empty();
        let both_new = !last.digests.is_empty()
            && !range.digests.is_empty()
            && blocks(last) + blocks(&range) <= ROW_BLOCKS;
        if adjacent && (both_old || both_new) {
            last.last = range.last;
            last.digests.append(&mut range.digests);
            return;
        }
    }
    complete.push(range);
}

/// What a commit has to write: merged, and of an open block only what reaches furthest.
pub fn condense(ranges: &[&BlockRange]) -> Vec<BlockRange> {
    let mut merged = merge(ranges.iter().map(|range| (*range).clone()).collect());
    merged.sort_by_key(|range| (range.topic, range.first, Reverse(range.next_index)));
    merged.dedup_by_key(|range| (range.topic, range.first, range.next_index.is_some()));
    merged
}

fn blocks(range: &BlockRange) -> u64 {
    range.last.saturating_sub(range.first).saturating_add(1)
}

fn covers(complete: &[BlockRange], position: u64) -> bool {
    let behind = complete.partition_point(|range| range.first <= position);
    behind > 0 && complete[behind - 1].last >= position
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Topic;

    const FILLS: Topic = Topic::new("fills");

    fn complete(first: u64, last: u64) -> BlockRange {
        let digests = (first..=last).map(|position| position * 3).collect();
        BlockRange { topic: FILLS, first, last, next_index: None, digests }
    }

    fn open(position: u64, next_index: u32) -> BlockRange {
        let next_index = Some(next_index);
        BlockRange { topic: FILLS, first: position, last: position, next_index, digests: vec![1] }
    }

    #[test]
    fn adjacent_ranges_become_one_with_all_digests() {
        let merged = merge(vec![complete(8, 9), complete(1, 3), complete(4, 6)]);

        assert_eq!(merged, vec![complete(1, 6), complete(8, 9)]);
    }

    #[test]
    fn digests_and_open_blocks_beyond_the_window_are_dropped_and_the_blocks_stay_complete() {
        let newest = 1_000_000;

        let merged = merge(vec![open(5, 2), complete(1, 3), complete(newest, newest)]);

        let old = BlockRange { digests: Vec::new(), ..complete(1, 3) };
        assert_eq!(merged, vec![old, complete(newest, newest)]);
    }

    #[test]
    fn a_block_that_is_complete_is_no_longer_open() {
        let merged = merge(vec![open(5, 2), open(7, 1), complete(4, 6)]);

        assert_eq!(merged, vec![complete(4, 6), open(7, 1)]);
    }

    #[test]
    fn a_week_of_single_blocks_is_a_few_dozen_rows() {
        let merged = merge((0..300_000).map(|position| complete(position, position)).collect());

        assert!(merged.len() < 40, "{}", merged.len());
        assert_eq!(merged.iter().map(blocks).sum::<u64>(), 300_000);
        let digests: usize = merged.iter().map(|range| range.digests.len()).sum();
        assert_eq!(digests as u64, KEPT_BLOCKS);
    }

    proptest! {
        #[test]
        fn merging_neither_forgets_nor_invents_a_block(
            spans in prop::collection::vec((0_u64..200, 0_u64..20), 0..40),
        ) {
            let ranges: Vec<_> =
                spans.iter().map(|&(first, more)| complete(first, first + more)).collect();

            let merged = merge(ranges);

            let expected: std::collections::BTreeSet<u64> =
                spans.iter().flat_map(|&(first, more)| first..=first + more).collect();
            let blocks: Vec<u64> =
                merged.iter().flat_map(|range| range.first..=range.last).collect();
            prop_assert_eq!(&blocks, &expected.iter().copied().collect::<Vec<_>>());
            let digests: Vec<u64> =
                merged.iter().flat_map(|range| range.digests.clone()).collect();
            prop_assert_eq!(digests, blocks.iter().map(|block| block * 3).collect::<Vec<_>>());
        }
    }
}

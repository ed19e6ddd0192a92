//! The ledger: which blocks of a topic were delivered, and which are missing.
//!
//! Place in the pipeline: the rules of the `Router`; the store keeps what it learns.
//! Invariants: what was delivered is not delivered again, whichever node directory brings it; a
//! block below [`Ledger::certain_from`] may have been forgotten, and then the unique key of the
//! store decides.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    event::{Timestamp, Topic},
    source::Block,
};

/// Ranges, pieces and digests that are remembered, each. At 14.5 blocks a second the last two
/// hours, and 4 MB where every block is a piece.
pub const MAX_REMEMBERED: usize = 100_000;

/// Gaps that can be open at one time. A node that crashes twelve times a day needs years for them.
pub const MAX_OPEN_GAPS: usize = 10_000;

/// Consecutive blocks that were delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRange {
    pub topic: Topic,
    pub first: u64,
    /// Inclusive.
    pub last: u64,
    /// `None`: the blocks are complete. Otherwise a single block of which the elements below this
    /// ordinal were delivered.
    pub next_index: Option<u32>,
    /// Content digest of each block, or empty where they are no longer kept, as for a range with a
    /// `next_index`.
    pub digests: Vec<u64>,
}

/// Blocks that did not come; where a stream is not dense, blocks between which lines were lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    pub topic: Topic,
    pub first: u64,
    /// Inclusive.
    pub last: u64,
    /// When the hole was noticed.
    pub opened: Timestamp,
    /// When another node directory or a back-fill had brought all of it.
    pub closed: Option<Timestamp>,
}

/// What the ledger says to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Elements from this ordinal on were not delivered yet.
    New { from_index: u32 },
    /// All of it was delivered before.
    Seen {
        /// With other content: an alarm.
        conflict: bool,
    },
    /// Too old for the ledger's memory: ask the store for each event.
    Uncertain,
}

/// The blocks of one topic, over all node directories.
#[derive(Debug)]
pub struct Ledger {
    topic: Topic,
    /// First to last position of runs of complete blocks; runs neither touch nor overlap.
    complete: BTreeMap<u64, u64>,
    /// Next ordinal of blocks that arrive in pieces.
    partial: BTreeMap<u64, u32>,
    /// Content of recent complete blocks.
    digests: BTreeMap<u64, u64>,
    certain_from: u64,
    open_gaps: Vec<Gap>,
}

impl Ledger {
    pub fn new(topic: Topic) -> Self {
        Self {
            topic,
            complete: BTreeMap::new(),
            partial: BTreeMap::new(),
            digests: BTreeMap::new(),
            certain_from: 0,
            open_gaps: Vec::new(),
        }
    }

    /// Adds what the store has kept of an earlier life.
    pub fn load(&mut self, range: &BlockRange) {
        match range.next_index {
            None => {
                self.add_complete(range.first, range.last);
                for (position, &digest) in (range.first..=range.last).zip(&range.digests) {
                    self.digests.insert(position, digest);
                }
            }
            Some(next_index) => {
                let next = self.partial.entry(range.first).or_default();
                *next = next_index.max(*next);
            }
        }
    }

    /// Ends the loading. The store forgets ranges and pieces from the oldest on, each for itself,
    /// so below the oldest of either nothing is certain.
    pub fn loaded(&mut self) {
        let oldest = [self.complete.keys().next(), self.partial.keys().next()];
        let certain_from = oldest.into_iter().flatten().max().copied();
        self.certain_from = certain_from.unwrap_or_default();
        self.forget();
    }

    /// Adds a gap that was open in an earlier life.
    pub fn load_gap(&mut self, gap: Gap) {
        self.open_gaps.push(gap);
    }

    pub fn open_gaps(&self) -> &[Gap] {
        &self.open_gaps
    }

    /// Tells how much each memory holds: runs, pieces, digests.
    pub fn remembered(&self) -> [usize; 3] {
        [self.complete.len(), self.partial.len(), self.digests.len()]
    }

    /// Blocks below this are [`Verdict::Uncertain`] unless they are remembered.
    pub fn certain_from(&self) -> u64 {
        self.certain_from
    }

    /// Tells what of a block is new, and takes it as delivered.
    pub fn observe(&mut self, block: &Block) -> Verdict {
        let position = block.position;
        if self.is_complete(position) {
            let known = self.digests.get(&position);
            let conflict = block.complete && known.is_some_and(|known| *known != block.digest);
            return Verdict::Seen { conflict };
        }
        let known_pieces = self.partial.get(&position).copied();
        let uncertain = known_pieces.is_none() && position < self.certain_from;
        if block.complete {
            self.partial.remove(&position);
            self.add_complete(position, position);
            self.digests.insert(position, block.digest);
        } else if known_pieces.is_some_and(|next| block.indexes.end <= next) {
            return Verdict::Seen { conflict: false };
        } else {
            self.partial.insert(position, block.indexes.end);
        }
        self.forget();
        if uncertain {
            Verdict::Uncertain
        } else {
            Verdict::New { from_index: known_pieces.unwrap_or(0) }
        }
    }

    /// Notes that a stream went from one block to a later one, and opens a gap for each run of
    /// blocks between them that nobody has delivered.
    pub fn jump(&mut self, previous: u64, next: u64, now: Timestamp) -> Vec<Gap> {
        let mut opened = Vec::new();
        let mut first = previous + 1;
        while first < next {
            if let Some(end) = self.delivered_until(first) {
                first = end + 1;
                continue;
            }
            let run = self.complete.range(first..).next().map(|(&start, _)| start);
            let piece = self.partial.range(first..).next().map(|(&start, _)| start);
            let last = [run, piece, Some(next)].into_iter().flatten().min().unwrap_or(next) - 1;
            opened.push(Gap { topic: self.topic, first, last, opened: now, closed: None });
            first = last + 1;
        }
        self.open(opened)
    }

    /// Notes that lines of a stream that is not dense were lost between two blocks, and opens one
    /// gap over all between them. It opens none where anything between was delivered: the numbers
    /// of such a stream do not tell which blocks exist, and another directory saw those lines.
    pub fn suspect(&mut self, previous: u64, next: u64, now: Timestamp) -> Vec<Gap> {
        let first = previous + 1;
        let is_delivered = first >= next
            || self.delivered_until(first).is_some()
            || self.complete.range(first..next).next().is_some()
            || self.partial.range(first..next).next().is_some();
        if is_delivered {
            return Vec::new();
        }
        let (topic, last) = (self.topic, next - 1);
        self.open(vec![Gap { topic, first, last, opened: now, closed: None }])
    }

    /// Keeps the gaps that are not known yet.
    fn open(&mut self, mut opened: Vec<Gap>) -> Vec<Gap> {
        opened.retain(|gap| {
            !self.open_gaps.iter().any(|open| open.first <= gap.first && gap.last <= open.last)
        });
        self.open_gaps.extend(opened.iter().cloned());
        let excess = self.open_gaps.len().saturating_sub(MAX_OPEN_GAPS);
        self.open_gaps.drain(..excess);
        opened
    }

    /// Takes out the gaps of which every block has come, after `position` came.
    pub fn close_gaps(&mut self, position: u64, now: Timestamp) -> Vec<Gap> {
        if !self.open_gaps.iter().any(|gap| (gap.first..=gap.last).contains(&position)) {
            return Vec::new();
        }
        let gaps = std::mem::take(&mut self.open_gaps);
        let (closed, open) = gaps.into_iter().partition(|gap| {
            let mut next = gap.first;
            while next <= gap.last {
                match self.delivered_until(next) {
                    Some(end) => next = end + 1,
                    None => return false,
                }
            }
            true
        });
        self.open_gaps = open;
        let mut closed: Vec<Gap> = closed;
        closed.iter_mut().for_each(|gap| gap.closed = Some(now));
        closed
    }

    /// The last block of the delivered run that holds `position`, if it was delivered.
    fn delivered_until(&self, position: u64) -> Option<u64> {
        let run = self.complete.range(..=position).next_back().map(|(_, &last)| last);
        run.filter(|&last| position <= last)
            .or_else(|| self.partial.contains_key(&position).then_some(position))
    }

    fn is_complete(&self, position: u64) -> bool {
        self.complete.range(..=position).next_back().is_some_and(|(_, &last)| position <= last)
    }

    /// Adds a run and joins it with those that it touches.
    fn add_complete(&mut self, first: u64, last: u64) {
        // The common case is the block behind the newest run, and needs no new entry.
        let before = self.complete.range(..=first).next_back().map(|(&start, &end)| (start, end));
        let start = match before {
            Some((start, end)) if end.saturating_add(1) >= first => start,
            _ => first,
        };
        let mut end = before.filter(|_| start != first).map_or(last, |(_, end)| end.max(last));
        while let Some((&next, &next_end)) = self.complete.range(start + 1..).next()
            && next <= end.saturating_add(1)
        {
            self.complete.remove(&next);
            end = end.max(next_end);
        }
        let known = self.complete.entry(start).or_insert(end);
        *known = end.max(*known);
    }

    /// Keeps each memory within its bound.
    fn forget(&mut self) {
        while self.complete.len() > MAX_REMEMBERED {
            let Some((_, last)) = self.complete.pop_first() else { break };
            self.certain_from = self.certain_from.max(last + 1);
        }
        while self.partial.len() > MAX_REMEMBERED {
            let Some((position, _)) = self.partial.pop_first() else { break };
            self.certain_from = self.certain_from.max(position + 1);
        }
        while self.digests.len() > MAX_REMEMBERED {
            self.digests.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    const FILLS: Topic = Topic::new("fills");
    const NOW: Timestamp = Timestamp(1);

    fn whole(position: u64, digest: u64) -> Block {
        piece_of(position, 0..10, true, digest)
    }

    fn piece(position: u64, indexes: std::ops::Range<u32>) -> Block {
        piece_of(position, indexes, false, 0)
    }

    fn piece_of(
        position: u64,
        indexes: std::ops::Range<u32>,
        complete: bool,
        digest: u64,
    ) -> Block {
        let (time, written, events) = (NOW, NOW, Vec::new());
        Block { position, time, written, indexes, complete, digest, events }
    }

    #[test]
    fn a_rewind_is_seen_and_other_content_is_an_alarm() {
        let mut ledger = Ledger::new(FILLS);
        for position in 5..8 {
            assert_eq!(ledger.observe(&whole(position, 1)), Verdict::New { from_index: 0 });
        }

        assert_eq!(ledger.observe(&whole(6, 1)), Verdict::Seen { conflict: false });
        assert_eq!(ledger.observe(&whole(6, 2)), Verdict::Seen { conflict: true });
        assert_eq!(ledger.observe(&whole(8, 1)), Verdict::New { from_index: 0 });
    }

    #[test]
    fn a_block_in_pieces_is_delivered_once_and_a_whole_line_brings_the_rest() {
        let mut ledger = Ledger::new(FILLS);

        assert_eq!(ledger.observe(&piece(5, 0..3)), Verdict::New { from_index: 0 });
        assert_eq!(ledger.observe(&piece(5, 0..3)), Verdict::Seen { conflict: false });
        assert_eq!(ledger.observe(&piece(5, 2..5)), Verdict::New { from_index: 3 });
        assert_eq!(ledger.observe(&whole(5, 1)), Verdict::New { from_index: 5 });
        assert_eq!(ledger.observe(&piece(5, 5..10)), Verdict::Seen { conflict: false });
    }

    #[test]
    fn a_gap_is_opened_once_and_closed_when_all_of_it_has_come() {
        let mut ledger = Ledger::new(FILLS);
        ledger.observe(&whole(5, 0));
        ledger.observe(&whole(8, 0));
        ledger.observe(&whole(12, 0));

        let opened = ledger.jump(5, 12, NOW);

        let bounds: Vec<_> = opened.iter().map(|gap| (gap.first, gap.last)).collect();
        assert_eq!(bounds, [(6, 7), (9, 11)]);
        assert_eq!(ledger.jump(5, 12, NOW), []);
        ledger.observe(&whole(7, 0));
        assert_eq!(ledger.close_gaps(7, NOW), []);
        ledger.observe(&whole(6, 0));
        let closed = ledger.close_gaps(6, Timestamp(9));
        assert_eq!((closed[0].first, closed[0].closed), (6, Some(Timestamp(9))));
        assert_eq!(ledger.open_gaps().len(), 1);
    }

    #[test]
    fn lost_lines_of_a_sparse_stream_open_one_gap_unless_another_directory_was_there() {
        let mut ledger = Ledger::new(FILLS);
        for position in [5, 1_000, 2_000, 3_000] {
            ledger.observe(&whole(position, 0));
        }

        assert_eq!(ledger.suspect(5, 3_000, NOW), []);
        assert_eq!(ledger.suspect(5, 6, NOW), []);
        let opened = ledger.suspect(3_000, 90_000, NOW);

        assert_eq!(opened.len(), 1);
        assert_eq!((opened[0].first, opened[0].last), (3_001, 89_999));
        assert_eq!(ledger.open_gaps(), opened);
    }

    #[test]
    fn what_was_forgotten_is_left_to_the_store() {
        let mut ledger = Ledger::new(FILLS);
        for position in 0..=MAX_REMEMBERED as u64 {
            ledger.observe(&piece(position, 0..1));
        }

        assert_eq!(ledger.observe(&piece(0, 0..1)), Verdict::Uncertain);
        assert_eq!(ledger.observe(&piece(1, 0..1)), Verdict::Seen { conflict: false });
    }

    #[test]
    fn runs_that_were_forgotten_are_left_to_the_store_too() {
        let mut ledger = Ledger::new(FILLS);
        // Every second block, so that no two make one run.
        for step in 0..=MAX_REMEMBERED as u64 {
            ledger.observe(&whole(2 * step, 0));
        }

        assert_eq!(ledger.observe(&whole(0, 0)), Verdict::Uncertain);
        assert_eq!(ledger.observe(&whole(2, 0)), Verdict::Seen { conflict: false });
    }

    #[test]
    fn below_the_oldest_that_was_loaded_nothing_is_certain() {
        let mut ledger = Ledger::new(FILLS);
        for (first, last) in [(50, 60), (10, 20)] {
            ledger.load(&BlockRange {
                topic: FILLS,
                first,
                last,
                next_index: None,
                digests: vec![],
            });
        }
        ledger.loaded();

        assert_eq!(ledger.observe(&whole(9, 0)), Verdict::Uncertain);
        assert_eq!(ledger.observe(&whole(15, 0)), Verdict::Seen { conflict: false });
        assert_eq!(ledger.observe(&whole(30, 0)), Verdict::New { from_index: 0 });
    }

    proptest! {
        /// The runs say the same as a plain set of positions, in any order of arrival and over a
        /// restart at any moment.
        #[test]
        fn runs_are_the_same_as_a_set(
            positions in prop::collection::vec(0u64..60, 0..120), restart in 0usize..120,
        ) {
            let mut ledger = Ledger::new(FILLS);
            let mut model = BTreeSet::new();
            for (step, &position) in positions.iter().enumerate() {
                if step == restart {
                    let mut loaded = Ledger::new(FILLS);
                    for &position in model.iter().rev() {
                        let topic = FILLS;
                        let (first, last, next_index) = (position, position, None);
                        loaded.load(&BlockRange { topic, first, last, next_index, digests: vec![] });
                    }
                    loaded.loaded();
                    prop_assert_eq!(&loaded.complete, &ledger.complete);
                    ledger = loaded;
                }
                let verdict = ledger.observe(&whole(position, 0));
                let new = !matches!(verdict, Verdict::Seen { .. });
                prop_assert_eq!(new, model.insert(position));
            }
            let runs: HashMap<u64, u64> = ledger.complete.iter().map(|(&f, &l)| (f, l)).collect();
            let covered: BTreeSet<u64> = runs.iter().flat_map(|(&f, &l)| f..=l).collect();
            prop_assert_eq!(covered, model);
            for (_, last) in runs.iter() {
                prop_assert!(!runs.contains_key(&(last + 1)));
            }
        }
    }
}

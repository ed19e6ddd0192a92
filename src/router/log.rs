//! The log: the one ring of recent events in memory that `DbWriter` and the shards read.
//!
//! Place in the pipeline: `Router` appends; each reader keeps its own position and pulls slices.
//! Between the Router and its readers only wake-ups travel.
//! Invariants: segments are numbered without gaps; a segment leaves only when it is committed and
//! the ring is over its bytes; what is not committed is bounded by the credits of the sources.

mod segment;

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use self::segment::{
    ENCODINGS, EVERYDAY, Heads, LogEvent, NewSegment, Notice, Segment, block_around,
};
use crate::{
    event::{Cursor, EventId},
    source::Credit,
};

/// A slice of the log.
#[derive(Debug, Default)]
pub struct LogSlice {
    pub segments: Vec<Arc<Segment>>,
    /// Position to read from next.
    pub next: u64,
    /// How many segments the reader missed because they had left before it asked.
    pub missed: u64,
}

/// Sizes and positions of the log, for status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    pub first: u64,
    pub next: u64,
    /// Segments below this are in the store.
    pub committed: u64,
    /// Highest `seq` in the store.
    pub committed_seq: u64,
    /// Highest `seq` given.
    pub last_seq: u64,
    /// Highest `seq` that has left: everything above it is here.
    pub left_seq: u64,
    pub bytes: usize,
    pub uncommitted_events: usize,
}

/// The ring; shared by the Router and all readers.
pub struct Log {
    /// Committed segments may stay up to this many bytes.
    max_bytes: usize,
    ring: Mutex<Ring>,
}

struct Ring {
    segments: VecDeque<Arc<Segment>>,
    state: LogState,
    heads: Arc<Heads>,
    /// How far each topic has come in the store.
    committed_heads: Arc<Heads>,
    /// How far each topic had come with what has left.
    left_heads: Arc<Heads>,
}

impl Log {
    /// Starts an empty log behind the highest `seq` of the store.
    pub fn new(max_bytes: usize, last_seq: u64, heads: Heads) -> Arc<Self> {
        let state = LogState {
            committed_seq: last_seq,
            last_seq,
            left_seq: last_seq,
            ..LogState::default()
        };
        let heads = Arc::new(heads);
        let ring = Ring {
            segments: VecDeque::new(),
            state,
            heads: heads.clone(),
            committed_heads: heads.clone(),
            left_heads: heads,
        };
        Arc::new(Self { max_bytes, ring: Mutex::new(ring) })
    }

    /// Appends a batch and gives its number.
    pub fn append(&self, new: NewSegment) -> u64 {
        let mut ring = self.ring();
        let number = ring.state.next;
        let segment = Segment::new(number, ring.state.last_seq, new);
        ring.state.last_seq = segment.last_seq;
        ring.state.next += 1;
        ring.heads = segment.heads().clone();
        ring.state.bytes += segment.cost_bytes();
        ring.state.uncommitted_events += segment.events.len();
        ring.segments.push_back(Arc::new(segment));
        number
    }

    /// Reads from a position: segments until `max_events` is reached, at least one if there is one.
    pub fn read(&self, from: u64, max_events: usize) -> LogSlice {
        let ring = self.ring();
        let start = from.max(ring.state.first);
        let mut slice = LogSlice { segments: Vec::new(), next: start, missed: start - from };
        let mut events = 0;
        for segment in ring.segments.iter().skip((start - ring.state.first) as usize) {
            if events > 0 && events + segment.events.len() > max_events {
                break;
            }
            // An empty segment counts as one event, so that a slice is bounded in any case.
            events += segment.events.len().max(1);
            slice.next = segment.number + 1;
            slice.segments.push(segment.clone());
        }
        slice
    }

    /// Finds the segment that holds what follows a `seq`, or the one that will; `None` when some of
    /// it has left.
    pub fn find(&self, after: u64) -> Option<u64> {
        let ring = self.ring();
        let is_done = |segment: &Arc<Segment>| segment.last_seq <= after;
        (after >= ring.state.left_seq)
            .then(|| ring.state.first + ring.segments.partition_point(is_done) as u64)
    }

    /// How far each topic had come before a segment, which may be the next one; `None` when it has left.
    pub fn heads_before(&self, segment: u64) -> Option<Arc<Heads>> {
        let ring = self.ring();
        let ahead = segment.checked_sub(ring.state.first)? as usize;
        Some(match ahead.checked_sub(1).and_then(|last| ring.segments.get(last)) {
            Some(last) => last.heads().clone(),
            None => ring.left_heads.clone(),
        })
    }

    /// Everything below `next` is in the store: credits go back, old segments leave.
    pub fn commit(&self, next: u64) {
        let mut credits = Vec::new();
        let mut left = Vec::new();
        let mut ring = self.ring();
        let from = ring.state.committed.max(ring.state.first);
        for number in from..next.min(ring.state.next) {
            let segment = ring.segments[(number - ring.state.first) as usize].clone();
            credits.extend(segment.take_credit());
            ring.state.uncommitted_events -= segment.events.len();
            if let Some(last) = segment.events.last() {
                ring.state.committed_seq = last.sequenced.seq;
            }
            ring.state.committed = number + 1;
            ring.committed_heads = segment.heads().clone();
        }
        ring.evict(self.max_bytes, &mut left);
        drop(ring);
        // Waking watchers and freeing bodies need not hold the ring.
        credits.into_iter().for_each(Credit::done);
    }

    /// Forgets what is not committed, for a new generation: the sources read it again. Readers
    /// go on at the same number.
    pub fn abandon_uncommitted(&self) {
        let mut ring = self.ring();
        let keep = (ring.state.committed.max(ring.state.first) - ring.state.first) as usize;
        // They stay as gaps in the numbers would break the readers; only the store skips them.
        for segment in ring.segments.iter().skip(keep) {
            drop(segment.take_credit());
        }
        ring.state.uncommitted_events = 0;
        ring.state.committed = ring.state.next;
    }

    /// The cursor of the newest event, for heartbeats and `hello`: "delivered up to here" for a
    /// reader that has seen every segment below [`LogState::next`].
    pub fn head(&self) -> Cursor {
        let ring = self.ring();
        ring.heads.cursor(ring.state.last_seq)
    }

    /// How far each topic has come.
    pub fn heads(&self) -> Heads {
        self.ring().heads.as_ref().clone()
    }

    /// Tells which of these events are in the log and not in the store yet.
    pub fn uncommitted_among(&self, ids: &HashSet<EventId>) -> HashSet<EventId> {
        let ring = self.ring();
        let keep = ring.state.committed.max(ring.state.first) - ring.state.first;
        let uncommitted = ring.segments.iter().skip(keep as usize);
        let events = uncommitted.flat_map(|segment| &segment.events);
        events.map(|event| event.sequenced.event.id).filter(|id| ids.contains(id)).collect()
    }

    /// The cursor of the newest event in the store: who has read the store after asking for it
    /// misses nothing when he resumes here.
    pub fn committed_head(&self) -> Cursor {
        let ring = self.ring();
        ring.committed_heads.cursor(ring.state.committed_seq)
    }

    pub fn state(&self) -> LogState {
        self.ring().state
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Every change of the ring is complete before a panic could happen.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn evict(&mut self, max_bytes: usize, left: &mut Vec<Arc<Segment>>) {
        while self.state.bytes > max_bytes && self.state.first < self.state.committed {
            let Some(segment) = self.segments.pop_front() else { break };
            self.state.first += 1;
            self.state.bytes -= segment.cost_bytes();
            self.state.left_seq = segment.last_seq;
            self.left_heads = segment.heads().clone();
            left.push(segment);
        }
    }
}

#[cfg(test)]
mod tests;

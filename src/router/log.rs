//! The log: the one ring of recent events in memory that `DbWriter` and the shards read.
//!
//! Place in the pipeline: `Router` appends; each reader keeps its own position and pulls slices.
//! Between the Router and its readers only wake-ups travel.
//! Invariants: segments are numbered without gaps; a segment leaves only when it is committed and
//! the ring is over its bytes; what is not committed is bounded by the credits of the sources.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytes::Bytes;

use super::ledger::{BlockRange, Gap};
use crate::{
    event::{Cursor, EventId, SequencedEvent, Timestamp, Topic},
    source::{Credit, Progress},
};

/// How many encodings of an event are kept: one for each dialect.
pub const ENCODINGS: usize = 4;

/// An event in the log, with its frames: encoded once per dialect and shared by all sessions.
pub struct LogEvent {
    pub sequenced: SequencedEvent,
    /// Shared by the events of a batch.
    heads: Arc<Heads>,
    frames: [OnceLock<Bytes>; ENCODINGS],
}

impl LogEvent {
    pub fn new(sequenced: SequencedEvent, heads: Arc<Heads>) -> Self {
        Self { sequenced, heads, frames: Default::default() }
    }

    /// "Delivered up to this event."
    pub fn cursor(&self) -> Cursor {
        let id = &self.sequenced.event.id;
        let mut cursor = self.heads.cursor(self.sequenced.seq);
        match cursor.positions.iter_mut().find(|(topic, _)| *topic == id.topic) {
            Some((_, position)) => *position = id.position.max(*position),
            None => cursor.positions.push((id.topic, id.position)),
        }
        cursor
    }

    /// Gives the frame of one dialect, which is encoded by the first who asks.
    ///
    /// # Panics
    /// When `encoding` is not below [`ENCODINGS`].
    pub fn frame(&self, encoding: usize, encode: impl FnOnce(&Self) -> Bytes) -> Bytes {
        self.frames[encoding].get_or_init(|| encode(self)).clone()
    }
}

/// How far each topic had come before a batch, and in which run of which store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    pub epoch: u64,
    pub run: u64,
    pub positions: Vec<(Topic, u64)>,
}

impl Heads {
    pub fn cursor(&self, seq: u64) -> Cursor {
        Cursor { epoch: self.epoch, run: self.run, seq, positions: self.positions.clone() }
    }
}

/// What subscribers and the store are told besides events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Positions of a dense topic did not come.
    GapOpened(Gap),
    /// All of them came after all.
    GapClosed(Gap),
}

/// One batch in the log. It is there also when it has no events: its progress must be committed.
pub struct Segment {
    /// Place in the log, without gaps from 0 at the start of the process.
    pub number: u64,
    pub generation: u64,
    pub topic: Topic,
    pub events: Vec<LogEvent>,
    pub notices: Vec<Notice>,
    /// The ranges of blocks that the ledger saw for the first time in this batch.
    pub seen: Vec<BlockRange>,
    pub progress: Progress,
    /// When the bytes were read, for our own latency.
    pub read_at: Timestamp,
    /// Given back by the commit.
    credit: Mutex<Option<Credit>>,
    /// How far each topic has come with this batch.
    heads: Arc<Heads>,
    cost_bytes: usize,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment({}, {} events)", self.number, self.events.len())
    }
}

/// A segment before it has its number.
pub struct NewSegment {
    pub generation: u64,
    pub events: Vec<LogEvent>,
    pub notices: Vec<Notice>,
    pub seen: Vec<BlockRange>,
    /// How far each topic has come with this batch.
    pub heads: Arc<Heads>,
    pub progress: Progress,
    pub read_at: Timestamp,
    pub credit: Credit,
}

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
    pub bytes: usize,
    pub uncommitted_events: usize,
}

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
}

impl Log {
    /// Starts an empty log behind the highest `seq` of the store.
    pub fn new(max_bytes: usize, last_seq: u64, heads: Heads) -> Arc<Self> {
        let state = LogState { committed_seq: last_seq, last_seq, ..LogState::default() };
        let heads = Arc::new(heads);
        let ring =
            Ring { segments: VecDeque::new(), state, heads: heads.clone(), committed_heads: heads };
        Arc::new(Self { max_bytes, ring: Mutex::new(ring) })
    }

    /// Appends a batch and gives its number.
    pub fn append(&self, new: NewSegment) -> u64 {
        let events = new.events.iter().map(|event| event.sequenced.event.cost_bytes());
        let seen = new.seen.iter().map(|range| size_of_val(range) + size_of_val(&*range.digests));
        let mut ring = self.ring();
        let number = ring.state.next;
        if let Some(last) = new.events.last() {
            ring.state.last_seq = last.sequenced.seq;
        }
        let cost_bytes = size_of::<Segment>() + events.chain(seen).sum::<usize>();
        ring.state.next += 1;
        ring.heads = new.heads.clone();
        ring.state.bytes += cost_bytes;
        ring.state.uncommitted_events += new.events.len();
        ring.segments.push_back(Arc::new(Segment {
            number,
            generation: new.generation,
            topic: new.progress.stream.topic,
            events: new.events,
            notices: new.notices,
            seen: new.seen,
            progress: new.progress,
            read_at: new.read_at,
            credit: Mutex::new(Some(new.credit)),
            heads: new.heads,
            cost_bytes,
        }));
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

    /// Everything below `next` is in the store: credits go back, old segments leave.
    pub fn commit(&self, next: u64) {
        let mut credits = Vec::new();
        let mut left = Vec::new();
        let mut ring = self.ring();
        let from = ring.state.committed.max(ring.state.first);
        for number in from..next.min(ring.state.next) {
            let segment = ring.segments[(number - ring.state.first) as usize].clone();
            credits.extend(segment.credit().take());
            ring.state.uncommitted_events -= segment.events.len();
            if let Some(last) = segment.events.last() {
                ring.state.committed_seq = last.sequenced.seq;
            }
            ring.state.committed = number + 1;
            ring.committed_heads = segment.heads.clone();
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
            drop(segment.credit().take());
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
            self.state.bytes -= segment.cost_bytes;
            left.push(segment);
        }
    }
}

impl Segment {
    fn credit(&self) -> MutexGuard<'_, Option<Credit>> {
        self.credit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        event::{Event, Keys},
        source::{BatchLost, Budget, Density, Form, Stream, StreamState},
        testing::Probe,
    };

    const FILLS: Topic = Topic::new("fills");

    fn segment(budget: &Arc<Budget>, seqs: &[u64]) -> NewSegment {
        let stream = Stream {
            name: "a/fills".into(),
            node: "a".into(),
            topic: FILLS,
            form: Form::ByBlock,
            density: Density::Dense,
            directory: PathBuf::new(),
        };
        let events = seqs.iter().map(|&seq| {
            let id = EventId { topic: FILLS, position: seq, index: 0, part: 0 };
            let (keys, body) = (Keys::default(), Bytes::from_static(b"{}"));
            let event = Event { id, time: Timestamp(0), user: None, keys, body };
            let sequenced = SequencedEvent { seq, late: false, event };
            LogEvent::new(sequenced, Arc::default())
        });
        NewSegment {
            generation: 1,
            events: events.collect(),
            notices: Vec::new(),
            seen: Vec::new(),
            heads: Arc::default(),
            progress: Progress {
                stream: Arc::new(stream),
                files: Vec::new(),
                state: StreamState::default(),
            },
            read_at: Timestamp(0),
            credit: budget.take(10, 1),
        }
    }

    fn seqs(slice: &LogSlice) -> Vec<u64> {
        let events = slice.segments.iter().flat_map(|segment| &segment.events);
        events.map(|event| event.sequenced.seq).collect()
    }

    #[actix_rt::test]
    async fn what_is_not_committed_never_leaves() {
        let lost = Probe::<BatchLost>::start();
        let budget = Budget::new(1_000, lost.recipient());
        let log = Log::new(0, 0, Heads::default());
        for seq in 1..=3 {
            log.append(segment(&budget, &[seq]));
        }

        assert_eq!(seqs(&log.read(0, 100)), [1, 2, 3]);
        log.commit(2);

        let slice = log.read(0, 100);
        assert_eq!((seqs(&slice), slice.missed, slice.next), (vec![3], 2, 3));
        assert_eq!(budget.in_flight_bytes(), 10);
        assert_eq!(log.state().committed_seq, 2);
        assert!(lost.take().await.is_empty());
    }

    #[actix_rt::test]
    async fn what_the_store_has_is_told_apart_from_what_was_read() {
        let lost = Probe::<BatchLost>::start();
        let budget = Budget::new(1_000, lost.recipient());
        let log = Log::new(1 << 20, 0, Heads::default());
        for seq in 1..=2 {
            let heads = Heads { epoch: 1, run: 2, positions: vec![(FILLS, seq)] };
            log.append(NewSegment { heads: Arc::new(heads), ..segment(&budget, &[seq]) });
        }

        log.commit(1);

        let place = |cursor: Cursor| (cursor.seq, cursor.positions);
        assert_eq!(place(log.committed_head()), (1, vec![(FILLS, 1)]));
        assert_eq!(place(log.head()), (2, vec![(FILLS, 2)]));
        log.commit(2);
    }

    #[actix_rt::test]
    async fn a_committed_event_stays_for_readers_while_there_is_room() {
        let lost = Probe::<BatchLost>::start();
        let budget = Budget::new(1_000, lost.recipient());
        let log = Log::new(1 << 20, 0, Heads::default());
        log.append(segment(&budget, &[1, 2]));
        log.commit(1);

        assert_eq!(seqs(&log.read(0, 100)), [1, 2]);
        assert_eq!(budget.in_flight_batches(), 0);
    }

    #[actix_rt::test]
    async fn abandoned_batches_are_reported_as_lost_and_readers_go_on() {
        let lost = Probe::<BatchLost>::start();
        let budget = Budget::new(1_000, lost.recipient());
        let log = Log::new(1 << 20, 0, Heads::default());
        log.append(segment(&budget, &[1]));
        log.commit(1);
        log.append(segment(&budget, &[2]));

        log.abandon_uncommitted();
        log.append(segment(&budget, &[3]));

        assert_eq!(lost.take().await, [BatchLost { generation: 1 }]);
        assert_eq!(seqs(&log.read(1, 100)), [2, 3]);
        assert_eq!(log.state().uncommitted_events, 1);
    }

    proptest! {
        /// A reader that follows in slices of any size sees every event once and in order, and a
        /// slice is no larger than asked unless one segment is.
        #[test]
        fn slices_make_up_the_whole(sizes in prop::collection::vec(0usize..5, 0..40), max in 1usize..9) {
            let system = actix::System::new();
            system.block_on(async {
                let lost = Probe::<BatchLost>::start();
                let budget = Budget::new(1_000_000, lost.recipient());
                let log = Log::new(1 << 20, 0, Heads::default());
                let mut seq = 0;
                for size in sizes {
                    let all: Vec<u64> = (0..size).map(|_| { seq += 1; seq }).collect();
                    log.append(segment(&budget, &all));
                }
                let (mut position, mut read) = (0, Vec::new());
                while position < log.state().next {
                    let slice = log.read(position, max);
                    let got = seqs(&slice);
                    assert!(got.len() <= max || slice.segments.len() == 1);
                    assert!(slice.next > position);
                    position = slice.next;
                    read.extend(got);
                }
                assert_eq!(read, (1..=seq).collect::<Vec<_>>());
                log.commit(position);
            });
        }
    }
}

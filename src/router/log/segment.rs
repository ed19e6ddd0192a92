//! What is in the log: batches as segments, and events with the frames that sessions share.
//!
//! Place in the pipeline: made by `Router`, numbered by the log, read by `DbWriter` and the shards.
//! Invariants: a segment never changes once it has its number, except that its credit can be taken
//! out once; an event is encoded at most once for each encoding.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;

use crate::{
    event::{Cursor, SequencedEvent, Timestamp, Topic},
    router::ledger::{BlockRange, Gap},
    source::{Credit, Progress},
};

/// How many encodings of an event are kept: of a dialect one for live events, and one for those from the
/// past where they differ.
pub const ENCODINGS: usize = EVERYDAY + RARE;

/// Of these each event has a place.
pub const EVERYDAY: usize = 5;

/// The others share one, that of a dialect which shows an event in several ways: most logs have none of them.
const RARE: usize = 5;

/// An event in the log, with its frames: encoded once per dialect and shared by all sessions.
pub struct LogEvent {
    pub sequenced: SequencedEvent,
    /// Shared by the events of a batch.
    heads: Arc<Heads>,
    frames: [OnceLock<Bytes>; EVERYDAY],
    rare: OnceLock<Box<[OnceLock<Bytes>; RARE]>>,
    /// All of them, compressed. Most logs have none: they are not where every event would pay for them.
    packed: OnceLock<Box<Packed>>,
}

/// None of a frame that cannot be made smaller.
type Packed = [OnceLock<Option<Bytes>>; ENCODINGS];

impl LogEvent {
    pub fn new(sequenced: SequencedEvent, heads: Arc<Heads>) -> Self {
        let (frames, rare, packed) = (Default::default(), OnceLock::new(), OnceLock::new());
        Self { sequenced, heads, frames, rare, packed }
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
        let frame = match encoding.checked_sub(EVERYDAY) {
            None => &self.frames[encoding],
            Some(rare) => &self.rare.get_or_init(Box::default)[rare],
        };
        frame.get_or_init(|| encode(self)).clone()
    }

    /// Gives that frame compressed, which is done by the first who asks; `None` when it does not get
    /// smaller.
    ///
    /// # Panics
    /// When `encoding` is not below [`ENCODINGS`].
    pub fn packed(&self, encoding: usize, pack: impl FnOnce() -> Option<Bytes>) -> Option<Bytes> {
        let packed = self.packed.get_or_init(Box::default);
        packed[encoding].get_or_init(pack).clone()
    }
}

/// Those among these that came together with one of them, of its block and batch. From the store they are the same
/// as from the log, where that has refused none of them.
///
/// # Panics
/// When `at` is not below their number.
pub fn block_around(events: &[LogEvent], at: usize) -> Range<usize> {
    let is_continued = |pair: &[LogEvent]| pair[0].sequenced.is_continued_by(&pair[1].sequenced);
    let before = events[..=at].windows(2).rev().take_while(|pair| is_continued(pair)).count();
    let behind = events[at..].windows(2).take_while(|pair| is_continued(pair)).count();
    at - before..at + behind + 1
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

impl Notice {
    /// The gap, and whether it is closed.
    pub fn gap(&self) -> (&Gap, bool) {
        match self {
            Self::GapOpened(gap) => (gap, false),
            Self::GapClosed(gap) => (gap, true),
        }
    }
}

/// One batch in the log. It is there also when it has no events: its progress must be committed.
pub struct Segment {
    /// Place in the log, without gaps from 0 at the start of the process.
    pub number: u64,
    pub generation: u64,
    /// Highest `seq` given with this segment and those before it.
    pub last_seq: u64,
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

impl Segment {
    pub(super) fn new(number: u64, before: u64, new: NewSegment) -> Self {
        let events = new.events.iter().map(|event| event.sequenced.event.cost_bytes());
        let seen = new.seen.iter().map(|range| size_of_val(range) + size_of_val(&*range.digests));
        Self {
            number,
            generation: new.generation,
            last_seq: new.events.last().map_or(before, |last| last.sequenced.seq),
            topic: new.progress.stream.topic,
            cost_bytes: size_of::<Self>() + events.chain(seen).sum::<usize>(),
            events: new.events,
            notices: new.notices,
            seen: new.seen,
            progress: new.progress,
            read_at: new.read_at,
            credit: Mutex::new(Some(new.credit)),
            heads: new.heads,
        }
    }

    /// "Delivered up to the end of this batch."
    pub fn cursor(&self) -> Cursor {
        self.heads.cursor(self.last_seq)
    }

    /// Takes the credit out, once: to give it back with the commit or to report the batch as lost.
    pub(super) fn take_credit(&self) -> Option<Credit> {
        self.credit.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What it takes of the log's bytes.
    pub(super) fn cost_bytes(&self) -> usize {
        self.cost_bytes
    }

    /// How far each topic has come with this batch.
    pub fn heads(&self) -> &Arc<Heads> {
        &self.heads
    }
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

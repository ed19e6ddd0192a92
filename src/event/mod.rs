//! The event: what a source produces, the store keeps and a client receives.
//!
//! Place in the pipeline: the vocabulary of every stage; this module knows none of them.
//! Invariant: [`EventId`] is the same on every node and after every rewind, `seq` is the order of
//! one store, and a body is never re-serialised.

mod address;
mod cursor;
mod time;

use std::{
    collections::HashSet,
    fmt,
    ops::Range,
    sync::{LazyLock, Mutex, PoisonError},
};

use bytes::Bytes;
use serde::{Serialize, Serializer};

pub use self::{
    address::{Address, AddressError},
    cursor::{Cursor, CursorError, position_of},
    time::{TimeError, Timestamp},
};

/// What a client subscribes to: `fills`, `misc`, later also `trades` and others.
///
/// A copyable name with the life of the program. Only configuration, sources and the store make
/// topics, never a client, so their number is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(&'static str);

impl Topic {
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// Gives the topic of a name that was read at run time, from the store for example.
    ///
    /// The name is kept for the life of the program: never call this with a client's text.
    pub fn intern(name: &str) -> Self {
        static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
        // The set is whole at every moment, so a panic elsewhere does not spoil it.
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name) {
            return Self(known);
        }
        let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
        names.insert(kept);
        Self(kept)
    }

    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl Serialize for Topic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The identity of an event: the unique key of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId {
    pub topic: Topic,
    /// Domain position: the block number.
    pub position: u64,
    /// Ordinal in the block; it counts every element, skipped ones too.
    pub index: u32,
    /// Ordinal of the user among the distinct users of the element, counted before any filter, so
    /// that an address which is listed later finds its place.
    pub part: u32,
}

/// Longest kind, bytes. No node has one that comes near; an index takes them no longer than some 2,700.
const MAX_KIND_BYTES: usize = 64;

/// What the log and one frame add to an event besides the body: cells for frames, the envelope
/// with its cursor, and their allocations.
const LOG_AND_FRAME_BYTES: usize = 640;

/// One event of one user, as it leaves the whitelist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: EventId,
    /// When it happened according to the node: the time of its block.
    pub time: Timestamp,
    /// `None` for the few events that concern nobody; only those who asked for everything get them.
    pub user: Option<Address>,
    pub keys: Keys,
    /// The JSON bytes as the node wrote them; its own allocation, not a slice of a read buffer.
    pub body: Bytes,
}

impl Event {
    /// The value that filters on `name` compare, such as `BTC` for `coin`.
    pub fn key(&self, name: &str) -> Option<&str> {
        self.keys.get(&self.body, name)
    }

    /// The kind of event within its topic: the variant of a misc event, such as `Funding`, and `twapId`
    /// of a fill that is a slice of a TWAP. What comes back from the store has no keys, and so no kind.
    pub fn kind(&self) -> Option<&str> {
        self.key("type").filter(|kind| kind.len() <= MAX_KIND_BYTES)
    }

    /// What this event holds of memory until it is committed, in bytes: what budgets charge for it.
    /// Its place in the log and one encoded frame are charged from the beginning.
    pub fn cost_bytes(&self) -> usize {
        let keys = self.keys.0.len() * size_of::<Key>();
        size_of::<Self>() + 2 * self.body.len() + keys + LOG_AND_FRAME_BYTES
    }
}

/// What filters may ask an event for, as places in its body: nothing is copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(Box<[Key]>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    name: &'static str,
    /// The text between the quotes in the body, as it is written there, escapes included.
    at: Range<u32>,
}

impl Keys {
    /// Takes pairs of a key's name and the place of its value's text in the body.
    pub fn new(places: impl IntoIterator<Item = (&'static str, Range<u32>)>) -> Self {
        Self(places.into_iter().map(|(name, at)| Key { name, at }).collect())
    }

    fn get<'b>(&self, body: &'b [u8], name: &str) -> Option<&'b str> {
        let key = self.0.iter().find(|key| key.name == name)?;
        std::str::from_utf8(body.get(key.at.start as usize..key.at.end as usize)?).ok()
    }
}

/// Reads the keys of a body and proves on the way that the whole body is valid JSON.
///
/// A source gives one for each of its topics; it runs only for events that somebody wants, and
/// again when events come back from the store.
pub type KeyReader = fn(&[u8]) -> Result<Keys, serde_json::Error>;

/// The first `seq` of back-filled events, which are outside the order of arrival: no cursor reaches
/// them. Live ones come there in the year 2112; both stay exact in JavaScript.
pub const BACKFILLED_SEQ: u64 = 1 << 52;

/// An event with its place in the order of this store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequencedEvent {
    /// Order of arrival: strictly increasing for the life of the store. Microseconds since 1970
    /// made strictly monotonic, so it stays exact in JavaScript. Those of a batch are consecutive (in
    /// the store one that it has refused is missing), and between two batches one at least is left free. From [`BACKFILLED_SEQ`] on it only
    /// tells events of one block apart.
    pub seq: u64,
    /// Whether a later position of its topic had been cast before.
    pub late: bool,
    pub event: Event,
}

impl SequencedEvent {
    /// Whether it was never cast, and has no place in the order of arrival.
    pub fn is_backfilled(&self) -> bool {
        self.seq >= BACKFILLED_SEQ
    }

    /// Whether another came right behind it, of the same block and in one batch: some frames show such events
    /// as one, wherever they are read.
    pub fn is_continued_by(&self, next: &Self) -> bool {
        let block = |row: &Self| (row.event.id.topic, row.event.id.position);
        next.seq == self.seq + 1 && block(next) == block(self)
    }
}

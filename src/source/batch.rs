//! What travels from stage to stage: raw lines, parsed candidates, events.
//!
//! Place in the pipeline: `FileWatcher` -[`RawBatch`]-> `Parser` -[`ParsedBatch`]->
//! `WhitelistFilter` -[`EventBatch`]-> `Router`. One message per read of a file, in file order.
//! Invariant: what a candidate points to lies inside the batch's buffer.

use std::{fmt, ops::Range, sync::Arc};

use actix::Message;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Credit, Stream};
use crate::event::{Address, Event, KeyReader, Timestamp};

/// Where reading of one file stands. Committed together with the events before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileMark {
    /// Everything before `offset` was handed on.
    At {
        /// Path below the stream's directory, such as `20260315/0`.
        file: Arc<str>,
        offset: u64,
        /// XXH3 of the last (at most 4,096) bytes before `offset`: an inode says nothing, a new
        /// file gets the old inode at once.
        digest: u64,
    },
    /// The file is no longer there: its mark is removed.
    Gone { file: Arc<str> },
}

/// What a restart needs to go on as if nothing had happened; the store keeps it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    /// Block of the last line.
    pub last_position: Option<u64>,
    /// Length of the current run of blocks, from which density is learned; see [`consecutive`].
    pub consecutive: u32,
    /// Blocks of a streaming file that may still grow; newest last. Empty for by-block files.
    pub open: Vec<OpenBlock>,
}

/// A stream whose density is learned is dense after this many consecutive blocks. A sparse stream
/// does not reach it by chance: misc events come in less than a third of all blocks.
pub const DENSE_AFTER: u32 = 100;

/// The highest number of a block that is believed: exact in JavaScript, and far from where the
/// arithmetic of positions or the signed numbers of the store end. A line with a higher one is
/// malformed, so one damaged number stops nothing.
pub const MAX_POSITION: u64 = 1 << 53;

/// The length of the run of consecutive blocks when a line of `position` follows one of `previous`.
///
/// A run that has shown the stream to be dense never ends, whatever the node or we do: the next
/// hole must not have to wait for another long run.
pub fn consecutive(run: u32, previous: Option<u64>, position: u64) -> u32 {
    match previous {
        Some(previous) if position == previous => run,
        Some(previous) if previous.checked_add(1) == Some(position) => run.saturating_add(1),
        Some(_) if run >= DENSE_AFTER => run,
        _ => 1,
    }
}

/// A block of which more lines may come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenBlock {
    pub position: u64,
    /// The ordinal that its next element gets.
    pub next_index: u32,
    /// Digest of its first element: how a rewind is told from a late continuation.
    pub first_digest: u64,
}

/// Where a stream stood at its last commit.
#[derive(Clone, Debug)]
pub struct StreamCheckpoint {
    /// [`Stream::name`].
    pub name: Arc<str>,
    pub state: StreamState,
    /// Only [`FileMark::At`], one a file.
    pub files: Vec<FileMark>,
}

/// What the commit of a batch moves forward.
#[derive(Clone, Debug)]
pub struct Progress {
    pub stream: Arc<Stream>,
    pub files: Vec<FileMark>,
    pub state: StreamState,
}

/// Whole lines as they were read, without the bytes of an unfinished last one.
#[derive(Message)]
#[rtype(result = "()")]
pub struct RawBatch {
    pub stream: Arc<Stream>,
    /// Life of the pipeline this batch belongs to; see `Restart` of the Router.
    pub generation: u64,
    /// File of the lines, such as `20260315/0`; empty for a batch that only carries marks.
    pub file: Arc<str>,
    /// Offset of the first byte of `lines` in the file.
    pub offset: u64,
    /// Lines with their newlines. Only the last line of a finished file may lack its own.
    pub lines: Bytes,
    /// The marks that hold once these lines are committed.
    pub marks: Vec<FileMark>,
    /// On the first batch of a generation: the state to go on from.
    pub resume: Option<StreamState>,
    /// Unread bytes before these lines are lost: a file vanished. In a sparse stream nothing else
    /// shows the hole.
    pub discontinuity: bool,
    pub read_at: Timestamp,
    pub credit: Credit,
}

/// Lines taken apart: blocks, and who is concerned by which bytes.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ParsedBatch {
    pub generation: u64,
    /// The bytes that the candidates point into.
    pub buffer: Bytes,
    pub blocks: Vec<ParsedBlock>,
    /// Candidates of all blocks, in order; each block says which are its own.
    pub candidates: Vec<Candidate>,
    /// Reads the keys of the bodies of this topic.
    pub keys: KeyReader,
    /// File of the lines and offset of `buffer`'s first byte in it, for messages.
    pub file: Arc<str>,
    pub offset: u64,
    pub progress: Progress,
    pub discontinuity: bool,
    pub read_at: Timestamp,
    pub credit: Credit,
}

/// One line of a file: a block, or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedBlock {
    pub position: u64,
    /// Time of the block.
    pub time: Timestamp,
    /// When the node wrote the line.
    pub written: Timestamp,
    /// Ordinals of the block's elements on this line, skipped ones too.
    pub indexes: Range<u32>,
    /// Whether the line is the whole block.
    pub complete: bool,
    /// XXH3 of the bytes of all elements on the line: equal content has an equal digest.
    pub digest: u64,
    /// Its candidates in [`ParsedBatch::candidates`].
    pub candidates: Range<usize>,
}

/// An event that somebody may want: nothing of its body was decoded or copied yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub index: u32,
    pub part: u32,
    pub user: Option<Address>,
    pub body: BodyPlace,
}

/// Where a body lies in the batch's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyPlace {
    Slice(Range<u32>),
    /// `head`, then the entries with commas between them, then `tail`: the share of one user of an
    /// element that concerns many.
    Spliced(Box<Spliced>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spliced {
    pub head: Range<u32>,
    pub entries: Vec<Range<u32>>,
    pub tail: Range<u32>,
}

impl BodyPlace {
    /// Where the body begins in the buffer.
    pub fn start(&self) -> u32 {
        match self {
            Self::Slice(place) => place.start,
            Self::Spliced(spliced) => spliced.head.start,
        }
    }

    /// Copies the body out of the read buffer, so that 400 bytes do not pin a megabyte.
    ///
    /// # Panics
    /// When a place lies outside of `buffer`, which only a fault of the parser can cause.
    pub fn copy_from(&self, buffer: &[u8]) -> Bytes {
        let slice = |place: &Range<u32>| &buffer[place.start as usize..place.end as usize];
        match self {
            Self::Slice(place) => Bytes::copy_from_slice(slice(place)),
            Self::Spliced(spliced) => {
                let mut body = slice(&spliced.head).to_vec();
                for (ordinal, entry) in spliced.entries.iter().enumerate() {
                    if ordinal > 0 {
                        body.push(b',');
                    }
                    body.extend_from_slice(slice(entry));
                }
                body.extend_from_slice(slice(&spliced.tail));
                body.into()
            }
        }
    }
}

/// The events that passed the whitelist, with the blocks they were in, emptied ones too.
#[derive(Message)]
#[rtype(result = "()")]
pub struct EventBatch {
    pub generation: u64,
    pub blocks: Vec<Block>,
    pub progress: Progress,
    pub discontinuity: bool,
    pub read_at: Timestamp,
    pub credit: Credit,
}

/// A [`ParsedBlock`] after the filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub position: u64,
    pub time: Timestamp,
    pub written: Timestamp,
    pub indexes: Range<u32>,
    pub complete: bool,
    pub digest: u64,
    pub events: Vec<Event>,
}

impl fmt::Debug for RawBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawBatch")
            .field("stream", &self.stream.name)
            .field("file", &self.file)
            .field("offset", &self.offset)
            .field("bytes", &self.lines.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ParsedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParsedBatch")
            .field("stream", &self.progress.stream.name)
            .field("blocks", &self.blocks.len())
            .field("candidates", &self.candidates.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EventBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBatch")
            .field("stream", &self.progress.stream.name)
            .field("blocks", &self.blocks.len())
            .finish_non_exhaustive()
    }
}

//! Sources: what brings events into the pipeline.
//!
//! What every source promises to the stages behind it:
//! * batches of one [`Stream`] arrive in the order in which they were read;
//! * every batch travels the whole way, emptied ones too, and carries the [`Progress`] to commit
//!   with it, so the checkpoint is the progress of the last committed batch;
//! * the identity of an event is set before any filter and is the same on every node;
//! * at most a budget of bytes is in flight ([`Credit`]).

mod batch;
mod credit;
mod horizon;
pub mod node;
pub mod quarantine;

use std::{fmt, path::PathBuf, sync::Arc};

pub use self::{
    batch::{
        Block, BodyPlace, Candidate, DENSE_AFTER, EventBatch, FileMark, MAX_POSITION, OpenBlock,
        ParsedBatch, ParsedBlock, Progress, RawBatch, Spliced, StreamCheckpoint, StreamState,
        consecutive,
    },
    credit::{BatchLost, Budget, Credit, CreditReturned},
    horizon::{Disbelief, Horizon},
};
use crate::event::Topic;

/// One directory of hour files of one node directory, such as `~/hl/data/node_fills_by_block`.
pub struct Stream {
    /// Name in the store and in status: the path of the directory. Stable over restarts.
    pub name: Arc<str>,
    /// The node directory as it is configured.
    pub node: Arc<str>,
    pub topic: Topic,
    pub form: Form,
    pub density: Density,
    pub directory: PathBuf,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.name)
    }
}

/// How a stream spreads blocks over lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A line is a whole block.
    ByBlock,
    /// A line is one or a few events of a block; a block spans several lines.
    Streaming,
}

/// Whether a position that is left out is a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Density {
    /// Every block has a line, also an empty one.
    Dense,
    /// Not known: dense once it has shown a long run of consecutive blocks.
    Learned,
    /// Blocks without events have no line.
    Sparse,
}

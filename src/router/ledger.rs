//! The ledger: which blocks of a topic were delivered, and which are missing.

use serde::Serialize;

use crate::event::{Timestamp, Topic};

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
    /// Content digest of each block, or empty where they are no longer kept. One for a range with
    /// a `next_index`.
    pub digests: Vec<u64>,
}

/// Blocks of a dense topic that did not come.
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

//! Replay: what a session gets that was not there, or not quick enough, when an event was cast.
//!
//! Place in the pipeline: log and store -> [`Pages`] -> `Members`, which pulls for each session that
//! is behind -> outboxes.
//! Invariants: a session that is behind has one place in the order of arrival and pulls what follows
//! as its socket drains; what it costs is bounded by its outbox, however much it has to get; it joins
//! the live stream in one turn of its shard, at the very event where the others are.

mod behind;
mod heard;
mod kept;
mod pages;
mod start;
mod want;

pub use self::{
    behind::{Behind, Place, Waits},
    heard::Heard,
    pages::{KeysOf, Page, Pages},
    start::{ResumeError, Since, Start},
    want::{Cause, Fate},
};

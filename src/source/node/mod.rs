//! The files of a node: found, followed and, by the parser, taken apart.
//!
//! Place in the pipeline: [`FileWatcher`] is its head. The rules are plain types beside the
//! actor: `layout` knows names, `tail` one file, `follow` the hour files of one stream, `start`
//! where a stream without a checkpoint begins, `wake` inotify.

mod follow;
mod layout;
mod start;
mod tail;
mod wake;
mod watcher;

pub use self::{
    layout::{HourFile, create_missing},
    start::import_place,
    watcher::{FileWatcher, Restart, StopReading},
};

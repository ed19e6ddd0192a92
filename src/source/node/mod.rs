//! The files of a node as a source: found, followed, and taken apart.
//!
//! Place in the pipeline: [`FileWatcher`] is its head and hands whole lines to the [`Parser`].
//! The rules are plain types beside the two actors. Reading: `layout` knows names, `tail` one
//! file, `follow` the hour files of one stream, `start` where a stream without a checkpoint
//! begins, `wake` inotify. Parsing: `scan` and `elements` find boundaries, `line` reads the
//! envelope, `fills` and `misc` who is concerned, `blocks` numbers what arrives in pieces,
//! `recover` saves what a crash has glued together. `survey` looks once, for people.

mod blocks;
mod elements;
mod fills;
mod follow;
mod json;
mod layout;
mod line;
mod misc;
mod parser;
pub mod recover;
pub mod scan;
mod start;
mod survey;
mod tail;
mod wake;
mod watcher;

pub use self::{
    fills::{TOPIC as FILLS, read_keys as read_fill_keys},
    layout::{HourFile, create_missing, describe_nothing, kind_of, list_files},
    misc::{TOPIC as MISC, read_keys as read_misc_keys},
    parser::Parser,
    survey::{FileEnd, HourFiles, LastLine, Surveyed, read_end, survey},
    tail::read_before,
    watcher::{FileWatcher, Restart, StopReading},
};

use crate::event::{Keys, Topic};

/// Reads the keys of a body that came back from the store.
pub fn keys_of(topic: Topic, body: &[u8]) -> Keys {
    let read = match topic {
        FILLS => read_fill_keys,
        MISC => read_misc_keys,
        _ => return Keys::default(),
    };
    // It was valid when it was stored.
    read(body).unwrap_or_default()
}

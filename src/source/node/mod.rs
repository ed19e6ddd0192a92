//! A node's hour files as a source.

mod blocks;
mod elements;
mod fills;
mod json;
mod line;
mod misc;
mod parser;
pub mod recover;
pub mod scan;

pub use self::parser::Parser;

/// Topics of the kinds that are read, and the readers of their keys.
pub use self::{
    fills::{TOPIC as FILLS, read_keys as read_fill_keys},
    misc::{TOPIC as MISC, read_keys as read_misc_keys},
};

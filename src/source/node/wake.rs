//! Wake-ups by inotify: hints about what may have changed.
//!
//! Place in the pipeline: beside `FileWatcher`, which also looks by itself on a timer. So an event
//! that is lost, late or wrong costs latency and never data.
//! Invariant: a watch is set before its directory is listed, because a node makes a directory and
//! its first file in one step.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};

use super::layout::{self, HourFile};

/// Room for some hundred events of one wake-up.
const BUFFER_BYTES: usize = 16 << 10;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Bytes were appended to a file of this stream.
    File { stream: usize, file: HourFile },
    /// Something came or went below this stream.
    Stream { stream: usize },
    /// Something came or went in the node directory, or events were lost.
    Everything,
}

/// The directory that a watch stands for.
#[derive(Clone, Copy)]
enum Place {
    Node,
    /// The directory of a kind, or its `hourly`.
    Stream(usize),
    Day(usize, u32),
}

/// The watches of one node directory.
pub struct Wakeups {
    watches: Watches,
    places: HashMap<WatchDescriptor, Place>,
    watched: HashMap<PathBuf, WatchDescriptor>,
}

impl Wakeups {
    /// # Errors
    /// When the system gives no inotify instance, at its limit for example.
    pub fn new() -> io::Result<(Self, EventStream<Vec<u8>>)> {
        let inotify = Inotify::init()?;
        let watches = inotify.watches();
        let events = inotify.into_event_stream(vec![0; BUFFER_BYTES])?;
        Ok((Self { watches, places: HashMap::new(), watched: HashMap::new() }, events))
    }

    /// # Errors
    /// When the limit of watches is reached; the same holds for the other watches.
    pub fn watch_node(&mut self, node: &Path) -> io::Result<()> {
        self.watch(node, Place::Node)
    }

    /// Watches the directories of a stream. To be called before they are listed.
    pub fn watch_stream(&mut self, stream: usize, directory: &Path) -> io::Result<()> {
        self.watch(directory, Place::Stream(stream))?;
        self.watch(&layout::hourly(directory), Place::Stream(stream))?;
        // A directory that cannot be listed is reported by the rescan that follows.
        for (day, path) in layout::list_days(directory).unwrap_or_default() {
            self.watch(&path, Place::Day(stream, day))?;
        }
        Ok(())
    }

    fn watch(&mut self, path: &Path, place: Place) -> io::Result<()> {
        if self.watched.contains_key(path) {
            return Ok(());
        }
        let mask = WatchMask::MODIFY
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        match self.watches.add(path, mask) {
            Ok(descriptor) => {
                self.places.insert(descriptor.clone(), place);
                self.watched.insert(path.to_owned(), descriptor);
                Ok(())
            }
            // The system's limit of watches: ENOSPC.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(error),
            // Not there, or not ours to see: the rescan that follows says so.
            Err(_) => Ok(()),
        }
    }

    /// Reads what an event is about; `None` when it is about nothing of ours.
    pub fn read(&mut self, event: &EventOwned) -> Option<Hint> {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return Some(Hint::Everything);
        }
        let place = *self.places.get(&event.wd)?;
        if event.mask.intersects(EventMask::IGNORED | EventMask::MOVE_SELF) {
            self.forget(&event.wd);
        }
        let name = event.name.as_ref().and_then(|name| name.to_str());
        Some(match place {
            Place::Node => Hint::Everything,
            Place::Stream(stream) => Hint::Stream { stream },
            Place::Day(stream, day) => match name.and_then(layout::parse_hour) {
                Some(hour) if event.mask.contains(EventMask::MODIFY) => {
                    Hint::File { stream, file: HourFile { day, hour } }
                }
                Some(_) => Hint::Stream { stream },
                None if name.is_some() => return None,
                None => Hint::Stream { stream },
            },
        })
    }

    /// The directory is gone, or has another name now: its path may be watched anew.
    fn forget(&mut self, descriptor: &WatchDescriptor) {
        self.places.remove(descriptor);
        self.watched.retain(|_, watched| watched != descriptor);
    }
}

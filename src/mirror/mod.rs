//! The positions of the older service in Redis: read before a first start, written after commits.
//!
//! Place in the pipeline: beside it. [`import`](fn@import) is asked once, before the watchers are born.
//! `DbWriter` notes in [`Committed`] what is in the store, and [`MirrorWriter`] writes it.
//! Invariants: a position is written only after the commit of all that stands before it; Redis is
//! never an authority, and nothing waits for it.
//!
//! A key is named as the directory of its kind, `node_fills_by_block` or `misc_events_by_block`,
//! and holds
//!
//! ```json
//! {"file_path":"/home/hl/hl/data/node_fills_by_block/hourly/20260315/9","position":73400320}
//! ```

mod import;
mod writer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

pub use self::{
    import::{ImportError, Imported, import},
    writer::{Finish, MirrorWriter},
};
use crate::source::{FileMark, Progress, StreamCheckpoint, node::HourFile};

/// The kinds of which the older service keeps a position, by the names of their directories.
pub const KEYS: [&str; 2] = ["node_fills_by_block", "misc_events_by_block"];

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    file_path: PathBuf,
    /// In bytes.
    position: u64,
}

/// The committed positions of one node directory.
pub struct Committed {
    node: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The newest file of each key that was read, and how far.
    places: BTreeMap<&'static str, (HourFile, u64)>,
    /// Whether they have changed since they were last taken.
    is_news: bool,
}

impl Committed {
    /// Begins with what the store knows of this node directory.
    pub fn new(node: &Path, checkpoints: &[StreamCheckpoint]) -> Self {
        let committed = Self { node: node.to_owned(), state: Mutex::default() };
        for checkpoint in checkpoints {
            committed.note_marks(Path::new(&*checkpoint.name), &checkpoint.files);
        }
        committed
    }

    /// Notes what a commit moved forward.
    pub fn note(&self, progress: &Progress) {
        self.note_marks(&progress.stream.directory, &progress.files);
    }

    fn note_marks(&self, directory: &Path, marks: &[FileMark]) {
        let Some(key) = self.key_of(directory) else { return };
        let mut state = self.lock();
        for mark in marks {
            let FileMark::At { file, offset, .. } = mark else { continue };
            let Ok(file) = file.parse::<HourFile>() else { continue };
            let place = (file, *offset);
            let known = state.places.get(key).copied();
            // The newest file stays the place when an older one is written to again. A file that
            // begins anew goes back.
            if known.is_none_or(|(newest, _)| newest <= file) && known != Some(place) {
                state.places.insert(key, place);
                state.is_news = true;
            }
        }
    }

    fn key_of(&self, directory: &Path) -> Option<&'static str> {
        KEYS.into_iter().find(|key| self.node.join(key) == directory)
    }

    /// The positions, if they have changed since they were last taken.
    fn take_news(&self) -> Vec<(&'static str, Position)> {
        let mut state = self.lock();
        if !std::mem::take(&mut state.is_news) {
            return Vec::new();
        }
        let places = state.places.iter().map(|(key, (file, position))| {
            let file_path = file.path(&self.node.join(key));
            let file_path = std::path::absolute(&file_path).unwrap_or(file_path);
            (*key, Position { file_path, position: *position })
        });
        places.collect()
    }

    /// They could not be written and are news still.
    fn put_back(&self) {
        self.lock().is_news = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(file: &str, offset: u64) -> FileMark {
        FileMark::At { file: file.into(), offset, digest: 0 }
    }

    fn taken(committed: &Committed) -> Vec<String> {
        let news = committed.take_news();
        news.iter()
            .map(|(key, place)| format!("{key} {}", serde_json::to_string(place).unwrap()))
            .collect()
    }

    // H18
    #[test]
    fn the_place_is_that_of_the_newest_file_and_is_told_once() {
        let fills = Path::new("/data/node_fills_by_block");
        let committed = Committed::new(Path::new("/data"), &[]);
        assert!(taken(&committed).is_empty());

        committed.note_marks(fills, &[at("20260315/9", 70), at("20260315/10", 5)]);
        committed.note_marks(fills, &[at("20260315/9", 90), at("odd", 3)]);
        committed.note_marks(Path::new("/data/node_fills_streaming"), &[at("20260316/1", 1)]);
        committed.note_marks(Path::new("/other/node_fills_by_block"), &[at("20260316/1", 1)]);

        let said = "node_fills_by_block \
                    {\"file_path\":\"/data/node_fills_by_block/hourly/20260315/10\",\"position\":5}";
        assert_eq!(taken(&committed), [said]);
        assert!(taken(&committed).is_empty());
        committed.note_marks(fills, &[at("20260315/10", 5)]);
        assert!(taken(&committed).is_empty());
        committed.put_back();
        assert_eq!(taken(&committed), [said]);
    }

    #[test]
    fn what_the_store_knows_at_the_start_is_news() {
        let name = "/data/misc_events_by_block".into();
        let files = vec![at("20260315/9", 70)];
        let checkpoint = StreamCheckpoint { name, state: Default::default(), files };

        let committed = Committed::new(Path::new("/data"), &[checkpoint]);

        assert_eq!(committed.take_news()[0].1.position, 70);
    }
}

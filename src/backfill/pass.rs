//! One pass over files for some users: what `FileWatcher` does to the live stream, as a plain type that
//! is asked for the next step. The lines go through a [`DirectoryParser`].
//!
//! Invariants: an event leaves with the identity that it has live; what cannot be used is counted; a
//! file that cannot be read is a fault of its own, and the others are read.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{input::Input, parse::DirectoryParser, read::LineReader, scope::Scope};
use crate::{
    event::{Event, Timestamp},
    source::{Horizon, OpenBlock, node::read_before},
};

/// Where a pass stands in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub path: PathBuf,
    pub offset: u64,
    /// XXH3 of the last (at most 4,096) bytes before the offset.
    pub digest: u64,
    /// Blocks of a streaming file that may go on.
    pub open: Vec<OpenBlock>,
    /// The block that is passed over, wherever it comes again.
    pub begun_before: Option<u64>,
}

/// What was read and could not be used, and how far the pass is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub files_done: u64,
    pub read_bytes: u64,
    /// Of files that were read in an earlier run, or that are not as long as they were.
    pub passed_bytes: u64,
    pub refused_blocks: u64,
    pub damaged_lines: u64,
}

/// A file that could not be read to its end.
#[derive(Debug, thiserror::Error)]
#[error("{}: at byte {at}: {error}", path.display())]
pub struct FileFault {
    pub path: PathBuf,
    /// Of the file as it lies there.
    pub at: u64,
    pub error: io::Error,
}

/// What the next step brought.
#[derive(Debug)]
pub enum Step {
    /// Of one chunk; often none.
    Events(Vec<Event>),
    /// It was read to its end.
    FileDone,
    Fault(FileFault),
    End,
}

/// A pass.
pub struct Pass {
    scope: Scope,
    horizon: Arc<Horizon>,
    inputs: std::vec::IntoIter<Input>,
    current: Option<Current>,
    /// The parser of the directory that is read.
    parser: Option<DirectoryParser>,
    resume: Option<Place>,
    /// The end of the last file, while nothing of the next one can be kept.
    behind: Option<Place>,
    /// The file that the last step came to the end of.
    finished: Option<(PathBuf, u64)>,
    pub counts: Counts,
}

struct Current {
    input: Input,
    lines: LineReader,
    /// Unpacked bytes that were handed on.
    offset: u64,
    counted_bytes: u64,
}

impl Pass {
    /// Begins where an earlier one stopped: files that are `done` with the same size are passed over,
    /// and the one of `place` goes on there. If that one is done, the next of its directory goes on
    /// with the blocks that were open.
    pub fn new(
        scope: Scope,
        mut inputs: Vec<Input>,
        done: &BTreeMap<PathBuf, u64>,
        place: Option<Place>,
    ) -> Self {
        let now = Timestamp::now();
        let horizon = Horizon::new(now.since(scope.edge), Some(now)).resuming_at(scope.height);
        let mut counts = Counts::default();
        let mut last = None;
        inputs.retain(|input| {
            let is_done = done.get(&input.path) == Some(&input.bytes);
            if is_done {
                counts.files_done += 1;
                counts.passed_bytes += input.bytes;
                if place.as_ref().is_some_and(|place| place.path == input.path) {
                    last = Some(input.clone());
                }
            }
            !is_done
        });
        let mut pass = Self {
            scope,
            horizon: Arc::new(horizon),
            inputs: inputs.into_iter(),
            current: None,
            parser: None,
            resume: None,
            behind: None,
            finished: None,
            counts,
        };
        match last {
            Some(last) => {
                pass.parser =
                    Some(DirectoryParser::new(&last, pass.horizon.clone(), place.as_ref()));
                pass.behind = place;
            }
            None => pass.resume = place,
        }
        pass
    }

    /// Does the next piece of work: opens a file, or reads and parses one chunk.
    pub fn step(&mut self) -> Step {
        let Some(mut current) = self.current.take() else {
            let Some(input) = self.inputs.next() else { return Step::End };
            return self.open(input);
        };
        match current.lines.next_chunk() {
            Ok(Some(chunk)) => {
                self.count_bytes(&mut current);
                self.counts.damaged_lines += chunk.oversized;
                current.offset = chunk.offset + chunk.lines.len() as u64;
                let parse = |parser: &mut DirectoryParser| {
                    parser.parse(&chunk, &current.input, &self.scope.users, &mut self.counts)
                };
                let events = self.parser.as_mut().map(parse).unwrap_or_default();
                self.current = Some(current);
                Step::Events(events)
            }
            Ok(None) => {
                self.count_bytes(&mut current);
                // It shrank since it was found.
                self.counts.passed_bytes +=
                    current.input.bytes.saturating_sub(current.counted_bytes);
                self.counts.files_done += 1;
                self.behind = self.end_of(&current);
                self.finished = Some((current.input.path, current.input.bytes));
                Step::FileDone
            }
            Err(error) => {
                self.forget_parser();
                let Current { input, lines, .. } = current;
                Step::Fault(FileFault { path: input.path, at: lines.position(), error })
            }
        }
    }

    /// The file that the last step came to the end of, with its size when it was found.
    pub fn finished_file(&mut self) -> Option<(PathBuf, u64)> {
        self.finished.take()
    }

    /// Where the pass stands, once the events of all steps are stored: in the file that is read, or at
    /// the end of the one before, when there is no place in this one. There is none in a packed file,
    /// which can only be read from its start.
    pub fn place(&self) -> Option<Place> {
        self.place_within().or_else(|| self.behind.clone())
    }

    fn place_within(&self) -> Option<Place> {
        let Current { input, offset, .. } = self.current.as_ref()?;
        let parser = self.parser.as_ref()?;
        if input.packed || parser.starts_anywhere() {
            return None;
        }
        let digest = digest_before(&input.path, *offset).ok()?;
        Some(parser.place(input, *offset, digest))
    }

    /// The end of a file whose last block may go on in the next one.
    fn end_of(&self, Current { input, offset, .. }: &Current) -> Option<Place> {
        let parser = self.parser.as_ref().filter(|_| input.streaming)?;
        if parser.starts_anywhere() {
            return None;
        }
        // It is asked for only if the file has grown when the job goes on.
        let digest = match input.packed {
            true => 0,
            false => digest_before(&input.path, *offset).unwrap_or_default(),
        };
        Some(parser.place(input, *offset, digest))
    }

    /// What comes next does not follow on what was read.
    fn forget_parser(&mut self) {
        self.parser = None;
        self.behind = None;
    }

    fn open(&mut self, input: Input) -> Step {
        let place = self.resume.take_if(|place| place.path == input.path && !input.packed);
        let place = place
            .filter(|place| digest_before(&input.path, place.offset).ok() == Some(place.digest));
        let from = place.as_ref().map_or(0, |place| place.offset);
        let max_line = self.scope.max_line_bytes;
        let opened = match input.packed {
            true => LineReader::packed(&input.path, max_line),
            false => LineReader::plain(&input.path, from, input.to, max_line),
        };
        let lines = match opened {
            Ok(lines) => lines,
            Err(error) => {
                self.forget_parser();
                return Step::Fault(FileFault { path: input.path, at: 0, error });
            }
        };
        let goes_on = |parser: &DirectoryParser| parser.is_of(&input.directory);
        if place.is_some() || !self.parser.as_ref().is_some_and(goes_on) {
            self.behind = None;
            let parser = DirectoryParser::new(&input, self.horizon.clone(), place.as_ref());
            self.parser = Some(parser);
        }
        self.counts.passed_bytes += from;
        self.current = Some(Current { input, lines, offset: from, counted_bytes: from });
        Step::Events(Vec::new())
    }

    fn count_bytes(&mut self, current: &mut Current) {
        let position = current.lines.position();
        self.counts.read_bytes += position.saturating_sub(current.counted_bytes);
        current.counted_bytes = position.max(current.counted_bytes);
    }
}

fn digest_before(path: &Path, offset: u64) -> io::Result<u64> {
    Ok(xxh3_64(&read_before(&File::open(path)?, offset)?))
}

#[cfg(test)]
mod tests;

//! One pass over files for some users: what `FileWatcher`, `Parser` and `WhitelistFilter` do to the
//! live stream, as a plain type that is asked for the next step.
//!
//! Invariants: an event leaves with the identity that it has live; what cannot be used is counted; a
//! file that cannot be read is a fault of its own, and the others are read.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ahash::HashSet;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    input::Input,
    read::{Chunk, LineReader},
};
use crate::{
    event::{Address, Event, EventId, Timestamp},
    source::{
        Candidate, Form, Horizon, OpenBlock, ParsedBlock,
        node::{
            read_before,
            recover::{LineOutcome, LineParser, ParsedLines},
        },
    },
    whitelist::{Verdict, Whitelist},
};

/// Whose events a job is for.
#[derive(Clone)]
pub enum Users {
    /// Everybody on the list as it is now.
    Listed(Arc<Whitelist>),
    /// These.
    Named(HashSet<Address>),
    /// Those of these who are still on the list.
    NamedAndListed(HashSet<Address>, Arc<Whitelist>),
}

impl Users {
    fn want(&self, user: Option<&Address>) -> bool {
        let listed = |list: &Whitelist| match user {
            Some(user) => list.contains(user) == Verdict::Listed,
            // Only those who keep everything get what concerns nobody.
            None => list.is_all(),
        };
        let named = |names: &HashSet<Address>| user.is_some_and(|user| names.contains(user));
        match self {
            Self::Listed(list) => listed(list),
            Self::Named(names) => named(names),
            Self::NamedAndListed(names, list) => named(names) && listed(list),
        }
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed(list) => list.fmt(f),
            Self::Named(names) | Self::NamedAndListed(names, _) => {
                write!(f, "{} users", names.len())
            }
        }
    }
}

/// What a pass takes.
#[derive(Clone, Debug)]
pub struct Scope {
    pub users: Users,
    /// Blocks before it are refused.
    pub edge: Timestamp,
    /// The highest block that is known, against which the first of a file is held.
    pub height: Option<u64>,
    pub max_line_bytes: usize,
}

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

struct DirectoryParser {
    directory: PathBuf,
    lines: LineParser,
    /// Whether the next block may have begun where nobody reads.
    starts_anywhere: bool,
    /// It is passed over, also when a node goes back to it: then it is written from its beginning,
    /// which is not known.
    begun_before: Option<u64>,
    /// No other block has come since.
    is_within: bool,
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
                pass.parser = Some(pass.parser_of(&last, place.as_ref()));
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
                let events = self.parse(&chunk, &current.input);
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
        if input.packed || parser.is_within || parser.starts_anywhere {
            return None;
        }
        let digest = digest_before(&input.path, *offset).ok()?;
        Some(parser.place(input, *offset, digest))
    }

    /// The end of a file whose last block may go on in the next one.
    fn end_of(&self, Current { input, offset, .. }: &Current) -> Option<Place> {
        let parser = self.parser.as_ref().filter(|_| input.streaming)?;
        if parser.starts_anywhere {
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
        let goes_on = |parser: &DirectoryParser| parser.directory == input.directory;
        if place.is_some() || !self.parser.as_ref().is_some_and(goes_on) {
            self.behind = None;
            self.parser = Some(self.parser_of(&input, place.as_ref()));
        }
        self.counts.passed_bytes += from;
        self.current = Some(Current { input, lines, offset: from, counted_bytes: from });
        Step::Events(Vec::new())
    }

    fn parser_of(&self, input: &Input, place: Option<&Place>) -> DirectoryParser {
        let open = place.map(|place| &*place.open).unwrap_or_default();
        let lines = LineParser::new(input.topic, input.form(), self.horizon.clone(), open);
        let starts_anywhere = input.form() == Form::Streaming && place.is_none();
        let directory = input.directory.clone();
        let begun_before = place.and_then(|place| place.begun_before);
        DirectoryParser { directory, lines, starts_anywhere, begun_before, is_within: false }
    }

    fn count_bytes(&mut self, current: &mut Current) {
        let position = current.lines.position();
        self.counts.read_bytes += position.saturating_sub(current.counted_bytes);
        current.counted_bytes = position.max(current.counted_bytes);
    }

    fn parse(&mut self, chunk: &Chunk, input: &Input) -> Vec<Event> {
        let Some(parser) = &mut self.parser else { return Vec::new() };
        let mut parsed = ParsedLines::default();
        let now = Timestamp::now();
        let mut start = 0;
        while start < chunk.lines.len() {
            let rest = &chunk.lines[start..];
            let end =
                memchr::memchr(b'\n', rest).map_or(chunk.lines.len(), |length| start + length);
            let outcome = parser.lines.parse(&chunk.lines, start..end, now, &mut parsed);
            if matches!(outcome, LineOutcome::Recovered { .. } | LineOutcome::Malformed { .. }) {
                self.counts.damaged_lines += 1;
            }
            start = end + 1;
        }
        self.counts.refused_blocks += parsed.refused_blocks();
        let keys = parser.lines.key_reader();
        let mut events = Vec::new();
        for block in &parsed.blocks {
            if parser.passes_over(block) {
                continue;
            }
            for candidate in &parsed.candidates[block.candidates.clone()] {
                if !self.scope.users.want(candidate.user.as_ref()) {
                    continue;
                }
                let body = candidate.body.copy_from(&chunk.lines);
                match keys(&body) {
                    Ok(keys) => {
                        let id = id_of(input, block, candidate);
                        let user = candidate.user;
                        events.push(Event { id, time: block.time, user, keys, body });
                    }
                    Err(_) => self.counts.damaged_lines += 1,
                }
            }
        }
        events
    }
}

impl DirectoryParser {
    fn place(&self, input: &Input, offset: u64, digest: u64) -> Place {
        let open = match input.form() {
            Form::Streaming => self.lines.open_blocks(),
            Form::ByBlock => Vec::new(),
        };
        let begun_before = self.begun_before;
        Place { path: input.path.clone(), offset, digest, open, begun_before }
    }

    /// Whether the ordinals of a block are not known: it may have begun in a file that is gone.
    fn passes_over(&mut self, block: &ParsedBlock) -> bool {
        if std::mem::take(&mut self.starts_anywhere) {
            self.begun_before = Some(block.position);
        }
        self.is_within = self.begun_before == Some(block.position);
        self.is_within
    }
}

fn id_of(input: &Input, block: &ParsedBlock, candidate: &Candidate) -> EventId {
    EventId {
        topic: input.topic,
        position: block.position,
        index: candidate.index,
        part: candidate.part,
    }
}

fn digest_before(path: &Path, offset: u64) -> io::Result<u64> {
    Ok(xxh3_64(&read_before(&File::open(path)?, offset)?))
}

/// The time before which blocks are refused: the retention, or a longer time for this job alone,
/// counted back from the newest block or from now.
pub fn edge(
    newest: Option<Timestamp>,
    now: Timestamp,
    retention: Duration,
    keep: Option<Duration>,
) -> Timestamp {
    newest.unwrap_or(now).min(now).minus(keep.unwrap_or(retention))
}

#[cfg(test)]
mod tests;

//! Follows all hour files of one stream: which file is read next, and when one is finished.
//!
//! Place in the pipeline: below `FileWatcher`, above `Tail`. A plain type that is told the time.
//! `rescan` finds out what the directory holds; here it is read.
//! Invariants:
//! * the directory decides what is read, never the clock, and each rescan looks at every file;
//! * older files are drained before newer ones, and lines of one file never change their order;
//! * nothing is read before the baseline of a new stream is committed.

mod followed;
mod rescan;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

pub use self::followed::Change;
use self::followed::{Displaced, Followed, Seen, digest_of_nothing};
use super::{
    layout::HourFile,
    start::Start,
    tail::{Limits, Oversized, Read, Tail},
};
use crate::{
    source::{FileMark, Stream},
    stats::StreamStats,
};

/// How a stream is followed.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub limits: Limits,
    /// How long a file must be unchanged, beside a newer one, to be complete.
    pub grace: Duration,
}

/// What goes into one `RawBatch`.
#[derive(Debug, Default)]
pub struct Batch {
    /// Empty when there are no lines.
    pub file: Arc<str>,
    pub offset: u64,
    pub lines: Bytes,
    pub marks: Vec<FileMark>,
    pub discontinuity: bool,
}

/// An over-long line and the file it stands in.
#[derive(Debug)]
pub struct OversizedLine {
    pub file: Arc<str>,
    pub line: Oversized,
}

/// What happened to a file, and how far it had been read.
#[derive(Debug, PartialEq, Eq)]
pub struct ChangedFile {
    pub file: Arc<str>,
    pub offset: u64,
    pub change: Change,
}

/// The files of one stream, and what of them is still to be read.
pub struct Follower {
    stream: Arc<Stream>,
    settings: Settings,
    stats: Arc<StreamStats>,
    phase: Phase,
    files: BTreeMap<HourFile, Followed>,
    /// Files that may hold unread bytes. The oldest is read first.
    unread: BTreeSet<HourFile>,
    /// Marks of files that are gone or start over; they travel with the next batch.
    marks: Vec<FileMark>,
    /// Unread bytes were lost before the next line.
    discontinuity: bool,
    /// Why the directory, or a day of it, could not be listed.
    directory_problem: Option<String>,
    oversized: Vec<OversizedLine>,
    /// What happened to files since it was last asked for.
    changes: Vec<ChangedFile>,
}

/// The way to the first read.
enum Phase {
    /// The places to begin at are chosen at the next rescan that succeeds.
    Choosing(Start),
    /// They are the next batch.
    Chosen(Vec<FileMark>),
    /// Until they are committed nothing is read.
    Committing,
    Reading,
}

impl Follower {
    /// Begins a stream without offsets in its checkpoint at `start`.
    pub fn new(
        stream: Arc<Stream>,
        settings: Settings,
        start: Start,
        stats: Arc<StreamStats>,
    ) -> Self {
        Self {
            stream,
            settings,
            stats,
            phase: Phase::Choosing(start),
            files: BTreeMap::new(),
            unread: BTreeSet::new(),
            marks: Vec::new(),
            discontinuity: false,
            directory_problem: None,
            oversized: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Goes on at committed marks. Files that they do not name are read from 0.
    pub fn resume(
        stream: Arc<Stream>,
        settings: Settings,
        marks: &[FileMark],
        now: Instant,
        stats: Arc<StreamStats>,
    ) -> Self {
        let mut follower = Self::new(stream, settings, Start::Beginning, stats);
        follower.phase = Phase::Reading;
        follower.apply(marks, now);
        follower
    }

    /// Begins anew at a baseline that was chosen before and may not have been committed.
    pub fn rebase(
        stream: Arc<Stream>,
        settings: Settings,
        baseline: Vec<FileMark>,
        now: Instant,
        stats: Arc<StreamStats>,
    ) -> Self {
        let mut follower = Self::resume(stream, settings, &baseline, now, stats);
        follower.phase = Phase::Chosen(baseline);
        follower
    }

    fn apply(&mut self, marks: &[FileMark], now: Instant) {
        for mark in marks {
            let FileMark::At { file: name, offset, digest } = mark else { continue };
            // Names that we did not make are left to the program that made them.
            let Ok(file) = name.parse::<HourFile>() else { continue };
            let followed = Followed::new(name.clone(), *offset, *digest, now);
            self.files.insert(file, followed);
        }
    }

    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// The baseline that the next batch carries.
    pub fn baseline(&self) -> Option<&[FileMark]> {
        match &self.phase {
            Phase::Chosen(marks) => Some(marks),
            _ => None,
        }
    }

    /// Whether reading waits for the commit of the baseline.
    pub fn awaits_commit(&self) -> bool {
        matches!(self.phase, Phase::Committing)
    }

    /// The baseline is committed: reading may begin.
    pub fn baseline_committed(&mut self) {
        if self.awaits_commit() {
            self.phase = Phase::Reading;
        }
    }

    /// Over-long lines that were met since the last call.
    pub fn take_oversized(&mut self) -> Vec<OversizedLine> {
        std::mem::take(&mut self.oversized)
    }

    /// What happened to files since the last call.
    pub fn take_changes(&mut self) -> Vec<ChangedFile> {
        std::mem::take(&mut self.changes)
    }

    /// What is wrong at the moment: with the directory, else with the first of its files.
    pub fn problem(&self) -> Option<&str> {
        let of_files = || self.files.values().find_map(|followed| followed.problem.as_deref());
        self.directory_problem.as_deref().or_else(of_files)
    }

    /// A hint that a file has changed. Tells whether it is open, so that reading it is enough;
    /// otherwise a rescan is needed.
    pub fn wake(&mut self, file: HourFile) -> bool {
        let open = self.files.get(&file).is_some_and(|followed| followed.tail.is_some());
        if open {
            self.unread.insert(file);
        }
        open
    }

    /// Whether a read may bring something.
    pub fn has_work(&self) -> bool {
        match self.phase {
            Phase::Choosing(_) | Phase::Committing => false,
            Phase::Chosen(_) => true,
            Phase::Reading => !self.unread.is_empty() || self.marks_are_due(),
        }
    }

    /// Lets go of a file that is gone.
    fn forget(&mut self, file: HourFile, lost_bytes: u64, grew_unseen: bool) {
        self.stats.lost_bytes.add(lost_bytes);
        self.discontinuity |= lost_bytes > 0 || grew_unseen;
        self.unread.remove(&file);
        if let Some(followed) = self.files.remove(&file) {
            let newest = self.files.values().rev().find(|file| file.seen.is_some());
            let newest = newest.map(|newest| (&*newest.name, newest.offset));
            self.stats.gone(&followed.name, newest);
            let change = match lost_bytes > 0 || grew_unseen {
                true => Change::RemovedUnread { lost_bytes },
                false => Change::Pruned,
            };
            let (name, offset) = (followed.name.clone(), followed.offset);
            self.changes.push(ChangedFile { file: name, offset, change });
            self.marks.push(FileMark::Gone { file: followed.name });
        }
    }

    /// Reads on: the baseline first, then the oldest file with unread bytes.
    pub fn next_batch(&mut self, now: Instant) -> Option<Batch> {
        match &mut self.phase {
            Phase::Choosing(_) | Phase::Committing => return None,
            Phase::Chosen(marks) => {
                let marks = std::mem::take(marks);
                self.phase = Phase::Committing;
                return Some(Batch { marks, ..Batch::default() });
            }
            Phase::Reading => {}
        }
        while let Some(&file) = self.unread.first() {
            match self.read(file, now) {
                Ok(Some(batch)) => return Some(batch),
                Ok(None) => _ = self.unread.remove(&file),
                Err(error) => {
                    // What was removed before it was opened is for the next rescan to count.
                    if error.kind() != io::ErrorKind::NotFound {
                        self.note_error(file, &error);
                    }
                    self.unread.remove(&file);
                }
            }
        }
        self.marks_are_due()
            .then(|| Batch { marks: std::mem::take(&mut self.marks), ..Batch::default() })
    }

    /// Marks may travel alone, but not without the lines that tell of a discontinuity: after a
    /// restart in between nobody would know of the hole.
    fn marks_are_due(&self) -> bool {
        !self.marks.is_empty() && !self.discontinuity
    }

    /// Reads one file until it gives a batch or has no more.
    fn read(&mut self, file: HourFile, now: Instant) -> io::Result<Option<Batch>> {
        loop {
            let Some(followed) = self.files.get_mut(&file) else { return Ok(None) };
            let before = followed.offset;
            let tail = match &mut followed.tail {
                Some(tail) => tail,
                none => {
                    let path = file.path(&self.stream.directory);
                    let opened = Tail::open(&path, followed.offset, followed.digest)?;
                    if opened.offset() != followed.offset {
                        self.stats.truncations.add(1);
                        self.changes.push(ChangedFile {
                            file: followed.name.clone(),
                            offset: followed.offset,
                            change: Change::Truncated,
                        });
                        followed.offset = opened.offset();
                        followed.digest = opened.digest();
                        self.stats.set_back(&followed.name, followed.offset);
                    }
                    none.insert(opened)
                }
            };
            let mut read = tail.read(self.settings.limits)?;
            followed.problem = None;
            if read.rewritten {
                self.stats.truncations.add(1);
                let change = Change::Truncated;
                self.changes.push(ChangedFile {
                    file: followed.name.clone(),
                    offset: before,
                    change,
                });
                self.stats.set_back(&followed.name, read.offset);
            }
            if let Some(line) = read.oversized.take() {
                self.stats.oversized_lines.add(1);
                self.oversized.push(OversizedLine { file: followed.name.clone(), line });
            }
            if !read.more && read.lines.is_empty() && self.is_complete(file, now) {
                read = self.take_unterminated(file).unwrap_or(read);
            }
            let Some(followed) = self.files.get_mut(&file) else { return Ok(None) };
            followed.note_progress();
            if !read.lines.is_empty() || followed.offset > before {
                if !read.more && followed.displaced.is_none() {
                    self.unread.remove(&file);
                    self.revisit_if_complete(file, now);
                }
                return Ok(Some(self.batch(file, read)));
            }
            if !read.more {
                match followed.displaced {
                    None => return Ok(None),
                    Some(displaced) => self.let_go(file, displaced),
                }
            }
        }
    }

    fn batch(&mut self, file: HourFile, read: Read) -> Batch {
        let has_lines = !read.lines.is_empty();
        let mut batch = Batch { offset: read.offset, lines: read.lines, ..Batch::default() };
        if has_lines || self.marks_are_due() {
            batch.marks = std::mem::take(&mut self.marks);
        }
        if has_lines {
            batch.discontinuity = std::mem::take(&mut self.discontinuity);
        }
        if let Some(followed) = self.files.get(&file) {
            batch.marks.push(followed.mark());
            self.stats.reading(&followed.name, followed.offset);
            if has_lines {
                batch.file = followed.name.clone();
            }
        }
        self.stats.read_bytes.add(batch.lines.len() as u64);
        self.note_behind();
        batch
    }

    /// The open file of a path that means another one or none was read to its end.
    fn let_go(&mut self, file: HourFile, displaced: Displaced) {
        let Some(followed) = self.files.get_mut(&file) else { return };
        let lost_bytes = followed.unfinished_bytes();
        followed.tail = None;
        match displaced {
            Displaced::Removed => self.forget(file, lost_bytes, false),
            Displaced::Replaced => {
                self.stats.lost_bytes.add(lost_bytes);
                self.discontinuity |= lost_bytes > 0;
                followed.displaced = None;
                followed.finished = false;
                followed.offset = 0;
                followed.digest = digest_of_nothing();
                self.stats.set_back(&followed.name, 0);
            }
        }
    }

    /// Whether nothing more is expected of a file whose end was reached.
    fn is_complete(&self, file: HourFile, now: Instant) -> bool {
        let Some(followed) = self.files.get(&file) else { return false };
        if followed.displaced.is_some() {
            return true;
        }
        let mut newer = self.files.range(file..).skip(1).peekable();
        if newer.peek().is_none() {
            return false;
        }
        let (Some(seen), Some(tail)) = (followed.seen, &followed.tail) else { return false };
        if tail.metadata().ok().map(|metadata| Seen::of(&metadata)) != Some(seen) {
            return false;
        }
        // Catching up, the file system's own times tell the same without waiting.
        let outlived = |newer: &Followed| {
            let modified = newer.seen.and_then(|seen| seen.modified);
            let idle = modified.zip(seen.modified).map(|(newer, own)| newer.duration_since(own));
            matches!(idle, Some(Ok(idle)) if idle >= self.settings.grace)
        };
        now.duration_since(followed.changed_at) >= self.settings.grace
            || newer.any(|(_, newer)| outlived(newer))
    }

    fn take_unterminated(&mut self, file: HourFile) -> Option<Read> {
        let followed = self.files.get_mut(&file)?;
        followed.finished = true;
        followed.tail.as_mut()?.take_unterminated()
    }

    /// An old file whose last lines were just handed on may still end in an unterminated one; it
    /// comes before the lines of the next file.
    fn revisit_if_complete(&mut self, file: HourFile, now: Instant) {
        let is_unfinished = |followed: &Followed| followed.unfinished_bytes() > 0;
        if self.files.get(&file).is_some_and(is_unfinished) && self.is_complete(file, now) {
            self.unread.insert(file);
        }
    }

    fn note_behind(&self) {
        let behind: u64 = self.files.values().map(Followed::behind_bytes).sum();
        self.stats.behind_bytes.set(behind as i64);
    }

    fn note_error(&mut self, file: HourFile, error: &io::Error) {
        self.stats.read_errors.add(1);
        let problem = describe(&file.path(&self.stream.directory), error);
        if let Some(followed) = self.files.get_mut(&file) {
            followed.problem = Some(problem);
        }
    }
}

fn describe(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod model;

//! Looks at the whole directory of a stream: what is new, changed, replaced, gone or finished.
//!
//! Place in the pipeline: the half of `Follower` that finds work for the half that reads.
//! Invariants: nothing is read here but the places to begin at; what could not be seen is never
//! taken for deleted; a file is closed only when its end was reached and nothing more is expected
//! of it.

use std::{fs::Metadata, io, time::Instant};

use super::{
    ChangedFile, Follower, Phase, describe,
    followed::{Displaced, Followed, Look, digest_of_nothing},
};
use crate::source::{
    FileMark,
    node::{
        layout::{self, HourFile, Listing},
        start::{self, Start},
    },
};

/// The newest files stay open, so that a late line needs no rescan.
const OPEN_FILES: usize = 2;

impl Follower {
    /// Looks at the whole directory: new, changed, replaced and vanished files.
    pub fn rescan(&mut self, now: Instant) {
        let listed = match layout::list_files(&self.stream.directory) {
            Ok(listed) => listed,
            // What cannot be seen is not taken for deleted; open files are read on.
            Err(error) => {
                self.stats.read_errors.add(1);
                self.directory_problem = Some(describe(&self.stream.directory, &error));
                self.unread.extend(self.open_files());
                return;
            }
        };
        self.directory_problem = None;
        for (path, _, error) in &listed.unreadable_days {
            self.stats.read_errors.add(1);
            self.directory_problem = Some(describe(path, error));
        }
        if let Phase::Choosing(start) = self.phase {
            match self.choose(start, &listed, now) {
                Ok(marks) => self.phase = Phase::Chosen(marks),
                Err(error) => {
                    self.stats.read_errors.add(1);
                    self.directory_problem = Some(describe(&self.stream.directory, &error));
                    return;
                }
            }
        }
        self.find_removed(&listed);
        for (file, metadata) in listed.files {
            let followed = self.files.entry(file).or_insert_with(|| {
                Followed::new(file.to_string().into(), 0, digest_of_nothing(), now)
            });
            let (name, offset) = (followed.name.clone(), followed.offset);
            match metadata.and_then(|metadata| followed.look(&metadata, now, &self.stats)) {
                Ok(Look { unread, change }) => {
                    if unread {
                        self.unread.insert(file);
                    }
                    if let Some(change) = change {
                        self.changes.push(ChangedFile { file: name, offset, change });
                    }
                }
                Err(error) => self.note_error(file, &error),
            }
        }
        self.finish_old_files(now);
        self.note_behind();
    }

    fn choose(
        &mut self,
        start: Start,
        listed: &Listing,
        now: Instant,
    ) -> io::Result<Vec<FileMark>> {
        // A file that cannot be read cannot be placed; it counts as one that is not there yet.
        let readable: Vec<HourFile> = listed
            .files
            .iter()
            .filter(|(_, metadata)| metadata.as_ref().is_ok_and(Metadata::is_file))
            .map(|(file, _)| *file)
            .collect();
        let directory = &self.stream.directory;
        let mut marks = Vec::new();
        for (file, offset) in start::choose(start, self.stream.form, directory, &readable)? {
            let digest = start::digest_at(&file.path(directory), offset)?;
            marks.push(FileMark::At { file: file.to_string().into(), offset, digest });
        }
        self.apply(&marks, now);
        Ok(marks)
    }

    fn find_removed(&mut self, listed: &Listing) {
        let is_removed = |file: &HourFile| listed.is_known(file.day) && !listed.contains(*file);
        let removed: Vec<HourFile> = self.files.keys().copied().filter(is_removed).collect();
        let newest = self.files.keys().next_back().copied();
        for file in removed {
            let Some(followed) = self.files.get_mut(&file) else { continue };
            if followed.tail.is_some() {
                followed.displaced = Some(Displaced::Removed);
                self.unread.insert(file);
                continue;
            }
            let unread_bytes = match followed.seen {
                Some(_) if followed.finished => 0,
                Some(seen) => seen.size.saturating_sub(followed.offset),
                None => 0,
            };
            // The file that was being written when we were stopped has surely grown since.
            let grew_unseen = followed.seen.is_none() && newest == Some(file);
            self.forget(file, unread_bytes, grew_unseen);
        }
    }

    fn finish_old_files(&mut self, now: Instant) {
        for file in self.open_files() {
            if self.files.get(&file).is_some_and(|followed| !followed.finished) {
                self.revisit_if_complete(file, now);
            }
        }
        self.close_idle_files(now);
    }

    /// Closes what is read to its end, complete, and not among the newest. A file of an earlier
    /// hour that a node writes again stays open: its wake-ups need no rescan.
    fn close_idle_files(&mut self, now: Instant) {
        let newest: Vec<HourFile> = self.files.keys().rev().take(OPEN_FILES).copied().collect();
        for file in self.open_files() {
            let is_idle = !newest.contains(&file)
                && !self.unread.contains(&file)
                && self.is_complete(file, now);
            if let Some(followed) = self.files.get_mut(&file).filter(|_| is_idle)
                && followed.displaced.is_none()
                && (followed.finished || followed.unfinished_bytes() == 0)
            {
                followed.tail = None;
            }
        }
    }

    pub(super) fn open_files(&self) -> Vec<HourFile> {
        let open = self.files.iter().filter(|(_, followed)| followed.tail.is_some());
        open.map(|(file, _)| *file).collect()
    }
}

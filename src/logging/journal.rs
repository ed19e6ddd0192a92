//! Levels for systemd's journal: a line that begins with `<4>` is a warning there, and
//! `journalctl -p warning` finds it. Without them every line has one level.
//!
//! Place: between the thread that writes the log and standard error. Invariant: each line of a record
//! is marked, also where a record has several.

use std::{
    env,
    io::{self, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use slog::{Drain, Level, OwnedKVList, Record};

/// Set by systemd: device and inode of the stream that goes into the journal.
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

/// Whether standard error goes into the journal. It may have been redirected since systemd said so.
pub fn reads_standard_error() -> bool {
    let Ok(stream) = env::var(JOURNAL_STREAM) else { return false };
    let handle = io::stderr().as_fd().try_clone_to_owned();
    let metadata = handle.and_then(|handle| std::fs::File::from(handle).metadata());
    metadata.is_ok_and(|found| stream == format!("{}:{}", found.dev(), found.ino()))
}

/// A text of which each line is marked and ended.
pub fn marked(level: Level, text: &str) -> String {
    text.lines().map(|line| format!("<{}>{line}\n", priority(level))).collect()
}

/// The priority of syslog.
fn priority(level: Level) -> u8 {
    match level {
        Level::Critical => 2,
        Level::Error => 3,
        Level::Warning => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// The level of the record that is being written, told by the drain before the format to the writer
/// after it. Both run on the thread of the log.
#[derive(Clone)]
pub struct Marker(Arc<AtomicUsize>);

impl Default for Marker {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(Level::Info.as_usize())))
    }
}

impl Marker {
    pub fn before<D>(self, format: D) -> Marking<D> {
        Marking { marker: self, format }
    }
}

/// Notes the level of each record for [`LineStarts`].
pub struct Marking<D> {
    marker: Marker,
    format: D,
}

impl<D: Drain> Drain for Marking<D> {
    type Ok = D::Ok;
    type Err = D::Err;

    fn log(&self, record: &Record, values: &OwnedKVList) -> Result<D::Ok, D::Err> {
        self.marker.0.store(record.level().as_usize(), Ordering::Relaxed);
        self.format.log(record, values)
    }
}

/// Puts the noted level before each line.
pub struct LineStarts<W> {
    output: W,
    marker: Marker,
    in_line: bool,
}

impl<W> LineStarts<W> {
    pub fn new(output: W, marker: Marker) -> Self {
        Self { output, marker, in_line: false }
    }
}

impl<W: Write> Write for LineStarts<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if !self.in_line {
            let level = Level::from_usize(self.marker.0.load(Ordering::Relaxed));
            write!(self.output, "<{}>", priority(level.unwrap_or(Level::Info)))?;
            self.in_line = true;
        }
        let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
        let written = self.output.write(&bytes[..end])?;
        self.in_line = !bytes[..written].ends_with(b"\n");
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_marked_once_in_whatever_pieces_it_comes() {
        let mut lines = LineStarts::new(Vec::new(), Marker::default());

        for piece in ["a", "", "b\nc\n", "\n", "d"] {
            lines.write_all(piece.as_bytes()).unwrap();
        }

        assert_eq!(lines.output, b"<6>ab\n<6>c\n<6>\n<6>d");
        assert_eq!(marked(Level::Error, "one\n two"), "<3>one\n<3> two\n");
    }
}

//! One look at the files of a node directory, without following them.
//!
//! Place: `nodecast doctor` asks. Invariant: nothing is opened for writing, and no more of a file is
//! read than its end, up to [`MAX_END_BYTES`].

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use memchr::memrchr;

use super::{
    layout::{self, Found},
    line,
};
use crate::{event::Timestamp, source::Stream};

/// What is read first: some hundred blocks.
const FIRST_END_BYTES: u64 = 256 << 10;

/// The longest line that is looked for, that of the hourly funding.
const MAX_END_BYTES: u64 = 64 << 20;

/// A directory of a kind, as it was found.
#[derive(Debug)]
pub struct Surveyed {
    pub stream: Arc<Stream>,
    /// Why it cannot be followed: its lines have no block numbers.
    pub plain: Option<String>,
    /// The hour files; an error when they cannot be listed.
    pub files: io::Result<HourFiles>,
}

/// The hour files of a stream.
#[derive(Debug, Default)]
pub struct HourFiles {
    pub count: usize,
    /// Bytes of an hour, on average over the hours that are complete. `None`: there is none yet.
    pub bytes_per_hour: Option<u64>,
    /// Of the last hour.
    pub newest: Option<PathBuf>,
    /// Day directories and files that cannot be looked at.
    pub hidden: Vec<(PathBuf, io::Error)>,
}

/// The end of a file.
#[derive(Clone, Copy, Debug)]
pub struct FileEnd {
    pub modified: Timestamp,
    pub bytes: u64,
    /// Bytes behind the last newline: a line that the node has not finished.
    pub torn_bytes: u64,
    /// `None`: there is no whole line that can be read.
    pub last: Option<LastLine>,
}

/// What the last whole line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastLine {
    pub block: u64,
    pub block_time: Timestamp,
    pub local_time: Timestamp,
}

/// Looks for the kinds of a node directory and lists their files.
///
/// # Errors
/// When the node directory cannot be looked at.
pub fn survey(node: &Path) -> io::Result<Vec<Surveyed>> {
    // A look: a directory that may be entered but not listed is no kind's fault.
    let found = layout::find_streams(node)?.into_iter().map(|found| {
        let (stream, plain) = match found {
            Found::Stream(stream) => (stream, None),
            Found::Plain { stream, problem } => (stream, Some(problem)),
        };
        let files = hour_files(&stream.directory);
        Surveyed { stream, plain, files }
    });
    Ok(found.collect())
}

fn hour_files(directory: &Path) -> io::Result<HourFiles> {
    let listing = layout::list_files(directory)?;
    let mut hidden: Vec<_> =
        listing.unreadable_days.into_iter().map(|(path, _, error)| (path, error)).collect();
    let mut sizes = Vec::new();
    let mut newest = None;
    for (file, looked) in listing.files {
        match looked {
            Ok(found) => sizes.push(found.len()),
            Err(error) => hidden.push((file.path(directory), error)),
        }
        newest = Some(file.path(directory));
    }
    // The last hour is not over.
    let complete = &sizes[..sizes.len().saturating_sub(1)];
    let bytes_per_hour = complete.iter().sum::<u64>().checked_div(complete.len() as u64);
    Ok(HourFiles { count: sizes.len(), bytes_per_hour, newest, hidden })
}

/// Reads the end of a file.
///
/// # Errors
/// When the file cannot be read.
pub fn read_end(path: &Path) -> io::Result<FileEnd> {
    let file = File::open(path)?;
    let mut window = FIRST_END_BYTES;
    loop {
        let metadata = file.metadata()?;
        let bytes = metadata.len();
        let length = window.min(bytes);
        let mut end = vec![0; length as usize];
        match file.read_exact_at(&mut end, bytes - length) {
            // It was cut in this moment: look again.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => continue,
            read => read?,
        }
        let lines = memrchr(b'\n', &end).map_or(0, |at| at + 1);
        let last = last_line(&end[..lines]);
        if last.is_some() || window >= bytes.min(MAX_END_BYTES) {
            let modified = metadata.modified()?.duration_since(SystemTime::UNIX_EPOCH);
            return Ok(FileEnd {
                modified: Timestamp(modified.map_or(0, |since| since.as_micros() as i64)),
                bytes,
                torn_bytes: (end.len() - lines) as u64,
                last,
            });
        }
        window *= 8;
    }
}

/// The last of some whole lines that can be read. The first may have been cut off.
fn last_line(lines: &[u8]) -> Option<LastLine> {
    let mut rest = lines.strip_suffix(b"\n")?;
    loop {
        let start = memrchr(b'\n', rest).map_or(0, |at| at + 1);
        if let Ok(envelope) = line::read_object(rest, start, |_| {}) {
            return Some(LastLine {
                block: envelope.position,
                block_time: envelope.time,
                local_time: envelope.written,
            });
        }
        rest = &rest[..start.checked_sub(1)?];
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const LINE: &str = r#"{"local_time":"2026-03-15T00:00:00.196239755","block_time":"2026-03-14T23:59:59.991006841","block_number":7,"events":[]}"#;

    fn end_of(text: &str) -> FileEnd {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0");
        fs::write(&path, text).unwrap();
        read_end(&path).unwrap()
    }

    #[test]
    fn the_last_whole_line_is_found_before_what_is_torn_or_spoiled() {
        let end = end_of(&format!("{LINE}\nspoiled\n{{\"local_time\":"));

        assert_eq!(end.torn_bytes, 14);
        let last = end.last.unwrap();
        assert_eq!(last.block, 7);
        assert_eq!(last.local_time.since(last.block_time).as_micros(), 205_233);
    }

    #[test]
    fn a_line_that_is_longer_than_the_first_look_is_found() {
        let long = LINE.replace("[]", &format!("[\"{}\"]", "x".repeat(3 << 20)));

        let end = end_of(&format!("{LINE}\n{}\n", long.replace(":7,", ":8,")));

        assert_eq!((end.last.unwrap().block, end.torn_bytes), (8, 0));
    }

    #[test]
    fn a_file_without_a_line_has_none() {
        assert!(end_of("").last.is_none());
        let torn = end_of("half a line");
        assert_eq!((torn.last, torn.torn_bytes), (None, 11));
    }
}

//! The list as a file: one address a line, `#` starts a comment.
//!
//! Invariant: a file is used as a whole or not at all; bad lines are named in the fault. It is read
//! in pieces of bounded length and its addresses are handed on one by one: of ten million addresses
//! the text alone is 430 MB.

use std::{
    fmt, fs,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

use ahash::HashSet;

use super::list::ListFault;
use crate::event::Address;

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// Bytes of a line that are looked at. What is longer is skipped up to its end: a comment may be
/// long, an address is not.
const MAX_LINE_BYTES: u64 = 4 << 10;

/// Age of a file's last change from which on its [`FileStamp`] proves that it is the same: the
/// clock of file times moves in steps of some milliseconds, on some file systems of two seconds.
const SETTLED: Duration = Duration::from_secs(3);

/// Bad lines whose number is kept. Their count is always told.
const KEPT_NUMBERS: usize = 10_000;

/// Bad lines of which a message shows the text. Their number is always told.
const SHOWN_LINES: usize = 20;

/// Characters of a bad line that are shown.
const SHOWN_CHARS: usize = 60;

/// Longest file that is read: more than 20 million addresses. Beyond it the path is a mistake.
const MAX_BYTES: u64 = 1 << 30;

/// What a file held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ListFile {
    pub addresses: HashSet<Address>,
    /// Lines whose address stands further up as well.
    pub duplicates: usize,
}

/// Why a file gave no list.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("{0}")]
    BadLines(BadLines),
    /// The addresses could not be put away.
    #[error(transparent)]
    List(#[from] ListFault),
}

/// By which an unchanged file is recognised without reading it. Any way of changing a file changes
/// its status-change time, which nobody can set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    pub const BYTES: usize = 56;

    /// # Errors
    /// When there is no such file or it cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Whether an equal stamp, seen later, will prove that the file was not changed after this one
    /// was taken: the last change was not just now, within one step of the clock of file times, and
    /// not in the future.
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let (secs, nanos) = self.changed;
        let changed = Duration::new(secs.try_into().unwrap_or(0), nanos.try_into().unwrap_or(0));
        now.duration_since(SystemTime::UNIX_EPOCH + changed).is_ok_and(|age| age >= SETTLED)
    }

    /// As a stamp of [`AddressList::keep`](super::AddressList::keep).
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let (device, inode, size) = (self.device as i64, self.inode as i64, self.size as i64);
        let (modified, changed) = (self.modified, self.changed);
        let fields = [device, inode, size, modified.0, modified.1, changed.0, changed.1];
        let mut bytes = [0; Self::BYTES];
        for (field, place) in fields.iter().zip(bytes.as_chunks_mut::<8>().0) {
            *place = field.to_le_bytes();
        }
        bytes
    }
}

/// The lines that are no addresses; shown in bounded length.
#[derive(Debug, Default)]
pub struct BadLines {
    count: usize,
    /// Number, counted from 1, of the first ones.
    numbers: Vec<usize>,
    /// The text of the very first ones.
    shown: Vec<String>,
}

impl fmt::Display for BadLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.count;
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} bad line{plural}, an address is 0x and 40 hexadecimal digits: ")?;
        for (ordinal, (number, text)) in self.numbers.iter().zip(&self.shown).enumerate() {
            let separator = if ordinal > 0 { ", " } else { "" };
            write!(f, "{separator}line {number}: {text:?}")?;
        }
        if count > self.shown.len() {
            f.write_str(", and more")?;
        }
        Ok(())
    }
}

/// Reads a file into a set.
pub fn read(path: &Path) -> Result<ListFile, FileFault> {
    let mut list = ListFile::default();
    read_into(path, |address| {
        list.duplicates += usize::from(!list.addresses.insert(address));
        Ok(())
    })?;
    Ok(list)
}

/// Hands every address of a file on, in the order of the lines, repeated ones too. After a fault
/// what was handed on is not to be used.
pub fn read_into(
    path: &Path,
    sink: impl FnMut(Address) -> Result<(), ListFault>,
) -> Result<(), FileFault> {
    // A pipe or a device could block for ever or never end.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file").into());
    }
    if metadata.len() > MAX_BYTES {
        return Err(FileFault::TooLong);
    }
    // It may grow while it is read.
    let file = fs::File::open(path)?.take(MAX_BYTES);
    parse_into(BufReader::with_capacity(READ_BYTES, file), sink)
}

/// Reads the content of a file. Any case, white space around an address, CRLF and a byte order
/// mark are fine.
fn parse_into(
    mut content: impl BufRead,
    mut sink: impl FnMut(Address) -> Result<(), ListFault>,
) -> Result<(), FileFault> {
    let mut bad = BadLines::default();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if (&mut content).take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.len() as u64 == MAX_LINE_BYTES && line.last() != Some(&b'\n') {
            content.skip_until(b'\n')?;
        }
        let text = text_of(&line, number);
        if text.is_empty() {
            continue;
        }
        match Address::parse(text) {
            Ok(address) => sink(address)?,
            Err(_) => bad.add(number, text),
        }
    }
    if bad.count == 0 { Ok(()) } else { Err(FileFault::BadLines(bad)) }
}

/// What a line says, without mark, comment and white space. Lines are counted from 1.
pub fn text_of(line: &[u8], number: usize) -> &[u8] {
    let mark: &[u8] = if number == 1 { b"\xef\xbb\xbf" } else { b"" };
    let line = line.strip_prefix(mark).unwrap_or(line);
    line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii()
}

impl BadLines {
    fn add(&mut self, number: usize, text: &[u8]) {
        self.count += 1;
        if self.numbers.len() < KEPT_NUMBERS {
            self.numbers.push(number);
        }
        if self.shown.len() < SHOWN_LINES {
            let text = String::from_utf8_lossy(&text[..text.len().min(4 * SHOWN_CHARS)]);
            self.shown.push(text.chars().take(SHOWN_CHARS).collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0x010461c14e146ac35fe42271bdc1134ee31c703a";
    const TWO: &str = "0x727956612a8700627451204a3ae26268bd1a1525";

    fn parse(content: &[u8]) -> Result<ListFile, FileFault> {
        let mut list = ListFile::default();
        parse_into(content, |address| {
            list.duplicates += usize::from(!list.addresses.insert(address));
            Ok(())
        })?;
        Ok(list)
    }

    fn bad_lines(content: &[u8]) -> BadLines {
        match parse(content) {
            Err(FileFault::BadLines(bad)) => bad,
            other => panic!("{other:?}"),
        }
    }

    // H25
    #[test]
    fn comments_white_space_case_and_line_ends_do_not_matter() {
        let upper = TWO.to_uppercase();
        let content =
            format!("\u{feff}# ours\r\n\r\n  {ONE}\t# first\r\n{upper}\n\n{ONE}\n   # end");

        let list = parse(content.as_bytes()).unwrap();

        assert_eq!(
            list.addresses,
            [ONE, TWO].map(|text| text.parse().unwrap()).into_iter().collect()
        );
        assert_eq!(list.duplicates, 1);
    }

    #[test]
    fn every_bad_line_is_named() {
        let content = format!("{ONE}\nnobody\n# x\n{}\n{TWO} {ONE}\n\u{fffd}\u{1}", &ONE[..41]);

        let bad = bad_lines(content.as_bytes());

        assert_eq!(bad.numbers, [2, 4, 5, 6]);
        assert!(bad.to_string().starts_with("4 bad lines, "), "{bad}");
        assert!(bad.to_string().contains("line 2: \"nobody\""), "{bad}");

        let bad = bad_lines(format!("{ONE}\nnobody\n{TWO}").as_bytes());

        let said = "1 bad line, an address is 0x and 40 hexadecimal digits: line 2: \"nobody\"";
        assert_eq!(bad.to_string(), said);
    }

    #[test]
    fn the_message_about_a_file_of_garbage_is_bounded() {
        let bad = bad_lines("ä".repeat(5_000).as_bytes());
        assert_eq!(bad.shown[0].chars().count(), SHOWN_CHARS);

        let bad = bad_lines("bad line\n".repeat(100_000).as_bytes());
        assert_eq!((bad.count, bad.numbers.len()), (100_000, KEPT_NUMBERS));
        assert!(bad.to_string().starts_with("100000 bad lines"), "{bad}");
        assert!(bad.to_string().len() < 2_000);
    }

    #[test]
    fn a_line_may_be_long_only_behind_an_address() {
        let long = "x".repeat(3 * MAX_LINE_BYTES as usize);
        let exact = "y".repeat(MAX_LINE_BYTES as usize - ONE.len() - 2);

        let list = parse(format!("{ONE} #{long}\n#{long}{TWO}\n").as_bytes()).unwrap();
        let full = parse(format!("{ONE}#{exact}\n{TWO}").as_bytes()).unwrap();
        let bad = bad_lines(format!("{ONE}\n{long}\n{TWO}").as_bytes());

        assert_eq!((list.addresses.len(), full.addresses.len()), (1, 2));
        assert_eq!(bad.numbers, [2]);
    }

    #[test]
    fn every_change_of_a_file_changes_its_stamp() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        fs::write(&path, ONE).unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let before = FileStamp::of(&path).unwrap();
        assert_eq!(FileStamp::of(&path).unwrap().to_bytes(), before.to_bytes());

        // The same length and the old time of modification, and yet another content.
        while FileStamp::of(&path).unwrap() == before {
            fs::write(&path, TWO).unwrap();
            fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        }

        let after = FileStamp::of(&path).unwrap();
        assert_eq!(
            (after.modified, after.size, after.inode),
            (before.modified, before.size, before.inode)
        );
        assert_ne!(after.to_bytes(), before.to_bytes());
        assert!(!after.is_settled(SystemTime::now()));
        assert!(after.is_settled(SystemTime::now() + SETTLED));
    }

    #[test]
    fn what_is_no_file_is_a_fault() {
        let directory = tempfile::tempdir().unwrap();

        assert!(matches!(read(directory.path()), Err(FileFault::Io(_))));
        assert!(matches!(read(&directory.path().join("absent")), Err(FileFault::Io(_))));
    }
}

//! Follows one file and hands on its whole lines.
//!
//! Place in the pipeline: below the follower, which says when to read. Plain std I/O; a read that
//! finds nothing costs one system call.
//! Invariants: only whole lines leave, in the order of the file; the bytes of an unfinished line
//! are kept and not read again; nothing above the line limit is held in memory.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use bytes::Bytes;
use memchr::{memchr, memrchr};
use rustix::buffer::spare_capacity;
use serde::de::IgnoredAny;
use xxhash_rust::xxh3::xxh3_64;

/// A checkpoint's digest covers at most this many bytes before its offset.
const WINDOW_BYTES: usize = 4_096;

/// Of an over-long line this much is kept for quarantine.
const HEAD_BYTES: usize = 64 << 10;

/// What bounds a read.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes of one read from the file.
    pub read_bytes: usize,
    /// Most bytes of a line, its newline not counted.
    pub line_bytes: usize,
}

/// Which file a path means at the moment: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode(u64, u64);

impl Inode {
    pub fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

/// What one read brought.
#[derive(Debug, Default)]
pub struct Read {
    /// Offset of the first byte of `lines`.
    pub offset: u64,
    /// Whole lines with their newlines.
    pub lines: Bytes,
    /// A line that was found too long just now; it is skipped up to its newline.
    pub oversized: Option<Oversized>,
    /// The file is not what it was: reading starts over.
    pub rewritten: bool,
    /// Whether the file held more bytes than were read.
    pub more: bool,
}

/// An over-long line.
#[derive(Debug)]
pub struct Oversized {
    pub offset: u64,
    /// Its first bytes.
    pub head: Vec<u8>,
}

/// One open file and how far it was handed on.
#[derive(Debug)]
pub struct Tail {
    file: File,
    inode: Inode,
    /// Everything before was handed on. At the start of a line, or behind a last line that came
    /// without its newline.
    offset: u64,
    /// The last bytes before `offset`, at most [`WINDOW_BYTES`]: how other content is noticed.
    window: Vec<u8>,
    /// The bytes from `offset` on that were read and hold no newline.
    pending: Vec<u8>,
    /// Bytes from `offset` on that were passed over because their line is too long. While this is
    /// not 0, `pending` is empty and `offset` stays at the start of that line.
    skipped: u64,
}

impl Tail {
    /// Opens a file at a checkpoint. When the bytes before `offset` do not have that `digest`,
    /// the tail starts at 0 instead: see [`Tail::offset`].
    pub fn open(path: &Path, offset: u64, digest: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let mut window = read_before(&file, offset).unwrap_or_default();
        // A window that is too short belongs to a file that ends before the offset.
        let same = metadata.len() >= offset
            && window.len() as u64 == offset.min(WINDOW_BYTES as u64)
            && xxh3_64(&window) == digest;
        if !same {
            window.clear();
        }
        let offset = if same { offset } else { 0 };
        let inode = Inode::of(&metadata);
        Ok(Self { file, inode, offset, window, pending: Vec::new(), skipped: 0 })
    }

    pub fn inode(&self) -> Inode {
        self.inode
    }

    /// Everything before was handed on.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// XXH3 of the last (at most 4,096) bytes before the offset.
    pub fn digest(&self) -> u64 {
        xxh3_64(&self.window)
    }

    /// How far the file was read: behind the unfinished line.
    pub fn position(&self) -> u64 {
        self.offset + self.skipped.max(self.pending.len() as u64)
    }

    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Reads what was appended, at most `limits.read_bytes` of it.
    ///
    /// # Errors
    /// When the file system fails; nothing was handed on then, and the same call may be repeated.
    pub fn read(&mut self, limits: Limits) -> io::Result<Read> {
        let size = self.file.metadata()?.len();
        if size < self.position() {
            return self.start_over();
        }
        let unread = size - self.position();
        if unread == 0 {
            return Ok(Read { offset: self.offset, ..Read::default() });
        }
        // One byte above the limit tells a line of exactly that length from a longer one.
        let room = limits.line_bytes.saturating_sub(self.pending.len()).saturating_add(1);
        let want =
            limits.read_bytes.max(1).min(room).min(usize::try_from(unread).unwrap_or(usize::MAX));
        let mut fresh = Vec::with_capacity(want);
        rustix::io::pread(&self.file, spare_capacity(&mut fresh), self.position())?;
        fresh.truncate(want);
        // Looked at after the read: what is still the same now was the same while we read.
        if !self.is_unchanged()? {
            return self.start_over();
        }
        // Nothing at all is no more: a file system that reports too large a size must not hold us.
        let more = !fresh.is_empty() && (fresh.len() as u64) < unread;
        if self.skipped > 0 {
            return self.skip(&fresh, more);
        }
        Ok(self.hand_on(fresh, more, limits))
    }

    fn hand_on(&mut self, mut fresh: Vec<u8>, more: bool, limits: Limits) -> Read {
        let Some(last) = memrchr(b'\n', &fresh) else {
            self.keep(fresh);
            let oversized = (self.pending.len() > limits.line_bytes).then(|| self.start_skipping());
            return Read { offset: self.offset, oversized, more, ..Read::default() };
        };
        let unfinished = fresh[last + 1..].to_vec();
        fresh.truncate(last + 1);
        self.keep(fresh);
        let lines = std::mem::replace(&mut self.pending, unfinished);
        let mut read = Read { offset: self.offset, lines: lines.into(), more, ..Read::default() };
        if read.lines[0] == b'\n' && self.is_behind_unterminated_line() {
            // The newline of a line that was handed on without it.
            read.lines = read.lines.slice(1..);
            self.advance(b"\n");
            read.offset = self.offset;
        }
        self.advance(&read.lines);
        read
    }

    /// Hands on an unfinished line that is complete except for its newline: a whole JSON object
    /// cannot be the beginning of a longer one.
    pub fn take_unterminated(&mut self) -> Option<Read> {
        let whole = self.pending.first() == Some(&b'{')
            && serde_json::from_slice::<IgnoredAny>(&self.pending).is_ok();
        whole.then(|| {
            let lines: Bytes = std::mem::take(&mut self.pending).into();
            let offset = self.offset;
            self.advance(&lines);
            Read { offset, lines, ..Read::default() }
        })
    }

    /// Bytes of an unfinished line.
    pub fn unfinished_bytes(&self) -> u64 {
        self.position() - self.offset
    }

    /// Looks whether what was read is still in the file, for files that seem not to grow.
    pub fn check(&mut self) -> io::Result<bool> {
        let unchanged = self.file.metadata()?.len() >= self.position() && self.is_unchanged()?;
        if !unchanged {
            self.start_over()?;
        }
        Ok(unchanged)
    }

    fn keep(&mut self, mut fresh: Vec<u8>) {
        if self.pending.is_empty() {
            self.pending = fresh;
        } else {
            self.pending.append(&mut fresh);
        }
    }

    fn is_behind_unterminated_line(&self) -> bool {
        self.window.last().is_some_and(|&byte| byte != b'\n')
    }

    fn advance(&mut self, handed_on: &[u8]) {
        self.offset += handed_on.len() as u64;
        let fresh = &handed_on[handed_on.len().saturating_sub(WINDOW_BYTES)..];
        let surplus = (self.window.len() + fresh.len()).saturating_sub(WINDOW_BYTES);
        self.window.drain(..surplus);
        self.window.extend_from_slice(fresh);
    }

    fn start_skipping(&mut self) -> Oversized {
        let mut head = std::mem::take(&mut self.pending);
        self.skipped = head.len() as u64;
        head.truncate(HEAD_BYTES);
        head.shrink_to_fit();
        Oversized { offset: self.offset, head }
    }

    /// Passes over more of an over-long line. What stands behind its newline is read again.
    fn skip(&mut self, fresh: &[u8], more: bool) -> io::Result<Read> {
        let Some(newline) = memchr(b'\n', fresh) else {
            self.skipped += fresh.len() as u64;
            return Ok(Read { offset: self.offset, more, ..Read::default() });
        };
        let offset = self.offset + self.skipped + newline as u64 + 1;
        self.window = read_before(&self.file, offset)?;
        self.offset = offset;
        self.skipped = 0;
        let more = more || newline + 1 < fresh.len();
        Ok(Read { offset, more, ..Read::default() })
    }

    /// Whether the last bytes that were read are still what the file holds.
    fn is_unchanged(&self) -> io::Result<bool> {
        let window = holds(&self.file, self.offset - self.window.len() as u64, &self.window)?;
        let unfinished = &self.pending[self.pending.len().saturating_sub(WINDOW_BYTES)..];
        let at = self.offset + (self.pending.len() - unfinished.len()) as u64;
        Ok(window && holds(&self.file, at, unfinished)?)
    }

    /// Goes back to 0; or, when only the unfinished line was cut off, to its start.
    fn start_over(&mut self) -> io::Result<Read> {
        let handed_on_stands = self.file.metadata()?.len() >= self.offset
            && holds(&self.file, self.offset - self.window.len() as u64, &self.window)?;
        if !handed_on_stands {
            self.offset = 0;
            self.window.clear();
        }
        self.pending = Vec::new();
        self.skipped = 0;
        Ok(Read { offset: self.offset, rewritten: true, more: true, ..Read::default() })
    }
}

/// Whether the file holds `expected` at an offset.
fn holds(file: &File, offset: u64, expected: &[u8]) -> io::Result<bool> {
    let mut held = [0; WINDOW_BYTES];
    let held = &mut held[..expected.len()];
    match file.read_exact_at(held, offset) {
        Ok(()) => Ok(held == expected),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The last bytes before an offset, at most [`WINDOW_BYTES`].
pub fn read_before(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let length = offset.min(WINDOW_BYTES as u64);
    let mut window = vec![0; length as usize];
    file.read_exact_at(&mut window, offset - length)?;
    Ok(window)
}

#[cfg(test)]
mod tests;

//! Where input goes that could not be used: kept for people, bounded, never in the way.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Serialize;

/// One piece of input that was set aside.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// Why, in a few words: `malformed line`.
    pub reason: &'a str,
    /// Where it came from: a file's path, or the store.
    pub origin: &'a str,
    /// Place in the origin, in bytes.
    pub offset_bytes: u64,
    pub content: &'a [u8],
}

/// A file of JSON lines in the state directory. When it is full it replaces its predecessor
/// (`quarantine.jsonl.1`) and starts anew, so it takes at most its bound on the disk.
#[derive(Debug)]
pub struct Quarantine {
    path: PathBuf,
    max_bytes: u64,
    file: Mutex<(File, u64)>,
    /// Of both files together.
    bytes: AtomicU64,
}

/// The form of a line of the file.
#[derive(Serialize)]
struct Line<'a> {
    reason: &'a str,
    origin: &'a str,
    offset_bytes: u64,
    /// Length of the whole content.
    content_bytes: usize,
    /// The content as far as it is kept; bytes that are not UTF-8 are replaced.
    content: std::borrow::Cow<'a, str>,
}

/// One piece keeps at most this much of its content, so that one 64 MiB line does not push out
/// everything else.
const MAX_CONTENT_BYTES: usize = 1 << 20;

impl Quarantine {
    /// Opens the file in `directory`, which exists.
    pub fn open(directory: &Path, max_bytes: u64) -> io::Result<Self> {
        let path = directory.join("quarantine.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let written = file.metadata()?.len();
        let before = path.with_extension("jsonl.1").metadata().map_or(0, |file| file.len());
        let bytes = AtomicU64::new(before + written);
        Ok(Self { path, max_bytes, file: Mutex::new((file, written)), bytes })
    }

    /// What the files take on the disk, without looking there.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Sets one piece aside.
    ///
    /// # Errors
    /// When the disk refuses it. The caller logs that and goes on: a full disk must not stop the
    /// stream.
    pub fn put(&self, refused: Refused<'_>) -> io::Result<()> {
        let kept = &refused.content[..refused.content.len().min(MAX_CONTENT_BYTES)];
        let mut line = serde_json::to_vec(&Line {
            reason: refused.reason,
            origin: refused.origin,
            offset_bytes: refused.offset_bytes,
            content_bytes: refused.content.len(),
            content: String::from_utf8_lossy(kept),
        })?;
        line.push(b'\n');
        let mut guard = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, written) = &mut *guard;
        // Two files share the bound: the full one and the one that grows.
        if *written > 0 && *written + line.len() as u64 > self.max_bytes / 2 {
            std::fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
            *file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            self.bytes.store(*written, Ordering::Relaxed);
            *written = 0;
        }
        file.write_all(&line)?;
        *written += line.len() as u64;
        self.bytes.fetch_add(line.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_stay_within_their_bound() {
        let directory = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(directory.path(), 4_096).unwrap();

        for offset_bytes in 0..200 {
            let content = &[b'x'; 100];
            quarantine
                .put(Refused { reason: "malformed line", origin: "0", offset_bytes, content })
                .unwrap();
        }

        let sizes = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len());
        let size = sizes.sum::<u64>();
        assert!(size <= 4_096);
        assert_eq!(quarantine.bytes(), size);
        assert_eq!(Quarantine::open(directory.path(), 4_096).unwrap().bytes(), size);
        let newest = std::fs::read_to_string(directory.path().join("quarantine.jsonl")).unwrap();
        assert!(newest.lines().last().unwrap().contains("\"offset_bytes\":199"));
    }
}

//! The file of the changes since the base was written: what makes a small change cheap to keep.
//!
//! A head (magic, identity of the base), then one entry for each time the list was kept:
//!
//! ```text
//! u32 length of the payload | u64 XXH3 of the payload, seeded with that of the entry before
//! payload: u32 length of the stamp | stamp | u32 number of added records | added | removed
//! ```
//!
//! Invariant: an entry counts when it and all before it are whole, so a crash in mid-write leaves
//! the list as it was. It is not waited until an entry is on the disk: after a power loss the
//! list may be an older one, with its older stamp, and the source brings it up to date.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    ListFault,
    base::Base,
    base_path, changes_path,
    delta::Delta,
    format::{HEADER_BYTES, Header, MAX_STAMP_BYTES, Record},
};
use crate::fail_point;

const MAGIC: [u8; 8] = *b"ncchng\r\n";

const HEAD_BYTES: usize = 16;

/// Length and checksum in front of a payload.
const ENTRY_HEAD_BYTES: usize = 12;

/// How a list lies in the state directory.
pub struct Kept {
    /// The name is part of it.
    base_path: PathBuf,
    base_id: u64,
    /// What the changes amount to.
    delta: Arc<Delta>,
    /// Length of the changes that count.
    pub changes_bytes: u64,
    /// Checksum of the last entry, the identity of the base where there is none.
    chain: u64,
    pub stamp: Vec<u8>,
}

impl Kept {
    /// Of a base that was just written: whatever changes there were belong to another one.
    pub fn whole(directory: &Path, name: &str, header: Header) -> Self {
        // What stays is not taken for ours: it has another identity.
        fs::remove_file(changes_path(directory, name)).ok();
        Self {
            base_path: base_path(directory, name),
            base_id: header.id,
            delta: Arc::default(),
            changes_bytes: 0,
            chain: header.id,
            stamp: header.stamp,
        }
    }

    /// Reads the changes of a base.
    pub fn open(
        directory: &Path,
        name: &str,
        header: Header,
        base: &Base,
    ) -> Result<(Self, Delta), ListFault> {
        let path = changes_path(directory, name);
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(ListFault::Io { path, error }),
        };
        let mut kept = Self {
            base_path: base_path(directory, name),
            base_id: header.id,
            delta: Arc::default(),
            changes_bytes: 0,
            chain: header.id,
            stamp: header.stamp,
        };
        let mut delta = Delta::default();
        let Some(mut rest) = content.strip_prefix(&head(header.id)[..]) else {
            return Ok((kept, delta));
        };
        kept.changes_bytes = HEAD_BYTES as u64;
        while let Some(entry) = Entry::split(&mut rest, kept.chain) {
            let added = entry.added.iter().copied();
            delta.apply(base, added, entry.removed.iter().copied());
            kept.changes_bytes = (content.len() - rest.len()) as u64;
            kept.chain = entry.checksum;
            kept.stamp = entry.stamp.to_vec();
        }
        kept.delta = Arc::new(delta.clone());
        Ok((kept, delta))
    }

    /// Keeps what has changed since; `None`: this list is not what lies there.
    pub fn append(
        &self,
        directory: &Path,
        name: &str,
        delta: &Arc<Delta>,
        stamp: &[u8],
    ) -> Result<Option<Self>, ListFault> {
        if self.base_path != base_path(directory, name) {
            return Ok(None);
        }
        let path = changes_path(directory, name);
        self.try_append(&path, delta, stamp).map_err(|error| ListFault::Io { path, error })
    }

    fn try_append(
        &self,
        path: &Path,
        delta: &Arc<Delta>,
        stamp: &[u8],
    ) -> io::Result<Option<Self>> {
        if !self.is_base()? {
            return Ok(None);
        }
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        if self.changes_bytes == 0 {
            file.set_len(0)?;
            bytes.extend_from_slice(&head(self.base_id));
        } else {
            let mut found = [0; HEAD_BYTES];
            if file.metadata()?.len() < self.changes_bytes {
                return Ok(None);
            }
            file.read_exact_at(&mut found, 0)?;
            if found != head(self.base_id) {
                return Ok(None);
            }
        }
        let (come, go) = delta.since(&self.delta);
        if self.changes_bytes > 0 && come.is_empty() && go.is_empty() && self.stamp == stamp {
            return Ok(Some(self.with(self.changes_bytes, self.chain, delta, stamp)));
        }
        let chain = encode(&mut bytes, self.chain, stamp, &come, &go);
        // What a failed or a rejected writing left behind this place is overwritten.
        file.set_len(self.changes_bytes)?;
        fail_point!("list_changes_cut");
        file.write_all_at(&bytes, self.changes_bytes)?;
        fail_point!("list_changes_written");
        let end = self.changes_bytes + bytes.len() as u64;
        Ok(Some(self.with(end, chain, delta, stamp)))
    }

    fn with(&self, changes_bytes: u64, chain: u64, delta: &Arc<Delta>, stamp: &[u8]) -> Self {
        let (base_path, base_id) = (self.base_path.clone(), self.base_id);
        let (delta, stamp) = (delta.clone(), stamp.to_vec());
        Self { base_path, base_id, delta, changes_bytes, chain, stamp }
    }

    /// Whether our base is what lies there: another list may have been kept since.
    fn is_base(&self) -> io::Result<bool> {
        let mut header = [0; HEADER_BYTES];
        match File::open(&self.base_path).and_then(|mut file| file.read_exact(&mut header)) {
            Ok(()) => Ok(Header::decode(&header).is_ok_and(|header| header.id == self.base_id)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn head(base_id: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&MAGIC);
    head[8..].copy_from_slice(&base_id.to_le_bytes());
    head
}

/// Writes an entry and returns its checksum.
fn encode(
    bytes: &mut Vec<u8>,
    chain: u64,
    stamp: &[u8],
    added: &[&Record],
    removed: &[&Record],
) -> u64 {
    let mut payload = Vec::new();
    payload.extend_from_slice(&(stamp.len() as u32).to_le_bytes());
    payload.extend_from_slice(stamp);
    payload.extend_from_slice(&(added.len() as u32).to_le_bytes());
    for record in added.iter().chain(removed) {
        payload.extend_from_slice(&record[..]);
    }
    let checksum = xxh3_64_with_seed(&payload, chain);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(&payload);
    checksum
}

struct Entry<'a> {
    stamp: &'a [u8],
    added: &'a [Record],
    removed: &'a [Record],
    checksum: u64,
}

impl<'a> Entry<'a> {
    /// Takes the next entry off; `None`: there is no whole one.
    fn split(rest: &mut &'a [u8], chain: u64) -> Option<Self> {
        let (head, behind) = rest.split_at_checked(ENTRY_HEAD_BYTES)?;
        let length = u32::from_le_bytes(*head.first_chunk()?) as usize;
        let checksum = u64::from_le_bytes(*head.last_chunk()?);
        let (payload, behind) = behind.split_at_checked(length)?;
        if xxh3_64_with_seed(payload, chain) != checksum {
            return None;
        }
        let (stamp_len, payload) = payload.split_first_chunk()?;
        let stamp_len = u32::from_le_bytes(*stamp_len) as usize;
        let (stamp, payload) = payload.split_at_checked(stamp_len.min(MAX_STAMP_BYTES))?;
        let (added_len, payload) = payload.split_first_chunk()?;
        let records = payload.as_chunks().0;
        let added_len = u32::from_le_bytes(*added_len) as usize;
        let (added, removed) = records.split_at_checked(added_len)?;
        *rest = behind;
        Some(Self { stamp, added, removed, checksum })
    }
}

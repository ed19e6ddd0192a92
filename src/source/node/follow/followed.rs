//! One hour file as the follower knows it.
//!
//! Place in the pipeline: between `Follower`, which orders files, and `Tail`, which reads one.
//! Invariant: without its tail it holds only what a later look is compared with.

use std::{
    fs::Metadata,
    io,
    sync::Arc,
    time::{Instant, SystemTime},
};

use xxhash_rust::xxh3::xxh3_64;

use super::super::tail::{Inode, Tail};
use crate::{source::FileMark, stats::StreamStats};

/// One hour file. Without its tail it holds no more than this.
pub struct Followed {
    pub name: Arc<str>,
    /// Everything before was handed on.
    pub offset: u64,
    /// Of the bytes before `offset`.
    pub digest: u64,
    /// As it was when we last looked; `None` before the first look.
    pub seen: Option<Seen>,
    /// When it was last seen to change.
    pub changed_at: Instant,
    pub tail: Option<Tail>,
    /// Its path means another file or none: the open one is drained, then let go.
    pub displaced: Option<Displaced>,
    /// Its unfinished end was judged; done until it changes.
    pub finished: bool,
    /// Why it cannot be read; empty when it can.
    pub problem: Option<String>,
}

/// What a look at a file tells without reading it: other values mean that it has changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub size: u64,
    pub modified: Option<SystemTime>,
    pub inode: Inode,
}

/// Why the open file is not the one that its path means any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Displaced {
    Removed,
    Replaced,
}

/// What a look at a file brought.
pub struct Look {
    pub unread: bool,
    pub change: Option<Change>,
}

/// What happens to a file besides that it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is shorter, or holds other content, than what was read.
    Truncated,
    /// Another file has its name.
    Replaced,
    /// It is gone, and so is what nobody had read of it.
    RemovedUnread { lost_bytes: u64 },
    /// It is gone after it was read to its end.
    Pruned,
}

impl Followed {
    pub fn new(name: Arc<str>, offset: u64, digest: u64, now: Instant) -> Self {
        Self {
            name,
            offset,
            digest,
            seen: None,
            changed_at: now,
            tail: None,
            displaced: None,
            finished: false,
            problem: None,
        }
    }

    pub fn mark(&self) -> FileMark {
        FileMark::At { file: self.name.clone(), offset: self.offset, digest: self.digest }
    }

    /// Compares the file with how it was; tells whether it may hold something unread, and
    /// whether it became another one.
    pub fn look(
        &mut self,
        metadata: &Metadata,
        now: Instant,
        stats: &StreamStats,
    ) -> io::Result<Look> {
        if !metadata.is_file() {
            return Err(io::Error::other("not a file"));
        }
        let seen = Seen::of(metadata);
        // What could not be read is tried again at each rescan.
        let changed = self.seen != Some(seen) || self.problem.take().is_some();
        if changed {
            self.seen = Some(seen);
            self.changed_at = now;
            self.finished = false;
        }
        if let Some(tail) = &mut self.tail {
            if tail.inode() != seen.inode {
                let known = self.displaced.replace(Displaced::Replaced);
                let change = (known != self.displaced).then_some(Change::Replaced);
                if change.is_some() {
                    stats.replacements.add(1);
                }
                return Ok(Look { unread: true, change });
            }
            self.displaced = None;
            if !tail.check()? {
                stats.truncations.add(1);
                self.note_progress();
                stats.set_back(&self.name, self.offset);
                return Ok(Look { unread: true, change: Some(Change::Truncated) });
            }
            return Ok(Look { unread: seen.size != tail.position(), change: None });
        }
        Ok(Look { unread: changed, change: None })
    }

    /// Takes over where its tail stands.
    pub fn note_progress(&mut self) {
        if let Some(tail) = &self.tail
            && self.offset != tail.offset()
        {
            self.offset = tail.offset();
            self.digest = tail.digest();
        }
    }

    pub fn unfinished_bytes(&self) -> u64 {
        self.tail.as_ref().map_or(0, Tail::unfinished_bytes)
    }

    pub fn behind_bytes(&self) -> u64 {
        let position = self.tail.as_ref().map_or(self.offset, Tail::position);
        match self.seen {
            Some(seen) if !(self.finished && self.tail.is_none()) => {
                seen.size.saturating_sub(position)
            }
            _ => 0,
        }
    }
}

impl Seen {
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            modified: metadata.modified().ok(),
            inode: Inode::of(metadata),
        }
    }
}

/// The digest of offset 0.
pub fn digest_of_nothing() -> u64 {
    xxh3_64(&[])
}

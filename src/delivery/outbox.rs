//! The frames that wait for one client.
//!
//! Place in the pipeline: the shard and the session put shared frames in, the session's socket
//! takes them out. A plain type: it knows neither.
//! Invariants: bounded in bytes; what leaves is exactly the frames in their order, however the
//! socket cuts them; queued = sent + dropped + waiting, in frames.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
};

use bytes::Bytes;

use crate::stats::SessionStats;

/// Most frames of one write: the kernel's limit (`UIO_MAXIOV`).
const FRAMES_PER_WRITE: usize = 1_024;
/// Places for frames that an empty outbox may keep: a burst should not pin memory for ever.
const IDLE_CAPACITY: usize = 16;

/// The frame does not fit: the client takes too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What has happened since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub queued: u64,
    pub sent: u64,
    pub dropped: u64,
    pub sent_bytes: u64,
    pub writes: u64,
    /// How much more, or less, waits now.
    pub waiting_bytes: i64,
}

impl Tally {
    /// All workers share these counters, so what has not changed is not touched.
    pub fn count(&self, stats: &SessionStats) {
        for (counter, by) in [
            (&stats.frames_queued, self.queued),
            (&stats.frames_sent, self.sent),
            (&stats.frames_dropped, self.dropped),
            (&stats.sent_bytes, self.sent_bytes),
            (&stats.writes, self.writes),
        ] {
            if by > 0 {
                counter.add(by);
            }
        }
        if self.waiting_bytes != 0 {
            stats.outbox_bytes.add(self.waiting_bytes);
        }
    }
}

/// Frames that wait for the socket of one session, bounded in bytes.
#[derive(Debug)]
pub struct Outbox {
    max_bytes: usize,
    frames: VecDeque<Bytes>,
    /// How much of the first frame is written.
    written: usize,
    /// Of all frames, without what is written.
    bytes: usize,
    tally: Tally,
}

impl Outbox {
    pub fn new(max_bytes: usize) -> Self {
        let frames = VecDeque::new();
        Self { max_bytes, frames, written: 0, bytes: 0, tally: Tally::default() }
    }

    /// Queues a frame. One that is longer than the whole outbox fits when nothing else waits, as
    /// it could never be sent otherwise.
    ///
    /// # Errors
    /// [`Full`] when it does not fit; it is neither queued nor counted.
    pub fn push(&mut self, frame: Bytes) -> Result<(), Full> {
        if !self.fits(frame.len()) {
            return Err(Full);
        }
        self.force(frame);
        Ok(())
    }

    /// Whether a frame of this length finds room.
    pub fn fits(&self, len: usize) -> bool {
        self.bytes + len <= self.max_bytes || self.frames.is_empty()
    }

    /// Queues a frame beyond the limit: an answer, or the last ones of a session.
    pub fn force(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.tally.queued += 1;
        self.tally.waiting_bytes += frame.len() as i64;
        self.frames.push_back(frame);
    }

    /// Writes all that waits: one call of `write` when the socket takes it, the last one answering
    /// [`io::ErrorKind::WouldBlock`] when it does not. Gives whether nothing waits any more.
    ///
    /// # Errors
    /// Those of `write` that are neither `WouldBlock` nor `Interrupted`.
    pub fn write_to(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        while let Some(first) = self.frames.front() {
            let first = IoSlice::new(&first[self.written..]);
            let result = if self.frames.len() == 1 {
                write(&[first])
            } else {
                let others = self.frames.iter().skip(1).map(|frame| IoSlice::new(frame));
                let slices: Vec<_> =
                    std::iter::once(first).chain(others).take(FRAMES_PER_WRITE).collect();
                write(&slices)
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.frames.capacity() > IDLE_CAPACITY {
            self.frames = VecDeque::new();
        }
        Ok(true)
    }

    /// Drops what waits. A frame that is written in part stays: what follows it would be read as
    /// its rest.
    pub fn abandon(&mut self) {
        let keep = usize::from(self.written > 0);
        self.drop_behind(keep);
    }

    /// Drops everything: the socket is gone.
    pub fn clear(&mut self) {
        self.written = 0;
        self.drop_behind(0);
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes all frames at once. None of them may be written in part.
    pub fn take_all(&mut self) -> Vec<Bytes> {
        self.tally.writes += u64::from(!self.frames.is_empty());
        self.tally.sent += self.frames.len() as u64;
        self.tally.sent_bytes += self.bytes as u64;
        self.tally.waiting_bytes -= self.bytes as i64;
        self.bytes = 0;
        std::mem::take(&mut self.frames).into()
    }

    /// Gives what has happened since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    fn advance(&mut self, mut written: usize) {
        self.tally.writes += 1;
        self.bytes -= written;
        self.tally.sent_bytes += written as u64;
        self.tally.waiting_bytes -= written as i64;
        while let Some(first) = self.frames.front() {
            let left = first.len() - self.written;
            if written < left {
                self.written += written;
                return;
            }
            written -= left;
            self.written = 0;
            self.tally.sent += 1;
            self.frames.pop_front();
        }
    }

    fn drop_behind(&mut self, keep: usize) {
        self.tally.dropped += (self.frames.len() - keep) as u64;
        self.frames.truncate(keep);
        let left = self.frames.front().map_or(0, |first| first.len() - self.written);
        self.tally.waiting_bytes -= (self.bytes - left) as i64;
        self.bytes = left;
    }
}

#[cfg(test)]
mod tests;

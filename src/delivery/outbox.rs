//! The frames that wait for one client.
//!
//! Place in the pipeline: the shard and the session put shared frames in, the session's socket
//! takes them out. A plain type: it knows neither.
//! Invariants: bounded in bytes; what leaves is exactly the frames in their order, however the
//! socket cuts them; queued = sent + dropped + waiting, in frames; a bundle of which a part has left is taken
//! apart, so that nothing is kept that is not counted.

use std::{
    io::{self, IoSlice},
    rc::Rc,
};

use bytes::Bytes;
use smallvec::SmallVec;

use super::bundle::Bundle;
use crate::stats::SessionStats;

/// Most pieces of one write: the kernel's limit (`UIO_MAXIOV`).
const PIECES_PER_WRITE: usize = 1_024;
/// Places for pieces that an empty outbox may keep: a burst should not pin memory for ever.
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

/// A frame, or several that were queued as one.
#[derive(Debug)]
enum Piece {
    Frame(Bytes),
    Bundle(Rc<Bundle>),
}

// One lies in each session.
const _: () = assert!(size_of::<Piece>() == size_of::<Bytes>());

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Frame(frame) => frame,
            Self::Bundle(bundle) => bundle.bytes(),
        }
    }

    fn len(&self) -> usize {
        self.bytes().len()
    }

    /// How many frames it has.
    fn frames(&self) -> u64 {
        match self {
            Self::Frame(_) => 1,
            Self::Bundle(bundle) => bundle.frame_count() as u64,
        }
    }
}

/// Frames that wait for the socket of one session, bounded in bytes.
#[derive(Debug)]
pub struct Outbox {
    max_bytes: usize,
    /// Mostly there is one at a time: it costs no memory elsewhere, which would have to be fetched, too.
    pieces: SmallVec<[Piece; 1]>,
    /// How much of the first piece is written.
    written: usize,
    /// Of all pieces, without what is written.
    bytes: usize,
    tally: Tally,
}

impl Outbox {
    pub fn new(max_bytes: usize) -> Self {
        let pieces = SmallVec::new();
        Self { max_bytes, pieces, written: 0, bytes: 0, tally: Tally::default() }
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

    /// Queues frames in one piece.
    ///
    /// # Errors
    /// [`Full`] when not all of them fit; then none is queued or counted.
    pub fn push_bundle(&mut self, bundle: &Rc<Bundle>) -> Result<(), Full> {
        if !self.has_room(bundle.bytes().len()) {
            return Err(Full);
        }
        self.queue(Piece::Bundle(bundle.clone()));
        Ok(())
    }

    /// Whether a frame of this length may be queued.
    pub fn fits(&self, len: usize) -> bool {
        self.has_room(len) || self.pieces.is_empty()
    }

    /// Whether so many bytes are within the limit.
    pub fn has_room(&self, len: usize) -> bool {
        self.bytes + len <= self.max_bytes
    }

    /// Whether they would be if nothing else waited.
    pub fn could_hold(&self, len: usize) -> bool {
        len <= self.max_bytes
    }

    /// Queues a frame beyond the limit: an answer, or the last ones of a session.
    pub fn force(&mut self, frame: Bytes) {
        self.queue(Piece::Frame(frame));
    }

    fn queue(&mut self, piece: Piece) {
        self.bytes += piece.len();
        self.tally.queued += piece.frames();
        self.tally.waiting_bytes += piece.len() as i64;
        self.pieces.push(piece);
    }

    /// Writes all that waits: one call of `write` when the socket takes it, the last one answering
    /// [`io::ErrorKind::WouldBlock`] when it does not. Gives whether nothing waits any more.
    ///
    /// # Errors
    /// Those of `write` that are neither `WouldBlock` nor `Interrupted`.
    pub fn write_to(
        &mut self,
        write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        let written = self.write_pieces(write);
        self.unpack_begun();
        if self.pieces.is_empty() && self.pieces.capacity() > IDLE_CAPACITY {
            self.pieces = SmallVec::new();
        }
        written
    }

    fn write_pieces(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        while let Some(first) = self.pieces.first() {
            let first = IoSlice::new(&first.bytes()[self.written..]);
            let result = if self.pieces.len() == 1 {
                write(&[first])
            } else {
                let others = self.pieces.iter().skip(1).map(|piece| IoSlice::new(piece.bytes()));
                let slices: Vec<_> =
                    std::iter::once(first).chain(others).take(PIECES_PER_WRITE).collect();
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

    /// The length of the piece that is written next; 0 if there is none.
    pub fn next_len(&self) -> usize {
        self.pieces.first().map_or(0, Piece::len)
    }

    /// Takes all frames at once. None of them may be written in part.
    pub fn take_all(&mut self) -> Vec<Bytes> {
        let mut frames = Vec::with_capacity(self.pieces.len());
        for piece in std::mem::take(&mut self.pieces) {
            match piece {
                Piece::Frame(frame) => frames.push(frame),
                Piece::Bundle(bundle) => frames.extend(bundle.frames()),
            }
        }
        self.tally.writes += u64::from(!frames.is_empty());
        self.tally.sent += frames.len() as u64;
        self.tally.sent_bytes += self.bytes as u64;
        self.tally.waiting_bytes -= self.bytes as i64;
        self.bytes = 0;
        frames
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
        let mut whole = 0;
        for piece in &self.pieces {
            let left = piece.len() - self.written;
            if written < left {
                self.written += written;
                break;
            }
            written -= left;
            self.written = 0;
            self.tally.sent += piece.frames();
            whole += 1;
        }
        self.pieces.drain(..whole);
    }

    /// Takes a bundle apart that is written in part, as its client is slow or takes a chunk at a time. The frames
    /// that have left are sent; the others are copied, as the whole bundle would else be kept for the last of
    /// them.
    fn unpack_begun(&mut self) {
        let Some(Piece::Bundle(bundle)) = self.pieces.first().filter(|_| self.written > 0) else {
            return;
        };
        let (sent, bytes) = bundle.whole_frames(self.written);
        let left = bundle.frames().skip(sent).map(|frame| Bytes::copy_from_slice(&frame));
        let left: Vec<_> = left.map(Piece::Frame).collect();
        self.tally.sent += sent as u64;
        self.written -= bytes;
        self.pieces.remove(0);
        self.pieces.insert_many(0, left);
    }

    fn drop_behind(&mut self, keep: usize) {
        self.tally.dropped += self.pieces[keep..].iter().map(Piece::frames).sum::<u64>();
        self.pieces.truncate(keep);
        let left = self.pieces.first().map_or(0, |first| first.len() - self.written);
        self.tally.waiting_bytes -= (self.bytes - left) as i64;
        self.bytes = left;
    }
}

#[cfg(test)]
mod tests;

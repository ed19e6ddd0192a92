//! permessage-deflate (RFC 7692) without memory between messages: no session keeps a window.
//!
//! Place in the pipeline: what we write is compressed as a whole frame, once for all who negotiated it;
//! what clients write is inflated by their `Assembler` as it comes.
//! Invariants: nothing that is inflated exceeds its bound, by more than a byte or for a moment; the
//! working memory belongs to the thread, and to a session only while a compressed message of its client
//! is incomplete.

pub mod offer;

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{close::CloseReason, frame};
use crate::stats::SessionStats;

/// What a flush leaves at the end of a message, and the protocol leaves out.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// zlib's level. An event of 650 bytes becomes 410 by level 2, no less by level 6, and 550 by level 1,
/// which has no codes of its own for what it finds.
const LEVEL: Compression = Compression::new(2);
/// Room for what is compressed that a thread keeps.
const SCRATCH_BYTES: usize = 64 << 10;
/// Most bytes that are inflated at once.
const CHUNK_BYTES: usize = 4 << 10;

struct Packer {
    state: Compress,
    scratch: Vec<u8>,
}

thread_local! {
    static PACKER: RefCell<Packer> =
        RefCell::new(Packer { state: Compress::new(LEVEL, false), scratch: Vec::new() });
    /// For the next compressed message of any client of this thread.
    static SPARE: Cell<Option<Decompress>> = const { Cell::new(None) };
}

/// Compresses a whole frame of ours. None where that makes it no smaller, and for control frames, which
/// are never compressed.
pub fn pack(plain: &Bytes, stats: &SessionStats) -> Option<Bytes> {
    if frame::is_control(plain) {
        return None;
    }
    let packed = PACKER.with_borrow_mut(|packer| packer.pack(plain))?;
    stats.packed_frames.add(1);
    stats.packed_plain_bytes.add(plain.len() as u64);
    stats.packed_bytes.add(packed.len() as u64);
    Some(packed)
}

impl Packer {
    fn pack(&mut self, plain: &Bytes) -> Option<Bytes> {
        let payload = frame::payload(plain);
        self.state.reset();
        self.scratch.clear();
        // What finds no room in this has not become smaller.
        self.scratch.reserve(payload.len() + TAIL.len());
        let done = self.state.compress_vec(&payload, &mut self.scratch, FlushCompress::Sync);
        let is_whole = done.is_ok()
            && self.state.total_in() == payload.len() as u64
            // Else more of it could be waiting.
            && self.scratch.len() < self.scratch.capacity();
        let packed = self.scratch.strip_suffix(&TAIL).filter(|_| is_whole);
        let packed = packed.map(|packed| frame::packed(plain, packed));
        self.scratch.shrink_to(SCRATCH_BYTES);
        packed.filter(|packed| packed.len() < plain.len())
    }
}

/// Inflates one message.
#[derive(Debug)]
pub struct Inflater(Decompress);

impl Inflater {
    pub fn new() -> Self {
        Self(SPARE.take().unwrap_or_else(|| Decompress::new(false)))
    }

    /// Appends what these bytes inflate to.
    ///
    /// # Errors
    /// [`CloseReason::TooBig`] as soon as `out` would hold more than `max_bytes`;
    /// [`CloseReason::NotDeflate`] where nothing can be made of it.
    pub fn inflate(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        max_bytes: usize,
    ) -> Result<(), CloseReason> {
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            let (read_before, made_before) = (self.0.total_in(), self.0.total_out());
            // One byte more than may be tells that there is more.
            let room = CHUNK_BYTES.min(max_bytes - out.len() + 1);
            let status = self.0.decompress(bytes, &mut chunk[..room], FlushDecompress::Sync);
            let status = status.map_err(|_| CloseReason::NotDeflate)?;
            let read = (self.0.total_in() - read_before) as usize;
            let made = (self.0.total_out() - made_before) as usize;
            bytes = &bytes[read..];
            if made > max_bytes - out.len() {
                return Err(CloseReason::TooBig);
            }
            frame::append(out, &chunk[..made], max_bytes);
            match status {
                // A client may end its data within a message, and begin anew (RFC 7692, 7.2.3.4).
                Status::StreamEnd => self.0.reset(false),
                // There may be more where this came from.
                _ if made == room => continue,
                _ if read == 0 && !bytes.is_empty() => return Err(CloseReason::NotDeflate),
                _ => {}
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Inflates the end of a message.
    ///
    /// # Errors
    /// As [`inflate`](Self::inflate).
    pub fn finish(mut self, out: &mut Vec<u8>, max_bytes: usize) -> Result<(), CloseReason> {
        self.inflate(&TAIL, out, max_bytes)?;
        self.0.reset(false);
        SPARE.set(Some(self.0));
        Ok(())
    }
}

#[cfg(test)]
mod tests;

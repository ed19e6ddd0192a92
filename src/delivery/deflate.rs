//! permessage-deflate (RFC 7692) without memory between messages: no session keeps a window.
//!
//! Place in the pipeline: what we write is compressed as a whole frame, once for all who negotiated it;
//! what clients write is inflated by their `Assembler` when a message is whole. Until then what they have
//! sent is held as it came, so that a client cannot make us hold a megabyte by sending a kilobyte.
//! Invariants: nothing that is inflated exceeds its bound, not for a moment; the working memory belongs to
//! the thread.

pub mod offer;

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{close::CloseReason, frame};
use crate::stats::SessionStats;

/// What a flush leaves at the end of a message, and the protocol leaves out.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// zlib's level. Frames of real fills, 609 bytes on average, become 355 in 10 us by level 2 and 353 by
/// level 6; 454 in 3 us by level 1, which has no codes of its own for what it finds.
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
    static INFLATER: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// Compresses a whole frame of ours. None where that makes it no smaller, and for control frames, which
/// are never compressed, and several frames in one piece.
pub fn pack(plain: &Bytes, stats: &SessionStats) -> Option<Bytes> {
    if frame::is_control(plain) || !frame::is_one(plain) {
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

/// Inflates a whole message.
///
/// # Errors
/// [`CloseReason::TooBig`] as soon as more than `max_bytes` come of it; [`CloseReason::NotDeflate`] where
/// nothing can be made of it.
pub fn inflate(packed: &[u8], max_bytes: usize) -> Result<Vec<u8>, CloseReason> {
    INFLATER.with_borrow_mut(|state| {
        state.reset(false);
        let mut plain = Vec::new();
        append_inflated(state, packed, &mut plain, max_bytes)?;
        append_inflated(state, &TAIL, &mut plain, max_bytes)?;
        Ok(plain)
    })
}

fn append_inflated(
    state: &mut Decompress,
    mut packed: &[u8],
    plain: &mut Vec<u8>,
    max_bytes: usize,
) -> Result<(), CloseReason> {
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        let (read_before, made_before) = (state.total_in(), state.total_out());
        // One byte more than may be tells that there is more.
        let room = CHUNK_BYTES.min(max_bytes - plain.len() + 1);
        let status = state.decompress(packed, &mut chunk[..room], FlushDecompress::Sync);
        let status = status.map_err(|_| CloseReason::NotDeflate)?;
        let read = (state.total_in() - read_before) as usize;
        let made = (state.total_out() - made_before) as usize;
        packed = &packed[read..];
        if made > max_bytes - plain.len() {
            return Err(CloseReason::TooBig);
        }
        frame::append(plain, &chunk[..made], max_bytes);
        match status {
            // A client may end its data within a message, and begin anew (RFC 7692, 7.2.3.4).
            Status::StreamEnd => state.reset(false),
            // There may be more where this came from.
            _ if made == room => continue,
            _ if read == 0 && !packed.is_empty() => return Err(CloseReason::NotDeflate),
            _ => {}
        }
        if packed.is_empty() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;

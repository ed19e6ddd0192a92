//! WebSocket frames: what we write, encoded once, and what clients write, joined and checked.
//!
//! Place in the pipeline: below `Session`; knows bytes only.
//! Invariant: what is made here is one whole frame, so that it can be shared and queued as it is.

mod assembler;

use bytes::Bytes;

pub(super) use self::assembler::append;
pub use self::assembler::{Assembler, Inbound};

const TEXT: u8 = 0x1;
#[cfg(feature = "echo")]
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const FINISHED: u8 = 0x80;
/// RSV1: on the first frame of a compressed message (RFC 7692).
const PACKED: u8 = 0x40;

/// Longest header of a frame from us: frames from servers carry no mask.
const HEADER_BYTES: usize = 10;
/// Longest payload of a control frame.
const CONTROL_BYTES: usize = 125;

/// Makes a text frame of what `write` appends: header and payload are one allocation.
pub fn text(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    message(FINISHED | TEXT, write)
}

/// Makes a binary frame. No protocol of ours has any.
#[cfg(feature = "echo")]
pub fn binary(content: &[u8]) -> Bytes {
    message(FINISHED | BINARY, |out| out.extend_from_slice(content))
}

fn message(first: u8, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut buffer = vec![0; HEADER_BYTES];
    write(&mut buffer);
    let length = buffer.len() - HEADER_BYTES;
    let mut header = [0; HEADER_BYTES];
    header[0] = first;
    let used = if length <= CONTROL_BYTES {
        header[1] = length as u8;
        2
    } else if let Ok(short) = u16::try_from(length) {
        header[1] = 126;
        header[2..4].copy_from_slice(&short.to_be_bytes());
        4
    } else {
        header[1] = 127;
        header[2..].copy_from_slice(&(length as u64).to_be_bytes());
        10
    };
    let start = HEADER_BYTES - used;
    buffer[start..HEADER_BYTES].copy_from_slice(&header[..used]);
    Bytes::from(buffer).slice(start..)
}

/// What is in a whole frame of ours.
pub fn payload(frame: &Bytes) -> Bytes {
    let start = match frame[1] {
        126 => 4,
        127 => HEADER_BYTES,
        _ => 2,
    };
    frame.slice(start..)
}

/// The same frame with its content compressed.
pub fn packed(plain: &Bytes, content: &[u8]) -> Bytes {
    message(plain[0] | PACKED, |out| out.extend_from_slice(content))
}

/// Whether these bytes are one frame and not several of them.
pub fn is_one(frames: &Bytes) -> bool {
    let length = match frames[1] {
        126 => u64::from(u16::from_be_bytes([frames[2], frames[3]])),
        127 => u64::from_be_bytes(std::array::from_fn(|at| frames[2 + at])),
        short => short.into(),
    };
    payload(frames).len() as u64 == length
}

pub fn is_control(frame: &Bytes) -> bool {
    frame[0] & 0x0f >= CLOSE
}

pub fn ping() -> Bytes {
    Bytes::from_static(&[FINISHED | PING, 0])
}

pub fn pong(payload: &[u8]) -> Bytes {
    control(PONG, payload)
}

pub fn close(code: Option<u16>, text: &str) -> Bytes {
    let mut payload = Vec::new();
    if let Some(code) = code {
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(text.as_bytes());
    }
    control(CLOSE, &payload)
}

fn control(opcode: u8, payload: &[u8]) -> Bytes {
    debug_assert!(payload.len() <= CONTROL_BYTES);
    let mut frame = Vec::with_capacity(2 + payload.len());
    frame.extend_from_slice(&[FINISHED | opcode, payload.len() as u8]);
    frame.extend_from_slice(payload);
    frame.into()
}

#[cfg(test)]
mod tests;

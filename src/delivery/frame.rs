//! WebSocket frames: what we write, encoded once, and what clients write, joined and checked.
//!
//! Place in the pipeline: below `Session`; knows bytes only.
//! Invariants: a message is never longer than its cap, however many fragments it has; its length is
//! checked when its header is there, so that no client makes us wait for, or hold, what we refuse.

use actix_http::ws::Parser;
use bytes::{Bytes, BytesMut};

use super::close::CloseReason;

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const FINISHED: u8 = 0x80;

/// Longest header of a frame from us: frames from servers carry no mask.
const HEADER_BYTES: usize = 10;
/// Longest payload of a control frame.
const CONTROL_BYTES: usize = 125;

/// Makes a text frame of what `write` appends: header and payload are one allocation.
pub fn text(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut buffer = vec![0; HEADER_BYTES];
    write(&mut buffer);
    let length = buffer.len() - HEADER_BYTES;
    let mut header = [0; HEADER_BYTES];
    header[0] = FINISHED | TEXT;
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

/// What a client said.
#[derive(Debug, PartialEq, Eq)]
pub enum Inbound {
    Text(String),
    Binary,
    Ping(Bytes),
    Pong,
    Close(Option<u16>),
}

/// Joins a client's frames to messages.
#[derive(Debug)]
pub struct Assembler {
    max_message_bytes: usize,
    /// The message of which the last fragment is still to come.
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    is_text: bool,
    payload: Vec<u8>,
}

/// The parts of a header that are looked at before the payload is there.
struct Header {
    finished: bool,
    opcode: u8,
    /// Of the whole frame.
    frame_bytes: usize,
}

impl Assembler {
    pub fn new(max_message_bytes: usize) -> Self {
        Self { max_message_bytes, partial: None }
    }

    /// Takes the next message from the front of `buffer`; `None` until more bytes are there.
    ///
    /// # Errors
    /// The reason for which the session has to close.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Inbound>, CloseReason> {
        while let Some(header) = self.header(buffer)? {
            if buffer.len() < header.frame_bytes {
                return Ok(None);
            }
            // What the header says has been checked; the parser takes the mask off.
            let (_, _, payload) = match Parser::parse(buffer, true, usize::MAX) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(None),
                Err(_) => return Err(CloseReason::Protocol("malformed frame")),
            };
            let message = self.frame(&header, payload.unwrap_or_default())?;
            if message.is_some() {
                return Ok(message);
            }
        }
        Ok(None)
    }

    fn header(&self, buffer: &[u8]) -> Result<Option<Header>, CloseReason> {
        let &[first, second, ref rest @ ..] = buffer else { return Ok(None) };
        let (finished, opcode) = (first & FINISHED != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err(CloseReason::Protocol("the reserved bits are set"));
        }
        if second & 0x80 == 0 {
            return Err(CloseReason::Protocol("frames of clients carry a mask"));
        }
        let (extended, length) = match (second & 0x7f, rest) {
            (126, &[a, b, ..]) => (2, u64::from(u16::from_be_bytes([a, b]))),
            (127, rest) if rest.len() >= 8 => {
                (8, rest[..8].iter().fold(0, |length, &byte| length << 8 | u64::from(byte)))
            }
            (126 | 127, _) if opcode < CLOSE => return Ok(None),
            (short, _) => (0, u64::from(short)),
        };
        match opcode {
            0 if self.partial.is_none() => {
                return Err(CloseReason::Protocol("a continuation without a beginning"));
            }
            1 | 2 if self.partial.is_some() => {
                return Err(CloseReason::Protocol("a new message inside of a message"));
            }
            0..=2 => {
                let held = self.partial.as_ref().map_or(0, |partial| partial.payload.len());
                if length > (self.max_message_bytes - held) as u64 {
                    return Err(CloseReason::TooBig);
                }
            }
            CLOSE..=PONG if !finished || second & 0x7f > CONTROL_BYTES as u8 => {
                return Err(CloseReason::Protocol("a control frame is short and whole"));
            }
            CLOSE..=PONG => {}
            _ => return Err(CloseReason::Protocol("unknown opcode")),
        }
        // Two bytes, the extended length, the mask. The length is capped above.
        let frame_bytes = 2 + extended + 4 + length as usize;
        Ok(Some(Header { finished, opcode, frame_bytes }))
    }

    fn frame(
        &mut self,
        header: &Header,
        payload: BytesMut,
    ) -> Result<Option<Inbound>, CloseReason> {
        match header.opcode {
            PING => return Ok(Some(Inbound::Ping(payload.freeze()))),
            PONG => return Ok(Some(Inbound::Pong)),
            CLOSE => return closed(&payload).map(Some),
            _ => {}
        }
        let mut message = self
            .partial
            .take()
            .unwrap_or_else(|| Partial { is_text: header.opcode == TEXT, payload: Vec::new() });
        message.payload.extend_from_slice(&payload);
        if !header.finished {
            self.partial = Some(message);
            return Ok(None);
        }
        if !message.is_text {
            return Ok(Some(Inbound::Binary));
        }
        // Over the whole message: a character may be spread over two fragments.
        let text = String::from_utf8(message.payload).map_err(|_| CloseReason::NotUtf8)?;
        Ok(Some(Inbound::Text(text)))
    }
}

fn closed(payload: &[u8]) -> Result<Inbound, CloseReason> {
    if payload.get(2..).is_some_and(|reason| std::str::from_utf8(reason).is_err()) {
        return Err(CloseReason::NotUtf8);
    }
    match Parser::try_parse_close_payload(payload) {
        Ok(reason) => Ok(Inbound::Close(reason.map(|reason| reason.code.into()))),
        Err(_) => Err(CloseReason::Protocol("a close code that nobody may send")),
    }
}

#[cfg(test)]
mod tests;

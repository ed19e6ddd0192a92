//! Joins what a client writes to messages.
//!
//! Place in the pipeline: bytes of the socket -> **`Assembler`** -> `Session`.
//! Invariants: a message is never longer than its cap, on the wire and inflated, however many fragments
//! it has; what breaks the protocol is found by the first byte that shows it: a header before its
//! payload, a text that is no UTF-8 before its end. Bytes of a payload are held once: they leave the
//! buffer as they come.

use bytes::{Buf, Bytes, BytesMut};

use super::{CLOSE, CONTROL_BYTES, FINISHED, PACKED, PING, PONG, TEXT};
use crate::delivery::{close::CloseReason, deflate};

/// What a client said.
#[derive(Debug, PartialEq, Eq)]
pub enum Inbound {
    Text(String),
    Binary(Vec<u8>),
    Ping(Bytes),
    Pong,
    Close(Option<u16>),
}

/// Joins a client's frames to messages.
#[derive(Debug)]
pub struct Assembler {
    max_message_bytes: usize,
    /// Whether messages may be compressed.
    inflates: bool,
    /// The message of which something is still to come. Idle sessions have none.
    partial: Option<Box<Partial>>,
}

#[derive(Debug)]
struct Partial {
    is_text: bool,
    payload: Vec<u8>,
    /// Compressed: inflated when it is whole.
    is_packed: bool,
    /// So many bytes of a text are known to be UTF-8.
    checked: usize,
    /// The frame that is being read; none between two fragments.
    frame: Option<Fragment>,
}

/// A frame of a message, without its header.
#[derive(Debug)]
struct Fragment {
    finished: bool,
    /// For the next byte first.
    mask: [u8; 4],
    /// Bytes that are still to come.
    left: usize,
}

/// The parts of a header that can be read as yet.
struct Header {
    finished: bool,
    packed: bool,
    reserved: bool,
    opcode: u8,
    masked: bool,
    /// The seven bits: the length itself, or in how many bytes it follows.
    short: u8,
    /// Of the payload. None until it is there.
    length: Option<u64>,
    /// Of the header with its mask.
    bytes: usize,
}

impl Assembler {
    pub fn new(max_message_bytes: usize) -> Self {
        Self { max_message_bytes, inflates: false, partial: None }
    }

    /// Takes compressed messages too, or not.
    pub fn inflating(self, inflates: bool) -> Self {
        Self { inflates, ..self }
    }

    /// Memory that the beginning of a message takes.
    pub fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.payload.capacity())
    }

    /// Takes the next message from the front of `buffer`; `None` until more bytes are there.
    ///
    /// # Errors
    /// The reason for which the session has to close. What follows has no meaning then.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Inbound>, CloseReason> {
        let next = self.advance(buffer);
        if next.is_err() {
            self.partial = None;
        }
        next
    }

    fn advance(&mut self, buffer: &mut BytesMut) -> Result<Option<Inbound>, CloseReason> {
        loop {
            if let Some(partial) = &mut self.partial
                && let Some(frame) = partial.frame.take()
            {
                match partial.read(frame, buffer, self.max_message_bytes)? {
                    Read::Part => return Ok(None),
                    Read::Fragment => {}
                    Read::Message => {
                        let max_bytes = self.max_message_bytes;
                        let whole = self.partial.take();
                        return whole.map(|message| message.finish(max_bytes)).transpose();
                    }
                }
            }
            let Some(header) = Header::read(buffer) else { return Ok(None) };
            self.check(&header)?;
            let Some(length) = header.length.filter(|_| buffer.len() >= header.bytes) else {
                return Ok(None);
            };
            // It is capped.
            let length = length as usize;
            let mut mask = [0; 4];
            mask.copy_from_slice(&buffer[header.bytes - 4..header.bytes]);
            if header.opcode >= CLOSE {
                if buffer.len() < header.bytes + length {
                    return Ok(None);
                }
                buffer.advance(header.bytes);
                let mut payload = buffer.split_to(length);
                unmask(&mut payload, &mut mask);
                return control(header.opcode, payload.freeze()).map(Some);
            }
            buffer.advance(header.bytes);
            let partial = self.partial.get_or_insert_with(|| Box::new(Partial::new(&header)));
            partial.frame = Some(Fragment { finished: header.finished, mask, left: length });
        }
    }

    /// Says what is wrong with a header as soon as that is there.
    fn check(&self, header: &Header) -> Result<(), CloseReason> {
        let may_be_packed = self.inflates && matches!(header.opcode, 1 | 2);
        if header.reserved || (header.packed && !may_be_packed) {
            return Err(CloseReason::Protocol("the reserved bits are set"));
        }
        if !header.masked {
            return Err(CloseReason::Protocol("frames of clients carry a mask"));
        }
        match header.opcode {
            0 if self.partial.is_none() => {
                return Err(CloseReason::Protocol("a continuation without a beginning"));
            }
            1 | 2 if self.partial.is_some() => {
                return Err(CloseReason::Protocol("a new message inside of a message"));
            }
            0..=2 => {}
            CLOSE..=PONG if !header.finished || header.short > CONTROL_BYTES as u8 => {
                return Err(CloseReason::Protocol("a control frame is short and whole"));
            }
            CLOSE..=PONG => {}
            _ => return Err(CloseReason::Protocol("unknown opcode")),
        }
        let Some(length) = header.length else { return Ok(()) };
        let held = self.partial.as_ref().map_or(0, |partial| partial.payload.len());
        if header.opcode < CLOSE && length > (self.max_message_bytes - held) as u64 {
            return Err(CloseReason::TooBig);
        }
        let shortest = match header.short {
            126 => 126,
            127 => 1 << 16,
            _ => 0,
        };
        if length < shortest {
            return Err(CloseReason::Protocol("a length is written as short as it can be"));
        }
        Ok(())
    }
}

impl Header {
    /// Reads what is there of a header, from its first two bytes on.
    fn read(buffer: &[u8]) -> Option<Self> {
        let &[first, second, ref rest @ ..] = buffer else { return None };
        let short = second & 0x7f;
        let (extended, length) = match short {
            126 => (2, rest.first_chunk().map(|bytes| u64::from(u16::from_be_bytes(*bytes)))),
            127 => (8, rest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))),
            length => (0, Some(u64::from(length))),
        };
        Some(Self {
            finished: first & FINISHED != 0,
            packed: first & PACKED != 0,
            reserved: first & 0x30 != 0,
            opcode: first & 0x0f,
            masked: second & 0x80 != 0,
            short,
            length,
            bytes: 2 + extended + 4,
        })
    }
}

/// How far a frame was read.
enum Read {
    /// More of it has to come.
    Part,
    /// To its end; more fragments follow.
    Fragment,
    /// It was the last one of its message.
    Message,
}

impl Partial {
    fn new(header: &Header) -> Self {
        Self {
            is_text: header.opcode == TEXT,
            payload: Vec::new(),
            is_packed: header.packed,
            checked: 0,
            frame: None,
        }
    }

    /// Takes what is there of a frame's payload.
    fn read(
        &mut self,
        mut frame: Fragment,
        buffer: &mut BytesMut,
        max_bytes: usize,
    ) -> Result<Read, CloseReason> {
        let here = frame.left.min(buffer.len());
        unmask(&mut buffer[..here], &mut frame.mask);
        append(&mut self.payload, &buffer[..here], max_bytes);
        buffer.advance(here);
        frame.left -= here;
        self.check_text()?;
        Ok(if frame.left > 0 {
            self.frame = Some(frame);
            Read::Part
        } else if frame.finished {
            Read::Message
        } else {
            Read::Fragment
        })
    }

    /// Refuses a text by the first byte that cannot be UTF-8. A character may be cut by what has come.
    fn check_text(&mut self) -> Result<(), CloseReason> {
        if self.is_text && !self.is_packed {
            self.checked += match std::str::from_utf8(&self.payload[self.checked..]) {
                Ok(text) => text.len(),
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                Err(_) => return Err(CloseReason::NotUtf8),
            };
        }
        Ok(())
    }

    fn finish(mut self, max_bytes: usize) -> Result<Inbound, CloseReason> {
        if self.is_packed {
            self.payload = deflate::inflate(&self.payload, max_bytes)?;
        }
        if !self.is_text {
            return Ok(Inbound::Binary(self.payload));
        }
        // Of a plain one all but a character that is cut by the end was found to be valid already.
        String::from_utf8(self.payload).map(Inbound::Text).map_err(|_| CloseReason::NotUtf8)
    }
}

/// Grows as a `Vec` does, but never beyond the cap.
pub fn append(payload: &mut Vec<u8>, bytes: &[u8], max_bytes: usize) {
    let length = payload.len() + bytes.len();
    if length > payload.capacity() {
        let capacity = (2 * payload.capacity()).min(max_bytes).max(length);
        payload.reserve_exact(capacity - payload.len());
    }
    payload.extend_from_slice(bytes);
}

/// Takes a mask off, and turns it to where the next bytes go on.
fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let word = u32::from_ne_bytes(*mask);
    let (words, rest) = bytes.as_chunks_mut();
    for four in words {
        *four = (u32::from_ne_bytes(*four) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(*mask) {
        *byte ^= mask;
    }
    mask.rotate_left(rest.len());
}

fn control(opcode: u8, payload: Bytes) -> Result<Inbound, CloseReason> {
    Ok(match opcode {
        PING => Inbound::Ping(payload),
        PONG => Inbound::Pong,
        _ => return closed(&payload),
    })
}

fn closed(payload: &[u8]) -> Result<Inbound, CloseReason> {
    let code = match payload {
        [] => return Ok(Inbound::Close(None)),
        [_] => return Err(CloseReason::Protocol("a close code has two bytes")),
        &[high, low, ..] => u16::from_be_bytes([high, low]),
    };
    // Those of the registry, of libraries and of applications. 1004 to 1006 and 1015 are only ever said
    // within a program (RFC 6455, 7.4).
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(CloseReason::Protocol("a close code that nobody may send"));
    }
    match std::str::from_utf8(&payload[2..]) {
        Ok(_reason) => Ok(Inbound::Close(Some(code))),
        Err(_) => Err(CloseReason::NotUtf8),
    }
}

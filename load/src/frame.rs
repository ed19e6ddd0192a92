//! The WebSocket frames of a server, as cheaply as they can be counted, and those that a client sends.
//!
//! Invariant: nothing is copied and no JSON is parsed; the driver must not be what is measured.

use std::ops::Range;

use memchr::memmem;

pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// What the protocol forbids a server, or what this server never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of the server is masked")]
    Masked,
    #[error("a frame is a fragment or has reserved bits")]
    NotWhole,
    #[error("a frame of {0} bytes is longer than the driver reads at once")]
    TooLong(u64),
}

/// A whole frame at the beginning of what was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Range<usize>,
}

/// Finds the frame with which `bytes` begin; `None` while it is not whole.
///
/// # Errors
/// See [`FrameError`]; `max` is the longest frame that can ever be whole.
pub fn first(bytes: &[u8], max: usize) -> Result<Option<Frame>, FrameError> {
    let [head, length, rest @ ..] = bytes else { return Ok(None) };
    if head & 0xf0 != 0x80 {
        return Err(FrameError::NotWhole);
    }
    if length & 0x80 != 0 {
        return Err(FrameError::Masked);
    }
    let (start, len) = match length {
        126 => match rest.first_chunk() {
            Some(&len) => (4, u64::from(u16::from_be_bytes(len))),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(&len) => (10, u64::from_be_bytes(len)),
            None => return Ok(None),
        },
        &len => (2, u64::from(len)),
    };
    if len > (max - start) as u64 {
        return Err(FrameError::TooLong(len));
    }
    let end = start + len as usize;
    Ok((bytes.len() >= end).then_some(Frame { opcode: head & 0x0f, payload: start..end }))
}

/// A frame of a client: masked, as all of them must be. The key is constant, as nothing between
/// here and the server has to be protected.
pub fn of_client(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = head(opcode, payload.len(), 0x80);
    frame.extend_from_slice(&KEY);
    frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A frame of a server.
pub fn of_server(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(opcode, payload.len(), 0);
    frame.extend_from_slice(payload);
    frame
}

fn head(opcode: u8, len: usize, mask: u8) -> Vec<u8> {
    let mut head = vec![0x80 | opcode];
    match len {
        0..126 => head.push(mask | len as u8),
        126..65_536 => {
            head.push(mask | 126);
            head.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            head.push(mask | 127);
            head.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    head
}

/// What a message is, by the first letters of its type or channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Event,
    Hello,
    Ack,
    Live,
    Heartbeat,
    Gap,
    Error,
    Bye,
    Other,
}

/// Every message begins with `{"type":"`, see docs/protocol.md.
pub fn kind(payload: &[u8]) -> Kind {
    match payload.strip_prefix(br#"{"type":""#) {
        Some([b'e', b'v', ..]) => Kind::Event,
        Some([b'h', b'e', b'a', ..]) => Kind::Heartbeat,
        Some([b'h', b'e', b'l', ..]) => Kind::Hello,
        Some([b'a', b'c', ..]) => Kind::Ack,
        Some([b'l', b'i', ..]) => Kind::Live,
        Some([b'g', b'a', ..]) => Kind::Gap,
        Some([b'e', b'r', ..]) => Kind::Error,
        Some([b'b', b'y', ..]) => Kind::Bye,
        _ => Kind::Other,
    }
}

/// Every message of the official protocol begins with `{"channel":"`, see docs/official.md.
pub fn official_kind(payload: &[u8]) -> Kind {
    match payload.strip_prefix(br#"{"channel":""#) {
        Some([b'u', ..]) => Kind::Event,
        Some([b's', b'u', ..]) => Kind::Ack,
        Some([b's', b't', ..]) if payload.starts_with(LIVE) => Kind::Live,
        Some([b's', b't', ..]) => Kind::Heartbeat,
        Some([b'g', ..]) => Kind::Gap,
        Some([b'e', ..]) => Kind::Error,
        _ => Kind::Other,
    }
}

const LIVE: &[u8] = br#"{"channel":"status","data":{"live":true"#;

/// Finds block and index of an event. `hint` is where the field began in the frame before, which is
/// nearly always where it begins in this one.
pub fn place(payload: &[u8], hint: &mut usize) -> Option<(u64, u64)> {
    const BLOCK: &[u8] = br#""block":"#;
    const INDEX: &[u8] = br#","index":"#;
    if !payload.get(*hint..).is_some_and(|rest| rest.starts_with(BLOCK)) {
        *hint = memmem::find(payload, BLOCK)?;
    }
    let (block, rest) = number(&payload[*hint + BLOCK.len()..])?;
    let (index, _) = number(rest.strip_prefix(INDEX)?)?;
    Some((block, index))
}

/// Finds the cursor of a message.
pub fn cursor(payload: &[u8]) -> Option<&str> {
    const CURSOR: &[u8] = br#""cursor":""#;
    let start = memmem::find(payload, CURSOR)? + CURSOR.len();
    let len = memchr::memchr(b'"', &payload[start..])?;
    std::str::from_utf8(&payload[start..start + len]).ok()
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = text.get(..len).filter(|digits| !digits.is_empty())?;
    let value = digits.iter().fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0'));
    Some((value, &text[len..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 17;

    #[test]
    fn frames_of_every_length_are_found_whole_and_never_early() {
        for len in [0, 1, 125, 126, 127, 300, 65_535, 65_536, 70_000] {
            let frame = of_server(TEXT, &vec![b'x'; len]);
            for cut in [0, 1, 2, 3, 5, frame.len() - 1] {
                assert_eq!(first(&frame[..cut.min(frame.len() - 1)], MAX), Ok(None), "{len} {cut}");
            }

            let found = first(&frame, MAX).unwrap().unwrap();

            assert_eq!(found, Frame { opcode: TEXT, payload: frame.len() - len..frame.len() });
        }
    }

    #[test]
    fn any_cut_of_a_stream_gives_the_same_frames() {
        let mut random = fastrand::Rng::with_seed(3);
        let lens: Vec<usize> = (0..200).map(|_| random.usize(0..700)).collect();
        let stream: Vec<u8> =
            lens.iter().flat_map(|&len| of_server(TEXT, &vec![b'y'; len])).collect();
        for _ in 0..50 {
            let (mut read, mut begin, mut found) = (0, 0, Vec::new());
            while read < stream.len() {
                read = (read + random.usize(1..2_000)).min(stream.len());
                while let Some(frame) = first(&stream[begin..read], MAX).unwrap() {
                    found.push(frame.payload.len());
                    begin += frame.payload.end;
                }
            }
            assert_eq!(found, lens);
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_an_error() {
        assert_eq!(first(&of_client(TEXT, b"x"), MAX), Err(FrameError::Masked));
        assert_eq!(first(&[0x01, 0x00], MAX), Err(FrameError::NotWhole));
        assert_eq!(first(&[0xc1, 0x00], MAX), Err(FrameError::NotWhole));
        assert_eq!(first(&of_server(TEXT, &[0; 200]), 100), Err(FrameError::TooLong(200)));
    }

    #[test]
    fn a_masked_frame_gives_its_payload_back() {
        let frame = of_client(TEXT, b"subscribe");

        let key = &frame[2..6];
        let payload: Vec<u8> =
            frame[6..].iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();

        assert_eq!((frame[0], frame[1], &*payload), (0x81, 0x89, &b"subscribe"[..]));
    }

    #[test]
    fn block_and_index_are_found_wherever_they_stand() {
        let mut hint = 0;
        let event = br#"{"type":"event","seq":17,"block":923950857,"index":31,"part":0,"data":{}}"#;
        let longer = br#"{"type":"event","seq":1773,"block":923950858,"index":0,"part":0}"#;

        assert_eq!(place(event, &mut hint), Some((923_950_857, 31)));
        assert_eq!(place(longer, &mut hint), Some((923_950_858, 0)));
        assert_eq!(place(br#"{"type":"event","block":"#, &mut hint), None);
        assert_eq!(place(br#"{"type":"heartbeat"}"#, &mut hint), None);
    }

    #[test]
    fn messages_are_told_apart_by_their_first_letters() {
        let kinds = [
            ("event", Kind::Event),
            ("error", Kind::Error),
            ("heartbeat", Kind::Heartbeat),
            ("hello", Kind::Hello),
            ("ack", Kind::Ack),
            ("live", Kind::Live),
            ("gap", Kind::Gap),
            ("bye", Kind::Bye),
            ("pong", Kind::Other),
        ];
        for (name, wanted) in kinds {
            assert_eq!(kind(format!(r#"{{"type":"{name}","x":1}}"#).as_bytes()), wanted);
        }
        assert_eq!(kind(b""), Kind::Other);
    }

    #[test]
    fn messages_of_the_official_protocol_are_told_apart() {
        for (text, wanted) in [
            (r#"userFills","data":{}}"#, Kind::Event),
            (r#"subscriptionResponse","data":{}}"#, Kind::Ack),
            (r#"status","data":{"live":true,"cursor":""}}"#, Kind::Live),
            (r#"status","data":{"cursor":""}}"#, Kind::Heartbeat),
            (r#"gap","data":{}}"#, Kind::Gap),
            (r#"error","data":""}"#, Kind::Error),
            (r#"pong"}"#, Kind::Other),
        ] {
            assert_eq!(official_kind(format!(r#"{{"channel":"{text}"#).as_bytes()), wanted);
        }
        assert_eq!(official_kind(b""), Kind::Other);
    }

    #[test]
    fn a_cursor_is_found_or_there_is_none() {
        assert_eq!(cursor(br#"{"type":"ack","cursor":"1.5f.64-7","id":"s"}"#), Some("1.5f.64-7"));
        assert_eq!(cursor(br#"{"type":"ack","id":"s"}"#), None);
        assert_eq!(cursor(br#"{"type":"ack","cursor":"1.5f"#), None);
    }
}

//! What must hold for any bytes from outside: the bodies of the fuzz targets.
//!
//! Place: called with endless bytes by the targets in `fuzz_targets`, and with `seeds` by
//! `tests/fuzz_seeds.rs` of nodecast, which includes this file; so it compiles without a fuzzer
//! and is checked on every run of the tests.
//! Invariant: a body panics exactly when nodecast has a fault.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use nodecast::{
    config::SessionConfig,
    delivery::{
        CloseReason,
        dialect::{Desk, Door, Found, Lookup},
        frame::{Assembler, Inbound},
        replay::Start,
        subscription::Subscriptions,
    },
    event::{Cursor, Timestamp, Topic},
    official::{Admission, info::Newest},
    source::{
        BodyPlace, Form, Horizon,
        node::{
            FILLS, MISC,
            recover::{LineOutcome, LineParser, ParsedLines},
        },
    },
    stats::Stats,
};

/// 15 March 2026, the day of the seeds.
const NOW: Timestamp = Timestamp(1_773_532_800_000_000);

/// Feeds lines to the parser of a stream. The first byte chooses the stream.
pub fn lines(input: &[u8]) {
    let Some((&choice, buffer)) = input.split_first() else { return };
    let topic = if choice & 1 == 0 { FILLS } else { MISC };
    let form = if choice & 2 == 0 { Form::ByBlock } else { Form::Streaming };
    let horizon = Arc::new(Horizon::new(Duration::from_secs(7 * 86_400), None));
    let mut parser = LineParser::new(topic, form, horizon, &[]);
    let read_keys = parser.key_reader();
    let mut parsed = ParsedLines::default();

    let mut start = 0;
    for line in buffer.split(|&byte| byte == b'\n') {
        let end = start + line.len();
        let blocks_before = parsed.blocks.len();
        let outcome = parser.parse(buffer, start..end, NOW, &mut parsed);
        let blocks = parsed.blocks.len() - blocks_before;
        match &outcome {
            LineOutcome::Blank => assert!(line.trim_ascii().is_empty()),
            // A block whose time is not believed is a whole line too.
            LineOutcome::Whole => assert!(blocks <= 1),
            LineOutcome::Recovered { lost } => {
                let mut from = start;
                for place in lost {
                    assert!(from <= place.start && place.start < place.end && place.end <= end);
                    from = place.end;
                }
            }
            LineOutcome::Malformed { .. } => assert_eq!(blocks, 0),
        }
        start = end + 1;
    }

    let mut candidates = 0;
    for block in &parsed.blocks {
        assert_eq!(block.candidates.start, candidates);
        candidates = block.candidates.end;
        for candidate in &parsed.candidates[block.candidates.clone()] {
            assert!(block.indexes.contains(&candidate.index));
            let body = candidate.body.copy_from(buffer);
            // Most bodies of strangers are not JSON, and the reader has to notice.
            if read_keys(&body).is_ok() {
                serde_json::from_slice::<&serde_json::value::RawValue>(&body)
                    .expect("a body whose keys were read is JSON");
            }
            if let BodyPlace::Spliced(spliced) = &candidate.body {
                assert!(!spliced.entries.is_empty());
            }
        }
    }
    assert_eq!(candidates, parsed.candidates.len());
}

/// Most bytes of a message in [`frames`]: few enough for a search to get there.
const MAX_MESSAGE_BYTES: usize = 2_048;
/// More than the longest header, or the longest control frame, is not left lying.
const MAX_LEFT_BYTES: usize = 2 + 4 + 125;

/// Joins frames: the same messages come of the same bytes however they are cut, and those that RFC 6455
/// says. The first byte chooses whether messages may be compressed, and one more way to cut.
pub fn frames(input: &[u8]) {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let inflates = choice & 1 == 1;

    let (messages, end) = joined(bytes, bytes.len().max(1), inflates);

    for piece in [1, usize::from(choice >> 1) + 1] {
        let (cut_messages, cut_end) = joined(bytes, piece, inflates);
        assert_eq!(cut_messages, messages);
        assert_eq!(cut_end, end);
    }
    if !inflates {
        let (read_messages, read_end) = by_the_letter(bytes);
        assert_eq!(read_messages, messages);
        // What is wrong with a frame that is not there to its end may be found already.
        assert!(read_end.is_none() || read_end == end.and_then(|reason| reason.code()));
    }
}

/// The messages of bytes that come in pieces of this size, and why the session closes.
fn joined(bytes: &[u8], piece: usize, inflates: bool) -> (Vec<Inbound>, Option<CloseReason>) {
    let mut assembler = Assembler::new(MAX_MESSAGE_BYTES).inflating(inflates);
    let (mut buffer, mut messages) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            let next = assembler.next(&mut buffer);
            assert!(assembler.held_bytes() <= MAX_MESSAGE_BYTES);
            match next {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(reason) => return (messages, Some(reason)),
            }
        }
        assert!(buffer.len() < MAX_LEFT_BYTES);
    }
    (messages, None)
}

/// The same by the letter of RFC 6455, without compression and from all bytes at once.
fn by_the_letter(mut bytes: &[u8]) -> (Vec<Inbound>, Option<u16>) {
    let mut messages = Vec::new();
    let mut message: Option<(bool, Vec<u8>)> = None;
    while let &[first, second, ref rest @ ..] = bytes {
        let (is_last, opcode) = (first >= 0x80, first % 16);
        let is_right = match opcode {
            0 => message.is_some(),
            1 | 2 => message.is_none(),
            8..=10 => is_last && second % 128 <= 125,
            _ => false,
        };
        if first & 0x70 != 0 || second < 0x80 || !is_right {
            return (messages, Some(1002));
        }
        let extended = match second % 128 {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some((extension, rest)) = rest.split_at_checked(extended) else { break };
        let length = extension.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
        let length = if extended == 0 { u64::from(second % 128) } else { length };
        let held = message.as_ref().map_or(0, |(_, content)| content.len());
        if opcode < 8 && length > (MAX_MESSAGE_BYTES - held) as u64 {
            return (messages, Some(1009));
        }
        if (extended == 2 && length < 126) || (extended == 8 && length < 65_536) {
            return (messages, Some(1002));
        }
        let Some((mask, rest)) = rest.split_at_checked(4) else { break };
        let Some((masked, rest)) = rest.split_at_checked(length as usize) else { break };
        bytes = rest;
        let content = masked.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]);
        let content: Vec<u8> = content.collect();
        match opcode {
            8 => match close_code(&content) {
                Ok(code) => messages.push(Inbound::Close(code)),
                Err(code) => return (messages, Some(code)),
            },
            9 => messages.push(Inbound::Ping(content.into())),
            10 => messages.push(Inbound::Pong),
            _ => {
                let (is_text, joined) = message.get_or_insert((opcode == 1, Vec::new()));
                joined.extend(content);
                // Cut within a character is only wrong at the end.
                let wrong = std::str::from_utf8(joined).err();
                if *is_text && wrong.is_some_and(|wrong| is_last || wrong.error_len().is_some()) {
                    return (messages, Some(1007));
                }
                if is_last && let Some((is_text, joined)) = message.take() {
                    messages.push(match is_text {
                        true => Inbound::Text(String::from_utf8(joined).expect("looked at above")),
                        false => Inbound::Binary(joined),
                    });
                }
            }
        }
    }
    (messages, None)
}

/// The code of a close frame, or that of its fault.
fn close_code(content: &[u8]) -> Result<Option<u16>, u16> {
    let (code, reason) = match content {
        [] => return Ok(None),
        [_] => return Err(1002),
        [high, low, reason @ ..] => (u16::from(*high) * 256 + u16::from(*low), reason),
    };
    match code {
        0..=999 | 1004..=1006 | 1015..=2999 | 5000.. => Err(1002),
        _ if std::str::from_utf8(reason).is_err() => Err(1007),
        code => Ok(Some(code)),
    }
}

/// Sends bytes to a session as a client does: joins its frames, and lets a dialect answer the
/// texts. The first byte chooses the address and how the bytes arrive.
pub fn client(input: &[u8]) {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let door = if choice & 1 == 0 { Door::Open } else { Door::Native };
    let piece = usize::from(choice >> 1) + 1;
    // Small enough for a search to reach them.
    let limits = SessionConfig {
        max_subscriptions: 3,
        max_users: 4,
        max_frame_bytes: 4_096,
        ..SessionConfig::default()
    };
    let topics = [FILLS, MISC];
    let stats = Stats::default();
    let mut subscriptions = Subscriptions::default();
    let mut assembler = Assembler::new(limits.max_frame_bytes);
    let mut buffer = BytesMut::new();
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            let text = match assembler.next(&mut buffer) {
                Ok(Some(Inbound::Text(text))) => text,
                Ok(Some(_)) => continue,
                Ok(None) => break,
                // The session closes.
                Err(reason) => return said(&door.dialect().farewell(&reason)),
            };
            assert!(text.len() <= limits.max_frame_bytes);
            said(&hear(door, &text, &mut subscriptions, &limits, &topics, &stats));
            assert!(subscriptions.len() <= limits.max_subscriptions);
        }
    }
}

/// A dialect's answer to one text.
fn hear(
    door: Door,
    text: &str,
    subscriptions: &mut Subscriptions,
    limits: &SessionConfig,
    topics: &[Topic],
    stats: &Stats,
) -> Vec<Bytes> {
    let cursor = || Cursor { epoch: 1, run: 2, seq: 3, positions: Vec::new() };
    let mut desk = Desk {
        subscriptions,
        limits,
        topics,
        stats,
        cursor: &cursor,
        delivered: &cursor,
        replies: Vec::new(),
        changes: Vec::new(),
        keeps_all: false,
        is_listed: &|user| user.0[0] & 1 == 0,
        admission: &|| if text.len() & 1 == 0 { Admission::Added } else { Admission::Accepted },
        later: None,
        speaks: None,
        asides: Vec::new(),
        free_asides: 1,
    };
    let dialect = door.settle(text).unwrap_or_else(|| door.dialect());
    dialect.receive(text, &mut desk);
    let mut requests = 1;
    while let Some(later) = desk.later.take() {
        // Each answer that is put off may be of two frames.
        requests += later.requests;
        let found = later.lookups.into_iter().map(|lookup| match lookup {
            Lookup::Place { .. } => {
                Found::Place(Ok(Start { seq: 3, cursor: cursor(), exact: true }))
            }
            Lookup::Newest { .. } => {
                let items = vec![Bytes::from_static(b"{}")];
                Found::Newest(Ok(Newest { items, cursor: cursor() }))
            }
            Lookup::Add { users } => {
                assert!(users.iter().all(|user| user.0[0] & 1 == 1), "others are listed");
                Found::Added(Ok(()))
            }
        });
        (later.answer)(found.collect(), &mut desk);
    }
    // Acknowledgement and snapshot are one answer.
    requests += 1;
    for aside in std::mem::take(&mut desk.asides) {
        desk.replies.push((aside.frame)(Ok(Bytes::from_static(b"[]"))));
    }
    assert!(desk.replies.len() as u64 <= requests && desk.changes.len() as u64 <= 2 * requests);
    desk.replies
}

/// What we say is a whole unmasked frame, and a text is JSON.
fn said(frames: &[Bytes]) {
    for frame in frames {
        let (length, header) = match frame[1] {
            126 => (usize::from(u16::from_be_bytes([frame[2], frame[3]])), 4),
            127 => panic!("nothing that long is ever said to a client without events"),
            short => (usize::from(short), 2),
        };
        assert_eq!(frame.len(), header + length);
        if frame[0] == 0x81 {
            serde_json::from_slice::<serde_json::Value>(&frame[header..]).expect("our own JSON");
        }
    }
}

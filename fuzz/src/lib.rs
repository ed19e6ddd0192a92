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
        dialect::{Desk, Door},
        frame::{Assembler, Inbound},
        replay::Start,
        subscription::Subscriptions,
    },
    event::{Cursor, Timestamp, Topic},
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
            let (replies, changes) =
                hear(door, &text, &mut subscriptions, &limits, &topics, &stats);
            said(&replies);
            assert!(replies.len() <= 1);
            assert!(changes <= 2);
            assert!(subscriptions.len() <= limits.max_subscriptions);
        }
    }
}

/// A dialect's answer to one text, and how many changes it makes.
fn hear(
    door: Door,
    text: &str,
    subscriptions: &mut Subscriptions,
    limits: &SessionConfig,
    topics: &[Topic],
    stats: &Stats,
) -> (Vec<Bytes>, usize) {
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
        resume: None,
    };
    let dialect = door.settle(text);
    dialect.receive(text, &mut desk);
    if let Some(resume) = desk.resume.take() {
        assert!(desk.replies.is_empty() && desk.changes.is_empty(), "its place is not known yet");
        dialect.resume(resume, Ok(Start { seq: 3, cursor: cursor(), exact: true }), &mut desk);
    }
    (desk.replies, desk.changes.len())
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

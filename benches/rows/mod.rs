//! Rows for the benchmarks of the stores, and their commit.

// Each benchmark uses its share.
#![allow(dead_code, reason = "each benchmark uses its share")]

use std::time::Duration;

use bytes::Bytes;
use nodecast::{
    event::{Address, Event, EventId, Keys, SequencedEvent, Timestamp, Topic},
    store::{CommitBatch, PageKey, StoreWriter},
};

/// Rows of a batch.
pub const ROWS: u64 = 5_000;

/// Rows of a block.
pub const WIDTH: u64 = 50;

/// 2026-03-15.
pub const START: Timestamp = Timestamp(1_773_532_800_000_000);

/// One batch: 5,000 fills of 1,000 users, bodies of 400 bytes, a block every `pace`.
pub fn batch(number: u64, pace: Duration) -> Vec<SequencedEvent> {
    let head = r#"{"coin":"BTC","px":"97123.5","sz":"0.01","note":""#;
    let body = Bytes::from(format!("{head}{}\"}}", "x".repeat(398 - head.len())));
    let event = |row: u64| {
        let seq = number * ROWS + row + 1;
        let position = seq / WIDTH;
        let index = (seq % WIDTH) as u32;
        let event = Event {
            id: EventId { topic: Topic::new("fills"), position, index, part: 0 },
            time: START.plus(pace * position as u32),
            user: Some(user(seq * 7_919 % 1_000)),
            keys: Keys::default(),
            body: body.clone(),
        };
        SequencedEvent { seq, late: false, event }
    };
    (0..ROWS).map(event).collect()
}

pub fn user(number: u64) -> Address {
    let mut user = [0; 20];
    user[..8].copy_from_slice(&number.to_be_bytes());
    Address(user)
}

/// The place behind which a page begins that has `rows` rows before it.
pub fn place(rows: u64) -> PageKey {
    PageKey { position: rows / WIDTH, seq: rows }
}

pub async fn commit(writer: &mut dyn StoreWriter, number: u64, events: &[SequencedEvent]) {
    let last_seq = events.last().map_or(0, |event| event.seq);
    let events: Vec<_> = events.iter().collect();
    let committed = writer
        .commit(CommitBatch {
            number,
            events: &events,
            seen: &[],
            gaps_opened: &[],
            gaps_closed: &[],
            progress: &[],
            last_seq,
            newest_time: None,
        })
        .await
        .expect("the store takes the batch");
    assert_eq!(committed.inserted, events.len());
}

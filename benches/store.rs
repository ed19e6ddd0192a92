//! The store's hot paths: one commit, and one page of history at depth.
//!
//! `cargo bench --bench store`. The database is a file in the temporary directory, `synchronous`
//! is FULL as by default, so the disk under it is part of the figure.

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use nodecast::{
    config::StoreConfig,
    event::{Address, Event, EventId, Keys, SequencedEvent, Timestamp, Topic},
    store::{self, CommitBatch, EventQuery, PageKey, StoreWriter},
};

const ROWS: u64 = 5_000;

/// Commits that fill the store before a page is read at its middle.
const DEPTH: u64 = 100;

/// One batch: 5,000 fills of 1,000 users, 50 a block, bodies of 400 bytes.
fn batch(number: u64) -> Vec<SequencedEvent> {
    let head = r#"{"coin":"BTC","px":"97123.5","sz":"0.01","note":""#;
    let body = Bytes::from(format!("{head}{}\"}}", "x".repeat(398 - head.len())));
    let event = |row: u64| {
        let seq = number * ROWS + row + 1;
        let mut user = [0; 20];
        user[..8].copy_from_slice(&(seq * 7_919 % 1_000).to_be_bytes());
        let position = seq / 50;
        let event = Event {
            id: EventId { topic: Topic::new("fills"), position, index: (seq % 50) as u32, part: 0 },
            time: Timestamp(1_773_532_800_000_000).plus(Duration::from_millis(position * 70)),
            user: Some(Address(user)),
            keys: Keys::default(),
            body: body.clone(),
        };
        SequencedEvent { seq, late: false, event }
    };
    (0..ROWS).map(event).collect()
}

async fn commit(writer: &mut dyn StoreWriter, number: u64, events: &[SequencedEvent]) {
    let events: Vec<_> = events.iter().collect();
    let committed = writer
        .commit(CommitBatch {
            number,
            events: &events,
            seen: &[],
            gaps_opened: &[],
            gaps_closed: &[],
            progress: &[],
            last_seq: number * ROWS,
            newest_time: None,
        })
        .await
        .expect("the store takes the batch");
    assert_eq!(committed.inserted, events.len());
}

fn store(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite:{}", directory.path().join("bench.db").display());
    let runtime = actix_rt::Runtime::new().expect("a runtime");
    let store = runtime.block_on(store::open(&url, &StoreConfig::default())).expect("a store");
    let (mut writer, _) = runtime.block_on(store.open_writer()).expect("a writer");
    let mut number = 0;
    for _ in 0..DEPTH {
        number += 1;
        runtime.block_on(commit(&mut *writer, number, &batch(number)));
    }

    let mut group = criterion.benchmark_group("store");
    group.sample_size(20);
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("commit of 5,000 rows", |bencher| {
        bencher.iter_batched(
            || {
                number += 1;
                (number, batch(number))
            },
            |(number, events)| runtime.block_on(commit(&mut *writer, number, &events)),
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(1_000));
    let seq = DEPTH / 2 * ROWS;
    let after = Some(PageKey { position: seq / 50, seq });
    let any = EventQuery { after, limit: 1_000, ..EventQuery::default() };
    let mut user = [0; 20];
    user[7] = 7;
    let of_user = EventQuery { users: vec![Address(user)], ..any.clone() };
    for (name, query) in [("page of 1,000", any), ("page of a user", of_user)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let rows = runtime.block_on(store.events(query.clone())).expect("a page");
                assert!(rows.len() > 100);
                black_box(rows)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, store);
criterion_main!(benches);

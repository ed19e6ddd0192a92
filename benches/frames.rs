//! What the frame of an event costs: to encode, and to compress, each of which is done once for all
//! sessions of a protocol. `cargo bench --bench frames`.

use std::{hint::black_box, sync::Arc};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use nodecast::{
    delivery::{
        deflate,
        dialect::{Door, Shown},
        frame,
        view::View,
    },
    event::{Address, Event, EventId, Keys, SequencedEvent, Timestamp, Topic},
    router::log::{Heads, LogEvent},
    stats::SessionStats,
};

const FILLS: Topic = Topic::new("fills");
const EVENTS: u64 = 1_000;

/// Fills as a node writes them, with all that differs from one to the next: 400 bytes, of which hashes and
/// numbers are the most.
fn fills() -> Vec<LogEvent> {
    let mut random = fastrand::Rng::with_seed(1);
    let heads = Arc::new(Heads { epoch: 1 << 50, run: 2 << 50, positions: vec![(FILLS, 1 << 30)] });
    let fill = |row: u64| {
        let (px, sz, oid, tid) = (
            random.u32(60_000..70_000),
            random.u32(1..100_000),
            random.u64(1 << 38..1 << 39),
            random.u64(1 << 49..1 << 50),
        );
        let (hash, cloid, user) = (random.u128(..), random.u128(..), random.u128(..));
        let time = 1_773_532_800_000 + row * 70;
        let body = format!(
            r#"{{"coin":"BTC","px":"{px}.0","sz":"0.{sz:05}","side":"B","time":{time},"startPosition":"-1.{sz}","dir":"Open Long","closedPnl":"0.0","hash":"0x{hash:032x}{hash:032x}","oid":{oid},"crossed":false,"fee":"0.{px}","tid":{tid},"cloid":"0x{cloid:032x}","feeToken":"USDC","twapId":null}}"#
        );
        let event = Event {
            id: EventId { topic: FILLS, position: (1 << 30) + row, index: 3, part: 0 },
            time: Timestamp(time as i64 * 1_000),
            user: Some(Address(std::array::from_fn(|at| (user >> (8 * (at % 16))) as u8))),
            keys: Keys::default(),
            body: Bytes::from(body),
        };
        LogEvent::new(SequencedEvent { seq: (1 << 50) + row, late: false, event }, heads.clone())
    };
    (0..EVENTS).map(fill).collect()
}

fn frames(criterion: &mut Criterion) {
    let stats = SessionStats::default();
    for (name, door) in [("native", Door::Native), ("older", Door::Open)] {
        let events = fills();
        let body: usize = events.iter().map(|event| event.sequenced.event.body.len()).sum();
        let shown = |at| Shown { events: &events, at, view: View::default() };
        let plain: Vec<Bytes> =
            (0..events.len()).map(|at| door.dialect().event(shown(at), false)).collect();
        let before: usize = plain.iter().map(Bytes::len).sum();
        let packed: usize = plain
            .iter()
            .map(|plain| deflate::pack(plain, &stats).map_or(plain.len(), |packed| packed.len()))
            .sum();
        let events = EVENTS as usize;
        eprintln!(
            "{name}: bodies of {} bytes, frames of {}, compressed {}",
            body / events,
            before / events,
            packed / events
        );
        let mut group = criterion.benchmark_group(name);
        let mut next = plain.iter().cycle();
        group.bench_function("reference: copy a frame", |bencher| {
            bencher.iter(|| {
                let content = frame::payload(next.next().expect("it is endless"));
                black_box(frame::text(|out| out.extend_from_slice(&content)))
            });
        });
        group.bench_function("compress", |bencher| {
            bencher.iter(|| deflate::pack(black_box(next.next().expect("it is endless")), &stats));
        });
        group.finish();
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);

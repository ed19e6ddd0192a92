use std::path::PathBuf;

use super::*;
use crate::{
    config::WhitelistConfig,
    event::{Address, Timestamp},
    source::{
        BodyPlace, Budget, Density, Form, Progress, Spliced, Stream, StreamState,
        node::{FILLS, read_fill_keys},
    },
    testing::{Probe, ProbeHandle, log},
};

fn address(ordinal: u8) -> Address {
    Address([ordinal; 20])
}

fn list(ordinals: &[u8]) -> Arc<Whitelist> {
    let addresses = ordinals.iter().copied().map(address).collect();
    Arc::new(Whitelist::build(vec![addresses], &WhitelistConfig::default()))
}

struct Fixture {
    filter: Addr<WhitelistFilter>,
    next: ProbeHandle<EventBatch>,
    stats: Arc<Stats>,
    budget: Arc<Budget>,
    state: tempfile::TempDir,
}

fn start(list: Arc<Whitelist>) -> Fixture {
    let state = tempfile::tempdir().unwrap();
    let quarantine = Arc::new(Quarantine::open(state.path(), 1 << 20).unwrap());
    let (next, stats) = (Probe::start(), Arc::<Stats>::default());
    let filter =
        WhitelistFilter::new(list, next.recipient(), quarantine, stats.clone(), &log()).start();
    Fixture { filter, next, stats, budget: Budget::new(1 << 30, Probe::start().recipient()), state }
}

impl Fixture {
    /// Sends one block with a candidate for each user and body.
    async fn filter(&self, events: &[(Option<u8>, &str)]) -> EventBatch {
        let mut buffer = Vec::new();
        let mut candidates = Vec::new();
        for ((user, body), index) in events.iter().zip(0..) {
            let start = buffer.len() as u32;
            buffer.extend_from_slice(body.as_bytes());
            let body = BodyPlace::Slice(start..buffer.len() as u32);
            candidates.push(Candidate { index, part: 0, user: user.map(address), body });
        }
        self.send(buffer, candidates).await
    }

    async fn send(&self, buffer: Vec<u8>, candidates: Vec<Candidate>) -> EventBatch {
        let stream = Stream {
            name: "fills".into(),
            node: "node".into(),
            topic: FILLS,
            form: Form::ByBlock,
            density: Density::Dense,
            directory: PathBuf::from("fills"),
        };
        let block = |position, candidates| ParsedBlock {
            position,
            time: Timestamp(5),
            written: Timestamp(6),
            indexes: 0..3,
            complete: true,
            digest: 9,
            candidates,
        };
        let batch = ParsedBatch {
            generation: 2,
            buffer: buffer.into(),
            blocks: vec![
                block(7, 0..candidates.len()),
                block(8, candidates.len()..candidates.len()),
            ],
            candidates,
            keys: read_fill_keys,
            file: "20260315/0".into(),
            offset: 1_000,
            progress: Progress {
                stream: Arc::new(stream),
                files: Vec::new(),
                state: StreamState { last_position: Some(8), ..Default::default() },
            },
            discontinuity: true,
            read_at: Timestamp(4),
            credit: self.budget.take(1 << 20, 2),
        };
        self.filter.send(batch).await.unwrap();
        self.next.take().await.pop().unwrap()
    }

    /// Received, accepted, rejected, false positives, malformed.
    fn counts(&self) -> [u64; 5] {
        let stats = &self.stats.filter;
        [
            &stats.received,
            &stats.accepted,
            &stats.rejected,
            &stats.false_positives,
            &stats.malformed,
        ]
        .map(|counter| counter.get())
    }
}

#[actix_rt::test]
async fn listed_users_keep_their_events_and_others_lose_them() {
    let fixture = start(list(&[1, 3]));

    let passed = fixture
        .filter(&[
            (Some(1), r#"{"coin":"BTC"}"#),
            (Some(2), r#"{"coin":"ETH"}"#),
            (Some(3), r#"{"coin":"SOL"}"#),
            (None, "{}"),
        ])
        .await;

    let events = &passed.blocks[0].events;
    let found: Vec<_> =
        events.iter().map(|event| (event.id.index, event.user, event.key("coin"))).collect();
    assert_eq!(found, [(0, Some(address(1)), Some("BTC")), (2, Some(address(3)), Some("SOL"))]);
    assert_eq!(events[0].body, r#"{"coin":"BTC"}"#);
    assert_eq!(
        (events[0].id.topic, events[0].id.position, events[0].time),
        (FILLS, 7, Timestamp(5))
    );
    let [received, accepted, rejected, false_positives, malformed] = fixture.counts();
    assert_eq!((received, accepted, malformed), (4, 2, 0));
    assert_eq!(rejected + false_positives, 2);
}

// H24
#[actix_rt::test]
async fn who_only_passes_the_bloom_filter_is_counted_and_dropped() {
    let config =
        WhitelistConfig { false_positive_rate: 0.5, min_capacity: 1, ..Default::default() };
    let list = Whitelist::build(vec![(0..100).map(address).collect()], &config);
    let fixture = start(Arc::new(list));
    let events: Vec<_> = (0..=255).map(|user| (Some(user), "{}")).collect();

    let passed = fixture.filter(&events).await;

    assert_eq!(passed.blocks[0].events.len(), 100);
    let [received, accepted, rejected, false_positives, _] = fixture.counts();
    assert_eq!((received, accepted, rejected + false_positives), (256, 100, 156));
    assert!(false_positives > 0);
}

#[actix_rt::test]
async fn an_emptied_batch_still_carries_its_blocks_and_its_progress() {
    let fixture = start(list(&[]));

    let passed = fixture.filter(&[(Some(1), "{}")]).await;

    let positions: Vec<_> = passed.blocks.iter().map(|block| block.position).collect();
    assert_eq!(positions, [7, 8]);
    assert!(passed.blocks.iter().all(|block| block.events.is_empty()));
    let Block { written, indexes, complete, digest, .. } = passed.blocks[0].clone();
    assert_eq!((written, indexes, complete, digest), (Timestamp(6), 0..3, true, 9));
    assert_eq!(passed.progress.state.last_position, Some(8));
    assert_eq!((passed.generation, passed.discontinuity, passed.read_at), (2, true, Timestamp(4)));
}

// H26
#[actix_rt::test]
async fn all_keeps_everything_events_of_nobody_too() {
    let fixture = start(Arc::new(Whitelist::all()));

    let passed = fixture.filter(&[(Some(1), "{}"), (None, "{}")]).await;

    assert_eq!(passed.blocks[0].events.len(), 2);
    assert_eq!(fixture.counts(), [2, 2, 0, 0, 0]);
}

#[actix_rt::test]
async fn a_body_that_is_not_json_is_dropped_and_set_aside_only_if_wanted() {
    let fixture = start(list(&[1]));

    let passed =
        fixture.filter(&[(Some(1), "{\"coin\" 1}"), (Some(2), "{,}"), (Some(1), "{}")]).await;

    let indexes: Vec<_> = passed.blocks[0].events.iter().map(|event| event.id.index).collect();
    assert_eq!(indexes, [2]);
    let [received, accepted, rejected, false_positives, malformed] = fixture.counts();
    assert_eq!((received, accepted, rejected + false_positives, malformed), (3, 1, 1, 1));
    let kept = std::fs::read_to_string(fixture.state.path().join("quarantine.jsonl")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert_eq!((&kept["content"], &kept["offset_bytes"]), (&"{\"coin\" 1}".into(), &1_000.into()));
}

#[actix_rt::test]
async fn the_credit_is_what_the_batch_still_holds() {
    let fixture = start(list(&[1]));
    let body = format!("{{\"x\":\"{}\"}}", "y".repeat(10_000));

    let passed = fixture.filter(&[(Some(1), &body), (Some(2), &body)]).await;

    // The body and the frame it will be cast in, of the listed event alone.
    let held = passed.credit.bytes();
    assert!((20_000..22_000).contains(&held), "{held}");
    assert_eq!(fixture.budget.in_flight_bytes(), held);
    passed.credit.done();
}

#[actix_rt::test]
async fn the_share_of_a_split_event_is_spliced() {
    let fixture = start(list(&[1]));
    let buffer = br#"{"inner":[1, 2,3]}"#.to_vec();
    let spliced = Spliced { head: 0..10, entries: vec![10..11, 15..16], tail: 16..18 };
    let body = BodyPlace::Spliced(Box::new(spliced));

    let passed = fixture
        .send(buffer, vec![Candidate { index: 0, part: 4, user: Some(address(1)), body }])
        .await;

    let event = &passed.blocks[0].events[0];
    assert_eq!(event.body, r#"{"inner":[1,3]}"#);
    assert_eq!(event.id.part, 4);
}

// H20, H21
#[actix_rt::test]
async fn a_replaced_list_holds_from_the_next_batch_on() {
    let fixture = start(list(&[1]));
    let events = [(Some(1), "{}"), (Some(2), "{}")];

    let before = fixture.filter(&events).await;
    fixture.filter.send(ReplaceWhitelist(list(&[2]))).await.unwrap();
    let after = fixture.filter(&events).await;

    let users = |batch: &EventBatch| {
        batch.blocks[0].events.iter().map(|event| event.user).collect::<Vec<_>>()
    };
    assert_eq!(users(&before), [Some(address(1))]);
    assert_eq!(users(&after), [Some(address(2))]);
}

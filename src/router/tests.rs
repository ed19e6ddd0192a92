//! The Router between a hand that sends batches and a log that is read back.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use actix::prelude::*;
use async_trait::async_trait;
use bytes::Bytes;
use slog::Logger;

use super::{
    Restart, Router, StoredIds,
    ledger::Gap,
    log::{Heads, Log, Notice},
    readers::Readers,
};
use crate::{
    event::{Event, EventId, Keys, Timestamp, Topic},
    source::{
        BatchLost, Block, Budget, Density, EventBatch, Form, Progress, Stream, StreamCheckpoint,
        StreamState,
    },
    stats::Stats,
    testing::{Probe, ProbeHandle, log, recorded_log},
};

const FILLS: Topic = Topic::new("fills");

/// A store that knows some events, and notes what it was asked.
#[derive(Default)]
struct Known {
    ids: HashSet<EventId>,
    asked: Mutex<Vec<EventId>>,
    /// How often it is away before it answers.
    away: Mutex<u32>,
}

#[async_trait]
impl StoredIds for Known {
    async fn stored(&self, ids: Vec<EventId>) -> Result<HashSet<EventId>, String> {
        let mut away = self.away.lock().unwrap();
        if *away > 0 {
            *away -= 1;
            return Err("away".to_owned());
        }
        self.asked.lock().unwrap().extend(&ids);
        Ok(ids.into_iter().filter(|id| self.ids.contains(id)).collect())
    }
}

struct Bench {
    router: Addr<Router>,
    log: Arc<Log>,
    stats: Arc<Stats>,
    budget: Arc<Budget>,
    lost: ProbeHandle<BatchLost>,
}

impl Bench {
    fn new(known: Arc<Known>) -> Self {
        Self::logging(known, &log())
    }

    fn logging(known: Arc<Known>, logger: &Logger) -> Self {
        let lost = Probe::start();
        let budget = Budget::new(1 << 20, lost.recipient());
        let heads = Heads { epoch: 1, run: 2, positions: Vec::new() };
        let (journal, stats) = (Log::new(1 << 20, 1_000, heads), Arc::new(Stats::default()));
        let readers = Arc::new(Readers::default());
        let router = Router::new(journal.clone(), readers, known, stats.clone(), logger).start();
        Self { router, log: journal, stats, budget, lost }
    }

    async fn restart(&self, generation: u64, streams: Vec<StreamCheckpoint>) {
        let (seen, gaps, heads) = (Vec::new(), Vec::new(), Vec::new());
        self.router.send(Restart { generation, streams, seen, gaps, heads }).await.unwrap();
    }

    fn batch(&self, node: &str, generation: u64, blocks: Vec<Block>) -> EventBatch {
        let progress =
            Progress { stream: stream(node), files: Vec::new(), state: StreamState::default() };
        let (discontinuity, read_at) = (false, Timestamp::now());
        let credit = self.budget.take(100, generation);
        EventBatch { generation, blocks, progress, discontinuity, read_at, credit }
    }

    /// Positions and late marks of all events in the log.
    fn cast(&self) -> Vec<(u64, bool)> {
        let segments = self.log.read(0, usize::MAX).segments;
        let events = segments.iter().flat_map(|segment| &segment.events);
        events.map(|event| (event.sequenced.event.id.position, event.sequenced.late)).collect()
    }
}

fn stream(node: &str) -> Arc<Stream> {
    Arc::new(Stream {
        name: format!("{node}/fills").into(),
        node: node.into(),
        topic: FILLS,
        form: Form::ByBlock,
        density: Density::Dense,
        directory: PathBuf::new(),
    })
}

fn block(position: u64) -> Block {
    let id = EventId { topic: FILLS, position, index: 0, part: 0 };
    let (keys, body) = (Keys::default(), Bytes::from_static(b"{}"));
    let events = vec![Event { id, time: Timestamp(1), user: None, keys, body }];
    let (time, written, indexes) = (Timestamp(1), Timestamp(1), 0..1);
    Block { position, time, written, indexes, complete: true, digest: position, events }
}

#[actix_rt::test]
async fn a_second_node_directory_brings_only_what_is_missing() {
    let bench = Bench::new(Arc::default());
    bench.restart(1, Vec::new()).await;

    bench.router.send(bench.batch("a", 1, vec![block(5), block(6), block(8)])).await.unwrap();
    bench.router.send(bench.batch("b", 1, vec![block(6), block(7), block(8)])).await.unwrap();

    assert_eq!(bench.cast(), [(5, false), (6, false), (8, false), (7, true)]);
    assert_eq!(bench.stats.router.duplicates.get(), 2);
    assert_eq!(bench.stats.router.conflicts.get(), 0);
    // A late event takes no cursor back.
    let late = bench.log.read(1, 1).segments[0].events[0].cursor();
    assert_eq!(late.positions, [(FILLS, 8)]);
    let notices: Vec<_> =
        bench.log.read(0, 100).segments.iter().flat_map(|s| s.notices.clone()).collect();
    assert!(matches!(&notices[0], Notice::GapOpened(gap) if (gap.first, gap.last) == (7, 7)));
    assert!(matches!(&notices[1], Notice::GapClosed(gap) if (gap.first, gap.last) == (7, 7)));
    assert_eq!(bench.stats.router.gaps.list(), []);
}

#[actix_rt::test]
async fn events_of_one_block_are_not_late_behind_each_other() {
    let bench = Bench::new(Arc::default());
    bench.restart(1, Vec::new()).await;
    let mut two = block(5);
    let id = EventId { index: 1, ..two.events[0].id };
    two.events.push(Event { id, ..two.events[0].clone() });

    bench.router.send(bench.batch("a", 1, vec![two])).await.unwrap();

    assert_eq!(bench.cast(), [(5, false), (5, false)]);
}

#[actix_rt::test]
async fn other_content_for_a_block_is_counted_and_not_delivered() {
    let bench = Bench::new(Arc::default());
    bench.restart(1, Vec::new()).await;

    bench.router.send(bench.batch("a", 1, vec![block(5)])).await.unwrap();
    let other = Block { digest: 1_000, ..block(5) };
    bench.router.send(bench.batch("b", 1, vec![other])).await.unwrap();

    assert_eq!(bench.cast(), [(5, false)]);
    assert_eq!(bench.stats.router.conflicts.get(), 1);
}

#[actix_rt::test]
async fn of_a_stream_with_other_content_in_every_block_the_first_is_logged_and_all_are_counted() {
    let (logger, records) = recorded_log();
    let bench = Bench::logging(Arc::default(), &logger);
    bench.restart(1, Vec::new()).await;

    bench.router.send(bench.batch("a", 1, vec![block(5), block(6)])).await.unwrap();
    let others = [5, 6].map(|position| Block { digest: 1_000, ..block(position) });
    bench.router.send(bench.batch("b", 1, others.into())).await.unwrap();

    assert_eq!(bench.stats.router.conflicts.get(), 2);
    assert_eq!(records.with("a block came again with other content").len(), 1);
    // The digests of both blocks, of the only topic.
    assert_eq!(bench.stats.router.ledger_digests.get(), 2);
}

#[actix_rt::test]
async fn a_gap_of_an_earlier_life_is_closed_when_its_blocks_come() {
    let bench = Bench::new(Arc::default());
    let gap = Gap { topic: FILLS, first: 4, last: 5, opened: Timestamp(1), closed: None };
    let (streams, seen, heads) = (Vec::new(), Vec::new(), vec![(FILLS, 6)]);
    let restart = Restart { generation: 1, streams, seen, gaps: vec![gap.clone()], heads };
    bench.router.send(restart).await.unwrap();
    assert_eq!(bench.stats.router.gaps.list(), [gap]);

    bench.router.send(bench.batch("b", 1, vec![block(4), block(5)])).await.unwrap();

    let notices = bench.log.read(0, 100).segments[0].notices.clone();
    assert!(matches!(&notices[..], [Notice::GapClosed(gap)] if gap.first == 4), "{notices:?}");
    assert_eq!(bench.stats.router.gaps.list(), []);
}

#[actix_rt::test]
async fn a_new_generation_knows_a_hole_again_that_the_lost_one_had_passed() {
    let bench = Bench::new(Arc::default());
    let state = StreamState { last_position: Some(5), ..StreamState::default() };
    let checkpoint = StreamCheckpoint { name: "a/fills".into(), state, files: Vec::new() };
    bench.restart(1, vec![checkpoint.clone()]).await;
    bench.router.send(bench.batch("a", 1, vec![block(9)])).await.unwrap();

    // The batch was lost, and its gap with it.
    bench.restart(2, vec![checkpoint]).await;
    assert_eq!(bench.stats.router.gaps.list(), []);
    bench.router.send(bench.batch("a", 2, vec![block(9)])).await.unwrap();

    let gaps = bench.stats.router.gaps.list();
    assert_eq!((gaps[0].first, gaps[0].last), (6, 8));
}

#[actix_rt::test]
async fn an_emptied_batch_reaches_the_log_with_its_progress() {
    let bench = Bench::new(Arc::default());
    bench.restart(1, Vec::new()).await;

    bench.router.send(bench.batch("a", 1, Vec::new())).await.unwrap();

    assert_eq!(bench.log.state().next, 1);
    assert_eq!(bench.budget.in_flight_batches(), 1);
    bench.log.commit(1);
    assert_eq!(bench.budget.in_flight_batches(), 0);
    assert!(bench.lost.take().await.is_empty());
}

#[actix_rt::test]
async fn a_batch_of_an_earlier_generation_is_refused() {
    let bench = Bench::new(Arc::default());
    bench.restart(2, Vec::new()).await;

    bench.router.send(bench.batch("a", 1, vec![block(5)])).await.unwrap();

    assert_eq!(bench.log.state().next, 0);
    assert_eq!(bench.stats.router.stale.get(), 1);
    assert_eq!(bench.lost.take().await, [BatchLost { generation: 1 }]);
}

#[actix_rt::test]
async fn seq_grows_above_what_the_store_holds() {
    let bench = Bench::new(Arc::default());
    bench.restart(1, Vec::new()).await;

    bench.router.send(bench.batch("a", 1, vec![block(5), block(6)])).await.unwrap();

    let segment = bench.log.read(0, 10).segments[0].clone();
    let seqs: Vec<u64> = segment.events.iter().map(|event| event.sequenced.seq).collect();
    assert!(seqs[0] > 1_000 && seqs[1] > seqs[0]);
    let cursor = segment.events[1].cursor();
    assert_eq!((cursor.epoch, cursor.run, cursor.seq), (1, 2, seqs[1]));
    assert_eq!(cursor.positions, [(FILLS, 6)]);
}

#[actix_rt::test]
async fn a_jump_over_a_restart_is_a_gap() {
    let bench = Bench::new(Arc::default());
    let state = StreamState { last_position: Some(5), ..StreamState::default() };
    let checkpoint = StreamCheckpoint { name: "a/fills".into(), state, files: Vec::new() };
    bench.restart(1, vec![checkpoint]).await;

    bench.router.send(bench.batch("a", 1, vec![block(9)])).await.unwrap();

    let gaps = bench.stats.router.gaps.list();
    assert_eq!((gaps[0].first, gaps[0].last), (6, 8));
}

#[actix_rt::test]
async fn a_block_older_than_the_ledger_is_asked_for_at_the_store() {
    tokio::time::pause();
    let stored = block(3).events[0].id;
    let away = Mutex::new(2);
    let known = Arc::new(Known { ids: HashSet::from([stored]), away, ..Known::default() });
    let bench = Bench::new(known.clone());
    bench.restart(1, Vec::new()).await;
    // A piece that was stored long ago: below it the ledger is not certain.
    let old = super::ledger::BlockRange {
        topic: FILLS,
        first: 100,
        last: 100,
        next_index: Some(1),
        digests: Vec::new(),
    };
    let restart = || {
        let (streams, gaps, heads) = (Vec::new(), Vec::new(), vec![(FILLS, 100)]);
        Restart { generation: 1, streams, seen: vec![old.clone()], gaps, heads }
    };
    bench.router.send(restart()).await.unwrap();

    bench.router.send(bench.batch("a", 1, vec![block(3), block(4)])).await.unwrap();
    bench.router.send(bench.batch("a", 1, vec![block(5)])).await.unwrap();

    assert_eq!(bench.cast(), [(4, true), (5, true)]);
    assert!(known.asked.lock().unwrap().contains(&stored));

    // The ledger has forgotten the block again, and the store does not have it yet.
    bench.router.send(restart()).await.unwrap();
    bench.router.send(bench.batch("b", 1, vec![block(4)])).await.unwrap();

    assert_eq!(bench.cast(), [(4, true), (5, true)]);
}

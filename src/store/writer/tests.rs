//! The writer against a store that follows a script, and against the real one.

mod upkeep;

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
};

use async_trait::async_trait;
use tempfile::TempDir;

use super::*;
use crate::{
    event::{Event, SequencedEvent, Timestamp, Topic},
    router::{
        ledger::Gap,
        log::{Heads, LogEvent, NewSegment, Notice},
        readers::{Purpose, Readers},
    },
    source::{BatchLost, Budget, FileMark, Progress, StreamCheckpoint, StreamState},
    store::{
        self, CommitBatch, Committed, EventStore, Pending, Retained, RetentionLimits, Run,
        StoreSize,
        contract::{FILLS, block_time, event, page, range, stream},
    },
    testing::{self, Probe, ProbeHandle},
};

/// How long the last flush may take in tests.
const FLUSH_WITHIN: Duration = Duration::from_secs(4);

/// What the scripted store was asked, and what it answers next.
#[derive(Default)]
struct Script {
    /// Answers of the next commits; afterwards they succeed.
    answers: VecDeque<StoreError>,
    /// Each call: the number and the seqs.
    tried: Vec<(u64, Vec<u64>)>,
    /// What was committed: seqs, and the offsets of the checkpoints.
    stored: Vec<u64>,
    offsets: Vec<u64>,
    gaps: usize,
    /// What was back-filled: positions.
    backfilled: Vec<u64>,
    /// Events that are always refused.
    refused: Vec<u64>,
    retained: VecDeque<Retained>,
    /// Tries of retention that fail, before all others.
    retain_failures: usize,
    retain_calls: Vec<RetentionLimits>,
    size: StoreSize,
    compactions: usize,
    preparations: usize,
    renewals: usize,
    /// Whether renewals find nobody.
    is_away: bool,
    /// Whether another run holds the lease.
    is_overtaken: bool,
    closed: bool,
}

#[derive(Clone, Default)]
struct ScriptedWriter(Arc<Mutex<Script>>);

impl ScriptedWriter {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }
}

#[async_trait(?Send)]
impl StoreWriter for ScriptedWriter {
    async fn commit(&mut self, batch: CommitBatch<'_>) -> Result<Committed, StoreError> {
        let mut script = self.script();
        let seqs: Vec<_> = batch.events.iter().map(|event| event.seq).collect();
        script.tried.push((batch.number, seqs.clone()));
        if let Some(error) = script.answers.pop_front() {
            return Err(error);
        }
        if let Some(seq) = seqs.iter().find(|seq| script.refused.contains(seq)) {
            return Err(StoreError::Refused(format!("no {seq}")));
        }
        script.stored.extend(&seqs);
        script.gaps += batch.gaps_opened.len() + batch.gaps_closed.len();
        script.offsets.extend(batch.progress.iter().flat_map(|progress| {
            progress.files.iter().filter_map(|mark| match mark {
                FileMark::At { offset, .. } => Some(*offset),
                FileMark::Gone { .. } => None,
            })
        }));
        Ok(Committed { inserted: seqs.len(), duplicates: 0 })
    }

    async fn backfill(
        &mut self,
        events: &[Event],
        _keep: Option<Duration>,
    ) -> Result<Committed, StoreError> {
        self.script().backfilled.extend(events.iter().map(|event| event.id.position));
        Ok(Committed { inserted: events.len(), duplicates: 0 })
    }

    async fn pending(&mut self) -> Result<Pending, StoreError> {
        Ok(Pending::default())
    }

    async fn save_pending(&mut self, _: &Pending) -> Result<(), StoreError> {
        Ok(())
    }

    async fn checkpoints(&mut self) -> Result<Vec<StreamCheckpoint>, StoreError> {
        Ok(Vec::new())
    }

    async fn recover(&mut self) -> Result<Recovered, StoreError> {
        Ok(Recovered {
            run: Run { id: 1, epoch: 1 },
            last_seq: self.script().stored.iter().copied().max().unwrap_or(0),
            heads: Vec::new(),
            streams: Vec::new(),
            newest_time: None,
            seen: Vec::new(),
            gaps: Vec::new(),
            earlier_runs: Vec::new(),
        })
    }

    async fn retain(&mut self, limits: RetentionLimits) -> Result<Retained, StoreError> {
        let mut script = self.script();
        script.retain_calls.push(limits);
        if script.is_overtaken {
            return Err(StoreError::LeaseLost("another run".to_owned()));
        }
        if script.retain_failures > 0 {
            script.retain_failures -= 1;
            return Err(away());
        }
        Ok(script.retained.pop_front().unwrap_or_default())
    }

    async fn compact(&mut self) -> Result<(), StoreError> {
        self.script().compactions += 1;
        Ok(())
    }

    async fn size(&mut self) -> Result<StoreSize, StoreError> {
        Ok(self.script().size)
    }

    async fn prepare(&mut self) -> Result<(), StoreError> {
        self.script().preparations += 1;
        Ok(())
    }

    async fn renew(&mut self) -> Result<(), StoreError> {
        let mut script = self.script();
        script.renewals += 1;
        if script.is_away {
            return Err(away());
        }
        match script.is_overtaken {
            false => Ok(()),
            true => Err(StoreError::LeaseLost("run 2".into())),
        }
    }

    async fn close(&mut self) -> Result<(), StoreError> {
        self.script().closed = true;
        Ok(())
    }
}

/// A writer with everything around it.
struct Bench {
    script: ScriptedWriter,
    log: Arc<Log>,
    readers: Readers,
    writer: Addr<DbWriter>,
    stats: Arc<Stats>,
    budget: Arc<Budget>,
    faults: ProbeHandle<StoreFault>,
    _lost: ProbeHandle<BatchLost>,
    directory: TempDir,
    seq: u64,
    offset: u64,
}

impl Bench {
    fn start() -> Self {
        Self::scripted(|_| {})
    }

    /// A store with this script, whose disk is never full.
    fn scripted(prepare: impl FnOnce(&mut Script)) -> Self {
        Self::with(StoreConfig { min_free_bytes: 0, ..StoreConfig::default() }, prepare)
    }

    fn with(config: StoreConfig, prepare: impl FnOnce(&mut Script)) -> Self {
        let script = ScriptedWriter::default();
        prepare(&mut script.script());
        let mut bench = Self::on(Box::new(script.clone()), config, tempfile::tempdir().unwrap());
        bench.script = script;
        bench
    }

    fn on(writer: Box<dyn StoreWriter>, config: StoreConfig, directory: TempDir) -> Self {
        let log = Log::new(0, 0, Heads::default());
        let stats = Arc::new(Stats::default());
        let faults = Probe::start();
        let lost = Probe::start();
        let shared = Shared {
            log: log.clone(),
            horizon: Arc::new(Horizon::new(config.retention, Some(block_time(0)))),
            quarantine: Arc::new(Quarantine::open(directory.path(), 1 << 20).unwrap()),
            stats: stats.clone(),
        };
        let logger = testing::log();
        let writer = DbWriter::new(writer, config, shared, faults.recipient(), &logger).start();
        let readers = Readers::default();
        let reader = readers.register(writer.clone().recipient(), Purpose::Storing);
        writer.do_send(AttachReader(reader));
        let budget = Budget::new(1 << 20, lost.recipient());
        Self {
            script: ScriptedWriter::default(),
            log,
            readers,
            writer,
            stats,
            budget,
            faults,
            _lost: lost,
            directory,
            seq: 0,
            offset: 0,
        }
    }

    /// Appends a segment with this many events; each segment moves the offset by 10.
    fn append(&mut self, events: u64, generation: u64) {
        let seqs = self.seq + 1..=self.seq + events;
        self.seq += events;
        self.offset += 10;
        let (offset, digest) = (self.offset, 1);
        let mark = FileMark::At { file: "20260315/0".into(), offset, digest };
        let events = seqs.map(|seq| event(FILLS, seq, 0, seq)).collect();
        self.append_segment(events, vec![mark], generation, Some(self.offset));
    }

    fn append_segment(
        &self,
        events: Vec<SequencedEvent>,
        files: Vec<FileMark>,
        generation: u64,
        last_position: Option<u64>,
    ) {
        let heads = Arc::new(Heads::default());
        self.log.append(NewSegment {
            generation,
            events: events.into_iter().map(|event| LogEvent::new(event, heads.clone())).collect(),
            notices: Vec::new(),
            seen: Vec::new(),
            heads,
            progress: Progress {
                stream: stream("/data/fills"),
                files,
                state: StreamState { last_position, ..StreamState::default() },
            },
            read_at: Timestamp::now(),
            credit: self.budget.take(100, generation),
        });
        self.readers.wake();
    }

    /// Lets everything happen that needs no time.
    async fn settle(&self) {
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
    }

    async fn pass(&self, millis: u64) {
        self.settle().await;
        // In small steps, as timers that are set on the way have to fire in the same span.
        for _ in 0..millis.div_ceil(10) {
            tokio::time::advance(Duration::from_millis(millis.min(10))).await;
            self.settle().await;
        }
    }

    fn stored(&self) -> Vec<u64> {
        self.script.script().stored.clone()
    }

    fn tried(&self) -> Vec<(u64, Vec<u64>)> {
        self.script.script().tried.clone()
    }

    async fn flush(&self) -> Result<(), StoreError> {
        self.writer.send(Flush { within: FLUSH_WITHIN }).await.unwrap()
    }
}

fn away() -> StoreError {
    StoreError::Unavailable("database is locked".into())
}

#[actix_rt::test]
async fn a_batch_is_committed_when_its_first_segment_has_waited_long_enough() {
    tokio::time::pause();
    let mut bench = Bench::start();
    bench.append(2, 1);
    bench.pass(30).await;
    bench.append(1, 1);
    bench.settle().await;
    assert!(bench.tried().is_empty());
    assert_eq!(bench.stats.store.queued.get(), 3);

    bench.pass(30).await;

    assert_eq!(bench.tried(), vec![(1, vec![1, 2, 3])]);
    assert_eq!(bench.script.script().offsets, vec![10, 20]);
    assert_eq!(bench.budget.in_flight_batches(), 0);
    assert_eq!(bench.log.state().committed, 2);
    assert_eq!(bench.log.state().committed_seq, 3);
    assert_eq!(bench.stats.store.queued.get(), 0);
    assert_eq!(bench.stats.store.inserted.get(), 3);
    assert_ne!(bench.stats.store.last_commit_at.get(), 0);
}

#[actix_rt::test]
async fn a_full_batch_does_not_wait_and_takes_whole_segments() {
    tokio::time::pause();
    let config = StoreConfig { batch_events: 4, min_free_bytes: 0, ..StoreConfig::default() };
    let mut bench = Bench::with(config, |_| {});
    bench.append(3, 1);
    bench.append(3, 1);
    bench.append(3, 1);

    bench.settle().await;

    assert_eq!(bench.tried(), vec![(1, vec![1, 2, 3, 4, 5, 6])]);
    bench.pass(60).await;
    assert_eq!(bench.tried()[1..], vec![(2, vec![7, 8, 9])]);
}

#[actix_rt::test]
async fn bytes_fill_a_batch_too() {
    tokio::time::pause();
    let config = StoreConfig { batch_bytes: 100, min_free_bytes: 0, ..StoreConfig::default() };
    let mut bench = Bench::with(config, |_| {});

    bench.append(3, 1);
    bench.settle().await;

    assert_eq!(bench.stored(), vec![1, 2, 3]);
}

#[actix_rt::test]
async fn the_start_of_a_new_stream_waits_no_longer_than_events() {
    tokio::time::pause();
    let bench = Bench::start();

    let mark = FileMark::At { file: "20260315/0".into(), offset: 10, digest: 1 };
    bench.append_segment(Vec::new(), vec![mark], 1, None);
    bench.pass(60).await;

    assert_eq!(bench.script.script().offsets, vec![10]);
}

#[actix_rt::test]
async fn the_checkpoint_advances_each_second_when_no_event_is_kept() {
    tokio::time::pause();
    let mut bench = Bench::start();
    bench.append(0, 1);
    bench.pass(500).await;
    assert!(bench.tried().is_empty());

    bench.pass(510).await;

    assert_eq!(bench.tried(), vec![(1, vec![])]);
    assert_eq!(bench.script.script().offsets, vec![10]);
    assert_eq!(bench.budget.in_flight_batches(), 0);
}

#[actix_rt::test]
async fn gaps_and_blocks_go_with_their_segment() {
    tokio::time::pause();
    let bench = Bench::start();
    let gap = Gap { topic: FILLS, first: 1, last: 2, opened: block_time(3), closed: None };
    let heads = Arc::new(Heads::default());
    bench.log.append(NewSegment {
        generation: 1,
        events: Vec::new(),
        notices: vec![Notice::GapOpened(gap.clone()), Notice::GapClosed(gap)],
        seen: vec![range(3, 3)],
        heads,
        progress: Progress {
            stream: stream("/data/fills"),
            files: Vec::new(),
            state: StreamState::default(),
        },
        read_at: Timestamp::now(),
        credit: bench.budget.take(100, 1),
    });
    bench.readers.wake();

    bench.pass(1_100).await;

    assert_eq!(bench.script.script().gaps, 2);
}

#[actix_rt::test]
async fn a_store_that_is_away_gets_the_same_batch_again_until_it_takes_it() {
    // H42
    tokio::time::pause();
    let mut bench = Bench::scripted(|script| script.answers.extend([away(), away(), away()]));
    bench.append(2, 1);
    bench.pass(60).await;
    bench.append(1, 1);
    bench.settle().await;
    assert_ne!(bench.stats.store.failing_since.get(), 0);
    assert_eq!(bench.stats.store.queued.get(), 3);
    assert_eq!(bench.log.state().committed, 0);

    bench.pass(1_000).await;

    let tried = bench.tried();
    assert_eq!(tried[..4], vec![(1, vec![1, 2]); 4], "{tried:?}");
    assert_eq!(tried[4..], vec![(2, vec![3])]);
    assert_eq!(bench.stats.store.failing_since.get(), 0);
    assert_eq!(bench.stats.store.failures.get(), 3);
    assert_eq!(bench.budget.in_flight_batches(), 0);
    assert!(bench.faults.take().await.is_empty());
}

#[actix_rt::test]
async fn tries_become_rarer_during_an_outage() {
    tokio::time::pause();
    let mut bench = Bench::scripted(|script| script.answers.extend((0..1_000).map(|_| away())));
    bench.append(1, 1);

    bench.pass(60_000).await;

    let tries = bench.tried().len();
    assert!((60..70).contains(&tries), "{tries}");
}

#[actix_rt::test]
async fn refused_rows_go_to_quarantine_and_the_rest_is_committed() {
    tokio::time::pause();
    let mut bench = Bench::scripted(|script| script.refused = vec![4, 9]);
    bench.append(5, 1);
    bench.append(5, 1);

    bench.pass(60).await;

    let mut stored = bench.stored();
    stored.sort_unstable();
    assert_eq!(stored, vec![1, 2, 3, 5, 6, 7, 8, 10]);
    assert_eq!(bench.script.script().offsets, vec![10, 20]);
    assert_eq!(bench.stats.store.quarantined.get(), 2);
    assert_eq!(bench.stats.store.inserted.get(), 8);
    assert_eq!(bench.log.state().committed, 2);
    let path = bench.directory.path().join("quarantine.jsonl");
    let lines = std::fs::read_to_string(path).unwrap();
    assert_eq!(lines.lines().count(), 2);
    assert!(lines.contains("fills block 4 ") && lines.contains("fills block 9 "), "{lines}");
    // A number stands for one content.
    let tried = bench.tried();
    assert!(tried.windows(2).all(|pair| pair[0].0 < pair[1].0), "{tried:?}");
}

#[actix_rt::test]
async fn an_outage_while_a_refused_row_is_sought_repeats_under_new_numbers() {
    tokio::time::pause();
    let refusal = || StoreError::Refused("no 3".into());
    let mut bench = Bench::scripted(|script| {
        script.refused = vec![3];
        script.answers.extend([refusal(), away()]);
    });
    bench.append(4, 1);

    bench.pass(200).await;

    let tried = bench.tried();
    assert!(tried.windows(2).all(|pair| pair[0].0 < pair[1].0), "{tried:?}");
    let mut stored = bench.stored();
    stored.sort_unstable();
    assert_eq!(stored, vec![1, 2, 4]);
    assert_eq!(bench.stats.store.quarantined.get(), 1);
}

#[actix_rt::test]
async fn after_a_lost_batch_nothing_is_committed_until_the_new_generation() {
    tokio::time::pause();
    let mut bench =
        Bench::scripted(|script| script.answers.push_back(StoreError::Failed("?".into())));
    bench.append(2, 1);
    bench.pass(60).await;
    bench.append(1, 1);
    bench.pass(2_000).await;
    let faults = bench.faults.take().await;
    assert!(matches!(faults[..], [StoreFault::BatchLost { generation: 1 }]), "{faults:?}");
    assert_eq!(bench.tried().len(), 1);

    bench.log.abandon_uncommitted();
    let recovered = bench.writer.send(NewGeneration { generation: 2 }).await.unwrap().unwrap();
    bench.append(1, 1); // Was still under way.
    bench.append(1, 2);
    bench.pass(60).await;

    assert_eq!(recovered.last_seq, 0);
    assert_eq!(bench.stored(), vec![5]);
    assert_eq!(bench.stats.store.stale.get(), 4);
    assert_eq!(bench.stats.store.failing_since.get(), 0);
    // What was received is what was stored and what was refused as stale.
    assert_eq!(bench.stats.store.inserted.get() + bench.stats.store.stale.get(), bench.seq);
}

/// What came behind a lost batch holds checkpoints beyond it: committed, they would skip it.
#[actix_rt::test]
async fn after_a_lost_batch_the_last_flush_commits_nothing_that_came_behind_it() {
    tokio::time::pause();
    let mut bench =
        Bench::with(StoreConfig { min_free_bytes: 0, ..StoreConfig::default() }, |script| {
            script.answers.push_back(StoreError::Failed("?".into()))
        });
    bench.append(2, 1);
    bench.pass(60).await;
    bench.append(1, 1);

    bench.flush().await.unwrap();

    assert_eq!(bench.tried().len(), 1);
    assert_eq!(bench.script.script().offsets, Vec::<u64>::new());
    assert!(bench.script.script().closed);
}

#[actix_rt::test]
async fn a_new_generation_drops_what_waited_behind_the_lost_batch() {
    tokio::time::pause();
    let config = StoreConfig { batch_events: 2, min_free_bytes: 0, ..StoreConfig::default() };
    let mut bench =
        Bench::with(config, |script| script.answers.push_back(StoreError::Failed("?".into())));
    for _ in 0..3 {
        bench.append(1, 1);
    }
    bench.pass(60).await;
    assert_eq!(bench.tried(), vec![(1, vec![1, 2])]);
    assert_eq!(bench.stats.store.queued.get(), 1);

    bench.log.abandon_uncommitted();
    bench.writer.send(NewGeneration { generation: 2 }).await.unwrap().unwrap();
    bench.append(1, 2);
    bench.pass(60).await;

    assert_eq!(bench.stored(), vec![4]);
    assert_eq!(bench.stats.store.stale.get(), 3);
}

#[actix_rt::test]
async fn a_lost_lease_stops_the_daemon_and_all_writing() {
    tokio::time::pause();
    let mut bench =
        Bench::scripted(|script| script.answers.push_back(StoreError::LeaseLost("run 2".into())));
    bench.append(1, 1);
    bench.pass(60).await;
    bench.append(1, 1);
    bench.pass(20_000).await;

    let faults = bench.faults.take().await;
    assert!(matches!(faults[..], [StoreFault::Fatal(StoreError::LeaseLost(_))]), "{faults:?}");
    assert_eq!(bench.tried().len(), 1);
    assert!(bench.script.script().retain_calls.is_empty());
}

#[actix_rt::test]
async fn a_flush_commits_all_and_closes() {
    // H47
    tokio::time::pause();
    let config = StoreConfig { batch_events: 2, min_free_bytes: 0, ..StoreConfig::default() };
    let mut bench = Bench::with(config, |script| script.answers.push_back(away()));
    for _ in 0..5 {
        bench.append(1, 1);
    }

    bench.flush().await.unwrap();

    assert_eq!(bench.stored(), vec![1, 2, 3, 4, 5]);
    assert!(bench.script.script().closed);
    assert_eq!(bench.budget.in_flight_batches(), 0);
    bench.append(1, 1);
    bench.pass(2_000).await;
    assert_eq!(bench.stored().len(), 5);
}

#[actix_rt::test]
async fn in_a_hurry_no_batch_waits_for_more() {
    tokio::time::pause();
    let mut bench = Bench::with(
        StoreConfig { batch_delay: Duration::from_secs(10), ..StoreConfig::default() },
        |_| {},
    );
    bench.append(1, 1);
    bench.pass(100).await;
    assert_eq!(bench.stored(), Vec::<u64>::new());

    bench.writer.send(Hurry).await.unwrap();
    bench.pass(1).await;
    assert_eq!(bench.stored(), vec![1]);
    bench.append(1, 1);
    bench.pass(1).await;

    assert_eq!(bench.stored(), vec![1, 2]);
    assert_eq!(bench.budget.in_flight_batches(), 0);
}

#[actix_rt::test]
async fn a_flush_gives_up_on_a_store_that_stays_away() {
    tokio::time::pause();
    let mut bench = Bench::scripted(|script| script.answers.extend((0..1_000).map(|_| away())));
    bench.append(1, 1);
    let started = Instant::now();

    let flushed = bench.flush().await;

    assert!(matches!(flushed, Err(StoreError::Unavailable(_))), "{flushed:?}");
    assert!(started.elapsed() <= FLUSH_WITHIN);
    assert!(bench.script.script().closed);
}

/// The real store: what is appended is what is found after a new start.
#[actix_rt::test]
async fn the_real_store_holds_what_was_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("nodecast.db").display());
    let store: Arc<dyn EventStore> = store::open(&url, &StoreConfig::default()).await.unwrap();
    let (writer, _) = store.open_writer().await.unwrap();
    let config = StoreConfig { batch_events: 3, min_free_bytes: 0, ..StoreConfig::default() };
    let mut bench = Bench::on(writer, config, directory);
    for events in [2, 0, 3, 1] {
        bench.append(events, 1);
    }
    let mut bad = event(Topic::new("misc"), 1, 1, 100);
    bad.event.body = bytes::Bytes::from_static(b"\"\xff\"");
    // The second is there already, as seq 1.
    let repeated = event(FILLS, 1, 0, 99);
    bench.append_segment(vec![bad, repeated], Vec::new(), 1, Some(1));

    bench.flush().await.unwrap();

    let seqs: Vec<_> = store.events(page(100)).await.unwrap().iter().map(|e| e.seq).collect();
    assert_eq!(seqs, (1..=6).collect::<Vec<_>>());
    assert_eq!(bench.stats.store.quarantined.get(), 1);
    assert_eq!(bench.stats.store.inserted.get(), 6);
    assert_eq!(bench.stats.store.duplicates.get(), 1);
    assert!(bench.stats.store.last_commit_micros.get() > 0);
    let (_writer, recovered) = store.open_writer().await.unwrap();
    let offset = bench.offset;
    assert_eq!(
        recovered.streams[0].files,
        vec![FileMark::At { file: "20260315/0".into(), offset, digest: 1 }]
    );
    assert_eq!(recovered.last_seq, 100);
}

#[actix_rt::test]
async fn a_back_fill_waits_while_the_live_stream_has_more_than_a_few_events_waiting() {
    let batch_delay = Duration::from_secs(3_600);
    let config = StoreConfig { batch_events: 10, batch_delay, ..StoreConfig::default() };
    let mut bench = Bench::with(config, |_| {});
    let back_fill = || Backfill {
        events: vec![event(FILLS, 5, 0, 0).event],
        setting: store::Setting::default(),
    };

    bench.append(2, 0);
    let postponed = bench.writer.send(back_fill()).await.unwrap().unwrap();
    assert!(matches!(postponed, Stored::Postponed(events) if events.len() == 1));
    assert!(bench.script.script().backfilled.is_empty());

    // It commits them before it handles anything else.
    bench.writer.send(Hurry).await.unwrap();
    let stored = bench.writer.send(back_fill()).await.unwrap().unwrap();
    assert!(matches!(stored, Stored::Done(done) if done.inserted == 1));
    assert_eq!(bench.script.script().backfilled, [5]);
    assert_eq!(bench.script.script().stored, [1, 2]);
}

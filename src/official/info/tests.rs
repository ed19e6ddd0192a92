//! The info service over a real store and a log: its answers, its pages, its snapshots, its upstream.

mod pages;
mod recorded;
mod snapshots;
mod unlisted;
mod upstream;

use std::{path::Path, time::Duration};

use serde_json::{Value, value::RawValue};
use tempfile::TempDir;

use super::*;
use crate::{
    config::{Config, OfficialConfig, StoreConfig},
    event::{Event, EventId, SequencedEvent, Timestamp, Topic},
    official::{
        FILLS, MISC,
        tests::{FILL, FUNDING, SEND, user},
    },
    router::log::{Heads, LogEvent, NewSegment},
    source::{Budget, Density, Form, Progress, Stream, node},
    store::{self, CommitBatch, StoreWriter},
    testing::{Probe, log as silent},
    whitelist::{Listing, Whitelist},
};

/// Time of block 0, in microseconds; a block takes 70 ms, and its time has a fraction of a millisecond.
const START: i64 = 1_773_532_800_000_123;

fn block_ms(block: u64) -> i64 {
    block_time(block).0 / 1_000
}

fn block_time(block: u64) -> Timestamp {
    Timestamp(START + block as i64 * 70_000)
}

/// A service over an empty store.
struct Scene {
    info: Info,
    writer: Box<dyn StoreWriter>,
    log: Arc<Log>,
    stats: Arc<Stats>,
    commits: u64,
    seq: u64,
    budget: Arc<Budget>,
    _folder: TempDir,
}

impl Scene {
    async fn new(official: OfficialConfig) -> Self {
        let state = tempfile::tempdir().unwrap();
        Self::with_state(state.path(), official).await
    }

    /// With the state directory of an earlier one, and a store of its own.
    async fn with_state(state_dir: &Path, official: OfficialConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("nodecast.db").display());
        let config = StoreConfig { durable: false, ..StoreConfig::default() };
        let store = store::open(&url, &config).await.unwrap();
        let (writer, _) = store.open_writer().await.unwrap();
        let log = Log::new(1 << 20, 0, Heads { epoch: 1, run: 2, positions: vec![] });
        let stats = Arc::<Stats>::default();
        let config = Config { official, state_dir: state_dir.to_owned(), ..Config::default() };
        let config = Arc::new(LiveConfig::new(config));
        let info = Info::new(
            store,
            log.clone(),
            config,
            Listing::unchanging(Whitelist::all()),
            stats.clone(),
            silent(),
        );
        let budget = Budget::new(usize::MAX, Probe::start().recipient());
        Self { info, writer, log, stats, commits: 0, seq: 0, budget, _folder: folder }
    }

    async fn of_rows(max_rows: usize) -> Self {
        let rows =
            OfficialConfig { max_rows, snapshot_rows: max_rows, ..OfficialConfig::default() };
        Self::new(rows).await
    }

    /// Gives an event the next number.
    fn number(&mut self, event: Event) -> SequencedEvent {
        self.seq += 1;
        SequencedEvent { seq: self.seq, late: false, event }
    }

    async fn commit(&mut self, events: &[SequencedEvent]) {
        self.commits += 1;
        let batch = CommitBatch {
            number: self.commits,
            events: &events.iter().collect::<Vec<_>>(),
            seen: &[],
            gaps_opened: &[],
            gaps_closed: &[],
            progress: &[],
            last_seq: events.iter().map(|event| event.seq).max().unwrap_or(0),
            newest_time: None,
        };
        self.writer.commit(batch).await.unwrap();
    }

    /// Stores events in this order of arrival.
    async fn store(&mut self, events: impl IntoIterator<Item = Event>) {
        let events: Vec<_> = events.into_iter().map(|event| self.number(event)).collect();
        self.commit(&events).await;
    }

    /// Appends a batch to the log, and gives its number.
    fn cast(&mut self, events: &[SequencedEvent]) -> u64 {
        let heads = Arc::new(Heads { epoch: 1, run: 2, positions: vec![] });
        let stream = Arc::new(Stream {
            name: "/data/fills".into(),
            node: "/data".into(),
            topic: FILLS,
            form: Form::ByBlock,
            density: Density::Dense,
            directory: "/data".into(),
        });
        self.log.append(NewSegment {
            generation: 0,
            events: events.iter().map(|one| LogEvent::new(one.clone(), heads.clone())).collect(),
            notices: Vec::new(),
            seen: Vec::new(),
            heads,
            progress: Progress { stream, files: Vec::new(), state: Default::default() },
            read_at: Timestamp(0),
            credit: self.budget.take(1, 0),
        })
    }

    async fn ask(&self, request: &str) -> Result<String, InfoError> {
        let answer = self.info.answer(request.as_bytes(), &Client::default()).await?;
        Ok(String::from_utf8(answer.to_vec()).unwrap())
    }

    /// The rows of an answer, as they are written there.
    async fn rows(&self, request: &str) -> Vec<String> {
        let answer = self.ask(request).await.unwrap();
        let rows: Vec<Box<RawValue>> = serde_json::from_str(&answer).unwrap();
        rows.into_iter().map(|row| row.get().to_owned()).collect()
    }

    /// The numbers of the trades of an answer of fills.
    async fn tids(&self, request: &str) -> Vec<u64> {
        self.rows(request).await.iter().map(|row| tid(row)).collect()
    }
}

fn tid(fill: &str) -> u64 {
    serde_json::from_str::<Value>(fill).unwrap()["tid"].as_u64().unwrap()
}

/// A request of user 7, with further fields.
fn request(kind: &str, fields: &str) -> String {
    format!(r#"{{"type":"{kind}","user":"{}"{fields}}}"#, user(7))
}

fn event(topic: Topic, block: u64, index: u32, by: u8, body: &str) -> Event {
    let body = bytes::Bytes::copy_from_slice(body.as_bytes());
    Event {
        id: EventId { topic, position: block, index, part: 0 },
        time: block_time(block),
        user: Some(user(by)),
        keys: node::keys_of(topic, &body),
        body,
    }
}

fn fill_body(block: u64, tid: u64) -> String {
    FILL.replace("868180814349127", &tid.to_string())
        .replace("1773532799991", &block_ms(block).to_string())
}

/// A fill of user 7 in an order of its own.
pub fn fill(block: u64, index: u32, tid: u64) -> Event {
    let body = fill_body(block, tid).replace("349162667230", &(1_000_000 + tid).to_string());
    event(FILLS, block, index, 7, &body)
}

/// A fill of user 7 in the crossing order of its block.
fn partial(block: u64, index: u32, tid: u64) -> Event {
    event(FILLS, block, index, 7, &fill_body(block, tid))
}

pub fn slice(block: u64, index: u32, tid: u64) -> Event {
    let body = fill_body(block, tid).replace("\"twapId\":null", "\"twapId\":1671203");
    event(FILLS, block, index, 7, &body)
}

pub fn funding(block: u64) -> Event {
    event(MISC, block, 0, 7, FUNDING)
}

pub fn update(block: u64, delta: &str) -> Event {
    event(MISC, block, 1, 7, &SEND.replace("DELTA", delta))
}

/// The rows that a model has: fills in the order of blocks, as a set of requests would find them.
fn sorted(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by_key(|event| (event.id.position, event.id.index));
    events
}

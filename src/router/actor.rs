//! Gives order: drops what was delivered before, assigns `seq`, appends to the log.
//!
//! Place in the pipeline: `WhitelistFilter` (of every chain) -> **`Router`** -> the log, which
//! `DbWriter` and the shards read. One for all chains.
//! Invariants: every batch reaches the log, emptied ones too; `seq` only grows; an event that was
//! delivered before is dropped and counted.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use actix::prelude::*;
use async_trait::async_trait;
use slog::{Logger, error, info, o, warn};

use super::{
    ledger::{BlockRange, Gap, Ledger, Verdict},
    log::{Heads, Log, LogEvent, NewSegment, Notice},
    readers::Readers,
    track::{Jump, Sequencer, Track},
};
use crate::{
    event::{Event, EventId, SequencedEvent, Timestamp, Topic},
    fail_point,
    roll_call::RollCall,
    source::{
        Block, Budget, Density, EventBatch, Form, Progress, Stream, StreamCheckpoint, StreamState,
    },
    stats::Stats,
};

/// Time between two attempts to ask a store that is away.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Starts a new life of the pipeline from what the store holds. Batches of earlier lives that are
/// still under way are refused.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Restart {
    pub generation: u64,
    pub streams: Vec<StreamCheckpoint>,
    pub seen: Vec<BlockRange>,
    pub gaps: Vec<Gap>,
    pub heads: Vec<(Topic, u64)>,
}

/// Events of one topic from outside of the streams, which are to be cast as late ones: those that the
/// store does not hold. Answered with their number, when they are in the log.
#[derive(Message)]
#[rtype(result = "usize")]
pub struct CastLate {
    pub events: Vec<Event>,
    /// Charged until they are committed.
    pub budget: Arc<Budget>,
}

/// Answers which events are stored, for blocks that the ledger has forgotten.
#[async_trait]
pub trait StoredIds: Send + Sync {
    /// # Errors
    /// A text for the log when the store cannot be asked; the Router waits and asks again.
    async fn stored(&self, ids: Vec<EventId>) -> Result<HashSet<EventId>, String>;
}

/// Gives the events of all node directories one order.
pub struct Router {
    generation: u64,
    ledgers: HashMap<Topic, Ledger>,
    /// By name of the stream; made at its first batch.
    tracks: HashMap<Arc<str>, Track>,
    /// What the store said of streams that have not sent a batch yet.
    states: HashMap<Arc<str>, StreamState>,
    sequencer: Sequencer,
    heads: Arc<Heads>,
    log: Arc<Log>,
    readers: Arc<Readers>,
    stored: Arc<dyn StoredIds>,
    stats: Arc<Stats>,
    logger: Logger,
}

/// A batch on its way through the rules.
struct Sorted {
    batch: EventBatch,
    /// Events that are new, or of which only the store can tell.
    events: Vec<Event>,
    /// Identities among `events` to ask the store for.
    uncertain: Vec<EventId>,
    seen: Vec<BlockRange>,
    notices: Vec<Notice>,
}

impl Router {
    /// Starts above `last_seq`. It needs a [`Restart`] before its first batch.
    pub fn new(
        log: Arc<Log>,
        readers: Arc<Readers>,
        stored: Arc<dyn StoredIds>,
        stats: Arc<Stats>,
        logger: &Logger,
    ) -> Self {
        let logger = logger.new(o!("actor" => "router"));
        let heads = Arc::new(log.heads());
        let sequencer = Sequencer::above(log.state().last_seq);
        Self {
            generation: 0,
            ledgers: HashMap::new(),
            tracks: HashMap::new(),
            states: HashMap::new(),
            sequencer,
            heads,
            log,
            readers,
            stored,
            stats,
            logger,
        }
    }

    fn restart(&mut self, restart: Restart) {
        self.generation = restart.generation;
        self.tracks.clear();
        self.states =
            restart.streams.into_iter().map(|stream| (stream.name, stream.state)).collect();
        self.ledgers.clear();
        for range in &restart.seen {
            self.ledger(range.topic).load(range);
        }
        self.ledgers.values_mut().for_each(Ledger::loaded);
        for gap in restart.gaps {
            self.ledger(gap.topic).load_gap(gap);
        }
        for &(_, position) in &restart.heads {
            self.stats.router.height.raise(position as i64);
        }
        self.heads = Arc::new(Heads { positions: restart.heads, ..*self.heads });
        self.publish_gaps();
        self.count_remembered();
        info!(self.logger, "ledger loaded";
            "generation" => self.generation, "ranges" => restart.seen.len());
    }

    fn ledger(&mut self, topic: Topic) -> &mut Ledger {
        self.ledgers.entry(topic).or_insert_with(|| Ledger::new(topic))
    }

    /// Asks the ledger about each block and keeps what may be new.
    fn sort(&mut self, mut batch: EventBatch, now: Timestamp) -> Sorted {
        let stream = batch.progress.stream.clone();
        let topic = stream.topic;
        let mut track = match self.tracks.remove(&stream.name) {
            Some(track) => track,
            None => Track::new(&stream, self.states.get(&stream.name)),
        };
        if batch.discontinuity {
            track.note_discontinuity();
        }
        let stats = self.stats.clone();
        let logger = self.logger.clone();
        let ledger = self.ledger(topic);
        let (mut events, mut uncertain) = (Vec::new(), Vec::new());
        let (mut seen, mut notices) = (Seen::new(topic), Vec::new());
        for block in &mut batch.blocks {
            stats.router.received.add(block.events.len() as u64);
            stats.router.height.raise(block.position as i64);
            let (opened, what) = match track.advance(block.position) {
                Some(Jump::Dense(previous)) => {
                    (ledger.jump(previous, block.position, now), "blocks are missing")
                }
                Some(Jump::Suspected(previous)) => {
                    (ledger.suspect(previous, block.position, now), "blocks may be missing")
                }
                None => (Vec::new(), ""),
            };
            for gap in opened {
                warn!(logger, "{}", what; "stream" => %stream.name,
                    "first_block" => gap.first, "last_block" => gap.last);
                stats.router.gaps_opened.add(1);
                notices.push(Notice::GapOpened(gap));
            }
            let verdict = ledger.observe(block);
            let from_index = match verdict {
                Verdict::New { from_index } => from_index,
                Verdict::Uncertain => 0,
                Verdict::Seen { conflict } => {
                    stats.router.duplicates.add(block.events.len() as u64);
                    if conflict {
                        stats.router.conflicts.add(1);
                        if let Some(left_out) = track.note_conflict(now) {
                            error!(logger, "a block came again with other content";
                                "stream" => %stream.name, "block" => block.position,
                                "not_logged" => left_out);
                        }
                    }
                    continue;
                }
            };
            seen.add(block);
            for gap in ledger.close_gaps(block.position, now) {
                info!(logger, "missing blocks have come"; "stream" => %stream.name,
                    "first_block" => gap.first, "last_block" => gap.last);
                stats.router.gaps_closed.add(1);
                notices.push(Notice::GapClosed(gap));
            }
            let received = block.events.len();
            let kept = events.len();
            events.extend(block.events.drain(..).filter(|event| event.id.index >= from_index));
            stats.router.duplicates.add((received - (events.len() - kept)) as u64);
            if verdict == Verdict::Uncertain {
                uncertain.extend(events[kept..].iter().map(|event| event.id));
            }
        }
        self.tracks.insert(stream.name.clone(), track);
        self.count_remembered();
        if !notices.is_empty() {
            self.publish_gaps();
        }
        Sorted { batch, events, uncertain, seen: seen.ranges, notices }
    }

    /// Makes a batch of events that belong to no stream: it moves no checkpoint, and tells the ledger
    /// nothing.
    fn late_batch(&self, cast: CastLate) -> Sorted {
        let topic = cast.events.first().map_or(Topic::new("none"), |event| event.id.topic);
        let stream = Arc::new(Stream {
            name: format!("backfill/{topic}").into(),
            node: "".into(),
            topic,
            form: Form::ByBlock,
            density: Density::Sparse,
            directory: PathBuf::new(),
        });
        let cost = cast.events.iter().map(Event::cost_bytes).sum();
        let batch = EventBatch {
            generation: self.generation,
            blocks: Vec::new(),
            progress: Progress { stream, files: Vec::new(), state: StreamState::default() },
            discontinuity: false,
            read_at: Timestamp::now(),
            credit: cast.budget.take(cost, self.generation),
        };
        let uncertain = cast.events.iter().map(|event| event.id).collect();
        let (events, seen, notices) = (cast.events, Vec::new(), Vec::new());
        self.stats.router.received.add(events.len() as u64);
        Sorted { batch, events, uncertain, seen, notices }
    }

    /// Gives the events their order and hands the batch to the readers of the log.
    fn append(&mut self, sorted: Sorted, now: Timestamp) {
        let Sorted { batch, events, seen, notices, .. } = sorted;
        let topic = batch.progress.stream.topic;
        let mut head = self.heads.positions.iter().find(|(known, _)| *known == topic).map(|h| h.1);
        let before = self.heads.clone();
        let numbers = self.sequencer.of_batch(now, events.len());
        let events: Vec<_> = events
            .into_iter()
            .zip(numbers)
            .map(|(event, seq)| {
                let late = head.is_some_and(|head| event.id.position < head);
                head = head.max(Some(event.id.position));
                self.stats.router.late.add(u64::from(late));
                LogEvent::new(SequencedEvent { seq, late, event }, before.clone())
            })
            .collect();
        let last_block = batch.blocks.iter().map(|block| block.position).max();
        self.raise_head(topic, last_block.max(head));
        self.stats.router.sequenced.add(events.len() as u64);
        self.log.append(NewSegment {
            generation: batch.generation,
            events,
            notices,
            seen,
            heads: self.heads.clone(),
            progress: batch.progress,
            read_at: batch.read_at,
            credit: batch.credit,
        });
        self.readers.wake();
    }

    fn raise_head(&mut self, topic: Topic, position: Option<u64>) {
        let Some(position) = position else { return };
        match self.heads.positions.iter().position(|(known, _)| *known == topic) {
            Some(at) if self.heads.positions[at].1 >= position => {}
            Some(at) => Arc::make_mut(&mut self.heads).positions[at].1 = position,
            None => Arc::make_mut(&mut self.heads).positions.push((topic, position)),
        }
    }

    fn publish_gaps(&self) {
        let gaps = self.ledgers.values().flat_map(|ledger| ledger.open_gaps().iter().cloned());
        self.stats.router.gaps.replace(gaps.collect());
    }

    fn count_remembered(&self) {
        let stats = &self.stats.router;
        let gauges = [&stats.ledger_runs, &stats.ledger_pieces, &stats.ledger_digests];
        for (memory, gauge) in gauges.into_iter().enumerate() {
            let held = self.ledgers.values().map(|ledger| ledger.remembered()[memory]).max();
            gauge.set(held.unwrap_or(0) as i64);
        }
    }

    /// Drops the events that are stored, or are on their way to the store.
    fn drop_stored(&mut self, sorted: &mut Sorted, stored: &HashSet<EventId>) {
        let before = sorted.events.len();
        sorted.events.retain(|event| !stored.contains(&event.id));
        self.stats.router.duplicates.add((before - sorted.events.len()) as u64);
    }
}

/// Collects the blocks that were new into ranges.
struct Seen {
    topic: Topic,
    ranges: Vec<BlockRange>,
}

impl Seen {
    fn new(topic: Topic) -> Self {
        Self { topic, ranges: Vec::new() }
    }

    fn add(&mut self, block: &Block) {
        let (topic, position) = (self.topic, block.position);
        let (first, last) = (position, position);
        match self.ranges.last_mut() {
            Some(range)
                if block.complete && range.next_index.is_none() && position == range.last + 1 =>
            {
                range.last = position;
                range.digests.push(block.digest);
                return;
            }
            Some(range) if !block.complete && range.first == position => {
                if let Some(next_index) = &mut range.next_index {
                    *next_index = block.indexes.end.max(*next_index);
                    return;
                }
            }
            _ => {}
        }
        self.ranges.push(if block.complete {
            BlockRange { topic, first, last, next_index: None, digests: vec![block.digest] }
        } else {
            let next_index = Some(block.indexes.end);
            BlockRange { topic, first, last, next_index, digests: Vec::new() }
        });
    }
}

/// Asks until there is an answer. What is in flight counts as stored: it is looked up first, since
/// what has left the log by then is in the store.
async fn ask(
    stored: Arc<dyn StoredIds>,
    log: Arc<Log>,
    ids: Vec<EventId>,
    logger: Logger,
) -> HashSet<EventId> {
    let mut known = log.uncommitted_among(&ids.iter().copied().collect());
    loop {
        match stored.stored(ids.clone()).await {
            Ok(found) => {
                known.extend(found);
                return known;
            }
            Err(error) => {
                warn!(logger, "old blocks wait for the store"; "error" => error);
                actix_rt::time::sleep(ASK_AGAIN).await;
            }
        }
    }
}

impl Actor for Router {
    type Context = Context<Self>;
}

impl Handler<Restart> for Router {
    type Result = ();

    fn handle(&mut self, restart: Restart, _ctx: &mut Self::Context) {
        self.restart(restart);
    }
}

impl Handler<EventBatch> for Router {
    type Result = ();

    fn handle(&mut self, batch: EventBatch, ctx: &mut Self::Context) {
        fail_point!("router.handle");
        if batch.generation != self.generation {
            let events = batch.blocks.iter().map(|block| block.events.len() as u64).sum();
            self.stats.router.stale.add(events);
            return;
        }
        let now = Timestamp::now();
        let mut sorted = self.sort(batch, now);
        if sorted.uncertain.is_empty() {
            self.append(sorted, now);
            fail_point!("router.appended");
            return;
        }
        // Rare: a node directory that lags by hours. Nothing overtakes it while it asks.
        let ids = std::mem::take(&mut sorted.uncertain);
        self.stats.router.asking.set(1);
        let asking = ask(self.stored.clone(), self.log.clone(), ids, self.logger.clone());
        ctx.wait(asking.into_actor(self).map(move |stored, router, _ctx| {
            router.stats.router.asking.set(0);
            router.drop_stored(&mut sorted, &stored);
            router.append(sorted, Timestamp::now());
        }));
    }
}

impl Handler<CastLate> for Router {
    type Result = AtomicResponse<Self, usize>;

    fn handle(&mut self, cast: CastLate, _ctx: &mut Self::Context) -> Self::Result {
        let mut sorted = self.late_batch(cast);
        let ids = std::mem::take(&mut sorted.uncertain);
        self.stats.router.asking.set(1);
        let asking = ask(self.stored.clone(), self.log.clone(), ids, self.logger.clone());
        AtomicResponse::new(Box::pin(asking.into_actor(self).map(move |stored, router, _ctx| {
            router.stats.router.asking.set(0);
            router.drop_stored(&mut sorted, &stored);
            let new = sorted.events.len();
            router.append(sorted, Timestamp::now());
            new
        })))
    }
}

impl Handler<RollCall> for Router {
    type Result = ();

    fn handle(&mut self, _: RollCall, _ctx: &mut Self::Context) {}
}

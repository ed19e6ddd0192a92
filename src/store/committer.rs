//! The rules of committing: what a batch is, and what each failure of the store means for it.
//!
//! Place in the pipeline: the plain state beside the actor `DbWriter`, which brings the time.
//! Invariants: a batch takes whole segments, in the order of the log; a number stands for one
//! content, so that a commit whose answer was lost can be repeated; credits go back only after
//! the commit.

mod batch;

use std::{sync::Arc, time::Duration};

use slog::{Logger, error, warn};
use tokio::time::Instant;

use self::batch::{Batch, Contents, Waiting, events_of, halve, last_seq};
use super::{
    Backfilled, CommitBatch, Committed, Recovered, Setting, StoreError, StoreWriter,
    store_backfilled,
};
use crate::{
    config::StoreConfig,
    event::{Event, SequencedEvent, Timestamp},
    fail_point, mirror,
    router::log::Log,
    source::{
        Horizon,
        quarantine::{Quarantine, Refused},
    },
    stats::Stats,
};

/// How long segments without events may wait: their checkpoint advances at least this often, and
/// an idle node costs one commit a second.
const EMPTY_DELAY: Duration = Duration::from_secs(1);

/// When the next commit is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing waits.
    Never,
    At(Instant),
    Now,
}

/// Segments that wait for their commit, and the batch that is tried.
pub struct Committer {
    pub writer: Box<dyn StoreWriter>,
    log: Arc<Log>,
    batch_events: usize,
    batch_bytes: usize,
    batch_delay: Duration,
    horizon: Arc<Horizon>,
    quarantine: Arc<Quarantine>,
    stats: Arc<Stats>,
    /// Told of every commit.
    mirror: Option<Arc<mirror::Committed>>,
    logger: Logger,
    /// Whether batches no longer wait for more.
    hurried: bool,
    /// The newest life of the pipeline that was seen; segments of older ones are passed over.
    pub generation: u64,
    /// Where the log is read next.
    next: u64,
    waiting: Waiting,
    /// Was tried and is tried again, unchanged.
    batch: Option<Batch>,
    /// The last number that was used.
    number: u64,
    /// Highest `seq` that was committed or given up.
    last_seq: u64,
}

/// What the committer is made of besides the store and the log.
pub struct Parts {
    pub horizon: Arc<Horizon>,
    pub quarantine: Arc<Quarantine>,
    pub stats: Arc<Stats>,
    pub logger: Logger,
}

impl Committer {
    pub fn new(
        writer: Box<dyn StoreWriter>,
        log: Arc<Log>,
        config: &StoreConfig,
        parts: Parts,
    ) -> Self {
        let state = log.state();
        Self {
            writer,
            log,
            batch_events: config.batch_events,
            batch_bytes: config.batch_bytes,
            batch_delay: config.batch_delay,
            horizon: parts.horizon,
            quarantine: parts.quarantine,
            stats: parts.stats,
            mirror: None,
            logger: parts.logger,
            hurried: false,
            generation: 0,
            next: state.committed,
            waiting: Waiting::default(),
            batch: None,
            number: 0,
            last_seq: state.committed_seq,
        }
    }

    /// Tells this one of every commit.
    pub fn set_mirror(&mut self, mirror: Arc<mirror::Committed>) {
        self.mirror = Some(mirror);
    }

    /// Takes over what was appended to the log since the last time.
    pub fn collect(&mut self, now: Instant) {
        let slice = self.log.read(self.next, usize::MAX);
        self.next = slice.next;
        for segment in slice.segments {
            if segment.generation < self.generation {
                self.stats.store.stale.add(segment.events.len() as u64);
            } else {
                self.generation = segment.generation;
                self.waiting.push(segment, now);
            }
        }
        self.count_queued();
    }

    /// From now on each batch is due as soon as it is there.
    pub fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Tells when the next batch is to be committed.
    pub fn due(&self) -> Due {
        let full =
            self.waiting.weight >= self.batch_events || self.waiting.bytes >= self.batch_bytes;
        if self.batch.is_some() || full {
            return Due::Now;
        }
        let Some(since) = self.waiting.since else { return Due::Never };
        if self.hurried {
            return Due::Now;
        }
        let empty = since + EMPTY_DELAY.max(self.batch_delay);
        let awaited = self.waiting.awaited_since.map(|since| since + self.batch_delay);
        Due::At(awaited.map_or(empty, |awaited| awaited.min(empty)))
    }

    /// Commits one batch: the one that failed before, or the next.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] the batch is kept for the next call. After every other
    /// error it is lost to this generation.
    pub async fn commit_next(&mut self) -> Result<(), StoreError> {
        let Some(mut batch) = self.batch.take().or_else(|| self.take_batch()) else {
            return Ok(());
        };
        let started = Instant::now();
        match self.commit(&mut batch).await {
            Ok(committed) => {
                let stats = &self.stats.store;
                stats.commits.add(1);
                stats.inserted.add(committed.inserted as u64);
                stats.duplicates.add(committed.duplicates as u64);
                stats.last_commit_at.set(Timestamp::now().0);
                let duration = started.elapsed();
                stats.last_commit_micros.set(duration.as_micros() as i64);
                stats.commit_durations.observe(duration);
                self.last_seq = last_seq(&batch.segments).max(self.last_seq);
                let next = batch.segments.last().map_or(0, |segment| segment.number + 1);
                self.log.commit(next);
                if let Some(mirror) = &self.mirror {
                    batch.segments.iter().for_each(|segment| mirror.note(&segment.progress));
                }
                self.count_queued();
                Ok(())
            }
            Err(error) => {
                self.stats.store.failures.add(1);
                if let StoreError::Unavailable(_) = error {
                    self.batch = Some(batch);
                } else {
                    // A new generation reads them again.
                    self.stats.store.stale.add(events_of(&batch.segments).count() as u64);
                    self.count_queued();
                }
                Err(error)
            }
        }
    }

    /// Goes on with another life of the pipeline: nothing of the older ones is committed any more.
    pub async fn begin(&mut self, generation: u64) -> Result<Recovered, StoreError> {
        self.generation = generation;
        let given_up = self.batch.take().map(|batch| batch.segments).unwrap_or_default();
        let waiting = std::mem::take(&mut self.waiting);
        let (kept, stale): (Vec<_>, Vec<_>) = given_up
            .into_iter()
            .chain(waiting.segments)
            .partition(|segment| segment.generation >= generation);
        let events: usize = stale.iter().map(|segment| segment.events.len()).sum();
        self.stats.store.stale.add(events as u64);
        let now = Instant::now();
        kept.into_iter().for_each(|segment| self.waiting.push(segment, now));
        self.count_queued();
        self.writer.recover().await
    }

    /// Stores events that are no part of the stream. Those that the store refuses go to quarantine.
    pub async fn backfill(
        &mut self,
        events: Vec<Event>,
        setting: Setting,
    ) -> Result<Backfilled, StoreError> {
        fail_point!("store.before_backfill");
        let done = store_backfilled(&mut *self.writer, events, setting).await?;
        fail_point!("store.after_backfill");
        for (event, reason) in &done.refused {
            self.set_aside(event, reason);
        }
        Ok(done)
    }

    /// Whether more than a few live events wait: then nothing else may take the store's time.
    pub fn is_busy(&self) -> bool {
        self.batch.is_some() || self.waiting.events > self.batch_events / 10
    }

    /// Whether anything is left to commit.
    pub fn is_idle(&self) -> bool {
        self.batch.is_none() && self.waiting.segments.is_empty()
    }

    fn count_queued(&self) {
        let tried = self.batch.as_ref().map_or(0, |batch| events_of(&batch.segments).count());
        self.stats.store.queued.set((tried + self.waiting.events) as i64);
    }

    fn take_batch(&mut self) -> Option<Batch> {
        let segments = self.waiting.take(self.batch_events, self.batch_bytes);
        (!segments.is_empty()).then_some(Batch { segments, number: None })
    }

    async fn commit(&mut self, batch: &mut Batch) -> Result<Committed, StoreError> {
        let number = match batch.number {
            Some(number) => number,
            None => self.fresh_number(),
        };
        batch.number = Some(number);
        // Cheap copies, so that the batch itself can be changed below.
        let segments = batch.segments.clone();
        let events: Vec<_> = events_of(&segments).collect();
        let contents = Contents::of(&segments);
        match self.write(number, &events, &contents).await {
            Err(StoreError::Refused(reason)) => {
                // What is tried after this is another content, also when it is the whole again.
                batch.number = None;
                self.commit_what_is_taken(&events, &contents, reason).await
            }
            Ok(committed) if committed == Committed::default() => {
                // An earlier try had succeeded and its answer was lost.
                Ok(Committed { inserted: events.len(), duplicates: 0 })
            }
            other => other,
        }
    }

    /// Finds the refused rows by halving, commits all others, and then the segments' progress.
    ///
    /// The rows come in several transactions. A crash between them is harmless: the progress comes
    /// last, so they are read again and found to be there.
    async fn commit_what_is_taken(
        &mut self,
        events: &[&SequencedEvent],
        contents: &Contents<'_>,
        reason: String,
    ) -> Result<Committed, StoreError> {
        let mut committed = Committed::default();
        let mut refused = Vec::new();
        let nothing = Contents::default();
        let mut parts = Vec::new();
        halve(events, reason, &mut parts, &mut refused);
        while let Some(part) = parts.pop() {
            let number = self.fresh_number();
            match self.write(number, part, &nothing).await {
                Ok(done) => {
                    committed.inserted += done.inserted;
                    committed.duplicates += done.duplicates;
                }
                Err(StoreError::Refused(reason)) => {
                    halve(part, reason, &mut parts, &mut refused);
                }
                Err(error) => return Err(error),
            }
        }
        let number = self.fresh_number();
        self.write(number, &[], contents).await.map_err(|error| match error {
            StoreError::Refused(reason) => {
                StoreError::Unusable(format!("it refuses the ledger or the checkpoints: {reason}"))
            }
            other => other,
        })?;
        for (event, reason) in refused {
            self.set_aside(&event.event, &reason);
        }
        Ok(committed)
    }

    async fn write(
        &mut self,
        number: u64,
        events: &[&SequencedEvent],
        contents: &Contents<'_>,
    ) -> Result<Committed, StoreError> {
        fail_point!("store.before_commit");
        fail_point!("store.commit", StoreError::Failed("fail point store.commit".into()));
        let batch = CommitBatch {
            number,
            events,
            seen: &contents.seen,
            gaps_opened: &contents.gaps_opened,
            gaps_closed: &contents.gaps_closed,
            progress: &contents.progress,
            last_seq: contents.last_seq.max(self.last_seq),
            newest_time: self.horizon.newest(),
        };
        let committed = self.writer.commit(batch).await?;
        fail_point!("store.after_commit");
        Ok(committed)
    }

    fn fresh_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn set_aside(&self, event: &Event, reason: &str) {
        let id = &event.id;
        self.stats.store.quarantined.add(1);
        warn!(self.logger, "event refused by the store"; "topic" => %id.topic,
            "block" => id.position, "index" => id.index, "part" => id.part, "error" => reason);
        let origin =
            format!("{} block {} index {} part {}", id.topic, id.position, id.index, id.part);
        let content = &event.body[..];
        let refused = Refused { reason, origin: &origin, offset_bytes: 0, content };
        if let Err(error) = self.quarantine.put(refused) {
            error!(self.logger, "quarantine failed"; "error" => %error);
        }
    }
}

//! What each stage counts about itself, for status, metrics and tests.
//!
//! Invariant: in every stage received = sent + dropped, and dropped has a reason. No value here is
//! a constant: each is written by the actor that lives it.

mod backfill;
mod counters;
mod histogram;
mod official;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::{
    backfill::BackfillStats,
    counters::{Counter, Gauge, OneMore, Text},
    histogram::{Histogram, Observed},
    official::OfficialStats,
};
use crate::{event::Timestamp, router::gaps::OpenGaps, source::Stream};

/// All counters of the daemon. One is made at the start and shared.
#[derive(Debug, Default)]
pub struct Stats {
    streams: Mutex<Vec<Arc<StreamStats>>>,
    pub filter: FilterStats,
    pub router: RouterStats,
    pub store: StoreStats,
    pub mirror: MirrorStats,
    pub connections: ConnectionStats,
    pub sessions: SessionStats,
    pub backfill: BackfillStats,
    pub official: OfficialStats,
    /// Connections that were cut because their client took nothing of an answer.
    pub write_timeouts: Counter,
    /// Commands that are connected to the control socket.
    pub control_clients: Gauge,
}

/// One stream: its watcher, its tail and its parser. Times are microseconds since 1970, 0 = never.
#[derive(Debug)]
pub struct StreamStats {
    pub stream: Arc<Stream>,
    /// File that is being read, such as `20260315/0`.
    file: Mutex<String>,
    pub offset_bytes: Gauge,
    /// Written by the node and not read by us, over all files.
    pub behind_bytes: Gauge,
    pub read_bytes: Counter,
    pub lines: Counter,
    /// Lines of which nothing could be used.
    pub malformed_lines: Counter,
    /// Lines of which the part behind a break could be used.
    pub recovered_lines: Counter,
    /// Longer than `source.max_line_bytes`.
    pub oversized_lines: Counter,
    /// Elements of blocks, in all.
    pub elements: Counter,
    /// Elements that are not what their topic promises: skipped.
    pub skipped_elements: Counter,
    /// Blocks whose time lies beyond retention or more than a day ahead: refused.
    pub refused_blocks: Counter,
    /// Candidates handed to the filter.
    pub candidates: Counter,
    /// Files that were found shorter, or with other content, than before.
    pub truncations: Counter,
    pub replacements: Counter,
    /// Bytes of files that vanished before they were read, as far as they were known.
    pub lost_bytes: Counter,
    pub read_errors: Counter,
    /// When the last line came of which a block was taken, with or without events, by our clock.
    pub last_line_at: Gauge,
    /// `local_time` of the last line: when the node wrote it.
    pub last_written: Gauge,
    /// `block_time` of the last line.
    pub last_block_time: Gauge,
    pub last_position: Gauge,
    /// Why the stream is not followed at the moment; empty when it is.
    problem: Mutex<String>,
}

/// The whitelist filters of all chains together.
#[derive(Debug, Default)]
pub struct FilterStats {
    pub received: Counter,
    pub accepted: Counter,
    pub rejected: Counter,
    /// Passed the Bloom filter and were not on the list.
    pub false_positives: Counter,
    /// On the list, but their body is not valid JSON.
    pub malformed: Counter,
}

/// Events that came from the filters; `received` = `sequenced` + `duplicates` + `stale`.
#[derive(Debug, Default)]
pub struct RouterStats {
    pub received: Counter,
    pub sequenced: Counter,
    /// Delivered before: a rewind, or another node directory.
    pub duplicates: Counter,
    /// Another content for an identity that was delivered before: an alarm.
    pub conflicts: Counter,
    pub late: Counter,
    pub gaps_opened: Counter,
    pub gaps_closed: Counter,
    /// Pipelines started anew after a lost batch.
    pub generations: Counter,
    /// Highest position over all topics.
    pub height: Gauge,
    /// Refused because it belongs to an earlier life of the pipeline.
    pub stale: Counter,
    /// 1 while it waits for what the store says of old blocks.
    pub asking: Gauge,
    /// The gaps that are open now, with their bounds. Kept by the Router, which knows them anyway.
    pub gaps: OpenGaps,
    /// What the ledger remembers, of the topic with the most: each memory is bounded by itself.
    pub ledger_runs: Gauge,
    pub ledger_pieces: Gauge,
    pub ledger_digests: Gauge,
}

/// Events that came from the log, by what became of them, and the state of the store.
#[derive(Debug, Default)]
pub struct StoreStats {
    pub commits: Counter,
    pub inserted: Counter,
    pub duplicates: Counter,
    /// Rows that the store always refuses.
    pub quarantined: Counter,
    /// Events of generations that are over.
    pub stale: Counter,
    pub failures: Counter,
    /// Events that wait for their commit.
    pub queued: Gauge,
    /// Microseconds since 1970; 0 before the first commit.
    pub last_commit_at: Gauge,
    /// Duration of the last commit, microseconds.
    pub last_commit_micros: Gauge,
    pub commit_durations: Histogram,
    /// How often the store began to fail.
    pub outages: Counter,
    /// While commits fail, or the renewals of the lease when there is nothing to commit: when the last
    /// one succeeded, in microseconds since 1970; 0 while they succeed.
    pub failing_since: Gauge,
    /// Why the last one failed; empty while they succeed.
    pub failure: Text,
    /// Since when the writer waits for an answer of the store, in microseconds since 1970; 0 while it
    /// does not.
    pub at_work_since: Gauge,
    pub deleted: Counter,
    /// 1 while the disk and not the age decides what is kept.
    pub retention_shortened: Gauge,
    pub size_bytes: Gauge,
    pub free_disk_bytes: Gauge,
}

/// The positions of the older service in Redis. Times are microseconds since 1970.
#[derive(Debug, Default)]
pub struct MirrorStats {
    /// 1 when they are to be written.
    pub enabled: Gauge,
    pub writes: Counter,
    /// Each try.
    pub failures: Counter,
    /// 0 before the first one.
    pub last_write_at: Gauge,
    /// Since when they cannot be written; 0 while they can.
    pub failing_since: Gauge,
    /// Why they cannot be written.
    pub problem: Mutex<Option<String>>,
}

/// Sessions of all HTTP workers together.
#[derive(Debug, Default)]
pub struct SessionStats {
    pub open: Gauge,
    pub opened: Counter,
    pub closed: Counter,
    /// Identities that have any of them open.
    pub identities: Gauge,
    /// Clients that were not let in, by [`EnterError`](crate::delivery::set::EnterError).
    pub refusals: Refusals,
    /// Since when clients are sent away, and until when all of them are to be told, in microseconds
    /// since 1970; 0 while none are.
    pub draining_since: Gauge,
    pub draining_until: Gauge,
    /// 1 when the daemon stops.
    pub closing: Gauge,
    pub subscriptions: Gauge,
    /// Users that these name; one that several name counts several times.
    pub users: Gauge,
    /// What sessions asked for beyond `session.max_subscriptions`, `session.max_users` and
    /// `session.max_users_per_subscription`.
    pub refused_subscriptions: Counter,
    pub refused_users: Counter,
    pub refused_users_of_one: Counter,
    pub refused_values: Counter,
    pub frames_queued: Counter,
    pub frames_sent: Counter,
    /// Left in outboxes when their sessions closed.
    pub frames_dropped: Counter,
    pub sent_bytes: Counter,
    /// Sessions that negotiated compression.
    pub compressing: Counter,
    /// Frames that were compressed, each once for all who get it; their bytes before and after.
    pub packed_frames: Counter,
    pub packed_plain_bytes: Counter,
    pub packed_bytes: Counter,
    /// Of frames to sockets, or of chunks to connections.
    pub writes: Counter,
    pub outbox_bytes: Gauge,
    pub slow_consumers: Counter,
    /// How often subscriptions passed over what their clients were too slow for.
    pub skips: Counter,
    /// Events that slow clients did not get because there was a newer one of the same value.
    pub conflated: Counter,
    /// Sessions that are not live: they get what has been, or could not take what is.
    pub behind: Gauge,
    /// Those of them that read the store.
    pub replays: Gauge,
    /// Sessions that look for the place where they begin, or wait for their turn to.
    pub searches: Gauge,
    /// Pages of the order of arrival that were read from the store for them.
    pub replay_pages: Counter,
    /// What such pages take of memory.
    pub replay_bytes: Gauge,
    pub replay_failures: Counter,
    /// Segments that left memory before a shard with subscribers had sent them.
    pub missed_segments: Counter,
    pub ping_timeouts: Counter,
    pub bad_frames: Counter,
    pub panics: Counter,
    /// Sessions whose end began, by [`CloseReason`](crate::delivery::CloseReason).
    pub endings: Endings,
    /// From the read of a segment's bytes until its last event is in the outboxes, for each shard
    /// with subscribers.
    pub cast_durations: Histogram,
}

/// Connections of clients that are no sessions.
#[derive(Debug, Default)]
pub struct ConnectionStats {
    pub open: Gauge,
    /// Refused, as `http.max_connections` were open.
    pub too_many: Counter,
    /// Ended, as a request was not complete within `http.request_timeout`.
    pub too_slow: Counter,
}

/// Clients that were refused a session.
#[derive(Debug, Default)]
pub struct Refusals {
    pub too_many_sessions: Counter,
    pub too_many_of_address: Counter,
    pub too_many_of_identity: Counter,
    pub draining: Counter,
    pub shutting_down: Counter,
}

/// Sessions whose end began, by who or what ended them. A client's own close code is not a label:
/// there are thousands.
#[derive(Debug, Default)]
pub struct Endings {
    pub shutting_down: Counter,
    pub draining: Counter,
    pub protocol: Counter,
    pub not_text: Counter,
    pub not_utf8: Counter,
    pub not_deflate: Counter,
    pub too_big: Counter,
    pub internal: Counter,
    pub slow_consumer: Counter,
    /// Too much waited for all clients together, and for these the most.
    pub evicted: Counter,
    pub ping_timeout: Counter,
    pub missed: Counter,
    pub too_many: Counter,
    /// They wanted nothing.
    pub idle: Counter,
    /// The client closed first.
    pub client: Counter,
    /// The connection ended without a close frame.
    pub lost: Counter,
}

impl Stats {
    /// Adds a stream when its watcher finds it, or gives the one that is there.
    pub fn stream(&self, stream: &Arc<Stream>) -> Arc<StreamStats> {
        let mut streams = self.lock();
        if let Some(known) = streams.iter().find(|known| known.stream.name == stream.name) {
            return known.clone();
        }
        let stats = Arc::new(StreamStats::new(stream.clone()));
        streams.push(stats.clone());
        stats
    }

    /// Takes a stream out that was only expected, when it is known what there is.
    pub fn retire(&self, stream: &Stream) {
        self.lock().retain(|known| known.stream.name != stream.name);
    }

    pub fn streams(&self) -> Vec<Arc<StreamStats>> {
        self.lock().clone()
    }

    /// How old the newest line of a node is: what a client has to add to its own delay. None as long as no
    /// line was read.
    pub fn lag_ms(&self) -> Option<u64> {
        let newest = self.lock().iter().map(|stream| stream.last_written.get()).max()?;
        (newest > 0).then(|| Timestamp::now().since(Timestamp(newest)).as_millis() as u64)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<StreamStats>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamStats {
    fn new(stream: Arc<Stream>) -> Self {
        Self {
            stream,
            file: Mutex::default(),
            offset_bytes: Gauge::default(),
            behind_bytes: Gauge::default(),
            read_bytes: Counter::default(),
            lines: Counter::default(),
            malformed_lines: Counter::default(),
            recovered_lines: Counter::default(),
            oversized_lines: Counter::default(),
            elements: Counter::default(),
            skipped_elements: Counter::default(),
            refused_blocks: Counter::default(),
            candidates: Counter::default(),
            truncations: Counter::default(),
            replacements: Counter::default(),
            lost_bytes: Counter::default(),
            read_errors: Counter::default(),
            last_line_at: Gauge::default(),
            last_written: Gauge::default(),
            last_block_time: Gauge::default(),
            last_position: Gauge::default(),
            problem: Mutex::default(),
        }
    }

    pub fn file(&self) -> String {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes which file is read now and up to where.
    pub fn reading(&self, file: &str, offset: u64) {
        let mut current = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != file {
            file.clone_into(&mut current);
        }
        self.offset_bytes.set(offset as i64);
    }

    /// Notes that a file ends before what was read of it, and is read from another offset.
    pub fn set_back(&self, file: &str, offset: u64) {
        let current = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == file {
            self.offset_bytes.set(offset as i64);
        }
    }

    /// Notes that a file is gone. If it was the one that was read, `newest` is it now.
    pub fn gone(&self, file: &str, newest: Option<(&str, u64)>) {
        let mut current = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == file {
            let (name, offset) = newest.unwrap_or_default();
            name.clone_into(&mut current);
            self.offset_bytes.set(offset as i64);
        }
    }

    pub fn problem(&self) -> String {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_problem(&self, problem: &str) {
        let mut current = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != problem {
            problem.clone_into(&mut current);
        }
    }
}

//! `GET /v1/status`: every stage in figures, for operators and dashboards.
//!
//! Invariant: no value is a constant; what was never measured is null. Durations are milliseconds
//! and end in `_ms`, sizes end in `_bytes`, points in time are microseconds since 1970.

use std::{sync::PoisonError, time::Duration};

use actix_web::HttpResponse;
use serde::Serialize;

use super::{ApiState, State, health, json, older::highest_block};
use crate::{
    backfill::{PendingState, Report},
    config::Reload,
    event::{Timestamp, Topic},
    router::ledger::Gap,
    stats::{Gauge, Refusals, StreamStats},
    store::{StoreError, StoreSize},
    whitelist::{SourceKind, SourceState},
};

/// How long the store may take to tell its size: status has to come also when it hangs.
const SIZE_TIMEOUT: Duration = Duration::from_secs(1);

/// Open gaps that are listed one by one; their number is always told.
const LISTED_GAPS: usize = 100;

#[derive(Debug, Serialize)]
pub struct Status {
    /// `ok`, or `degraded` with its reasons.
    state: &'static str,
    reasons: Vec<String>,
    version: &'static str,
    started: Timestamp,
    /// Null before the first.
    reload: Option<Reload>,
    uptime_ms: u64,
    now: Timestamp,
    /// Which store, and which run of the daemon: the first parts of every cursor, in hexadecimal.
    epoch: String,
    run: String,
    nodes: Vec<NodeStatus>,
    whitelist: WhitelistStatus,
    filter: FilterStatus,
    router: RouterStatus,
    budget: BudgetStatus,
    log: LogStatus,
    store: StoreStatus,
    backfill: BackfillStatus,
    /// Null when positions are not mirrored.
    mirror: Option<MirrorStatus>,
    sessions: SessionsStatus,
    exports_open: usize,
}

#[derive(Debug, Serialize)]
struct NodeStatus {
    node: String,
    streams: Vec<StreamStatus>,
}

#[derive(Debug, Serialize)]
struct StreamStatus {
    stream: String,
    topic: Topic,
    /// Null before the first file.
    file: Option<String>,
    offset_bytes: i64,
    /// Written by the node and not read by us.
    behind_bytes: i64,
    /// From the block to the node's write of its last line.
    node_lag_ms: Option<i64>,
    /// From the node's write of the last line that we read until now.
    lag_ms: Option<i64>,
    /// Since the last usable line came.
    last_line_age_ms: Option<i64>,
    last_block: Option<i64>,
    last_block_time: Option<i64>,
    fresh: bool,
    /// Why the stream is not fresh.
    problem: Option<String>,
    read_bytes: u64,
    lines: u64,
    malformed_lines: u64,
    recovered_lines: u64,
    oversized_lines: u64,
    elements: u64,
    skipped_elements: u64,
    refused_blocks: u64,
    candidates: u64,
    truncations: u64,
    replacements: u64,
    lost_bytes: u64,
    read_errors: u64,
}

#[derive(Debug, Serialize)]
struct WhitelistStatus {
    /// All sources in one text.
    source: String,
    /// Whether everything is kept, for everybody; then there are no addresses.
    everything: bool,
    /// Each counted once, however many sources list it.
    addresses: Option<usize>,
    /// Of the source that was read longest ago.
    loaded_age_ms: u64,
    /// Of all sources.
    problem: Option<String>,
    skipped: usize,
    skipped_example: Option<String>,
    sources: Vec<SourceStatus>,
}

/// One source of the whitelist.
#[derive(Debug, Serialize)]
struct SourceStatus {
    kind: SourceKind,
    name: String,
    addresses: usize,
    loaded_age_ms: u64,
    problem: Option<String>,
    skipped: usize,
    skipped_example: Option<String>,
}

#[derive(Debug, Serialize)]
struct FilterStatus {
    received: u64,
    accepted: u64,
    rejected: u64,
    false_positives: u64,
    malformed: u64,
}

#[derive(Debug, Serialize)]
struct RouterStatus {
    height: u64,
    received: u64,
    sequenced: u64,
    duplicates: u64,
    conflicts: u64,
    late: u64,
    stale: u64,
    /// Pipelines started anew after a lost batch.
    generations: u64,
    gaps_opened: u64,
    gaps_closed: u64,
    gaps_open: usize,
    /// Blocks that are missing, over all open gaps.
    missing_blocks: u64,
    /// The newest of them.
    gaps: Vec<Gap>,
}

#[derive(Debug, Serialize)]
struct BudgetStatus {
    in_flight_bytes: usize,
    in_flight_batches: usize,
    limit_bytes: usize,
    /// Chains that stopped reading until a commit gives bytes back.
    paused_chains: usize,
}

#[derive(Debug, Serialize)]
struct LogStatus {
    bytes: usize,
    segments: u64,
    uncommitted_segments: u64,
    uncommitted_events: usize,
    last_seq: u64,
    committed_seq: u64,
}

#[derive(Debug, Serialize)]
struct StoreStatus {
    store: String,
    /// Whether it answered now.
    reachable: bool,
    problem: Option<String>,
    queued_events: i64,
    commits: u64,
    inserted: u64,
    duplicates: u64,
    quarantined: u64,
    stale: u64,
    failures: u64,
    deleted: u64,
    last_commit_age_ms: Option<i64>,
    /// Null before the first commit.
    last_commit_duration_ms: Option<f64>,
    failing_for_ms: Option<i64>,
    retention_shortened: bool,
    /// As the store told now, else as it was last measured.
    size_bytes: Option<u64>,
    free_disk_bytes: Option<u64>,
    oldest_seq: Option<u64>,
    oldest_time: Option<Timestamp>,
}

/// The positions of the older service in Redis.
#[derive(Debug, Serialize)]
struct MirrorStatus {
    writes: u64,
    failures: u64,
    /// Null before the first write.
    last_write_age_ms: Option<i64>,
    failing_for_ms: Option<i64>,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct BackfillStatus {
    jobs_waiting: i64,
    jobs_running: i64,
    jobs_ended: u64,
    read_bytes: u64,
    stored: u64,
    known: u64,
    refused_rows: u64,
    refused_blocks: u64,
    damaged_lines: u64,
    faults: u64,
    /// Those by list that are not done, as the store keeps them.
    pending: Vec<PendingState>,
    /// How far the one is that runs, with its remaining time.
    running: Option<Report>,
    /// How the last one ended.
    last: Option<Report>,
}

/// Clients are sent away.
#[derive(Debug, Serialize)]
struct DrainStatus {
    since: Timestamp,
    /// When the last of them is told.
    until: Timestamp,
    sessions_left: i64,
}

#[derive(Debug, Serialize)]
struct SessionsStatus {
    open: i64,
    /// Null while clients are let in.
    drain: Option<DrainStatus>,
    /// Clients that a trusted proxy has named.
    identities: i64,
    opened: u64,
    closed: u64,
    refused: RefusedStatus,
    subscriptions: i64,
    frames_queued: u64,
    frames_sent: u64,
    frames_dropped: u64,
    sent_bytes: u64,
    outbox_bytes: i64,
    slow_consumers: u64,
    evicted: u64,
    behind: i64,
    replay_pages: u64,
    replay_failures: u64,
    missed_segments: u64,
    ping_timeouts: u64,
    bad_frames: u64,
    panics: u64,
}

/// Clients that were not let in, by the code that they were told.
#[derive(Debug, Serialize)]
struct RefusedStatus {
    too_many_sessions: u64,
    too_many_of_address: u64,
    too_many_of_identity: u64,
    draining: u64,
    shutting_down: u64,
}

impl RefusedStatus {
    fn of(refusals: &Refusals) -> Self {
        Self {
            too_many_sessions: refusals.too_many_sessions.get(),
            too_many_of_address: refusals.too_many_of_address.get(),
            too_many_of_identity: refusals.too_many_of_identity.get(),
            draining: refusals.draining.get(),
            shutting_down: refusals.shutting_down.get(),
        }
    }
}

pub async fn status(state: State) -> HttpResponse {
    let size = match tokio::time::timeout(SIZE_TIMEOUT, state.store.size()).await {
        Ok(size) => size,
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {SIZE_TIMEOUT:?}"))),
    };
    json(HttpResponse::Ok(), &report(&state, size, Timestamp::now()))
}

/// Puts the report together. `size` is what the store answered just now.
pub fn report(state: &ApiState, size: Result<StoreSize, StoreError>, now: Timestamp) -> Status {
    let mut reasons = health::degradations(state, now);
    if let Err(error) = &size {
        reasons.push(format!("store: {error}"));
    }
    Status {
        state: if reasons.is_empty() { "ok" } else { "degraded" },
        reasons,
        version: env!("CARGO_PKG_VERSION"),
        started: state.started,
        reload: state.config.last_reload(),
        uptime_ms: millis(now.since(state.started)),
        now,
        epoch: format!("{:x}", state.run.epoch),
        run: format!("{:x}", state.run.id),
        nodes: nodes(state, now),
        whitelist: whitelist(state, now),
        filter: filter(state),
        router: router(state),
        budget: budget(state),
        log: log(state),
        store: store(state, size, now),
        backfill: backfill(state),
        mirror: mirror(state, now),
        sessions: sessions(state),
        exports_open: state.exports.open(),
    }
}

fn nodes(state: &ApiState, now: Timestamp) -> Vec<NodeStatus> {
    let streams = state.stats.streams();
    state
        .nodes
        .iter()
        .map(|node| NodeStatus {
            node: node.to_string(),
            streams: streams
                .iter()
                .filter(|stats| stats.stream.node == *node)
                .map(|stats| stream(stats, state.config.get().health.max_lag, now))
                .collect(),
        })
        .collect()
}

fn stream(stats: &StreamStats, max_lag: Duration, now: Timestamp) -> StreamStatus {
    let stale = health::staleness(stats, max_lag, now);
    let file = stats.file();
    let lines_came = stats.last_line_at.get() != 0;
    let between = |later: &Gauge, earlier: &Gauge| {
        (later.get() != 0 && earlier.get() != 0).then(|| (later.get() - earlier.get()) / 1_000)
    };
    StreamStatus {
        stream: stats.stream.name.to_string(),
        topic: stats.stream.topic,
        file: (!file.is_empty()).then_some(file),
        offset_bytes: stats.offset_bytes.get(),
        behind_bytes: stats.behind_bytes.get(),
        node_lag_ms: between(&stats.last_written, &stats.last_block_time),
        lag_ms: age_ms(&stats.last_written, now),
        last_line_age_ms: age_ms(&stats.last_line_at, now),
        last_block: lines_came.then(|| stats.last_position.get()),
        last_block_time: measured(&stats.last_block_time),
        fresh: stale.is_none(),
        problem: stale.map(|stale| stale.to_string()),
        read_bytes: stats.read_bytes.get(),
        lines: stats.lines.get(),
        malformed_lines: stats.malformed_lines.get(),
        recovered_lines: stats.recovered_lines.get(),
        oversized_lines: stats.oversized_lines.get(),
        elements: stats.elements.get(),
        skipped_elements: stats.skipped_elements.get(),
        refused_blocks: stats.refused_blocks.get(),
        candidates: stats.candidates.get(),
        truncations: stats.truncations.get(),
        replacements: stats.replacements.get(),
        lost_bytes: stats.lost_bytes.get(),
        read_errors: stats.read_errors.get(),
    }
}

fn whitelist(state: &ApiState, now: Timestamp) -> WhitelistStatus {
    let report = (state.whitelist)();
    let problem = report.problems().collect::<Vec<_>>().join("; ");
    let example = report.sources.iter().find_map(|source| source.skipped_example.clone());
    WhitelistStatus {
        source: report.describe(),
        everything: report.size.is_none(),
        addresses: report.size,
        loaded_age_ms: millis(now.since(report.loaded_at())),
        problem: (!problem.is_empty()).then_some(problem),
        skipped: report.sources.iter().map(|source| source.skipped).sum(),
        skipped_example: example,
        sources: report.sources.into_iter().map(|source| source_status(source, now)).collect(),
    }
}

fn source_status(state: SourceState, now: Timestamp) -> SourceStatus {
    SourceStatus {
        kind: state.kind,
        name: state.name,
        addresses: state.size,
        loaded_age_ms: millis(now.since(state.loaded_at)),
        problem: state.problem,
        skipped: state.skipped,
        skipped_example: state.skipped_example,
    }
}

fn filter(state: &ApiState) -> FilterStatus {
    let stats = &state.stats.filter;
    FilterStatus {
        received: stats.received.get(),
        accepted: stats.accepted.get(),
        rejected: stats.rejected.get(),
        false_positives: stats.false_positives.get(),
        malformed: stats.malformed.get(),
    }
}

fn router(state: &ApiState) -> RouterStatus {
    let stats = &state.stats.router;
    let mut gaps = stats.gaps.list();
    gaps.sort_by_key(|gap| std::cmp::Reverse(gap.opened));
    let missing = |gap: &Gap| (gap.last - gap.first).saturating_add(1);
    let (gaps_open, missing_blocks) = (gaps.len(), gaps.iter().map(missing).sum());
    gaps.truncate(LISTED_GAPS);
    RouterStatus {
        height: highest_block(state),
        received: stats.received.get(),
        sequenced: stats.sequenced.get(),
        duplicates: stats.duplicates.get(),
        conflicts: stats.conflicts.get(),
        late: stats.late.get(),
        stale: stats.stale.get(),
        generations: stats.generations.get(),
        gaps_opened: stats.gaps_opened.get(),
        gaps_closed: stats.gaps_closed.get(),
        gaps_open,
        missing_blocks,
        gaps,
    }
}

fn budget(state: &ApiState) -> BudgetStatus {
    let budgets = &state.budgets;
    BudgetStatus {
        in_flight_bytes: budgets.iter().map(|budget| budget.in_flight_bytes()).sum(),
        in_flight_batches: budgets.iter().map(|budget| budget.in_flight_batches()).sum(),
        limit_bytes: budgets.iter().map(|budget| budget.limit_bytes()).sum(),
        paused_chains: budgets.iter().filter(|budget| !budget.has_room()).count(),
    }
}

fn log(state: &ApiState) -> LogStatus {
    let log = state.log.state();
    LogStatus {
        bytes: log.bytes,
        segments: log.next - log.first,
        uncommitted_segments: log.next - log.committed,
        uncommitted_events: log.uncommitted_events,
        last_seq: log.last_seq,
        committed_seq: log.committed_seq,
    }
}

fn store(state: &ApiState, size: Result<StoreSize, StoreError>, now: Timestamp) -> StoreStatus {
    let stats = &state.stats.store;
    let kept = |gauge: &Gauge| measured(gauge).and_then(|value| u64::try_from(value).ok());
    let (size, problem) = match size {
        Ok(size) => (Some(size), None),
        Err(error) => (None, Some(error.to_string())),
    };
    StoreStatus {
        store: state.store.describe(),
        reachable: size.is_some(),
        problem,
        queued_events: stats.queued.get(),
        commits: stats.commits.get(),
        inserted: stats.inserted.get(),
        duplicates: stats.duplicates.get(),
        quarantined: stats.quarantined.get(),
        stale: stats.stale.get(),
        failures: stats.failures.get(),
        deleted: stats.deleted.get(),
        last_commit_age_ms: age_ms(&stats.last_commit_at, now),
        last_commit_duration_ms: measured(&stats.last_commit_micros)
            .map(|micros| micros as f64 / 1_000.0),
        failing_for_ms: age_ms(&stats.failing_since, now),
        retention_shortened: stats.retention_shortened.get() != 0,
        size_bytes: size.map(|size| size.bytes).or_else(|| kept(&stats.size_bytes)),
        free_disk_bytes: size
            .and_then(|size| size.free_disk_bytes)
            .or_else(|| kept(&stats.free_disk_bytes)),
        oldest_seq: size.and_then(|size| size.oldest_seq),
        oldest_time: size.and_then(|size| size.oldest_time),
    }
}

fn backfill(state: &ApiState) -> BackfillStatus {
    let stats = &state.stats.backfill;
    let (running, last) = stats.reports();
    BackfillStatus {
        jobs_waiting: stats.waiting.get(),
        jobs_running: stats.running.get(),
        jobs_ended: stats.ended.get(),
        read_bytes: stats.read_bytes.get(),
        stored: stats.stored.get(),
        known: stats.known.get(),
        refused_rows: stats.refused_rows.get(),
        refused_blocks: stats.refused_blocks.get(),
        damaged_lines: stats.damaged_lines.get(),
        faults: stats.faults.get(),
        pending: stats.pending(),
        running,
        last,
    }
}

fn mirror(state: &ApiState, now: Timestamp) -> Option<MirrorStatus> {
    let stats = &state.stats.mirror;
    (stats.enabled.get() != 0).then(|| MirrorStatus {
        writes: stats.writes.get(),
        failures: stats.failures.get(),
        last_write_age_ms: age_ms(&stats.last_write_at, now),
        failing_for_ms: age_ms(&stats.failing_since, now),
        problem: stats.problem.lock().unwrap_or_else(PoisonError::into_inner).clone(),
    })
}

fn sessions(state: &ApiState) -> SessionsStatus {
    let stats = &state.stats.sessions;
    let since = stats.draining_since.get();
    let drain = (since != 0).then(|| DrainStatus {
        since: Timestamp(since),
        until: Timestamp(stats.draining_until.get()),
        sessions_left: stats.open.get(),
    });
    SessionsStatus {
        open: stats.open.get(),
        drain,
        identities: stats.identities.get(),
        opened: stats.opened.get(),
        closed: stats.closed.get(),
        refused: RefusedStatus::of(&stats.refusals),
        subscriptions: stats.subscriptions.get(),
        frames_queued: stats.frames_queued.get(),
        frames_sent: stats.frames_sent.get(),
        frames_dropped: stats.frames_dropped.get(),
        sent_bytes: stats.sent_bytes.get(),
        outbox_bytes: stats.outbox_bytes.get(),
        slow_consumers: stats.slow_consumers.get(),
        evicted: stats.endings.evicted.get(),
        behind: stats.behind.get(),
        replay_pages: stats.replay_pages.get(),
        replay_failures: stats.replay_failures.get(),
        missed_segments: stats.missed_segments.get(),
        ping_timeouts: stats.ping_timeouts.get(),
        bad_frames: stats.bad_frames.get(),
        panics: stats.panics.get(),
    }
}

/// A gauge that is 0 until something was measured.
fn measured(gauge: &Gauge) -> Option<i64> {
    Some(gauge.get()).filter(|value| *value != 0)
}

/// How long ago a point in time was. Negative when the node's clock is ahead of ours: that is
/// shown and not hidden.
fn age_ms(since: &Gauge, now: Timestamp) -> Option<i64> {
    measured(since).map(|micros| (now.0 - micros) / 1_000)
}

pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

//! What is held in memory and what is kept: the log, the store, back-fills, the mirror.

use super::{
    Metrics, measured,
    text::{Kind, Page, seconds},
};
use crate::{backfill::MAX_WAITING_JOBS, logging::Queued, stats::Gauge};

/// What is held between the files and the store, with its bounds.
pub fn memory(page: &mut Page, metrics: &Metrics) {
    let Metrics { state, quarantine, .. } = metrics;
    let config = state.config.get();
    let budgets = &state.budgets;
    let in_flight: usize = budgets.iter().map(|budget| budget.in_flight_bytes()).sum();
    let batches: usize = budgets.iter().map(|budget| budget.in_flight_batches()).sum();
    let limit: usize = budgets.iter().map(|budget| budget.limit_bytes()).sum();
    let paused = budgets.iter().filter(|budget| !budget.has_room()).count();
    page.gauge("nodecast_budget_bytes", "Bytes between their read and their commit.", in_flight);
    page.gauge(
        "nodecast_budget_limit_bytes",
        "Bound of it, over all node directories: source.budget_bytes.",
        limit,
    );
    page.gauge("nodecast_budget_batches", "Batches between their read and their commit.", batches);
    page.gauge(
        "nodecast_budget_paused_chains",
        "Node directories that are not read until a commit gives bytes back.",
        paused,
    );
    let log = state.log.state();
    page.gauge(
        "nodecast_log_bytes",
        "Bytes of events in memory; what is not committed is bounded by the budget.",
        log.bytes,
    );
    page.gauge(
        "nodecast_log_limit_bytes",
        "Above it committed events leave memory: router.recent_bytes.",
        config.router.recent_bytes,
    );
    page.gauge("nodecast_log_segments", "Batches in memory.", log.next - log.first);
    page.gauge(
        "nodecast_log_uncommitted_segments",
        "Batches in memory that are not committed.",
        log.next - log.committed,
    );
    page.gauge(
        "nodecast_log_uncommitted_events",
        "Events in memory that are not committed.",
        log.uncommitted_events,
    );
    page.gauge("nodecast_quarantine_bytes", "Bytes of the quarantine files.", quarantine.bytes());
    page.gauge(
        "nodecast_quarantine_limit_bytes",
        "Bound of it: source.quarantine_max_bytes.",
        quarantine.max_bytes(),
    );
}

/// What the daemon says of itself; without samples where it does not keep the log.
pub fn logging(page: &mut Page, metrics: &Metrics) {
    let queued = metrics.queued.as_ref();
    let records = queued.map(Queued::records);
    page.family(Kind::Gauge, "nodecast_logging_records", "Log records that wait to be written.")
        .measured(&[], records);
    page.family(
        Kind::Gauge,
        "nodecast_logging_limit_records",
        "Bound of it, above which records are dropped: log.channel_records.",
    )
    .measured(&[], queued.map(Queued::limit));
    page.family(
        Kind::Counter,
        "nodecast_logging_dropped_records_total",
        "Log records that found no room.",
    )
    .measured(&[], queued.map(|queued| queued.dropped().get()));
}

pub fn store(page: &mut Page, metrics: &Metrics) {
    let stats = &metrics.state.stats.store;
    let config = metrics.state.config.get();
    let config = &config.store;
    page.counter("nodecast_store_commits_total", "Transactions committed.", &stats.commits);
    page.family(
        Kind::Histogram,
        "nodecast_store_commit_duration_seconds",
        "How long commits took that succeeded.",
    )
    .histogram(&[], &stats.commit_durations.observed());
    page.counter(
        "nodecast_store_failures_total",
        "Commits that failed, each try.",
        &stats.failures,
    );
    page.counter(
        "nodecast_store_outages_total",
        "How often commits began to fail.",
        &stats.outages,
    );
    page.counter(
        "nodecast_store_inserted_total",
        "Events that are new in the store.",
        &stats.inserted,
    );
    page.by_reason("nodecast_store_dropped_total", "Events that were not inserted: there already, always refused by the store, or of a generation that is over.", &[
        ("duplicate", &stats.duplicates),
        ("quarantined", &stats.quarantined),
        ("stale", &stats.stale),
    ]);
    page.counter("nodecast_store_deleted_total", "Events that retention deleted.", &stats.deleted);
    page.gauge(
        "nodecast_store_queued_events",
        "Events that wait for their commit.",
        stats.queued.get(),
    );
    page.gauge(
        "nodecast_store_batch_limit_events",
        "A commit takes about this many of them: store.batch_events.",
        config.batch_events,
    );
    let readers = metrics.state.store.read_connections();
    page.gauge(
        "nodecast_store_read_connections",
        "Connections lent to history reads.",
        readers.lent,
    );
    page.gauge(
        "nodecast_store_read_connections_limit",
        "Bound of it, at which reads wait: store.read_connections.",
        readers.limit,
    );
    let since = |gauge: &Gauge| measured(gauge).map(seconds);
    page.family(
        Kind::Gauge,
        "nodecast_store_last_commit_timestamp_seconds",
        "When the last commit succeeded, since 1970.",
    )
    .measured(&[], since(&stats.last_commit_at));
    page.family(
        Kind::Gauge,
        "nodecast_store_failing_since_timestamp_seconds",
        "Since when commits fail; absent while they succeed.",
    )
    .measured(&[], since(&stats.failing_since));
    page.family(
        Kind::Gauge,
        "nodecast_store_bytes",
        "Size of the database when it was last measured.",
    )
    .measured(&[], measured(&stats.size_bytes));
    page.family(
        Kind::Gauge,
        "nodecast_store_limit_bytes",
        "Above it the oldest events go early: store.max_bytes; absent without a bound.",
    )
    .measured(&[], Some(config.max_bytes).filter(|bytes| *bytes > 0));
    page.family(
        Kind::Gauge,
        "nodecast_store_free_disk_bytes",
        "Free space beside the database when it was last measured.",
    )
    .measured(&[], measured(&stats.free_disk_bytes));
    page.gauge(
        "nodecast_store_free_disk_limit_bytes",
        "Below it the oldest events go early: store.min_free_bytes.",
        config.min_free_bytes,
    );
    page.gauge(
        "nodecast_store_retention_shortened",
        "1 while the disk and not the age decides what is kept.",
        stats.retention_shortened.get(),
    );
}

/// Older events that are read for users who were listed later.
pub fn backfill(page: &mut Page, metrics: &Metrics) {
    let stats = &metrics.state.stats.backfill;
    let mut jobs = page.family(
        Kind::Gauge,
        "nodecast_backfill_jobs",
        "Back-fills that wait, and the one that runs.",
    );
    jobs.sample(&[("state", "waiting")], stats.waiting.get());
    jobs.sample(&[("state", "running")], stats.running.get());
    page.gauge(
        "nodecast_backfill_jobs_limit",
        "Most that wait; more by hand are refused.",
        MAX_WAITING_JOBS,
    );
    page.counter(
        "nodecast_backfill_jobs_ended_total",
        "Back-fills that ended, cancelled and failed ones too.",
        &stats.ended,
    );
    page.counter(
        "nodecast_backfill_read_bytes_total",
        "Bytes read of hour files and archives; what is passed over does not count.",
        &stats.read_bytes,
    );
    page.counter("nodecast_backfill_stored_total", "Events that were new.", &stats.stored);
    page.by_reason(
        "nodecast_backfill_dropped_total",
        "Events that were there already, or that the store refuses.",
        &[("duplicate", &stats.known), ("refused", &stats.refused_rows)],
    );
    page.counter(
        "nodecast_backfill_refused_blocks_total",
        "Blocks older than what is kept, or not believed.",
        &stats.refused_blocks,
    );
    page.counter(
        "nodecast_backfill_damaged_lines_total",
        "Lines of which not all could be used.",
        &stats.damaged_lines,
    );
    page.counter(
        "nodecast_backfill_faults_total",
        "Files that could not be read to their end.",
        &stats.faults,
    );
    let (running, _) = stats.reports();
    let running = running.as_ref();
    page.family(
        Kind::Gauge,
        "nodecast_backfill_bytes",
        "Bytes that the running back-fill has read; absent while none runs.",
    )
    .measured(&[], running.map(|report| report.bytes_done));
    page.family(Kind::Gauge, "nodecast_backfill_total_bytes", "Bytes that it has to read.")
        .measured(&[], running.map(|report| report.bytes_total));
    page.family(
        Kind::Gauge,
        "nodecast_backfill_remaining_seconds",
        "Time that it will take at its present rate.",
    )
    .measured(
        &[],
        running.and_then(|report| report.remaining_ms).map(|millis| millis as f64 / 1_000.0),
    );
    page.gauge(
        "nodecast_backfill_limit_bytes_per_second",
        "Most bytes that are read in a second: backfill.max_bytes_per_second; 0 is no limit.",
        metrics.state.config.get().backfill.max_bytes_per_second,
    );
}

/// Without a mirror the counters are 0 and the rest is absent.
pub fn mirror(page: &mut Page, metrics: &Metrics) {
    let stats = &metrics.state.stats.mirror;
    page.counter("nodecast_mirror_writes_total", "Writes of positions to Redis.", &stats.writes);
    page.counter(
        "nodecast_mirror_failures_total",
        "Writes of positions to Redis that failed, each try.",
        &stats.failures,
    );
    let since = |gauge: &Gauge| measured(gauge).map(seconds);
    page.family(
        Kind::Gauge,
        "nodecast_mirror_last_write_timestamp_seconds",
        "When positions were last written to Redis, since 1970.",
    )
    .measured(&[], since(&stats.last_write_at));
    page.family(
        Kind::Gauge,
        "nodecast_mirror_failing_since_timestamp_seconds",
        "Since when positions cannot be written to Redis; absent while they can.",
    )
    .measured(&[], since(&stats.failing_since));
}

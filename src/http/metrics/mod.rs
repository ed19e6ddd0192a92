//! `GET /metrics`: every stage in figures, for Prometheus. It has a listener of its own.
//!
//! Invariants: each family is declared here, once, and in the table of `docs/http.md`, which a test
//! compares; units are seconds and bytes; what was never measured has no sample; nothing is asked
//! that could hang, so that a scrape works best when the store does not. In every stage received =
//! sent + dropped, and dropped has a reason. A bound stands beside its fill, under the same name
//! with `limit`.

mod process;
mod text;

use std::{io, net::TcpListener, sync::Arc};

use actix_web::{App, HttpResponse, HttpServer, dev::Server, http::header, web};

use self::text::{CONTENT_TYPE, Kind, Labels, Page, seconds};
use super::{ApiState, health, older::highest_block};
use crate::{
    event::Timestamp,
    source::quarantine::Quarantine,
    stats::{Counter, Gauge, StreamStats},
    whitelist::SourceState,
};

/// One thread: a scrape comes every few seconds.
const WORKERS: usize = 1;

/// What the metrics are made from.
pub struct Metrics {
    pub state: Arc<ApiState>,
    /// For the bounds.
    pub quarantine: Arc<Quarantine>,
}

/// Serves `/metrics` on a bound listener, and nothing else. Stop it by its handle.
///
/// # Errors
/// Those of the listener.
pub fn serve(listener: TcpListener, metrics: Arc<Metrics>) -> io::Result<Server> {
    let request_timeout = metrics.state.config.get().http.request_timeout;
    let data = web::Data::from(metrics);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .service(super::get("/metrics", scrape))
            .default_service(web::to(super::not_found))
    });
    let server = server.workers(WORKERS).disable_signals().client_request_timeout(request_timeout);
    Ok(server.listen(listener)?.run())
}

async fn scrape(metrics: web::Data<Metrics>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, CONTENT_TYPE))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(page(&metrics, Timestamp::now()))
}

/// Writes the whole page.
pub fn page(metrics: &Metrics, now: Timestamp) -> String {
    let mut page = Page::default();
    process(&mut page, metrics, now);
    streams(&mut page, metrics, now);
    whitelist(&mut page, metrics);
    router(&mut page, metrics);
    memory(&mut page, metrics);
    store(&mut page, metrics);
    backfill(&mut page, metrics);
    mirror(&mut page, metrics);
    sessions(&mut page, metrics);
    process::process(&mut page);
    page.finish()
}

impl Page {
    fn counter(&mut self, name: &'static str, help: &str, value: &Counter) {
        self.family(Kind::Counter, name, help).sample(&[], value.get());
    }

    fn gauge(&mut self, name: &'static str, help: &str, value: impl std::fmt::Display) {
        self.family(Kind::Gauge, name, help).sample(&[], value);
    }

    fn by_reason(&mut self, name: &'static str, help: &str, reasons: &[(&str, &Counter)]) {
        let mut family = self.family(Kind::Counter, name, help);
        for (reason, counter) in reasons {
            family.sample(&[("reason", reason)], counter.get());
        }
    }
}

fn process(page: &mut Page, metrics: &Metrics, now: Timestamp) {
    let state = &metrics.state;
    let name = "nodecast_start_time_seconds";
    page.gauge(name, "When the daemon started, since 1970.", seconds(state.started.0));
    let ready = health::readiness(state, now).ready;
    let name = "nodecast_ready";
    page.gauge(
        name,
        "1 while every node directory has a fresh stream, as /readyz.",
        u8::from(ready),
    );
    let reasons = health::degradations(state, now).len();
    let name = "nodecast_degradations";
    page.gauge(name, "Reasons for which the daemon is degraded now; status names them.", reasons);
}

/// Picks a counter of a stream.
type OfStream = fn(&StreamStats) -> &Counter;

/// Each stream of the node directories: its watcher and its parser.
fn streams(page: &mut Page, metrics: &Metrics, now: Timestamp) {
    let state = &metrics.state;
    let streams = state.stats.streams();
    let mut counters = |name, help: &str, of: OfStream| {
        let mut family = page.family(Kind::Counter, name, help);
        for stream in &streams {
            family.sample(&[("stream", &stream.stream.name)], of(stream).get());
        }
    };
    counters("nodecast_source_read_bytes_total", "Bytes read of hour files.", |s| &s.read_bytes);
    counters(
        "nodecast_source_lost_bytes_total",
        "Bytes of files that vanished unread, as far as they were known.",
        |s| &s.lost_bytes,
    );
    counters(
        "nodecast_source_read_errors_total",
        "Reads that failed; they are tried again.",
        |s| &s.read_errors,
    );
    counters("nodecast_source_truncations_total", "Files found shorter than they had been.", |s| {
        &s.truncations
    });
    counters(
        "nodecast_source_replacements_total",
        "Files found with other content than they had.",
        |s| &s.replacements,
    );
    counters("nodecast_parser_lines_total", "Lines received from the watcher.", |s| &s.lines);
    counters(
        "nodecast_parser_recovered_lines_total",
        "Damaged lines of which a part could be used.",
        |s| &s.recovered_lines,
    );
    counters(
        "nodecast_parser_refused_blocks_total",
        "Whole blocks that are not believed: too old, ahead of our clock, or with an impossible number.",
        |s| &s.refused_blocks,
    );
    counters("nodecast_parser_elements_total", "Elements of blocks.", |s| &s.elements);
    counters(
        "nodecast_parser_sent_total",
        "Candidates sent to the filter, one for each user of an element.",
        |s| &s.candidates,
    );

    let mut dropped = |name, help: &str, reasons: &[(&str, OfStream)]| {
        let mut family = page.family(Kind::Counter, name, help);
        for stream in &streams {
            for (reason, of) in reasons {
                let labels: Labels<'_> = &[("stream", &stream.stream.name), ("reason", reason)];
                family.sample(labels, of(stream).get());
            }
        }
    };
    dropped(
        "nodecast_parser_dropped_lines_total",
        "Lines of which nothing could be used.",
        &[("malformed", |s| &s.malformed_lines), ("oversized", |s| &s.oversized_lines)],
    );
    dropped(
        "nodecast_parser_dropped_elements_total",
        "Elements that are not what their topic promises.",
        &[("skipped", |s| &s.skipped_elements)],
    );

    let mut gauges = |name, help: &str, of: &dyn Fn(&StreamStats) -> Option<f64>| {
        let mut family = page.family(Kind::Gauge, name, help);
        for stream in &streams {
            family.measured(&[("stream", &stream.stream.name)], of(stream));
        }
    };
    gauges("nodecast_source_offset_bytes", "Place in the file that is read.", &|s| {
        Some(s.offset_bytes.get() as f64)
    });
    gauges("nodecast_source_behind_bytes", "Written by the node and not read by us.", &|s| {
        Some(s.behind_bytes.get() as f64)
    });
    gauges(
        "nodecast_source_node_lag_seconds",
        "From the block to the node's write, for the last line. Negative where clocks differ.",
        &|s| Some(seconds(measured(&s.last_written)? - measured(&s.last_block_time)?)),
    );
    gauges(
        "nodecast_source_lag_seconds",
        "From the node's write of the last line that we read until now.",
        &|s| Some(seconds(now.0 - measured(&s.last_written)?)),
    );
    gauges(
        "nodecast_source_last_line_timestamp_seconds",
        "When the last usable line came, since 1970.",
        &|s| Some(seconds(measured(&s.last_line_at)?)),
    );
    gauges("nodecast_source_last_block", "Position of the last block read.", &|s| {
        measured(&s.last_line_at).map(|_| s.last_position.get() as f64)
    });
    gauges("nodecast_source_fresh", "1 while fresh lines come, as /readyz judges it.", &|s| {
        Some(f64::from(u8::from(
            health::staleness(s, state.config.get().health.max_lag, now).is_none(),
        )))
    });
}

fn whitelist(page: &mut Page, metrics: &Metrics) {
    let state = &metrics.state;
    let stats = &state.stats.filter;
    page.counter(
        "nodecast_filter_received_total",
        "Candidates received from the parser.",
        &stats.received,
    );
    page.counter(
        "nodecast_filter_sent_total",
        "Events of listed users, sent to the Router.",
        &stats.accepted,
    );
    page.by_reason(
        "nodecast_filter_dropped_total",
        "Candidates that were dropped: of users not listed, or with a body that is not JSON.",
        &[("unlisted", &stats.rejected), ("malformed", &stats.malformed)],
    );
    page.counter(
        "nodecast_filter_false_positives_total",
        "Unlisted users that passed the Bloom filter; the exact list stopped them.",
        &stats.false_positives,
    );
    let report = (state.whitelist)();
    page.family(
        Kind::Gauge,
        "nodecast_whitelist_addresses",
        "Addresses on the list, each counted once; absent when everything is kept.",
    )
    .measured(&[], report.size);
    let mut of_sources = |name, help: &str, of: &dyn Fn(&SourceState) -> f64| {
        let mut family = page.family(Kind::Gauge, name, help);
        for source in &report.sources {
            family.sample(&[("source", source.kind.as_str())], of(source));
        }
    };
    of_sources("nodecast_whitelist_source_addresses", "Addresses of a source.", &|source| {
        source.size as f64
    });
    of_sources(
        "nodecast_whitelist_loaded_timestamp_seconds",
        "When the list of a source was last read, since 1970.",
        &|source| seconds(source.loaded_at.0),
    );
    of_sources(
        "nodecast_whitelist_problem",
        "1 while a source has a problem and its old list stays.",
        &|source| f64::from(u8::from(source.problem.is_some())),
    );
    of_sources(
        "nodecast_whitelist_skipped",
        "Members of a source that are no addresses.",
        &|source| source.skipped as f64,
    );
}

fn router(page: &mut Page, metrics: &Metrics) {
    let stats = &metrics.state.stats.router;
    page.counter(
        "nodecast_router_received_total",
        "Events received from the filters.",
        &stats.received,
    );
    page.counter(
        "nodecast_router_sent_total",
        "Events that got their order, sent to the log.",
        &stats.sequenced,
    );
    page.by_reason(
        "nodecast_router_dropped_total",
        "Events that were dropped: delivered before, or of an earlier life of the pipeline.",
        &[("duplicate", &stats.duplicates), ("stale", &stats.stale)],
    );
    page.counter(
        "nodecast_router_late_total",
        "Events of blocks below the newest, among those sent.",
        &stats.late,
    );
    page.counter(
        "nodecast_router_conflicts_total",
        "Blocks that came again with other content: an alarm.",
        &stats.conflicts,
    );
    page.counter(
        "nodecast_router_generations_total",
        "Pipelines started anew after a lost batch.",
        &stats.generations,
    );
    page.counter(
        "nodecast_router_gaps_opened_total",
        "Stretches of blocks that did not come.",
        &stats.gaps_opened,
    );
    page.counter(
        "nodecast_router_gaps_closed_total",
        "Gaps whose blocks came after all.",
        &stats.gaps_closed,
    );
    let gaps = stats.gaps.list();
    let missing: u64 = gaps.iter().map(|gap| (gap.last - gap.first).saturating_add(1)).sum();
    page.gauge("nodecast_router_gaps", "Gaps that are open.", gaps.len());
    page.gauge(
        "nodecast_router_missing_blocks",
        "Blocks that are missing, over all open gaps.",
        missing,
    );
    page.gauge(
        "nodecast_router_height",
        "Highest block over all topics.",
        highest_block(&metrics.state),
    );
}

/// What is held between the files and the store, with its bounds.
fn memory(page: &mut Page, metrics: &Metrics) {
    let Metrics { state, quarantine } = metrics;
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

fn store(page: &mut Page, metrics: &Metrics) {
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
fn backfill(page: &mut Page, metrics: &Metrics) {
    let stats = &metrics.state.stats.backfill;
    let mut jobs = page.family(
        Kind::Gauge,
        "nodecast_backfill_jobs",
        "Back-fills that wait, and the one that runs.",
    );
    jobs.sample(&[("state", "waiting")], stats.waiting.get());
    jobs.sample(&[("state", "running")], stats.running.get());
    page.counter(
        "nodecast_backfill_jobs_ended_total",
        "Back-fills that ended, cancelled and failed ones too.",
        &stats.ended,
    );
    page.counter(
        "nodecast_backfill_read_bytes_total",
        "Bytes read of hour files and archives.",
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
fn mirror(page: &mut Page, metrics: &Metrics) {
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

fn sessions(page: &mut Page, metrics: &Metrics) {
    let Metrics { state, .. } = metrics;
    let config = state.config.get();
    let stats = &state.stats.sessions;
    page.gauge("nodecast_sessions", "WebSocket sessions that are open.", stats.open.get());
    page.gauge(
        "nodecast_sessions_limit",
        "Bound of it: session.max_sessions.",
        config.session.max_sessions,
    );
    page.counter("nodecast_sessions_opened_total", "Sessions opened.", &stats.opened);
    page.counter(
        "nodecast_sessions_closed_total",
        "Sessions whose socket is closed.",
        &stats.closed,
    );
    let endings = &stats.endings;
    let mut family = page.family(Kind::Counter, "nodecast_session_endings_total", "Sessions whose end began, by the close code of the native protocol; without a code where the client closed first or its connection was lost.");
    for (reason, code, counter) in [
        ("shutting_down", "1001", &endings.shutting_down),
        ("protocol", "1002", &endings.protocol),
        ("not_text", "1003", &endings.not_text),
        ("not_utf8", "1007", &endings.not_utf8),
        ("too_big", "1009", &endings.too_big),
        ("internal", "1011", &endings.internal),
        ("slow_consumer", "4008", &endings.slow_consumer),
        ("ping_timeout", "4009", &endings.ping_timeout),
        ("missed", "4010", &endings.missed),
        ("client", "", &endings.client),
        ("lost", "", &endings.lost),
    ] {
        family.sample(&[("reason", reason), ("code", code)], counter.get());
    }
    page.gauge(
        "nodecast_subscriptions",
        "Subscriptions of all sessions.",
        stats.subscriptions.get(),
    );
    page.gauge(
        "nodecast_session_subscriptions_limit",
        "Most of one session: session.max_subscriptions.",
        config.session.max_subscriptions,
    );
    page.counter(
        "nodecast_delivery_queued_frames_total",
        "Frames put into outboxes.",
        &stats.frames_queued,
    );
    page.counter(
        "nodecast_delivery_sent_frames_total",
        "Frames sent to clients.",
        &stats.frames_sent,
    );
    page.by_reason(
        "nodecast_delivery_dropped_frames_total",
        "Frames left in outboxes when their sessions closed.",
        &[("closed", &stats.frames_dropped)],
    );
    page.counter("nodecast_delivery_sent_bytes_total", "Bytes sent to clients.", &stats.sent_bytes);
    page.counter(
        "nodecast_delivery_missed_segments_total",
        "Batches that left memory before they were cast; clients were told or closed.",
        &stats.missed_segments,
    );
    page.family(Kind::Histogram, "nodecast_delivery_cast_duration_seconds", "From the read of a batch until it is in the outboxes, for each HTTP worker with subscribers.")
        .histogram(&[], &stats.cast_durations.observed());
    page.gauge(
        "nodecast_outbox_bytes",
        "Bytes that wait for clients, all outboxes together.",
        stats.outbox_bytes.get(),
    );
    page.gauge(
        "nodecast_session_outbox_limit_bytes",
        "Most of one client: session.outbox_bytes.",
        config.session.outbox_bytes,
    );
    page.gauge("nodecast_exports", "NDJSON answers under way.", state.exports.open());
    page.gauge("nodecast_exports_limit", "Most of them at one time.", state.exports.max_open());
}

/// A gauge that is 0 until something was measured.
fn measured(gauge: &Gauge) -> Option<i64> {
    Some(gauge.get()).filter(|value| *value != 0)
}

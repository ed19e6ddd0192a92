//! The stages between the files and the log: streams, whitelist, router.

use super::{
    Metrics, measured,
    text::{Kind, Labels, Page, seconds},
};
use crate::{
    event::Timestamp,
    http::{health, older::highest_block},
    router::ledger::{MAX_OPEN_GAPS, MAX_REMEMBERED},
    stats::{Counter, StreamStats},
    whitelist::{MAX_ADDITIONS, SourceState},
};

/// Picks a counter of a stream.
type OfStream = fn(&StreamStats) -> &Counter;

/// Each stream of the node directories: its watcher and its parser.
pub fn streams(page: &mut Page, metrics: &Metrics, now: Timestamp) {
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

pub fn whitelist(page: &mut Page, metrics: &Metrics) {
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
    let clients = &state.stats.official;
    page.counter(
        "nodecast_whitelist_added_users_total",
        "Users whom clients have added by subscribing to them, where official.unlisted lets them.",
        &clients.added_users,
    );
    page.gauge(
        "nodecast_whitelist_additions",
        "Additions by clients that are made or wait for their turn.",
        clients.additions.get(),
    );
    page.gauge(
        "nodecast_whitelist_additions_limit",
        "Bound of it, above which they are refused.",
        MAX_ADDITIONS,
    );
    page.counter(
        "nodecast_whitelist_additions_refused_total",
        "Additions by clients that found too many waiting.",
        &clients.refused_additions,
    );
}

pub fn router(page: &mut Page, metrics: &Metrics) {
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
    let mut remembered = page.family(
        Kind::Gauge,
        "nodecast_router_ledger_entries",
        "What is remembered of delivered blocks, of the topic with the most.",
    );
    for (memory, gauge) in [
        ("runs", &stats.ledger_runs),
        ("pieces", &stats.ledger_pieces),
        ("digests", &stats.ledger_digests),
    ] {
        remembered.sample(&[("memory", memory)], gauge.get());
    }
    page.gauge(
        "nodecast_router_ledger_limit_entries",
        "Most of each of them; the oldest leave, and the store is asked in their place.",
        MAX_REMEMBERED,
    );
    let gaps = stats.gaps.list();
    let missing: u64 = gaps.iter().map(|gap| (gap.last - gap.first).saturating_add(1)).sum();
    page.gauge("nodecast_router_gaps", "Gaps that are open.", gaps.len());
    page.gauge(
        "nodecast_router_gaps_limit",
        "Most of one topic; the oldest are forgotten.",
        MAX_OPEN_GAPS,
    );
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

//! The info service of the official protocol.

use super::{Metrics, text::Page};
use crate::official::info::{MAX_ANSWER_BYTES, MAX_PASSING, MAX_READS};

pub fn info(page: &mut Page, metrics: &Metrics) {
    let stats = &metrics.state.stats.official;
    page.gauge(
        "nodecast_info_answer_bytes",
        "Bytes set aside for answers of history by info, until their clients have taken them.",
        stats.answer_bytes.get(),
    );
    page.gauge(
        "nodecast_info_answer_limit_bytes",
        "Bound of it, above which requests wait.",
        MAX_ANSWER_BYTES,
    );
    page.gauge(
        "nodecast_info_snapshots",
        "Snapshots for subscriptions of the official protocol that read the store.",
        stats.snapshots.get(),
    );
    page.gauge("nodecast_info_snapshots_limit", "Bound of it, above which they wait.", MAX_READS);
    page.gauge(
        "nodecast_info_passing",
        "Info requests that the upstream is asked on behalf of clients now.",
        stats.passing.get(),
    );
    page.gauge(
        "nodecast_info_passing_limit",
        "Bound of it, above which requests are refused.",
        MAX_PASSING,
    );
    page.counter(
        "nodecast_info_passed_total",
        "Info requests that were passed on to the upstream.",
        &stats.passed,
    );
    page.by_reason(
        "nodecast_info_refused_total",
        "Info requests that found no room for their answer in time, that were not passed on because too many were, or that were posted while too many of their client waited.",
        &[
            ("no_room", &stats.no_room),
            ("too_many_passing", &stats.not_passed),
            ("too_many_posts", &stats.refused_posts),
        ],
    );
    page.counter(
        "nodecast_info_upstream_failures_total",
        "Questions, also our own for meta, that the upstream gave no answer to.",
        &stats.upstream_failures,
    );
}

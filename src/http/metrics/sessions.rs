//! The clients of all workers together.

use super::{
    Metrics,
    text::{Kind, Page},
};
use crate::{control::MAX_CLIENTS, delivery::replay::Pages};

pub fn sessions(page: &mut Page, metrics: &Metrics) {
    let Metrics { state, .. } = metrics;
    let config = state.config.get();
    let stats = &state.stats.sessions;
    let connections = &state.stats.connections;
    page.gauge(
        "nodecast_http_connections",
        "Connections of clients that are no sessions: they ask, are answered, or are idle.",
        connections.open.get(),
    );
    page.gauge(
        "nodecast_http_connections_limit",
        "Bound of it while no place of a session is free: http.max_connections.",
        config.http.max_connections,
    );
    page.by_reason(
        "nodecast_http_connections_refused_total",
        "Connections that were refused, or ended before their request was complete.",
        &[
            ("too_many_connections", &connections.too_many),
            ("request_timeout", &connections.too_slow),
        ],
    );
    page.gauge(
        "nodecast_sessions",
        "Sessions that are open: WebSockets, streams, and long polls that wait.",
        stats.open.get(),
    );
    page.gauge(
        "nodecast_sessions_limit",
        "Bound of it: session.max_sessions.",
        config.session.max_sessions,
    );
    page.counter("nodecast_sessions_opened_total", "Sessions opened.", &stats.opened);
    page.counter(
        "nodecast_sessions_closed_total",
        "Sessions whose socket or answer is closed.",
        &stats.closed,
    );
    let refusals = &stats.refusals;
    page.by_reason(
        "nodecast_sessions_refused_total",
        "Clients that were not let in, by the code of the answer.",
        &[
            ("too_many_sessions", &refusals.too_many_sessions),
            ("too_many_of_address", &refusals.too_many_of_address),
            ("too_many_of_identity", &refusals.too_many_of_identity),
            ("draining", &refusals.draining),
            ("shutting_down", &refusals.shutting_down),
        ],
    );
    page.gauge(
        "nodecast_session_identities",
        "Clients that a trusted proxy has named and that have any session open.",
        stats.identities.get(),
    );
    page.gauge(
        "nodecast_draining",
        "1 while clients are sent away; nodecast_sessions are those that are left.",
        i64::from(stats.draining_since.get() != 0),
    );
    let endings = &stats.endings;
    let mut family = page.family(Kind::Counter, "nodecast_session_endings_total", "Sessions whose end began, by the close code of the native protocol; without a code where the client closed first or its connection was lost.");
    for (reason, code, counter) in [
        ("shutting_down", "1001", &endings.shutting_down),
        ("draining", "1001", &endings.draining),
        ("protocol", "1002", &endings.protocol),
        ("not_text", "1003", &endings.not_text),
        ("not_utf8", "1007", &endings.not_utf8),
        ("not_deflate", "1007", &endings.not_deflate),
        ("too_big", "1009", &endings.too_big),
        ("internal", "1011", &endings.internal),
        ("slow_consumer", "4008", &endings.slow_consumer),
        ("evicted", "4008", &endings.evicted),
        ("ping_timeout", "4009", &endings.ping_timeout),
        ("missed", "4010", &endings.missed),
        ("too_many", "4011", &endings.too_many),
        ("idle", "1000", &endings.idle),
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
    page.gauge(
        "nodecast_session_users",
        "Users named by the subscriptions of all sessions.",
        stats.users.get(),
    );
    page.gauge(
        "nodecast_session_users_limit",
        "Most of one session: session.max_users.",
        config.session.max_users,
    );
    page.by_reason(
        "nodecast_session_refusals_total",
        "Requests of sessions that were refused because the session is full.",
        &[
            ("too_many_subscriptions", &stats.refused_subscriptions),
            ("too_many_users", &stats.refused_users),
            ("too_many_users_of_subscription", &stats.refused_users_of_one),
            ("too_many_values", &stats.refused_values),
        ],
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
        "nodecast_sessions_compressing_total",
        "Sessions that negotiated compression.",
        &stats.compressing,
    );
    page.counter(
        "nodecast_delivery_packed_frames_total",
        "Frames that were compressed, each once for all who get it.",
        &stats.packed_frames,
    );
    page.counter(
        "nodecast_delivery_packed_plain_bytes_total",
        "Their bytes before.",
        &stats.packed_plain_bytes,
    );
    page.counter("nodecast_delivery_packed_bytes_total", "Their bytes after.", &stats.packed_bytes);
    page.counter(
        "nodecast_delivery_writes_total",
        "Writes to clients, each of as many frames as waited.",
        &stats.writes,
    );
    page.counter(
        "nodecast_delivery_missed_segments_total",
        "Batches that left memory before they were cast: clients get them from the store.",
        &stats.missed_segments,
    );
    page.counter(
        "nodecast_delivery_skips_total",
        "Stretches that subscriptions passed over because their clients were slow.",
        &stats.skips,
    );
    page.counter(
        "nodecast_delivery_conflated_total",
        "Events that slow clients did not get as there was a newer one of the same key.",
        &stats.conflated,
    );
    page.gauge(
        "nodecast_sessions_behind",
        "Sessions that catch up: they get what has been, or could not take what is.",
        stats.behind.get(),
    );
    page.gauge("nodecast_replays", "Those of them that read the store.", stats.replays.get());
    page.gauge(
        "nodecast_replays_limit",
        "Bound of it: session.max_replays.",
        config.session.max_replays,
    );
    page.gauge(
        "nodecast_searches",
        "Clients whose place in the past is searched for in the store, or waits to be.",
        stats.searches.get(),
    );
    page.counter(
        "nodecast_replay_pages_total",
        "Pages of the order of arrival that were read from the store for them.",
        &stats.replay_pages,
    );
    page.counter(
        "nodecast_replay_failures_total",
        "Such reads that failed; they are tried again.",
        &stats.replay_failures,
    );
    page.gauge(
        "nodecast_replay_bytes",
        "What pages take of memory that are kept for others.",
        stats.replay_bytes.get(),
    );
    page.gauge("nodecast_replay_limit_bytes", "Most of them.", Pages::max_bytes());
    page.family(Kind::Histogram, "nodecast_delivery_cast_duration_seconds", "From the read of a batch until it is in the outboxes, for each HTTP worker with subscribers.")
        .histogram(&[], &stats.cast_durations.observed());
    page.gauge(
        "nodecast_outbox_bytes",
        "Bytes that wait for clients, all outboxes together.",
        stats.outbox_bytes.get(),
    );
    page.gauge(
        "nodecast_outbox_limit_bytes",
        "Bound of it, above which the largest are closed: session.outbox_total_bytes.",
        config.session.outbox_total_bytes,
    );
    page.gauge(
        "nodecast_session_outbox_limit_bytes",
        "Most of one client: session.outbox_bytes.",
        config.session.outbox_bytes,
    );
    page.counter(
        "nodecast_write_timeouts_total",
        "Connections that were cut because their client took nothing of an answer.",
        &state.stats.write_timeouts,
    );
    page.gauge("nodecast_exports", "NDJSON answers under way.", state.exports.open());
    page.gauge("nodecast_exports_limit", "Most of them at one time.", state.exports.max_open());
}

/// Commands of this program that ask the running daemon.
pub fn commands(page: &mut Page, metrics: &Metrics) {
    let clients = &metrics.state.stats.control_clients;
    page.gauge(
        "nodecast_control_clients",
        "Commands that are connected to the control socket.",
        clients.get(),
    );
    page.gauge("nodecast_control_clients_limit", "Most of them at one time.", MAX_CLIENTS);
}

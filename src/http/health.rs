//! `/livez`, `/readyz` and `/health`: is the process there, do fresh lines come, what is degraded.
//!
//! Invariant: readiness is judged by lines that arrived and gave a block, never by a loop that turns,
//! so a node without events of listed users is fresh; a stalled one, or one of which every line is
//! malformed or refused, is not.

use std::{fmt, sync::PoisonError, time::Duration};

use actix_web::HttpResponse;
use serde::Serialize;

use super::{ApiState, State, json, older::highest_block};
use crate::{
    delivery::set::EnterError,
    event::Timestamp,
    stats::{StoreStats, StreamStats},
    store::ANSWER_WITHIN,
};

/// Unread bytes up to which a stream counts as caught up: one read of the watcher.
const CAUGHT_UP_BYTES: i64 = 1 << 20;

/// Whether fresh lines come, with the reason for each stream.
#[derive(Debug, Serialize)]
pub struct Readiness {
    pub ready: bool,
    /// Why no client is let in: `draining` or `shutting_down`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    max_lag_ms: u64,
    nodes: Vec<NodeReadiness>,
}

/// A node directory is ready when one of its streams is fresh.
#[derive(Debug, Serialize)]
struct NodeReadiness {
    node: String,
    ready: bool,
    /// Why not, where no stream was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    streams: Vec<StreamReadiness>,
}

#[derive(Debug, Serialize)]
struct StreamReadiness {
    stream: String,
    fresh: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Why a stream is not fresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stale {
    Problem(String),
    NoLine,
    OldLine { age: Duration, max_lag: Duration },
    CatchingUp { behind_bytes: i64, age: Duration },
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problem(problem) => write!(f, "not followed: {problem}"),
            Self::NoLine => f.write_str("no usable line has come since the start"),
            Self::OldLine { age, max_lag } => {
                write!(f, "the last usable line came {age:.1?} ago, the limit is {max_lag:.1?}")
            }
            Self::CatchingUp { behind_bytes, age } => write!(
                f,
                "catching up: {behind_bytes} bytes are unread, the last line was written \
                 {age:.1?} ago"
            ),
        }
    }
}

/// Tells why a stream is not fresh; `None` when it is.
pub fn staleness(stream: &StreamStats, max_lag: Duration, now: Timestamp) -> Option<Stale> {
    let arrived = match stream.last_line_at.get() {
        0 => None,
        micros => Some(now.since(Timestamp(micros))),
    };
    let problem = stream.problem();
    if !problem.is_empty() {
        return Some(Stale::Problem(problem));
    }
    let Some(age) = arrived else { return Some(Stale::NoLine) };
    if age > max_lag {
        return Some(Stale::OldLine { age, max_lag });
    }
    // Lines that arrive now may be hours old while a backlog is read. Without a backlog their age
    // says nothing about us: recorded data is as fresh as it comes.
    let behind_bytes = stream.behind_bytes.get();
    let written = now.since(Timestamp(stream.last_written.get()));
    if behind_bytes > CAUGHT_UP_BYTES && written > max_lag {
        return Some(Stale::CatchingUp { behind_bytes, age: written });
    }
    None
}

/// Judges every configured node directory.
pub fn readiness(state: &ApiState, now: Timestamp) -> Readiness {
    let max_lag = state.config.get().health.max_lag;
    let streams = state.stats.streams();
    let nodes: Vec<NodeReadiness> = state
        .nodes
        .iter()
        .map(|node| {
            let streams: Vec<StreamReadiness> = streams
                .iter()
                .filter(|stats| stats.stream.node == *node)
                .map(|stats| {
                    let stale = staleness(stats, max_lag, now);
                    StreamReadiness {
                        stream: stats.stream.name.to_string(),
                        fresh: stale.is_none(),
                        reason: stale.map(|stale| stale.to_string()),
                    }
                })
                .collect();
            NodeReadiness {
                node: node.to_string(),
                ready: streams.iter().any(|stream| stream.fresh),
                reason: streams.is_empty().then_some("no stream was found in this directory"),
                streams,
            }
        })
        .collect();
    let reason = turned_away(state).map(EnterError::code);
    // Without any node directory nothing is fresh.
    let ready = reason.is_none() && !nodes.is_empty() && nodes.iter().all(|node| node.ready);
    Readiness { ready, reason, max_lag_ms: super::status::millis(max_lag), nodes }
}

/// What runs with less than it should, one sentence each.
pub fn degradations(state: &ApiState, now: Timestamp) -> Vec<String> {
    let stats = &state.stats;
    let mut reasons = Vec::new();
    if let Some(reason) = turned_away(state) {
        reasons.push(format!("sessions: {reason}; {} are left", stats.sessions.open.get()));
    }
    for stream in stats.streams() {
        if let Some(stale) = staleness(&stream, state.config.get().health.max_lag, now) {
            reasons.push(format!("stream {}: {stale}", stream.stream.name));
        }
    }
    for node in &state.nodes {
        if !stats.streams().iter().any(|stream| stream.stream.node == *node) {
            reasons.push(format!("node directory {node}: no stream was found"));
        }
    }
    let failing_since = stats.store.failing_since.get();
    if failing_since != 0 {
        let age = now.since(Timestamp(failing_since));
        let failure = stats.store.failure.get();
        reasons.push(format!("store: commits have failed for {age:.1?}: {failure}"));
    } else if let Some(age) = unanswered(&stats.store, now) {
        reasons.push(format!("store: it has not answered for {age:.1?}, and commits wait for it"));
    }
    let mirror_problem = stats.mirror.problem.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(problem) = &*mirror_problem {
        reasons.push(format!("redis: positions are not mirrored: {problem}"));
    }
    if stats.store.retention_shortened.get() != 0 {
        reasons.push("store: the disk, not the age, decides what is kept".to_owned());
    }
    for budget in &state.budgets {
        if !budget.has_room() {
            let (used, limit) = (budget.in_flight_bytes(), budget.limit_bytes());
            reasons.push(format!("reading pauses: {used} of {limit} bytes wait for their commit"));
        }
    }
    reasons.extend((state.whitelist)().problems().map(|problem| format!("whitelist: {problem}")));
    reasons
}

/// Why no client is let in, if so.
fn turned_away(state: &ApiState) -> Option<EnterError> {
    let sessions = &state.stats.sessions;
    if sessions.closing.get() != 0 {
        Some(EnterError::Closing)
    } else {
        (sessions.draining_since.get() != 0).then_some(EnterError::Draining)
    }
}

/// How long the writer has waited for the store, where that is too long.
fn unanswered(stats: &StoreStats, now: Timestamp) -> Option<Duration> {
    let since = stats.at_work_since.get();
    let age = now.since(Timestamp(since));
    (since != 0 && age > ANSWER_WITHIN).then_some(age)
}

#[derive(Serialize)]
struct Live {
    status: &'static str,
    uptime_ms: u64,
}

#[derive(Serialize)]
struct Health {
    /// `ok`, `degraded`, or `not_ready`, which answers 503.
    status: &'static str,
    ready: bool,
    reasons: Vec<String>,
    block: u64,
    uptime_ms: u64,
    version: &'static str,
}

/// The process answers: nothing else is looked at, so that a slow store restarts nobody.
pub async fn livez(state: State) -> HttpResponse {
    let uptime = Timestamp::now().since(state.started);
    json(HttpResponse::Ok(), &Live { status: "alive", uptime_ms: super::status::millis(uptime) })
}

pub async fn readyz(state: State) -> HttpResponse {
    let readiness = readiness(&state, Timestamp::now());
    json(response(readiness.ready), &readiness)
}

pub async fn health(state: State) -> HttpResponse {
    let now = Timestamp::now();
    let ready = readiness(&state, now).ready;
    let reasons = degradations(&state, now);
    let status = match (ready, reasons.is_empty()) {
        (false, _) => "not_ready",
        (true, false) => "degraded",
        (true, true) => "ok",
    };
    let health = Health {
        status,
        ready,
        reasons,
        block: highest_block(&state),
        uptime_ms: super::status::millis(now.since(state.started)),
        version: env!("CARGO_PKG_VERSION"),
    };
    json(response(ready), &health)
}

fn response(ready: bool) -> actix_web::HttpResponseBuilder {
    if ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() }
}

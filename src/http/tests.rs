//! Readiness and status with gauges and a clock of the test's own.

mod metrics;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::*;
use crate::{
    config::{Config, HealthConfig},
    event::{EventId, SequencedEvent},
    http::{health::readiness, status::report},
    router::{
        ledger::Gap,
        log::{Heads, LogEvent, NewSegment},
    },
    source::{BatchLost, Density, Form, Progress, Stream},
    stats::StreamStats,
    store::{Arrivals, EventQuery, ReadConnections, Recovered, StoreError, StoreSize, StoreWriter},
    testing::{Probe, log},
    whitelist::{Listing, SourceKind, SourceState, Whitelist},
};

const NOW: Timestamp = Timestamp(1_773_532_800_000_000);
const SECOND: Duration = Duration::from_secs(1);

/// A store that these tests only ask for its name.
struct NamedStore;

#[async_trait]
impl EventStore for NamedStore {
    fn describe(&self) -> String {
        "sqlite:test".to_owned()
    }

    fn read_connections(&self) -> ReadConnections {
        ReadConnections { lent: 3, limit: 4 }
    }

    async fn open_writer(&self) -> Result<(Box<dyn StoreWriter>, Recovered), StoreError> {
        unreachable!("routes do not write")
    }

    async fn events(&self, _query: EventQuery) -> Result<Vec<SequencedEvent>, StoreError> {
        unreachable!("these tests read no history")
    }

    async fn arrivals(&self, _after: u64, _limit: usize) -> Result<Arrivals, StoreError> {
        unreachable!("these tests resume nothing")
    }

    async fn stored(
        &self,
        _ids: Vec<EventId>,
    ) -> Result<std::collections::HashSet<EventId>, StoreError> {
        unreachable!("routes do not ask for identities")
    }

    async fn size(&self) -> Result<StoreSize, StoreError> {
        unreachable!("the report is given a size")
    }
}

fn state(nodes: &[&str]) -> ApiState {
    let heads = Heads { epoch: 1, run: 2, positions: vec![(Topic::new("fills"), 70)] };
    let (stats, log_of_events) = (Arc::<Stats>::default(), Log::new(1 << 20, 9, heads));
    let config = Arc::new(LiveConfig::new(Config {
        health: HealthConfig { max_lag: 30 * SECOND },
        ..Config::default()
    }));
    let store = Arc::new(NamedStore);
    let info = Info::new(
        store.clone(),
        log_of_events.clone(),
        config.clone(),
        Listing::unchanging(Whitelist::all()),
        stats.clone(),
        log(),
    );
    ApiState {
        store,
        stats,
        log: log_of_events,
        config,
        info: Arc::new(info),
        budgets: Vec::new(),
        topics: vec![Topic::new("fills"), Topic::new("misc")],
        nodes: nodes.iter().map(|node| Arc::from(*node)).collect(),
        whitelist: Box::new(|| whitelist(None)),
        run: Run { id: 2, epoch: 1 },
        started: NOW.minus(60 * SECOND),
        exports: Exports::default(),
        logger: log(),
    }
}

fn whitelist(problem: Option<&str>) -> WhitelistState {
    let source = |kind, name: &str, size| SourceState {
        kind,
        name: name.to_owned(),
        size,
        loaded_at: NOW.minus(3 * SECOND),
        problem: None,
        is_used: true,
        skipped: 0,
        skipped_example: None,
    };
    let redis = SourceState {
        loaded_at: NOW.minus(7 * SECOND),
        problem: problem.map(str::to_owned),
        is_used: problem.is_none(),
        skipped: 1,
        skipped_example: Some("nobody".to_owned()),
        ..source(SourceKind::Redis, "redis://host users", 4)
    };
    WhitelistState {
        size: Some(5),
        sources: vec![source(SourceKind::File, "list.txt", 2), redis],
        started: NOW.minus(60 * SECOND),
    }
}

fn stream(state: &ApiState, node: &str, kind: &str) -> Arc<StreamStats> {
    state.stats.stream(&Arc::new(Stream {
        name: format!("{node}/{kind}").into(),
        node: node.into(),
        topic: Topic::new("fills"),
        form: Form::ByBlock,
        density: Density::Dense,
        directory: PathBuf::new(),
    }))
}

fn line_came(stream: &StreamStats, at: Timestamp) {
    stream.last_line_at.set(at.0);
    stream.last_written.set(at.0);
}

fn readiness_json(state: &ApiState, now: Timestamp) -> Value {
    serde_json::to_value(readiness(state, now)).unwrap()
}

fn report_json(state: &ApiState, size: Result<StoreSize, StoreError>) -> Value {
    serde_json::to_value(report(state, size, NOW)).unwrap()
}

#[test]
fn readiness_comes_with_the_first_line_and_goes_with_the_clock() {
    let state = state(&["/data"]);
    let fills = stream(&state, "/data", "fills");

    let before = readiness_json(&state, NOW);
    line_came(&fills, NOW);

    assert_eq!(before["ready"], false);
    assert_eq!(
        before["nodes"][0]["streams"][0]["reason"],
        "no usable line has come since the start"
    );
    assert_eq!(readiness_json(&state, NOW.plus(30 * SECOND))["ready"], true);
    let after = readiness_json(&state, NOW.plus(31 * SECOND));
    assert_eq!(after["ready"], false);
    assert_eq!(
        after["nodes"][0]["streams"][0]["reason"],
        "the last usable line came 31.0s ago, the limit is 30.0s"
    );
}

#[test]
fn one_fresh_stream_makes_its_directory_ready_and_every_directory_is_needed() {
    let state = state(&["/a", "/b"]);
    line_came(&stream(&state, "/a", "fills"), NOW);
    stream(&state, "/a", "misc");
    let without_second = readiness_json(&state, NOW);

    line_came(&stream(&state, "/b", "fills"), NOW);

    assert_eq!(without_second["ready"], false);
    assert_eq!(without_second["nodes"][0]["ready"], true);
    assert_eq!(without_second["nodes"][1]["reason"], "no stream was found in this directory");
    assert_eq!(readiness_json(&state, NOW)["ready"], true);
}

#[test]
fn a_daemon_without_node_directories_is_not_ready() {
    assert_eq!(readiness_json(&state(&[]), NOW)["ready"], false);
}

#[test]
fn a_stream_that_reads_an_old_backlog_is_not_fresh_until_it_has_caught_up() {
    let state = state(&["/data"]);
    let fills = stream(&state, "/data", "fills");
    fills.last_line_at.set(NOW.0);
    fills.last_written.set(NOW.minus(3_600 * SECOND).0);
    fills.behind_bytes.set(50 << 20);

    let catching_up = readiness_json(&state, NOW);
    fills.behind_bytes.set(0);

    assert_eq!(catching_up["ready"], false);
    let reason = catching_up["nodes"][0]["streams"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("catching up: 52428800 bytes are unread"), "{reason}");
    // Recorded data is read to its end: old lines that arrive now are what there is.
    assert_eq!(readiness_json(&state, NOW)["ready"], true);
}

#[test]
fn a_stream_that_cannot_be_followed_is_not_fresh_and_says_why() {
    let state = state(&["/data"]);
    let fills = stream(&state, "/data", "fills");
    line_came(&fills, NOW);
    fills.set_problem("permission denied");

    let readiness = readiness_json(&state, NOW);

    assert_eq!(readiness["ready"], false);
    assert_eq!(readiness["nodes"][0]["streams"][0]["reason"], "not followed: permission denied");
}

#[test]
fn what_was_never_measured_is_null_in_status() {
    let state = state(&["/data"]);
    stream(&state, "/data", "fills");

    let status = report_json(&state, Ok(StoreSize::default()));

    let stream = &status["nodes"][0]["streams"][0];
    for name in ["file", "node_lag_ms", "lag_ms", "last_line_age_ms", "last_block"] {
        assert_eq!(stream[name], Value::Null, "{name}");
    }
    for name in ["last_commit_age_ms", "last_commit_duration_ms", "failing_for_ms", "oldest_seq"] {
        assert_eq!(status["store"][name], Value::Null, "{name}");
    }
}

#[test]
fn status_shows_what_the_stages_measured() {
    let state = state(&["/data"]);
    let fills = stream(&state, "/data", "fills");
    fills.reading("20260315/0", 4_096);
    fills.behind_bytes.set(12);
    fills.last_line_at.set(NOW.minus(SECOND).0);
    fills.last_written.set(NOW.minus(2 * SECOND).0);
    fills.last_block_time.set(NOW.minus(5 * SECOND).0);
    fills.last_position.set(77);
    fills.malformed_lines.add(3);
    state.stats.router.height.set(77);
    state.stats.router.gaps.replace(vec![gap(10, 14)]);
    state.stats.store.last_commit_at.set(NOW.minus(SECOND).0);
    state.stats.store.last_commit_micros.set(1_500);
    let size = StoreSize { bytes: 1_000, oldest_time: Some(NOW), ..StoreSize::default() };

    let status = report_json(&state, Ok(size));

    let stream = &status["nodes"][0]["streams"][0];
    assert_eq!(stream["file"], "20260315/0");
    assert_eq!(stream["offset_bytes"], 4_096);
    assert_eq!(stream["behind_bytes"], 12);
    assert_eq!(stream["node_lag_ms"], 3_000);
    assert_eq!(stream["lag_ms"], 2_000);
    assert_eq!(stream["last_line_age_ms"], 1_000);
    assert_eq!(stream["last_block"], 77);
    assert_eq!(stream["malformed_lines"], 3);
    assert_eq!(status["router"]["height"], 77);
    assert_eq!(status["router"]["gaps_open"], 1);
    assert_eq!(status["router"]["missing_blocks"], 5);
    assert_eq!(status["router"]["gaps"][0]["first"], 10);
    assert_eq!(status["store"]["store"], "sqlite:test");
    assert_eq!(status["store"]["reachable"], true);
    assert_eq!(status["store"]["size_bytes"], 1_000);
    assert_eq!(status["store"]["last_commit_age_ms"], 1_000);
    assert_eq!(status["store"]["last_commit_duration_ms"], 1.5);
    let whitelist = json!({
        "source": "list.txt and redis://host users", "everything": false, "addresses": 5,
        "loaded_age_ms": 7_000, "problem": null, "skipped": 1, "skipped_example": "nobody",
        "sources": [
            {
                "kind": "file", "name": "list.txt", "addresses": 2, "loaded_age_ms": 3_000,
                "problem": null, "skipped": 0, "skipped_example": null,
            },
            {
                "kind": "redis", "name": "redis://host users", "addresses": 4,
                "loaded_age_ms": 7_000, "problem": null, "skipped": 1, "skipped_example": "nobody",
            },
        ],
    });
    assert_eq!(status["whitelist"], whitelist);
    assert_eq!(status["log"]["committed_seq"], 9);
    assert_eq!(status["uptime_ms"], 60_000);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["state"], &status["reasons"]), (&json!("ok"), &json!([])));
}

#[test]
fn every_trouble_makes_status_degraded_with_its_reason() {
    type Trouble = (&'static str, fn(&mut ApiState));
    let troubles: [Trouble; 6] = [
        ("commits have failed for 10.0s", |state| {
            state.stats.store.failing_since.set(NOW.minus(10 * SECOND).0);
        }),
        ("has not answered for 6.0s", |state| {
            state.stats.store.at_work_since.set(NOW.minus(6 * SECOND).0);
        }),
        ("the disk, not the age", |state| state.stats.store.retention_shortened.set(1)),
        ("whitelist: it shrank", |state| {
            state.whitelist = Box::new(|| whitelist(Some("it shrank")))
        }),
        ("no usable line has come", |state| drop(stream(state, "/data", "misc"))),
        ("not followed: gone", |state| stream(state, "/data", "fills").set_problem("gone")),
    ];
    for (expected, trouble) in troubles {
        let mut state = state(&["/data"]);
        line_came(&stream(&state, "/data", "fills"), NOW);
        assert_eq!(report_json(&state, Ok(StoreSize::default()))["state"], "ok");

        trouble(&mut state);

        let status = report_json(&state, Ok(StoreSize::default()));
        assert_eq!(status["state"], "degraded", "{expected}");
        let reason = status["reasons"][0].as_str().unwrap();
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn a_store_that_does_not_answer_is_told_and_leaves_the_last_known_size() {
    let state = state(&["/data"]);
    line_came(&stream(&state, "/data", "fills"), NOW);
    state.stats.store.size_bytes.set(500);

    let status = report_json(&state, Err(StoreError::Unavailable("locked".to_owned())));

    assert_eq!(status["state"], "degraded");
    assert_eq!(status["store"]["reachable"], false);
    assert_eq!(status["store"]["problem"], "the store is not available: locked");
    assert_eq!(status["store"]["size_bytes"], 500);
}

#[actix_rt::test]
async fn a_budget_that_is_used_up_shows_as_paused_reading() {
    let lost = Probe::<BatchLost>::start();
    let mut state = state(&["/data"]);
    line_came(&stream(&state, "/data", "fills"), NOW);
    state.budgets.push(Budget::new(100, lost.recipient()));

    let credit = state.budgets[0].take(150, 0);
    let paused = report_json(&state, Ok(StoreSize::default()));
    credit.done();
    let after = report_json(&state, Ok(StoreSize::default()));

    assert_eq!(paused["state"], "degraded");
    assert_eq!(paused["budget"]["in_flight_bytes"], 150);
    assert_eq!(paused["budget"]["paused_chains"], 1);
    assert_eq!(after["state"], "ok");
    assert_eq!(after["budget"]["in_flight_batches"], 0);
}

#[test]
fn the_height_is_known_from_the_store_before_the_first_line() {
    // H39. The log starts with the heads that the store recovered.
    let state = state(&["/data"]);

    let recovered = older::highest_block(&state);
    state.stats.router.height.set(71);

    assert_eq!((recovered, older::highest_block(&state)), (70, 71));
}

#[actix_rt::test]
async fn history_resumes_at_what_is_committed_and_not_at_what_is_only_cast() {
    let lost = Probe::<BatchLost>::start();
    let budget = Budget::new(100, lost.recipient());
    let state = state(&["/data"]);
    let fills = stream(&state, "/data", "fills").stream.clone();
    let heads = Heads { epoch: 1, run: 2, positions: vec![(Topic::new("fills"), 71)] };
    let heads = Arc::new(heads);
    let event = crate::event::Event {
        id: EventId { topic: Topic::new("fills"), position: 71, index: 0, part: 0 },
        time: NOW,
        user: None,
        keys: Default::default(),
        body: Default::default(),
    };
    let sequenced = SequencedEvent { seq: 10, late: false, event };
    let number = state.log.append(NewSegment {
        generation: 0,
        events: vec![LogEvent::new(sequenced, heads.clone())],
        notices: Vec::new(),
        seen: Vec::new(),
        heads,
        progress: Progress { stream: fills, files: Vec::new(), state: Default::default() },
        read_at: NOW,
        credit: budget.take(1, 0),
    });

    let cast = state.log.committed_head().to_string();
    state.log.commit(number + 1);

    assert_eq!(cast, "1.1.2.9.fills-46");
    assert_eq!(state.log.committed_head().to_string(), "1.1.2.a.fills-47");
}

fn gap(first: u64, last: u64) -> Gap {
    Gap { topic: Topic::new("fills"), first, last, opened: NOW, closed: None }
}

//! `/metrics` as a scraper meets it: the real program, and every line of its answer read strictly.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::TcpListener,
};

use serde_json::Value;
use tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

use crate::{
    DAY,
    common::{
        Setup, eventually, get,
        node::{ALICE, BOB, Kind, append, fills_line},
        receive_type,
    },
};

/// A page, by sample: `name{labels}` as it is written.
type Samples = BTreeMap<String, f64>;

fn scrape(port: u16) -> Samples {
    let mut response = get(&format!("http://127.0.0.1:{port}/metrics")).call().unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    parse(&response.body_mut().read_to_string().unwrap())
}

/// Reads the whole format and refuses everything that a scraper could.
fn parse(page: &str) -> Samples {
    assert!(page.ends_with('\n'));
    let mut kinds: HashMap<&str, &str> = HashMap::new();
    let (mut current, mut samples) = ("", Samples::new());
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            current = help.split_once(' ').unwrap().0;
            assert!(!kinds.contains_key(current), "{current} comes twice");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, current, "the type of a family follows its help");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            kinds.insert(name, kind);
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        let family = match kinds[current] {
            "histogram" => ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)),
            _ => Some(name),
        };
        assert_eq!(family, Some(current), "{line}");
        read_labels(labels);
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(value.is_finite(), "{line}");
        assert!(kinds[current] == "gauge" || value >= 0.0, "{line}");
        assert!(samples.insert(sample.to_owned(), value).is_none(), "{sample} comes twice");
    }
    samples
}

/// `name="value",...}`, with the escapes that there are.
fn read_labels(mut rest: &str) {
    while rest != "}" {
        let (name, value) = rest.split_once("=\"").unwrap();
        assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase()), "{name}");
        let mut characters = value.char_indices();
        let end = loop {
            match characters.next().expect("a value ends") {
                (_, '\\') => assert!(['\\', '"', 'n'].contains(&characters.next().unwrap().1)),
                (end, '"') => break end,
                _ => {}
            }
        };
        rest = &value[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asserts that the page says what status says.
fn agrees(samples: &Samples, sample: &str, status: &Value, pointer: &str) {
    let told = status.pointer(pointer).and_then(Value::as_i64).map(|told| told as f64);
    assert_eq!(samples.get(sample).copied(), told, "{sample} and {pointer}");
}

// U60, H48
#[test]
fn every_stage_counts_for_a_scraper_what_it_counts_for_status() {
    let mut setup = Setup::new();
    setup.whitelist = ALICE.to_owned();
    let port = free_port();
    setup.config = format!(
        "[http]\nmetrics_listen = \"127.0.0.1:{port}\"\n[session]\nmax_sessions = 77\n\
         [source]\nbudget_bytes = \"2MiB\"\nread_bytes = \"1MiB\"\n[store]\nmax_bytes = \"5GiB\"\n\
         read_connections = 3\n[log]\nchannel_records = 5000\n"
    );
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    let mut client = daemon.subscribe("fills");
    let lines =
        [fills_line(1, ALICE, 3), "{\"damaged".to_owned(), fills_line(2, BOB, 4)].join("\n");

    append(&mut file, &(lines + "\n"));
    for _ in 0..3 {
        receive_type(&mut client, "event");
    }
    let code = CloseCode::Normal;
    client.close(Some(CloseFrame { code, reason: "".into() })).unwrap();
    while client.read().is_ok() {}
    let at_rest = |status: &Value| {
        status["filter"]["received"] == 7
            && status["budget"]["in_flight_batches"] == 0
            && status["sessions"]["open"] == 0
    };
    eventually("all is committed and the client gone", || at_rest(&daemon.status()));
    let (samples, status) = (scrape(port), daemon.status());

    let stream = setup.node().join("node_fills_by_block").display().to_string();
    let streams = status["nodes"][0]["streams"].as_array().unwrap();
    let place = streams.iter().position(|known| known["stream"] == stream).unwrap();
    for (name, key) in [
        ("nodecast_source_read_bytes_total{S}", "read_bytes"),
        ("nodecast_source_offset_bytes{S}", "offset_bytes"),
        ("nodecast_source_behind_bytes{S}", "behind_bytes"),
        ("nodecast_source_last_block{S}", "last_block"),
        ("nodecast_parser_lines_total{S}", "lines"),
        ("nodecast_parser_elements_total{S}", "elements"),
        ("nodecast_parser_sent_total{S}", "candidates"),
        ("nodecast_parser_dropped_lines_total{S,reason=\"malformed\"}", "malformed_lines"),
    ] {
        let sample = name.replace('S', &format!("stream=\"{stream}\""));
        agrees(&samples, &sample, &status, &format!("/nodes/0/streams/{place}/{key}"));
    }
    for (sample, pointer) in [
        ("nodecast_filter_received_total", "/filter/received"),
        ("nodecast_filter_sent_total", "/filter/accepted"),
        ("nodecast_filter_dropped_total{reason=\"unlisted\"}", "/filter/rejected"),
        ("nodecast_router_received_total", "/router/received"),
        ("nodecast_router_sent_total", "/router/sequenced"),
        ("nodecast_router_height", "/router/height"),
        ("nodecast_store_commits_total", "/store/commits"),
        ("nodecast_store_commit_duration_seconds_count", "/store/commits"),
        ("nodecast_store_inserted_total", "/store/inserted"),
        ("nodecast_budget_limit_bytes", "/budget/limit_bytes"),
        ("nodecast_log_bytes", "/log/bytes"),
        ("nodecast_sessions_opened_total", "/sessions/opened"),
        ("nodecast_sessions_closed_total", "/sessions/closed"),
        ("nodecast_delivery_sent_frames_total", "/sessions/frames_sent"),
    ] {
        agrees(&samples, sample, &status, pointer);
    }
    let sum = |prefix: &str| {
        let those = samples.iter().filter(|(sample, _)| sample.starts_with(prefix));
        those.map(|(_, value)| value).sum::<f64>()
    };
    for stage in ["filter", "router"] {
        let named = |what: &str| sum(&format!("nodecast_{stage}_{what}_total"));
        assert_eq!(named("received"), named("sent") + named("dropped"), "{stage}");
    }
    for (sample, value) in [
        ("nodecast_filter_received_total", 7.0),
        ("nodecast_router_sent_total", 3.0),
        ("nodecast_store_inserted_total", 3.0),
        ("nodecast_store_outages_total", 0.0),
        ("nodecast_session_endings_total{reason=\"client\",code=\"\"}", 1.0),
        // Every bound is what the configuration says.
        ("nodecast_sessions_limit", 77.0),
        ("nodecast_budget_limit_bytes", 2.0 * 1_048_576.0),
        ("nodecast_store_limit_bytes", 5.0 * 1_073_741_824.0),
        ("nodecast_log_limit_bytes", 64.0 * 1_048_576.0),
        ("nodecast_session_outbox_limit_bytes", 1_048_576.0),
        ("nodecast_store_read_connections_limit", 3.0),
        ("nodecast_session_users_limit", 100_000.0),
        ("nodecast_logging_limit_records", 5_000.0),
        ("nodecast_logging_dropped_records_total", 0.0),
        ("nodecast_router_ledger_entries{memory=\"digests\"}", 2.0),
    ] {
        assert_eq!(samples.get(sample), Some(&value), "{sample}");
    }
    let quarantine = fs::metadata(setup.state_dir().join("quarantine.jsonl")).unwrap().len();
    assert_eq!(samples["nodecast_quarantine_bytes"], quarantine as f64);
    assert!(quarantine > 0);
    let casts = samples["nodecast_delivery_cast_duration_seconds_count"];
    assert!(casts >= 1.0);
    assert_eq!(samples["nodecast_delivery_cast_duration_seconds_bucket{le=\"+Inf\"}"], casts);
    assert!(samples["nodecast_delivery_cast_duration_seconds_sum"] > 0.0);

    // Its listener has nothing else, and the public one does not have it.
    let other = get(&format!("http://127.0.0.1:{port}/v1/status"));
    let other = other.config().http_status_as_error(false).build().call().unwrap();
    assert_eq!(other.status(), 404);
    assert_eq!(daemon.get("/metrics").0, 404);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_port_for_metrics_that_is_taken_is_named_with_its_key() {
    let mut setup = Setup::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    setup.config = format!("[http]\nmetrics_listen = \"{address}\"\n");

    let mut daemon = setup.spawn();

    assert_eq!(daemon.wait_exit().and_then(|status| status.code()), Some(1));
    let said = format!("cannot listen on {address} for http.metrics_listen");
    assert!(daemon.log().contains(&said), "{}", daemon.log_tail());
}

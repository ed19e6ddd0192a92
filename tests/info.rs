//! `POST /info`: a history that a simulated node has written, paged as clients of the official API do, and what
//! is passed on.

// The exception for tests does not cover the functions that tests share.
#![allow(clippy::unwrap_used)]

mod common;

use std::{collections::BTreeSet, time::Duration};

use common::{
    PATIENCE, Setup, TestDaemon, eventually,
    tls::{self, make_certificate},
};
use nodecast::{
    event::{Address, Timestamp, Topic},
    generate::{FILLS, MISC, Manifest, Plan, Row, Simulator},
};
use rust_decimal::Decimal;
use serde_json::{Value, json, value::RawValue};

/// Of one answer, as configured unless a test says otherwise.
const MAX_ROWS: usize = 2_000;

/// What the service answers to a text.
fn post(daemon: &TestDaemon, body: &str) -> (u16, String) {
    let request = ureq::post(format!("http://127.0.0.1:{}/info", daemon.port)).config();
    let request = request.timeout_global(Some(PATIENCE)).http_status_as_error(false).build();
    let mut answer = request.send(body).unwrap();
    let text = answer.body_mut().with_config().limit(1 << 30).read_to_string().unwrap();
    (answer.status().as_u16(), text)
}

/// The rows of an answer, as they are written there.
fn rows(daemon: &TestDaemon, request: &Value) -> Vec<String> {
    let (status, text) = post(daemon, &request.to_string());
    assert_eq!(status, 200, "{text}");
    let rows: Vec<Box<RawValue>> = serde_json::from_str(&text).unwrap();
    rows.into_iter().map(|row| row.get().to_owned()).collect()
}

fn time(row: &str) -> i64 {
    serde_json::from_str::<Value>(row).unwrap()["time"].as_i64().unwrap()
}

/// All rows of a request with times, and how many answers they took: each one begins at the last time of the
/// one before it, and repeats what it had of that.
fn paged(daemon: &TestDaemon, request: &Value) -> (Vec<String>, usize) {
    let (mut found, mut pages) = (Vec::<String>::new(), 0);
    let mut request = request.clone();
    request["startTime"] = json!(0);
    loop {
        let page = rows(daemon, &request);
        pages += 1;
        let Some(last) = page.last() else { return (found, pages) };
        let from = request["startTime"].as_i64().unwrap();
        let known = found.iter().rev().take_while(|row| time(row) == from).count();
        assert_eq!(found[found.len() - known..], page[..known], "what was known comes again");
        if page.len() == known {
            return (found, pages);
        }
        request["startTime"] = json!(time(last));
        found.extend_from_slice(&page[known..]);
    }
}

/// Two users who trade with each other, in hours that are just over.
fn with_history() -> (Setup, TestDaemon, Manifest) {
    let setup = Setup::new();
    let plan = Plan {
        seed: 5,
        users: 2,
        start: Some(Timestamp::now().minus(Duration::from_secs(5 * 3_600))),
        block_interval: Duration::from_secs(2),
        ..Plan::default()
    };
    let mut node = Simulator::new(plan, setup.node()).unwrap();
    node.write_blocks(7_500).unwrap();
    node.finish().unwrap();
    let manifest = node.into_manifest();
    let daemon = setup.start();
    let rows = manifest.totals.rows;
    eventually("all is stored", || daemon.status()["store"]["inserted"].as_u64() == Some(rows));
    (setup, daemon, manifest)
}

fn of(manifest: &Manifest, topic: Topic, user: Address) -> Vec<&Row> {
    let of_user = |row: &&Row| row.id.topic == topic && row.user == Some(user);
    let mut rows: Vec<_> = manifest.rows.iter().filter(of_user).collect();
    rows.sort_by_key(|row| (row.id.position, row.id.index, row.id.part));
    rows
}

/// The bodies of each order that crossed in a block, where its first one stood; those of all else alone.
fn crossing_orders<'m>(rows: &[&'m Row]) -> Vec<Vec<&'m str>> {
    let mut orders: Vec<(Option<String>, Vec<&str>)> = Vec::new();
    let mut block = (0, 0);
    for row in rows {
        if block.1 != row.id.position {
            block = (orders.len(), row.id.position);
        }
        let fill: Value = serde_json::from_str(&row.body).unwrap();
        let fields = ["oid", "coin", "side", "dir", "feeToken"].map(|name| fill[name].to_string());
        let order = (fill["crossed"] == true).then(|| fields.join(" "));
        let known =
            orders[block.0..].iter_mut().find(|(other, _)| order.is_some() && *other == order);
        match known {
            Some((_, bodies)) => bodies.push(&row.body),
            None => orders.push((order, vec![&row.body])),
        }
    }
    orders.into_iter().map(|(_, bodies)| bodies).collect()
}

fn size(body: &str) -> Decimal {
    serde_json::from_str::<Value>(body).unwrap()["sz"].as_str().unwrap().parse().unwrap()
}

fn ask_of(kind: &str, user: Address) -> Value {
    json!({"type": kind, "user": user.to_string().to_uppercase().replace("0X", "0x")})
}

#[test]
fn a_history_of_more_than_ten_thousand_fills_is_paged_without_a_loss_and_byte_by_byte() {
    let (mut setup, daemon, manifest) = with_history();
    let user = manifest.rows.iter().find(|row| row.id.topic == FILLS).unwrap().user.unwrap();
    let written = of(&manifest, FILLS, user);
    let bodies: Vec<_> = written.iter().map(|row| row.body.as_str()).collect();
    assert!(bodies.len() > 10_000, "only {}", bodies.len());

    let (found, pages) = paged(&daemon, &ask_of("userFillsByTime", user));
    assert!(found == bodies, "{} of {}", found.len(), bodies.len());
    assert!(pages > 5, "{pages}");

    // The newest: whole blocks, the newest first.
    let newest = rows(&daemon, &ask_of("userFills", user));
    let blocks = written.chunk_by(|one, next| one.id.position == next.id.position);
    let mut blocks: Vec<_> = blocks.collect();
    blocks.reverse();
    let expected = blocks.iter().flat_map(|block| block.iter().map(|row| row.body.as_str()));
    let expected: Vec<_> = expected.take(MAX_ROWS).collect();
    assert!(newest == expected, "{} rows", newest.len());

    let mut aggregated = ask_of("userFillsByTime", user);
    aggregated["aggregateByTime"] = json!(true);
    let found = paged(&daemon, &aggregated).0;
    let orders = crossing_orders(&written);
    assert_eq!(found.len(), orders.len());
    for (row, fills) in found.iter().zip(&orders) {
        match fills[..] {
            [body] => assert_eq!(row, body),
            _ => {
                let sum: Decimal = fills.iter().map(|body| size(body)).sum();
                assert_eq!(size(row), sum, "{row}");
            }
        }
    }
    assert!(found.len() + 100 < bodies.len(), "{}", found.len());

    assert!(daemon.stop().success());
    setup.config = "[official]\nmax_rows = 1000000\n".to_owned();
    let daemon = setup.start();
    let mut all = ask_of("userFillsByTime", user);
    all["startTime"] = json!(0);
    assert!(rows(&daemon, &all) == bodies, "the cap is lifted");
}

#[test]
fn fundings_ledger_updates_and_twap_slices_are_those_that_the_node_has_written() {
    let (_setup, daemon, manifest) = with_history();
    let users: BTreeSet<_> = manifest.rows.iter().filter_map(|row| row.user).collect();
    assert_eq!(users.len(), 2);
    for user in users {
        let (mut updates, mut fundings) = (Vec::new(), Vec::new());
        for row in of(&manifest, MISC, user) {
            let time = row.time_ns / 1_000_000;
            let whole: Value = serde_json::from_str(&row.body).unwrap();
            if let Some(update) = whole["inner"].get("LedgerUpdate") {
                updates
                    .push(json!({"time": time, "hash": whole["hash"], "delta": update["delta"]}));
            }
            if let Some(funding) = whole["inner"].get("Funding") {
                for delta in funding["deltas"].as_array().unwrap() {
                    fundings.push(json!({"time": time, "hash": whole["hash"], "delta": {
                        "type": "funding", "coin": delta["coin"], "usdc": delta["funding_amount"],
                        "szi": delta["szi"], "fundingRate": delta["funding_rate"], "nSamples": null,
                    }}));
                }
            }
        }
        let slices: Vec<_> = of(&manifest, FILLS, user)
            .into_iter()
            .filter(|row| !row.body.contains("\"twapId\":null"))
            .map(|row| row.body.as_str())
            .collect();
        let counts = [updates.len(), fundings.len(), slices.len()];
        assert!(counts[0] > MAX_ROWS && counts[1] > 3 && counts[2] > 50, "{counts:?}");

        let values = |rows: Vec<String>| -> Vec<Value> {
            rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect()
        };
        let found = values(paged(&daemon, &ask_of("userNonFundingLedgerUpdates", user)).0);
        assert!(found == updates, "{} of {}", found.len(), updates.len());
        let found = values(paged(&daemon, &ask_of("userFunding", user)).0);
        assert!(found == fundings, "{} of {}", found.len(), fundings.len());
        let mut request = ask_of("userTwapSliceFillsByTime", user);
        request["startTime"] = json!(0);
        let found = values(rows(&daemon, &request));
        for (slice, body) in found.iter().zip(&slices) {
            let fill: Value = serde_json::from_str(body).unwrap();
            assert_eq!(*slice, json!({"twapId": fill["twapId"], "fill": fill}));
        }
        assert_eq!(found.len(), slices.len().min(MAX_ROWS));
    }
}

#[test]
fn what_is_not_known_here_is_asked_of_the_upstream() {
    // Another daemon, which knows nothing either, but says so itself.
    let upstream = Setup::new().start();
    let mut setup = Setup::new();
    let url = format!("http://127.0.0.1:{}", upstream.port);
    setup.config = format!("[official]\ninfo_upstream = \"{url}\"\n");
    let daemon = setup.start();

    assert_eq!(post(&daemon, r#"{"type":"meta"}"#), (200, r#"{"universe":[]}"#.to_owned()));
    let spot = (200, r#"{"universe":[],"tokens":[]}"#.to_owned());
    assert_eq!(post(&daemon, r#"{"type":"spotMeta"}"#), spot);
    let said = post(&upstream, r#"{"type":"allMids"}"#);
    let passed = post(&daemon, r#"{"type":"allMids"}"#);

    assert_eq!(said, passed);
    let error: Value = serde_json::from_str(&said.1).unwrap();
    assert_eq!((said.0, &error["data"]), (422, &json!("unsupported_type")));
    assert!(error["msg"].as_str().unwrap().contains("--info-upstream"), "{error}");

    upstream.kill();
    let (status, text) = post(&daemon, r#"{"type":"allMids"}"#);
    let error: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &error["data"]), (502, &json!("upstream_failed")), "{text}");
    assert_eq!(post(&daemon, r#"{"type":"spotMeta"}"#), spot, "what was known holds");
}

#[test]
fn an_upstream_behind_tls_is_asked_where_its_certificate_is_trusted() {
    let directory = tempfile::tempdir().unwrap();
    make_certificate(directory.path());
    let meta = r#"{"universe":[{"name":"BTC","szDecimals":5}]}"#;
    let url = format!("https://{}", tls::serve(directory.path(), meta));
    let start = |wrapper: Vec<String>| {
        let mut setup = Setup::new();
        setup.config = format!("[official]\ninfo_upstream = \"{url}\"\n");
        setup.wrapper = wrapper;
        let daemon = setup.start();
        (setup, daemon)
    };
    let roots = directory.path().join("certificate.pem").display().to_string();
    let (_trusting, daemon) = start(vec!["env".to_owned(), format!("SSL_CERT_FILE={roots}")]);
    assert_eq!(post(&daemon, r#"{"type":"meta"}"#), (200, meta.to_owned()));
    assert_eq!(post(&daemon, r#"{"type":"allMids"}"#), (200, meta.to_owned()));

    let (_other, daemon) = start(Vec::new());
    let (status, text) = post(&daemon, r#"{"type":"meta"}"#);
    let error: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &error["data"]), (502, &json!("upstream_failed")), "{text}");
    assert!(error["msg"].as_str().unwrap().contains("certificate"), "{text}");
}

//! The accounts of the stages: nothing disappears uncounted.

use std::{fs, time::Duration};

use nodecast::generate::{Faults, Plan, Simulator};
use serde_json::{Value, json};

use crate::{
    common::{
        Setup, eventually,
        node::{ALICE, Kind, append, fill, fills_line, line},
    },
    harness::stored,
};

fn streams(status: &Value) -> impl Iterator<Item = &Value> {
    let nodes = status["nodes"].as_array().unwrap().iter();
    nodes.flat_map(|node| node["streams"].as_array().unwrap())
}

/// A counter of all streams together.
fn sum(status: &Value, counter: &str) -> u64 {
    streams(status).map(|stream| stream[counter].as_u64().unwrap()).sum()
}

/// In every stage received = sent + dropped.
#[test]
fn nothing_disappears_uncounted() {
    let mut setup = Setup::new();
    let second = setup.add_node();
    let plan = Plan {
        seed: 11,
        users: 40,
        start: Some(nodecast::event::Timestamp::now().minus(Duration::from_secs(2 * 86_400))),
        block_interval: Duration::from_secs(60),
        faults: Faults { torn: true, crash_every: 30, gap_every: 60, ..Faults::default() },
        ..Plan::default()
    };
    let mut node = Simulator::new(plan.clone(), setup.node()).unwrap();
    let mut other = Simulator::new(plan.lagging_by(Duration::from_secs(60)), &second).unwrap();
    let listed = node.users().addresses().iter().step_by(3);
    setup.whitelist = listed.map(|address| format!("{address}\n")).collect();
    let daemon = setup.start();

    node.write_blocks(150).unwrap();
    node.rewind(30).unwrap();
    other.write_blocks(150).unwrap();
    node.finish().unwrap();
    other.finish().unwrap();
    // Elements that are none, a line that is none, an old block and one of tomorrow's tomorrow.
    let mut spoiled = Kind::fills(&second).open(30_000_101, 0);
    append(&mut spoiled, "no JSON at all\n");
    let odd = json!([[ALICE], "text", [1, {}], [ALICE, "no object"], fill(ALICE, "BTC", 1)]);
    append(&mut spoiled, &(line(1_050_500_000, &odd) + "\n"));
    let ancient = fills_line(5, ALICE, 7).replace("\"block_time\":\"20", "\"block_time\":\"19");
    append(&mut spoiled, &(ancient + "\n"));

    let written = node.manifest().totals.bytes
        + other.manifest().totals.bytes
        + fs::metadata(Kind::fills(&second).path(30_000_101, 0)).unwrap().len();
    eventually("everything is read and committed", || {
        let status = daemon.status();
        let in_flight = &status["budget"]["in_flight_batches"];
        sum(&status, "read_bytes") >= written && *in_flight == 0
    });
    let status = daemon.status();
    let (filter, router, store) = (&status["filter"], &status["router"], &status["store"]);
    let count = |stage: &Value, counter: &str| stage[counter].as_u64().unwrap();

    assert_eq!(sum(&status, "malformed_lines"), 1, "{status}");
    assert_eq!(sum(&status, "skipped_elements"), 4, "{status}");
    assert_eq!(sum(&status, "refused_blocks"), 1, "{status}");
    let of_fills = |counter: &str| -> u64 {
        let fills = streams(&status).filter(|stream| stream["topic"] == "fills");
        fills.map(|stream| stream[counter].as_u64().unwrap()).sum()
    };
    // An element of fills is one candidate; a misc event may be several.
    assert_eq!(
        of_fills("elements"),
        of_fills("candidates") + of_fills("skipped_elements"),
        "{status}"
    );
    assert_eq!(sum(&status, "candidates"), count(filter, "received"), "{status}");
    assert_eq!(
        count(filter, "received"),
        count(filter, "accepted") + count(filter, "rejected") + count(filter, "malformed"),
        "{filter}"
    );
    assert!(count(filter, "accepted") > 0 && count(filter, "rejected") > 0, "{filter}");
    assert_eq!(count(filter, "accepted"), count(router, "received"), "{status}");
    assert_eq!(
        count(router, "received"),
        count(router, "sequenced") + count(router, "duplicates") + count(router, "stale"),
        "{router}"
    );
    assert!(count(router, "duplicates") > 0, "{router}");
    assert_eq!(
        count(router, "sequenced"),
        count(store, "inserted")
            + count(store, "duplicates")
            + count(store, "quarantined")
            + count(store, "stale"),
        "{store}"
    );
    assert_eq!(stored(&setup) as u64, count(store, "inserted"));
    assert_eq!(daemon.stop().code(), Some(0));
}

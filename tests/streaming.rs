//! `_streaming` files: a block spans several lines, perhaps in two hour files, and only the order
//! of its lines says which element is which.

// The exception for tests does not cover the functions that tests share.
#![allow(clippy::unwrap_used)]
#![cfg(feature = "failpoints")]

mod common;

use std::time::{Duration, Instant};

use common::{PATIENCE, Setup, TestDaemon, database, eventually, node, was_killed};
use nodecast::{
    event::Timestamp,
    generate::{Faults, Manifest, Plan, Simulator},
};
use serde_json::{Value, json};

const DAY: u32 = 20_260_315;

/// Where the daemon kills itself, with bytes on the way.
const POINTS: [&str; 6] = [
    "watcher.send",
    "parser.send",
    "filter.send",
    "router.appended",
    "store.in_transaction",
    "store.after_commit",
];

/// A chain of which an hour has 60 blocks, so that each test crosses hours.
fn plan(seed: u64) -> Plan {
    Plan {
        seed,
        users: 40,
        start: Some(Timestamp::now().minus(Duration::from_secs(3 * 86_400))),
        block_interval: Duration::from_secs(60),
        streaming: true,
        faults: Faults { torn: true, ..Faults::default() },
        ..Plan::default()
    }
}

fn setup() -> Setup {
    let mut setup = Setup::new();
    setup.config = "[source]\ngrace = \"100ms\"\nrescan_interval = \"250ms\"\n".to_owned();
    setup
}

/// Waits until all is stored, stops, and compares row by row.
fn assert_stored(setup: &Setup, daemon: TestDaemon, manifest: &Manifest) {
    eventually("all is stored", || database::rows(&setup.database()).len() >= manifest.rows.len());
    let status = daemon.status();
    assert_eq!(daemon.stop().code(), Some(0));
    database::assert_equals_manifest(&setup.database(), manifest.rows.iter());
    assert_no_alarm(&status);
}

/// No content that contradicts itself, and nothing that could not be used.
fn assert_no_alarm(status: &Value) {
    assert_eq!(status["router"]["conflicts"], 0, "{status}");
    for stream in status["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|node| node["streams"].as_array().unwrap())
    {
        assert_eq!(stream["skipped_elements"], 0, "{stream}");
        assert_eq!(stream["refused_blocks"], 0, "{stream}");
    }
}

#[test]
fn streaming_files_with_torn_lines_hours_and_a_rewind_are_stored_row_by_row() {
    let setup = setup();
    let mut node = Simulator::new(plan(1), setup.node()).unwrap();
    let daemon = setup.start();

    node.write_blocks(150).unwrap();
    node.rewind(70).unwrap();
    node.write_blocks(80).unwrap();
    node.finish().unwrap();

    assert_stored(&setup, daemon, &node.into_manifest());
}

/// Kills the daemon again and again while one node streams a chain and, if asked for, writes it
/// whole as well. The whole form would bring what the streamed one loses, so it is left out where
/// the streamed one is to be judged alone.
fn kill_again_and_again(with_whole_form: bool) {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut setup = setup();
    let plan = Plan {
        faults: Faults { torn: true, crash_every: 40, rewind_every: 120, ..Faults::default() },
        ..plan(seed)
    };
    let whole = Plan { streaming: false, node_seed: 9, ..plan.clone() };
    let mut node = Simulator::new(plan, setup.node()).unwrap();
    let mut beside = Simulator::new(whole, setup.node()).unwrap();
    node.write_blocks(3).unwrap();

    for round in 0..12 {
        let point = POINTS[round % POINTS.len()];
        setup.failpoints = format!("{point}=kill@{}", 1 + round % 4);
        let mut daemon = setup.spawn();
        let start = Instant::now();
        loop {
            if let Some(status) = daemon.wait_exit_for(Duration::from_millis(3)) {
                assert!(was_killed(status), "{point}: {status}\n{}", daemon.log_tail());
                break;
            }
            assert!(start.elapsed() < PATIENCE, "{point} was not reached");
            // Each of them is ahead at times.
            if with_whole_form && round % 4 >= 2 {
                beside.write_block().unwrap();
            } else {
                node.write_block().unwrap();
            }
        }
    }
    node.finish().unwrap();
    beside.finish().unwrap();
    let mut manifest = node.into_manifest();
    if with_whole_form {
        manifest.merge(beside.manifest());
    }

    setup.failpoints.clear();
    let daemon = setup.start();
    assert_stored(&setup, daemon, &manifest);
}

// H15: also in mid-block, and while a rewind repeats blocks.
#[test]
fn kills_in_the_middle_of_blocks_lose_nothing_and_repeat_nothing() {
    kill_again_and_again(false);
}

// H15
#[test]
fn kills_beside_the_whole_form_lose_nothing_and_repeat_nothing() {
    kill_again_and_again(true);
}

/// The elements of one block, one a line, as a node streams them.
fn pieces(block: u64, count: u64) -> Vec<String> {
    let piece = |tid| node::line(block, &json!([node::fill(node::ALICE, "BTC", tid)])) + "\n";
    (0..count).map(piece).collect()
}

// The index counts from the block's first line, which lies before the start.
#[test]
fn a_start_from_now_in_the_middle_of_a_block_counts_from_its_first_line() {
    let mut setup = setup();
    setup.from = "now";
    let kind = node::Kind::named(setup.node(), "node_fills_streaming");
    let mut file = kind.open(DAY, 9);
    let block = pieces(8, 6);
    node::append(&mut file, &pieces(7, 3).concat());
    node::append(&mut file, &block[..3].concat());
    // The fourth line is torn at the moment of the start.
    let (head, tail) = block[3].split_at(200);
    node::append(&mut file, head);

    let daemon = setup.start();
    eventually("the stream is found", || {
        daemon.status()["nodes"][0]["streams"][0]["file"].is_string()
    });
    node::append(&mut file, tail);
    node::append(&mut file, &block[4..].concat());
    node::append(&mut file, &pieces(9, 2).concat());

    let stored = || -> Vec<_> {
        let rows = database::rows(&setup.database());
        rows.into_iter()
            .map(|(id, (_, body))| {
                let tid = serde_json::from_str::<Value>(&body).unwrap()["tid"].as_u64().unwrap();
                assert_eq!(u64::from(id.index), tid, "block {}", id.position);
                (id.position, id.index)
            })
            .collect()
    };
    eventually("the next block is stored", || stored().contains(&(9, 1)));
    let stored = stored();
    // What lay before the start may come too, whole; nothing behind it may be missing.
    let expected = [(8, 3), (8, 4), (8, 5), (9, 0), (9, 1)];
    assert!(stored.ends_with(&expected), "{stored:?}");
    assert!(stored.iter().all(|&(block, _)| block >= 8), "{stored:?}");
}

// A block may go on in the file of the next hour.
#[test]
fn a_block_that_spans_two_hours_and_a_restart_keeps_its_count() {
    let setup = setup();
    let kind = node::Kind::named(setup.node(), "node_fills_streaming");
    let block = pieces(8, 9);
    let stored = |wanted: usize| {
        eventually("it is stored", || database::rows(&setup.database()).len() == wanted);
    };
    node::append(&mut kind.open(DAY, 9), &block[..2].concat());

    let daemon = setup.start();
    stored(2);
    node::append(&mut kind.open(DAY, 9), &block[2]);
    node::append(&mut kind.open(DAY, 10), &block[3..5].concat());
    stored(5);
    daemon.kill();
    node::append(&mut kind.open(DAY, 10), &block[5..7].concat());
    let daemon = setup.start();
    stored(7);
    assert_eq!(daemon.stop().code(), Some(0));
    let daemon = setup.start();
    node::append(&mut kind.open(DAY, 11), &block[7..].concat());
    stored(9);

    assert_no_alarm(&daemon.status());
    for (id, (_, body)) in database::rows(&setup.database()) {
        let fill: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(fill["tid"], id.index, "{id:?}");
    }
}

/// The node was switched from one form to the other, or writes both.
#[test]
fn both_forms_of_one_chain_side_by_side_give_no_repeat_no_loss_and_no_alarm() {
    let mut setup = setup();
    let second = setup.add_node();
    let plan = plan(5);
    let whole = Plan { streaming: false, node_seed: 9, ..plan.clone() };
    let mut streaming = Simulator::new(plan, setup.node()).unwrap();
    // In the same directory as the streaming files, and in one of its own.
    let mut beside = Simulator::new(whole.clone(), setup.node()).unwrap();
    let mut apart = Simulator::new(Plan { node_seed: 10, ..whole }, &second).unwrap();
    let daemon = setup.start();

    for round in 0..30 {
        // Each of them is ahead at times.
        let counts = [[9, 0, 3], [0, 9, 3], [3, 3, 6]][round % 3];
        streaming.write_blocks(counts[0]).unwrap();
        beside.write_blocks(counts[1]).unwrap();
        apart.write_blocks(counts[2]).unwrap();
    }
    for node in [&mut streaming, &mut beside, &mut apart] {
        node.finish().unwrap();
    }
    let manifest = streaming.into_manifest();
    assert_eq!(manifest.rows.len(), beside.manifest().rows.len());
    let bytes = [beside.manifest(), apart.manifest()].map(|manifest| manifest.totals.bytes);
    let unread = bytes.iter().sum::<u64>() + manifest.totals.bytes;

    eventually("every file is read", || {
        let status = daemon.status();
        let streams = status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|node| node["streams"].as_array().unwrap());
        let read: u64 = streams.map(|stream| stream["read_bytes"].as_u64().unwrap()).sum();
        // What is read is not with the Router yet, of which two thirds or so are repeats.
        let duplicates = status["router"]["duplicates"].as_u64();
        read >= unread
            && status["log"]["uncommitted_segments"] == 0
            && duplicates >= Some(manifest.rows.len() as u64)
    });
    let router = &daemon.status()["router"];
    assert_eq!(router["gaps_opened"], 0, "{router}");
    assert_stored(&setup, daemon, &manifest);
}

/// Half of a block's elements come by one form, and all by the other.
#[test]
fn a_block_that_one_form_brings_in_part_is_completed_by_the_other() {
    let setup = setup();
    let streaming = node::Kind::named(setup.node(), "node_fills_streaming");
    let mut by_block = node::Kind::fills(setup.node()).open(DAY, 9);
    node::append(&mut streaming.open(DAY, 9), &pieces(7, 5)[..3].concat());
    let daemon = setup.start();
    let stored = || database::rows(&setup.database()).len();
    eventually("the beginning is stored", || stored() == 3);

    node::append(&mut by_block, &(node::fills_line(7, node::ALICE, 5) + "\n"));
    eventually("the rest is stored", || stored() == 5);
    node::append(&mut streaming.open(DAY, 9), &pieces(7, 5)[3..].concat());
    node::append(&mut streaming.open(DAY, 9), &pieces(8, 1).concat());
    eventually("the next is stored", || stored() == 6);

    let router = &daemon.status()["router"];
    assert_eq!((&router["sequenced"], &router["duplicates"]), (&json!(6), &json!(5)), "{router}");
    assert_eq!(router["conflicts"], 0, "{router}");
}

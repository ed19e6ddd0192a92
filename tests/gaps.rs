//! Promise 2: no silent hole.

// The exception for tests does not cover the functions that tests share.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs::File, time::Instant};

use common::{
    Client, PATIENCE, Setup, TestDaemon, database, eventually,
    node::{ALICE, Kind, append, fills_line, line},
    receive, receive_type, send,
};
use serde_json::{Value, json};

const DAY: u32 = 20_260_315;

fn write(file: &mut File, blocks: impl IntoIterator<Item = u64>) {
    for block in blocks {
        append(file, &(fills_line(block, ALICE, 1) + "\n"));
    }
}

/// Bounds of the gaps that status lists, in ascending order.
fn open_gaps(daemon: &TestDaemon) -> Vec<(u64, u64)> {
    let status = daemon.status();
    let gaps = status["router"]["gaps"].as_array().unwrap();
    assert_eq!(status["router"]["gaps_open"], gaps.len());
    let bound = |gap: &Value, name| gap[name].as_u64().unwrap();
    let mut gaps: Vec<_> =
        gaps.iter().map(|gap| (bound(gap, "first"), bound(gap, "last"))).collect();
    gaps.sort_unstable();
    gaps
}

/// Events as their blocks, gaps as their bounds and whether they are closed.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Event { block: u64, late: bool },
    Gap { from: u64, to: u64, closed: bool },
}

/// What a client is told next, heartbeats aside.
fn told(client: &mut Client) -> Told {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let frame = receive(client);
        let number = |name: &str| frame[name].as_u64().unwrap();
        let flag = |name: &str| frame[name].as_bool().unwrap();
        match frame["type"].as_str().unwrap() {
            "event" => return Told::Event { block: number("block"), late: flag("late") },
            "gap" => {
                let (from, to, closed) = (number("from"), number("to"), flag("closed"));
                return Told::Gap { from, to, closed };
            }
            "heartbeat" => {}
            other => panic!("{other} comes unasked: {frame}"),
        }
    }
    panic!("only heartbeats come");
}

fn on_time(block: u64) -> Told {
    Told::Event { block, late: false }
}

fn late(block: u64) -> Told {
    Told::Event { block, late: true }
}

#[test]
fn a_gap_is_told_with_its_bounds_and_closed_by_another_node() {
    let mut setup = Setup::new();
    let second = setup.add_node();
    let mut ahead = Kind::fills(setup.node()).open(DAY, 9);
    let mut other = Kind::fills(&second).open(DAY, 9);
    let daemon = setup.start();
    let mut fills = daemon.subscribe("fills");
    let mut misc = daemon.subscribe("misc");

    write(&mut ahead, [1, 2, 6, 7]);

    let seen: Vec<_> = (0..5).map(|_| told(&mut fills)).collect();
    // The hole is told where it is, and not somewhere behind it.
    let hole = Told::Gap { from: 3, to: 5, closed: false };
    assert!(seen.contains(&hole), "{seen:?}");
    assert!(seen.contains(&on_time(7)), "{seen:?}");
    assert_eq!(open_gaps(&daemon), [(3, 5)]);
    let router = &daemon.status()["router"];
    assert_eq!(router["missing_blocks"], 3, "{router}");
    // The other node brings a part: the gap stays until the last block is there.
    write(&mut other, [1, 2, 3, 4]);
    assert_eq!([told(&mut fills), told(&mut fills)], [late(3), late(4)]);
    assert_eq!(open_gaps(&daemon), [(3, 5)]);
    write(&mut other, [5, 6, 7, 8]);
    let seen: Vec<_> = (0..3).map(|_| told(&mut fills)).collect();
    let closed = Told::Gap { from: 3, to: 5, closed: true };
    assert!(seen.contains(&closed) && seen.contains(&late(5)), "{seen:?}");
    assert!(seen.contains(&on_time(8)), "{seen:?}");

    assert_eq!(open_gaps(&daemon), []);
    let router = &daemon.status()["router"];
    assert_eq!((&router["gaps_opened"], &router["gaps_closed"]), (&json!(1), &json!(1)));
    assert_eq!(router["late"], 3, "{router}");
    eventually("all is stored", || database::rows(&setup.database()).len() == 8);
    // Who asked for another topic was told nothing: the answer to his ping comes first.
    send(&mut misc, &json!({"type": "ping", "id": "1"}));
    assert_eq!(receive(&mut misc)["type"], "pong");
}

#[test]
fn a_gap_survives_a_kill_and_is_closed_afterwards() {
    let mut setup = Setup::new();
    let second = setup.add_node();
    let mut ahead = Kind::fills(setup.node()).open(DAY, 9);
    let mut other = Kind::fills(&second).open(DAY, 9);
    let daemon = setup.start();
    write(&mut ahead, [1, 2, 6]);
    eventually("the hole is stored", || database::rows(&setup.database()).len() == 3);
    daemon.kill();

    let daemon = setup.start();
    assert_eq!(open_gaps(&daemon), [(3, 5)]);
    // Another hole right behind the restart.
    write(&mut ahead, [9]);
    eventually("it is found too", || open_gaps(&daemon) == [(3, 5), (7, 8)]);
    let mut client = daemon.subscribe("fills");
    write(&mut other, 1..=9);

    let seen: Vec<_> = (0..7).map(|_| told(&mut client)).collect();
    for gap in [(3, 5), (7, 8)] {
        let closed = Told::Gap { from: gap.0, to: gap.1, closed: true };
        assert!(seen.contains(&closed), "{gap:?}: {seen:?}");
    }
    for block in [3, 4, 5, 7, 8] {
        assert!(seen.contains(&late(block)), "{block}: {seen:?}");
    }
    assert_eq!(open_gaps(&daemon), []);
    assert_eq!(daemon.stop().code(), Some(0));
    let daemon = setup.start();
    assert_eq!(open_gaps(&daemon), [], "a closed gap came back");
}

/// Hour 9 brings blocks 1 and 2, and the daemon is stopped when they are stored.
fn two_blocks_stored_and_stopped(setup: &Setup) -> Kind {
    let kind = Kind::fills(setup.node());
    write(&mut kind.open(DAY, 9), [1, 2]);
    let daemon = setup.start();
    eventually("the beginning is stored", || database::rows(&setup.database()).len() == 2);
    assert_eq!(daemon.stop().code(), Some(0));
    kind
}

// The node starts again behind a hole, in a file of another hour, while we are down.
#[test]
fn a_hole_that_came_while_we_were_down_is_found() {
    let setup = Setup::new();
    let kind = two_blocks_stored_and_stopped(&setup);
    write(&mut kind.open(DAY, 12), [20, 21]);

    let daemon = setup.start();

    eventually("it is found", || open_gaps(&daemon) == [(3, 19)]);
}

/// Resumes a subscription; gives what it is told before it is live, and the cursor of that.
fn resume(client: &mut Client, id: &str, from: &str) -> (Vec<(u64, u64)>, String) {
    send(client, &json!({"type": "subscribe", "id": id, "topic": "fills", "from": from}));
    receive_type(client, "ack");
    let mut gaps = Vec::new();
    loop {
        let frame = receive(client);
        match frame["type"].as_str().unwrap() {
            "gap" => gaps.push((frame["from"].as_u64().unwrap(), frame["to"].as_u64().unwrap())),
            "live" => return (gaps, frame["cursor"].as_str().unwrap().to_owned()),
            other => assert_eq!(other, "heartbeat", "{frame}"),
        }
    }
}

// The block behind the hole has nothing for anybody who is listed: no event stands behind the notice.
#[test]
fn a_gap_behind_a_cursor_is_told_once_though_no_event_follows() {
    let mut setup = Setup::new();
    setup.whitelist = format!("{ALICE}\n");
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    let mut client = daemon.subscribe("fills");
    write(&mut file, [1]);
    let event = receive_type(&mut client, "event");
    let at_event = event["cursor"].as_str().unwrap();
    let poll = |cursor: &str| {
        let path = format!("/v1/poll?topic=fills&timeout=0s&cursor={cursor}");
        let (_, mut answer) = daemon.get(&path);
        let cursor = answer["cursor"].as_str().unwrap().to_owned();
        (std::mem::take(answer["events"].as_array_mut().unwrap()), cursor)
    };
    let (nothing, before) = poll(at_event);
    assert!(nothing.is_empty(), "{nothing:?}");
    drop(client);

    append(&mut file, &(fills_line(5, "0x1e37a337ed460039d1b15bd3bc489de789768d5e", 1) + "\n"));
    eventually("it is cast", || {
        let answer = daemon.get("/v1/poll?topic=fills&timeout=0s").1;
        answer["cursor"].as_str().unwrap().ends_with(".fills-5")
    });

    let mut client = daemon.connect("/v1/ws");
    receive_type(&mut client, "hello");
    let (gaps, live) = resume(&mut client, "a", at_event);
    assert_eq!(gaps, [(2, 4)]);
    let (gaps, _) = resume(&mut client, "b", at_event);
    assert_eq!(gaps, [], "once for all subscriptions of a session");
    let mut client = daemon.connect("/v1/ws");
    receive_type(&mut client, "hello");
    assert_eq!(resume(&mut client, "a", &live).0, [], "it knows");
    // The hole has come between two polls, and the third does not find it again.
    let (told, after) = poll(&before);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (&told[0]["type"], &told[0]["from"], &told[0]["to"]),
        (&json!("gap"), &json!(2), &json!(4))
    );
    assert_eq!(poll(&after).0.len(), 0);
    // Where an event follows, nothing is told twice either.
    write(&mut file, [8]);
    eventually("it is stored", || database::rows(&setup.database()).len() == 2);
    let (told, after) = poll(&after);
    let kinds: Vec<_> = told.iter().map(|one| one["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["gap", "event"]);
    assert_eq!(poll(&after).0.len(), 0);
}

/// What polls from a cursor on find, one event or a few in each, until they find nothing: gaps and blocks.
fn poll_all(daemon: &TestDaemon, mut cursor: String, limit: usize) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    loop {
        let path = format!("/v1/poll?topic=fills&timeout=0s&limit={limit}&cursor={cursor}");
        let answer = daemon.get(&path).1;
        let events = answer["events"].as_array().unwrap();
        if events.is_empty() {
            return found;
        }
        for event in events {
            let kind = event["type"].as_str().unwrap().to_owned();
            let block = event[if kind == "gap" { "from" } else { "block" }].as_u64().unwrap();
            found.push((kind, block));
        }
        cursor = answer["cursor"].as_str().unwrap().to_owned();
    }
}

// What lies in the store comes without its notices.
#[test]
fn small_polls_and_lists_through_the_store_are_told_each_gap() {
    let setup = Setup::new();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    write(&mut file, [1]);
    let daemon = setup.start();
    eventually("it is stored", || database::rows(&setup.database()).len() == 1);
    let first = daemon.get("/v1/poll?topic=fills&timeout=0s").1["cursor"].clone();
    let first = first.as_str().unwrap().to_owned();
    write(&mut file, [2, 6, 7, 8]);
    eventually("they are stored", || database::rows(&setup.database()).len() == 5);
    let second = daemon.get("/v1/poll?topic=fills&timeout=0s").1["cursor"].clone();
    let second = second.as_str().unwrap().to_owned();
    write(&mut file, [12, 13]);
    eventually("these, too", || database::rows(&setup.database()).len() == 7);
    assert_eq!(daemon.stop().code(), Some(0));
    let daemon = setup.start();

    for limit in [1, 2, 100] {
        let found = poll_all(&daemon, first.clone(), limit);

        let of = |wanted: &str| {
            let found = found.iter().filter(|(kind, _)| kind == wanted);
            found.map(|(_, block)| *block).collect::<Vec<_>>()
        };
        assert_eq!(of("event"), [2, 6, 7, 8, 12, 13], "limit {limit}: {found:?}");
        let mut gaps = of("gap");
        gaps.dedup();
        assert_eq!(gaps, [3, 9], "limit {limit}: {found:?}");
    }

    // The newer cursor first: what lies before it is told all the same.
    let mut client = daemon.connect("/v1/ws");
    receive_type(&mut client, "hello");
    let subscribe = |id: &str, from: &str| json!({"type": "subscribe", "id": id, "topic": "fills", "from": from});
    send(&mut client, &json!([subscribe("a", &second), subscribe("b", &first)]));
    let mut gaps = Vec::new();
    loop {
        let frame = receive(&mut client);
        match frame["type"].as_str().unwrap() {
            "gap" => gaps.push(frame["from"].as_u64().unwrap()),
            "live" => break,
            _ => {}
        }
    }
    gaps.sort_unstable();
    assert_eq!(gaps, [3, 9]);
}

// Files that were pruned before they were read.
#[test]
fn a_file_that_vanished_unread_is_a_gap() {
    let setup = Setup::new();
    let kind = two_blocks_stored_and_stopped(&setup);
    write(&mut kind.open(DAY, 9), [3, 4]);
    std::fs::remove_file(kind.path(DAY, 9)).unwrap();
    write(&mut kind.open(DAY, 10), [5, 6]);

    let daemon = setup.start();

    eventually("it is found", || open_gaps(&daemon) == [(3, 4)]);
    eventually("reading goes on", || database::rows(&setup.database()).len() == 4);
}

fn misc_line(block: u64) -> String {
    let inner = json!({"CDeposit": {"user": ALICE, "amount": "1.0"}});
    let event = json!({"time": "2026-06-11T01:01:29.513722441", "hash": "0x7f", "inner": inner});
    line(block, &json!([event])) + "\n"
}

/// Whether misc lines come for each block is learned, and what was learned stays: over a rewind,
/// a hole and a restart.
#[test]
fn a_stream_that_has_shown_itself_dense_stays_so() {
    let setup = Setup::new();
    let mut file = Kind::misc(setup.node()).open(DAY, 9);
    let mut write = |blocks: Vec<u64>| {
        blocks.into_iter().for_each(|block| append(&mut file, &misc_line(block)));
    };
    let daemon = setup.start();
    // Sparse at first: nothing is known, and a jump is no hole.
    write((1..=5).chain(9..=120).collect());
    eventually("they are stored", || database::rows(&setup.database()).len() == 117);
    assert_eq!(open_gaps(&daemon), []);
    write(vec![125, 126]);
    eventually("a hole is a hole now", || open_gaps(&daemon) == [(121, 124)]);
    // A rewind, and the hole is still there.
    write((118..=120).chain(125..=128).collect());
    eventually("the new ones are stored", || database::rows(&setup.database()).len() == 121);
    assert_eq!(daemon.stop().code(), Some(0));

    let daemon = setup.start();
    write(vec![135]);

    eventually("it is found after a restart", || open_gaps(&daemon) == [(121, 124), (129, 134)]);
}

// One damaged digit is enough for such a number.
#[test]
fn a_block_number_that_no_chain_reaches_moves_nothing_and_is_set_aside() {
    const FAR: u64 = 9_000_000_000_000_000;
    let setup = Setup::new();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    // As the first line of all, among others, and behind a restart.
    write(&mut file, [FAR, 5_000_001, 5_000_002, FAR, 2_000_000_000, 7, 5_000_003]);
    let daemon = setup.start();
    let refused = |daemon: &TestDaemon| {
        daemon.status()["nodes"][0]["streams"][0]["refused_blocks"].as_u64().unwrap()
    };
    eventually("the real blocks are stored", || database::rows(&setup.database()).len() == 3);
    assert_eq!(refused(&daemon), 4);
    assert_eq!(daemon.get("/height").1["block"], 5_000_003);
    assert_eq!(daemon.stop().code(), Some(0));
    write(&mut file, [2_000_000_000, 5_000_004]);

    let daemon = setup.start();
    let mut client = daemon.subscribe("fills");
    eventually("reading goes on", || database::rows(&setup.database()).len() == 4);
    write(&mut file, [FAR, 5_000_005]);

    assert_eq!(told(&mut client), on_time(5_000_005));
    assert_eq!(refused(&daemon), 2);
    assert_eq!(open_gaps(&daemon), []);
    assert_eq!(daemon.status()["router"]["height"], 5_000_005);
    let aside = std::fs::read_to_string(setup.state_dir().join("quarantine.jsonl")).unwrap();
    assert_eq!(aside.lines().count(), 6, "{aside}");
    assert!(aside.lines().all(|line| line.contains("block_number does not fit")), "{aside}");
    eventually("the log says it", || daemon.log().matches("block refused").count() == 6);
}

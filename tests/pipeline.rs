//! The whole daemon: real files, a real socket, a real database.

// The helpers of tests are tests too, which clippy's own exception does not see.
#![allow(clippy::unwrap_used)]

mod common;

use common::{
    Setup, eventually,
    node::{ALICE, BOB, Kind, append, fill, fills_line, line},
    receive, receive_type, send,
};
use serde_json::{Value, json};

/// Identities and users of all stored fills, by the history query.
fn stored_blocks(daemon: &common::TestDaemon, topic: &str) -> Vec<u64> {
    let (status, page) = daemon.get(&format!("/v1/events?topic={topic}&limit=10000"));
    assert_eq!(status, 200, "{page}");
    let events = page["events"].as_array().unwrap();
    events.iter().map(|event| event["block"].as_u64().unwrap()).collect()
}

/// Bytes that this run of the daemon has read of its first stream.
fn read_bytes(daemon: &common::TestDaemon) -> u64 {
    let status = daemon.status();
    status["nodes"][0]["streams"][0]["read_bytes"].as_u64().unwrap_or_default()
}

// H01 H02 H27 H28 H29
#[test]
fn lines_of_both_kinds_reach_a_client_of_the_older_protocol_and_the_store() {
    let setup = Setup::new();
    let mut fills = Kind::fills(setup.node()).open(20_260_315, 9);
    let mut misc = Kind::misc(setup.node()).open(20_260_315, 9);
    let daemon = setup.start();
    let mut client = daemon.connect("/ws");
    send(&mut client, &json!({"action": "subscribe", "event": "fill"}));
    send(&mut client, &json!({"action": "subscribe", "event": "misc"}));
    eventually("both subscriptions", || daemon.status()["sessions"]["subscriptions"] == 2);

    append(&mut fills, &(fills_line(7, ALICE, 1) + "\n"));

    let frame = receive(&mut client);
    assert_eq!(
        frame,
        json!({"user": ALICE, "event": "fill", "block": 7, "data": fill(ALICE, "BTC", 0)[1]})
    );
    let inner = json!({"CDeposit": {"user": BOB, "amount": "0.00982529"}});
    let event = json!({"time": "2026-06-11T01:01:29.513722441", "hash": "0x7f", "inner": inner});
    append(&mut misc, &(line(8, &json!([event])) + "\n"));
    let frame = receive(&mut client);
    assert_eq!((&frame["event"], &frame["user"]), (&json!("misc"), &json!(BOB)));
    assert_eq!(frame["data"]["CDeposit"], inner["CDeposit"]);
    assert_eq!(frame["data"]["hash"], "0x7f");
    eventually("both are stored", || {
        stored_blocks(&daemon, "fills") == [7] && stored_blocks(&daemon, "misc") == [8]
    });
    assert_eq!(daemon.get("/height").1, json!({"block": 8}));
}

// H06 H08 H10
#[test]
fn torn_lines_and_changes_of_hour_and_day_lose_nothing() {
    let setup = Setup::new();
    let kind = Kind::fills(setup.node());
    let mut file = kind.open(20_260_315, 23);
    let daemon = setup.start();
    let mut client = daemon.subscribe("fills");

    for block in 1..=60 {
        if block == 20 {
            file = kind.open(20_260_316, 0);
        }
        if block == 40 {
            file = kind.open(20_260_316, 1);
        }
        let text = fills_line(block, ALICE, 2) + "\n";
        let (head, tail) = text.split_at(block as usize * 7 % text.len());
        append(&mut file, head);
        append(&mut file, tail);
    }

    let mut received = Vec::new();
    while received.len() < 120 {
        let frame = receive_type(&mut client, "event");
        received.push((frame["block"].as_u64().unwrap(), frame["index"].as_u64().unwrap()));
    }
    let expected: Vec<_> = (1..=60).flat_map(|block| [(block, 0), (block, 1)]).collect();
    assert_eq!(received, expected);
    eventually("all are stored", || stored_blocks(&daemon, "fills").len() == 120);
}

// H14 H16 H47
#[test]
fn a_clean_restart_goes_on_where_it_stopped_and_catches_up() {
    let setup = Setup::new();
    let kind = Kind::fills(setup.node());
    append(&mut kind.open(20_260_315, 9), &(fills_line(1, ALICE, 1) + "\n"));
    let daemon = setup.start();
    eventually("the first is stored", || stored_blocks(&daemon, "fills") == [1]);

    assert_eq!(daemon.stop().code(), Some(0));
    let mut written = 0;
    for (block, day, hour) in [(2, 20_260_315, 9), (3, 20_260_315, 10), (4, 20_260_316, 2)] {
        let line = fills_line(block, ALICE, 1) + "\n";
        append(&mut kind.open(day, hour), &line);
        written += line.len() as u64;
    }

    let daemon = setup.start();
    eventually("downtime is caught up", || stored_blocks(&daemon, "fills") == [1, 2, 3, 4]);
    // It began at its checkpoint: what was read before is not read again.
    assert_eq!(read_bytes(&daemon), written);
    let status = daemon.status();
    assert_eq!(status["router"]["duplicates"], 0, "{status}");
}

// H24
#[test]
fn only_listed_users_are_stored_and_cast() {
    let mut setup = Setup::new();
    setup.whitelist = format!("# the first user\n{}\n", ALICE.to_uppercase().replace("0X", "0x"));
    let mut file = Kind::fills(setup.node()).open(20_260_315, 9);
    let daemon = setup.start();

    append(&mut file, &(fills_line(1, BOB, 3) + "\n"));
    append(&mut file, &(fills_line(2, ALICE, 1) + "\n"));

    eventually("hers is stored", || stored_blocks(&daemon, "fills") == [2]);
    let status = daemon.status();
    assert_eq!(status["router"]["height"], 2, "{status}");
}

// H20: without a restart, and without waiting for the next reading of the list.
#[test]
fn an_address_added_to_the_file_takes_effect() {
    let mut setup = Setup::new();
    setup.whitelist = format!("{ALICE}\n");
    setup.config = "[whitelist]\nrefresh_interval = \"1h\"\n".to_owned();
    let mut file = Kind::fills(setup.node()).open(20_260_315, 9);
    let daemon = setup.start();

    std::fs::write(setup.whitelist_file(), format!("{ALICE}\n{BOB}\n")).unwrap();
    let mut block = 0;
    eventually("his events are kept", || {
        block += 1;
        append(&mut file, &(fills_line(block, BOB, 1) + "\n"));
        !stored_blocks(&daemon, "fills").is_empty()
    });
}

#[test]
fn a_missing_data_directory_is_waited_for() {
    let setup = Setup::new();
    std::fs::remove_dir(setup.node()).unwrap();
    let daemon = setup.start();
    assert_eq!(daemon.get("/readyz").0, 503);
    assert_eq!(daemon.get("/livez").0, 200);

    append(&mut Kind::fills(setup.node()).open(20_260_315, 9), &(fills_line(1, ALICE, 1) + "\n"));

    eventually("it is found", || stored_blocks(&daemon, "fills") == [1]);
    assert_eq!(daemon.get("/readyz").0, 200);
}

// H11
#[test]
fn a_malformed_line_goes_to_quarantine_and_the_next_is_delivered() {
    let setup = Setup::new();
    let mut file = Kind::fills(setup.node()).open(20_260_315, 9);
    let daemon = setup.start();

    append(&mut file, "{\"local_time\": not json\n");
    append(&mut file, &(fills_line(2, ALICE, 1) + "\n"));

    eventually("the next is stored", || stored_blocks(&daemon, "fills") == [2]);
    let quarantine = setup.state_dir().join("quarantine.jsonl");
    let text = std::fs::read_to_string(quarantine).unwrap();
    let refused: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(refused["offset_bytes"], 0);
    assert!(refused["origin"].as_str().unwrap().ends_with("20260315/9"));
}

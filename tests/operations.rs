//! What an operator meets: a second start, signals, lists and directories that change, a disk that
//! is full, a file that is not a database.

// The exception for tests does not cover the functions that tests share.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    io::{self, Write},
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use common::{
    Setup, TestDaemon, database, eventually,
    node::{ALICE, BOB, Kind, append, fill, fills_line, line},
    receive_type, run_to_end, send,
};
use diesel::{Connection, RunQueryDsl, SqliteConnection};
use nodecast::generate::{Faults, Plan, Simulator};
use rustix::process::{Resource, Rlimit, Signal};
use serde_json::{Value, json};

const DAY: u32 = 20_260_315;

/// What the daemon promises for its stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);

fn stored(setup: &Setup) -> usize {
    database::rows(&setup.database()).len()
}

/// The records of the log with this message or error.
fn log_lines<'l>(log: &'l str, text: &str) -> Vec<&'l str> {
    log.lines().filter(|line| line.contains(text)).collect()
}

fn reasons(daemon: &TestDaemon) -> String {
    daemon.status()["reasons"].to_string()
}

// --- Starting ---

#[test]
fn a_second_daemon_on_the_same_database_is_refused_and_the_first_goes_on() {
    let setup = Setup::new();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let first = setup.start();
    let before = first.log();

    let mut second = setup.spawn();
    let status = second.wait_exit().expect("the second daemon runs too");

    assert_eq!(status.code(), Some(1), "{}", second.log_tail());
    let log = second.log();
    let refusals = log_lines(&log[before.len()..], "another nodecast writes to this store");
    assert_eq!(refusals.len(), 1, "{log}");
    assert!(refusals[0].contains(&format!("process {}", first.pid())), "{}", refusals[0]);
    append(&mut file, &(fills_line(1, ALICE, 3) + "\n"));
    eventually("the first goes on", || stored(&setup) == 3);
    assert_eq!(first.stop().code(), Some(0));
}

#[test]
fn a_file_that_is_no_database_is_named_and_left_alone() {
    let setup = Setup::new();
    fs::create_dir(setup.state_dir()).unwrap();
    let content = "These are the notes of somebody else.\n".repeat(300);
    fs::write(setup.database(), &content).unwrap();

    let mut daemon = setup.spawn();
    let status = daemon.wait_exit().expect("it runs on a file of notes");

    assert_eq!(status.code(), Some(1));
    let log = daemon.log();
    let said = log_lines(&log, "file is not a database");
    assert_eq!(said.len(), 1, "{log}");
    assert!(said[0].contains(&setup.database().display().to_string()), "{}", said[0]);
    assert_eq!(fs::read_to_string(setup.database()).unwrap(), content);
}

#[test]
fn a_damaged_database_is_refused_with_a_clear_message() {
    let setup = Setup::new();
    append(&mut Kind::fills(setup.node()).open(DAY, 9), &(fills_line(1, ALICE, 500) + "\n"));
    let daemon = setup.start();
    eventually("it is stored", || stored(&setup) == 500);
    assert_eq!(daemon.stop().code(), Some(0));
    let mut bytes = fs::read(setup.database()).unwrap();
    // The header stays: only behind it nothing holds together.
    bytes[100..].fill(0xa5);
    fs::write(setup.database(), bytes).unwrap();

    let mut daemon = setup.spawn();
    let status = daemon.wait_exit().expect("it runs on a damaged database");

    assert_eq!(status.code(), Some(1));
    let log = daemon.log();
    assert_eq!(log_lines(&log, "malformed").len(), 1, "{log}");
    assert_eq!(log_lines(&log, "panicked").len(), 0, "{log}");
}

#[test]
fn every_bad_line_of_the_whitelist_is_reported_at_the_start() {
    let mut setup = Setup::new();
    setup.whitelist = format!("{ALICE}\n0x12\n# a comment\n{BOB}\nnobody\n{ALICE}ff\n");

    let mut daemon = setup.spawn();
    let status = daemon.wait_exit().expect("it runs with a faulty list");

    assert_eq!(status.code(), Some(1));
    let log = daemon.log();
    let said = log_lines(&log, "whitelist file");
    assert_eq!(said.len(), 1, "{log}");
    for line in ["line 2", "line 5", "line 6"] {
        assert!(said[0].contains(line), "{line}: {}", said[0]);
    }
    assert!(!said[0].contains("line 4"), "{}", said[0]);
}

#[test]
fn a_run_without_a_whitelist_says_what_to_give() {
    let setup = Setup::new();

    let output = run_to_end(
        Command::new(env!("CARGO_BIN_EXE_nodecast"))
            .args(["run".as_ref(), "--data-dir".as_ref(), setup.node().as_os_str()])
            .args(["--state-dir".as_ref(), setup.state_dir().as_os_str()])
            .env_remove("NODECAST_WHITELIST__FILE"),
    );

    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--whitelist") && said.contains("all"), "{said}");
    assert!(!setup.state_dir().exists(), "it has begun");
}

// --- Stopping ---

// H32 H47
#[test]
fn a_stop_under_load_drains_what_was_read_and_says_goodbye() {
    let mut setup = Setup::new();
    setup.config = "[session]\noutbox_bytes = \"64MiB\"\n".to_owned();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let mut daemon = setup.start();
    let mut native = daemon.connect("/v1/ws");
    send(&mut native, &json!({"type": "subscribe", "id": 1, "topic": "fills"}));
    receive_type(&mut native, "ack");
    let client = std::thread::spawn(move || {
        let mut sent = 0;
        loop {
            let frame = common::receive(&mut native);
            match frame["type"].as_str().unwrap() {
                "event" => sent = frame["block"].as_u64().unwrap(),
                "bye" => return (sent, frame),
                _ => {}
            }
        }
    });

    // Written on while it stops, so that the stop falls into the middle.
    let mut block = 0;
    let mut write = |blocks: u64| {
        for _ in 0..blocks {
            block += 1;
            append(&mut file, &(fills_line(block, ALICE, 20) + "\n"));
        }
        block
    };
    write(200);
    eventually("it is under way", || daemon.status()["router"]["sequenced"].as_u64() > Some(0));
    let start = Instant::now();
    daemon.signal(Signal::TERM);
    let status = loop {
        if let Some(status) = daemon.wait_exit_for(Duration::from_millis(2)) {
            break status;
        }
        assert!(start.elapsed() < STOP_WITHIN, "{}", daemon.log_tail());
        write(1);
    };
    assert_eq!(status.code(), Some(0), "{}", daemon.log_tail());

    // Every event that was sent is stored: nothing that was read was given up.
    let (sent, bye) = client.join().unwrap();
    assert_eq!(bye["code"], 1001, "{bye}");
    let rows = database::rows(&setup.database());
    let last = rows.keys().next_back().unwrap().position;
    assert!(last >= sent, "{sent} was sent and {last} is stored");
    assert_eq!(rows.len() as u64, last * 20, "the store has whole blocks without a hole");
    // The next start goes on right there.
    let written = write(1);
    let daemon = setup.start();
    eventually("the rest is read", || stored(&setup) as u64 == written * 20);
    assert_eq!(daemon.status()["store"]["duplicates"], 0);
    assert_eq!(daemon.status()["router"]["duplicates"], 0, "the checkpoint was behind");
}

#[test]
fn a_second_signal_stops_at_once() {
    let setup = Setup::new();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let mut daemon = setup.start();
    append(&mut file, &(fills_line(1, ALICE, 1) + "\n"));
    eventually("the first is stored", || stored(&setup) == 1);
    // No room on the disk, so that draining takes its whole time.
    limit_files(&daemon, Some(0));
    append(&mut file, &(fills_line(2, ALICE, 2) + "\n"));
    eventually("it is read", || daemon.status()["router"]["sequenced"] == 3);

    daemon.signal(Signal::TERM);
    // The port is closed last: this is in the middle of the stop.
    let start = Instant::now();
    daemon.signal(Signal::INT);

    let status = daemon.wait_exit().expect("it goes on");
    assert_eq!(status.code(), Some(130), "{}", daemon.log_tail());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    // Nothing is lost: the next start reads it again.
    let _daemon = setup.start();
    eventually("it is stored", || stored(&setup) == 3);
}

// --- The whitelist ---

// H21
#[test]
fn a_list_that_shrinks_too_much_waits_for_a_hangup() {
    let mut setup = Setup::new();
    setup.whitelist = format!("{ALICE}\n{BOB}\n");
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    append(&mut file, &(fills_line(1, BOB, 1) + "\n"));
    eventually("his are kept", || stored(&setup) == 1);

    fs::write(setup.whitelist_file(), format!("{ALICE}\n")).unwrap();
    eventually("the shrink is refused", || {
        daemon.status()["whitelist"]["problem"].as_str().is_some_and(|p| p.contains("SIGHUP"))
    });
    let status = daemon.status();
    assert_eq!(
        (&status["state"], &status["whitelist"]["addresses"]),
        (&json!("degraded"), &json!(2))
    );
    assert!(reasons(&daemon).contains("whitelist"), "{status}");
    append(&mut file, &(fills_line(2, BOB, 1) + "\n"));
    eventually("the old list holds", || stored(&setup) == 2);

    daemon.signal(Signal::HUP);
    eventually("it is accepted", || daemon.status()["whitelist"]["addresses"] == 1);
    assert_eq!(daemon.status()["whitelist"]["problem"], Value::Null);
    append(&mut file, &(fills_line(3, BOB, 1) + "\n"));
    append(&mut file, &(fills_line(4, ALICE, 1) + "\n"));
    eventually("hers are kept", || stored(&setup) == 3);
    assert!(database::rows(&setup.database()).keys().all(|id| id.position != 3));
}

// --- Directories ---

#[test]
fn a_plain_directory_is_refused_with_the_flag_that_the_node_needs() {
    let setup = Setup::new();
    for kind in ["node_fills", "misc_events"] {
        let mut file = Kind::named(setup.node(), kind).open(DAY, 9);
        append(&mut file, &(fill(ALICE, "BTC", 1).to_string() + "\n"));
    }

    let daemon = setup.start();

    eventually("status says it", || {
        let status = daemon.status();
        let streams = status["nodes"][0]["streams"].as_array().unwrap();
        let says = |stream: &Value| stream["problem"].to_string().contains("--batch-by-block");
        streams.len() == 2 && streams.iter().all(says)
    });
    assert!(reasons(&daemon).contains("--batch-by-block"));
    assert_eq!(daemon.get("/readyz").0, 503);
    eventually("the log says it", || daemon.log().contains("directory refused"));
    let log = daemon.log();
    let said = log_lines(&log, "--batch-by-block");
    assert_eq!(said.len(), 2, "once for each: {log}");

    // The operator follows the advice and need not restart us.
    append(&mut Kind::fills(setup.node()).open(DAY, 10), &(fills_line(1, ALICE, 1) + "\n"));
    eventually("the new form is followed", || stored(&setup) == 1);
}

#[test]
fn a_data_directory_that_vanishes_and_comes_back_is_followed_again() {
    let setup = Setup::new();
    append(&mut Kind::fills(setup.node()).open(DAY, 9), &(fills_line(1, ALICE, 1) + "\n"));
    let daemon = setup.start();
    eventually("the first is stored", || stored(&setup) == 1);

    let away = setup.root.path().join("away");
    fs::rename(setup.node(), &away).unwrap();
    eventually("status says it", || reasons(&daemon).contains("not followed"));
    assert_eq!(daemon.get("/readyz").0, 503);
    assert_eq!(daemon.get("/livez").0, 200);
    // What is written meanwhile, as on a disk that was unmounted.
    append(&mut Kind::fills(&away).open(DAY, 9), &(fills_line(2, ALICE, 1) + "\n"));
    append(&mut Kind::fills(&away).open(DAY, 10), &(fills_line(3, ALICE, 1) + "\n"));
    fs::rename(&away, setup.node()).unwrap();

    eventually("what came meanwhile is stored", || stored(&setup) == 3);
    eventually("all is well again", || daemon.get("/readyz").0 == 200);
    append(&mut Kind::fills(setup.node()).open(DAY, 10), &(fills_line(4, ALICE, 1) + "\n"));
    eventually("it is followed", || stored(&setup) == 4);
    assert_eq!(daemon.status()["router"]["gaps_opened"], 0);
}

#[test]
fn a_directory_in_the_place_of_an_hour_file_is_reported_and_stops_nothing() {
    let setup = Setup::new();
    let kind = Kind::fills(setup.node());
    append(&mut kind.open(DAY, 9), &(fills_line(1, ALICE, 1) + "\n"));
    fs::create_dir(kind.path(DAY, 10)).unwrap();

    let daemon = setup.start();
    append(&mut kind.open(DAY, 11), &(fills_line(2, ALICE, 1) + "\n"));

    eventually("both sides of it are stored", || stored(&setup) == 2);
    eventually("it is counted", || {
        daemon.status()["nodes"][0]["streams"][0]["read_errors"].as_u64() >= Some(1)
    });
    eventually("it is said", || daemon.log().contains("20260315/10"));
    // Repaired while we run.
    fs::remove_dir(kind.path(DAY, 10)).unwrap();
    append(&mut kind.open(DAY, 10), &(fills_line(3, ALICE, 1) + "\n"));
    eventually("the file is read", || stored(&setup) == 3);
}

// --- The disk ---

/// Sets how large the daemon's files may grow, as a full disk would.
fn limit_files(daemon: &TestDaemon, bytes: Option<u64>) {
    let pid = rustix::process::Pid::from_raw(daemon.pid() as i32).unwrap();
    let limit = Rlimit { current: bytes, maximum: None };
    rustix::process::prlimit(Some(pid), Resource::Fsize, limit).unwrap();
}

#[test]
fn a_full_disk_delays_commits_and_neither_stops_the_stream_nor_loses_anything() {
    const EVENTS: u64 = 400;
    let setup = Setup::new();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    let mut client = daemon.connect("/v1/ws");
    send(&mut client, &json!({"type": "subscribe", "id": 1, "topic": "fills"}));
    receive_type(&mut client, "ack");
    append(&mut file, &(fills_line(1, ALICE, 1) + "\n"));
    receive_type(&mut client, "event");
    eventually("the first is stored", || stored(&setup) == 1);

    let size = fs::metadata(setup.state_dir().join("nodecast.db-wal")).unwrap().len();
    limit_files(&daemon, Some(size));
    for block in 2..=EVENTS {
        append(&mut file, &(fills_line(block, ALICE, 1) + "\n"));
        assert_eq!(receive_type(&mut client, "event")["block"], block, "{}", daemon.log_tail());
    }
    eventually("status says it", || reasons(&daemon).contains("commits have failed"));
    let status = daemon.status();
    assert_eq!(status["state"], "degraded");
    assert!(status["store"]["queued_events"].as_i64() > Some(0), "{status}");
    assert!((stored(&setup) as u64) < EVENTS, "the disk was not full");

    limit_files(&daemon, None);
    eventually("all is stored", || stored(&setup) as u64 == EVENTS);
    eventually("all is well again", || !reasons(&daemon).contains("store"));
    assert_eq!(daemon.status()["router"]["generations"], 0, "nothing had to be read again");
    assert_eq!(daemon.stop().code(), Some(0));
}

/// A state directory on a file system of its own with so many bytes, most of them taken by a
/// file `ballast`. `None`, said loudly, where the system lets nobody but root mount one.
fn small_disk(setup: &mut Setup, bytes: u64, taken: u64) -> Option<()> {
    let mut mount = Command::new("unshare");
    mount.args(["-rm", "mount", "-t", "tmpfs", "none"]).arg(setup.node());
    let allowed = mount.output().is_ok_and(|output| output.status.success());
    if !allowed {
        // Not by a macro: what those print of a test that passes is swallowed.
        let said = "SKIPPED: no file system can be mounted here (unshare -rm)\n";
        io::stderr().write_all(said.as_bytes()).unwrap();
        return None;
    }
    fs::create_dir(setup.state_dir()).unwrap();
    let script = format!(
        "mount -t tmpfs -o size={bytes} none \"$0\" \
         && head -c {taken} /dev/zero >\"$0/ballast\" && exec \"$@\""
    );
    let state = setup.state_dir().display().to_string();
    setup.wrapper = ["unshare", "-rm", "sh", "-c", &script, &state].map(str::to_owned).to_vec();
    Some(())
}

#[test]
fn a_disk_that_is_really_full_is_waited_for() {
    const BLOCKS: u64 = 150;
    let mut setup = Setup::new();
    setup.config = "[store]\nmin_free_bytes = \"0B\"\n".to_owned();
    let Some(()) = small_disk(&mut setup, 16 << 20, 14 << 20) else { return };
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    let mut client = daemon.connect("/v1/ws");
    send(&mut client, &json!({"type": "subscribe", "id": 1, "topic": "fills"}));
    receive_type(&mut client, "ack");

    // 20 KB each.
    for block in 1..=BLOCKS {
        append(&mut file, &(fills_line(block, ALICE, 40) + "\n"));
        for _ in 0..40 {
            assert_eq!(receive_type(&mut client, "event")["block"], block, "{}", daemon.log_tail());
        }
    }
    eventually("the disk is full", || {
        let failing = reasons(&daemon).contains("commits have failed");
        failing && daemon.log().contains("is full")
    });
    assert_eq!(daemon.get("/livez").0, 200);

    // The test sees the daemon's file systems as the daemon does.
    let state = setup.state_dir();
    let ballast = format!("/proc/{}/root{}/ballast", daemon.pid(), state.display());
    fs::remove_file(ballast).unwrap();

    let inserted = || daemon.status()["store"]["inserted"].as_u64();
    eventually("all is stored", || inserted() == Some(BLOCKS * 40));
    eventually("all is well again", || !reasons(&daemon).contains("store"));
    let (_, page) = daemon.get("/v1/events?topic=fills&limit=10000");
    assert_eq!(page["events"].as_array().unwrap().len() as u64, BLOCKS * 40);
    assert_eq!(daemon.status()["router"]["generations"], 0, "nothing had to be read again");
    assert_eq!(daemon.stop().code(), Some(0));
}

// H47: a stop does not wait for a disk; the files are the buffer.
#[test]
fn a_stop_on_a_full_disk_ends_in_time_and_the_next_start_brings_the_rest() {
    let setup = Setup::new();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let mut daemon = setup.start();
    append(&mut file, &(fills_line(1, ALICE, 1) + "\n"));
    eventually("the first is stored", || stored(&setup) == 1);
    limit_files(&daemon, Some(0));
    append(&mut file, &(fills_line(2, ALICE, 50) + "\n"));
    eventually("commits fail", || daemon.status()["store"]["failures"].as_u64() >= Some(1));

    let start = Instant::now();
    daemon.signal(Signal::TERM);
    let status = daemon.wait_exit().expect("it does not stop");
    assert!(start.elapsed() < STOP_WITHIN, "{:?}", start.elapsed());
    // Not all was done, and the exit code says so.
    assert_eq!(status.code(), Some(1), "{}", daemon.log_tail());

    let _daemon = setup.start();
    eventually("the rest is stored", || stored(&setup) == 51);
}

/// A backup tool, or an operator with a shell of SQLite, that forgets to end its transaction.
fn lock_database(setup: &Setup) -> SqliteConnection {
    let mut other = SqliteConnection::establish(&setup.database().display().to_string()).unwrap();
    diesel::sql_query("PRAGMA busy_timeout = 10000").execute(&mut other).unwrap();
    diesel::sql_query("BEGIN IMMEDIATE").execute(&mut other).unwrap();
    other
}

#[test]
fn a_database_that_another_program_locks_is_waited_for() {
    let setup = Setup::new();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    let mut client = daemon.connect("/v1/ws");
    send(&mut client, &json!({"type": "subscribe", "id": 1, "topic": "fills"}));
    receive_type(&mut client, "ack");
    append(&mut file, &(fills_line(1, ALICE, 1) + "\n"));
    receive_type(&mut client, "event");
    eventually("the first is stored", || stored(&setup) == 1);

    let lock = lock_database(&setup);
    for block in 2..=30 {
        append(&mut file, &(fills_line(block, ALICE, 1) + "\n"));
        assert_eq!(receive_type(&mut client, "event")["block"], block);
    }
    eventually("status says it", || reasons(&daemon).contains("commits have failed"));
    assert_eq!(daemon.get("/v1/events?topic=fills").0, 200, "reading goes on");
    assert_eq!(stored(&setup), 1);
    drop(lock);

    eventually("all is stored", || stored(&setup) == 30);
    assert_eq!(daemon.status()["router"]["generations"], 0);
}

// H47
#[test]
fn a_stop_while_another_program_holds_the_database_ends_in_time() {
    let setup = Setup::new();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let mut daemon = setup.start();
    append(&mut file, &(fills_line(1, ALICE, 1) + "\n"));
    eventually("the first is stored", || stored(&setup) == 1);
    let lock = lock_database(&setup);
    append(&mut file, &(fills_line(2, ALICE, 2) + "\n"));
    eventually("it is read", || daemon.status()["router"]["sequenced"] == 3);

    let start = Instant::now();
    daemon.signal(Signal::TERM);
    let status = daemon.wait_exit().expect("it does not stop");

    assert!(start.elapsed() < STOP_WITHIN, "{:?}", start.elapsed());
    assert_eq!(status.code(), Some(1), "{}", daemon.log_tail());
    drop(lock);
    let _daemon = setup.start();
    eventually("the rest is stored", || stored(&setup) == 3);
}

// --- Accounts ---

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
    append(&mut spoiled, &(line(2_000_000_000, &odd) + "\n"));
    let ancient = fills_line(5, ALICE, 7).replace("\"block_time\":\"20", "\"block_time\":\"19");
    append(&mut spoiled, &(ancient + "\n"));

    let written = node.manifest().totals.bytes
        + other.manifest().totals.bytes
        + fs::metadata(Kind::fills(&second).path(30_000_101, 0)).unwrap().len();
    let sum = |status: &Value, counter: &str| -> u64 {
        let nodes = status["nodes"].as_array().unwrap().iter();
        let streams = nodes.flat_map(|node| node["streams"].as_array().unwrap());
        streams.map(|stream| stream[counter].as_u64().unwrap()).sum()
    };
    eventually("everything is read and committed", || {
        let status = daemon.status();
        sum(&status, "read_bytes") >= written && status["log"]["uncommitted_segments"] == 0
    });
    let status = daemon.status();
    let (filter, router, store) = (&status["filter"], &status["router"], &status["store"]);
    let count = |stage: &Value, counter: &str| stage[counter].as_u64().unwrap();

    assert_eq!(sum(&status, "malformed_lines"), 1, "{status}");
    assert_eq!(sum(&status, "skipped_elements"), 4, "{status}");
    assert_eq!(sum(&status, "refused_blocks"), 1, "{status}");
    let of_fills = |counter: &str| -> u64 {
        let streams = status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|node| node["streams"].as_array().unwrap());
        let fills = streams.filter(|stream| stream["topic"] == "fills");
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

// --- Sockets ---

/// A port that is taken is named.
#[test]
fn a_port_that_is_taken_is_named() {
    let setup = Setup::new();
    let daemon = setup.start();
    assert!(TcpStream::connect(("127.0.0.1", daemon.port)).is_ok());

    let output = run_to_end(
        Command::new(env!("CARGO_BIN_EXE_nodecast"))
            .args(["run".as_ref(), "--data-dir".as_ref(), setup.node().as_os_str()])
            .args(["--state-dir".as_ref(), setup.root.path().join("other").as_os_str()])
            .args(["--whitelist", "all", "--listen", &format!("127.0.0.1:{}", daemon.port)]),
    );

    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("cannot listen on 127.0.0.1:{}", daemon.port)), "{said}");
}

/// What tells of the inside of the process is not for everybody who reaches the public listener.
// H48
#[test]
fn the_public_listener_has_neither_profiles_nor_variables_nor_metrics() {
    let setup = Setup::new();
    let daemon = setup.start();

    for path in ["/debug/pprof", "/debug/pprof/", "/debug/pprof/heap", "/debug/vars", "/metrics"] {
        assert_eq!(daemon.get(path).0, 404, "{path}");
    }
    assert_eq!(daemon.get("/livez").0, 200);
}

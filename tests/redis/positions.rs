//! The positions of the older service, in the keys that it reads and writes.

use std::{fs, path::Path, time::Duration};

use diesel::{Connection, RunQueryDsl, SqliteConnection};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    DAY,
    common::{
        Setup, TestDaemon, database, eventually,
        node::{ALICE, Kind, append, fills_line},
        redis::{Client, Server},
    },
};

const KEY: &str = "node_fills_by_block";

fn setup(url: &str, positions: &str) -> Setup {
    let mut setup = Setup::new();
    setup.from = "now";
    setup.config = format!("[redis]\nurl = \"{url}\"\npositions = \"{positions}\"\n");
    setup
}

fn lines(blocks: std::ops::Range<u64>) -> String {
    blocks.map(|block| fills_line(block, ALICE, 1) + "\n").collect()
}

fn stored(setup: &Setup) -> Vec<u64> {
    database::rows(&setup.database()).keys().map(|id| id.position).collect()
}

fn set(redis: &mut Client, path: &Path, position: u64) {
    redis.run(&["SET", KEY, &json!({"file_path": path, "position": position}).to_string()]);
}

fn mirrored(redis: &mut Client) -> Value {
    let text = redis.text(&["GET", KEY]).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

fn mirror(daemon: &TestDaemon) -> Value {
    daemon.status()["mirror"].clone()
}

// H18
#[test]
fn a_first_start_goes_on_where_the_older_service_stopped_and_a_later_one_where_we_did() {
    let server = Server::start();
    let mut redis = server.client();
    let setup = setup(&server.url(), "import");
    let fills = Kind::fills(setup.node());
    append(&mut fills.open(DAY, 8), &lines(1..4));
    let mut file = fills.open(DAY, 9);
    append(&mut file, &lines(4..9));
    // In the middle of the second line.
    let line = lines(4..5).len() as u64;
    set(&mut redis, &fills.path(DAY, 9), line + line / 2);

    let daemon = setup.start();
    eventually("the rest is stored", || stored(&setup) == [5, 6, 7, 8]);
    assert!(daemon.log().contains("position imported"), "{}", daemon.log_tail());
    assert!(daemon.stop().success());

    set(&mut redis, &fills.path(DAY, 8), 0);
    let daemon = setup.start();
    append(&mut file, &lines(9..10));
    eventually("only what is new is read", || stored(&setup) == [5, 6, 7, 8, 9]);
    assert!(daemon.stop().success());

    // All is known, so Redis is not needed any more.
    drop(server);
    let daemon = setup.start();
    append(&mut file, &lines(10..11));
    eventually("it goes on", || stored(&setup) == [5, 6, 7, 8, 9, 10]);
    assert_eq!(mirror(&daemon), Value::Null);
}

// H18
#[test]
fn a_position_that_cannot_be_followed_is_told_and_the_stream_begins_as_configured() {
    let server = Server::start();
    let mut redis = server.client();
    let elsewhere = tempfile::NamedTempFile::new().unwrap();

    for (value, said) in [
        (json!({"file_path": "/nowhere/9", "position": 1}).to_string(), "No such file"),
        (
            json!({"file_path": elsewhere.path(), "position": 1}).to_string(),
            "is no hour file of node_fills_by_block in a configured node directory",
        ),
        ("7".to_owned(), "the key does not hold a position"),
    ] {
        redis.run(&["SET", KEY, &value]);
        let mut setup = setup(&server.url(), "import");
        setup.from = "oldest";
        append(&mut Kind::fills(setup.node()).open(DAY, 9), &lines(1..4));

        let daemon = setup.start();

        eventually("all is stored", || stored(&setup) == [1, 2, 3]);
        let log = daemon.log();
        assert!(log.contains("position not imported") && log.contains(said), "{log}");
    }
    redis.run(&["DEL", KEY]);
    redis.run(&["LPUSH", KEY, "x"]);
    let setup = setup(&server.url(), "import");
    append(&mut Kind::fills(setup.node()).open(DAY, 9), &lines(1..4));
    let daemon = setup.start();
    assert!(daemon.log().contains("WRONGTYPE"), "{}", daemon.log_tail());
}

// H18
#[test]
fn a_first_start_without_redis_is_refused_because_it_could_not_be_undone() {
    let server = Server::start();
    let url = server.url();
    drop(server);
    let setup = setup(&url, "import");
    append(&mut Kind::fills(setup.node()).open(DAY, 9), &lines(1..4));

    let mut daemon = setup.spawn();

    assert_eq!(daemon.wait_exit().unwrap().code(), Some(1), "{}", daemon.log_tail());
    assert!(
        daemon.log().contains("cannot import positions from redis://"),
        "{}",
        daemon.log_tail()
    );
}

// H18, H47
#[test]
fn commits_are_mirrored_and_the_last_one_at_the_stop() {
    let server = Server::start();
    let mut redis = server.client();
    let setup = setup(&server.url(), "import-and-mirror");
    let fills = Kind::fills(setup.node());
    let mut file = fills.open(DAY, 9);
    let daemon = setup.start();

    append(&mut file, &lines(1..4));
    let size = |hour| fs::metadata(fills.path(DAY, hour)).unwrap().len();
    let place = |hour| json!({"file_path": fills.path(DAY, hour), "position": size(hour)});
    eventually("it is mirrored", || mirrored(&mut redis) == place(9));
    assert_eq!(stored(&setup), [1, 2, 3]);
    append(&mut fills.open(DAY, 10), &lines(4..6));
    eventually("it goes on in the next file", || stored(&setup) == [1, 2, 3, 4, 5]);
    assert!(daemon.stop().success());

    assert_eq!(mirrored(&mut redis), place(10));
    assert_eq!(redis.text(&["GET", "misc_events_by_block"]), None);
    // What another program would read from there on is exactly what is not stored.
    append(&mut fills.open(DAY, 10), &lines(6..7));
    let daemon = setup.start();
    eventually("nothing is lost", || stored(&setup) == [1, 2, 3, 4, 5, 6]);
    assert!(daemon.stop().success());
    assert_eq!(mirrored(&mut redis), place(10));
}

// H18
#[test]
fn a_position_is_not_mirrored_before_its_commit() {
    let server = Server::start();
    let mut redis = server.client();
    let setup = setup(&server.url(), "mirror");
    let fills = Kind::fills(setup.node());
    let mut file = fills.open(DAY, 9);
    let mut daemon = setup.start();
    append(&mut file, &lines(1..4));
    let size = fs::metadata(fills.path(DAY, 9)).unwrap().len();
    eventually("it is mirrored", || mirrored(&mut redis)["position"] == size);

    let path = setup.database().display().to_string();
    let mut other = SqliteConnection::establish(&path).unwrap();
    for statement in ["PRAGMA busy_timeout = 10000", "BEGIN IMMEDIATE"] {
        diesel::sql_query(statement).execute(&mut other).unwrap();
    }
    append(&mut file, &lines(4..7));
    eventually("commits fail", || daemon.status()["store"]["failures"].as_u64() >= Some(1));
    daemon.signal(Signal::TERM);

    // The last thing that a stop does is to mirror what is committed.
    daemon.wait_exit_for(Duration::from_secs(30)).expect("it stops");
    assert_eq!(mirrored(&mut redis)["position"], size);
}

// H18
#[test]
fn a_redis_that_is_away_holds_nothing_up_and_gets_the_position_when_it_is_back() {
    let server = Server::start();
    let port = server.port();
    let setup = setup(&server.url(), "mirror");
    drop(server);
    let fills = Kind::fills(setup.node());
    let mut file = fills.open(DAY, 9);
    let daemon = setup.start();

    for block in 1..4 {
        append(&mut file, &lines(block..block + 1));
        let all: Vec<_> = (1..=block).collect();
        eventually("it is stored", || stored(&setup) == all);
    }
    eventually("status tells", || {
        let status = daemon.status();
        status["mirror"]["failures"].as_u64() >= Some(2) && status["state"] == "degraded"
    });
    let told = daemon.log().matches("positions are not mirrored").count();
    assert_eq!(told, 1, "{}", daemon.log_tail());

    let server = Server::start_on(port, &[]);
    let size = fs::metadata(fills.path(DAY, 9)).unwrap().len();
    let mut redis = server.client();
    eventually("it is written", || mirrored(&mut redis)["position"] == size);
    eventually("status is well", || mirror(&daemon)["problem"] == Value::Null);
    assert!(mirror(&daemon)["writes"].as_u64() >= Some(1));

    // A server that takes connections and answers nothing holds the stop up for a second at most.
    server.signal(rustix::process::Signal::STOP);
    append(&mut file, &lines(4..5));
    eventually("it is stored", || stored(&setup) == [1, 2, 3, 4]);
    assert!(daemon.stop().success());
    server.signal(rustix::process::Signal::CONT);
}

//! The daemon with a file, a Redis and configured addresses at once.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    Sources,
    common::{
        TestDaemon, database, eventually,
        node::{ALICE, BOB, Kind, append, fills_line},
        redis::{Server, shared, user, users},
    },
};

const DAY: u32 = 20_260_315;

fn listed(daemon: &TestDaemon) -> u64 {
    daemon.status()["whitelist"]["addresses"].as_u64().unwrap()
}

/// A field of each source: file, Redis, configuration.
fn each(daemon: &TestDaemon, field: &str) -> Vec<Value> {
    let status = daemon.status();
    let sources = status["whitelist"]["sources"].as_array().unwrap();
    sources.iter().map(|source| source[field].clone()).collect()
}

fn wait_for_problem(daemon: &TestDaemon, source: usize, part: &str) {
    eventually(part, || {
        each(daemon, "problem")[source].as_str().is_some_and(|problem| problem.contains(part))
    });
    assert_eq!(daemon.status()["state"], "degraded");
}

fn with_redis(file: &[String], url: &str, key: &str, more: &str) -> Sources {
    Sources::new(file, &format!("redis_url = {url:?}\nredis_key = {key:?}\n{more}"))
}

// H19, H20
#[test]
fn three_sources_are_one_list_and_each_tells_its_state() {
    let (url, mut redis) = shared();
    redis.ask(&["DEL", "three"]);
    redis.list("three", &users(2..5, 1_773_532_800));
    redis.list("three", &users(20..27, 1_773_532_800));
    // So long that one may go.
    let listed_in_file: Vec<_> = (1..3).chain(10..18).map(user).collect();
    let sources = with_redis(
        &listed_in_file,
        &url,
        "three",
        &format!("addresses = [{ALICE:?}, {:?}]\n", user(1)),
    );
    let mut file = Kind::fills(sources.setup.node()).open(DAY, 9);
    let daemon = sources.setup.start();

    assert_eq!(listed(&daemon), 20);
    assert_eq!(each(&daemon, "kind"), [json!("file"), json!("redis"), json!("config")]);
    assert_eq!(each(&daemon, "addresses"), [json!(10), json!(10), json!(2)]);
    assert_eq!(each(&daemon, "problem"), [Value::Null, Value::Null, Value::Null]);
    for (position, from) in (1..).zip([&user(1), &user(4), ALICE, &user(8)]) {
        append(&mut file, &(fills_line(position, from, 1) + "\n"));
    }
    eventually("those of every source are kept", || {
        database::rows(&sources.setup.database()).len() == 3
    });

    // Who is in two of them stays when one lets it go.
    let said = sources.command(&["remove", &user(1)]);
    assert!(said.err.contains("stays listed by config"), "{said:?}");
    redis.run(&["ZREM", "three", &user(2)]);
    eventually("two sources are shorter", || {
        each(&daemon, "addresses") == [json!(9), json!(9), json!(2)]
    });
    assert_eq!(listed(&daemon), 20);
    for (position, from) in (5..).zip([&user(1), &user(2), &user(8)]) {
        append(&mut file, &(fills_line(position, from, 1) + "\n"));
    }
    eventually("both are still kept", || database::rows(&sources.setup.database()).len() == 5);
}

// H20
#[test]
fn an_address_that_a_command_adds_is_followed_by_a_running_daemon() {
    let sources = Sources::new(&(1..6).map(user).collect::<Vec<_>>(), "");
    let mut file = Kind::fills(sources.setup.node()).open(DAY, 9);
    let daemon = sources.setup.start();

    let said = sources.command(&["add", BOB]);
    assert_eq!(said.code, 0, "{said:?}");
    eventually("he is listed", || listed(&daemon) == 6);
    append(&mut file, &(fills_line(1, BOB, 1) + "\n"));
    eventually("his is kept", || database::rows(&sources.setup.database()).len() == 1);

    let said = sources.command(&["remove", BOB]);
    assert_eq!(said.code, 0, "{said:?}");
    eventually("he is gone", || listed(&daemon) == 5);
    assert_eq!(daemon.status()["state"], "ok", "{}", daemon.status());
}

#[test]
fn two_sources_that_change_at_once_are_both_followed() {
    let (url, mut redis) = shared();
    redis.ask(&["DEL", "at-once"]);
    redis.list("at-once", &users(100..120, 1_773_532_800));
    let file: Vec<_> = (1..21).map(user).collect();
    let sources = with_redis(&file, &url, "at-once", "refresh_interval = \"100ms\"\n");
    let daemon = sources.setup.start();

    for ordinal in 0..20 {
        redis.list("at-once", &users(200 + ordinal..201 + ordinal, 1_773_532_900));
        let more: Vec<_> = (1..22 + ordinal).map(user).collect();
        fs::write(sources.file(), more.join("\n")).unwrap();
    }

    eventually("both hold", || each(&daemon, "addresses") == [json!(40), json!(40)]);
    assert_eq!(listed(&daemon), 80);
    assert_eq!(each(&daemon, "problem"), [Value::Null, Value::Null]);
}

#[test]
fn the_file_goes_on_while_redis_is_emptied_of_another_type_and_hangs() {
    let server = Server::start();
    let mut redis = server.client();
    redis.list("users", &users(100..110, 1_773_532_800));
    let sources = with_redis(&[user(1)], &server.url(), "users", "");
    let mut file = Kind::fills(sources.setup.node()).open(DAY, 9);
    let daemon = sources.setup.start();
    assert_eq!(listed(&daemon), 11);

    redis.run(&["FLUSHALL"]);
    wait_for_problem(&daemon, 1, "the key does not exist");
    sources.command(&["add", &user(2)]);
    eventually("the file is followed", || listed(&daemon) == 12);

    redis.run(&["SET", "users", "x"]);
    wait_for_problem(&daemon, 1, "the key is a string");
    sources.command(&["add", &user(3)]);
    eventually("the file is followed", || listed(&daemon) == 13);

    // It takes connections and answers nobody.
    server.signal(Signal::STOP);
    wait_for_problem(&daemon, 1, "timed out");
    fs::write(sources.file(), [user(1), user(2), user(3), ALICE.to_owned()].join("\n")).unwrap();
    eventually("the file is followed", || listed(&daemon) == 14);
    server.signal(Signal::CONT);

    assert_eq!(each(&daemon, "problem")[0], Value::Null);
    assert_eq!(each(&daemon, "addresses"), [json!(4), json!(10)]);
    for (position, from) in (1..).zip([&user(105), ALICE]) {
        append(&mut file, &(fills_line(position, from, 1) + "\n"));
    }
    eventually("those of both are kept", || database::rows(&sources.setup.database()).len() == 2);
}

#[test]
fn a_start_without_redis_goes_on_with_the_last_known_list_and_follows_when_it_is_back() {
    let server = Server::start();
    server.client().list("users", &users(100..110, 1_773_532_800));
    let sources = with_redis(&[user(1)], &server.url(), "users", "");
    let mut file = Kind::fills(sources.setup.node()).open(DAY, 9);
    let port = server.port();

    // Nothing is known: a start is refused, and a service manager tries again.
    server.signal(Signal::STOP);
    let mut daemon = sources.setup.spawn();
    assert_eq!(daemon.wait_exit().unwrap().code(), Some(1), "{}", daemon.log_tail());
    server.signal(Signal::CONT);
    let daemon = sources.setup.start();
    assert_eq!(listed(&daemon), 11);
    eventually("the list is known", || sources.setup.knows_list_of("redis"));
    // As a crash would.
    daemon.kill();
    drop(server);

    let daemon = sources.setup.start();
    assert_eq!(listed(&daemon), 11);
    wait_for_problem(&daemon, 1, "Connection refused");
    eventually("it is logged", || {
        daemon.log().contains("start with the last known whitelist of Redis")
    });
    append(&mut file, &(fills_line(1, &user(105), 1) + "\n"));
    eventually("the last known list holds", || {
        database::rows(&sources.setup.database()).len() == 1
    });

    let server = Server::start_on(port, &[]);
    server.client().list("users", &users(100..112, 1_773_532_800));
    eventually("it is followed again", || listed(&daemon) == 13);
    assert_eq!(each(&daemon, "problem"), [Value::Null, Value::Null]);
}

#[test]
fn a_key_that_was_deleted_on_purpose_is_confirmed_by_sighup_and_stays_so() {
    let server = Server::start();
    let mut redis = server.client();
    redis.list("users", &users(100..110, 1_773_532_800));
    let sources = with_redis(&[user(1)], &server.url(), "users", "");
    let daemon = sources.setup.start();
    assert_eq!(listed(&daemon), 11);

    redis.run(&["DEL", "users"]);
    wait_for_problem(&daemon, 1, "reload (SIGHUP) to confirm");
    assert_eq!(listed(&daemon), 11);
    daemon.signal(Signal::HUP);
    eventually("it is confirmed", || listed(&daemon) == 1);
    eventually("nothing is wrong", || each(&daemon, "problem") == [Value::Null, Value::Null]);

    // Also after a restart, and a list that comes back is followed.
    assert_eq!(daemon.stop().code(), Some(0));
    let daemon = sources.setup.start();
    assert_eq!((listed(&daemon), each(&daemon, "problem")[1].clone()), (1, Value::Null));
    redis.list("users", &users(100..103, 1_773_532_800));
    eventually("it is followed again", || listed(&daemon) == 4);
}

//! The whitelist and the positions in a real Redis. The tests that take nothing from anybody share the server of
//! `scripts/test.sh`, each with its own key; the others start one of their own.

// The exception for tests does not cover the functions that tests share.
#![allow(clippy::unwrap_used)]

mod common;

#[path = "redis/positions.rs"]
mod positions;
#[path = "redis/reach.rs"]
mod reach;

use std::{fs, net::TcpListener};

use nodecast::whitelist::AddressList;
use rustix::process::Signal;
use serde_json::{Value, json};

use common::{
    Setup, TestDaemon, database, eventually,
    node::{ALICE, Kind, append, fills_line},
    receive_type,
    redis::{Client, Server, shared, user, users},
};

const DAY: u32 = 20_260_315;

fn setup(url: &str, key: &str) -> Setup {
    let mut setup = Setup::new();
    setup.whitelist = String::new();
    setup.config = format!("[whitelist]\nredis_url = \"{url}\"\nredis_key = \"{key}\"\n");
    setup
}

fn whitelist(daemon: &TestDaemon) -> Value {
    daemon.status()["whitelist"].clone()
}

fn listed(daemon: &TestDaemon) -> u64 {
    whitelist(daemon)["addresses"].as_u64().unwrap()
}

fn wait_for_problem(daemon: &TestDaemon, part: &str) {
    eventually(part, || {
        whitelist(daemon)["problem"].as_str().is_some_and(|problem| problem.contains(part))
    });
    let status = daemon.status();
    assert_eq!(status["state"], "degraded", "{status}");
}

// H19, H20, H22
#[test]
fn thousands_of_members_with_one_score_are_kept_and_a_new_one_is_followed() {
    // Seconds, milliseconds, and a score that is no time at all.
    for (score, key) in [(1_773_532_800, "secs"), (1_773_532_800_000, "millis"), (0, "zero")] {
        let (url, mut redis) = shared();
        redis.ask(&["DEL", key]);
        redis.list(key, &users(1..2_001, score));
        let setup = setup(&url, key);
        let mut file = Kind::fills(setup.node()).open(DAY, 9);
        let daemon = setup.start();
        assert_eq!(listed(&daemon), 2_000);

        redis.list(key, &[(score.to_string(), ALICE.to_owned())]);
        eventually("she is listed", || listed(&daemon) == 2_001);

        append(&mut file, &(fills_line(1, &user(2_000), 1) + "\n"));
        append(&mut file, &(fills_line(2, &user(9_999), 1) + "\n"));
        append(&mut file, &(fills_line(3, ALICE, 1) + "\n"));
        eventually("theirs are kept", || database::rows(&setup.database()).len() == 2);
        let kept: Vec<_> = database::rows(&setup.database()).keys().map(|id| id.position).collect();
        assert_eq!(kept, [1, 3]);
    }
}

// H21
#[test]
fn a_removed_member_is_gone_by_the_next_scan() {
    for key in ["removed", "removed-plain"] {
        let (url, mut redis) = shared();
        redis.ask(&["DEL", key]);
        match key {
            "removed" => redis.list(key, &users(1..11, 1_773_532_800)),
            plain => {
                let members: Vec<_> = (1..11).map(user).collect();
                let mut words = vec!["SADD", plain];
                words.extend(members.iter().map(String::as_str));
                redis.run(&words);
            }
        }
        let setup = setup(&url, key);
        let daemon = setup.start();
        assert_eq!(listed(&daemon), 10);

        let command = if key == "removed" { "ZREM" } else { "SREM" };
        redis.run(&[command, key, &user(3)]);

        eventually("it is gone", || listed(&daemon) == 9);
        assert_eq!(whitelist(&daemon)["problem"], Value::Null);
    }
}

// H21: one comes when another one goes, so that the number of members tells nothing.
#[test]
fn a_member_that_another_one_replaces_is_found_by_the_scan() {
    let (url, mut redis) = shared();
    redis.ask(&["DEL", "replaced"]);
    redis.list("replaced", &users(1..11, 1_773_532_800));
    let setup = setup(&url, "replaced");
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();

    // The score of the new one is too old to be asked for.
    redis.run(&["ZREM", "replaced", &user(3)]);
    redis.list("replaced", &[("5".to_owned(), ALICE.to_owned())]);

    eventually("the change is logged", || {
        daemon.log().contains("whitelist reloaded") && listed(&daemon) == 10
    });
    append(&mut file, &(fills_line(1, &user(3), 1) + "\n"));
    append(&mut file, &(fills_line(2, ALICE, 1) + "\n"));
    eventually("hers is kept", || !database::rows(&setup.database()).is_empty());
    assert!(database::rows(&setup.database()).keys().all(|id| id.position == 2));
}

#[test]
fn members_that_are_no_addresses_are_skipped_and_shown() {
    let (url, mut redis) = shared();
    redis.ask(&["DEL", "skipped"]);
    redis.list("skipped", &users(1..11, 1_773_532_800));
    redis.list("skipped", &[("1".to_owned(), "nobody".to_owned())]);

    let setup = setup(&url, "skipped");
    let daemon = setup.start();

    let state = whitelist(&daemon);
    assert_eq!(state["addresses"], 10, "{state}");
    assert_eq!((&state["skipped"], &state["skipped_example"]), (&json!(1), &json!("nobody")));
    assert_eq!(state["problem"], Value::Null);
    eventually("it is logged", || {
        daemon.log().contains("members of the whitelist in Redis are no addresses")
    });
    redis.run(&["ZREM", "skipped", "nobody"]);
    eventually("it is mended", || whitelist(&daemon)["skipped"] == 0);
}

#[test]
fn a_large_shrink_waits_for_a_hangup_and_new_members_do_not() {
    let (url, mut redis) = shared();
    redis.ask(&["DEL", "shrink"]);
    redis.list("shrink", &users(1..11, 1_773_532_800));
    let setup = setup(&url, "shrink");
    let daemon = setup.start();

    for ordinal in 1..6 {
        redis.ask(&["ZREM", "shrink", &user(ordinal)]);
    }
    wait_for_problem(&daemon, "SIGHUP");
    let held = listed(&daemon);
    assert!(held >= 8, "{held}");
    redis.list("shrink", &users(50..51, 1_773_532_800));
    eventually("the new one is listed", || listed(&daemon) == held + 1);
    assert_ne!(whitelist(&daemon)["problem"], Value::Null);

    daemon.signal(Signal::HUP);
    eventually("it is accepted", || listed(&daemon) == 6);
    assert_eq!(whitelist(&daemon)["problem"], Value::Null);
}

#[test]
fn a_key_that_is_missing_or_of_the_wrong_type_refuses_the_start_and_later_changes_nothing() {
    let (url, mut redis) = shared();
    redis.ask(&["DEL", "type"]);
    let setup = setup(&url, "type");

    for (prepare, said) in [
        (&["DEL", "type"] as &[&str], "the key does not exist"),
        (&["SET", "type", "x"], "the key is a string, not a sorted set or a set"),
    ] {
        redis.run(prepare);
        let mut daemon = setup.spawn();
        let status = daemon.wait_exit().unwrap();
        // Not 78, at which a service manager does not try again.
        assert_eq!(status.code(), Some(1), "{}", daemon.log_tail());
        assert!(daemon.log().contains(said), "{}", daemon.log_tail());
        // There is no old one.
        assert!(!daemon.log().contains("the old one stays"), "{}", daemon.log_tail());
    }

    redis.run(&["DEL", "type"]);
    redis.list("type", &users(1..11, 1_773_532_800));
    let daemon = setup.start();
    redis.run(&["SET", "type", "x"]);
    wait_for_problem(&daemon, "the key is a string");
    assert_eq!(listed(&daemon), 10);
    redis.run(&["DEL", "type"]);
    redis.list("type", &users(1..12, 1_773_532_800));
    eventually("the mended list holds", || listed(&daemon) == 11);
    assert_eq!(whitelist(&daemon)["problem"], Value::Null);
}

#[test]
fn an_emptied_redis_keeps_the_list() {
    let server = Server::start();
    let mut redis = server.client();
    redis.list("wallet_eoa_cache", &users(1..11, 1_773_532_800));
    let setup = setup(&server.url(), "wallet_eoa_cache");
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();

    redis.run(&["FLUSHALL"]);

    wait_for_problem(&daemon, "the key does not exist");
    assert_eq!(listed(&daemon), 10);
    append(&mut file, &(fills_line(1, &user(3), 1) + "\n"));
    eventually("the old list holds", || database::rows(&setup.database()).len() == 1);
}

#[test]
fn a_reload_takes_the_keys_and_the_file_while_redis_is_away() {
    let server = Server::start();
    server.client().list("users", &users(1..11, 1_773_532_800));
    let mut setup = setup(&server.url(), "users");
    let file = setup.root.path().join("list");
    fs::write(&file, (20..25).map(|ordinal| user(ordinal) + "\n").collect::<String>()).unwrap();
    setup.config += &format!("file = \"{}\"\n", file.display());
    let daemon = setup.start();
    assert_eq!(listed(&daemon), 15);
    drop(server);
    wait_for_problem(&daemon, "127.0.0.1");

    // The file shrinks so strongly that only the reload confirms it.
    fs::write(&file, user(20) + "\n").unwrap();
    let config = setup.config.clone() + "[http]\nmax_limit = 5\n";
    fs::write(setup.root.path().join("nodecast.toml"), config).unwrap();
    daemon.signal(Signal::HUP);

    eventually("it was reloaded", || !daemon.status()["reload"].is_null());
    let reload = daemon.status()["reload"].clone();
    assert_eq!((&reload["ok"], &reload["changed"]), (&json!(false), &json!(["http.max_limit"])));
    let problem = reload["problem"].as_str().unwrap();
    assert!(problem.starts_with("whitelist key \"users\" in redis://127.0.0.1:"), "{problem}");
    assert_eq!(listed(&daemon), 11);
}

#[test]
fn a_redis_that_was_killed_is_followed_again_and_its_password_never_shown() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = || Server::start_on(port, &["--requirepass", "hunter2"]);
    let fill = |members| {
        let mut redis = Client::connect(port);
        assert_eq!(redis.ask(&["AUTH", "hunter2"]), "+OK");
        redis.list("users", &users(1..members, 1_773_532_800));
    };
    let mut setup = setup(&format!("redis://:hunter2@127.0.0.1:{port}"), "users");

    let mut daemon = setup.spawn();
    assert_eq!(daemon.wait_exit().unwrap().code(), Some(1), "{}", daemon.log_tail());
    assert!(daemon.log().contains("Connection refused"), "{}", daemon.log_tail());

    let server = start();
    fill(11);
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    let mut client = daemon.subscribe("fills");
    drop(server);
    wait_for_problem(&daemon, "127.0.0.1");
    assert_eq!(listed(&daemon), 10);
    // The stream and the store do not notice.
    append(&mut file, &(fills_line(1, &user(3), 1) + "\n"));
    assert_eq!(receive_type(&mut client, "event")["block"], 1);
    eventually("it is stored", || database::rows(&setup.database()).len() == 1);
    assert_eq!(daemon.status()["state"], "degraded");

    // What comes back is empty at first.
    let _server = start();
    wait_for_problem(&daemon, "the key does not exist");
    fill(13);
    eventually("it is followed again", || listed(&daemon) == 12);
    assert_eq!(whitelist(&daemon)["problem"], Value::Null);
    assert!(!daemon.log().contains("hunter2") && !daemon.status().to_string().contains("hunter2"));

    // With a list of the last run a start needs nobody.
    setup.config = setup.config.replace("hunter2", "wrong");
    let folder = setup.state_dir().join("whitelist");
    eventually("the list is kept", || {
        AddressList::open(&folder, "redis").unwrap().is_some_and(|(list, _)| list.len() == 12)
    });
    drop(daemon);
    let daemon = setup.start();
    wait_for_problem(&daemon, "authentication failed");
    assert_eq!(listed(&daemon), 12);
}

//! SIGHUP: what changes while the daemon runs, what waits for a restart, that a fault changes
//! nothing, and that a faulty whitelist holds nothing else back.

// The exemption for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, os::unix::net::UnixDatagram};

use common::{
    PATIENCE, Setup, TestDaemon, eventually,
    node::{ALICE, BOB, Kind, append, fills_line},
    receive_type, send,
};
use rustix::process::Signal;
use serde_json::{Value, json};

const DAY: u32 = 20_260_315;

/// Gives the daemon another configuration, and what status then says of the reload.
fn reload(setup: &Setup, daemon: &TestDaemon, config: &str) -> Value {
    let before = daemon.status()["reload"].clone();
    fs::write(setup.root.path().join("nodecast.toml"), config).unwrap();
    daemon.signal(Signal::HUP);
    eventually("it was reloaded", || daemon.status()["reload"] != before);
    daemon.status()["reload"].clone()
}

#[test]
fn a_log_level_changes_at_once() {
    let setup = Setup::new();
    let daemon = setup.start();
    let url = format!("ws://127.0.0.1:{}/nowhere", daemon.port);
    assert!(tungstenite::connect(&url).is_err());
    assert_eq!(daemon.status()["reload"], Value::Null);

    let reload = reload(&setup, &daemon, "[log]\nlevel = \"debug\"\n");

    assert_eq!(reload["ok"], true, "{reload}");
    assert_eq!((&reload["changed"], &reload["needs_restart"]), (&json!(["log.level"]), &json!([])));
    assert!(!daemon.log().contains("handshake refused"), "{}", daemon.log());
    assert!(tungstenite::connect(&url).is_err());
    eventually("debug records are written", || daemon.log().contains("handshake refused"));
}

#[test]
fn lower_limits_hold_for_new_sessions_and_leave_open_ones_alone() {
    let mut setup = Setup::new();
    setup.config = "[session]\nmax_sessions = 9\nmax_subscriptions = 9\n".to_owned();
    let daemon = setup.start();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let mut old = daemon.subscribe("fills");

    let config = "[session]\nmax_sessions = 2\nmax_subscriptions = 1\n";
    let reload = reload(&setup, &daemon, config);

    assert_eq!(reload["changed"], json!(["session.max_sessions", "session.max_subscriptions"]));
    // The one that was open is not disconnected, and may have what it was promised.
    append(&mut file, &(fills_line(7, ALICE, 1) + "\n"));
    assert_eq!(receive_type(&mut old, "event")["block"], 7);
    send(&mut old, &json!({"type": "subscribe", "id": 2, "topic": "misc"}));
    receive_type(&mut old, "ack");
    // A new one may not.
    let mut new = daemon.subscribe("fills");
    send(&mut new, &json!({"type": "subscribe", "id": 2, "topic": "misc"}));
    let error = common::receive(&mut new);
    assert_eq!(error["code"], "too_many_subscriptions", "{error}");
    // And a third is not let in.
    assert!(tungstenite::connect(format!("ws://127.0.0.1:{}/v1/ws", daemon.port)).is_err());
    append(&mut file, &(fills_line(8, ALICE, 1) + "\n"));
    assert_eq!(receive_type(&mut old, "event")["block"], 8);
}

#[test]
fn limits_of_http_and_health_and_what_is_kept_change_too() {
    let setup = Setup::new();
    let daemon = setup.start();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    append(&mut file, &(fills_line(7, ALICE, 1) + "\n"));
    eventually("it is stored", || setup.stored().len() == 1);
    assert_eq!(daemon.get("/v1/events?limit=8").0, 200);
    assert_eq!(daemon.get("/readyz").0, 200);

    let config = "[http]\nmax_limit = 5\n[health]\nmax_lag = \"100ms\"\n[store]\n\
                  retention = \"30m\"\nretention_interval = \"20m\"\n";
    let reload = reload(&setup, &daemon, config);

    assert_eq!(
        reload["changed"],
        json!(["store.retention", "http.max_limit", "health.max_lag"]),
        "{reload}"
    );
    assert_eq!(reload["needs_restart"], json!(["store.retention_interval"]));
    assert_eq!(daemon.get("/v1/events?limit=8").0, 400);
    eventually("it is not ready", || daemon.get("/readyz").0 == 503);
    // A block of an hour ago is too old from now on.
    let hour_ago = nodecast::event::Timestamp::now().minus(std::time::Duration::from_secs(3_600));
    let old = fills_line(8, BOB, 1);
    let time = &old[old.find("\"block_time\":\"").unwrap() + 14..][..19];
    let old = old.replacen(
        &format!("\"block_time\":\"{time}"),
        &format!("\"block_time\":\"{}", &hour_ago.to_string()[..19]),
        1,
    );
    append(&mut file, &(old + "\n" + &fills_line(9, ALICE, 1) + "\n"));
    eventually("the young one is stored", || setup.stored().len() == 2);
    assert!(setup.stored().keys().all(|id| id.position != 8));
}

#[test]
fn keys_that_cannot_change_keep_their_values_and_are_named() {
    let setup = Setup::new();
    let daemon = setup.start();

    let config = "[http]\nworkers = 3\nmax_limit = 5\n[store]\nbatch_events = 7\n";
    let reload = reload(&setup, &daemon, config);

    assert_eq!(reload["changed"], json!(["http.max_limit"]), "{reload}");
    assert_eq!(reload["needs_restart"], json!(["store.batch_events", "http.workers"]), "{reload}");
    eventually("the log names them", || {
        daemon.log().contains("\"keys\":\"store.batch_events, http.workers\"")
    });
}

#[test]
fn a_faulty_configuration_changes_nothing_and_a_faulty_whitelist_holds_nothing_else_back() {
    let mut setup = Setup::new();
    setup.whitelist = format!("{ALICE}\n{BOB}\n");
    let daemon = setup.start();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let mut client = daemon.subscribe("fills");

    // A shrink that waits for a confirmation.
    fs::write(setup.whitelist_file(), format!("{ALICE}\n")).unwrap();
    let faulty = "[http]\nmax_limit = 5\n[log]\nlevel = \"debug\"\nlevl = 1\n";
    let refused = reload(&setup, &daemon, faulty);

    assert_eq!(refused["ok"], false, "{refused}");
    let problem = refused["problem"].as_str().unwrap();
    assert!(problem.contains("nodecast.toml:5:1: unknown key log.levl"), "{problem}");
    assert_eq!(refused["changed"], json!([]));
    assert_eq!(daemon.get("/v1/events?limit=8").0, 200);
    eventually("the log says so", || daemon.log().contains("reload refused"));
    assert_eq!(daemon.status()["whitelist"]["addresses"], 2);

    // A faulty list stays as it was, and holds nothing else back.
    fs::write(setup.whitelist_file(), "nobody\n").unwrap();
    let partly = reload(&setup, &daemon, "[http]\nmax_limit = 5\n");
    assert_eq!((&partly["ok"], &partly["changed"]), (&json!(false), &json!(["http.max_limit"])));
    let problem = partly["problem"].as_str().unwrap();
    assert!(problem.contains("whitelist file ") && problem.contains("nobody"), "{problem}");
    assert_eq!(daemon.get("/v1/events?limit=8").0, 400);
    assert_eq!(daemon.status()["whitelist"]["addresses"], 2);

    // Nobody was disconnected, the old list holds, and what is mended is taken.
    append(&mut file, &(fills_line(7, ALICE, 1) + "\n"));
    assert_eq!(receive_type(&mut client, "event")["block"], 7);
    fs::write(setup.whitelist_file(), format!("{ALICE}\n")).unwrap();
    let taken = reload(&setup, &daemon, "[http]\nmax_limit = 9\n");
    assert_eq!((&taken["ok"], &taken["problem"]), (&json!(true), &Value::Null), "{taken}");
    assert_eq!(daemon.get("/v1/events?limit=8").0, 200);
    assert_eq!(daemon.status()["whitelist"]["addresses"], 1);
}

#[test]
fn the_service_manager_is_told_of_a_reload_and_of_its_end() {
    let mut setup = Setup::new();
    let path = setup.root.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    setup.wrapper = vec!["env".to_owned(), format!("NOTIFY_SOCKET={}", path.display())];
    let daemon = setup.start();
    let hear = || {
        let mut datagram = [0; 4_096];
        let length = socket.recv(&mut datagram).unwrap();
        String::from_utf8(datagram[..length].to_vec()).unwrap()
    };
    while !hear().contains("READY=1") {}

    daemon.signal(Signal::HUP);

    let begun = hear();
    assert!(begun.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{begun}");
    assert!(hear().contains("READY=1"));
}

#[test]
fn the_limits_of_the_disk_hold_from_the_next_look_on() {
    let setup = Setup::new();
    let daemon = setup.start();
    assert!(!daemon.log().contains("disk space is short"), "{}", daemon.log_tail());

    let reload = reload(&setup, &daemon, "[store]\nmin_free_bytes = \"1024TiB\"\n");

    assert_eq!(reload["changed"], json!(["store.min_free_bytes"]), "{reload}");
    eventually("nothing can be freed for it", || daemon.log().contains("disk space is short"));
}

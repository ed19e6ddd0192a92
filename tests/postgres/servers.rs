//! Servers that hang, are full, refuse writes or take too long, and one that takes over from another.

use std::{thread, time::Duration};

use rustix::process::Signal;

use crate::{
    common::{database, eventually, postgres::PostgresServer},
    scene::{CONFIG, Listener, Scene, fill_the_budget, reasons, wait_until_degraded},
};

#[test]
fn a_server_that_hangs_is_given_up_and_goes_on_where_it_was() {
    let server = PostgresServer::start();
    let mut scene = Scene::new(server.url.clone());
    let daemon = scene.setup.start();
    let client = Listener::to(&daemon);
    scene.write(5);
    scene.wait_until_stored();

    for _ in 0..2 {
        scene.write(20);
        server.hang();
        scene.write(20);
        client.wait_for(scene.rows());
        wait_until_degraded(&daemon, "no answer within");
        assert_eq!(daemon.get("/v1/events?topic=fills").0, 503);
        fill_the_budget(&mut scene, &daemon);
        server.wake();
        scene.assert_well(&daemon, &client);
    }

    assert_eq!(daemon.get("/v1/events?topic=fills").0, 200);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_server_that_hangs_is_told_long_before_it_is_given_up() {
    let server = PostgresServer::start();
    let mut scene = Scene::new(server.url.clone());
    // As it is by default.
    scene.setup.config = CONFIG.replace("write_timeout = \"1s\"", "write_timeout = \"30s\"");
    let daemon = scene.setup.start();
    let client = Listener::to(&daemon);
    scene.write(5);
    scene.wait_until_stored();

    server.hang();
    scene.write(20);
    client.wait_for(scene.rows());
    let health = || daemon.get("/health").1;
    eventually("health says it", || {
        let health = health();
        health["status"] == "degraded" && health["reasons"].to_string().contains("not answered")
    });
    assert_eq!(daemon.status()["store"]["failures"], 0, "no commit was given up yet");
    eventually("the log says it", || daemon.log().contains("store does not answer"));

    server.wake();
    scene.assert_well(&daemon, &client);
    assert_eq!(daemon.stop().code(), Some(0));
}

/// What is told as the length of an outage is how old the store is.
#[test]
fn an_outage_is_as_long_as_the_time_since_the_last_commit() {
    let server = PostgresServer::start();
    let mut scene = Scene::new(server.url.clone());
    let daemon = scene.setup.start();
    scene.write(5);
    scene.wait_until_stored();

    server.hang();
    scene.write(20);
    // It was tried for three seconds before.
    let status = wait_until_degraded(&daemon, "no answer within");

    let millis = |name: &str| status["store"][name].as_u64().unwrap();
    let (failing, since_commit) = (millis("failing_for_ms"), millis("last_commit_age_ms"));
    assert!(failing >= 3_000 && failing <= since_commit + 1_000, "{status}");
    server.wake();
    scene.wait_until_stored();
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_server_that_was_restarted_answers_the_first_read() {
    let server = PostgresServer::start();
    let mut scene = Scene::new(server.url.clone());
    let daemon = scene.setup.start();
    scene.write(5);
    scene.wait_until_stored();
    let read = || daemon.get("/v1/events?topic=fills").0;
    // More at a time than there are connections.
    thread::scope(|scope| {
        (0..8).for_each(|_| drop(scope.spawn(|| assert_eq!(read(), 200))));
    });
    assert_eq!(daemon.status()["store"]["reachable"], true);

    server.kill();
    server.restart();

    assert_eq!([(); 8].map(|()| read()), [200; 8]);
    let store = daemon.status()["store"].clone();
    assert_eq!(store["reachable"], true, "{store}");
    assert_eq!(daemon.stop().code(), Some(0));
}

/// The files are the buffer: a stop does not wait for a server.
// H47
#[test]
fn a_stop_while_the_server_hangs_ends_in_time_and_the_next_start_brings_the_rest() {
    let server = PostgresServer::start();
    let mut scene = Scene::new(server.url.clone());
    let mut daemon = scene.setup.start();
    scene.write(5);
    scene.wait_until_stored();
    let client = Listener::to(&daemon);
    let before = scene.rows();

    server.hang();
    scene.write(20);
    client.wait_for(scene.rows() - before);
    daemon.signal(Signal::TERM);
    // What the daemon promises for its stop, twice.
    let status = daemon.wait_exit_for(Duration::from_secs(20)).expect("it stops");

    let said = daemon.log();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("is read again from the files at the next start"), "{said}");
    assert!(!said.contains("stopped by a fault"), "{said}");
    server.wake();
    let daemon = scene.setup.start();
    scene.assert_stored();
    assert_eq!(daemon.stop().code(), Some(0));
}

/// Fills a disk, frees it, and compares.
fn fill_and_free(server: &PostgresServer, fill: impl FnOnce(), free: impl FnOnce()) {
    let mut scene = Scene::new(server.url.clone());
    let daemon = scene.setup.start();
    let client = Listener::to(&daemon);
    scene.write(5);
    scene.wait_until_stored();

    fill();
    eventually("the disk is full", || {
        scene.write(50);
        client.wait_for(scene.rows());
        reasons(&daemon).contains("could not extend")
    });
    wait_until_degraded(&daemon, "could not extend");
    assert!(scene.stored() < scene.rows(), "the disk was not full");
    assert_eq!(daemon.get("/v1/events?topic=fills").0, 200, "what is there can be read");
    fill_the_budget(&mut scene, &daemon);

    free();
    scene.assert_well(&daemon, &client);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_server_whose_files_may_not_grow_is_waited_for() {
    // More than a segment of the server's log, less than the events will take.
    const LIMIT: u64 = 2 << 20;
    let server = PostgresServer::start();

    fill_and_free(&server, || server.limit_files(Some(LIMIT)), || server.limit_files(None));
}

#[test]
fn a_server_whose_disk_is_full_is_waited_for() {
    let Some(server) = PostgresServer::start_on_a_small_disk(16 << 20, 14 << 20) else { return };

    fill_and_free(&server, || {}, || server.free_the_disk());
}

#[test]
fn a_server_that_refuses_writes_is_waited_for() {
    let server = PostgresServer::start();
    let mut scene = Scene::new(server.url.clone());
    let daemon = scene.setup.start();
    let client = Listener::to(&daemon);
    scene.write(5);
    scene.wait_until_stored();

    server.run("ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()");
    eventually("commits fail", || {
        scene.write(5);
        reasons(&daemon).contains("read-only")
    });
    scene.write(20);
    client.wait_for(scene.rows());
    wait_until_degraded(&daemon, "read-only");
    assert_eq!(daemon.get("/v1/events?topic=fills").0, 200, "reading goes on");
    fill_the_budget(&mut scene, &daemon);

    server.run("ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()");
    scene.assert_well(&daemon, &client);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_hot_standby_is_written_to_once_it_is_promoted() {
    let first = PostgresServer::start();
    let (mut scene, proxy) = Scene::behind_a_proxy(first.url.clone());
    let daemon = scene.setup.start();
    let client = Listener::to(&daemon);
    scene.write(20);
    scene.wait_until_stored();
    let second = first.start_replica();
    scene.write(20);
    scene.wait_until_stored();
    eventually("the second server has it", || {
        database::rows(second.url.as_str()).len() == scene.rows()
    });

    first.kill();
    proxy.forward_to(second.address());
    scene.write(20);
    client.wait_for(scene.rows());
    // "cannot execute .. during recovery" and "in a read-only transaction" are one kind of error.
    wait_until_degraded(&daemon, "cannot execute");
    assert_eq!(daemon.get("/v1/events?topic=fills").0, 200, "reading goes on");
    scene.url.clone_from(&second.url);
    second.promote();

    scene.assert_well(&daemon, &client);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_commit_that_takes_too_long_is_broken_off_and_tried_again() {
    let url = database::create_on_postgres();
    let mut scene = Scene::new(url.clone());
    let daemon = scene.setup.start();
    let client = Listener::to(&daemon);
    scene.write(5);
    scene.wait_until_stored();

    let mut operator = database::postgres(&url);
    let mut says = |statement: &str| {
        use diesel::RunQueryDsl;
        diesel::sql_query(statement).execute(&mut operator).unwrap();
    };
    says("BEGIN");
    says("LOCK TABLE nodecast.events IN EXCLUSIVE MODE");
    scene.write(20);
    client.wait_for(scene.rows());
    wait_until_degraded(&daemon, "statement timeout");
    assert_eq!(daemon.get("/v1/events?topic=fills").0, 200, "reading goes on");
    fill_the_budget(&mut scene, &daemon);

    says("ROLLBACK");
    scene.assert_well(&daemon, &client);
    assert_eq!(daemon.stop().code(), Some(0));
}

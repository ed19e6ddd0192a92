//! Two daemons on one database and one node directory: one writes, the other is refused or waits.

use std::time::Duration;

use diesel::{QueryableByName, RunQueryDsl, sql_types::Double};
use rustix::process::Signal;

use crate::{
    common::{Setup, TestDaemon, database, eventually, proxy::Proxy},
    scene::{Listener, Scene},
};

const STANDBY: &str = "[store]\nstandby = true\nbatch_delay = \"5ms\"\n";

/// Starts a daemon that has to wait for another one.
fn start_standby(setup: &Setup, holder: &TestDaemon) -> TestDaemon {
    let standby = setup.start();
    let (code, answer) = standby.get("/readyz");
    assert_eq!((code, &answer["ready"]), (503, &false.into()), "{}", standby.log_tail());
    let reason = answer["reasons"][0].as_str().unwrap();
    assert!(reason.contains(&format!("process {} on ", holder.pid())), "{reason}");
    // The log is written beside the work.
    eventually("the log says it", || standby.log().contains("standing by for the lease"));
    standby
}

fn wait_until_it_writes(standby: &TestDaemon) {
    eventually("it has taken over", || {
        let log = standby.log();
        log.contains("taking over") && log.contains("\"listening\"")
    });
    eventually("it commits", || standby.status()["store"]["commits"].as_u64() > Some(0));
}

#[test]
fn a_second_daemon_is_refused_with_the_name_of_the_first() {
    let mut scene = Scene::new(database::create_on_postgres());
    let first = scene.setup.start();
    scene.write(5);
    scene.wait_until_stored();

    let setup = scene.second("");
    let mut refused = setup.spawn();

    assert_eq!(refused.wait_exit().unwrap().code(), Some(1), "{}", refused.log_tail());
    let said = refused.log();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let holder = format!("process {} on {host} holds the lease since 20", first.pid());
    assert!(said.contains(&holder), "{said}");
    scene.write(5);
    scene.assert_stored();
    assert_eq!(first.stop().code(), Some(0));
}

#[test]
fn a_standby_takes_over_from_a_daemon_that_was_killed() {
    let mut scene = Scene::new(database::create_on_postgres());
    let first = scene.setup.start();
    scene.write(5);
    let setup = scene.second(STANDBY);
    let second = start_standby(&setup, &first);
    let (code, answer) = second.get("/v1/events");
    assert_eq!((code, &answer["code"]), (503, &"standby".into()));
    assert_eq!(second.get("/livez").0, 200);

    scene.write(20);
    first.kill();
    scene.write(20);

    wait_until_it_writes(&second);
    let client = Listener::to(&second);
    scene.wait_until_stored();
    let before = scene.rows();
    scene.write(20);
    client.wait_for(scene.rows() - before);
    scene.assert_stored();
    assert_eq!(second.stop().code(), Some(0));
}

/// How much later than the end of the lease it may be taken over.
const TAKEN_OVER_WITHIN_SECS: f64 = 5.0;

#[derive(QueryableByName)]
struct LeaseRow {
    /// By the server's clock.
    #[diesel(sql_type = Double)]
    ends: f64,
    /// When the run that has it began, by the clock of its daemon: the same machine's here.
    #[diesel(sql_type = Double)]
    began: f64,
    /// Until it ends; below zero afterwards.
    #[diesel(sql_type = Double)]
    left: f64,
}

fn lease(url: &str) -> LeaseRow {
    let query = "SELECT extract(epoch FROM leased_until)::float8 AS ends, \
        (run / 1000000.0)::float8 AS began, \
        extract(epoch FROM leased_until - clock_timestamp())::float8 AS \"left\" FROM nodecast.store_state";
    diesel::sql_query(query).get_result(&mut database::postgres(url)).unwrap()
}

/// It hangs at any moment of its work.
#[test]
fn a_standby_takes_over_from_a_daemon_that_hangs_and_is_refused_when_it_wakes() {
    let mut scene = Scene::new(database::create_on_postgres());
    let mut first = scene.setup.start();
    scene.write(20);
    let setup = scene.second(STANDBY);
    let second = start_standby(&setup, &first);

    scene.write(20);
    first.signal(Signal::STOP);
    let left = lease(&scene.url);
    scene.write(20);
    wait_until_it_writes(&second);
    let taken = lease(&scene.url);
    // The beginning is noted a moment before the server looks whether the lease has ended.
    let late = taken.began - left.ends;
    assert!((-1.0..TAKEN_OVER_WITHIN_SECS).contains(&late), "taken {late} s after its end");
    scene.write(20);
    scene.wait_until_stored();
    first.signal(Signal::CONT);

    let status = first.wait_exit().expect("it stops");
    assert_eq!(status.code(), Some(1), "{}", first.log_tail());
    let said = first.log();
    let successor = format!("process {} on ", second.pid());
    assert!(said.contains("another nodecast writes to this store"), "{said}");
    assert!(said.contains(&successor) && said.contains("has taken over"), "{said}");
    scene.write(20);
    scene.assert_stored();
    assert_eq!(second.stop().code(), Some(0));
}

/// The worst moment: its transaction is open, and holds the row that its successor needs.
#[test]
fn a_standby_takes_over_from_a_daemon_that_hangs_in_mid_transaction() {
    let mut scene = Scene::new(database::create_on_postgres());
    scene.setup.failpoints = "store.in_transaction=hang@4".to_owned();
    let mut first = scene.setup.start();
    let setup = scene.second(STANDBY);
    let second = start_standby(&setup, &first);
    eventually("it hangs", || {
        scene.write(1);
        let status = first.status();
        status["store"]["commits"] == 3 && status["store"]["queued_events"].as_i64() > Some(0)
    });
    scene.write(20);

    wait_until_it_writes(&second);

    scene.assert_stored();
    assert!(first.wait_exit_for(Duration::ZERO).is_none(), "it hangs");
    assert_eq!(second.stop().code(), Some(0));
}

#[test]
fn a_standby_whose_server_is_away_goes_on_waiting_and_can_be_stopped() {
    let (mut scene, proxy) = Scene::behind_a_proxy(database::create_on_postgres());
    let first = scene.setup.start();
    let setup = scene.second(STANDBY);
    let second = start_standby(&setup, &first);
    let setup = scene.second(STANDBY);
    let third = start_standby(&setup, &first);

    assert_eq!(third.stop().code(), Some(0), "it is stopped while it waits");
    proxy.refuse();
    eventually("it says so", || {
        second.get("/health").1["reasons"].to_string().contains("not available")
    });
    first.kill();
    scene.write(20);
    proxy.pass();

    wait_until_it_writes(&second);
    scene.assert_stored();
    assert_eq!(second.stop().code(), Some(0));
}

/// While the server is away for longer than a lease, the holder is not to blame.
#[test]
fn a_writer_in_good_health_keeps_its_lease_through_an_outage_and_its_clients_stay() {
    let (mut scene, to_first) = Scene::behind_a_proxy(database::create_on_postgres());
    let mut first = scene.setup.start();
    let client = Listener::to(&first);
    scene.write(5);
    scene.wait_until_stored();
    let (to_second, through) = Proxy::before(&scene.url);
    let mut setup = scene.second(STANDBY);
    setup.database_url = Some(through);
    let second = start_standby(&setup, &first);

    to_first.refuse();
    to_second.refuse();
    scene.write(20);
    eventually("the lease has ended", || lease(&scene.url).left < 0.0);
    let reason = || second.get("/health").1["reasons"].to_string();
    eventually("the standby finds nobody", || reason().contains("not available"));
    // The worst order: the holder is the last to find the way.
    to_second.pass();
    eventually("the standby finds the server", || !reason().contains("not available"));
    let said = reason();
    assert!(said.contains("head start"), "{said}");
    to_first.pass();

    scene.wait_until_stored();
    eventually("the lease is renewed", || lease(&scene.url).left > 0.0);
    eventually("the standby sees it", || reason().contains("holds the lease since"));
    scene.write(20);
    scene.assert_well(&first, &client);
    assert!(first.wait_exit_for(Duration::ZERO).is_none(), "{}", first.log_tail());

    // With the server there all the time, it is followed when its lease ends.
    to_first.refuse();
    scene.write(20);
    wait_until_it_writes(&second);
    to_first.pass();
    assert_eq!(first.wait_exit().unwrap().code(), Some(1), "{}", first.log_tail());
    scene.assert_stored();
    assert_eq!(second.stop().code(), Some(0));
}

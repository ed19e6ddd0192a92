//! A server that no longer lets a daemon in that it let in before: what an operator does in a running
//! system, and mends.

use diesel::RunQueryDsl;

use crate::{
    common::{TestDaemon, database, eventually, postgres::PostgresServer},
    scene::{Listener, Scene, reasons, wait_until_degraded},
};

/// The daemon's own role and database, beside those of the server's owner.
const MAKE_ROLE: &str = "ALTER ROLE nodecast PASSWORD 'owner'; \
    CREATE ROLE stream LOGIN PASSWORD 'first'; CREATE DATABASE stream OWNER stream";

/// Ends the daemon's connections.
const DISCONNECT: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'stream'";

/// The outage is told with its reason, and the stream goes on.
fn assert_denied(scene: &mut Scene, daemon: &TestDaemon, client: &Listener, reason: &str) {
    let told = outages_told(daemon);
    scene.write(20);
    client.wait_for(scene.rows());
    wait_until_degraded(daemon, reason);
    let health = daemon.get("/health").1["reasons"].to_string();
    assert!(health.contains(reason), "{health}");
    // The log is written beside the work.
    eventually("the log says it", || daemon.log().contains(reason));
    let again = outages_told(daemon) - told;
    assert!(again <= 1, "told {again} times: {}", daemon.log_tail());
}

fn outages_told(daemon: &TestDaemon) -> usize {
    daemon.log().matches("store unavailable, it is tried again").count()
}

#[test]
fn a_server_that_no_longer_lets_us_in_is_waited_for_and_refuses_a_start() {
    let mut server = PostgresServer::start();
    server.run(MAKE_ROLE);
    server.url = server.url.replace("nodecast@", "nodecast:owner@");
    server.require_passwords();
    let (host, _) = server.url.split_once('@').unwrap().1.rsplit_once('/').unwrap();
    let url = format!("postgres://nodecast:owner@{host}/stream");
    let mut scene = Scene::new(url.clone());
    scene.setup.database_url = Some(format!("postgres://stream:first@{host}/stream"));
    let tables = |statement: &str| {
        diesel::sql_query(statement).execute(&mut database::postgres(&url)).unwrap();
    };
    let daemon = scene.setup.start();
    let client = Listener::to(&daemon);
    scene.write(5);
    scene.wait_until_stored();

    // A right is missing.
    tables("REVOKE UPDATE ON nodecast.store_state FROM stream");
    assert_denied(&mut scene, &daemon, &client, "permission denied");
    tables("GRANT UPDATE ON nodecast.store_state TO stream");
    scene.assert_well(&daemon, &client);

    // The database has another name.
    eventually("it is renamed", || {
        // Until the daemon is not quicker.
        server.run(DISCONNECT);
        server.try_to("ALTER DATABASE stream RENAME TO kept")
    });
    assert_denied(&mut scene, &daemon, &client, "does not exist");
    server.run("ALTER DATABASE kept RENAME TO stream");
    scene.assert_well(&daemon, &client);

    // The password is another one.
    server.run("ALTER ROLE stream PASSWORD 'second'");
    server.run(DISCONNECT);
    assert_denied(&mut scene, &daemon, &client, "password authentication failed");
    assert_eq!(daemon.get("/v1/events?topic=fills").0, 503);
    let second = scene.second("");
    let mut refused = second.spawn();
    assert_eq!(refused.wait_exit().unwrap().code(), Some(1), "{}", refused.log_tail());
    let said = refused.log();
    assert!(said.contains("the store cannot be used") && said.contains("[28P01]"), "{said}");
    server.run("ALTER ROLE stream PASSWORD 'first'");
    scene.assert_well(&daemon, &client);

    assert!(!reasons(&daemon).contains("store"));
    assert_eq!(daemon.stop().code(), Some(0));
}

//! Servers that are hard to reach: behind TLS, loading their data, cut off from their master.

use std::net::TcpListener;

use serde_json::Value;

use super::{
    DAY,
    common::{
        eventually,
        node::{ALICE, Kind, append, fills_line},
        redis::{Client, Server, users},
        tls::make_certificate,
    },
    listed, setup, wait_for_problem, whitelist,
};

const SCORE: u64 = 1_773_532_800;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_redis_behind_tls_is_reached_by_a_certificate_that_is_trusted_and_not_by_another() {
    let directory = tempfile::tempdir().unwrap();
    make_certificate(directory.path());
    let path = |name: &str| directory.path().join(name).display().to_string();
    let port = free_port();
    let server = Server::start_on(
        free_port(),
        &[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &path("certificate.pem"),
            "--tls-key-file",
            &path("key.pem"),
            "--tls-auth-clients",
            "no",
        ],
    );
    let mut redis = server.client();
    redis.list("wallet_eoa_cache", &users(1..11, SCORE));
    let url = format!("rediss://127.0.0.1:{port}?sslrootcert={}", path("certificate.pem"));
    let mut secure = setup(&url, "wallet_eoa_cache");
    secure.config += "[redis]\npositions = \"mirror\"\n";
    let mut file = Kind::fills(secure.node()).open(DAY, 9);

    let daemon = secure.start();

    assert_eq!(listed(&daemon), 10);
    redis.list("wallet_eoa_cache", &[(SCORE.to_string(), ALICE.to_owned())]);
    eventually("the new one is listed", || listed(&daemon) == 11);
    append(&mut file, &(fills_line(1, ALICE, 1) + "\n"));
    eventually("positions are mirrored", || {
        redis.text(&["GET", "node_fills_by_block"]).is_some_and(|text| !text.ends_with(":0}"))
    });
    drop(daemon);

    // Neither the system's certificates nor a file without any make it trustworthy.
    let key = path("key.pem");
    for (url, said) in [
        (format!("rediss://127.0.0.1:{port}"), "certificate"),
        (
            format!("rediss://127.0.0.1:{port}?sslrootcert={key}"),
            "sslrootcert holds no certificate",
        ),
        (format!("rediss://127.0.0.1:{port}?sslrootcert=/nowhere"), "No such file"),
    ] {
        let setup = setup(&url, "wallet_eoa_cache");
        let mut daemon = setup.spawn();
        assert_eq!(daemon.wait_exit().unwrap().code(), Some(1), "{}", daemon.log_tail());
        assert!(daemon.log().contains(said), "{said}: {}", daemon.log_tail());
    }
}

#[test]
fn a_server_that_is_loading_its_data_counts_as_away_and_never_as_an_empty_list() {
    let data = tempfile::tempdir().unwrap();
    let directory = data.path().display().to_string();
    let port = free_port();
    let server = Server::start_on(port, &["--dir", &directory]);
    let mut redis = server.client();
    redis.list("wallet_eoa_cache", &users(1..11, SCORE));
    // Loading pauses for each key.
    redis.run(&["EVAL", "for i = 1, 5000 do redis.call('SET', 'key' .. i, i) end return 1", "0"]);
    let setup = setup(&server.url(), "wallet_eoa_cache");
    let daemon = setup.start();
    assert_eq!(listed(&daemon), 10);

    redis.run(&["SAVE"]);
    drop(server);
    let slow = [
        "--dir",
        &*directory,
        "--key-load-delay",
        "20000",
        "--loading-process-events-interval-bytes",
        "1024",
    ];
    let _server = Server::start_on(port, &slow);

    wait_for_problem(&daemon, "loading");
    assert_eq!(listed(&daemon), 10);
    // A start finds the list of the last run, and says why it is not a newer one.
    drop(daemon);
    let daemon = setup.start();
    assert_eq!(listed(&daemon), 10);
    wait_for_problem(&daemon, "loading");

    Client::connect(port).run(&["CONFIG", "SET", "key-load-delay", "0"]);
    eventually("it is well", || whitelist(&daemon)["problem"] == Value::Null);
    assert_eq!(listed(&daemon), 10);
}

#[test]
fn a_replica_whose_master_is_gone_counts_as_away() {
    let server = Server::start();
    let mut redis = server.client();
    redis.list("wallet_eoa_cache", &users(1..11, SCORE));
    redis.run(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    let setup = setup(&server.url(), "wallet_eoa_cache");
    let daemon = setup.start();

    redis.run(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
    wait_for_problem(&daemon, "MASTER");
    assert_eq!(listed(&daemon), 10);

    redis.run(&["REPLICAOF", "NO", "ONE"]);
    eventually("it is well", || whitelist(&daemon)["problem"] == Value::Null);
    assert_eq!(listed(&daemon), 10);
}

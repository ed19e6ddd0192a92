//! Connections that are cut, and answers that are lost, between the daemon and a server that is well.

use std::{thread, time::Duration};

use crate::{
    common::{database, eventually, proxy::From},
    scene::{Listener, Scene, fill_the_budget, wait_until_degraded},
};

/// Connections that are cut at a random byte, each while commits are under way.
const CUTS: usize = 40;

#[test]
fn connections_that_are_cut_at_any_byte_lose_nothing_and_repeat_nothing() {
    let seed = std::env::var("NODECAST_SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("NODECAST_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut scene, proxy) = Scene::behind_a_proxy(database::create_on_postgres());
    let daemon = scene.setup.start();
    let client = Listener::to(&daemon);
    scene.write(5);
    scene.wait_until_stored();

    for cut in 0..CUTS {
        // A commit is some ten thousand bytes, its answers some hundred.
        let (from, most) =
            if cut % 2 == 0 { (From::Client, 60_000) } else { (From::Server, 1_500) };
        proxy.cut_after(from, rng.usize(..most));
        eventually("the connection is cut", || {
            scene.write(1);
            thread::sleep(Duration::from_millis(2));
            proxy.cuts() > cut
        });
        // The next cut meets another commit.
        scene.wait_until_stored();
    }

    scene.assert_well(&daemon, &client);
    let failures = daemon.status()["store"]["failures"].as_u64().unwrap();
    assert!(failures >= CUTS as u64 / 2, "{failures} failures: the cuts met no commits");
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_commit_whose_answer_is_lost_is_looked_up_and_not_done_again() {
    let (mut scene, proxy) = Scene::behind_a_proxy(database::create_on_postgres());
    let daemon = scene.setup.start();
    let client = Listener::to(&daemon);
    scene.write(5);
    scene.wait_until_stored();

    for _ in 0..5 {
        let lost = proxy.cuts();
        proxy.lose_answer_to(b"COMMIT\0");
        eventually("an answer is lost", || {
            scene.write(1);
            thread::sleep(Duration::from_millis(2));
            proxy.cuts() > lost
        });
        let stored = scene.stored();
        let status = wait_until_degraded(&daemon, "store");
        let known = status["store"]["inserted"].as_u64().unwrap() as usize;
        assert!(known < stored, "the daemon knows of {known} of {stored} rows");
        scene.write(20);
        client.wait_for(scene.rows());
        assert_eq!(scene.stored(), stored, "it is away");

        proxy.pass();
        scene.wait_until_stored();
    }

    scene.assert_well(&daemon, &client);
    assert_eq!(daemon.status()["store"]["duplicates"], 0, "a commit was done again");
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_network_that_swallows_everything_is_given_up_and_loses_nothing() {
    let (mut scene, proxy) = Scene::behind_a_proxy(database::create_on_postgres());
    let daemon = scene.setup.start();
    let client = Listener::to(&daemon);
    scene.write(5);
    scene.wait_until_stored();

    proxy.swallow();
    scene.write(20);
    client.wait_for(scene.rows());
    // Longer than the limit of a commit, and than that of a new connection behind it.
    wait_until_degraded(&daemon, "no answer within");
    let failures = || daemon.status()["store"]["failures"].as_u64().unwrap();
    let first = failures();
    eventually("it is tried again", || failures() > first + 1);
    let (code, answer) = daemon.get("/v1/events?topic=fills");
    assert_eq!((code, &answer["code"]), (503, &"unavailable".into()));
    assert_eq!(daemon.get("/livez").0, 200);
    fill_the_budget(&mut scene, &daemon);

    proxy.pass();
    scene.assert_well(&daemon, &client);
    assert_eq!(daemon.get("/v1/events?topic=fills").0, 200);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_server_that_refuses_connections_is_waited_for() {
    let (mut scene, proxy) = Scene::behind_a_proxy(database::create_on_postgres());
    let daemon = scene.setup.start();
    let client = Listener::to(&daemon);
    scene.write(5);
    scene.wait_until_stored();

    proxy.refuse();
    scene.write(20);
    client.wait_for(scene.rows());
    wait_until_degraded(&daemon, "refused");
    fill_the_budget(&mut scene, &daemon);

    proxy.pass();
    scene.assert_well(&daemon, &client);
    assert_eq!(daemon.stop().code(), Some(0));
}

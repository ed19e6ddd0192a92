//! Connections that break: who resubscribes gets a new snapshot, and nothing is lost in between.

use std::net::SocketAddr;

use serde_json::Value;

use crate::{
    client::{Client, Sdk, port_of_the_rust_sdk},
    common::{node::ALICE, proxy::Proxy},
    feed::{Feed, Subscription},
    scene::{RUST_SDK, Scene},
};

/// Those that have a snapshot: what others miss is lost, with the official service too.
const WANTED: &[(u64, Feed, &str)] =
    &[(0, Feed::Fills, ALICE), (0, Feed::Fundings, ALICE), (0, Feed::Ledger, ALICE)];

/// Breaks the connection, goes on writing, and looks at what the client has in the end.
fn break_and_compare(
    scene: &mut Scene,
    client: &mut Client,
    made: &mut [Subscription],
    mend: impl FnOnce(&mut Scene),
) {
    let before: Vec<_> = made.iter().map(|one| client.messages(one.id).len()).collect();
    mend(scene);
    for (one, &before) in made.iter_mut().zip(&before) {
        client.wait("a new snapshot", |client| {
            let messages = client.messages(one.id);
            messages[before..].iter().any(|data| data["isSnapshot"] == true)
        });
        // Messages of the old connection may have come after the count.
        let news = client.messages(one.id)[before..].iter();
        let old = news.take_while(|data| data["isSnapshot"] != true).count();
        one.look_behind(before + old);
    }
    scene.chain.advance(10);
    scene.catch_up(client, &*made);
    for one in made {
        one.assert_complete(client, &scene.chain);
    }
}

fn reconnect(sdk: Sdk, address: SocketAddr) {
    let mut scene = Scene::new("");
    // The Rust SDK drops a whole snapshot for one ledger update that it does not know.
    scene.chain.odd_ledger = sdk != Sdk::Rust;
    let proxy = Proxy::at(address, scene.address());
    scene.chain.advance(30);
    scene.wait_stored();
    let mut client = Client::start(sdk, proxy.address, &Value::Null);
    let mut made = scene.subscribe(&mut client, WANTED);
    scene.catch_up(&mut client, &made);

    break_and_compare(&mut scene, &mut client, &mut made, |scene| {
        proxy.cut();
        scene.chain.advance(10);
    });
    // Another life of the daemon, at another port; the node goes on while nobody follows it.
    break_and_compare(&mut scene, &mut client, &mut made, |scene| {
        proxy.refuse();
        scene.stop_daemon();
        scene.chain.advance(10);
        scene.start_daemon();
        proxy.forward_to(scene.address());
        proxy.pass();
    });
}

#[test]
fn typescript_resubscribes_and_misses_nothing() {
    if Sdk::TypeScript.is_here() {
        reconnect(Sdk::TypeScript, ([127, 0, 0, 1], 0).into());
    }
}

#[test]
fn rust_resubscribes_and_misses_nothing() {
    if Sdk::Rust.is_here() {
        let _port = port_of_the_rust_sdk();
        reconnect(Sdk::Rust, RUST_SDK);
    }
}

//! Each type of subscription: a snapshot, then live without a repeat and without a hole, then nothing.

use serde_json::{Value, json};

use crate::{
    chain::CAROL,
    client::{Client, Sdk},
    common::node::{ALICE, BOB},
    feed::{Feed, Subscription},
    scene::Scene,
};

/// What is subscribed to over one connection. Those of Bob stay when those of Alice end. Clients cannot
/// tell whose an event of `userEvents` is.
const ALL: &[(u64, Feed, &str)] = &[
    (0, Feed::Events, ALICE),
    (0, Feed::Trades, ""),
    (0, Feed::Fills, ALICE),
    (0, Feed::Fundings, ALICE),
    (0, Feed::Ledger, ALICE),
    (0, Feed::Slices, ALICE),
    (0, Feed::Fills, BOB),
    (0, Feed::Fundings, BOB),
    (0, Feed::Ledger, BOB),
];

/// What this SDK offers of them.
fn offered(sdk: Sdk) -> Vec<(u64, Feed, &'static str)> {
    let offered = ALL.iter().filter(|(_, feed, _)| sdk == Sdk::TypeScript || *feed != Feed::Slices);
    offered.copied().collect()
}

/// The Python SDK looks a coin up before it subscribes to its trades.
pub fn knowing_the_coin() -> Value {
    json!({"meta": {"universe": [{"name": "BTC", "szDecimals": 5}]}})
}

/// From the first snapshot to the last unsubscribing.
fn live_and_die(scene: &mut Scene, client: &mut Client) {
    let wanted = offered(client.sdk);
    // The Rust SDK drops a whole snapshot for one ledger update that it does not know.
    scene.chain.odd_ledger = client.sdk != Sdk::Rust;
    scene.chain.advance(40);
    scene.wait_stored();
    let made = scene.subscribe(client, &wanted);
    scene.chain.odd_ledger = true;
    scene.chain.advance(40);
    scene.catch_up(client, &made);
    for subscription in &made {
        subscription.assert_complete(client, &scene.chain);
    }

    let (ending, staying): (Vec<_>, Vec<_>) =
        made.iter().zip(&wanted).partition(|(_, (_, _, user))| *user != BOB);
    for (subscription, _) in &ending {
        subscription.end(client);
    }
    // The Rust SDK sees no acknowledgement: this snapshot comes behind it.
    scene.subscribe(client, &[(0, Feed::Fills, CAROL)]);
    if client.sdk == Sdk::TypeScript {
        // It lets go of its listeners; the Python SDK complains of what nobody has asked for.
        client.call(json!({"do": "overhear", "transport": 0})).unwrap();
    }
    let before: Vec<_> = ending.iter().map(|(one, _)| client.messages(one.id).len()).collect();
    scene.chain.advance(40);
    scene.catch_up(client, staying.iter().map(|(subscription, _)| *subscription));
    for (subscription, _) in &staying {
        subscription.assert_complete(client, &scene.chain);
    }
    let after: Vec<_> = ending.iter().map(|(one, _)| client.messages(one.id).len()).collect();
    assert_eq!(before, after, "something came after it was unsubscribed from");
    for frame in client.others.iter().filter_map(|other| other.get("frame")) {
        let is_ended = frame["channel"] == "user" || frame["channel"] == "trades";
        assert!(!is_ended && frame["data"]["user"] != ALICE, "{frame}");
    }
}

#[test]
fn python_gets_snapshots_and_then_all_that_happens_until_it_unsubscribes() {
    if !Sdk::Python.is_here() {
        return;
    }
    let mut scene = Scene::new("");
    let mut client = scene.client(Sdk::Python, &knowing_the_coin());
    live_and_die(&mut scene, &mut client);
    client.call(json!({"do": "ping"})).unwrap();
    client.wait("a pong", |client| {
        client.others.iter().any(|other| other["frame"]["channel"] == "pong")
    });
    let errors = client.end();
    let mut errors = errors.iter().filter(|other| other["frame"]["channel"] == "error");
    assert_eq!(errors.next(), None);
}

#[test]
fn typescript_gets_snapshots_and_then_all_that_happens_until_it_unsubscribes() {
    if !Sdk::TypeScript.is_here() {
        return;
    }
    let mut scene = Scene::new("");
    let mut client = scene.client(Sdk::TypeScript, &Value::Null);
    live_and_die(&mut scene, &mut client);
    client.call(json!({"do": "ask", "transport": 0, "method": "ping"})).unwrap();
    let told = client.end().into_iter().filter(|told| told.get("frame").is_none());
    let told: Vec<_> = told.collect();
    assert_eq!(told, [json!({"transport": 0, "is": "open"})], "the connection was lost");
}

#[test]
fn rust_gets_snapshots_and_then_all_that_happens_until_it_unsubscribes() {
    if !Sdk::Rust.is_here() {
        return;
    }
    let mut scene = Scene::new("");
    let _stand_in = scene.stand_in();
    let mut client = scene.client(Sdk::Rust, &Value::Null);
    live_and_die(&mut scene, &mut client);
    // It says so of each frame that it cannot read; that of a type of update which it lacks is known.
    for told in client.end() {
        let told = told["log"].as_str().unwrap();
        assert!(told.contains("unknown variant `send`"), "{told}");
    }
}

/// `userEvents` says it in its own words, which the Rust SDK declares and does not find elsewhere.
fn liquidate(sdk: Sdk) {
    if !sdk.is_here() {
        return;
    }
    let mut scene = Scene::new("");
    let _stand_in = (sdk == Sdk::Rust).then(|| scene.stand_in());
    let mut client = scene.client(sdk, &json!({}));
    let made = scene.subscribe(&mut client, &[(0, Feed::Events, ALICE), (0, Feed::Fills, ALICE)]);
    scene.chain.liquidate(BOB);
    scene.chain.liquidate(ALICE);
    let liquidations = |client: &Client| -> Vec<Value> {
        let messages = client.messages(made[0].id).iter();
        messages.filter_map(|data| data.get("liquidation").cloned()).collect()
    };
    client.wait("the liquidation", |client| !liquidations(client).is_empty());
    let told = liquidations(&client);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0]["lid"].is_u64(), "{told:?}");
    assert_eq!(told[0]["liquidated_user"], ALICE);
    assert_eq!(told[0]["liquidated_ntl_pos"], "1500.250");
    assert_eq!(told[0]["liquidated_account_value"], "-0.10");
}

#[test]
fn python_is_told_of_a_liquidation() {
    liquidate(Sdk::Python);
}

#[test]
fn typescript_is_told_of_a_liquidation() {
    liquidate(Sdk::TypeScript);
}

#[test]
fn rust_is_told_of_a_liquidation() {
    liquidate(Sdk::Rust);
}

/// Partial fills of a crossing order in one block are one for who asks for it, in the snapshot and live.
fn aggregate(sdk: Sdk) {
    let mut scene = Scene::new("");
    scene.chain.advance(10);
    scene.wait_stored();
    let mut client = scene.client(sdk, &knowing_the_coin());
    let more = json!({"aggregateByTime": true});
    let mut combined = Subscription::ask_with(&mut client, 0, Feed::Fills, ALICE, &more);
    client.wait("the snapshot", |client| combined.is_made(client, &scene.chain));
    scene.chain.advance(10);
    let stream = Feed::Fills.streams()[0];
    let fills = scene.chain.expected(stream, ALICE);
    let mut orders: Vec<(Value, u64, usize)> = Vec::new();
    for fill in &fills {
        let size = thousandths(&fill["sz"]);
        match orders.iter_mut().find(|(oid, ..)| *oid == fill["oid"]) {
            Some((_, sum, count)) => (*sum, *count) = (*sum + size, *count + 1),
            None => orders.push((fill["oid"].clone(), size, 1)),
        }
    }
    assert!(orders.iter().any(|(.., count)| *count > 1));
    client.wait("the last order", |client| {
        let got = combined.received(client, stream);
        got.last().map(|fill| &fill["oid"]) == orders.last().map(|(oid, ..)| oid)
    });
    let got = combined.received(&client, stream);
    let got: Vec<_> = got.iter().map(|fill| (&fill["oid"], thousandths(&fill["sz"]))).collect();
    let expected: Vec<_> = orders.iter().map(|(oid, sum, _)| (oid, *sum)).collect();
    assert_eq!(got, expected);
}

/// A size of at most three decimal places, by no float.
fn thousandths(size: &Value) -> u64 {
    let (whole, rest) = size.as_str().unwrap().split_once('.').unwrap();
    format!("{whole}{rest:0<3}").parse().unwrap()
}

#[test]
fn python_gets_the_fills_of_an_order_as_one_when_it_asks_for_that() {
    if Sdk::Python.is_here() {
        aggregate(Sdk::Python);
    }
}

#[test]
fn typescript_gets_the_fills_of_an_order_as_one_when_it_asks_for_that() {
    if Sdk::TypeScript.is_here() {
        aggregate(Sdk::TypeScript);
    }
}

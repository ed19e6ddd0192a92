//! The native protocol on `/v1/ws`.

use std::time::Duration;

use nodecast::{
    event::Timestamp,
    router::{ledger::Gap, log::Notice},
};
use serde_json::json;

use crate::harness::*;

#[test]
fn hello_says_where_the_stream_stands_and_what_is_allowed() {
    let server = Server::start(|session| session.max_users = 12);
    let mut client = server.connect("/v1/ws");

    let hello = client.json();

    assert_eq!(hello["type"], "hello");
    assert_eq!(hello["version"], 1);
    assert_eq!((&hello["epoch"], &hello["run"]), (&json!("e"), &json!("f")));
    assert_eq!(hello["cursor"], "1.e.f.64");
    assert_eq!(hello["topics"], json!(["fills", "misc"]));
    assert_eq!(hello["limits"]["max_users"], 12);
    assert_eq!(hello["limits"]["max_requests"], 100);
    assert!(hello["server"].as_str().unwrap().starts_with("nodecast/"));
}

#[test]
fn an_event_frame_is_exactly_this() {
    let server = Server::start(|_| {});
    let mut client = server.native();
    let ack = client.ask(r#"{"type":"subscribe","id":"a","topic":"fills"}"#);
    assert_eq!(ack, json!({"type":"ack","id":"a","cursor":"1.e.f.64"}));

    server.append(vec![fill(7, ALICE, "BTC")]);

    assert_eq!(
        client.text(),
        format!(
            r#"{{"type":"event","topic":"fills","cursor":"1.e.f.65.fills-7","seq":101,"block":7,"index":0,"part":0,"time":1773532800000000,"user":"{ALICE}","late":false,"replayed":false,"data":{{"coin":"BTC","px":"1.10","side":"B","dir":"Open Long"}}}}"#
        )
    );
}

#[test]
fn a_subscription_starts_behind_the_cursor_of_its_ack_and_ends_with_that_of_unsubscribe() {
    let server = Server::start(|_| {});
    let mut client = server.native();
    server.append(vec![fill(1, ALICE, "BTC")]);
    client.ask(r#"{"type":"subscribe","id":"misc","topic":"misc"}"#);

    let ack = client.ask(r#"{"type":"subscribe","id":"a","topic":"fills"}"#);
    server.append(vec![fill(2, ALICE, "BTC")]);
    assert_eq!(ack["cursor"], "1.e.f.65.fills-1");
    assert_eq!(client.json()["block"], 2);

    let ack = client.ask(r#"{"type":"unsubscribe","id":"a"}"#);
    server.append(vec![fill(3, ALICE, "BTC"), misc(4, None)]);
    assert_eq!(ack["type"], "ack");
    assert_eq!(client.json()["block"], 4);
}

/// A shard without subscribers is woken by nobody, so it has to catch up when the first comes.
#[test]
fn the_first_subscription_starts_behind_what_was_appended_while_nobody_listened() {
    let server = Server::start(|_| {});
    let subscribe = r#"{"type":"subscribe","id":"a","topic":"fills"}"#;
    // On each shard somebody had listened, and left.
    for mut client in (0..8).map(|_| server.native()).collect::<Vec<_>>() {
        client.ask(subscribe);
    }
    server.settle();
    let mut clients: Vec<_> = (0..8).map(|_| server.native()).collect();
    server.append_unseen(vec![fill(1, ALICE, "BTC")], vec![]);

    for client in &mut clients {
        assert_eq!(client.ask(subscribe)["cursor"], "1.e.f.65.fills-1");
    }
    server.append(vec![fill(2, ALICE, "BTC")]);
    for client in &mut clients {
        assert_eq!(client.json()["block"], 2);
    }
}

#[test]
fn users_and_where_choose_and_an_event_comes_once() {
    let server = Server::start(|_| {});
    let mut client = server.native();
    let upper = ALICE.to_uppercase().replace("0X", "0x");
    client.ask(&format!(
        r#"{{"type":"subscribe","id":"a","topic":"fills","users":["{upper}"],"where":{{"coin":["BTC","ETH"],"side":"B"}}}}"#
    ));
    client.ask(r#"{"type":"subscribe","id":"b","topic":"fills","where":{"coin":"BTC"}}"#);
    let sold = event(FILLS, 4, 0, Some(ALICE), r#"{"coin":"ETH","side":"A"}"#);

    server.append(vec![
        fill(1, ALICE, "BTC"),
        fill(2, ALICE, "ETH"),
        fill(3, BOB, "ETH"),
        sold,
        fill(5, BOB, "BTC"),
        event(FILLS, 6, 0, Some(ALICE), r#"{"nothing":1}"#),
        fill(7, ALICE, "ETH"),
    ]);

    let blocks: Vec<_> = (0..4).map(|_| client.json()["block"].as_u64().unwrap()).collect();
    assert_eq!(blocks, [1, 2, 5, 7]);
    client.sync();
}

#[test]
fn list_shows_what_holds_as_subscribe_takes_it() {
    let server = Server::start(|_| {});
    let mut client = server.native();
    client.ask(r#"{"type":"subscribe","id":"b","topic":"misc"}"#);
    client.ask(&format!(
        r#"{{"type":"subscribe","id":"a","topic":"fills","users":["{ALICE}"],"where":{{"coin":"BTC"}}}}"#
    ));

    assert_eq!(
        client.ask(r#"{"type":"list","id":"q"}"#),
        json!({"type":"subscriptions","id":"q","subscriptions":[
            {"id":"a","topic":"fills","users":[ALICE],"where":{"coin":["BTC"]}},
            {"id":"b","topic":"misc"},
        ]})
    );
    assert_eq!(server.stats.sessions.subscriptions.get(), 2);
}

#[test]
fn ping_is_answered_with_its_id() {
    let server = Server::start(|_| {});
    let mut client = server.native();

    assert_eq!(client.ask(r#"{"type":"ping","id":"7"}"#), json!({"type":"pong","id":"7"}));
    assert_eq!(client.ask(r#"{"type":"ping"}"#), json!({"type":"pong"}));
}

#[test]
fn every_mistake_has_its_code_and_the_connection_stays() {
    let server = Server::start(|session| {
        session.max_subscriptions = 2;
        session.max_users = 1;
    });
    let mut client = server.native();
    client.ask(r#"{"type":"subscribe","id":"a","topic":"fills"}"#);
    let long_id = "x".repeat(129);
    let coins: Vec<_> = (0..1_001).map(|coin| format!("\"{coin}\"")).collect();
    let (coins, sides) = (coins.join(","), coins[..2].join(","));
    let values =
        |of: &str| format!(r#"{{"type":"subscribe","id":"q","topic":"fills","where":{of}}}"#);

    for (mistake, code, id) in [
        ("{", "invalid_json", None),
        ("", "invalid_json", None),
        (r#"["list"]"#, "invalid_frame", None),
        (r#""list""#, "invalid_frame", None),
        ("null", "invalid_frame", None),
        (r#"{"id":"q"}"#, "invalid_frame", None),
        (r#"{"type":["list"],"id":"q"}"#, "invalid_frame", None),
        (r#"{"type":"dance","id":"q"}"#, "unknown_type", Some("q")),
        (r#"{"type":"subscribe","id":"q","topic":"fill"}"#, "unknown_topic", Some("q")),
        (r#"{"type":"subscribe","id":"q"}"#, "invalid_frame", Some("q")),
        (r#"{"type":"subscribe","id":"q","topic":"fills","user":"x"}"#, "invalid_frame", Some("q")),
        (
            r#"{"type":"subscribe","id":"q","topic":"fills","users":["0x1"]}"#,
            "invalid_frame",
            Some("q"),
        ),
        (r#"{"type":"subscribe","id":"q","topic":"fills","users":[]}"#, "empty_list", Some("q")),
        (
            r#"{"type":"subscribe","id":"q","topic":"fills","where":{"px":"1"}}"#,
            "unknown_key",
            Some("q"),
        ),
        (
            r#"{"type":"subscribe","id":"q","topic":"fills","where":{"coin":1}}"#,
            "invalid_frame",
            Some("q"),
        ),
        (
            r#"{"type":"subscribe","id":"q","topic":"fills","where":{"coin":[]}}"#,
            "empty_list",
            Some("q"),
        ),
        (&values(&format!(r#"{{"dir":["x","{long_id}"]}}"#)), "value_too_long", Some("q")),
        (&values(&format!(r#"{{"coin":[{coins}]}}"#)), "too_many_values", Some("q")),
        (
            &values(&format!(r#"{{"coin":[{}],"side":[{sides}]}}"#, &coins[4..])),
            "too_many_values",
            Some("q"),
        ),
        (r#"{"type":"subscribe","id":"a","topic":"misc"}"#, "duplicate_id", Some("a")),
        (r#"{"type":"subscribe","id":"","topic":"misc"}"#, "invalid_id", None),
        (
            &format!(r#"{{"type":"subscribe","id":"{}","topic":"misc"}}"#, &long_id[2..]),
            "invalid_id",
            None,
        ),
        (
            &format!(
                r#"{{"type":"subscribe","id":"q","topic":"fills","users":["{ALICE}","{BOB}"]}}"#
            ),
            "too_many_users",
            Some("q"),
        ),
        (r#"{"type":"unsubscribe","id":"q"}"#, "unknown_id", Some("q")),
        // With its quotes it is as long as may be.
        (
            &format!(r#"{{"type":"unsubscribe","id":"{}"}}"#, &long_id[3..]),
            "unknown_id",
            Some(&long_id[3..]),
        ),
        (r#"{"type":"list","more":1}"#, "invalid_frame", None),
    ] {
        let error = client.ask(mistake);
        assert_eq!(error["type"], "error", "{mistake}: {error}");
        assert_eq!(error["code"], code, "{mistake}: {error}");
        assert_eq!(error.get("id").and_then(|id| id.as_str()), id, "{mistake}: {error}");
        let message = error["message"].as_str().unwrap();
        if code == "invalid_frame" && !mistake.starts_with('{') {
            assert_eq!(message, "a JSON object is expected", "{mistake}");
        }
        // Names of our own types are no help to anybody.
        assert!(!message.contains("struct") && !message.contains("variant"), "{message}");
    }

    client.ask(r#"{"type":"subscribe","id":"b","topic":"misc"}"#);
    let error = client.ask(r#"{"type":"subscribe","id":"c","topic":"misc"}"#);
    assert_eq!(error["code"], "too_many_subscriptions");
    let stats = &server.stats.sessions;
    assert_eq!((stats.refused_users.get(), stats.refused_subscriptions.get()), (1, 1));
    assert_eq!(stats.refused_values.get(), 2);
    let message = client.ask(r#"{"type":"subscribe","id":"q","topic":"fill"}"#)["message"].clone();
    assert_eq!(message, "unknown topic \"fill\": fills, misc are known");
    let message = client.ask(r#"{"type":"ping","more":1}"#)["message"].clone();
    assert!(message.as_str().unwrap().contains("unknown field `more`"), "{message}");
}

#[test]
fn heartbeats_carry_the_cursor_up_to_which_everything_was_sent() {
    let server = Server::start(|session| session.heartbeat_interval = Duration::from_millis(20));
    let mut client = server.native();
    client.ask(r#"{"type":"subscribe","id":"a","topic":"misc"}"#);

    server.append(vec![misc(1, None), fill(2, ALICE, "BTC")]);

    let mut seen_event = false;
    loop {
        let said = client.json();
        if said["type"] == "event" {
            seen_event = true;
        } else {
            assert_eq!(said["type"], "heartbeat");
            assert_eq!(said["lag_ms"], json!(null), "no node has written anything");
            if said["seq"] == 102 {
                assert_eq!(said["cursor"], "1.e.f.66.misc-1.fills-2");
                break;
            }
            assert_eq!(said["seq"], 100);
        }
    }
    assert!(seen_event, "the event comes before the heartbeat that covers it");
}

#[test]
fn gaps_are_told_to_the_subscribers_of_the_topic_before_what_follows() {
    let server = Server::start(|_| {});
    let (mut fills, mut others) = (server.native(), server.native());
    let mut older = server.connect("/ws");
    // Whatever the users: a hole concerns all who listen.
    fills.ask(&format!(
        r#"{{"type":"subscribe","id":"a","topic":"fills","users":["{ALICE}"],"where":{{"coin":"BTC"}}}}"#
    ));
    others.ask(r#"{"type":"subscribe","id":"a","topic":"misc"}"#);
    older.say(r#"{"action":"subscribe","event":"fill"}"#);
    older.sync();
    let gap = Gap { topic: FILLS, first: 5, last: 6, opened: Timestamp(1), closed: None };

    server.append_with(vec![fill(7, ALICE, "BTC")], vec![Notice::GapOpened(gap.clone())]);
    server.append_with(vec![misc(7, None)], vec![Notice::GapClosed(gap)]);

    assert_eq!(fills.text(), r#"{"type":"gap","topic":"fills","from":5,"to":6,"closed":false}"#);
    assert_eq!(fills.json()["block"], 7);
    assert_eq!(fills.text(), r#"{"type":"gap","topic":"fills","from":5,"to":6,"closed":true}"#);
    assert_eq!(others.json()["type"], "event");
    assert_eq!(older.json()["block"], 7);
    older.sync();
}

#[test]
fn at_shutdown_what_is_queued_comes_first_then_bye_then_the_close_frame() {
    let server = Server::start(|_| {});
    let mut client = server.native();
    client.ask(r#"{"type":"subscribe","id":"a","topic":"fills"}"#);
    server.append((0..100).map(|block| fill(block, ALICE, "BTC")).collect());
    server.wait_until("the events are queued", |stats| stats.sessions.frames_queued.get() == 102);

    std::thread::scope(|scope| {
        let closing = scope.spawn(|| server.close_all(PATIENCE));
        for block in 0..100 {
            assert_eq!(client.json()["block"], block);
        }
        let bye = client.json();
        assert_eq!((&bye["type"], &bye["code"]), (&json!("bye"), &json!(1001)));
        assert_eq!(bye["reason"], "server shutting down");
        assert!((1_000..5_000).contains(&bye["retry_after_ms"].as_u64().unwrap()));
        assert_eq!(client.closed(), (1001, "server shutting down".to_owned(), 0));
        drop(client);
        assert_eq!(closing.join().unwrap(), 0);
    });
    server.settle();
}

#[test]
fn many_events_in_one_batch_come_in_their_order_to_every_session() {
    // More than a turn, in one segment and in many.
    const COUNT: u64 = 3_000;
    let server = Server::start(|session| session.outbox_bytes = 8 << 20);
    let mut clients: Vec<_> = (0..4).map(|_| server.native()).collect();
    for client in &mut clients {
        client.ask(r#"{"type":"subscribe","id":"a","topic":"fills"}"#);
    }

    server.append((0..COUNT).map(|block| fill(block, ALICE, "BTC")).collect());
    (COUNT..2 * COUNT).for_each(|block| server.append(vec![fill(block, ALICE, "BTC")]));

    for client in &mut clients {
        for block in 0..2 * COUNT {
            let event = client.json();
            assert_eq!((&event["block"], &event["seq"]), (&json!(block), &json!(block + 101)));
        }
        client.sync();
    }
    drop(clients);
    server.settle();
}

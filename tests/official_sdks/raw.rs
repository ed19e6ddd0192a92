//! The protocol's own bytes, seen by no SDK.

use std::cmp::Reverse;

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    common::{Client, node::ALICE, receive, send},
    scene::Scene,
};

#[derive(Deserialize)]
struct Frame<'f> {
    #[serde(borrow)]
    data: Data<'f>,
}

#[derive(Deserialize)]
struct Data<'f> {
    #[serde(borrow)]
    fills: Vec<&'f RawValue>,
}

fn subscribe(client: &mut Client, subscription: &Value) {
    send(client, &json!({"method": "subscribe", "subscription": subscription}));
}

/// Reads frames until one of this channel comes, passing over others.
fn receive_channel(client: &mut Client, channel: &str) -> Value {
    loop {
        let frame = receive(client);
        if frame["channel"] == channel {
            return frame;
        }
        assert_ne!(frame["channel"], "error", "{frame}");
    }
}

/// The text of the next frame with fills, passing over others.
fn next_fills(client: &mut Client) -> String {
    loop {
        if let tungstenite::Message::Text(text) = client.read().unwrap()
            && text.contains("\"userFills\"")
            && text.contains("\"fills\"")
        {
            return text.to_string();
        }
    }
}

/// Alice's fills, the newest block first.
fn newest_texts(scene: &Scene) -> Vec<&str> {
    let mut texts: Vec<_> = scene.chain.fill_texts(ALICE).collect();
    texts
        .sort_by_key(|text| Reverse(serde_json::from_str::<Value>(text).unwrap()["time"].as_u64()));
    texts
}

#[test]
fn the_fill_that_a_client_gets_is_the_nodes_byte_by_byte() {
    let mut scene = Scene::new("");
    scene.chain.advance(20);
    scene.wait_stored();
    let mut client = scene.daemon().connect("/ws");
    subscribe(&mut client, &json!({"type": "userFills", "user": ALICE}));

    let snapshot = next_fills(&mut client);
    assert!(snapshot.contains(r#""isSnapshot":true"#), "{snapshot}");
    let got = serde_json::from_str::<Frame<'_>>(&snapshot).unwrap().data.fills;
    assert_eq!(got.iter().map(|fill| fill.get()).collect::<Vec<_>>(), newest_texts(&scene));

    let before = got.len();
    scene.chain.advance(20);
    let lives: Vec<_> = scene.chain.fill_texts(ALICE).skip(before).collect();
    let mut got = Vec::new();
    while got.len() < lives.len() {
        let frame = next_fills(&mut client);
        assert!(!frame.contains("isSnapshot"), "{frame}");
        let fills = serde_json::from_str::<Frame<'_>>(&frame).unwrap().data.fills;
        got.extend(fills.iter().map(|fill| fill.get().to_owned()));
    }
    assert_eq!(got, lives);

    scene.wait_stored();
    let url = format!("http://{}/info", scene.address());
    let asked = ureq::post(url).send_json(json!({"type": "userFills", "user": ALICE}));
    let answer = asked.unwrap().body_mut().read_to_string().unwrap();
    let got: Vec<&RawValue> = serde_json::from_str(&answer).unwrap();
    assert_eq!(got.iter().map(|fill| fill.get()).collect::<Vec<_>>(), newest_texts(&scene));
}

/// Clients compare the acknowledged object with their own; addresses they write in either case.
#[test]
fn a_subscription_is_acknowledged_with_the_whole_object_of_the_client() {
    let mut scene = Scene::new("");
    scene.chain.advance(5);
    scene.wait_stored();
    let mut client = scene.daemon().connect("/ws");
    let shouted = ALICE.to_uppercase().replace("0X", "0x");
    let subscription = json!({
        "type": "userFills", "user": shouted, "aggregateByTime": false,
        "fromTomorrow": {"list": [1, null, "\u{e9}\"{"]},
    });
    subscribe(&mut client, &subscription);
    let acknowledged = receive_channel(&mut client, "subscriptionResponse");
    assert_eq!(acknowledged["data"]["method"], "subscribe");
    assert_eq!(acknowledged["data"]["subscription"], subscription);
    let snapshot = receive_channel(&mut client, "userFills");
    assert_eq!(snapshot["data"]["user"], ALICE);

    send(&mut client, &json!({"method": "unsubscribe", "subscription": subscription}));
    let acknowledged = receive_channel(&mut client, "subscriptionResponse");
    assert_eq!(
        acknowledged["data"],
        json!({"method": "unsubscribe", "subscription": subscription})
    );
    send(&mut client, &json!({"method": "ping"}));
    assert_eq!(receive_channel(&mut client, "pong"), json!({"channel": "pong"}));
}

#[test]
fn what_is_no_request_is_answered_in_the_words_of_the_official_service() {
    let scene = Scene::new("");
    let mut client = scene.daemon().connect("/ws");
    send(&mut client, &json!({"method": "ping"}));
    receive_channel(&mut client, "pong");
    for text in ["nonsense", r#"{"method":"dance"}"#, r#"{"method":"subscribe"}"#, "[]", "7"] {
        client.send(tungstenite::Message::text(text)).unwrap();
        let frame = receive(&mut client);
        assert_eq!(frame["channel"], "error", "{text}");
        let said = format!("Error parsing JSON into valid websocket request: {text}");
        assert_eq!(frame["data"], said.as_str());
    }
    send(&mut client, &json!({"method": "ping"}));
    receive_channel(&mut client, "pong");
}

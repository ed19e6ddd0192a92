//! Sessions that are sent away while the server goes on.

use std::{collections::BTreeSet, time::Duration};

use nodecast::config::HttpConfig;
use serde_json::json;
use tungstenite::Message;

use crate::harness::{ALICE, Client, HANDSHAKE, Server, fill};

const HOUR: Duration = Duration::from_secs(3_600);

fn subscribed(server: &Server) -> Client {
    let mut client = server.native();
    assert_eq!(client.ask(r#"{"type":"subscribe","id":"a","topic":"fills"}"#)["type"], "ack");
    client
}

// T38
#[test]
fn sessions_are_sent_away_one_by_one_and_those_who_are_left_stay_when_it_is_cancelled() {
    const CLIENTS: usize = 150;
    let server = Server::start(|_| {});
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| subscribed(&server)).collect();

    server.sessions.drain(HOUR).unwrap();

    // The first of each worker; the next of them minutes later.
    let workers = HttpConfig::default().workers as u64;
    server.wait_until("it begins", |stats| stats.sessions.endings.draining.get() == workers);
    let refused = server.raw(HANDSHAKE);
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains(r#""code":"draining""#), "{refused}");
    let refused = refused.to_lowercase();
    let wait = refused.split("retry-after: ").nth(1).unwrap().split("\r\n").next().unwrap();
    assert!((5..=15).contains(&wait.parse::<u64>().unwrap()), "{wait}");
    assert_eq!(server.stats.sessions.refusals.draining.get(), 1);

    // Live as before, but for who was told.
    server.append(vec![fill(1, ALICE, "BTC")]);
    let mut told = 0;
    clients.retain_mut(|client| {
        let frame = client.json();
        if frame["type"] == "bye" {
            told += 1;
            assert_eq!(client.closed(), (1001, "server draining".to_owned(), 0));
        }
        frame["type"] == "event"
    });
    assert_eq!(told, workers);

    assert!(server.sessions.cancel_drain());
    clients.push(subscribed(&server));
    server.append(vec![fill(2, ALICE, "BTC")]);
    assert!(clients.iter_mut().all(|client| client.json()["block"] == 2));
    assert_eq!(server.stats.sessions.endings.draining.get(), workers);

    // Again, and faster while it lasts.
    server.sessions.drain(HOUR).unwrap();
    server.sessions.drain(Duration::from_millis(100)).unwrap();
    let waits: BTreeSet<_> = clients
        .iter_mut()
        .map(|client| {
            let bye = client.json();
            assert_eq!((&bye["type"], &bye["code"]), (&json!("bye"), &json!(1001)));
            bye["retry_after_ms"].as_u64().unwrap()
        })
        .collect();
    assert!(waits.len() > clients.len() / 2, "each has its own: {waits:?}");
    assert!(waits.iter().all(|wait| (1_000..5_000).contains(wait)), "{waits:?}");
    drop(clients);
    server.settle();
}

#[test]
fn clients_of_the_older_protocol_are_sent_away_as_at_a_stop() {
    let server = Server::start(|_| {});
    let mut client = server.connect("/ws");
    client.sync();

    server.sessions.drain(Duration::ZERO).unwrap();

    assert_eq!(client.closed(), (1000, "server shutting down".to_owned(), 0));
    drop(client);
    server.settle();
    // A stop in the middle of a drain is a stop.
    assert_eq!(server.close_all(Duration::ZERO), 0);
    assert!(!server.sessions.cancel_drain());
    assert!(server.raw(HANDSHAKE).contains(r#""code":"shutting_down""#));
}

// A place that is looked for keeps nobody: its client closes too, and is gone before one who does not.
#[test]
fn who_looks_for_his_place_is_sent_away_at_once() {
    let server = Server::start(|_| {});
    let places = server.take_searches();
    let mut silent = server.native();
    silent.say("no JSON");
    silent.socket.send(Message::binary(vec![1])).unwrap();
    server.wait_until("he is told to close", |stats| stats.sessions.bad_frames.get() > 0);
    let mut client = server.native();
    client.say(r#"{"type":"subscribe","id":"a","topic":"fills","from":{"block":1}}"#);
    server.wait_until("he looks", |stats| stats.sessions.searches.get() == 1);

    server.sessions.drain(Duration::ZERO).unwrap();

    assert_eq!(client.json()["type"], "bye");
    assert_eq!(client.closed(), (1001, "server draining".to_owned(), 0));
    // He answers it, and the search ends with him.
    while client.socket.read().is_ok() {}
    server.wait_until("he is gone", |stats| stats.sessions.searches.get() == 0);
    assert!(server.stats.sessions.open.get() > 0, "the silent one is waited for still");
    drop((places, silent));
    server.settle();
}

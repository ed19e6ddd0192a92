//! The places of those who read what has been from the store.

use std::time::Duration;

use nodecast::{config::HttpConfig, stats::Stats};
use serde_json::json;

use crate::{
    harness::{ALICE, FILLS, Server, event, fill},
    resume::{replay, subscribe},
};

#[test]
fn those_who_wait_for_a_place_at_the_store_all_get_one() {
    let server = Server::start_with_log(0, |session| session.max_replays = 1);
    server.append_unseen((1..=5).map(|block| fill(block, ALICE, "BTC")).collect(), vec![]);
    server.commit();
    let mut clients: Vec<_> = (0..20).map(|_| server.native()).collect();

    for client in &mut clients {
        client.say(r#"{"type":"subscribe","id":"a","topic":"fills","from":"oldest"}"#);
    }

    for client in &mut clients {
        assert_eq!(client.json()["type"], "ack");
        assert_eq!(replay(client).0, [1, 2, 3, 4, 5]);
    }
    assert_eq!(server.stats.sessions.replays.get(), 0);
    assert_eq!(server.stats.sessions.behind.get(), 0);
}

#[test]
fn who_takes_nothing_keeps_no_place_at_the_store() {
    let server = Server::start_with_log(0, |session| {
        session.max_replays = 1;
        session.outbox_bytes = 64 << 10;
        session.send_buffer_bytes = 16 << 10;
        session.stall_timeout = Duration::from_secs(3_600);
    });
    let body = format!(r#"{{"coin":"BTC","padding":"{}"}}"#, "x".repeat(2_000));
    let events = (1..=700).map(|block| event(FILLS, block, 0, Some(ALICE), &body)).collect();
    server.append_unseen(events, vec![]);
    server.commit();
    // One of each worker, in the middle of its first page.
    let workers = HttpConfig::default().workers;
    let stalled: Vec<_> = (0..workers)
        .map(|_| {
            let mut client = server.connect_small("/v1/ws");
            assert_eq!(client.json()["type"], "hello");
            client.say(r#"{"type":"subscribe","id":"a","topic":"fills","from":"oldest"}"#);
            client
        })
        .collect();
    let waits = |stats: &Stats| stats.sessions.outbox_bytes.get() as usize > workers * 20_000;
    server.wait_until("what is theirs waits", waits);

    // Others need a page that is not in memory.
    for _ in 0..workers {
        let mut client = server.native();
        subscribe(&mut client, json!({"block": 600}));
        assert!(replay(&mut client).0.into_iter().eq(600..=700));
    }

    assert_eq!(server.stats.sessions.behind.get(), workers as i64);
    drop(stalled);
    server.settle();
}

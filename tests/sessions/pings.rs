//! Pings of the server: who reads slowly, and who answers nothing.

use std::{io::Read, thread, time::Duration};

use crate::harness::*;

const EVENTS: u64 = 100;

/// A client that is behind by two megabytes, half of which are in its outbox. Pings are frequent.
fn behind_on_a_narrow_socket(pong_timeout: Duration) -> (Server, Client) {
    let server = Server::start(|session| {
        session.outbox_bytes = 1 << 20;
        session.send_buffer_bytes = 16 << 10;
        session.ping_interval = Duration::from_millis(100);
        session.pong_timeout = pong_timeout;
    });
    let mut client = server.connect_small("/v1/ws");
    assert_eq!(client.json()["type"], "hello");
    client.ask(r#"{"type":"subscribe","id":"a","topic":"fills"}"#);
    let body = format!(r#"{{"padding":"{}"}}"#, "x".repeat(20_000));
    server.append((0..EVENTS).map(|block| event(FILLS, block, 0, Some(ALICE), &body)).collect());
    server.wait_until("it is behind", |stats| stats.sessions.behind.get() == 1);
    (server, client)
}

// H34: a ping comes behind all that waits.
#[test]
fn who_reads_slowly_but_steadily_is_not_taken_for_dead() {
    const PONG_TIMEOUT: Duration = Duration::from_secs(2);
    let (server, mut slow) = behind_on_a_narrow_socket(PONG_TIMEOUT);

    // Twice the time in which a pong is expected, and no ping is among what is read by then.
    const STEPS: u32 = 16;
    for block in 0..EVENTS {
        if block < u64::from(STEPS) {
            thread::sleep(PONG_TIMEOUT * 2 / STEPS);
        }
        assert_eq!(slow.json()["block"], block);
    }

    assert_eq!(slow.ask(r#"{"type":"ping"}"#)["type"], "pong");
    assert_eq!(server.stats.sessions.ping_timeouts.get(), 0);
    drop(slow);
    server.settle();
}

// H34
#[test]
fn who_takes_everything_and_answers_nothing_ends() {
    let (server, mut silent) = behind_on_a_narrow_socket(Duration::from_millis(500));

    // Without its library, which would answer.
    let mut received = Vec::new();
    silent.socket.get_mut().read_to_end(&mut received).unwrap();

    let text = String::from_utf8_lossy(&received);
    assert_eq!(text.matches(r#""type":"event""#).count() as u64, EVENTS);
    assert!(text.contains(r#"{"type":"bye","code":4009,"#));
    server.settle();
    assert_eq!(server.stats.sessions.ping_timeouts.get(), 1);
}

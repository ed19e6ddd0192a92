//! Handshakes, frames, close codes, slow and dead clients.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use tungstenite::Message;

use nodecast::config::SessionConfig;

use crate::harness::*;

#[test]
fn handshakes_that_cannot_succeed_are_answered_in_http() {
    let server = Server::start(|session| session.max_sessions = 1);
    let handshake = |path: &str, version: &str, key: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        )
    };
    let key = "dGhlIHNhbXBsZSBub25jZQ==";

    for (request, status, code) in [
        (handshake("/other", "13", key), 404, "not_found"),
        (handshake("/ws", "8", key), 426, "bad_handshake"),
        (handshake("/v1/ws", "13", "short"), 400, "bad_handshake"),
        (handshake("/ws", "13", key).replace("GET", "POST"), 405, "bad_handshake"),
        (
            "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(),
            426,
            "upgrade_required",
        ),
    ] {
        let answer = server.raw(&request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}\n{answer}");
        assert!(answer.contains("cache-control: no-store"), "{answer}");
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], code, "{request}");
        assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()));
    }

    let first = server.native();
    let answer = server.raw(&handshake("/ws", "13", key));
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\"too_many_sessions\"") && answer.contains("retry-after"), "{answer}");
    drop(first);
    server.settle();
    server.native();
}

#[test]
fn a_client_that_never_ends_its_request_head_is_cut_off() {
    let server = Server::start(|_| {});

    let answer = server.raw("GET /ws HTTP/1.1\r\nHost: x\r\n");

    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn frames_that_come_together_with_the_handshake_are_not_lost() {
    let server = Server::start(|_| {});
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes =
        b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            .to_vec();
    bytes.extend_from_slice(b"\x81\x8f\0\0\0\0{\"type\":\"ping\"}");

    stream.write_all(&bytes).unwrap();

    let mut received = Vec::new();
    while !received.ends_with(b"{\"type\":\"pong\"}") {
        let mut chunk = [0; 1_024];
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&received));
        received.extend_from_slice(&chunk[..read]);
    }
    assert!(received.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
}

#[test]
fn fragments_with_control_frames_between_and_characters_across_them_are_joined() {
    let server = Server::start(|_| {});
    let mut client = server.native();
    let text = r#"{"type":"ping","id":"ä€𝄞"}"#.as_bytes();

    // Byte by byte: every character is cut.
    client.frame(false, 0x1, &text[..1]);
    for byte in &text[1..text.len() - 1] {
        client.frame(true, 0x9, b"between");
        client.frame(false, 0x0, &[*byte]);
    }
    client.frame(true, 0x0, &text[text.len() - 1..]);

    let mut pongs = 0;
    let reply = loop {
        match client.socket.read().unwrap() {
            Message::Pong(payload) => {
                assert_eq!(&payload[..], b"between");
                pongs += 1;
            }
            Message::Text(reply) => break reply,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reply.as_str(), r#"{"type":"pong","id":"ä€𝄞"}"#);
    assert_eq!(pongs, text.len() - 2);
}

#[test]
fn what_breaks_the_protocol_closes_with_its_code() {
    let server = Server::start(|session| session.max_frame_bytes = 100);

    let mut client = server.native();
    client.frame(true, 0x0, b"x");
    assert_eq!(bye(&mut client), 1002);

    let mut client = server.native();
    client.frame(true, 0x2, b"x");
    assert_eq!(bye(&mut client), 1003);

    let mut client = server.native();
    client.frame(false, 0x1, b"\xe2\x82");
    client.frame(true, 0x0, b"\xac\xff");
    assert_eq!(bye(&mut client), 1007);

    let mut client = server.native();
    client.frame(false, 0x1, &[b' '; 60]);
    client.frame(true, 0x0, &[b' '; 41]);
    assert_eq!(bye(&mut client), 1009);

    let mut client = server.native();
    // The header of a gigabyte is enough.
    client.socket.get_mut().write_all(b"\x81\xff\0\0\0\0\x40\0\0\0").unwrap();
    client.socket.get_mut().write_all(b"\0\0\0\0").unwrap();
    assert_eq!(bye(&mut client), 1009);

    server.settle();
    assert_eq!(server.stats.sessions.bad_frames.get(), 5);
}

/// Reads `bye` and the close frame, which have the same code.
fn bye(client: &mut Client) -> u16 {
    let bye = client.json();
    assert_eq!(bye["type"], "bye", "{bye}");
    assert!(bye["retry_after_ms"].is_null());
    let (code, _, texts) = client.closed();
    assert_eq!((bye["code"].as_u64(), texts), (Some(u64::from(code)), 0));
    code
}

#[test]
fn a_clients_close_frame_is_answered_with_its_own_code() {
    let server = Server::start(|_| {});
    let mut client = server.native();

    client.frame(true, 0x8, &4321_u16.to_be_bytes());

    assert_eq!(client.closed(), (4321, String::new(), 0));
    server.settle();
}

#[test]
fn a_client_that_vanishes_leaves_nothing_behind() {
    let server = Server::start(|_| {});
    let mut client = server.native();
    client.ask(r#"{"type":"subscribe","id":"a","topic":"fills"}"#);
    drop(client);
    server.settle();

    let mut other = server.native();
    other.ask(r#"{"type":"subscribe","id":"a","topic":"fills"}"#);
    server.append(vec![fill(1, ALICE, "BTC")]);

    assert_eq!(other.json()["block"], 1);
    drop(other);
    server.settle();
}

#[test]
fn a_client_that_stops_reading_is_closed_and_delays_nobody() {
    // H33.
    const EVENTS: u64 = 300;
    let server = Server::start(|session| {
        session.outbox_bytes = 256 << 10;
        session.send_buffer_bytes = 16 << 10;
        session.stall_timeout = Duration::from_millis(200);
    });
    let mut slow = server.connect_small("/v1/ws");
    let mut fast = server.native();
    for client in [&mut slow, &mut fast] {
        client.say(r#"{"type":"subscribe","id":"a","topic":"fills"}"#);
    }
    assert_eq!(slow.json()["type"], "hello");
    assert_eq!(slow.json()["type"], "ack");
    assert_eq!(fast.json()["type"], "ack");
    let body = format!(r#"{{"coin":"BTC","padding":"{}"}}"#, "x".repeat(20_000));

    let mut longest = Duration::ZERO;
    for block in 0..EVENTS {
        let appended = Instant::now();
        server.append(vec![event(FILLS, block, 0, Some(ALICE), &body)]);
        assert_eq!(fast.json()["block"], block);
        longest = longest.max(appended.elapsed());
    }

    assert!(longest < Duration::from_secs(2), "the fast client waited {longest:?}");
    server.wait_until("the slow one is found", |stats| stats.sessions.slow_consumers.get() == 1);
    // It is told so when it reads soon enough.
    let (code, reason, texts) = slow.closed();
    assert_eq!((code, reason.as_str()), (4008, "slow consumer"));
    assert!((texts as u64) < EVENTS, "what waited was dropped, but {texts} frames came");
    assert_eq!(fast.ask(r#"{"type":"ping"}"#)["type"], "pong");
    drop((slow, fast));
    server.settle();
    assert!(server.stats.sessions.frames_dropped.get() > 0);
}

#[test]
fn a_burst_beyond_the_outbox_reaches_a_client_that_reads_on() {
    // The last frames find room only because the first ones are written within the same turn.
    let server = Server::start(|session| {
        session.outbox_bytes = 100_000;
        session.send_buffer_bytes = 16 << 10;
    });
    let mut client = server.connect_small("/v1/ws");
    assert_eq!(client.json()["type"], "hello");
    client.ask(r#"{"type":"subscribe","id":"a","topic":"fills"}"#);
    let body = format!(r#"{{"padding":"{}"}}"#, "x".repeat(20_000));

    server.append((0..5).map(|block| event(FILLS, block, 0, Some(ALICE), &body)).collect());

    for block in 0..5 {
        assert_eq!(client.json()["block"], block);
    }
    assert_eq!(server.stats.sessions.slow_consumers.get(), 0);
}

#[test]
fn a_stalled_client_that_never_reads_again_is_cut_off_all_the_same() {
    // H33: nothing but the server's own timers ends this one.
    let server = Server::start(|session| {
        session.outbox_bytes = 64 << 10;
        session.send_buffer_bytes = 16 << 10;
        session.stall_timeout = Duration::from_millis(200);
    });
    let mut slow = server.connect_small("/v1/ws");
    slow.say(r#"{"type":"subscribe","id":"a","topic":"fills"}"#);
    server.wait_until("it is subscribed", |stats| stats.sessions.subscriptions.get() == 1);
    let body = format!(r#"{{"padding":"{}"}}"#, "x".repeat(20_000));

    for block in 0..100 {
        server.append(vec![event(FILLS, block, 0, Some(ALICE), &body)]);
    }

    server.settle();
    assert_eq!(server.stats.sessions.slow_consumers.get(), 1);
    drop(slow);
}

/// A wire that holds little, and how its client asks for much that `list` shows.
fn with_much_to_list(configure: impl FnOnce(&mut SessionConfig)) -> (Server, Client, String) {
    let server = Server::start(|session| {
        session.outbox_bytes = 64 << 10;
        session.send_buffer_bytes = 16 << 10;
        configure(session);
    });
    let users: Vec<_> = (0..15_000).map(|user| format!("\"0x{user:040x}\"")).collect();
    let users = users.join(",");
    let subscribe = format!(r#"{{"type":"subscribe","id":0,"topic":"fills","users":[{users}]}}"#);
    let mut client = server.connect_small("/v1/ws");
    assert_eq!(client.json()["type"], "hello");
    (server, client, subscribe)
}

/// In one write, so that they are read together.
fn say_together(client: &mut Client, texts: &[&str]) {
    for text in texts {
        client.socket.write(Message::text(*text)).unwrap();
    }
    client.socket.flush().unwrap();
}

#[test]
fn who_is_answered_more_than_the_outbox_holds_gets_all_of_it_and_is_heard_again() {
    let (server, mut client, subscribe) = with_much_to_list(|_| {});
    assert_eq!(client.ask(&subscribe)["type"], "ack");

    say_together(
        &mut client,
        &[r#"{"type":"list","id":1}"#, r#"{"type":"ping","id":2}"#, r#"{"type":"list","id":3}"#],
    );
    server.wait_until("much waits", |stats| stats.sessions.outbox_bytes.get() > 128 << 10);
    client.socket.send(Message::Ping("4".into())).unwrap();
    client.say(r#"{"type":"ping","id":5}"#);

    for id in [1, 2, 3] {
        assert_eq!(client.json()["id"], id);
        let waits = server.stats.sessions.outbox_bytes.get();
        assert!(waits < 1 << 20, "{waits} bytes, which is more than one list");
    }
    let pong = client.socket.read().unwrap();
    assert!(matches!(&pong, Message::Pong(payload) if &payload[..] == b"4"), "{pong:?}");
    assert_eq!(client.json()["id"], 5);
    assert_eq!(server.stats.sessions.slow_consumers.get(), 0);
}

#[test]
fn who_is_answered_and_takes_nothing_is_closed_by_the_stall_timeout_and_by_no_ping() {
    let (server, mut client, subscribe) = with_much_to_list(|session| {
        session.stall_timeout = Duration::from_secs(2);
        session.ping_interval = Duration::from_secs(1);
        session.pong_timeout = Duration::from_millis(100);
    });

    say_together(&mut client, &[&subscribe, r#"{"type":"list"}"#, r#"{"type":"ping"}"#]);

    server.settle();
    let stats = &server.stats.sessions;
    assert_eq!((stats.slow_consumers.get(), stats.ping_timeouts.get()), (1, 0));
    drop(client);
}

#[test]
fn a_dead_client_is_gone_within_ping_interval_and_pong_timeout() {
    // H34.
    const INTERVAL: Duration = Duration::from_secs(1);
    const TIMEOUT: Duration = Duration::from_secs(1);
    let server = Server::start(|session| {
        session.ping_interval = INTERVAL;
        session.pong_timeout = TIMEOUT;
    });
    // Before it connects, so that what is measured is never less than what the server counts.
    let started = Instant::now();
    let mut dead = server.native();
    let mut alive = server.native();

    // The one that lives reads, and so answers pings; the other does neither.
    let took = loop {
        match alive.socket.read().unwrap() {
            Message::Ping(_) => {}
            other => panic!("{other:?} for one that answers"),
        }
        let took = started.elapsed();
        if server.stats.sessions.ping_timeouts.get() > 0 {
            break took;
        }
        assert!(took < PATIENCE, "the dead one is still there");
    };

    assert!(took >= INTERVAL + TIMEOUT, "{took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(server.stats.sessions.ping_timeouts.get(), 1);
    // As it comes: a client library would answer the ping on a connection that is gone.
    let mut received = Vec::new();
    dead.socket.get_mut().read_to_end(&mut received).unwrap();
    let text = String::from_utf8_lossy(&received);
    assert!(text.contains(r#"{"type":"bye","code":4009,"reason":"ping timeout","#), "{text}");
    let mut close = vec![0x88, 14];
    close.extend_from_slice(&4009_u16.to_be_bytes());
    close.extend_from_slice(b"ping timeout");
    assert!(received.ends_with(&close), "{text}");
    assert_eq!(alive.ask(r#"{"type":"ping"}"#)["type"], "pong");
}

#[test]
fn the_ping_timeout_works_while_the_socket_is_stalled() {
    // H34, where a session that is polled by its socket would sleep for ever.
    let server = Server::start(|session| {
        session.outbox_bytes = 64 << 20;
        session.send_buffer_bytes = 16 << 10;
        session.ping_interval = Duration::from_millis(200);
        session.pong_timeout = Duration::from_millis(200);
    });
    let mut stalled = server.connect_small("/v1/ws");
    stalled.say(r#"{"type":"subscribe","id":"a","topic":"fills"}"#);
    server.wait_until("it is subscribed", |stats| stats.sessions.subscriptions.get() == 1);
    let body = format!(r#"{{"padding":"{}"}}"#, "x".repeat(20_000));

    server.append((0..100).map(|block| event(FILLS, block, 0, Some(ALICE), &body)).collect());

    server.settle();
    assert_eq!(server.stats.sessions.ping_timeouts.get(), 1);
    assert!(server.stats.sessions.frames_dropped.get() > 50);
    drop(stalled);
}

#[test]
fn who_says_too_much_in_a_minute_is_closed_and_told_when_to_come_back() {
    // M34
    let server = Server::start(|session| session.max_messages_per_minute = 5);
    let mut client = server.native();
    for _ in 0..5 {
        assert_eq!(client.ask(r#"{"type":"ping"}"#)["type"], "pong");
    }

    let bye = client.ask(r#"{"type":"ping"}"#);

    assert_eq!((&bye["type"], &bye["retry_after_ms"]), (&"bye".into(), &60_000.into()));
    assert_eq!(client.closed().0, 4011);

    let server = Server::start(|session| session.max_bytes_per_minute = 2_000);
    let mut client = server.native();
    client.say(&format!(r#"{{"type":"ping","filler":"{}"}}"#, "x".repeat(3_000)));
    assert_eq!(client.closed().0, 4011);
    assert_eq!(server.stats.sessions.endings.too_many.get(), 1);
}

#[test]
fn pongs_are_no_messages_as_our_own_pings_ask_for_them() {
    let server = Server::start(|session| session.max_messages_per_minute = 2);
    let mut client = server.native();
    for _ in 0..10 {
        client.socket.send(Message::Pong(bytes::Bytes::new())).unwrap();
    }

    assert_eq!(client.ask(r#"{"type":"ping"}"#)["type"], "pong");
}

#[test]
fn one_address_has_only_so_many_sessions_and_gets_its_places_back() {
    // M33
    let server = Server::start(|session| session.max_per_address = 2);
    let first = server.native();
    let _second = server.native();

    let answer = server.raw(HANDSHAKE);

    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert!(
        answer.contains("too_many_of_address") && answer.to_lowercase().contains("retry-after")
    );
    drop(first);
    server.wait_until("a place is free", |stats| stats.sessions.open.get() == 1);
    server.native();
}

//! Every limit on clients: what is refused, with which words, and where it is counted.

// The exception for tests does not cover the functions that tests share.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use common::{
    Client, PATIENCE, Setup, TestDaemon, eventually, get,
    raw::{Answer, HANDSHAKE, allow_files, ask, connect},
    receive, receive_type, send,
};
use serde_json::{Value, json};
use tungstenite::{Message, client::IntoClientRequest, http::HeaderValue, stream::MaybeTlsStream};

/// A daemon behind a proxy on this machine that names its users, and the port of its metrics.
fn start(config: &str) -> (Setup, TestDaemon, u16) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut setup = Setup::new();
    setup.config = format!("[http]\nmetrics_listen = \"127.0.0.1:{port}\"\n{config}");
    let daemon = setup.start();
    (setup, daemon, port)
}

const PROXY: &str = "trusted_proxies = [\"127.0.0.1\"]\nidentity_header = \"x-forwarded-user\"\n";

fn sample(metrics: u16, name: &str) -> u64 {
    let mut response = get(&format!("http://127.0.0.1:{metrics}/metrics")).call().unwrap();
    let page = response.body_mut().read_to_string().unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().unwrap()
}

fn refused(metrics: u16, reason: &str) -> u64 {
    sample(metrics, &format!("nodecast_sessions_refused_total{{reason=\"{reason}\"}}"))
}

/// A native session of who the proxy says.
fn session(daemon: &TestDaemon, headers: &[(&'static str, &'static str)]) -> Client {
    let url = format!("ws://127.0.0.1:{}/v1/ws", daemon.port);
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    let (client, _) = tungstenite::connect(request).unwrap();
    if let MaybeTlsStream::Plain(stream) = client.get_ref() {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    client
}

/// Asks for a session in all three ways.
fn ask_all(daemon: &TestDaemon, headers: &str) -> [Answer; 3] {
    [
        ask(daemon.port, &format!("{HANDSHAKE}{headers}")),
        ask(daemon.port, &format!("GET /v1/stream?topic=fills HTTP/1.1\r\n{headers}")),
        ask(daemon.port, &format!("GET /v1/poll?topic=fills HTTP/1.1\r\n{headers}")),
    ]
}

#[test]
fn sessions_are_limited_by_identity_by_address_and_in_all_whatever_their_transport() {
    // M33
    let config = format!(
        "{PROXY}[session]\nmax_per_identity = 1\nmax_per_address = 2\nmax_sessions = 3\n\
         heartbeat_interval = \"1h\"\n"
    );
    let (_setup, daemon, metrics) = start(&config);
    let ann = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-user", "ann")];
    let first = session(&daemon, &ann);
    let mut stream = connect(daemon.port);
    let request =
        "GET /v1/stream?topic=fills HTTP/1.1\r\nHost: n\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    eventually("both are open", || daemon.status()["sessions"]["open"] == 2);
    assert_eq!(daemon.status()["sessions"]["identities"], 1);

    let refuse = |headers: &str, status: u16, reason: &str| {
        for answer in ask_all(&daemon, headers) {
            assert_eq!(answer.code(), (status, reason));
            assert_eq!(answer.retry_after, Some(5));
        }
        assert_eq!(refused(metrics, reason), 3);
    };
    let ann_elsewhere = "X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-User: ann\r\n";
    refuse(ann_elsewhere, 429, "too_many_of_identity");
    refuse("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-User: bob\r\n", 429, "too_many_of_address");
    let bob = session(&daemon, &[("x-forwarded-for", "192.0.2.2"), ("x-forwarded-user", "bob")]);
    refuse("X-Forwarded-For: 192.0.2.3\r\n", 503, "too_many_sessions");

    // What is given back is free.
    drop((first, stream, bob));
    eventually("all are gone", || daemon.status()["sessions"]["open"] == 0);
    drop(session(&daemon, &ann));
}

#[test]
fn an_identity_that_a_client_states_itself_is_not_believed() {
    let config =
        "identity_header = \"x-forwarded-user\"\n[session]\nmax_per_identity = 1\n".to_owned();
    let (_setup, daemon, _) = start(&config);
    let ann = [("x-forwarded-user", "ann")];

    let _both = (session(&daemon, &ann), session(&daemon, &ann));

    assert_eq!(daemon.status()["sessions"]["identities"], 0);
}

/// Reads to the close frame and gives its code.
fn closed(client: &mut Client) -> u16 {
    loop {
        if let Message::Close(frame) = client.read().unwrap() {
            return frame.unwrap().code.into();
        }
    }
}

#[test]
fn what_one_session_asks_for_and_says_is_limited_and_with_an_identity_over_all_its_sessions() {
    // M34 M35
    let config = format!(
        "{PROXY}[session]\nmax_subscriptions = 2\nmax_users = 3\n\
         max_users_per_subscription = 2\nmax_messages_per_minute = 6\n\
         max_bytes_per_minute = \"4KiB\"\nmax_frame_bytes = \"1KiB\"\n"
    );
    let (_setup, daemon, metrics) = start(&config);
    let ending = |reason: &str, code: &str| {
        let labels = format!("reason=\"{reason}\",code=\"{code}\"");
        sample(metrics, &format!("nodecast_session_endings_total{{{labels}}}"))
    };
    let of_session = |reason: &str| {
        sample(metrics, &format!("nodecast_session_refusals_total{{reason=\"{reason}\"}}"))
    };

    let mut client = session(&daemon, &[]);
    receive_type(&mut client, "hello");
    let users: Vec<_> = (0..3).map(|user| format!("0x{user:040x}")).collect();
    send(&mut client, &json!({"type": "subscribe", "id": 1, "topic": "fills", "users": users}));
    assert_eq!(receive(&mut client)["code"], "too_many_users_of_subscription");
    let path = format!("/v1/poll?topic=fills&user={}", users.join("&user="));
    assert_eq!(daemon.get(&path).0, 400);
    assert_eq!(of_session("too_many_users_of_subscription"), 2);
    let coins: String = (0..1_001).map(|coin| format!("&coin={coin}")).collect();
    assert_eq!(daemon.get(&format!("/v1/poll?topic=fills{coins}")).0, 400);
    assert_eq!(of_session("too_many_values"), 1);
    // A stream of both topics has two subscriptions, and each names both users.
    let path = format!("/v1/stream?user={}", users[..2].join("&user="));
    assert_eq!(daemon.get(&path).0, 400);
    let mut subscribe = |id: u64, users: &[String]| {
        send(
            &mut client,
            &json!({"type": "subscribe", "id": id, "topic": "fills", "users": users}),
        );
        receive(&mut client)
    };
    assert_eq!(subscribe(1, &users[..2])["type"], "ack");
    assert_eq!(subscribe(2, &users[..2])["code"], "too_many_users");
    assert_eq!(of_session("too_many_users"), 2);
    assert_eq!(subscribe(2, &users[..1])["type"], "ack");
    assert_eq!(subscribe(3, &users[..1])["code"], "too_many_subscriptions");
    assert_eq!(of_session("too_many_subscriptions"), 1);
    let ping = |bytes: usize| Message::text(format!("{{\"type\":\"ping\"{:bytes$}}}", ""));
    client.send(ping(2_000)).unwrap();
    assert_eq!(closed(&mut client), 1009);
    assert_eq!(ending("too_big", "1009"), 1);

    // Six messages of both together, and then one of each is too many.
    let ann = [("x-forwarded-user", "ann")];
    let mut both = [session(&daemon, &ann), session(&daemon, &ann)];
    for turn in 0..6 {
        let client = &mut both[turn % 2];
        send(client, &json!({"type": "ping"}));
        receive_type(client, "pong");
    }
    for client in &mut both {
        send(client, &json!({"type": "ping"}));
        assert_eq!(closed(client), 4011);
    }
    assert_eq!(ending("too_many", "4011"), 2);

    // Bytes too, of who has no identity by itself.
    let mut other = session(&daemon, &[]);
    for _ in 0..4 {
        other.send(ping(900)).unwrap();
        receive_type(&mut other, "pong");
    }
    other.send(ping(900)).unwrap();
    assert_eq!(closed(&mut other), 4011);
    assert_eq!(ending("too_many", "4011"), 3);
}

/// Reads to the end of a connection that the server ends; gives the first line.
fn end_of(mut socket: TcpStream) -> String {
    let mut said = Vec::new();
    match socket.read_to_end(&mut said) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}"),
    }
    String::from_utf8(said).unwrap().lines().next().unwrap_or_default().to_owned()
}

fn too_slow(metrics: u16) -> u64 {
    sample(metrics, "nodecast_http_connections_refused_total{reason=\"request_timeout\"}")
}

#[test]
fn a_thousand_clients_that_ask_for_nothing_keep_nobody_out_and_are_ended() {
    const SILENT: usize = 1_000;
    allow_files();
    let (_setup, daemon, metrics) = start("request_timeout = \"3s\"\n");
    let mut silent: Vec<_> = (0..SILENT).map(|_| connect(daemon.port)).collect();
    for socket in silent.iter_mut().step_by(2) {
        socket.write_all(&HANDSHAKE.as_bytes()[..HANDSHAKE.len() / 2]).unwrap();
    }
    let is_full = || sample(metrics, "nodecast_http_connections") >= SILENT as u64;
    eventually("all are there", is_full);

    let mut client = daemon.subscribe("fills");
    assert_eq!(daemon.get("/livez").0, 200);
    assert!(is_full(), "while they were there");

    for socket in silent {
        assert!(end_of(socket).starts_with("HTTP/1.1 408"));
    }
    assert_eq!(too_slow(metrics), SILENT as u64);
    eventually("their places are free", || sample(metrics, "nodecast_http_connections") < 10);
    // A session is none of them.
    send(&mut client, &json!({"type": "ping"}));
    receive_type(&mut client, "pong");
}

/// Says one byte at a time until the connection ends; gives how it ended.
fn dribble(socket: TcpStream, bytes: &[u8]) -> String {
    let mut writing = socket.try_clone().unwrap();
    thread::scope(|scope| {
        let reading = scope.spawn(|| end_of(socket));
        for byte in bytes {
            if reading.is_finished() || writing.write_all(&[*byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        reading.join().unwrap()
    })
}

#[test]
fn a_request_that_comes_byte_by_byte_is_ended_be_it_the_first_a_later_one_or_its_body() {
    let (_setup, daemon, metrics) = start("request_timeout = \"500ms\"\n");
    let endless = format!("{HANDSHAKE}X-Filler: {}", "x".repeat(10_000));
    let livez = "GET /livez HTTP/1.1\r\nHost: n\r\n\r\n";

    let start = Instant::now();
    assert!(dribble(connect(daemon.port), endless.as_bytes()).starts_with("HTTP/1.1 408"));
    assert_eq!(too_slow(metrics), 1);

    // A later one on a connection that is kept open, which HTTP itself does not watch.
    let mut socket = connect(daemon.port);
    socket.write_all(livez.as_bytes()).unwrap();
    assert!(dribble(socket, endless.as_bytes()).starts_with("HTTP/1.1 200"));
    assert_eq!(too_slow(metrics), 2);

    let mut socket = connect(daemon.port);
    let post = "POST /events HTTP/1.1\r\nHost: n\r\nContent-Length: 10000\r\n\r\n";
    socket.write_all(post.as_bytes()).unwrap();
    assert!(dribble(socket, endless.as_bytes()).starts_with("HTTP/1.1 408"));
    assert_eq!(too_slow(metrics), 3);
    // Each of them would have taken 200 seconds.
    assert!(start.elapsed() < PATIENCE);

    // Who is only slow between two requests is not one of them.
    let mut socket = connect(daemon.port);
    for _ in 0..2 {
        socket.write_all(livez.as_bytes()).unwrap();
        let mut answer = [0; 4_096];
        let read = socket.read(&mut answer).unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
        thread::sleep(Duration::from_millis(700));
    }
    assert_eq!(too_slow(metrics), 3);
}

#[test]
fn connections_that_are_no_sessions_are_limited_and_the_others_are_not_among_them() {
    let (_setup, daemon, metrics) =
        start("max_connections = 3\nrequest_timeout = \"60s\"\n[session]\nmax_sessions = 6\n");
    // Sessions of every kind, more than that.
    let _sessions: Vec<_> = (0..3).map(|_| daemon.subscribe("fills")).collect();
    let mut feeds: Vec<_> = (0..3).map(|_| connect(daemon.port)).collect();
    for (number, socket) in feeds.iter_mut().enumerate() {
        let kind = if number == 0 { "poll" } else { "stream" };
        let request = format!("GET /v1/{kind}?topic=fills&timeout=60s HTTP/1.1\r\nHost: n\r\n\r\n");
        let request = if number == 0 { request } else { request.replace("&timeout=60s", "") };
        socket.write_all(request.as_bytes()).unwrap();
        eventually("it is a session", || {
            daemon.status()["sessions"]["open"].as_u64() == Some(4 + number as u64)
        });
    }
    // Those that asked for the status: one that is still there would take the place of one to come.
    eventually("the others are gone", || sample(metrics, "nodecast_http_connections") == 0);
    let mut silent: Vec<_> = (0..3).map(|_| connect(daemon.port)).collect();
    eventually("they are there", || sample(metrics, "nodecast_http_connections") == 3);

    for head in ["GET /livez HTTP/1.1\r\n", HANDSHAKE] {
        let answer = ask(daemon.port, head);
        assert_eq!(answer.code(), (503, "too_many_connections"), "{answer:?}");
        assert_eq!(answer.retry_after, Some(5));
    }
    let counter = "nodecast_http_connections_refused_total{reason=\"too_many_connections\"}";
    assert_eq!(sample(metrics, counter), 2);
    // Who says nothing is told as well.
    let mut told = String::new();
    connect(daemon.port).read_to_string(&mut told).unwrap();
    assert!(
        told.starts_with("HTTP/1.1 503 ") && told.contains("cache-control: no-store"),
        "{told}"
    );

    drop(silent.pop());
    eventually("a place is free", || ask(daemon.port, "GET /livez HTTP/1.1\r\n").status == 200);
    // A stream that ends gives its connection back to the others: it is idle then.
    drop(feeds);
    eventually("their sessions are free", || daemon.status()["sessions"]["open"] == 3);
    let status: Value = daemon.status();
    assert_eq!(status["sessions"]["opened"], 6);
    // The places of sessions are for those who may be about to become some.
    let _more: Vec<_> = (0..3).map(|_| connect(daemon.port)).collect();
    assert_eq!(ask(daemon.port, "GET /livez HTTP/1.1\r\n").status, 200);
}

#[test]
fn a_connection_whose_poll_was_answered_is_one_of_the_others_again() {
    let (_setup, daemon, metrics) = start("");
    let mut socket = connect(daemon.port);
    for _ in 0..2 {
        let request = b"GET /v1/poll?topic=fills&timeout=0s HTTP/1.1\r\nHost: n\r\n\r\n";
        socket.write_all(request).unwrap();
        let (mut answer, mut chunk) = (Vec::new(), [0; 1_024]);
        while !answer.ends_with(b"\"}") {
            let read = socket.read(&mut chunk).unwrap();
            assert!(read > 0, "the connection stays");
            answer.extend_from_slice(&chunk[..read]);
        }
        eventually("it is counted", || sample(metrics, "nodecast_http_connections") == 1);
    }
}

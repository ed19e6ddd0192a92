//! Promise 4: one client's slowness is its own.
//!
//! Clients that never read are connected to the real daemon while events of 20 KB are written in
//! lockstep: the next block is written when every other client has the last one. So a daemon that
//! waits for a slow client stops these tests, without any measured time.

// The exception for tests does not cover the functions that tests share.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Instant,
};

use common::{
    Client, PATIENCE, Setup, TestDaemon, database, eventually,
    node::{ALICE, Kind, append, fill, line},
    receive, receive_type, send,
};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tungstenite::{Message, WebSocket, protocol::frame::coding::CloseCode};

const DAY: u32 = 20_260_315;

/// Length of one event on the wire, and a little more.
const EVENT_BYTES: usize = 20_000;

/// Far more than the sockets' buffers and the outbox of one session hold together.
const EVENTS: u64 = 200;

/// A stalled client is to be late by few events, so that it is soon evicted.
const CONFIG: &str = "[session]\noutbox_bytes = \"1MiB\"\nsend_buffer_bytes = \"64KiB\"\n\
    stall_timeout = \"1s\"\n";

/// Of the close code table: the client was too slow.
const SLOW_CONSUMER: CloseCode = CloseCode::Library(4008);

/// What differs between the two protocols.
#[derive(Clone, Copy)]
struct Protocol {
    path: &'static str,
    subscribe: &'static str,
    /// Whether a subscription is acknowledged.
    acknowledges: bool,
}

const NATIVE: Protocol = Protocol {
    path: "/v1/ws",
    subscribe: r#"{"type":"subscribe","id":"all","topic":"fills"}"#,
    acknowledges: true,
};

const OLDER: Protocol = Protocol {
    path: "/ws",
    subscribe: r#"{"action":"subscribe","event":"fill"}"#,
    acknowledges: false,
};

impl Protocol {
    /// The block of an event; `None` for other frames.
    fn block(self, frame: &Value) -> Option<u64> {
        let event = if self.acknowledges { &frame["type"] } else { &frame["event"] };
        (event == "event" || event == "fill").then(|| frame["block"].as_u64().unwrap())
    }

    fn subscribe(self, daemon: &TestDaemon) -> Client {
        let mut client = daemon.connect(self.path);
        send(&mut client, &serde_json::from_str(self.subscribe).unwrap());
        if self.acknowledges {
            receive_type(&mut client, "ack");
        }
        client
    }

    /// Subscribes on a socket that takes little, and is not read afterwards.
    fn subscribe_and_stall(self, daemon: &TestDaemon) -> WebSocket<TcpStream> {
        let stream = narrow(daemon);
        let url = format!("ws://127.0.0.1:{}{}", daemon.port, self.path);
        let (mut client, _response) = tungstenite::client(url, stream).unwrap();
        client.send(Message::text(self.subscribe)).unwrap();
        client
    }

    /// Reads the next event, which has to be of this block and whole.
    fn expect(self, client: &mut Client, block: u64) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let frame = receive(client);
            if let Some(received) = self.block(&frame) {
                assert_eq!(received, block, "an event is missing, repeated or out of order");
                assert_eq!(frame["data"]["note"].as_str().unwrap().len(), EVENT_BYTES);
                return;
            }
        }
        panic!("block {block} does not come");
    }
}

/// A connection that takes little.
fn narrow(daemon: &TestDaemon) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Before the connection, because the window is agreed upon then.
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], daemon.port)).into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A line with one event of 20 KB.
fn long_line(block: u64) -> String {
    let mut fill = fill(ALICE, "BTC", block);
    fill[1]["note"] = Value::String("x".repeat(EVENT_BYTES));
    line(block, &json!([fill])) + "\n"
}

fn session_figure(daemon: &TestDaemon, figure: &str) -> i64 {
    daemon.status()["sessions"][figure].as_i64().unwrap()
}

fn await_subscriptions(daemon: &TestDaemon, count: i64) {
    eventually("all are subscribed", || session_figure(daemon, "subscriptions") == count);
}

/// Reads until the connection ends. Gives the blocks that came and the code of the close frame.
fn read_to_the_end(
    protocol: Protocol,
    client: &mut WebSocket<TcpStream>,
) -> (Vec<u64>, Option<CloseCode>) {
    let (mut blocks, mut code) = (Vec::new(), None);
    loop {
        match client.read() {
            Ok(Message::Text(text)) => {
                let frame = serde_json::from_str(&text).unwrap();
                blocks.extend(protocol.block(&frame));
            }
            Ok(Message::Close(frame)) => code = frame.map(|frame| frame.code),
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) => {
                let timed_out = error.kind() == std::io::ErrorKind::WouldBlock;
                assert!(!timed_out, "the slow client's connection stays open");
                return (blocks, code);
            }
            Err(_ended) => return (blocks, code),
        }
    }
}

/// Whether these are 1, 2, 3 and so on.
fn is_a_prefix(blocks: &[u64]) -> bool {
    blocks.iter().copied().eq((1..).take(blocks.len()))
}

/// One client that never reads beside one that does.
fn a_stalled_client_is_closed_alone(protocol: Protocol) {
    let mut setup = Setup::new();
    setup.config = CONFIG.to_owned();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    let mut reader = protocol.subscribe(&daemon);
    await_subscriptions(&daemon, 1);
    let mut stalled = protocol.subscribe_and_stall(&daemon);
    await_subscriptions(&daemon, 2);

    // The reader gets each event before the next is written: while the stalled one's socket takes
    // it, while its outbox fills, when it is closed, and afterwards.
    let mut rounds_with_a_full_socket = 0;
    let mut round = |block| {
        append(&mut file, &long_line(block));
        protocol.expect(&mut reader, block);
        let sessions = &daemon.status()["sessions"];
        if sessions["slow_consumers"] == 0 {
            let waits = sessions["outbox_bytes"].as_i64().unwrap() >= EVENT_BYTES as i64;
            rounds_with_a_full_socket += u64::from(waits);
        }
    };
    (1..EVENTS).for_each(&mut round);
    eventually("it is closed", || session_figure(&daemon, "slow_consumers") == 1);
    round(EVENTS);

    let sessions = &daemon.status()["sessions"];
    assert!(rounds_with_a_full_socket >= 20, "it was closed after {rounds_with_a_full_socket}");
    let outbox_limit = 1 << 20;
    assert!(sessions["outbox_bytes"].as_i64().unwrap() < outbox_limit, "{sessions}");
    // It wakes up at once: what it gets is what was sent, in order, and why nothing more comes.
    let (blocks, code) = read_to_the_end(protocol, &mut stalled);
    assert!(is_a_prefix(&blocks), "{blocks:?}");
    assert!((blocks.len() as u64) < EVENTS, "it was not slow");
    assert_eq!(code, Some(SLOW_CONSUMER));
    eventually("the store has all", || {
        daemon.status()["store"]["inserted"].as_u64() == Some(EVENTS)
    });
    assert_eq!(session_figure(&daemon, "open"), 1);
    let sessions = &daemon.status()["sessions"];
    let count = |figure: &str| sessions[figure].as_u64().unwrap();
    assert!(count("frames_dropped") > 0, "{sessions}");
    assert_eq!(
        count("frames_queued"),
        count("frames_sent") + count("frames_dropped"),
        "{sessions}"
    );
    assert_eq!(daemon.stop().code(), Some(0));
    assert_eq!(database::rows(&setup.database()).len() as u64, EVENTS);
}

// H33
#[test]
fn a_stalled_client_of_the_native_protocol_is_closed_alone() {
    a_stalled_client_is_closed_alone(NATIVE);
}

// H33
#[test]
fn a_stalled_client_of_the_older_protocol_is_closed_alone() {
    a_stalled_client_is_closed_alone(OLDER);
}

// H33: no client has to read to be rid of.
#[test]
fn a_client_that_never_wakes_up_is_cut_off() {
    let mut setup = Setup::new();
    setup.config = CONFIG.to_owned();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    let mut stalled = NATIVE.subscribe_and_stall(&daemon);
    await_subscriptions(&daemon, 1);

    for block in 1..=EVENTS {
        append(&mut file, &long_line(block));
    }

    eventually("its session is closed", || session_figure(&daemon, "closed") == 1);
    assert_eq!(session_figure(&daemon, "slow_consumers"), 1);
    eventually("its operator is told which", || {
        let log = daemon.log();
        let mut lines = log.lines().filter(|line| line.contains("client is sent away"));
        lines.any(|line| line.contains("slow consumer") && line.contains("127.0.0.1"))
    });
    assert_eq!(session_figure(&daemon, "subscriptions"), 0);
    assert_eq!(session_figure(&daemon, "outbox_bytes"), 0);
    // Though it reads nothing: the kernel holds nothing for it any more.
    eventually("its connection is reset", || stalled.get_ref().take_error().unwrap().is_some());
    let (blocks, code) = read_to_the_end(NATIVE, &mut stalled);
    assert!(is_a_prefix(&blocks) && (blocks.len() as u64) < EVENTS, "{blocks:?}");
    assert_eq!(code, None, "nobody had made room for a close frame");
}

#[test]
fn who_takes_nothing_of_an_answer_is_cut_off() {
    let mut setup = Setup::new();
    setup.config = "[http]\nwrite_timeout = \"500ms\"\n".to_owned();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    (1..=EVENTS).for_each(|block| append(&mut file, &long_line(block)));
    eventually("the store has all", || {
        daemon.status()["store"]["inserted"].as_u64() == Some(EVENTS)
    });

    let asked = ["/v1/events?limit=200", "/v1/events", "/v1/poll?cursor=oldest&limit=200"];
    let stalled = asked.map(|path| {
        let accept = if path == "/v1/events" { "application/x-ndjson" } else { "*/*" };
        let mut stream = narrow(&daemon);
        let request = format!("GET {path} HTTP/1.1\r\nHost: nodecast\r\nAccept: {accept}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    });

    for (path, stream) in asked.iter().zip(&stalled) {
        eventually(path, || stream.take_error().unwrap().is_some());
    }
    eventually("nothing is held for them", || {
        let status = daemon.status();
        status["sessions"]["open"] == 0 && status["exports_open"] == 0
    });
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let mut setup = Setup::new();
    setup.config = "[http]\nrequest_timeout = \"300ms\"\n".to_owned();
    let daemon = setup.start();
    let mut stream = narrow(&daemon);
    let head = "POST /events HTTP/1.1\r\nHost: nodecast\r\nContent-Length: 100\r\n\r\n{";

    stream.write_all(head.as_bytes()).unwrap();

    let mut answer = [0; 256];
    let read = stream.read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

// H33: with many of both sorts, in both protocols, on every worker.
#[test]
fn many_readers_keep_their_pace_beside_many_stalled_clients() {
    const OF_EACH: usize = 8;
    let mut setup = Setup::new();
    setup.config = CONFIG.to_owned();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    let protocols = [NATIVE, OLDER].repeat(OF_EACH);
    let readers: Vec<_> = protocols.iter().map(|&p| (p, p.subscribe(&daemon))).collect();
    await_subscriptions(&daemon, readers.len() as i64);
    let (told, blocks) = std::sync::mpsc::channel();
    let readers: Vec<_> = readers
        .into_iter()
        .map(|(protocol, mut client)| {
            let told = told.clone();
            thread::spawn(move || {
                for block in 1..=EVENTS {
                    protocol.expect(&mut client, block);
                    told.send(block).unwrap();
                }
                client
            })
        })
        .collect();
    // A phase without slow clients, then the same with them.
    let mut write_in_lockstep = |from: u64, to: u64| {
        for block in from..=to {
            append(&mut file, &long_line(block));
            for _ in 0..protocols.len() {
                assert_eq!(blocks.recv_timeout(PATIENCE), Ok(block));
            }
        }
    };
    write_in_lockstep(1, EVENTS / 4);
    assert_eq!(session_figure(&daemon, "slow_consumers"), 0);
    let stalled: Vec<_> = protocols.iter().map(|p| p.subscribe_and_stall(&daemon)).collect();
    await_subscriptions(&daemon, 2 * protocols.len() as i64);

    write_in_lockstep(EVENTS / 4 + 1, EVENTS);

    let clients: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    eventually("the others are closed", || {
        session_figure(&daemon, "slow_consumers") == stalled.len() as i64
    });
    eventually("the store has all", || {
        daemon.status()["store"]["inserted"].as_u64() == Some(EVENTS)
    });
    eventually("only the readers stay", || session_figure(&daemon, "open") == clients.len() as i64);
}

//! Server-Sent Events and long polls, over the real daemon.

// The exception for tests does not cover the functions that tests share.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Instant,
};

use common::{
    PATIENCE, Setup, TestDaemon, eventually,
    node::{ALICE, Kind, append, fill, fills_line, line},
    raw::{ask, connect},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

const DAY: u32 = 20_260_315;
const BOB: &str = "0x1e37a337ed460039d1b15bd3bc489de789768d5e";

/// No heartbeat shows that a client is gone.
const QUIET: &str = "[session]\nheartbeat_interval = \"1h\"\n";

/// A daemon with so many blocks of a fill each, of Alice and Bob in turn.
fn with_blocks(config: &str, blocks: u64) -> (Setup, File, TestDaemon) {
    let mut setup = Setup::new();
    setup.config = config.to_owned();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    for block in 1..=blocks {
        let user = if block % 2 == 1 { ALICE } else { BOB };
        append(&mut file, &(fills_line(block, user, 1) + "\n"));
    }
    eventually("all is stored", || daemon.status()["store"]["inserted"].as_u64() == Some(blocks));
    (setup, file, daemon)
}

/// The messages of a stream.
struct Stream(BufReader<Chunked>);

/// A body without the sizes of its chunks, which may cut it anywhere.
struct Chunked {
    socket: BufReader<TcpStream>,
    /// Bytes of this chunk that are still to come.
    left: usize,
}

impl Read for Chunked {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            // Behind a chunk stands an empty line.
            let mut size = String::new();
            while size.trim().is_empty() {
                size.clear();
                if self.socket.read_line(&mut size)? == 0 {
                    return Ok(0);
                }
            }
            self.left = usize::from_str_radix(size.trim(), 16).unwrap();
        }
        let most = buffer.len().min(self.left);
        let read = self.socket.read(&mut buffer[..most])?;
        self.left -= read;
        Ok(read)
    }
}

/// Its fields by name.
type Fields = BTreeMap<String, String>;

impl Stream {
    fn open(daemon: &TestDaemon, query: &str, headers: &str) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", daemon.port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET /v1/stream?{query} HTTP/1.1\r\nHost: n\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        Self::answered(socket)
    }

    /// What comes on a socket by which a stream was asked for.
    fn answered(socket: TcpStream) -> Self {
        let mut socket = BufReader::new(socket);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            socket.read_line(&mut line).unwrap();
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        assert!(head[0].contains("200"), "{head:?}");
        // Some take a text without a charset for Latin-1.
        let kind = "content-type: text/event-stream; charset=utf-8";
        assert!(head.iter().any(|line| line.eq_ignore_ascii_case(kind)), "{head:?}");
        assert!(head.iter().any(|line| line.eq_ignore_ascii_case("x-accel-buffering: no")));
        Self(BufReader::new(Chunked { socket, left: 0 }))
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.0.read_line(&mut line).unwrap() > 0).then(|| line.trim_end().to_owned())
    }

    /// The next message; comments and lone ids are passed over.
    fn message(&mut self) -> Option<Fields> {
        let mut fields = Fields::new();
        loop {
            let line = self.line()?;
            if let Some((name, value)) = line.split_once(": ").filter(|(name, _)| !name.is_empty())
            {
                fields.insert(name.to_owned(), value.to_owned());
            } else if line.is_empty() && fields.contains_key("data") {
                return Some(fields);
            }
        }
    }

    /// The next event of a block.
    fn event(&mut self) -> (Value, String) {
        loop {
            let message = self.message().expect("the stream goes on");
            if !message.contains_key("event") {
                return (serde_json::from_str(&message["data"]).unwrap(), message["id"].clone());
            }
        }
    }
}

fn blocks(answer: &Value) -> Vec<u64> {
    let events = answer["events"].as_array().unwrap();
    events.iter().map(|event| event["block"].as_u64().unwrap()).collect()
}

#[test]
fn a_stream_begins_where_it_is_told_and_goes_on_behind_the_last_id() {
    let (_setup, mut file, daemon) = with_blocks(QUIET, 5);
    let mut stream = Stream::open(&daemon, "topic=fills&cursor=oldest", "");

    let ack = stream.message().unwrap();
    assert_eq!((&*ack["event"], ack["data"].contains("\"recovered\":true")), ("ack", true));
    let mut ids = Vec::new();
    for block in 1..=5 {
        let (event, id) = stream.event();
        assert_eq!((&event["block"], &event["replayed"]), (&json!(block), &json!(true)));
        assert_eq!(event["cursor"], id);
        ids.push(id);
    }
    assert_eq!(stream.message().unwrap()["event"], "live");
    append(&mut file, &(fills_line(6, ALICE, 1) + "\n"));
    let (event, _) = stream.event();
    assert_eq!((&event["block"], &event["replayed"]), (&json!(6), &json!(false)));
    drop(stream);

    // As a browser connects again: with the URL of the beginning.
    let header = format!("Last-Event-ID: {}\r\n", ids[2]);
    let mut stream = Stream::open(&daemon, "topic=fills&cursor=oldest", &header);
    let next: Vec<_> = (0..3).map(|_| stream.event().0["block"].as_u64().unwrap()).collect();
    assert_eq!(next, [4, 5, 6]);

    let mut of_bob =
        Stream::open(&daemon, &format!("topic=fills&user={BOB}&coin=BTC&cursor=oldest"), "");
    let next: Vec<_> = (0..2).map(|_| of_bob.event().0["block"].as_u64().unwrap()).collect();
    assert_eq!(next, [2, 4]);
    drop((stream, of_bob));
    eventually("their places are free", || daemon.status()["sessions"]["open"] == 0);
}

#[test]
fn a_stream_that_begins_now_says_where_and_is_resumed_from_there() {
    let (_setup, mut file, daemon) = with_blocks(QUIET, 5);
    let mut stream = Stream::open(&daemon, "topic=fills", "");

    let ack = stream.message().unwrap();
    let data: Value = serde_json::from_str(&ack["data"]).unwrap();
    assert_eq!((&*ack["event"], &data["recovered"]), ("ack", &json!(true)));
    assert_eq!(data["cursor"], ack["id"]);
    append(&mut file, &(fills_line(6, ALICE, 1) + "\n"));
    let (event, _) = stream.event();
    assert_eq!((&event["block"], &event["replayed"]), (&json!(6), &json!(false)));
    drop(stream);

    // It was cut before its first event.
    let mut stream = Stream::open(&daemon, &format!("topic=fills&cursor={}", ack["id"]), "");
    let (event, _) = stream.event();
    assert_eq!((&event["block"], &event["replayed"]), (&json!(6), &json!(true)));
}

#[test]
fn what_has_no_length_comes_without_chunks_by_http_1_0_and_ends_with_the_connection() {
    let (_setup, _file, daemon) = with_blocks(QUIET, 300);
    let ask = |path: &str, header: &str| {
        let mut socket = connect(daemon.port);
        let request = format!("GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n{header}\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        BufReader::new(socket)
    };
    let head = |answer: &mut BufReader<TcpStream>| {
        let lines = answer.by_ref().lines().map(Result::unwrap);
        let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
        assert!(head[0].contains("200"), "{head:?}");
        let lower = head.join("\n").to_lowercase();
        assert!(!lower.contains("transfer-encoding") && !lower.contains("keep-alive"), "{lower}");
    };

    let mut export = ask("/v1/events", "Accept: application/x-ndjson\r\n");
    head(&mut export);
    let lines: Vec<Value> =
        export.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert_eq!((lines.len(), &lines[300]["type"]), (301, &json!("end")));

    let mut stream = ask("/v1/stream?topic=fills&cursor=oldest", "");
    head(&mut stream);
    let mut lines = stream.lines().map(Result::unwrap);
    let is_of_sse = |line: &String| {
        line.is_empty() || ["id: ", "event: ", "data: "].iter().any(|name| line.starts_with(name))
    };
    let past: Vec<_> = lines.by_ref().take_while(|line| line != "event: live").collect();
    assert!(past.iter().all(is_of_sse), "{past:?}");
    let events = past.iter().filter(|line| line.starts_with("data: {\"type\":\"event\"")).count();
    assert_eq!(events, 300);
    daemon.signal(Signal::TERM);
    assert!(lines.any(|line| line == "event: bye"));
    assert!(lines.all(|line| is_of_sse(&line)), "and the end is that of the connection");
}

#[test]
fn a_quiet_stream_shows_how_far_it_is() {
    let (_setup, _file, daemon) = with_blocks("[session]\nheartbeat_interval = \"100ms\"\n", 3);
    let mut stream = Stream::open(&daemon, "topic=fills", "");

    let start = Instant::now();
    let id = loop {
        let line = stream.line().unwrap();
        if line == ": heartbeat" {
            break stream.line().unwrap();
        }
        assert!(start.elapsed() < PATIENCE);
    };

    // Nothing lies behind it.
    let cursor = id.strip_prefix("id: ").unwrap();
    let (status, answer) = daemon.get(&format!("/v1/poll?topic=fills&cursor={cursor}&timeout=0s"));
    assert_eq!((status, blocks(&answer)), (200, vec![]));
}

#[test]
fn polls_one_after_the_other_give_everything_once() {
    // T09
    let (_setup, mut file, daemon) = with_blocks(QUIET, 7);
    let mut cursor = "oldest".to_owned();
    let mut all = Vec::new();
    let mut poll = |limit: usize, timeout: &str| {
        let path = format!("/v1/poll?topic=fills&cursor={cursor}&limit={limit}&timeout={timeout}");
        let (status, answer) = daemon.get(&path);
        assert_eq!(status, 200, "{answer}");
        cursor = answer["cursor"].as_str().unwrap().to_owned();
        blocks(&answer)
    };
    for expected in [3, 3, 1] {
        let blocks = poll(3, "20s");
        assert_eq!(blocks.len(), expected);
        all.extend(blocks);
    }
    assert!(all.into_iter().eq(1..=7));

    // Nothing waits: the time is over, or something comes.
    assert_eq!(poll(3, "50ms"), [0; 0]);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| poll(3, "60s"));
        eventually("it waits", || daemon.status()["sessions"]["subscriptions"] == 1);
        append(&mut file, &(fills_line(8, ALICE, 1) + "\n"));
        assert_eq!(waiting.join().unwrap(), [8]);
    });
    assert_eq!(poll(3, "0s"), [0; 0]);

    // More comes at once than a poll takes, of several that want the same: the next one goes on behind it.
    let path = format!("/v1/poll?topic=fills&cursor={cursor}&limit=2&timeout=60s");
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..6).map(|_| scope.spawn(|| daemon.get(&path))).collect();
        eventually("they wait", || daemon.status()["sessions"]["subscriptions"] == 6);
        append(&mut file, &(fills_line(9, ALICE, 5) + "\n"));
        for answer in waiting {
            let (status, answer) = answer.join().unwrap();
            assert_eq!((status, blocks(&answer)), (200, vec![9, 9]));
            let cursor = answer["cursor"].as_str().unwrap();
            let path = format!("/v1/poll?topic=fills&cursor={cursor}&limit=9&timeout=0s");
            let (_, rest) = daemon.get(&path);
            let rest = rest["events"].as_array().unwrap();
            assert!(rest.iter().map(|event| &event["index"]).eq(&[2, 3, 4]));
        }
    });
    eventually("their places are free", || daemon.status()["sessions"]["open"] == 0);
}

#[test]
fn what_cannot_be_understood_is_refused_with_every_fault() {
    let setup = Setup::new();
    let daemon = setup.start();
    for (path, named) in [
        ("/v1/stream?cursor=yesterday&topic=trades", ["cursor", "topic"]),
        ("/v1/stream?policy=conflate&linger_ms=1001", ["policy", "linger_ms"]),
        ("/v1/poll?timeout=2h&limit=0", ["timeout", "limit"]),
        ("/v1/poll?user=alice&what=1", ["user", "what"]),
    ] {
        let (status, answer) = daemon.get(path);
        assert_eq!((status, &answer["code"]), (400, &json!("invalid_parameter")), "{path}");
        let message = answer["message"].as_str().unwrap();
        assert!(named.iter().all(|name| message.contains(name)), "{path}: {message}");
    }
    assert_eq!(daemon.get("/v1/stream?cursor=1.1.2.3.x").0, 400);
    let request = "GET /v1/stream?topic=trades HTTP/1.1\r\nLast-Event-ID: 1.1.2\r\n";
    let answer = ask(daemon.port, request);
    assert_eq!(answer.code(), (400, "invalid_parameter"));
    assert!(answer.body["message"].as_str().unwrap().contains("Last-Event-ID"), "{answer:?}");
    assert_eq!(daemon.status()["sessions"]["open"], 0);
}

#[test]
fn a_stalled_stream_is_cut_off_and_delays_nobody() {
    // H33
    // Whoever loses patience first, its feed or HTTP.
    for config in [
        "[session]\noutbox_bytes = \"256KiB\"\nstall_timeout = \"500ms\"\n",
        "[http]\nwrite_timeout = \"500ms\"\n[session]\noutbox_bytes = \"256KiB\"\nstall_timeout = \"1h\"\n",
    ] {
        cut_off_who_stalls(config);
    }
}

fn cut_off_who_stalls(config: &str) {
    const EVENT_BYTES: usize = 20_000;
    let (_setup, mut file, daemon) = with_blocks(config, 0);
    let mut reader = Stream::open(&daemon, "topic=fills", "");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], daemon.port)).into()).unwrap();
    let mut stalled = TcpStream::from(socket);
    stalled.write_all(b"GET /v1/stream?topic=fills HTTP/1.1\r\nHost: n\r\n\r\n").unwrap();
    eventually("both are open", || daemon.status()["sessions"]["subscriptions"] == 2);

    let mut block = 0;
    let mut write_and_read = || {
        block += 1;
        let mut fill = fill(ALICE, "BTC", block);
        fill[1]["note"] = Value::String("x".repeat(EVENT_BYTES));
        append(&mut file, &(line(block, &json!([fill])) + "\n"));
        assert_eq!(reader.event().0["block"], block);
    };
    // More than sockets and connections hold.
    (0..300).for_each(|_| write_and_read());
    eventually("it is cut off", || daemon.status()["sessions"]["slow_consumers"] == 1);
    eventually("its place is free", || daemon.status()["sessions"]["open"] == 1);
    write_and_read();

    // What it had in its socket, and the end.
    stalled.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut left = Vec::new();
    drop(stalled.read_to_end(&mut left));
    assert!(left.len() < 300 * EVENT_BYTES);
    let sessions = &daemon.status()["sessions"];
    assert_eq!(sessions["outbox_bytes"], 0, "{sessions}");
}

#[test]
fn a_stream_for_which_too_much_waits_goes_and_a_smaller_one_stays() {
    let config = "[session]\noutbox_bytes = \"8MiB\"\noutbox_total_bytes = \"2MiB\"\n\
        stall_timeout = \"1h\"\n";
    let (_setup, mut file, daemon) = with_blocks(config, 0);
    let stall = |query: &str| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], daemon.port)).into()).unwrap();
        let mut stalled = TcpStream::from(socket);
        stalled.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stalled, "GET /v1/stream?topic=fills{query} HTTP/1.1\r\nHost: n\r\n\r\n").unwrap();
        stalled
    };
    let large = stall("");
    let small = stall(&format!("&user={BOB}"));
    let mut reader = Stream::open(&daemon, "topic=fills", "");
    eventually("all are open", || daemon.status()["sessions"]["subscriptions"] == 3);

    let figure = |figure: &str| daemon.status()["sessions"][figure].as_u64().unwrap();
    let mut block = 0;
    while figure("evicted") == 0 {
        block += 1;
        assert!(block < 2_000, "nobody goes");
        // One of ten is the small one's.
        let mut fill = fill(if block % 10 == 0 { BOB } else { ALICE }, "BTC", block);
        fill[1]["note"] = Value::String("x".repeat(20_000));
        append(&mut file, &(line(block, &json!([fill])) + "\n"));
        assert_eq!(reader.event().0["block"], block);
    }

    eventually("what waited is dropped", || figure("outbox_bytes") < 2 << 20);
    // It is told why, behind what its connection had taken.
    let mut large = Stream::answered(large);
    let bye = loop {
        let message = large.message().expect("a farewell comes");
        if message.get("event").is_some_and(|name| name == "bye") {
            break message;
        }
    };
    assert!(bye["data"].contains("\"code\":4008"), "{bye:?}");
    assert!(large.message().is_none());
    assert_eq!((figure("evicted"), figure("slow_consumers")), (1, 0));
    let mut small = Stream::answered(small);
    for expected in (10..=block).step_by(10) {
        assert_eq!(small.event().0["block"], expected);
    }
}

#[test]
fn a_stream_that_skips_goes_on_at_the_head_when_it_reads_again() {
    let config = "[session]\noutbox_bytes = \"64KiB\"\nsend_buffer_bytes = \"16KiB\"\n\
        stall_timeout = \"1h\"\n";
    let (_setup, mut file, daemon) = with_blocks(config, 0);
    let mut stream = Stream::open(&daemon, "topic=fills&policy=skip&linger_ms=20", "");
    eventually("it is open", || daemon.status()["sessions"]["subscriptions"] == 1);
    let mut block = 0;
    let mut write = || {
        block += 1;
        let mut fill = fill(ALICE, "BTC", block);
        fill[1]["note"] = Value::String("x".repeat(20_000));
        append(&mut file, &(line(block, &json!([fill])) + "\n"));
        block
    };
    while daemon.status()["sessions"]["behind"] == 0 {
        assert!(write() < 2_000, "it is never full");
    }
    let last = (0..5).map(|_| write()).last().unwrap();
    eventually("all is stored", || daemon.status()["store"]["inserted"].as_u64() == Some(last));

    // Blocks one after the other, and a gap wherever some are missing: up to the last one.
    let (mut came, mut gaps, mut told_since) = (0, 0, false);
    let end = format!(".fills-{last:x}");
    loop {
        let message = stream.message().unwrap();
        let data: Value = serde_json::from_str(&message["data"]).unwrap();
        match data["type"].as_str().unwrap() {
            "gap" => {
                assert_eq!((&data["skipped"], data.get("id")), (&json!(true), None));
                assert_eq!(data["until"], message["id"], "a browser goes on behind it");
                (gaps, told_since) = (gaps + 1, true);
                if message["id"].ends_with(&end) {
                    break;
                }
            }
            "event" => {
                let block = data["block"].as_u64().unwrap();
                assert!(block == came + 1 || (told_since && block > came), "{came}, then {block}");
                (came, told_since) = (block, false);
                if block == last {
                    break;
                }
            }
            _ => {}
        }
    }
    assert!(gaps > 0);
    eventually("it is live", || daemon.status()["sessions"]["behind"] == 0);
    let next = write();
    let (event, _) = stream.event();
    assert_eq!((&event["block"], &event["replayed"]), (&json!(next), &json!(false)));
}

#[test]
fn a_stop_says_farewell_to_streams_and_answers_polls() {
    // T38
    let (_setup, _file, daemon) = with_blocks("", 2);
    let mut stream = Stream::open(&daemon, "topic=fills", "");
    let url = format!("http://127.0.0.1:{}/v1/poll?topic=fills&timeout=60s", daemon.port);
    let waiting = thread::spawn(move || {
        let mut response = common::get(&url).call().unwrap();
        response.body_mut().read_to_string().unwrap()
    });
    eventually("both wait", || daemon.status()["sessions"]["subscriptions"] == 2);

    daemon.signal(Signal::TERM);

    let answer: Value = serde_json::from_str(&waiting.join().unwrap()).unwrap();
    assert_eq!(blocks(&answer), [0; 0]);
    assert!(answer["cursor"].is_string());
    let bye = loop {
        let message = stream.message().expect("a farewell comes");
        if message.get("event").is_some_and(|name| name == "bye") {
            break message;
        }
    };
    assert!(bye["retry"].parse::<u64>().unwrap() >= 1_000);
    assert!(bye["data"].contains("1001"));
    while stream.message().is_some() {}
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn the_last_words_are_written_before_the_process_ends_however_soon_their_sessions_are_gone() {
    for path in ["/v1/stream?topic=fills", "/v1/poll?topic=fills&timeout=60s"] {
        let mut setup = Setup::new();
        // The session is gone; HTTP has its last bytes, and has not written them.
        setup.failpoints = "session.gone=delay".to_owned();
        let mut daemon = setup.start();
        let mut socket = TcpStream::connect(("127.0.0.1", daemon.port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: n\r\n\r\n").unwrap();
        eventually("it waits", || daemon.status()["sessions"]["subscriptions"] == 1);

        daemon.signal(Signal::TERM);

        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let last = if path.contains("poll") { "],\"cursor\":" } else { "event: bye" };
        assert!(answer.contains(last), "{answer}");
        assert_eq!(daemon.wait_exit().unwrap().code(), Some(0));
    }
}

#[test]
fn all_topics_are_resumed_together() {
    let mut setup = Setup::new();
    setup.config = QUIET.to_owned();
    let mut fills = Kind::fills(setup.node()).open(DAY, 9);
    let mut misc = Kind::misc(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    for block in 1..=4 {
        append(&mut fills, &(fills_line(block, ALICE, 1) + "\n"));
        let inner =
            json!({"LedgerUpdate":{"users":[ALICE],"delta":{"type":"deposit","usdc":"1.0"}}});
        let event = json!({"time":"2026-03-15T09:00:00.000000000","hash":"0x1","inner":inner});
        append(&mut misc, &(line(block, &json!([event])) + "\n"));
    }
    eventually("all is stored", || daemon.status()["store"]["inserted"].as_u64() == Some(8));
    let topics = |events: &[Value]| {
        let of = |topic: &str| events.iter().filter(|event| event["topic"] == topic).count();
        (of("fills"), of("misc"))
    };

    let (_, answer) = daemon.get("/v1/poll?cursor=oldest");
    assert_eq!(topics(answer["events"].as_array().unwrap()), (4, 4));
    let mut stream = Stream::open(&daemon, "cursor=oldest", "");
    let events: Vec<_> = (0..8).map(|_| stream.event().0).collect();
    assert_eq!(topics(&events), (4, 4));
    let seqs: Vec<_> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(seqs.is_sorted());
    // Where they begin at different places, all go on behind the first of them.
    let mut stream = Stream::open(&daemon, "cursor=1.1.2.3.fills-19", "");
    let ack = stream.message().unwrap();
    assert!(ack["data"].contains("\"recovered\":false"), "{ack:?}");
    let (_, answer) = daemon.get(&format!("/v1/poll?cursor={}", ack["id"]));
    assert_eq!(topics(answer["events"].as_array().unwrap()).1, 4);
    assert_eq!(answer.get("recovered"), None, "it is exactly what was asked for");
    let (_, answer) = daemon.get("/v1/poll?cursor=1.1.2.3.fills-19");
    assert_eq!(answer["recovered"], false, "{answer}");
    // However short the time is, what has been is the answer, also where it has to be read.
    let all = |daemon: &TestDaemon| {
        let (_, answer) = daemon.get("/v1/poll?cursor=oldest&timeout=0s");
        answer["events"].as_array().unwrap().len()
    };
    assert_eq!(all(&daemon), 8);
    drop(stream);
    assert_eq!(daemon.stop().code(), Some(0));
    assert_eq!(all(&setup.start()), 8);
}

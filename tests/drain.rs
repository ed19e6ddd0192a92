//! `nodecast drain` beside the real daemon: who is sent away, who is refused, and what goes on.

// The exception for tests does not cover the functions that tests share.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Output, Stdio},
    thread,
};

use common::{
    Setup, end_of, eventually,
    node::{ALICE, Kind, append, fills_line},
    raw::{HANDSHAKE, ask, connect},
    receive_type, run_to_end,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tungstenite::Message;

const DAY: u32 = 20_260_315;

fn command(setup: &Setup, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodecast"));
    command.arg("drain").args(args).arg("--state-dir").arg(setup.state_dir());
    command.env_remove("NODECAST_CONFIG").env("HOME", setup.root.path());
    command
}

fn drain(setup: &Setup, args: &[&str]) -> (Option<i32>, String) {
    said(run_to_end(&mut command(setup, args)))
}

fn begin(setup: &Setup, args: &[&str]) -> Child {
    command(setup, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn said(output: Output) -> (Option<i32>, String) {
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// Reads to the end of a WebSocket, and gives what was said last and the code of the close frame.
fn last_words(mut client: common::Client) -> (Value, u16) {
    let mut last = Value::Null;
    loop {
        match client.read().unwrap() {
            Message::Text(text) => last = serde_json::from_str(&text).unwrap(),
            Message::Close(frame) => {
                // The answer to it; its write may fail when the server was faster.
                drop(client.flush());
                return (last, frame.unwrap().code.into());
            }
            _ => {}
        }
    }
}

// T38
#[test]
fn clients_of_every_kind_are_sent_away_and_refused_while_all_else_goes_on_until_it_is_cancelled() {
    let setup = Setup::new();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    append(&mut file, &(fills_line(1, ALICE, 1) + "\n"));
    eventually("it is ready", || daemon.get("/readyz").0 == 200);
    assert_eq!(daemon.status()["sessions"]["drain"], Value::Null);
    let native: Vec<_> = (0..20).map(|_| daemon.subscribe("fills")).collect();
    let older = daemon.connect("/ws");
    let mut stream = connect(daemon.port);
    stream.write_all(b"GET /v1/stream?topic=fills HTTP/1.0\r\n\r\n").unwrap();
    let port = daemon.port;
    let poll = thread::spawn(move || {
        let url = format!("http://127.0.0.1:{port}/v1/poll?topic=fills&timeout=60s");
        let mut response = common::get(&url).call().unwrap();
        response.body_mut().read_to_string().unwrap()
    });
    eventually("all are there", || daemon.status()["sessions"]["subscriptions"] == 22);

    let (code, said) = thread::scope(|scope| {
        let drained = scope.spawn(|| drain(&setup, &["--over", "300ms"]));
        // Clients take their farewells while it goes on.
        for client in native {
            let (bye, code) = last_words(client);
            assert_eq!((&bye["type"], &bye["reason"]), (&json!("bye"), &json!("server draining")));
            assert!(bye["retry_after_ms"].as_u64().unwrap() >= 1_000);
            assert_eq!(code, 1001);
        }
        assert_eq!(last_words(older).1, 1000);
        drained.join().unwrap()
    });

    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("drained: no session is left\n"), "{said}");
    eventually("the log tells", || daemon.log().contains("clients are sent away and none let in"));
    let polled: Value = serde_json::from_str(&poll.join().unwrap()).unwrap();
    assert_eq!(polled["events"], json!([]));
    assert!(polled["cursor"].is_string());
    let lines: Vec<_> = BufReader::new(stream).lines().map_while(Result::ok).collect();
    let retry = lines.iter().find_map(|line| line.strip_prefix("retry: ")).unwrap();
    assert!((1_000..5_000).contains(&retry.parse::<u64>().unwrap()));
    assert!(lines.iter().any(|line| line == "event: bye"));

    // Who comes back meanwhile is told when to try again.
    for path in ["/v1/stream?topic=fills", "/v1/poll?topic=fills"] {
        let answer = ask(daemon.port, &format!("GET {path} HTTP/1.1\r\n"));
        assert_eq!(answer.code(), (503, "draining"), "{path}");
        assert!((5..=15).contains(&answer.retry_after.unwrap()));
    }
    let answer = ask(daemon.port, HANDSHAKE);
    assert_eq!(answer.code(), (503, "draining"));
    assert!((5..=15).contains(&answer.retry_after.unwrap()));
    let (status, ready) = daemon.get("/readyz");
    assert_eq!((status, &ready["reason"]), (503, &json!("draining")));
    assert_eq!(daemon.get("/health").1["status"], "not_ready");
    let status = daemon.status();
    assert_eq!(status["sessions"]["drain"]["sessions_left"], 0);
    assert!(status["reasons"].to_string().contains("draining"), "{status}");
    assert_eq!(status["state"], "degraded");
    // The daemon itself goes on.
    append(&mut file, &(fills_line(2, ALICE, 1) + "\n"));
    eventually("it reads and stores", || daemon.status()["store"]["inserted"] == 2);
    assert_eq!(daemon.get("/v1/events?topic=fills").1["events"].as_array().unwrap().len(), 2);

    let (code, said) = drain(&setup, &["--cancel"]);
    assert_eq!((code, &*said), (Some(0), "clients are let in again; 0 sessions stayed\n"));
    let mut client = daemon.subscribe("fills");
    append(&mut file, &(fills_line(3, ALICE, 1) + "\n"));
    assert_eq!(receive_type(&mut client, "event")["block"], 3);
    assert_eq!(daemon.get("/readyz").1["reason"], Value::Null);
    let (code, said) = drain(&setup, &["--cancel"]);
    assert_eq!((code, &*said), (Some(0), "nothing was draining\n"));
}

#[test]
fn a_drain_outlives_its_command_and_a_stop_in_the_middle_of_it_stops() {
    let setup = Setup::new();
    let mut daemon = setup.start();
    let clients: Vec<_> = (0..40).map(|_| daemon.subscribe("fills")).collect();
    let is_draining = || daemon.status()["sessions"]["drain"].is_object();

    let mut gone = begin(&setup, &["--over", "2h"]);
    eventually("it drains", is_draining);
    gone.kill().unwrap();
    gone.wait().unwrap();
    let waiting = begin(&setup, &["--over", "1h"]);
    eventually("the second is heard", || {
        let drain = &daemon.status()["sessions"]["drain"];
        let over = drain["until"].as_i64().unwrap() - drain["since"].as_i64().unwrap();
        over == 3_600 * 1_000_000
    });
    assert!(daemon.status()["sessions"]["open"].as_i64() > Some(0));

    daemon.signal(Signal::TERM);

    let reasons: Vec<_> =
        clients.into_iter().map(|client| last_words(client).0["reason"].clone()).collect();
    assert!(reasons.contains(&json!("server shutting down")), "{reasons:?}");
    assert_eq!(daemon.wait_exit().unwrap().code(), Some(0), "{}", daemon.log_tail());
    let (code, said) = said(end_of(waiting));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the daemon stopped while it drained"), "{said}");
    let (code, said) = drain(&setup, &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("no daemon runs in"), "{said}");
    assert_eq!(drain(&setup, &["--over", "soon"]).0, Some(2));
}

//! `nodecast demo`, as a new user meets it: the real program, its text, its addresses, its end.

// The helpers of tests are tests too, which clippy's own exception does not see.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Instant,
};

use common::{PATIENCE, eventually, receive, receive_type, send};
use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A running demo and the lines that it prints.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    /// All lines that were looked at.
    text: Vec<String>,
}

impl Demo {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_nodecast"))
            .arg("demo")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines, text: Vec::new() }
    }

    /// Reads up to a line that holds this, and gives what stands behind it.
    fn behind(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|error| {
                panic!("{error} while waiting for {text:?} after\n{}", self.text.join("\n"))
            });
            self.text.push(line.clone());
            if let Some((_, rest)) = line.split_once(text) {
                return rest.trim().to_owned();
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), signal).unwrap();
    }

    /// Waits for the end, and gives what stands behind "Equal: ".
    fn end(self) -> (ExitStatus, String) {
        self.end_with("Equal: ")
    }

    fn end_with(mut self, text: &str) -> (ExitStatus, String) {
        let verdict = self.behind(text);
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "the demo does not end");
            thread::yield_now();
        };
        (status, verdict)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended already.
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

/// Rows stored, of a verdict without any difference.
fn stored_rows(verdict: &str) -> u64 {
    let (rows, rest) = verdict.split_once(" written, ").unwrap();
    assert_eq!(rest, format!("{rows} stored, 0 lost, 0 twice, 0 altered."));
    rows.parse().unwrap()
}

fn get(url: &str) -> (u16, Value) {
    let request = common::get(url).config().http_status_as_error(false).build();
    let mut response = request.call().unwrap();
    (response.status().as_u16(), response.body_mut().read_json().unwrap())
}

#[test]
fn the_printed_addresses_answer_and_ctrl_c_ends_it_equal_and_without_a_trace() {
    let mut demo = Demo::start(&["--listen", "127.0.0.1:0"]);
    let native = demo.behind("  live            ");
    let older = demo.behind("  live, older     ");
    let page = demo.behind("  in a browser    ");
    let history = demo.behind("  history         ");
    let official_live = demo.behind("  official, live  ");
    let official = demo.behind("  official        ");
    let status = demo.behind("  status          ");
    let health = demo.behind("  health          ");
    let files = demo.behind("  files           ");
    let history = history.strip_prefix("curl '").and_then(|rest| rest.strip_suffix('\'')).unwrap();
    let official_live = official_live.split(',').next().unwrap();
    let (info, request) = official.strip_prefix("curl ").unwrap().split_once(" -d '").unwrap();
    let request = request.strip_suffix('\'').unwrap();
    let [status, health] = [&status, &health].map(|line| line.strip_prefix("curl ").unwrap());
    let directory = PathBuf::from(files.strip_suffix(" (removed at the end)").unwrap());
    let page = page.split('#').next().unwrap();
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(page).is_file(), "{page}");
    assert!(directory.is_dir(), "{files}");

    let (mut native, _) = tungstenite::connect(&native).unwrap();
    send(&mut native, &json!({"type": "subscribe", "id": 1, "topic": "fills"}));
    let (mut older, _) = tungstenite::connect(&older).unwrap();
    send(&mut older, &json!({"action": "subscribe", "event": "fill"}));
    assert_eq!(receive_type(&mut native, "event")["topic"], "fills");
    assert_eq!(receive(&mut older)["event"], "fill");
    eventually("history", || get(history).1["events"].as_array().unwrap().len() == 3);
    eventually("the most active user has traded", || {
        let mut answer = ureq::post(info).send(request).unwrap();
        !answer.body_mut().read_json::<Value>().unwrap().as_array().unwrap().is_empty()
    });
    let (mut official, _) = tungstenite::connect(official_live).unwrap();
    send(&mut official, &json!({"method": "ping"}));
    assert_eq!(receive(&mut official), json!({"channel": "pong"}));
    drop(official);
    eventually("health", || get(health).0 == 200);
    // Our two clients and the demo's own.
    eventually("sessions", || get(status).1["sessions"]["open"] == 3);
    demo.signal(Signal::INT);
    let (exit, verdict) = demo.end();

    assert!(exit.success(), "{exit}: {verdict}");
    assert!(stored_rows(&verdict) > 0);
    assert!(!directory.exists(), "{directory:?} is still there");
}

#[test]
fn it_ends_by_itself_and_what_it_keeps_can_be_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let rate = ["--blocks-per-second", "200", "--faults", "crash,rewind,torn"];
    let keep = ["--listen", "127.0.0.1:0", "--duration", "3s", "--keep", kept.to_str().unwrap()];

    let mut demo = Demo::start(&[rate.as_slice(), keep.as_slice()].concat());
    let received = demo.behind("The live client received ");
    let (exit, verdict) = demo.end();

    assert!(exit.success(), "{exit}: {verdict}");
    let rows = stored_rows(&verdict);
    assert_eq!(received, format!("{rows} of {rows} events, 0 of them repeated or out of order."));
    assert_eq!(common::database::rows(&kept.join("state/nodecast.db")).len() as u64, rows);
    assert!(rows > 100, "hundreds of blocks have more than {rows} events");
}

#[test]
fn a_store_that_is_not_equal_is_said_and_gives_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let mut demo = Demo::start(&["--listen", "127.0.0.1:0", "--keep", kept.to_str().unwrap()]);
    let status = demo.behind("  status          curl ");
    eventually("rows", || get(&status).1["store"]["inserted"].as_u64() > Some(2));

    let database = kept.join("state/nodecast.db");
    let mut database = SqliteConnection::establish(database.to_str().unwrap()).unwrap();
    database.batch_execute("PRAGMA busy_timeout = 60000").unwrap();
    let rowid = "rowid IN (SELECT rowid FROM events ORDER BY seq LIMIT 1)";
    database.batch_execute(&format!("DELETE FROM events WHERE {rowid}")).unwrap();
    database.batch_execute(&format!("UPDATE events SET body = '{{}}' WHERE {rowid}")).unwrap();
    demo.signal(Signal::TERM);
    let (exit, verdict) = demo.end_with("NOT EQUAL: ");

    assert!(verdict.ends_with(" stored, 1 lost, 0 twice, 1 altered."), "{verdict}");
    assert_eq!(exit.code(), Some(1));
}

#[test]
fn a_port_in_use_is_said_and_another_one_is_taken() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();

    let mut demo = Demo::start(&["--listen", &taken, "--duration", "1s"]);
    demo.behind(&format!("{taken} is in use by another program"));
    let used = demo.behind("  status          curl http://");
    let (exit, verdict) = demo.end();

    assert!(!used.starts_with(&taken), "{used}");
    assert!(exit.success(), "{exit}: {verdict}");
}

#[test]
fn a_directory_that_holds_something_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("note"), "x").unwrap();

    let output = common::run_to_end(
        Command::new(env!("CARGO_BIN_EXE_nodecast"))
            .args(["demo", "--listen", "127.0.0.1:0", "--keep"])
            .arg(folder.path()),
    );

    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not empty"));
}

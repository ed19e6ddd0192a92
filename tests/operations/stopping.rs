//! Signals: what a stop brings to its end, and how long it may take.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::{
    DAY,
    common::{
        self, Setup, TestDaemon, database, eventually,
        node::{ALICE, Kind, append, fills_line},
        raw::{allow_files, ask, connect},
        receive_type,
    },
    harness::{limit_files, lock_database, log_lines, stored},
};

/// What the daemon promises for its stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// A daemon that has stored one event, and the file that it follows.
fn start_with_one_event(setup: &Setup) -> (TestDaemon, File) {
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    append(&mut file, &(fills_line(1, ALICE, 1) + "\n"));
    eventually("the first is stored", || stored(setup) == 1);
    (daemon, file)
}

/// Asks it to stop, and gives its exit code when that comes within the promised time.
fn stop_in_time(daemon: &mut TestDaemon) -> Option<i32> {
    let start = Instant::now();
    daemon.signal(Signal::TERM);
    let status = daemon.wait_exit().expect("it does not stop");
    assert!(start.elapsed() < STOP_WITHIN, "{:?}", start.elapsed());
    status.code()
}

// H32 H47
#[test]
fn a_stop_under_load_drains_what_was_read_and_says_goodbye() {
    let mut setup = Setup::new();
    setup.config = "[session]\noutbox_bytes = \"64MiB\"\n".to_owned();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let mut daemon = setup.start();
    let mut native = daemon.subscribe("fills");
    let client = std::thread::spawn(move || {
        let mut sent = 0;
        loop {
            let frame = common::receive(&mut native);
            match frame["type"].as_str().unwrap() {
                "event" => sent = frame["block"].as_u64().unwrap(),
                "bye" => return (sent, frame),
                _ => {}
            }
        }
    });

    // Written on while it stops, so that the stop falls into the middle.
    let mut block = 0;
    let mut write = |blocks: u64| {
        for _ in 0..blocks {
            block += 1;
            append(&mut file, &(fills_line(block, ALICE, 20) + "\n"));
        }
        block
    };
    write(200);
    eventually("it is under way", || daemon.status()["router"]["sequenced"].as_u64() > Some(0));
    let start = Instant::now();
    daemon.signal(Signal::TERM);
    let status = loop {
        if let Some(status) = daemon.wait_exit_for(Duration::from_millis(2)) {
            break status;
        }
        assert!(start.elapsed() < STOP_WITHIN, "{}", daemon.log_tail());
        write(1);
    };
    assert_eq!(status.code(), Some(0), "{}", daemon.log_tail());

    // Every event that was sent is stored: nothing that was read was given up.
    let (sent, bye) = client.join().unwrap();
    assert_eq!(bye["code"], 1001, "{bye}");
    let rows = database::rows(&setup.database());
    let last = rows.keys().next_back().unwrap().position;
    assert!(last >= sent, "{sent} was sent and {last} is stored");
    assert_eq!(rows.len() as u64, last * 20, "the store has whole blocks without a hole");
    // The next start goes on right there.
    let written = write(1);
    let daemon = setup.start();
    eventually("the rest is read", || stored(&setup) as u64 == written * 20);
    assert_eq!(daemon.status()["store"]["duplicates"], 0);
    assert_eq!(daemon.status()["router"]["duplicates"], 0, "the checkpoint was behind");
}

#[test]
fn a_second_signal_stops_at_once() {
    let setup = Setup::new();
    let (mut daemon, mut file) = start_with_one_event(&setup);
    // No room on the disk, so that draining takes its whole time.
    limit_files(&daemon, Some(0));
    append(&mut file, &(fills_line(2, ALICE, 2) + "\n"));
    eventually("it is read", || daemon.status()["router"]["sequenced"] == 3);

    daemon.signal(Signal::TERM);
    let start = Instant::now();
    let status = loop {
        daemon.signal(Signal::INT);
        if let Some(status) = daemon.wait_exit_for(Duration::from_millis(10)) {
            break status;
        }
    };

    assert_eq!(status.code(), Some(130), "{}", daemon.log_tail());
    // Those that came at once were the first one told twice.
    let took = start.elapsed();
    assert!((Duration::from_millis(200)..Duration::from_secs(2)).contains(&took), "{took:?}");
    // Nothing is lost: the next start reads it again.
    let _daemon = setup.start();
    eventually("it is stored", || stored(&setup) == 3);
}

// H47: a stop does not wait for a disk; the files are the buffer.
#[test]
fn a_stop_on_a_full_disk_ends_in_time_and_the_next_start_brings_the_rest() {
    let setup = Setup::new();
    let (mut daemon, mut file) = start_with_one_event(&setup);
    limit_files(&daemon, Some(0));
    append(&mut file, &(fills_line(2, ALICE, 50) + "\n"));
    eventually("commits fail", || daemon.status()["store"]["failures"].as_u64() >= Some(1));

    assert_eq!(stop_in_time(&mut daemon), Some(0), "{}", daemon.log_tail());

    let _daemon = setup.start();
    eventually("the rest is stored", || stored(&setup) == 51);
}

// H47
#[test]
fn a_stop_while_another_program_holds_the_database_ends_in_time() {
    let setup = Setup::new();
    let (mut daemon, mut file) = start_with_one_event(&setup);
    let lock = lock_database(&setup);
    append(&mut file, &(fills_line(2, ALICE, 2) + "\n"));
    eventually("it is read", || daemon.status()["router"]["sequenced"] == 3);

    assert_eq!(stop_in_time(&mut daemon), Some(0), "{}", daemon.log_tail());
    let said = daemon.log();
    assert!(said.contains("is read again from the files at the next start"), "{said}");
    drop(lock);
    let _daemon = setup.start();
    eventually("the rest is stored", || stored(&setup) == 3);
}

// T38
#[test]
fn thousands_of_sessions_all_have_their_farewell_before_the_process_ends() {
    const CLIENTS: usize = 2_000;
    allow_files();
    let setup = Setup::new();
    let mut daemon = setup.start();
    let clients: Vec<_> = (0..CLIENTS).map(|_| daemon.connect("/v1/ws")).collect();
    let port = daemon.port;
    let polls: Vec<_> = (0..3)
        .map(|_| {
            std::thread::spawn(move || {
                ask(port, "GET /v1/poll?topic=fills&timeout=60s HTTP/1.1\r\n")
            })
        })
        .collect();
    let mut stream = connect(port);
    stream.write_all(b"GET /v1/stream?topic=fills HTTP/1.0\r\n\r\n").unwrap();
    eventually("all are there", || {
        daemon.status()["sessions"]["open"].as_u64() == Some(CLIENTS as u64 + 4)
    });

    let start = Instant::now();
    daemon.signal(Signal::TERM);

    for poll in polls {
        assert_eq!(poll.join().unwrap().status, 200);
    }
    let mut streamed = String::new();
    stream.read_to_string(&mut streamed).unwrap();
    assert!(streamed.contains("event: bye"), "{streamed}");
    for mut client in clients {
        let bye = receive_type(&mut client, "bye");
        assert_eq!(bye["code"], 1001);
        assert!(
            matches!(client.read().unwrap(), Message::Close(Some(frame)) if frame.code == CloseCode::Away)
        );
        // The answer to it.
        drop(client.flush());
    }
    assert_eq!(daemon.wait_exit().unwrap().code(), Some(0), "{}", daemon.log_tail());
    assert!(start.elapsed() < STOP_WITHIN, "{:?}", start.elapsed());
    assert_eq!(log_lines(&daemon.log(), "sessions did not close in time"), [""; 0]);
}

#[test]
fn nobody_hangs_who_comes_while_it_stops() {
    let setup = Setup::new();
    let (mut daemon, mut file) = start_with_one_event(&setup);
    // No room on the disk, so that the stop takes some seconds before it comes to the clients.
    limit_files(&daemon, Some(0));
    append(&mut file, &(fills_line(2, ALICE, 2) + "\n"));
    eventually("it is read", || daemon.status()["router"]["sequenced"] == 3);
    let mut client = daemon.subscribe("fills");
    let mut kept = connect(daemon.port);
    let mut ask_kept = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: n\r\n\r\n");
        kept.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 4_096];
        let read = kept.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    };
    assert!(ask_kept("/livez").starts_with("HTTP/1.1 200"));

    daemon.signal(Signal::TERM);

    // Answered at first, then told that it stops or refused; never left waiting.
    eventually("the door is shut", || {
        let Ok(mut socket) = TcpStream::connect(("127.0.0.1", daemon.port)) else { return true };
        socket.set_read_timeout(Some(common::PATIENCE)).unwrap();
        let asked = socket.write_all(b"GET /v1/poll?timeout=0s HTTP/1.0\r\n\r\n");
        let mut answer = String::new();
        match asked.and_then(|()| socket.read_to_string(&mut answer)) {
            Ok(_) => assert!(
                answer.starts_with("HTTP/1.1 200")
                    || answer.starts_with("HTTP/1.0 200")
                    || answer.contains("shutting_down"),
                "{answer}"
            ),
            Err(error) => assert_ne!(error.kind(), ErrorKind::WouldBlock, "it hangs"),
        }
        false
    });
    // A connection from before is answered.
    let ready = ask_kept("/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("shutting_down"), "{ready}");
    let poll = ask_kept("/v1/poll");
    assert!(poll.starts_with("HTTP/1.1 503") && poll.contains("shutting_down"), "{poll}");
    assert_eq!(daemon.wait_exit_for(Duration::ZERO), None, "it still stops");
    assert_eq!(receive_type(&mut client, "bye")["code"], 1001);
    assert_eq!(daemon.wait_exit().unwrap().code(), Some(0), "{}", daemon.log_tail());
    assert_eq!(log_lines(&daemon.log(), "rror accepting connection"), [""; 0]);
}

//! Signals: what a stop brings to its end, and how long it may take.

use std::{
    fs::File,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    DAY,
    common::{
        self, Setup, TestDaemon, database, eventually,
        node::{ALICE, Kind, append, fills_line},
    },
    harness::{limit_files, lock_database, stored},
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

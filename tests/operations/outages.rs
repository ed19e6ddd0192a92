//! A store that is away: a full disk, a lock of another program.

use std::{
    fs,
    io::{self, Write},
    process::Command,
};

use crate::{
    DAY,
    common::{
        Setup, eventually,
        node::{ALICE, Kind, append, fills_line},
        receive_type,
    },
    harness::{limit_files, lock_database, reasons, stored},
};

#[test]
fn a_full_disk_delays_commits_and_neither_stops_the_stream_nor_loses_anything() {
    const EVENTS: u64 = 400;
    let setup = Setup::new();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    let mut client = daemon.subscribe("fills");
    append(&mut file, &(fills_line(1, ALICE, 1) + "\n"));
    receive_type(&mut client, "event");
    eventually("the first is stored", || stored(&setup) == 1);

    let size = fs::metadata(setup.state_dir().join("nodecast.db-wal")).unwrap().len();
    limit_files(&daemon, Some(size));
    for block in 2..=EVENTS {
        append(&mut file, &(fills_line(block, ALICE, 1) + "\n"));
        assert_eq!(receive_type(&mut client, "event")["block"], block, "{}", daemon.log_tail());
    }
    eventually("status says it", || reasons(&daemon).contains("commits have failed"));
    let status = daemon.status();
    assert_eq!(status["state"], "degraded");
    assert!(status["store"]["queued_events"].as_i64() > Some(0), "{status}");
    assert!((stored(&setup) as u64) < EVENTS, "the disk was not full");

    limit_files(&daemon, None);
    eventually("all is stored", || stored(&setup) as u64 == EVENTS);
    eventually("all is well again", || !reasons(&daemon).contains("store"));
    assert_eq!(daemon.status()["router"]["generations"], 0, "nothing had to be read again");
    assert_eq!(daemon.stop().code(), Some(0));
}

/// A state directory on a file system of its own with so many bytes, most of them taken by a
/// file `ballast`. `None`, said loudly, where the system lets nobody but root mount one.
fn small_disk(setup: &mut Setup, bytes: u64, taken: u64) -> Option<()> {
    let mut mount = Command::new("unshare");
    mount.args(["-rm", "mount", "-t", "tmpfs", "none"]).arg(setup.node());
    let allowed = mount.output().is_ok_and(|output| output.status.success());
    if !allowed {
        // Not by a macro: what those print of a test that passes is swallowed.
        let said = "SKIPPED: no file system can be mounted here (unshare -rm)\n";
        io::stderr().write_all(said.as_bytes()).unwrap();
        return None;
    }
    fs::create_dir(setup.state_dir()).unwrap();
    let script = format!(
        "mount -t tmpfs -o size={bytes} none \"$0\" \
         && head -c {taken} /dev/zero >\"$0/ballast\" && exec \"$@\""
    );
    let state = setup.state_dir().display().to_string();
    setup.wrapper = ["unshare", "-rm", "sh", "-c", &script, &state].map(str::to_owned).to_vec();
    Some(())
}

#[test]
fn a_disk_that_is_really_full_is_waited_for() {
    const BLOCKS: u64 = 150;
    let mut setup = Setup::new();
    setup.config = "[store]\nmin_free_bytes = \"0B\"\n".to_owned();
    let Some(()) = small_disk(&mut setup, 16 << 20, 14 << 20) else { return };
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    let mut client = daemon.subscribe("fills");

    // 20 KB each.
    for block in 1..=BLOCKS {
        append(&mut file, &(fills_line(block, ALICE, 40) + "\n"));
        for _ in 0..40 {
            assert_eq!(receive_type(&mut client, "event")["block"], block, "{}", daemon.log_tail());
        }
    }
    eventually("the disk is full", || {
        let failing = reasons(&daemon).contains("commits have failed");
        failing && daemon.log().contains("is full")
    });
    assert_eq!(daemon.get("/livez").0, 200);

    // The test sees the daemon's file systems as the daemon does.
    let state = setup.state_dir();
    let ballast = format!("/proc/{}/root{}/ballast", daemon.pid(), state.display());
    fs::remove_file(ballast).unwrap();

    let inserted = || daemon.status()["store"]["inserted"].as_u64();
    eventually("all is stored", || inserted() == Some(BLOCKS * 40));
    eventually("all is well again", || !reasons(&daemon).contains("store"));
    let (_, page) = daemon.get("/v1/events?topic=fills&limit=10000");
    assert_eq!(page["events"].as_array().unwrap().len() as u64, BLOCKS * 40);
    assert_eq!(daemon.status()["router"]["generations"], 0, "nothing had to be read again");
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_database_that_another_program_locks_is_waited_for() {
    let setup = Setup::new();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    let mut client = daemon.subscribe("fills");
    append(&mut file, &(fills_line(1, ALICE, 1) + "\n"));
    receive_type(&mut client, "event");
    eventually("the first is stored", || stored(&setup) == 1);

    let lock = lock_database(&setup);
    for block in 2..=30 {
        append(&mut file, &(fills_line(block, ALICE, 1) + "\n"));
        assert_eq!(receive_type(&mut client, "event")["block"], block);
    }
    eventually("status says it", || reasons(&daemon).contains("commits have failed"));
    assert_eq!(daemon.get("/v1/events?topic=fills").0, 200, "reading goes on");
    assert_eq!(stored(&setup), 1);
    drop(lock);

    eventually("all is stored", || stored(&setup) == 30);
    assert_eq!(daemon.status()["router"]["generations"], 0);
}

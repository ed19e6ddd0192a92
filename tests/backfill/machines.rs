//! Two machines on one store, each with a state directory of its own.

use std::{fs, path::Path};

use nodecast::generate::Simulator;
use rustix::process::Signal;

use crate::{
    HOUR, busiest, caught_up,
    common::{Setup, TestDaemon, database, eventually, was_killed},
    list, node, rows_of,
};

/// Where both of them write to.
fn shared_store(directory: &Path) -> [Option<String>; 2] {
    let sqlite = format!("sqlite:{}", directory.join("shared.db").display());
    [Some(sqlite), Some(database::create_on_postgres())]
}

/// Another machine that reads the same node, or one that writes the same.
fn another(first: &Setup) -> Setup {
    Setup {
        data_dirs: first.data_dirs.clone(),
        database_url: first.database_url.clone(),
        config: "[store]\nstandby = true\n".to_owned(),
        ..Setup::new()
    }
}

fn start_standby(setup: &Setup) -> TestDaemon {
    let standby = setup.start();
    eventually("it stands by", || standby.status()["state"] == "standby");
    standby
}

/// Waits until it has taken over. It is not asked before: the port changes hands meanwhile.
fn wait_until_it_writes(standby: &TestDaemon) {
    eventually("it has taken over", || {
        let log = standby.log();
        log.contains("taking over") && log.contains("\"listening\"")
    });
}

/// Waits until it has read what its node writes now.
fn wait_until_it_follows(daemon: &TestDaemon, node: &mut Simulator) {
    node.write_blocks(10).unwrap();
    caught_up(daemon, node.manifest().totals.highest_block);
}

fn stored(setup: &Setup) -> crate::Rows {
    match setup.database_url.as_deref().unwrap() {
        url if url.starts_with("postgres") => database::rows(url),
        url => database::rows(Path::new(url.strip_prefix("sqlite:").unwrap())),
    }
}

fn progress_files(setup: &Setup) -> Vec<String> {
    let entries = fs::read_dir(setup.state_dir().join("backfill")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

// H33
#[test]
fn what_one_machine_has_begun_another_one_completes() {
    let directory = tempfile::tempdir().unwrap();
    for database_url in shared_store(directory.path()) {
        let mut first = Setup { database_url, ..Setup::new() };
        let mut node = node(first.node(), HOUR);
        node.write_blocks(120).unwrap();
        let users = busiest(node.manifest());
        first.whitelist = list(&users[..1]);
        first.failpoints = "backfill.step=kill@3".to_owned();
        let mut daemon = first.start();
        caught_up(&daemon, node.manifest().totals.highest_block);
        // Its list is there before its time: that is no reason to know it.
        let mut second = another(&first);
        second.whitelist = list(&users[..4]);
        // So slow that the job is seen.
        second.config.push_str("[backfill]\nmax_bytes_per_second = 100000\n");
        let standby = start_standby(&second);

        fs::write(first.whitelist_file(), &second.whitelist).unwrap();
        assert!(was_killed(daemon.wait_exit().unwrap()), "{}", daemon.log_tail());
        assert_eq!(progress_files(&first).len(), 1);

        wait_until_it_writes(&standby);
        eventually("its job is taken over", || {
            let pending = standby.status()["backfill"]["pending"][0].clone();
            pending["taken_over"] == true && pending["users"] == 3
        });
        eventually("it is completed", || standby.status()["backfill"]["jobs_ended"] == 1);
        wait_until_it_follows(&standby, &mut node);
        assert_eq!(stored(&first), rows_of(node.manifest(), &users[..4]));
        eventually("nothing is left", || {
            standby.status()["backfill"]["pending"].as_array().is_some_and(Vec::is_empty)
        });
        assert!(!standby.log().contains("the whole list is back-filled"), "{}", standby.log_tail());

        // The first one comes back, and forgets what it had begun.
        assert_eq!(standby.stop().code(), Some(0));
        first.failpoints = String::new();
        first.whitelist = second.whitelist.clone();
        let daemon = first.start();
        wait_until_it_follows(&daemon, &mut node);
        eventually("its progress is forgotten", || progress_files(&first).is_empty());
        let backfill = daemon.status()["backfill"].clone();
        assert_eq!((&backfill["jobs_ended"], &backfill["jobs_waiting"]), (&0.into(), &0.into()));
        assert_eq!(daemon.stop().code(), Some(0));
    }
}

#[test]
fn a_machine_with_another_list_reads_for_all_of_it_when_it_takes_over() {
    let directory = tempfile::tempdir().unwrap();
    for database_url in shared_store(directory.path()) {
        let mut first = Setup { database_url, ..Setup::new() };
        let mut node = node(first.node(), HOUR);
        node.write_blocks(60).unwrap();
        let users = busiest(node.manifest());
        first.whitelist = list(&users[..2]);
        let daemon = first.start();
        caught_up(&daemon, node.manifest().totals.highest_block);
        eventually("the list is known", || first.knows_list_of("file"));
        let by_first = rows_of(node.manifest(), &users[..2]);
        let mut second = another(&first);
        second.whitelist = list(&users[1..3]);
        let standby = start_standby(&second);
        // Who does not write knows no list.
        assert!(!second.knows_list_of("file"));

        daemon.signal(Signal::KILL);

        wait_until_it_writes(&standby);
        eventually("it reads for its list", || standby.status()["backfill"]["jobs_ended"] == 1);
        wait_until_it_follows(&standby, &mut node);
        let mut expected = rows_of(node.manifest(), &users[1..3]);
        expected.extend(by_first);
        assert_eq!(stored(&first), expected);
        eventually("it says so", || standby.log().contains("the whole list is back-filled"));

        // Now it knows its list: there is nothing to do when it starts again.
        assert_eq!(standby.stop().code(), Some(0));
        let daemon = second.start();
        wait_until_it_follows(&daemon, &mut node);
        eventually("its list is known", || second.knows_list_of("file"));
        let backfill = daemon.status()["backfill"].clone();
        assert_eq!((&backfill["jobs_ended"], &backfill["jobs_waiting"]), (&0.into(), &0.into()));
        assert_eq!(daemon.stop().code(), Some(0));
    }
}

//! What a start refuses and how it says so, and what the listener shows.

use std::{fs, net::TcpStream, path::Path, process::Command};

use crate::{
    DAY,
    common::{
        Setup, eventually,
        node::{ALICE, BOB, Kind, append, fills_line},
        run_to_end,
    },
    harness::{log_lines, stored},
};

/// Starts a daemon that has to end by itself with code 1, and gives all that its log says.
fn log_of_a_refused_start(setup: &Setup) -> String {
    log_of_a_start_refused_with(1, setup)
}

fn log_of_a_start_refused_with(code: i32, setup: &Setup) -> String {
    let mut daemon = setup.spawn();
    let status = daemon.wait_exit().expect("it runs");
    assert_eq!(status.code(), Some(code), "{}", daemon.log_tail());
    daemon.log()
}

/// Runs the program by hand, without a configuration file; gives its exit code and what it said.
fn run(setup: &Setup, state: &Path, more: &[&str]) -> (Option<i32>, String) {
    let output = run_to_end(
        Command::new(env!("CARGO_BIN_EXE_nodecast"))
            .args(["run".as_ref(), "--data-dir".as_ref(), setup.node().as_os_str()])
            .args(["--state-dir".as_ref(), state.as_os_str()])
            .args(more)
            .env_remove("NODECAST_WHITELIST__FILE"),
    );
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_second_daemon_on_the_same_database_is_refused_and_the_first_goes_on() {
    let setup = Setup::new();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let first = setup.start();
    let before = first.log();

    let log = log_of_a_refused_start(&setup);

    let refusals = log_lines(&log[before.len()..], "another nodecast writes to this store");
    assert_eq!(refusals.len(), 1, "{log}");
    assert!(refusals[0].contains(&format!("process {}", first.pid())), "{}", refusals[0]);
    append(&mut file, &(fills_line(1, ALICE, 3) + "\n"));
    eventually("the first goes on", || stored(&setup) == 3);
    assert_eq!(first.stop().code(), Some(0));
}

#[test]
fn a_standby_on_the_same_file_takes_over_when_the_first_is_killed() {
    let setup = Setup::new();
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let first = setup.start();
    append(&mut file, &(fills_line(1, ALICE, 3) + "\n"));
    eventually("the first stores", || stored(&setup) == 3);
    let mut other = Setup::new();
    other.database_url = Some(format!("sqlite:{}", setup.database().display()));
    other.data_dirs = setup.data_dirs.clone();
    other.config = "[store]\nstandby = true\n".to_owned();
    let second = other.start();
    let (code, answer) = second.get("/readyz");
    let reason = answer["reasons"][0].as_str().unwrap();
    assert_eq!((code, &answer["status"]), (503, &"standby".into()));
    assert!(reason.contains(&format!("process {} on ", first.pid())), "{reason}");

    first.kill();
    append(&mut file, &(fills_line(2, ALICE, 3) + "\n"));

    eventually("the second goes on", || stored(&setup) == 6);
    assert_eq!(second.stop().code(), Some(0));
}

#[test]
fn a_file_that_is_no_database_is_named_and_left_alone() {
    let setup = Setup::new();
    fs::create_dir(setup.state_dir()).unwrap();
    let content = "These are the notes of somebody else.\n".repeat(300);
    fs::write(setup.database(), &content).unwrap();

    let log = log_of_a_refused_start(&setup);

    let said = log_lines(&log, "file is not a database");
    assert_eq!(said.len(), 1, "{log}");
    assert!(said[0].contains(&setup.database().display().to_string()), "{}", said[0]);
    assert_eq!(fs::read_to_string(setup.database()).unwrap(), content);
}

#[test]
fn a_damaged_database_is_refused_with_a_clear_message() {
    let setup = Setup::new();
    append(&mut Kind::fills(setup.node()).open(DAY, 9), &(fills_line(1, ALICE, 500) + "\n"));
    let daemon = setup.start();
    eventually("it is stored", || stored(&setup) == 500);
    assert_eq!(daemon.stop().code(), Some(0));
    let mut bytes = fs::read(setup.database()).unwrap();
    // The header stays: only behind it nothing holds together.
    bytes[100..].fill(0xa5);
    fs::write(setup.database(), bytes).unwrap();

    let log = log_of_a_refused_start(&setup);

    assert_eq!(log_lines(&log, "malformed").len(), 1, "{log}");
    assert_eq!(log_lines(&log, "panicked").len(), 0, "{log}");
}

#[test]
fn every_bad_line_of_the_whitelist_is_reported_at_the_start() {
    let mut setup = Setup::new();
    setup.whitelist = format!("{ALICE}\n0x12\n# a comment\n{BOB}\nnobody\n{ALICE}ff\n");

    let log = log_of_a_start_refused_with(78, &setup);

    let said = log_lines(&log, "whitelist file");
    assert_eq!(said.len(), 1, "{log}");
    for line in ["line 2", "line 5", "line 6"] {
        assert!(said[0].contains(line), "{line}: {}", said[0]);
    }
    assert!(!said[0].contains("line 4"), "{}", said[0]);
}

#[test]
fn a_run_without_a_whitelist_says_what_to_give() {
    let setup = Setup::new();

    let (code, said) = run(&setup, &setup.state_dir(), &[]);

    assert_eq!(code, Some(78));
    assert!(said.contains("--whitelist") && said.contains("all"), "{said}");
    assert!(!setup.state_dir().exists(), "it has begun");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let setup = Setup::new();
    let daemon = setup.start();
    assert!(TcpStream::connect(("127.0.0.1", daemon.port)).is_ok());

    let other = setup.root.path().join("other");
    let listen = format!("127.0.0.1:{}", daemon.port);
    let (code, said) = run(&setup, &other, &["--whitelist", "all", "--listen", &listen]);

    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("cannot listen on 127.0.0.1:{}", daemon.port)), "{said}");
}

/// What tells of the inside of the process is not for everybody who reaches the public listener.
// H48
#[test]
fn the_public_listener_has_neither_profiles_nor_variables_nor_metrics() {
    let setup = Setup::new();
    let daemon = setup.start();

    for path in ["/debug/pprof", "/debug/pprof/", "/debug/pprof/heap", "/debug/vars", "/metrics"] {
        assert_eq!(daemon.get(path).0, 404, "{path}");
    }
    assert_eq!(daemon.get("/livez").0, 200);
}

#[test]
fn a_start_allows_itself_the_open_files_that_its_sessions_need_or_says_what_to_set() {
    let mut setup = Setup::new();
    setup.config = "[session]\nmax_sessions = 500\n".to_owned();
    let under = |limit: &str| -> Vec<String> {
        let script = format!("ulimit {limit}; exec \"$@\"");
        ["bash", "-c", &script, "--"].map(str::to_owned).to_vec()
    };
    let open_files = |pid: u32| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };

    setup.wrapper = under("-Sn 300");
    let daemon = setup.start();
    assert!(open_files(daemon.pid()) > 500, "raised");
    assert_eq!(daemon.stop().code(), Some(0));

    setup.wrapper = under("-n 300");
    let daemon = setup.start();
    assert_eq!(open_files(daemon.pid()), 300);
    assert!(daemon.log().contains("set LimitNOFILE in the unit"), "{}", daemon.log_tail());
}

//! The real program: its exit codes and what it says where.

// The exemption for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
};

use common::run_to_end;
use tempfile::TempDir;

/// The program with nothing in its environment but a home directory.
fn nodecast(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodecast"));
    command.args(args).env_clear().env("HOME", home).stdin(Stdio::null());
    command
}

fn output(args: &[&str]) -> Output {
    let home = TempDir::new().unwrap();
    run_to_end(&mut nodecast(home.path(), args))
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn check_tells_every_fault_and_exits_with_78() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("n.toml");
    fs::write(&file, "[store]\nretenton = 1\n[http]\nlisten = 8080\n").unwrap();
    let path = file.to_str().unwrap();

    let checked = nodecast(home.path(), &["config", "check", "--config", path])
        .env("NODECAST_LOG__LEVEL", "loud")
        .output()
        .unwrap();

    assert_eq!(checked.status.code(), Some(78));
    let said = stderr(&checked);
    for part in [
        "3 faults in the configuration",
        &format!("{path}:2:1: unknown key store.retenton, did you mean store.retention?"),
        &format!("{path}:4:10: http.listen = 8080 is of the wrong type (integer); accepted: an IP"),
        "environment NODECAST_LOG__LEVEL: log.level = \"loud\" is not understood; accepted:",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(stdout(&checked), "");
}

#[test]
fn the_default_file_checks_ok() {
    let home = TempDir::new().unwrap();
    let printed = output(&["config", "default"]);
    let file = home.path().join("default.toml");
    fs::write(&file, &printed.stdout).unwrap();

    let args = ["config", "check", "--config", file.to_str().unwrap()];
    let checked = run_to_end(&mut nodecast(home.path(), &args));

    assert_eq!(stdout(&checked), "ok\n", "{}", stderr(&checked));
    assert_eq!(checked.status.code(), Some(0));
}

#[test]
fn show_says_where_each_value_is_from() {
    let home = TempDir::new().unwrap();
    let args = ["config", "show", "--origin", "--listen", "[::1]:9", "--whitelist", "all"];

    let shown =
        nodecast(home.path(), &args).env("NODECAST_STORE__RETENTION", "36h").output().unwrap();

    assert_eq!(shown.status.code(), Some(0), "{}", stderr(&shown));
    let older = output(&["config", "show", "--origin", "-port=9"]);
    assert!(stdout(&older).contains("listen = \"0.0.0.0:9\"  # flag -port"), "{}", stderr(&older));
    for line in [
        "listen = \"[::1]:9\"  # flag --listen",
        "all = true  # flag --whitelist",
        "retention = \"36h\"  # environment NODECAST_STORE__RETENTION",
        "batch_delay = \"50ms\"  # default",
    ] {
        assert!(stdout(&shown).contains(line), "{line}: {}", stdout(&shown));
    }
}

#[test]
fn run_without_whitelist_or_data_directory_says_what_to_give() {
    let refused = output(&["run"]);

    assert_eq!(refused.status.code(), Some(78));
    assert!(stderr(&refused).contains("give --data-dir DIR"), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("give --whitelist FILE"), "{}", stderr(&refused));
}

// H44
#[test]
fn flags_of_the_older_service_mean_run_and_are_never_ignored() {
    let refused = output(&[
        "-data_dir=/data",
        "-port",
        "8080",
        "-redis_host=localhost",
        "-redis_pasword=hunter2",
        "-postgres_password=hunter2",
    ]);

    assert_eq!(refused.status.code(), Some(78));
    let said = stderr(&refused);
    assert!(said.contains("flag -redis_pasword: Redis arrives with the next release"), "{said}");
    assert!(said.contains("flag -postgres_password: PostgreSQL arrives"), "{said}");
    assert!(said.contains("no whitelist: give"), "{said}");
    assert!(said.contains("4 faults"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_command_line_that_is_not_understood_exits_with_2() {
    for args in [&["run", "--bogus"] as &[&str], &["bogus"], &[]] {
        assert_eq!(output(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn help_has_examples_and_the_version_is_told() {
    let help = output(&["run", "--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(stdout(&help).contains("nodecast run --data-dir ~/hl/data --whitelist"));
    assert!(stdout(&help).contains("-port=8080 listens on all interfaces"));

    let version = output(&["--version"]);
    assert_eq!(stdout(&version), format!("nodecast {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_reader_that_goes_away_is_no_fault() {
    let home = TempDir::new().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);

    let args = ["config", "default"];
    let printed = nodecast(home.path(), &args).stdout(writer).output().unwrap();

    assert_eq!(printed.status.code(), Some(0));
    assert_eq!(stderr(&printed), "");
}

#[test]
fn a_full_disk_is_a_fault() {
    let home = TempDir::new().unwrap();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();

    let printed = nodecast(home.path(), &["config", "default"]).stdout(full).output().unwrap();

    assert_eq!(printed.status.code(), Some(1));
    assert!(stderr(&printed).contains("nodecast: "), "{}", stderr(&printed));
}

#[test]
fn a_fault_at_run_is_logged_and_exits_with_1() {
    let home = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let args = ["run", "--data-dir", "/nowhere", "--whitelist", "all", "--listen", &address];

    let stopped = run_to_end(&mut nodecast(home.path(), &args));

    assert_eq!(stopped.status.code(), Some(1), "{}", stderr(&stopped));
    let last = stderr(&stopped).lines().last().unwrap();
    assert!(last.contains("\"level\":\"critical\",\"msg\":\"stopped by a fault\""), "{last}");
}

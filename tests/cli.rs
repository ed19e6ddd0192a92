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

/// What `run` would trip over is told by `config check`, all of it at once.
#[test]
fn check_looks_at_what_the_configuration_names_and_changes_nothing() {
    let home = TempDir::new().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    fs::write(path("list"), "# ours\nnobody\n0x010461c14e146ac35fe42271bdc1134ee31c703a\n0x12\n")
        .unwrap();
    fs::write(path("n.toml"), format!("[whitelist]\nfile = {:?}\n", path("list"))).unwrap();
    let state = path("list/state");
    let database = format!("sqlite:{}", path("absent/n.db"));

    let args = ["config", "check", "--config", &path("n.toml"), "--state-dir", &state];
    let args = [&args[..], &["--database-url", &database]].concat();
    let checked = run_to_end(&mut nodecast(home.path(), &args));

    assert_eq!(checked.status.code(), Some(78));
    let said = stderr(&checked);
    for part in [
        "3 faults in the configuration",
        &format!("{}:2:8: whitelist.file = {}: 2 bad lines, ", path("n.toml"), path("list")),
        "line 2: \"nobody\", line 4: \"0x12\"",
        &format!("flag --state-dir: state_dir = {state}: {} is not a directory", path("list")),
        &format!("flag --database-url: store.url = {database}: the directory {}", path("absent")),
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!home.path().join("absent").exists());
}

#[test]
fn check_refuses_what_run_refuses() {
    let home = TempDir::new().unwrap();
    for (faulty, part) in [
        (
            ["--whitelist", "/nope", "--listen", "127.0.0.1:0"],
            "whitelist.file = /nope: No such file",
        ),
        (["--whitelist", "/dev/null", "--listen", "127.0.0.1:0"], "/dev/null: not a regular file"),
        (["--whitelist", "all", "--listen", "127.0.0.1:99999"], "http.listen"),
        (["--whitelist", "all", "--database-url", "sqlite::memory:"], "names no file"),
        (["--whitelist", "all", "--database-url", "sqlite:///"], "names no file"),
        (["--whitelist", "all", "--database-url", "/n.db"], "store.url"),
        (["--whitelist", "all", "--database-url", "postgres://h/d?sslmode=bogus"], "an sslmode"),
        (["--whitelist", "all", "--database-url", "postgres:///d"], "names no host"),
        (["--whitelist", "all", "--database-url", "postgres://h:70000/d"], "has a port"),
        (["--whitelist", "all", "--database-url", "postgres://u:%zz@h/d"], "written as %25"),
        // On this machine a server is reached in plain; a file that is named is read all the same.
        (
            ["--whitelist", "all", "--database-url", "postgres://[::1]/d?sslrootcert=/nope"],
            "sslrootcert /nope: ",
        ),
        (
            ["--whitelist", "all", "--database-url", "postgres://[::1]/d?sslrootcert=/dev/null"],
            "sslrootcert /dev/null holds no certificate",
        ),
    ] {
        let command = |words: &[&str]| {
            let args = [words, &["--data-dir", "/nowhere"], &faulty].concat();
            run_to_end(&mut nodecast(home.path(), &args))
        };

        let (checked, run) = (command(&["config", "check"]), command(&["run"]));

        assert_eq!(checked.status.code(), Some(78), "{faulty:?}");
        assert!(stderr(&checked).contains(part), "{part}: {}", stderr(&checked));
        assert_eq!(run.status.code(), Some(78), "{faulty:?}: {}", stderr(&run));
    }
}

#[test]
fn check_makes_no_state_directory_and_finds_no_fault_in_one_that_can_be_made() {
    let home = TempDir::new().unwrap();
    let state = home.path().join("a/b").display().to_string();
    let database = format!("sqlite:{}", home.path().join("a/n.db").display());

    let args = ["config", "check", "--state-dir", &state, "--database-url", &database];
    let checked = run_to_end(&mut nodecast(home.path(), &args));

    assert_eq!(stdout(&checked), "ok\n", "{}", stderr(&checked));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
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
        "-redis_cluster=hunter2",
        "-postgres_password=hunter2",
    ]);

    assert_eq!(refused.status.code(), Some(78));
    let said = stderr(&refused);
    assert!(said.contains("flag -redis_cluster: not known; accepted: -redis_host"), "{said}");
    assert!(said.contains("flag -postgres_password: names no database"), "{said}");
    assert!(said.contains("no whitelist: give"), "{said}");
    assert!(said.contains("3 faults"), "{said}");
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
    assert!(stdout(&help).contains("-port=8080 listens on all"));

    let version = output(&["--version"]);
    assert_eq!(stdout(&version), format!("nodecast {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn man_pages_and_completions_are_those_of_the_commands_that_are_shown() {
    let folder = TempDir::new().unwrap();
    let directory = folder.path().join("docs");

    let made = output(&["generate-docs", directory.to_str().unwrap()]);

    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    assert!(read("man/nodecast-db-prune.1").contains("older\\-than"));
    assert!(read("man/nodecast.1").contains("nodecast\\-doctor"));
    let synopsis = |name: &str| {
        let page = read(&format!("man/{name}.1")).replace('\\', "");
        let (_, from) = page.split_once(".SH SYNOPSIS").unwrap();
        from.split(".SH ").next().unwrap().to_owned()
    };
    for (page, part) in [
        ("nodecast-run", "[--data-dir DIR...]"),
        ("nodecast-run", "[--database-url sqlite:PATH|postgres://..]"),
        ("nodecast-db-prune", "[--older-than DURATION]"),
        ("nodecast-whitelist-check", "ADDRESS..."),
        ("nodecast-backfill", "--from PATH..."),
    ] {
        assert!(synopsis(page).contains(part), "{part}: {}", synopsis(page));
    }
    for completion in ["nodecast.bash", "_nodecast", "nodecast.fish"] {
        let text = read(&format!("completions/{completion}"));
        assert!(text.contains("doctor") && text.contains("older-than"), "{completion}");
        assert!(!text.contains("generate-docs"), "{completion}");
    }
    assert!(!directory.join("man/nodecast-generate-docs.1").exists());
    // The package's commands find what its service does.
    let file = directory.join("nodecast.toml").display().to_string();
    let shown = output(&["config", "show", "--config", &file]);
    assert!(stdout(&shown).contains("state_dir = \"/var/lib/nodecast\""), "{}", stdout(&shown));
    assert!(stdout(&shown).contains("sqlite:/var/lib/nodecast/nodecast.db"), "{}", stdout(&shown));
    assert!(!stdout(&output(&["--help"])).contains("generate-docs"));
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

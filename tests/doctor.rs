//! `nodecast doctor`: each fault is made for real, and has to be told with its remedy.

// The exemption for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use common::{
    Setup, database, eventually,
    node::{ALICE, Kind, append, fills_line},
    postgres::PostgresServer,
    run_to_end,
};
use diesel::RunQueryDsl;
use nodecast::event::Timestamp;
use serde_json::Value;

/// What doctor is asked about: a node whose files are fresh, and free ports.
struct Patient {
    root: tempfile::TempDir,
    config: String,
    /// Of the node, below the root.
    place: &'static str,
    /// Runs the program, as another user for example.
    wrapper: Vec<String>,
}

struct Verdict {
    code: Option<i32>,
    report: Value,
}

impl Patient {
    fn new() -> Self {
        let patient = Self {
            root: tempfile::tempdir().unwrap(),
            config: "[whitelist]\nall = true\n[http]\nlisten = \"127.0.0.1:0\"\n".to_owned(),
            place: "node",
            wrapper: Vec::new(),
        };
        let mut file = Kind::fills(&patient.node()).open(20_260_315, 7);
        append(&mut file, &format!("{}\n", fills_line(7, ALICE, 1)));
        patient
    }

    fn node(&self) -> PathBuf {
        self.root.path().join(self.place)
    }

    fn config_file(&self) -> PathBuf {
        self.root.path().join("nodecast.toml")
    }

    fn ask(&self) -> Verdict {
        if !self.config_file().exists() {
            fs::write(self.config_file(), &self.config).unwrap();
        }
        let binary = env!("CARGO_BIN_EXE_nodecast").to_owned();
        let mut words = self.wrapper.iter().cloned().chain([binary]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .args(["doctor", "--json", "--config"])
            .arg(self.config_file())
            .arg("--data-dir")
            .arg(self.node())
            .arg("--state-dir")
            .arg(self.root.path().join("state"))
            .env_clear()
            .env("HOME", self.root.path());
        let output = run_to_end(&mut command);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let report = serde_json::from_str(&said)
            .unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
        Verdict { code: output.status.code(), report }
    }
}

impl Verdict {
    fn find(&self, mark: &str, text: &str) -> Option<&Value> {
        let mut checks = self.report["checks"].as_array().unwrap().iter();
        checks.find(|check| check["mark"] == mark && check["text"].as_str().unwrap().contains(text))
    }

    #[track_caller]
    fn assert_says(&self, mark: &str, text: &str) {
        assert!(self.find(mark, text).is_some(), "{mark} {text}: {:#}", self.report);
    }

    /// One thing is wrong: what, and what is to be done.
    #[track_caller]
    fn assert_fails_only_by(&self, text: &str, remedy: &str) {
        assert_eq!(self.code, Some(1), "{:#}", self.report);
        let check = self.find("fail", text).unwrap_or_else(|| panic!("{text}: {:#}", self.report));
        assert!(check["remedy"].as_str().unwrap().contains(remedy), "{remedy}: {check:#}");
        let checks = self.report["checks"].as_array().unwrap();
        let fails = checks.iter().filter(|check| check["mark"] == "fail").count();
        assert_eq!(fails, 1, "{:#}", self.report);
    }
}

fn everything_below(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path)
            } else {
                found.push((path.clone(), fs::read(path).unwrap()))
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_daemon_that_runs_well_has_nothing_wrong() {
    let setup = Setup::new();
    let mut file = Kind::fills(setup.node()).open(20_260_315, 7);
    append(&mut file, &format!("{}\n", fills_line(7, ALICE, 1)));
    let daemon = setup.start();
    eventually("the fill is stored", || setup.stored().len() == 1);

    append(&mut file, &format!("{}\n", fills_line(8, ALICE, 1)));
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodecast"));
    command
        .args(["doctor", "--json", "--whitelist", "all"])
        .args(["--listen", &format!("127.0.0.1:{}", daemon.port)])
        .args(["--state-dir".as_ref(), setup.state_dir().as_os_str()])
        .args(["--data-dir".as_ref(), setup.node().as_os_str()])
        .env_clear()
        .env("HOME", setup.root.path());
    let output = run_to_end(&mut command);

    let verdict = Verdict {
        code: output.status.code(),
        report: serde_json::from_slice(&output.stdout).unwrap(),
    };
    assert_eq!(verdict.code, Some(0), "{:#}", verdict.report);
    assert_eq!(verdict.report["ok"], true);
    let process = format!("process {}", daemon.pid());
    verdict.assert_says("ok", &format!("is taken by nodecast itself, {process}"));
    verdict.assert_says("ok", &format!("a daemon writes to it: {process} on "));
    verdict.assert_says("ok", "its tables are those of this program");
    verdict.assert_says("ok", "newest block 8 was written");
    verdict.assert_says("ok", "the running daemon may open");
}

#[test]
fn a_look_changes_nothing_neither_before_the_first_run_nor_after_the_last() {
    let patient = Patient::new();
    fs::write(patient.config_file(), &patient.config).unwrap();

    let before = everything_below(patient.root.path());
    let verdict = patient.ask();
    assert_eq!(verdict.code, Some(0), "{:#}", verdict.report);
    verdict.assert_says("ok", "does not exist yet");
    assert_eq!(everything_below(patient.root.path()), before);

    let mut setup = Setup::new();
    setup.from = "now";
    setup.start().stop();
    fs::rename(setup.state_dir(), patient.root.path().join("state")).unwrap();
    let before = everything_below(patient.root.path());
    patient.ask().assert_says("ok", "its tables are those of this program");
    assert_eq!(everything_below(patient.root.path()), before);
}

#[test]
fn a_directory_that_may_not_be_entered_is_told_with_the_command_that_opens_it() {
    let mut patient = Patient::new();
    let home = patient.node();
    fs::set_permissions(patient.root.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&home, Permissions::from_mode(0o700)).unwrap();
    if rustix::process::geteuid().is_root() {
        // Nobody may enter what is root's; the program has to lie where nobody can run it.
        let program = patient.root.path().join("nodecast");
        fs::copy(env!("CARGO_BIN_EXE_nodecast"), &program).unwrap();
        let words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c"];
        patient.wrapper = words.map(str::to_owned).to_vec();
        let script = format!("shift; exec {} \"$@\"", program.display());
        patient.wrapper.extend([script, "sh".to_owned()]);
    } else {
        fs::set_permissions(&home, Permissions::from_mode(0o000)).unwrap();
    }

    let verdict = patient.ask();

    fs::set_permissions(&home, Permissions::from_mode(0o755)).unwrap();
    assert_eq!(verdict.code, Some(1));
    let check = verdict.find("fail", &format!("may not read {}", home.display()));
    let check = check.unwrap_or_else(|| panic!("{:#}", verdict.report));
    let remedy = check["remedy"].as_str().unwrap();
    assert!(
        remedy.contains("setfacl -R -m u:") && remedy.contains("BindReadOnlyPaths"),
        "{remedy}"
    );
}

/// What BindReadOnlyPaths and ProtectHome=tmpfs do, as the unit has them: homes are hidden, and only
/// what is bound shows through, whatever the mode of the home above it.
#[test]
fn a_node_below_a_home_of_another_user_is_read_where_only_it_is_bound() {
    let may_mount = Command::new("unshare").args(["--mount", "true"]).output();
    if !rustix::process::geteuid().is_root() || !may_mount.is_ok_and(|done| done.status.success()) {
        eprintln!("SKIPPED: only root that may mount can show how a home is bound");
        return;
    }
    let mut patient = Patient::new();
    let root = patient.root.path().to_owned();
    let home = root.join("home");
    fs::create_dir_all(home.join("hl")).unwrap();
    fs::rename(patient.node(), home.join("hl/data")).unwrap();
    patient.place = "home/hl/data";
    fs::copy(env!("CARGO_BIN_EXE_nodecast"), root.join("nodecast")).unwrap();
    for (name, mode) in [("", 0o755), ("home", 0o750), ("state", 0o777), ("aside", 0o755)] {
        fs::create_dir_all(root.join(name)).unwrap();
        fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::chown(&home, Some(54_321), Some(54_321)).unwrap();
    let nobody = format!(
        "shift; exec setpriv --reuid=65534 --regid=65534 --clear-groups {} \"$@\"",
        root.join("nodecast").display()
    );
    let bind = format!(
        "set -e; mount --bind {home}/hl {root}/aside; mount -t tmpfs -o mode=0755 tmpfs {home}; \
         mkdir {home}/hl; mount --bind {root}/aside {home}/hl; mount -o remount,bind,ro {home}/hl; ",
        home = home.display(),
        root = root.display(),
    );
    let words =
        |script: &str| ["unshare", "--mount", "sh", "-c", script, "sh"].map(str::to_owned).to_vec();

    patient.wrapper = words(&nobody);
    let hindered = patient.ask();
    patient.wrapper = words(&(bind + &nobody));
    let bound = patient.ask();

    hindered
        .assert_fails_only_by(&format!("may not enter {} (mode 0750", home.display()), "setfacl");
    assert_eq!(bound.code, Some(0), "{:#}", bound.report);
    bound.assert_says("ok", "newest block 7 was written");
}

#[test]
fn a_missing_directory_and_one_that_is_no_nodes_are_told() {
    let patient = Patient::new();
    fs::remove_dir_all(patient.node()).unwrap();
    patient.ask().assert_fails_only_by("does not exist", "correct source.data_dirs");

    fs::create_dir(patient.node()).unwrap();
    patient.ask().assert_fails_only_by("there is none of node_fills_by_block", "--write-fills");
}

#[test]
fn files_without_block_numbers_are_told_with_the_flag_of_the_node() {
    let patient = Patient::new();
    fs::remove_dir_all(patient.node()).unwrap();
    append(&mut Kind::named(&patient.node(), "node_fills").open(20_260_315, 7), "[]\n");

    patient.ask().assert_fails_only_by("node_fills has no block numbers", "--batch-by-block");
}

#[test]
fn old_lines_are_told_by_their_age() {
    let patient = Patient::new();
    let old = Timestamp::now().minus(Duration::from_secs(3 * 3_600)).to_string();
    let now = Timestamp::now().to_string();
    let line = fills_line(9, ALICE, 1).replace(&now[..13], &old[..13]);
    fs::write(Kind::fills(&patient.node()).path(20_260_315, 7), line + "\n").unwrap();

    patient.ask().assert_fails_only_by("newest block 9 was written", "whether the node runs");
}

/// Appends to the file of a patient as a node does until doctor has spoken.
fn while_the_node_writes(
    patient: &Patient,
    write: impl Fn(&mut fs::File, u64) + Send + Sync,
) -> Verdict {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut file = Kind::fills(&patient.node()).open(20_260_315, 7);
            let mut block = 8;
            while !is_done.load(Ordering::Relaxed) {
                write(&mut file, block);
                block += 1;
                // The pace of blocks, which is what is looked at here.
                thread::sleep(Duration::from_millis(70));
            }
        });
        let verdict = patient.ask();
        is_done.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        verdict
    })
}

#[test]
fn a_node_that_keeps_lines_back_is_told_from_one_that_does_not() {
    let patient = Patient::new();

    let prompt = while_the_node_writes(&patient, |file, block| {
        append(file, &format!("{}\n", fills_line(block, ALICE, 1)));
    });
    let buffered = while_the_node_writes(&patient, |file, block| {
        // A whole line and the first half of the next.
        let line = fills_line(block, ALICE, 1);
        let (first, second) = line.split_at(60);
        append(file, &format!("{second}\n{first}"));
    });

    prompt.assert_says("ok", "the node does not buffer");
    buffered.assert_says("warn", "the node buffers");
    assert_eq!((prompt.code, buffered.code), (Some(0), Some(0)));
}

#[test]
fn a_port_that_somebody_else_has_is_told_with_its_process() {
    let mut patient = Patient::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    patient.config =
        patient.config.replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string());

    let text = format!("process {}", std::process::id());
    patient.ask().assert_fails_only_by(&text, "another port in http.listen");
}

#[test]
fn every_fault_of_the_configuration_is_told_and_the_rest_is_looked_at() {
    let mut patient = Patient::new();
    patient.config = "[whitelist]\nal = true\nfile = \"/nowhere\"\n".to_owned();

    let verdict = patient.ask();

    assert_eq!(verdict.code, Some(1));
    verdict.assert_says("fail", "unknown key whitelist.al, did you mean whitelist.all?");
    verdict.assert_says("fail", "/nowhere: ");
    verdict.assert_says("ok", "newest block 7 was written");
}

#[test]
fn a_password_that_everybody_may_read_is_told_and_never_shown() {
    let mut patient = Patient::new();
    // Nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    patient.config += &format!("[store]\nurl = \"postgres://ann:hunter2@127.0.0.1:{port}/db\"\n");
    fs::write(patient.config_file(), &patient.config).unwrap();
    fs::set_permissions(patient.config_file(), Permissions::from_mode(0o644)).unwrap();

    let open = patient.ask();
    fs::set_permissions(patient.config_file(), Permissions::from_mode(0o640)).unwrap();
    let closed = patient.ask();

    open.assert_says("fail", "holds the password of store.url and everybody may read it");
    closed.assert_fails_only_by("Connection refused", "whether the server runs");
    assert!(!open.report.to_string().contains("hunter2"), "{:#}", open.report);
}

#[test]
fn a_server_that_knows_another_password_or_no_such_database_is_told() {
    let server = PostgresServer::start();
    let with_password = server.url.replace("nodecast@", "nodecast:wrong@");
    let mut patient = Patient::new();
    let ask = |patient: &mut Patient, url: &str| {
        let config = patient.config.clone() + &format!("[store]\nurl = \"{url}\"\n");
        fs::write(patient.config_file(), config).unwrap();
        fs::set_permissions(patient.config_file(), Permissions::from_mode(0o600)).unwrap();
        patient.ask()
    };

    let well = ask(&mut patient, &server.url);
    assert_eq!(well.code, Some(0), "{:#}", well.report);
    well.assert_says("ok", "PostgreSQL 1");
    well.assert_says("ok", " to be applied: `run` does it");
    well.assert_says("ok", "connections are in use, we want 7");

    let absent = ask(&mut patient, &server.url.replace("/postgres", "/absent"));
    absent.assert_fails_only_by("database \"absent\" does not exist", "createdb");

    // Somebody who may connect and nothing else.
    let mut connection = database::postgres(&server.url);
    for statement in ["CREATE ROLE guest LOGIN", "REVOKE CREATE ON DATABASE postgres FROM PUBLIC"] {
        diesel::sql_query(statement).execute(&mut connection).unwrap();
    }
    let guest = ask(&mut patient, &server.url.replace("nodecast@", "guest@"));
    guest.assert_fails_only_by("guest may not make the schema", "GRANT CREATE ON DATABASE");

    server.require_passwords();
    eventually("the server asks for passwords", || {
        ask(&mut patient, &with_password).code == Some(1)
    });
    let refused = ask(&mut patient, &with_password);
    refused.assert_fails_only_by("password authentication failed", "correct user and password");
    let without = ask(&mut patient, &server.url);
    without.assert_fails_only_by("asks for a password", "correct user and password");
    assert!(!without.report.to_string().contains("not available"), "{:#}", without.report);
}

#[test]
fn a_list_in_redis_is_asked_for_its_type_and_its_members() {
    let url = std::env::var("NODECAST_TEST_REDIS")
        .expect("NODECAST_TEST_REDIS names a Redis server: scripts/test.sh starts one");
    let mut redis = bb8_redis::redis::Client::open(url.as_str()).unwrap().get_connection().unwrap();
    let key = format!("doctor_{}", fastrand::u64(..));
    let mut patient = Patient::new();
    patient.config = patient
        .config
        .replace("all = true", &format!("redis_url = \"{url}\"\nredis_key = \"{key}\""));

    patient.ask().assert_fails_only_by("there is no key", "whitelist.redis_key");

    let do_ = |redis: &mut bb8_redis::redis::Connection, words: &[&str]| {
        let mut command = bb8_redis::redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(word);
        });
        command.exec(redis).unwrap();
    };
    do_(&mut redis, &["SET", &key, "text"]);
    patient.ask().assert_fails_only_by("is a string", "a sorted set or a set");

    do_(&mut redis, &["DEL", &key]);
    do_(&mut redis, &["ZADD", &key, "1", ALICE]);
    let well = patient.ask();
    well.assert_says("ok", "has 1 member");
    assert_eq!(well.code, Some(0), "{:#}", well.report);
}

#[test]
fn a_redis_of_the_positions_that_is_away_fails_an_import_and_only_warns_of_a_mirror() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ask = |positions: &str| {
        let mut patient = Patient::new();
        let url = format!("redis://127.0.0.1:{port}");
        patient.config += &format!("[redis]\nurl = \"{url}\"\npositions = \"{positions}\"\n");
        patient.ask()
    };

    ask("import").assert_fails_only_by(&format!("127.0.0.1:{port}"), "correct redis.url");

    let warned = ask("mirror");
    warned.assert_says("warn", &format!("127.0.0.1:{port}"));
    assert_eq!(warned.code, Some(0), "{:#}", warned.report);
}

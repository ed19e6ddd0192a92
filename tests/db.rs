//! `nodecast db`: the database beside a daemon and without one, on both stores.

// The exemption for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use common::{
    Setup, TestDaemon, database, eventually,
    node::{ALICE, Kind, append, fills_line},
    run_to_end,
};
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection};
use nodecast::{
    event::Timestamp,
    generate::{Plan, Simulator},
};
use serde_json::Value;

struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn db(setup: &Setup, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodecast"));
    command.arg("db").args(args).arg("--state-dir").arg(setup.state_dir());
    if let Some(url) = &setup.database_url {
        command.args(["--database-url", url]);
    }
    command.env_remove("NODECAST_CONFIG").env("HOME", setup.root.path());
    let output = run_to_end(&mut command);
    Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[track_caller]
fn done(said: Said) -> String {
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    said.stdout
}

fn both_stores() -> [Setup; 2] {
    let mut on_postgres = Setup::new();
    on_postgres.database_url = Some(database::create_on_postgres());
    [Setup::new(), on_postgres]
}

/// Fifty hours of blocks, ten minutes apart, the last of an hour ago; stored by a daemon.
fn with_history(setup: &Setup) -> TestDaemon {
    let plan = Plan {
        seed: 5,
        users: 20,
        start: Some(Timestamp::now().minus(Duration::from_secs(51 * 3_600))),
        block_interval: Duration::from_secs(600),
        ..Plan::default()
    };
    let mut node = Simulator::new(plan, setup.node()).unwrap();
    node.write_blocks(300).unwrap();
    node.finish().unwrap();
    let rows = node.manifest().totals.rows as usize;
    let daemon = setup.start();
    eventually("all is stored", || setup.stored().len() == rows);
    daemon
}

#[test]
fn migrate_says_what_it_applies_and_check_changes_nothing() {
    for setup in both_stores() {
        let pending = db(&setup, &["migrate", "--check"]);
        assert_eq!(pending.code, Some(1), "{}", pending.stderr);
        let versions: Vec<&str> =
            pending.stdout.lines().map(|line| line.strip_prefix("pending ").unwrap()).collect();
        assert!(!versions.is_empty() && !setup.state_dir().exists());

        let applied = done(db(&setup, &["migrate"]));
        let expected: String = versions.iter().map(|one| format!("applied {one}\n")).collect();
        assert_eq!(applied, expected);

        assert_eq!(done(db(&setup, &["migrate"])), "nothing was pending\n");
        assert_eq!(done(db(&setup, &["migrate", "--check"])), "nothing is pending\n");
    }
}

#[test]
fn migrate_does_not_change_the_tables_under_a_daemon_that_writes() {
    let mut setup = Setup::new();
    let url = database::create_on_postgres();
    setup.database_url = Some(url.clone());
    let daemon = setup.start();
    assert_eq!(done(db(&setup, &["migrate"])), "nothing was pending\n");
    // As a newer program would see it: this one could not apply the migration again.
    let forget = "DELETE FROM nodecast.__diesel_schema_migrations WHERE version = \
                  (SELECT max(version) FROM nodecast.__diesel_schema_migrations)";
    diesel::sql_query(forget).execute(&mut database::postgres(&url)).unwrap();

    let refused = db(&setup, &["migrate"]);

    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    let holder = format!("process {}", daemon.pid());
    assert!(refused.stderr.contains(&holder), "{}", refused.stderr);
    assert!(refused.stderr.contains("stop it first"), "{}", refused.stderr);
    assert_eq!(db(&setup, &["migrate", "--check"]).code, Some(1));
}

#[test]
fn status_tells_of_the_store_beside_a_daemon_and_who_writes() {
    for setup in both_stores() {
        let absent = db(&setup, &["status"]);
        if setup.database_url.is_none() {
            assert_eq!(absent.code, Some(1));
            assert!(absent.stderr.contains("does not exist; `nodecast run`"), "{}", absent.stderr);
        }
        let daemon = with_history(&setup);

        let status: Value = serde_json::from_str(&done(db(&setup, &["status", "--json"]))).unwrap();
        let text = done(db(&setup, &["status"]));

        assert_eq!(status["holder"]["process"], daemon.pid(), "{status:#}");
        // Few are counted: a server knows none before its first ANALYZE.
        assert_eq!(status["rows"], setup.stored().len(), "{status:#}");
        assert_eq!(status["schema"]["pending"], Value::Array(Vec::new()));
        assert_eq!(status["gaps_open"], 0);
        let held = status["newest"].as_i64().unwrap() - status["oldest"].as_i64().unwrap();
        assert!((45 * 3_600_000_000..51 * 3_600_000_000).contains(&held), "{status:#}");
        assert!(status["bytes"].as_u64().unwrap() > 10_000);
        assert_eq!(status["partitions"].is_null(), setup.database_url.is_none());
        assert!(text.contains(&format!("process {} on ", daemon.pid())), "{text}");

        daemon.stop();
        let status = done(db(&setup, &["status"]));
        assert!(status.contains("writer     nobody"), "{status}");
    }
}

#[test]
fn prune_deletes_what_it_said_as_the_only_writer() {
    for setup in both_stores() {
        let daemon = with_history(&setup);

        // From elsewhere it does not meet the daemon, and finds the lease taken.
        let elsewhere = Setup::new();
        let url = format!("sqlite:{}", setup.database().display());
        let url = setup.database_url.clone().unwrap_or(url);
        let refused = db(&elsewhere, &["prune", "--older-than", "20h", "--database-url", &url]);
        assert_eq!(refused.code, Some(1), "{}", refused.stdout);
        let holder = format!("process {}", daemon.pid());
        assert!(refused.stderr.contains(&holder), "{}", refused.stderr);
        assert!(refused.stderr.contains("--state-dir"), "{}", refused.stderr);
        let before = setup.stored();
        let announced = done(db(&setup, &["prune", "--older-than", "20h", "--dry-run"]));
        assert_eq!(setup.stored(), before);
        daemon.stop();

        let pruned = done(db(&setup, &["prune", "--older-than", "20h"]));

        let after = setup.stored();
        let gone = before.len() - after.len();
        assert!(gone > 0 && !after.is_empty(), "{} of {}", gone, before.len());
        assert!(announced.starts_with(&format!("{gone} events before ")), "{announced}");
        assert!(pruned.starts_with(&format!("{gone} events before ")), "{pruned}");
        assert!(after.iter().all(|(id, row)| before.get(id) == Some(row)));
        // Also a daemon of another machine need not wait for the lease.
        assert!(done(db(&setup, &["status"])).contains("writer     nobody"));
        // What went is the oldest.
        for topic in ["fills", "misc"] {
            let of = |rows: &std::collections::BTreeMap<nodecast::event::EventId, _>| {
                let ids = rows.keys().filter(|id| id.topic.as_str() == topic);
                ids.map(|id| id.position).collect::<std::collections::BTreeSet<_>>()
            };
            let last = of(&before).difference(&of(&after)).max().copied();
            assert!(last < of(&after).first().copied(), "{topic}");
        }
        // Nobody holds the lease, and what went is not read again before what is new.
        let daemon = setup.start();
        let mut file = Kind::fills(setup.node()).open(30_000_101, 0);
        append(&mut file, &format!("{}\n", fills_line(1_050_500_000, ALICE, 1)));
        eventually("it follows its node", || setup.stored().len() > after.len());
        daemon.stop();
        assert_eq!(setup.stored().len(), after.len() + 1);
    }
}

#[test]
fn beside_a_daemon_it_is_the_daemon_that_prunes() {
    for setup in both_stores() {
        let daemon = with_history(&setup);
        let before = setup.stored();
        let announced = done(db(&setup, &["prune", "--older-than", "20h", "--dry-run"]));

        let pruned = done(db(&setup, &["prune", "--older-than", "20h"]));

        let after = setup.stored();
        let gone = before.len() - after.len();
        assert!(gone > 0 && !after.is_empty(), "{gone} of {}", before.len());
        assert!(announced.starts_with(&format!("{gone} events before ")), "{announced}");
        assert!(pruned.starts_with(&format!("{gone} events before ")), "{pruned}");
        assert!(after.iter().all(|(id, row)| before.get(id) == Some(row)));
        let status = daemon.status();
        assert_eq!(status["store"]["deleted"], gone, "{status}");
        assert_eq!(status["store"]["failures"], 0, "{status}");
        // It goes on with its work, under the lease that it has had all the time.
        let mut file = Kind::fills(setup.node()).open(30_000_101, 0);
        append(&mut file, &format!("{}\n", fills_line(1_050_500_000, ALICE, 1)));
        eventually("it follows its node", || setup.stored().len() == after.len() + 1);
        assert_eq!(daemon.stop().code(), Some(0));
    }
}

#[test]
fn a_daemon_is_not_asked_to_prune_another_store_than_its_own() {
    let setup = Setup::new();
    let daemon = with_history(&setup);
    let before = setup.stored();
    let other = Setup::new();
    with_history(&other).stop();
    let rows = other.stored().len();

    // Its state directory, and another database.
    let url = format!("sqlite:{}", other.database().display());
    let said = db(&setup, &["prune", "--older-than", "20h", "--database-url", &url]);

    assert!(done(said).contains(" were deleted"));
    assert!(other.stored().len() < rows);
    assert_eq!(setup.stored(), before);
    assert_eq!(daemon.status()["store"]["deleted"], 0);
}

#[test]
fn beside_a_daemon_that_knows_no_such_request_the_lease_decides() {
    let setup = Setup::new();
    with_history(&setup).stop();
    let before = setup.stored();
    // In the place of an older daemon, which does not write to this store any more.
    let older = UnixListener::bind(setup.state_dir().join("control.sock")).unwrap();
    let answering = thread::spawn(move || {
        let (mut stream, _) = older.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let answer = r#"{"version":1,"type":"error","code":"unknown_request","message":"what?"}"#;
        writeln!(stream, "{answer}").unwrap();
        line
    });

    let pruned = done(db(&setup, &["prune", "--older-than", "20h"]));

    let asked: Value = serde_json::from_str(&answering.join().unwrap()).unwrap();
    assert_eq!(asked["request"], "prune");
    let gone = before.len() - setup.stored().len();
    assert!(gone > 0 && pruned.starts_with(&format!("{gone} events before ")), "{pruned}");
}

/// The migrations that a store says it has had.
fn migrations(setup: &Setup) -> Vec<Version> {
    let select = "SELECT version FROM __diesel_schema_migrations ORDER BY version";
    match &setup.database_url {
        Some(url) => diesel::sql_query(select.replace("FROM ", "FROM nodecast."))
            .load(&mut database::postgres(url))
            .unwrap(),
        None => diesel::sql_query(select).load(&mut embedded(setup)).unwrap(),
    }
}

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = diesel::sql_types::Text)]
    version: String,
}

fn embedded(setup: &Setup) -> SqliteConnection {
    let mut connection =
        SqliteConnection::establish(&setup.database().display().to_string()).unwrap();
    diesel::sql_query("PRAGMA busy_timeout = 10000").execute(&mut connection).unwrap();
    connection
}

/// Runs a statement, whose tables have `{}` before their names.
fn change(setup: &Setup, statement: &str) {
    match &setup.database_url {
        Some(url) => {
            let statement = statement.replace("{}", "nodecast.");
            diesel::sql_query(statement).execute(&mut database::postgres(url)).unwrap();
        }
        None => {
            let statement = statement.replace("{}", "");
            diesel::sql_query(statement).execute(&mut embedded(setup)).unwrap();
        }
    }
}

#[test]
fn a_newer_daemon_waits_for_the_writer_before_it_changes_the_tables() {
    for setup in both_stores() {
        let mut file = Kind::fills(setup.node()).open(30_000_101, 0);
        let mut block = 1_050_500_000;
        let mut write = || {
            block += 1;
            append(&mut file, &format!("{}\n", fills_line(block, ALICE, 1)));
        };
        let first = setup.start();
        write();
        eventually("the first writes", || setup.stored().len() == 1);
        // To a newer program the tables would look so: they lack a migration that it has.
        let known = migrations(&setup);
        change(&setup, "DELETE FROM {}__diesel_schema_migrations");
        let mut second = Setup::new();
        second.data_dirs = setup.data_dirs.clone();
        let embedded = format!("sqlite:{}", setup.database().display());
        second.database_url = Some(setup.database_url.clone().unwrap_or(embedded));
        let holder = format!("process {} on ", first.pid());

        let mut refused = second.spawn();
        assert_eq!(refused.wait_exit().unwrap().code(), Some(1), "{}", refused.log_tail());
        let said = refused.log_tail();
        assert!(said.contains(&holder) && said.contains("the tables lack"), "{said}");

        second.config = "[store]\nstandby = true\n".to_owned();
        let standby = second.start();
        let (code, answer) = standby.get("/readyz");
        let reason = answer["reasons"][0].as_str().unwrap();
        assert!(reason.contains(&holder) && reason.contains("the tables lack"), "{reason}");
        assert_eq!(code, 503);
        eventually("the log says it", || {
            let log = standby.log();
            log.lines().any(|line| line.contains("standing by") && line.contains("tables lack"))
        });

        write();
        eventually("the first writes on", || setup.stored().len() == 2);
        assert!(migrations(&setup).is_empty(), "nothing was changed");
        for Version { version } in &known {
            let back = format!(
                "INSERT INTO {{}}__diesel_schema_migrations (version) VALUES ('{version}')"
            );
            change(&setup, &back);
        }
        first.kill();
        write();
        eventually("the standby writes", || setup.stored().len() == 3);
        assert_eq!(standby.stop().code(), Some(0));
    }
}

/// Two versions in one pair: the newer one has changed the tables while the older one stood by.
#[test]
fn a_standby_that_the_tables_have_outgrown_writes_nothing_when_it_gets_the_lease() {
    for setup in both_stores() {
        let first = setup.start();
        let mut second = Setup::new();
        second.data_dirs = setup.data_dirs.clone();
        second.config = "[store]\nstandby = true\n".to_owned();
        let embedded = format!("sqlite:{}", setup.database().display());
        second.database_url = Some(setup.database_url.clone().unwrap_or(embedded));
        let mut standby = second.start();
        assert_eq!(standby.get("/readyz").0, 503, "it stands by");
        let newer = "INSERT INTO {}__diesel_schema_migrations (version) VALUES ('29990101000000')";
        change(&setup, newer);
        let mut file = Kind::fills(setup.node()).open(30_000_101, 0);

        first.kill();
        append(&mut file, &format!("{}\n", fills_line(1_050_500_000, ALICE, 1)));

        assert_eq!(standby.wait_exit().unwrap().code(), Some(1), "{}", standby.log_tail());
        assert!(standby.log().contains("newer nodecast"), "{}", standby.log_tail());
        assert!(setup.stored().is_empty());
    }
}

/// Keeps every day of which something is stored.
fn keep_all_days(setup: &Setup) {
    let keep = |schema: &str| {
        diesel::sql_query(format!(
            "INSERT INTO {schema}kept_days \
             SELECT DISTINCT time / 86400000000, 4102444800000000 FROM {schema}events"
        ))
    };
    match &setup.database_url {
        Some(url) => keep("nodecast.").execute(&mut database::postgres(url)).unwrap(),
        None => {
            let path = setup.database().display().to_string();
            keep("").execute(&mut SqliteConnection::establish(&path).unwrap()).unwrap()
        }
    };
}

#[test]
fn prune_announces_and_takes_nothing_of_the_days_that_are_kept() {
    for setup in both_stores() {
        with_history(&setup).stop();
        let before = setup.stored();
        keep_all_days(&setup);

        let announced = done(db(&setup, &["prune", "--older-than", "20h", "--dry-run"]));
        let pruned = done(db(&setup, &["prune", "--older-than", "20h"]));

        assert!(announced.starts_with("0 events before "), "{announced}");
        assert!(pruned.starts_with("0 events before "), "{pruned}");
        let stay = "\nnot those of kept days (backfill --keep): ";
        assert!(announced.contains(stay) && pruned.contains(stay), "{announced}{pruned}");
        assert_eq!(setup.stored(), before);
        let status: Value = serde_json::from_str(&done(db(&setup, &["status", "--json"]))).unwrap();
        let days = status["kept_days"].as_array().unwrap();
        assert!((3..=4).contains(&days.len()), "{status:#}");
        assert_eq!(days[0]["until"], 4_102_444_800_000_000_i64);
        let text = done(db(&setup, &["status"]));
        let first = days[0]["day"].as_str().unwrap();
        assert!(text.contains(&format!("kept days  {} from {first} to ", days.len())), "{text}");
    }
}

#[test]
fn status_tells_the_times_of_a_store_in_which_all_is_back_filled() {
    for setup in both_stores() {
        let mut file = Kind::fills(setup.node()).open(20_260_315, 9);
        append(&mut file, &format!("{}\n", fills_line(1_050_500_000, ALICE, 1)));
        done(db(&setup, &["migrate"]));
        let mut backfill = Command::new(env!("CARGO_BIN_EXE_nodecast"));
        backfill.arg("backfill").arg("--from").arg(setup.node()).args(["--users", ALICE]);
        backfill.args(["--keep", "3650d", "--state-dir"]).arg(setup.state_dir());
        if let Some(url) = &setup.database_url {
            backfill.args(["--database-url", url]);
        }
        let output = run_to_end(backfill.env("HOME", setup.root.path()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

        let status: Value = serde_json::from_str(&done(db(&setup, &["status", "--json"]))).unwrap();

        assert!(status["oldest"].is_i64(), "{status:#}");
        assert_eq!(status["oldest"], status["newest"], "{status:#}");
        assert_eq!(status["kept_days"].as_array().unwrap().len(), 1, "{status:#}");
    }
}

#[test]
fn prune_asks_for_one_edge_that_is_past() {
    let setup = Setup::new();
    setup.start().stop();

    let neither = db(&setup, &["prune"]);
    assert_eq!(neither.code, Some(2));
    for edge in ["--older-than <DURATION>", "--before <TIME>"] {
        assert!(neither.stderr.contains(edge), "{}", neither.stderr);
    }
    assert_eq!(
        db(&setup, &["prune", "--older-than", "1d", "--before", "2026-01-01T00:00:00"]).code,
        Some(2)
    );
    let future = db(&setup, &["prune", "--before", "2999-01-01T00:00:00"]);
    assert_eq!(future.code, Some(1));
    assert!(future.stderr.contains("lies in the future"), "{}", future.stderr);
}

fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_backup_beside_a_daemon_is_a_store_from_which_one_can_go_on() {
    let setup = Setup::new();
    let daemon = with_history(&setup);
    let folder = setup.root.path().join("backups");
    fs::create_dir(&folder).unwrap();

    let said = done(db(&setup, &["backup", folder.to_str().unwrap()]));

    let name = names(&folder).pop().unwrap();
    assert!(name.starts_with("nodecast-2") && name.ends_with("Z.db"), "{name}");
    assert!(said.contains("to restore: stop nodecast, rm -f"), "{said}");
    let copy = folder.join(&name);
    assert_eq!(database::rows(&copy), setup.stored());
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);

    // It is not written over, and what fails leaves nothing behind.
    let again = db(&setup, &["backup", copy.to_str().unwrap()]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("exists: it is not written over"), "{}", again.stderr);
    assert_eq!(names(&folder), [name]);

    daemon.stop();
    let stored = setup.stored();
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(format!("{}{suffix}", setup.database().display())).ok();
    }
    fs::copy(&copy, setup.database()).unwrap();
    let daemon = setup.start();
    daemon.stop();
    assert_eq!(setup.stored(), stored);
}

#[test]
fn a_backup_of_postgres_is_restored_by_the_command_that_it_prints_and_into_an_empty_database() {
    let mut setup = Setup::new();
    setup.database_url = Some(database::create_on_postgres());
    let daemon = with_history(&setup);
    let file = setup.root.path().join("n.dump");

    let said = done(db(&setup, &["backup", file.to_str().unwrap()]));

    let restore = said.split("to restore: stop nodecast, ").nth(1).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    daemon.stop();
    let stored = setup.stored();
    let restored = run_to_end(Command::new("sh").args(["-c", restore]));
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    assert_eq!(setup.stored(), stored);
    let other = database::create_on_postgres();
    let restored = run_to_end(
        Command::new("pg_restore").args(["--exit-on-error", "--dbname", &other]).arg(&file),
    );
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    assert_eq!(database::rows(other.as_str()), stored);
    setup.database_url = Some(other);
    setup.start().stop();
    assert_eq!(setup.stored(), stored);
}

#[test]
fn without_pg_dump_a_backup_says_what_to_install_and_leaves_nothing() {
    let mut setup = Setup::new();
    let url = database::create_on_postgres().replace("nodecast@", "nodecast:hunter2@");
    setup.database_url = Some(url.clone());
    setup.start().stop();
    let folder = setup.root.path().join("backups");
    fs::create_dir(&folder).unwrap();

    let output = run_to_end(
        Command::new(env!("CARGO_BIN_EXE_nodecast"))
            .args(["db", "backup", "--database-url", &url])
            .arg(&folder)
            .env("PATH", "/nowhere")
            .env("HOME", setup.root.path()),
    );

    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("there is no pg_dump here: apt-get install"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    assert_eq!(names(&folder), [] as [String; 0]);
}

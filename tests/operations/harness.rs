//! What the tests of operations share: looks at the daemon, and ways to take its store away.

use diesel::{Connection, RunQueryDsl, SqliteConnection};
use rustix::process::{Resource, Rlimit};

use crate::common::{Setup, TestDaemon, database};

pub fn stored(setup: &Setup) -> usize {
    database::rows(&setup.database()).len()
}

/// The records of the log with this message or error.
pub fn log_lines<'l>(log: &'l str, text: &str) -> Vec<&'l str> {
    log.lines().filter(|line| line.contains(text)).collect()
}

pub fn reasons(daemon: &TestDaemon) -> String {
    daemon.status()["reasons"].to_string()
}

/// Sets how large the daemon's files may grow, as a full disk would.
pub fn limit_files(daemon: &TestDaemon, bytes: Option<u64>) {
    let pid = rustix::process::Pid::from_raw(daemon.pid() as i32).unwrap();
    let limit = Rlimit { current: bytes, maximum: None };
    rustix::process::prlimit(Some(pid), Resource::Fsize, limit).unwrap();
}

/// A backup tool, or an operator with a shell of SQLite, that forgets to end its transaction.
pub fn lock_database(setup: &Setup) -> SqliteConnection {
    let mut other = SqliteConnection::establish(&setup.database().display().to_string()).unwrap();
    diesel::sql_query("PRAGMA busy_timeout = 10000").execute(&mut other).unwrap();
    diesel::sql_query("BEGIN IMMEDIATE").execute(&mut other).unwrap();
    other
}

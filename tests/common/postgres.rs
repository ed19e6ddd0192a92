//! A PostgreSQL server of one test alone, to be killed, stopped, filled and started again.

use std::{
    cell::Cell,
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use diesel::RunQueryDsl;
use rustix::process::{Pid, Signal, kill_process};

use super::{database, eventually};

pub struct PostgresServer {
    directory: PathBuf,
    /// Of a database that is there from the start.
    pub url: String,
    hangs: Cell<bool>,
}

impl PostgresServer {
    pub fn start() -> Self {
        // Small segments of its log, so that a limit on the size of files meets the tables.
        Self::from_script("postgres_initdb_options=--wal-segsize=1; start_postgres")
    }

    /// Starts one whose new tables are on a disk of so many bytes, of which these are taken. `None`,
    /// said loudly, where the system lets nobody mount one.
    pub fn start_on_a_small_disk(bytes: u64, taken: u64) -> Option<Self> {
        let mut mount = Command::new("unshare");
        mount.args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"]);
        if !mount.output().is_ok_and(|output| output.status.success()) {
            // Not by a macro: what those print of a test that passes is swallowed.
            let said = "SKIPPED: no file system can be mounted here (unshare -m, as root)\n";
            io::stderr().write_all(said.as_bytes()).unwrap();
            return None;
        }
        let server = Self::from_script(&format!("start_postgres_with_a_small_disk {bytes}"));
        fs::write(server.ballast(), vec![0; taken as usize]).unwrap();
        let space = server.directory.join("small/space");
        server.run(&format!(
            "CREATE TABLESPACE small LOCATION '{}'; \
             ALTER DATABASE postgres SET default_tablespace = small",
            space.display()
        ));
        Some(server)
    }

    /// Gives back what was taken of the small disk.
    pub fn free_the_disk(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    /// As the server sees it.
    fn ballast(&self) -> PathBuf {
        let root = format!("/proc/{}/root", self.postmaster().as_raw_pid());
        format!("{root}{}/small/ballast", self.directory.display()).into()
    }

    fn from_script(start: &str) -> Self {
        let said = script(&format!("{start} && echo \"$postgres_dir $NODECAST_TEST_POSTGRES\""));
        let (directory, url) = said.trim().split_once(' ').expect("the script says both");
        Self { directory: directory.into(), url: url.to_owned(), hangs: Cell::new(false) }
    }

    /// Starts a hot standby that follows this one.
    pub fn start_replica(&self) -> Self {
        Self::from_script(&format!("start_postgres_replica {}", self.address().port()))
    }

    /// Makes a replica a server that is written to.
    pub fn promote(&self) {
        let command = format!(
            "as_postgres \"$(postgres_program pg_ctl)\" -D {}/data -w -t 60 promote >&2",
            self.directory.display()
        );
        script(&command);
    }

    pub fn address(&self) -> SocketAddr {
        let host = self.url.split_once('@').unwrap().1.split_once('/').unwrap().0;
        host.parse().unwrap()
    }

    /// Runs statements as the server's owner.
    pub fn run(&self, statements: &str) {
        for statement in statements.split(';').filter(|statement| !statement.trim().is_empty()) {
            diesel::sql_query(statement).execute(&mut database::postgres(&self.url)).unwrap();
        }
    }

    /// Runs one statement that the server may refuse; tells whether it was done.
    pub fn try_to(&self, statement: &str) -> bool {
        diesel::sql_query(statement).execute(&mut database::postgres(&self.url)).is_ok()
    }

    fn postmaster(&self) -> Pid {
        let file = self.directory.join("data/postmaster.pid");
        let pid = fs::read_to_string(file).unwrap().lines().next().unwrap().parse().unwrap();
        Pid::from_raw(pid).unwrap()
    }

    /// The server's own process and those of its connections.
    fn processes(&self) -> Vec<Pid> {
        let first = self.postmaster();
        let pid = first.as_raw_pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        [first].into_iter().chain(children.filter_map(Pid::from_raw)).collect()
    }

    /// Asks everybody for a password from now on.
    pub fn require_passwords(&self) {
        let rules = "host all all 127.0.0.1/32 scram-sha-256\nlocal all all trust\n";
        fs::write(self.directory.join("data/pg_hba.conf"), rules).unwrap();
        let directory = self.directory.display();
        script(&format!(
            "as_postgres \"$(postgres_program pg_ctl)\" -D {directory}/data reload >&2"
        ));
    }

    /// Kills it as the kernel does: it has no time for a last word.
    pub fn kill(&self) {
        kill_process(self.postmaster(), Signal::KILL).unwrap();
    }

    /// It hangs, and so do its connections; new ones are taken by the kernel.
    pub fn hang(&self) {
        self.hangs.set(true);
        self.signal(Signal::STOP);
    }

    pub fn wake(&self) {
        self.signal(Signal::CONT);
        self.hangs.set(false);
    }

    fn signal(&self, signal: Signal) {
        for process in self.processes() {
            // A connection may have ended in between.
            kill_process(process, signal).ok();
        }
    }

    /// Sets how large its files may grow, as a full disk would. Only who owns a process may, without
    /// a privilege that root lacks in many containers.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let bytes = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        for process in self.processes() {
            let pid = process.as_raw_pid();
            // A connection may have ended in between.
            script(&format!("as_postgres prlimit --pid {pid} --fsize={bytes}: || true"));
        }
    }

    /// Starts it again on the same port. Its last life can be in its way for a moment.
    pub fn restart(&self) {
        eventually("the server starts again", || {
            let directory = self.directory.display();
            let command = format!(
                "as_postgres \"$(postgres_program pg_ctl)\" -D {directory}/data -w -t 60 \
                 -l {directory}/log -o \"$(cat {directory}/options)\" start >&2 || echo failed"
            );
            !script(&command).contains("failed")
        });
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.hangs.get() {
            self.wake();
        }
        script(&format!("postgres_dir={} stop_servers", self.directory.display()));
    }
}

/// Runs a command with the functions of the script that starts servers; gives what it prints.
fn script(command: &str) -> String {
    let functions = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/servers.sh");
    let output = Command::new("bash")
        .args(["-c", &format!(". '{}'; {command}", functions.display())])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

//! A PostgreSQL server of one test alone, to be killed and started again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::eventually;

pub struct PostgresServer {
    directory: PathBuf,
    /// Of a database that is there from the start.
    pub url: String,
}

impl PostgresServer {
    pub fn start() -> Self {
        let said = script("start_postgres && echo \"$postgres_dir $NODECAST_TEST_POSTGRES\"");
        let (directory, url) = said.trim().split_once(' ').expect("the script says both");
        Self { directory: directory.into(), url: url.to_owned() }
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
        let file = self.directory.join("data/postmaster.pid");
        let pid = fs::read_to_string(file).unwrap().lines().next().unwrap().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
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

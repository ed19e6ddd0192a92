//! Starts the daemon on directories of its own, or uses one that runs.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{ledger::Ledger, node::Node, traffic::Traffic};

/// How long the daemon may take to start, to stop or to store what was written.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(10);

/// Of an empty store: as long as those of the network.
pub const FIRST_BLOCK: u64 = 1_000_000_000;

pub struct Daemon {
    pub address: SocketAddr,
    pub pid: Option<u32>,
    pub node: Node,
    /// The block that comes next: there is no gap to the ones before.
    pub next_block: u64,
    /// What others had written into its store before.
    stored_before: u64,
    /// Of a daemon that was started here.
    own: Option<Own>,
}

struct Own {
    child: Child,
    /// Removed at the end.
    directory: tempfile::TempDir,
}

impl Daemon {
    /// Starts it on an empty store and waits until it answers. `settings` are keys of its
    /// configuration with their values.
    pub fn start(
        program: &Path,
        settings: &[(String, String)],
        traffic: Traffic,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("nodecast-load-").tempdir()?;
        let (data, config) = (directory.path().join("data"), directory.path().join("empty.toml"));
        fs::create_dir(&data)?;
        fs::write(&config, "")?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = fs::File::create(directory.path().join("daemon.log"))?;
        let mut command = Command::new(program);
        command
            .args(["run", "--whitelist", "all", "--from", "oldest", "--listen"])
            .arg(address.to_string())
            .args([Path::new("--config"), &config, Path::new("--data-dir"), &data])
            .args([Path::new("--state-dir"), &directory.path().join("state")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        for (key, value) in settings {
            let name = key.replace('.', "__").to_uppercase();
            command.env(format!("NODECAST_{name}"), value);
        }
        let child = command.spawn().with_context(|| {
            format!(
                "{} does not start; `cargo build --release` makes it, --daemon names it",
                program.display()
            )
        })?;
        let mut daemon = Self {
            address,
            pid: Some(child.id()),
            node: Node::new(&data, traffic),
            next_block: FIRST_BLOCK,
            stored_before: 0,
            own: Some(Own { child, directory }),
        };
        daemon.wait_until_answering()?;
        Ok(daemon)
    }

    /// Uses one that runs and follows this node directory.
    pub fn running(
        address: SocketAddr,
        node: &Path,
        pid: Option<u32>,
        traffic: Traffic,
    ) -> anyhow::Result<Self> {
        let node = Node::new(node, traffic);
        let mut daemon =
            Self { address, pid, node, next_block: FIRST_BLOCK, stored_before: 0, own: None };
        daemon.stored_before = daemon.stored()?;
        let height = daemon.status()?["router"]["height"].as_u64().filter(|height| *height > 0);
        daemon.next_block = height.map_or(FIRST_BLOCK, |height| height + 1);
        Ok(daemon)
    }

    /// The first events of a stream wait for a commit, which is nothing to measure.
    pub fn warm_up(&mut self, ledger: &Ledger) -> anyhow::Result<()> {
        self.node.write(ledger, 1)?;
        self.wait_until_stored(ledger)
    }

    /// Waits until all that was written is in the store, once.
    ///
    /// # Errors
    /// When it does not happen: events are lost or stored twice.
    pub fn wait_until_stored(&self, ledger: &Ledger) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let stored = self.stored()? - self.stored_before;
            if stored == ledger.events() {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "{} events were written, {stored} are stored\n{}",
                ledger.events(),
                self.log_tail()
            );
            thread::sleep(LOOK);
        }
    }

    fn stored(&self) -> anyhow::Result<u64> {
        let status = self.status()?;
        status["store"]["inserted"].as_u64().context("its status tells no store.inserted")
    }

    pub fn status(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&get(self.address, "/v1/status")?)?)
    }

    /// Asks it to stop and waits for its end.
    ///
    /// # Errors
    /// When it does not end, or with a fault.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let Some(own) = &mut self.own else { return Ok(()) };
        let pid = Pid::from_raw(own.child.id() as i32).context("no process has the number 0")?;
        kill_process(pid, Signal::TERM)?;
        let begun = Instant::now();
        loop {
            if let Some(status) = own.child.try_wait()? {
                ensure!(status.success(), "the daemon ended with {status}\n{}", self.log_tail());
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "the daemon does not stop\n{}", self.log_tail());
            thread::sleep(LOOK);
        }
    }

    fn wait_until_answering(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while get(self.address, "/livez").is_err() {
            if let Some(own) = &mut self.own
                && let Some(status) = own.child.try_wait()?
            {
                bail!("the daemon ended at its start with {status}\n{}", self.log_tail());
            }
            ensure!(begun.elapsed() < PATIENCE, "the daemon does not answer\n{}", self.log_tail());
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn log_file(&self) -> Option<PathBuf> {
        self.own.as_ref().map(|own| own.directory.path().join("daemon.log"))
    }

    /// The end of its log, for whoever reads why something failed.
    fn log_tail(&self) -> String {
        let text = self.log_file().and_then(|path| fs::read_to_string(path).ok());
        let text = text.unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(own) = &mut self.own {
            // It has ended already after a proper stop; else nobody asks any more how it ends.
            drop(own.child.kill());
            drop(own.child.wait());
        }
    }
}

/// The body of an answer with status 200.
fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {}", head.lines().next().unwrap_or(""));
    Ok(body.to_owned())
}

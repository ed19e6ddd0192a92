//! Starts the real daemon as its own process, with its own directories and port.

#![allow(dead_code, reason = "each test file uses its share of the tools")]
// The helpers of tests are tests too, which clippy's own exception does not see.
#![allow(clippy::unwrap_used)]

pub mod database;
pub mod node;
pub mod postgres;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod tls;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    net::{TcpListener, TcpStream},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nodecast::{
    event::{Address, EventId},
    generate::{Gap, Row},
};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// How long a test waits for what has to happen. Only a broken daemon needs so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a daemon is started with; it can be started again and again on the same state.
pub struct Setup {
    pub root: tempfile::TempDir,
    pub data_dirs: Vec<PathBuf>,
    /// `all`, or addresses one a line; empty: what the configuration file says.
    pub whitelist: String,
    /// Of a PostgreSQL database; `None`: SQLite in the state directory.
    pub database_url: Option<String>,
    /// More of the configuration file.
    pub config: String,
    /// `oldest`, `now`, ...
    pub from: &'static str,
    /// Armed points, see `nodecast::failpoint`.
    pub failpoints: String,
    /// A command that is given the daemon's own and becomes it, such as `env`. Empty: none.
    pub wrapper: Vec<String>,
}

impl Setup {
    /// One node directory, everything kept, from the oldest file on.
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let data_dirs = vec![root.path().join("node")];
        fs::create_dir(&data_dirs[0]).unwrap();
        Self {
            root,
            data_dirs,
            whitelist: "all".to_owned(),
            database_url: None,
            config: String::new(),
            from: "oldest",
            failpoints: String::new(),
            wrapper: Vec::new(),
        }
    }

    pub fn node(&self) -> &Path {
        &self.data_dirs[0]
    }

    pub fn state_dir(&self) -> PathBuf {
        self.root.path().join("state")
    }

    pub fn database(&self) -> PathBuf {
        self.state_dir().join("nodecast.db")
    }

    /// What the daemon has stored, wherever that is.
    pub fn stored(&self) -> BTreeMap<EventId, (Option<Address>, String)> {
        match &self.database_url {
            Some(url) => database::rows(url.as_str()),
            None => database::rows(&self.database()),
        }
    }

    pub fn open_gaps(&self) -> Vec<(String, Gap)> {
        match &self.database_url {
            Some(url) => database::open_gaps(url.as_str()),
            None => database::open_gaps(&self.database()),
        }
    }

    /// # Panics
    /// See [`database::assert_equals_manifest`].
    pub fn assert_equals<'m>(&self, written: impl Iterator<Item = &'m Row>) {
        database::assert_equal(self.stored(), written);
    }

    pub fn whitelist_file(&self) -> PathBuf {
        self.root.path().join("whitelist")
    }

    /// Whether the state directory keeps the list of a source (`file`, `redis`, `config`), as it does
    /// when the daemon has begun to write by it.
    pub fn knows_list_of(&self, source: &str) -> bool {
        let kept = fs::read_dir(self.state_dir().join("whitelist")).into_iter().flatten();
        let mut names = kept.map(|entry| entry.unwrap().file_name());
        names.any(|name| name.to_str() == Some(&format!("{source}.list")))
    }

    /// Where the daemon's standard error goes.
    pub fn log_file(&self) -> PathBuf {
        self.root.path().join("daemon.log")
    }

    /// Where a fail point that kills says how many bytes were in flight.
    fn kill_report(&self) -> PathBuf {
        self.root.path().join("in-flight")
    }

    /// Bytes that were in flight when the daemon last killed itself, told once.
    pub fn bytes_in_flight_at_kill(&self) -> u64 {
        let bytes = fs::read_to_string(self.kill_report()).unwrap();
        fs::remove_file(self.kill_report()).unwrap();
        bytes.parse().unwrap()
    }

    /// Adds an empty node directory.
    pub fn add_node(&mut self) -> PathBuf {
        let directory = self.root.path().join(format!("node{}", self.data_dirs.len() + 1));
        fs::create_dir(&directory).unwrap();
        self.data_dirs.push(directory.clone());
        directory
    }

    /// Starts the daemon without waiting for its port.
    pub fn spawn(&self) -> TestDaemon {
        let config = self.root.path().join("nodecast.toml");
        fs::write(&config, &self.config).unwrap();
        let whitelist = if self.whitelist == "all" {
            "all".to_owned()
        } else {
            fs::write(self.whitelist_file(), &self.whitelist).unwrap();
            self.whitelist_file().display().to_string()
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = self.log_file();
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        let binary = env!("CARGO_BIN_EXE_nodecast").to_owned();
        let mut words = self.wrapper.iter().chain([&binary]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .arg("run")
            .args(["--config".as_ref(), config.as_os_str()])
            .args(["--state-dir".as_ref(), self.state_dir().as_os_str()])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--from", self.from])
            .env("NODECAST_FAILPOINTS", &self.failpoints)
            .env("NODECAST_FAILPOINT_REPORT", self.kill_report())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        if let Some(url) = &self.database_url {
            command.args(["--database-url", url]);
        }
        if !self.whitelist.is_empty() {
            command.args(["--whitelist", &whitelist]);
        }
        for data_dir in &self.data_dirs {
            command.args(["--data-dir".as_ref(), data_dir.as_os_str()]);
        }
        TestDaemon { child: command.spawn().unwrap(), port, log }
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(&self) -> TestDaemon {
        let mut daemon = self.spawn();
        daemon.wait_until_answering();
        daemon
    }
}

/// A running daemon; it is killed when the test ends.
pub struct TestDaemon {
    child: Child,
    pub port: u16,
    log: PathBuf,
}

pub type Client = WebSocket<tungstenite::stream::MaybeTlsStream<TcpStream>>;

impl TestDaemon {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The port is taken before the store is opened: an answer comes when both are done.
    fn wait_until_answering(&mut self) {
        let livez = format!("http://127.0.0.1:{}/livez", self.port);
        let answers = until(PATIENCE, || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended: {ended:?}\n{}", self.log_tail());
            get(&livez).call().is_ok()
        });
        assert!(answers, "nobody answers\n{}", self.log_tail());
    }

    /// Ends the process as a power cut would.
    pub fn kill(mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait_exit().expect("the daemon does not stop")
    }

    /// Waits for the end of the process; `None` when it lives on.
    pub fn wait_exit(&mut self) -> Option<ExitStatus> {
        self.wait_exit_for(PATIENCE)
    }

    pub fn wait_exit_for(&mut self, patience: Duration) -> Option<ExitStatus> {
        let mut status = None;
        until(patience, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status
    }

    /// Gives the status code and the JSON of a GET request.
    pub fn get(&self, path: &str) -> (u16, Value) {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let request = get(&url).config().http_status_as_error(false).build();
        let mut response = request.call().unwrap();
        let body = response.body_mut().with_config().limit(1 << 30).read_to_string().unwrap();
        (response.status().as_u16(), serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    pub fn status(&self) -> Value {
        self.get("/v1/status").1
    }

    /// Opens a WebSocket.
    pub fn connect(&self, path: &str) -> Client {
        let url = format!("ws://127.0.0.1:{}{path}", self.port);
        let (client, _response) = tungstenite::connect(url).unwrap();
        if let tungstenite::stream::MaybeTlsStream::Plain(stream) = client.get_ref() {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        client
    }

    /// Opens a WebSocket with a live subscription to all events of a topic.
    pub fn subscribe(&self, topic: &str) -> Client {
        let mut client = self.connect("/v1/ws");
        send(&mut client, &json!({"type": "subscribe", "id": 1, "topic": topic}));
        receive_type(&mut client, "ack");
        client
    }

    /// All it has said on standard error, earlier runs on the same state included.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of its log, for the message of a failed test.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().rev().take(40).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        // It may have ended already.
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

/// A GET request that does not wait forever.
pub fn get(url: &str) -> ureq::RequestBuilder<ureq::typestate::WithoutBody> {
    ureq::get(url).config().timeout_global(Some(PATIENCE)).build()
}

/// Runs a program that has to end by itself, and gives what it said. Standard error and standard
/// output are pipes unless the command says otherwise.
///
/// # Panics
/// When it lives on; it is killed then.
pub fn run_to_end(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    end_of(child)
}

/// Waits for the end of a child, reading what it says meanwhile so that no full pipe stops it.
pub fn end_of(mut child: Child) -> Output {
    fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
        thread::spawn(move || {
            let mut said = Vec::new();
            if let Some(mut pipe) = pipe {
                pipe.read_to_end(&mut said).unwrap();
            }
            said
        })
    }
    let (stdout, stderr) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let mut status = None;
    let has_ended = until(PATIENCE, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    if !has_ended {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let said = String::from_utf8_lossy(&stderr);
    let status = status.unwrap_or_else(|| panic!("it does not end; it said:\n{said}"));
    Output { status, stdout, stderr }
}

/// Whether the process was ended by SIGKILL.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(rustix::process::Signal::KILL.as_raw())
}

pub fn send(client: &mut Client, frame: &Value) {
    client.send(Message::text(frame.to_string())).unwrap();
}

/// Reads the next text frame, passing over pings.
pub fn receive(client: &mut Client) -> Value {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Message::Text(text) = client.read().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
    panic!("only pings come");
}

/// Reads frames until one of this type comes; others, such as heartbeats, are passed over.
///
/// # Panics
/// When an error frame comes first, or the client is not heard for [`PATIENCE`].
pub fn receive_type(client: &mut Client, wanted: &str) -> Value {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let frame = receive(client);
        if frame["type"] == wanted {
            return frame;
        }
        assert_ne!(frame["type"], "error", "{frame}");
    }
    panic!("no {wanted} came");
}

/// Waits until a condition holds.
///
/// # Panics
/// When it does not hold within [`PATIENCE`].
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    assert!(until(PATIENCE, holds), "did not happen: {what}");
}

/// Asks until a condition holds, at first often and then more rarely. Gives whether it does, at the end
/// of the patience too.
pub fn until(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let over = start.elapsed() >= patience;
        if holds() {
            return true;
        }
        if over {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

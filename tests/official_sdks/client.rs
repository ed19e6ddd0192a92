//! A client's process: commands go in, what it meets comes out; see `tests/sdk/README.md`.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::fs::symlink,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::common::{PATIENCE, until};

/// How often somebody who waits for a client looks at what it has said.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sdk {
    Python,
    TypeScript,
    Rust,
}

impl Sdk {
    /// Says where `scripts/test.sh` has put it.
    fn variable(self) -> &'static str {
        match self {
            Self::Python => "NODECAST_SDK_PYTHON",
            Self::TypeScript => "NODECAST_SDK_NODE_MODULES",
            Self::Rust => "NODECAST_SDK_RUST",
        }
    }

    /// Whether it is installed; otherwise says loudly that a test is skipped.
    pub fn is_here(self) -> bool {
        let here = env::var_os(self.variable()).is_some();
        if !here {
            let script =
                if self == Self::Rust { "scripts/test.sh --all" } else { "scripts/test.sh" };
            // Not by a macro: what those print of a test that passes is swallowed.
            let said =
                format!("SKIPPED: no {} says where an SDK is: {script} does\n", self.variable());
            io::stderr().write_all(said.as_bytes()).unwrap();
        }
        here
    }

    fn command(self, server: SocketAddr, options: &Value, directory: &Path) -> Command {
        let installed = env::var_os(self.variable()).expect("is_here was asked");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk");
        let url = format!("http://{server}");
        let mut command = match self {
            Self::Python => {
                let mut command = Command::new(installed);
                command.arg(sources.join("python/client.py")).arg(url).arg(options.to_string());
                command
            }
            Self::TypeScript => {
                // Node looks for modules beside a program, and nowhere else.
                let program = directory.join("client.mjs");
                fs::copy(sources.join("typescript/client.mjs"), &program).unwrap();
                symlink(installed, directory.join("node_modules")).unwrap();
                let mut command = Command::new("node");
                command.arg(program).arg(url);
                command
            }
            Self::Rust => Command::new(installed),
        };
        // Nothing of a test goes through somebody's proxy.
        command.env("NO_PROXY", "*").env("no_proxy", "*").env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// The address that the Rust SDK has for a local server is for one test at a time.
pub fn port_of_the_rust_sdk() -> MutexGuard<'static, ()> {
    static PORT: Mutex<()> = Mutex::new(());
    PORT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came of a command.
pub type Answer = Result<Value, String>;

/// A running client; it is killed when its test fails.
pub struct Client {
    pub sdk: Sdk,
    child: Child,
    commands: Option<ChildStdin>,
    said: Receiver<String>,
    /// Of the last command.
    id: u64,
    answers: BTreeMap<u64, Answer>,
    messages: BTreeMap<u64, Vec<Value>>,
    /// What it said besides: frames, states of its connections, complaints.
    pub others: Vec<Value>,
    directory: tempfile::TempDir,
}

impl Client {
    /// Starts a client of a server and waits until it has started.
    pub fn start(sdk: Sdk, server: SocketAddr, options: &Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = sdk.command(server, options, directory.path());
        let stderr = File::create(directory.path().join("stderr")).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (lines, said) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines() {
                if lines.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        let mut client = Self {
            sdk,
            commands: child.stdin.take(),
            child,
            said,
            id: 0,
            answers: BTreeMap::new(),
            messages: BTreeMap::new(),
            others: Vec::new(),
            directory,
        };
        client.answer(0).unwrap();
        client
    }

    /// Sends a command and gives its number.
    pub fn command(&mut self, mut command: Value) -> u64 {
        self.id += 1;
        command["id"] = json!(self.id);
        let commands = self.commands.as_mut().unwrap();
        writeln!(commands, "{command}").unwrap();
        commands.flush().unwrap();
        self.id
    }

    /// Sends a command and waits for what comes of it.
    pub fn call(&mut self, command: Value) -> Answer {
        let id = self.command(command);
        self.answer(id)
    }

    /// Waits for what comes of a command.
    pub fn answer(&mut self, id: u64) -> Answer {
        self.wait("an answer", |client| client.answers.contains_key(&id));
        self.answers.remove(&id).unwrap()
    }

    pub fn is_answered(&self, id: u64) -> bool {
        self.answers.contains_key(&id)
    }

    /// The data of all messages of a subscription so far.
    pub fn messages(&self, subscription: u64) -> &[Value] {
        self.messages.get(&subscription).map_or(&[], Vec::as_slice)
    }

    /// Whether there are messages of a subscription that was made later than this one.
    pub fn hears_of_later_than(&self, subscription: u64) -> bool {
        self.messages.last_key_value().is_some_and(|(&last, _)| last > subscription)
    }

    /// Waits until a condition holds for what it has said.
    ///
    /// # Panics
    /// When it does not within [`PATIENCE`], or when the client ends or says what is no JSON.
    pub fn wait(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        let stderr = self.directory.path().join("stderr");
        let stderr = || fs::read_to_string(&stderr).unwrap();
        while !holds(self) {
            assert!(
                start.elapsed() < PATIENCE,
                "{:?} waited in vain for {what}; it has {:?}\n{}",
                self.sdk,
                self.others,
                stderr()
            );
            if !self.listen() {
                let ended = self.child.wait().unwrap();
                panic!("{:?} ended ({ended}) before {what}:\n{}", self.sdk, stderr());
            }
        }
    }

    /// Takes in what it says now; waits a moment when it says nothing. Tells whether it lives.
    pub fn listen(&mut self) -> bool {
        match self.said.recv_timeout(LOOK) {
            Ok(line) => self.take(&line),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        while let Ok(line) = self.said.try_recv() {
            self.take(&line);
        }
        true
    }

    fn take(&mut self, line: &str) {
        let mut said: Value = serde_json::from_str(line)
            .unwrap_or_else(|_| panic!("{:?} itself says: {line}", self.sdk));
        let Some(id) = said["id"].as_u64() else {
            self.others.push(said);
            return;
        };
        if let Some(failed) = said["failed"].as_str() {
            self.answers.insert(id, Err(failed.to_owned()));
        } else if let Some(done) = said.get_mut("done") {
            self.answers.insert(id, Ok(done.take()));
        } else if let Some(message) = said.get_mut("message") {
            let data = match self.sdk {
                // It hands over the whole frame.
                Sdk::Python => message["data"].take(),
                Sdk::TypeScript | Sdk::Rust => message.take(),
            };
            self.messages.entry(id).or_default().push(data);
        } else {
            self.others.push(said);
        }
    }

    /// Ends it in order, and gives what it had still to say.
    pub fn end(mut self) -> Vec<Value> {
        self.commands = None;
        let ended = until(PATIENCE, || !self.listen() && self.child.try_wait().unwrap().is_some());
        assert!(ended, "{:?} does not end", self.sdk);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{:?} ended with {status}", self.sdk);
        std::mem::take(&mut self.others)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended already.
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

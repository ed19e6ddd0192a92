//! A real Redis, and a client of it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::PATIENCE;

/// A connection that shares no code with the daemon's.
pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn connect(port: u16) -> Self {
        let start = Instant::now();
        loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return Self(BufReader::new(stream));
                }
                Err(error) => assert!(start.elapsed() < PATIENCE, "no Redis: {error}"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Gives the first line of the answer.
    pub fn ask(&mut self, words: &[&str]) -> String {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Gives an answer that is one text; `None` where there is nothing.
    pub fn text(&mut self, words: &[&str]) -> Option<String> {
        let head = self.ask(words);
        let len: usize = head.strip_prefix('$').expect("a text").parse().ok()?;
        let mut text = vec![0; len + 2];
        self.0.read_exact(&mut text).unwrap();
        text.truncate(len);
        Some(String::from_utf8(text).unwrap())
    }

    pub fn run(&mut self, words: &[&str]) {
        let answer = self.ask(words);
        assert!(answer.starts_with([':', '+']), "{answer}");
    }

    /// Adds members, `score` and member each, to a sorted set.
    pub fn list(&mut self, key: &str, members: &[(String, String)]) {
        let mut words = vec!["ZADD", key];
        words.extend(members.iter().flat_map(|(score, member)| [&**score, &**member]));
        self.run(&words);
    }
}

/// A Redis of one test alone.
pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_on(port, &[])
    }

    pub fn start_on(port: u16, more: &[&str]) -> Self {
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is needed: scripts/test.sh installs it");
        Self { child, port }
    }

    pub fn client(&self) -> Client {
        let mut client = Client::connect(self.port);
        assert_eq!(client.ask(&["PING"]), "+PONG");
        client
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

/// The server of all tests.
pub fn shared() -> (String, Client) {
    let url = std::env::var("NODECAST_TEST_REDIS")
        .expect("NODECAST_TEST_REDIS is needed: run the tests by scripts/test.sh");
    let port = url.rsplit_once(':').unwrap().1.parse().unwrap();
    (url, Client::connect(port))
}

pub fn user(ordinal: u64) -> String {
    format!("0x{ordinal:040x}")
}

/// Users of these ordinals, all with one score.
pub fn users(ordinals: std::ops::Range<u64>, score: u64) -> Vec<(String, String)> {
    ordinals.map(|ordinal| (score.to_string(), user(ordinal))).collect()
}

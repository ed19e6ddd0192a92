//! HTTP as bytes on a socket, for what no client library would send.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;

use super::PATIENCE;

/// A handshake for the native protocol, to which headers can be added.
pub const HANDSHAKE: &str = "GET /v1/ws HTTP/1.1\r\nHost: n\r\nConnection: upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

pub fn connect(port: u16) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// An answer to the end of its connection.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Seconds.
    pub retry_after: Option<u64>,
    /// Null where it is no JSON.
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or_default())
    }
}

/// Sends the lines of a request's head, and reads the answer.
pub fn ask(port: u16, head: &str) -> Answer {
    let mut socket = connect(port);
    socket.write_all(head.as_bytes()).unwrap();
    let end = if head.contains("Host:") { "\r\n" } else { "Host: n\r\nConnection: close\r\n\r\n" };
    socket.write_all(end.as_bytes()).unwrap();
    read(socket)
}

/// Reads an answer to the end of its connection.
pub fn read(mut socket: TcpStream) -> Answer {
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let head = head.to_lowercase();
    let wait = head.lines().find_map(|line| line.strip_prefix("retry-after: "));
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        retry_after: wait.map(|wait| wait.parse().unwrap()),
        body: serde_json::from_str(body).unwrap_or_default(),
    }
}

/// Lets this process have as many open files as the system allows.
pub fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

//! A client that is nothing but a socket.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
};

use crate::harness::{PATIENCE, Server};

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;
/// The last fragment of a message, or its only one.
pub const FIN: u8 = 0x80;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame of a client, masked. `first` is the whole first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
    frame
}

/// A message in fragments of at most this size.
pub fn fragmented(opcode: u8, payload: &[u8], size: usize) -> Vec<u8> {
    let pieces: Vec<_> = payload.chunks(size).collect();
    let last = pieces.len() - 1;
    let one = |(at, piece): (usize, &&[u8])| {
        let opcode = if at == 0 { opcode } else { CONTINUATION };
        frame(if at == last { FIN | opcode } else { opcode }, piece)
    };
    pieces.iter().enumerate().flat_map(one).collect()
}

pub fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason);
    frame(FIN | CLOSE, &payload)
}

pub struct Peer {
    socket: TcpStream,
    /// What came and was not looked at yet.
    received: Vec<u8>,
    /// The answer to the handshake.
    pub accepted: String,
}

impl Peer {
    /// Knocks at the echo's door.
    pub fn connect(server: &Server) -> Self {
        Self::connect_with(server, "/echo", "")
    }

    /// With more lines in the head of the handshake, each with its end.
    pub fn connect_with(server: &Server, path: &str, head: &str) -> Self {
        let mut socket = TcpStream::connect(server.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // Each write is a packet of its own.
        socket.set_nodelay(true).unwrap();
        let handshake = format!(
            "GET {path} HTTP/1.1\r\nHost: n\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{head}\r\n"
        );
        socket.write_all(handshake.as_bytes()).unwrap();
        let mut peer = Self { socket, received: Vec::new(), accepted: String::new() };
        let end = loop {
            if let Some(at) = peer.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(peer.receive(), "the handshake is not answered");
        };
        peer.accepted = String::from_utf8(peer.received.drain(..end).collect()).unwrap();
        assert!(peer.accepted.starts_with("HTTP/1.1 101 "), "{}", peer.accepted);
        // The example of RFC 6455.
        assert!(peer.accepted.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{}", peer.accepted);
        peer
    }

    pub fn say(&mut self, bytes: &[u8]) {
        // What ends a session may end it before all is written.
        drop(self.socket.write_all(bytes));
    }

    /// Says it in writes of at most this size.
    pub fn chop(&mut self, bytes: &[u8], size: usize) {
        bytes.chunks(size).for_each(|piece| self.say(piece));
    }

    /// The first byte and the payload of the next frame; none when the server has closed.
    pub fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let &[first, short, ref rest @ ..] = &self.received[..] {
                assert_eq!(short & 0x80, 0, "servers use no mask");
                let (start, length) = match short {
                    126 if rest.len() >= 2 => (4, usize::from(rest[0]) << 8 | usize::from(rest[1])),
                    127 if rest.len() >= 8 => {
                        (10, rest[..8].iter().fold(0, |length, byte| length << 8 | *byte as usize))
                    }
                    126 | 127 => (0, usize::MAX),
                    short => (2, usize::from(short)),
                };
                if length <= self.received.len().saturating_sub(start) {
                    let shortest = [(2, 0), (4, 126), (10, 65_536)];
                    assert!(
                        shortest.iter().any(|&(bytes, least)| bytes == start && length >= least)
                    );
                    let payload = self.received[start..start + length].to_vec();
                    self.received.drain(..start + length);
                    return Some((first, payload));
                }
            }
            if !self.receive() {
                assert!(self.received.is_empty(), "half a frame");
                return None;
            }
        }
    }

    /// The next frame is this one.
    #[track_caller]
    pub fn hears(&mut self, first: u8, payload: &[u8]) {
        let (came, content) = self.next().expect("a frame, not the end");
        assert_eq!(came, first, "{:?}", String::from_utf8_lossy(&content));
        // Of a long one the difference says more than all of it.
        let differs = content.iter().zip(payload).position(|(came, said)| came != said);
        assert_eq!((content.len(), differs), (payload.len(), None));
    }

    /// Says something, and nothing but its echo comes back.
    #[track_caller]
    pub fn echoes(&mut self, opcode: u8, payload: &[u8]) {
        self.say(&frame(FIN | opcode, payload));
        self.hears(FIN | opcode, payload);
    }

    /// The next frame closes with this code, and nothing follows.
    #[track_caller]
    pub fn ends(&mut self, code: u16) {
        let (first, payload) = self.next().expect("a close frame");
        assert_eq!(first, FIN | CLOSE, "{:?}", String::from_utf8_lossy(&payload));
        assert_eq!(payload.first_chunk().map(|code| u16::from_be_bytes(*code)), Some(code));
        std::str::from_utf8(&payload[2..]).unwrap();
        assert_eq!(self.next(), None);
    }

    /// Closes as one should, and nothing else was on its way.
    #[track_caller]
    pub fn leaves(&mut self) {
        self.say(&close(1000, b"done"));
        self.ends(1000);
    }

    fn receive(&mut self) -> bool {
        let mut chunk = [0; 16 << 10];
        match self.socket.read(&mut chunk) {
            Ok(read) => {
                self.received.extend_from_slice(&chunk[..read]);
                read > 0
            }
            // Something of ours came behind its end.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }
}

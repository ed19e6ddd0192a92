//! The reference: one thread that accepts, and writes the same bytes to everybody. No server can
//! deliver cheaper by one write a client and block, so its cost is what the kernel takes.
//!
//! Handshake, `hello` and `ack` have the daemon's form, so that the same client drives both. What
//! clients say is thrown away.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, EventData, EventFlags},
};
use socket2::{Domain, Socket, Type};

use super::raw::TICK_BYTES;
use crate::frame::{self, TEXT};

/// As the daemon's default.
const SEND_BUFFER_BYTES: usize = 256 << 10;
const BACKLOG: i32 = 4_096;

/// The key is the example of RFC 6455, which every client of this program sends.
const HANDSHAKE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

const LISTENER: u64 = u64::MAX;
const FEED: u64 = u64::MAX - 1;

struct Client {
    stream: TcpStream,
    /// How far it has come: asked, then subscribed.
    asked: bool,
    live: bool,
    /// What its socket did not take.
    waiting: Vec<u8>,
}

struct Writer {
    epoll: OwnedFd,
    listener: TcpListener,
    /// Standard input without the buffer of the standard library, of which epoll knows nothing.
    feed: File,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    payload_bytes: usize,
}

/// Serves until its standard input ends.
pub fn run(payload_bytes: usize) -> anyhow::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from(socket);
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let feed = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    epoll::add(&epoll, &feed, EventData::new_u64(FEED), EventFlags::IN)?;
    writeln!(io::stdout(), "{}", listener.local_addr()?)?;
    let (clients, free) = (Vec::new(), Vec::new());
    Writer { epoll, listener, feed, clients, free, payload_bytes }.serve()
}

impl Writer {
    fn serve(mut self) -> anyhow::Result<()> {
        let mut ready = Vec::with_capacity(1_024);
        loop {
            ready.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut ready), None) {
                Err(rustix::io::Errno::INTR) => continue,
                waited => waited?,
            };
            for event in ready.drain(..) {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    FEED => {
                        let mut tick = [0; TICK_BYTES];
                        match self.feed.read_exact(&mut tick) {
                            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                                return Ok(());
                            }
                            read => read?,
                        }
                        self.cast(&tick);
                    }
                    client => self.serve_client(client as usize)?,
                }
            }
        }
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                accepted => accepted?.0,
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES)?;
            let at = self.free.pop().unwrap_or(self.clients.len());
            if at == self.clients.len() {
                self.clients.push(None);
            }
            epoll::add(&self.epoll, &stream, EventData::new_u64(at as u64), EventFlags::IN)?;
            self.clients[at] =
                Some(Client { stream, asked: false, live: false, waiting: Vec::new() });
        }
    }

    /// Answers the handshake, then the first message; writes what waits.
    fn serve_client(&mut self, at: usize) -> anyhow::Result<()> {
        let Some(client) = &mut self.clients[at] else { return Ok(()) };
        let mut chunk = [0; 4_096];
        match client.stream.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => {
                self.clients[at] = None;
                self.free.push(at);
                return Ok(());
            }
            Ok(_) if !client.asked => {
                client.asked = true;
                let mut answer = HANDSHAKE.as_bytes().to_vec();
                let hello = r#"{"type":"hello","server":"raw","version":1}"#;
                answer.extend(frame::of_server(TEXT, hello.as_bytes()));
                client.send(&answer);
            }
            Ok(_) if !client.live => {
                client.live = true;
                client.send(&frame::of_server(TEXT, br#"{"type":"ack","id":"load"}"#));
            }
            // A pong, or a farewell.
            Ok(_) => {}
        }
        let waiting = std::mem::take(&mut client.waiting);
        client.send(&waiting);
        client.watch(&self.epoll, at)
    }

    /// Writes a block to everybody who subscribed: one write each, however many events it has.
    fn cast(&mut self, tick: &[u8; TICK_BYTES]) {
        let number =
            |bytes: &[u8]| bytes.iter().rev().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
        let (block, events) = (number(&tick[..8]), number(&tick[8..]));
        let mut bytes = Vec::new();
        for index in 0..events {
            bytes.extend(frame::of_server(TEXT, &payload(block, index, self.payload_bytes)));
        }
        for (at, client) in self.clients.iter_mut().enumerate() {
            if let Some(client) = client.as_mut().filter(|client| client.live) {
                client.send(&bytes);
                if !client.waiting.is_empty() && client.watch(&self.epoll, at).is_err() {
                    // Its socket is gone: reading it will tell.
                    client.live = false;
                }
            }
        }
    }
}

impl Client {
    /// A client that is gone is seen when it is read.
    fn send(&mut self, bytes: &[u8]) {
        let mut sent = 0;
        if self.waiting.is_empty() {
            sent = self.stream.write(bytes).unwrap_or(0);
        }
        self.waiting.extend_from_slice(&bytes[sent..]);
    }

    /// Asks to be told of room while something waits.
    fn watch(&self, epoll: &OwnedFd, at: usize) -> anyhow::Result<()> {
        let mut flags = EventFlags::IN;
        flags.set(EventFlags::OUT, !self.waiting.is_empty());
        Ok(epoll::modify(epoll, &self.stream, EventData::new_u64(at as u64), flags)?)
    }
}

/// An event in the daemon's form, as long as one of the daemon's.
fn payload(block: u64, index: u64, bytes: usize) -> Vec<u8> {
    let mut text = format!(
        r#"{{"type":"event","topic":"fills","cursor":"1.000000000000.00000000.0000000000000.fills-{block}","seq":1773532800196239,"block":{block},"index":{index},"part":0,"data":""#
    );
    let pad = bytes.saturating_sub(text.len() + 2);
    text.extend(std::iter::repeat_n('.', pad));
    text.push_str("\"}");
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_asked_length_and_their_place() {
        for index in [0, 9, 10, 1_343] {
            let event = payload(1_763_750_000_000, index, 600);

            assert_eq!(event.len(), 600);
            assert_eq!(frame::place(&event, &mut 0), Some((1_763_750_000_000, index)));
            assert_eq!(frame::kind(&event), frame::Kind::Event);
            serde_json::from_slice::<serde_json::Value>(&event).unwrap();
        }
    }
}

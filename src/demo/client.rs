//! The demo's own client: a real one, on a real WebSocket, that hears everything.
//!
//! Place: outside, behind the port. It shares nothing with the daemon but the bytes on the wire.

use std::{cell::RefCell, future::poll_fn, io, net::SocketAddr, pin::Pin, rc::Rc, sync::Arc, time};

use actix_codec::{Framed, FramedParts};
use actix_http::ws::{Codec, Frame, Message, ProtocolError, hash_key};
use bytes::BytesMut;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::node::Appended;
use crate::source::node;

/// Proves only that the answer is meant for us; on a loopback connection it need not be random.
const KEY: &str = "bm9kZWNhc3QgZGVtbyBrZQ==";

/// An event of the hourly funding block is the longest that a node writes.
const MAX_FRAME_BYTES: usize = 64 << 20;

/// More than any answer to a handshake.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Delays kept between two looks at them; what is beyond only makes the figure less exact.
const MAX_DELAYS: usize = 1 << 16;

type Socket = Framed<TcpStream, Codec>;

/// Why the client could not listen.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the server does not upgrade: {0}")]
    NoUpgrade(String),
    #[error("a subscription was refused: {0}")]
    Refused(String),
    #[error("WebSocket: {0}")]
    Protocol(#[from] ProtocolError),
    #[error("the server closed the connection")]
    Closed,
}

/// What the client has heard.
#[derive(Debug, Default)]
pub struct Heard {
    pub events: u64,
    /// Events whose `seq` was not above that of the one before: repeated, or out of order.
    pub disordered: u64,
    last_seq: u64,
    /// From the moment at which the node wrote a block to the arrival of each of its events.
    delays: Vec<time::Duration>,
    /// Why the connection ended.
    pub closed: Option<String>,
}

/// The parts of a native message that this client looks at.
#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(default)]
    block: u64,
    #[serde(default)]
    seq: u64,
}

pub struct Client {
    heard: Rc<RefCell<Heard>>,
}

impl Client {
    /// Connects and subscribes to everything. From here on every event is heard.
    ///
    /// # Errors
    /// When the server does not do as its protocol says.
    pub async fn connect(
        address: SocketAddr,
        appended: Arc<Appended>,
    ) -> Result<Self, ClientError> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let behind_head = upgrade(&mut stream, address).await?;
        let codec = Codec::new().client_mode().max_size(MAX_FRAME_BYTES);
        let mut socket = Framed::from_parts(FramedParts::with_read_buf(stream, codec, behind_head));

        let topics = [node::FILLS, node::MISC];
        for topic in topics {
            let frame = format!(r#"{{"type":"subscribe","id":"{topic}","topic":"{topic}"}}"#);
            send(&mut socket, Message::Text(frame.into())).await?;
        }
        let mut acknowledged = 0;
        while acknowledged < topics.len() {
            if let Frame::Text(text) = socket.next().await.ok_or(ClientError::Closed)?? {
                match serde_json::from_slice::<Incoming>(&text).map(|message| message.kind) {
                    Ok("ack") => acknowledged += 1,
                    Ok("error") => {
                        let text = String::from_utf8_lossy(&text).into_owned();
                        return Err(ClientError::Refused(text));
                    }
                    _ => {}
                }
            }
        }

        let heard = Rc::<RefCell<Heard>>::default();
        actix_rt::spawn(listen(socket, heard.clone(), appended));
        Ok(Self { heard })
    }

    pub fn events(&self) -> u64 {
        self.heard.borrow().events
    }

    pub fn disordered(&self) -> u64 {
        self.heard.borrow().disordered
    }

    /// Why the connection ended; `None` while it lives.
    pub fn closed(&self) -> Option<String> {
        self.heard.borrow().closed.clone()
    }

    /// Takes the delays since the last call.
    pub fn take_delays(&self) -> Vec<time::Duration> {
        std::mem::take(&mut self.heard.borrow_mut().delays)
    }
}

impl Heard {
    fn text(&mut self, text: &[u8], appended: &Appended, now: time::Instant) {
        let Ok(Incoming { kind: "event", block, seq }) = serde_json::from_slice(text) else {
            return;
        };
        self.events += 1;
        self.disordered += u64::from(seq <= self.last_seq);
        self.last_seq = seq;
        if self.delays.len() < MAX_DELAYS
            && let Some(written) = appended.at(block)
        {
            self.delays.push(now.saturating_duration_since(written));
        }
    }
}

/// Asks for the WebSocket, and gives what came behind the head of the answer.
async fn upgrade(stream: &mut TcpStream, address: SocketAddr) -> Result<BytesMut, ClientError> {
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = BytesMut::new();
    let head_bytes = loop {
        if let Some(end) = memchr::memmem::find(&answer, b"\r\n\r\n") {
            break end + 4;
        }
        if answer.len() > MAX_HEAD_BYTES || stream.read_buf(&mut answer).await? == 0 {
            return Err(ClientError::NoUpgrade("no whole answer came".to_owned()));
        }
    };
    let head = String::from_utf8_lossy(&answer.split_to(head_bytes)).into_owned();
    let accept = String::from_utf8_lossy(&hash_key(KEY.as_bytes())).into_owned();
    if !head.starts_with("HTTP/1.1 101 ") || !head.contains(&accept) {
        let status = head.lines().next().unwrap_or_default().to_owned();
        return Err(ClientError::NoUpgrade(status));
    }
    Ok(answer)
}

async fn send(socket: &mut Socket, message: Message) -> Result<(), ProtocolError> {
    Pin::new(&mut *socket).write(message)?;
    poll_fn(|context| Pin::new(&mut *socket).flush::<Message>(context)).await
}

/// Counts until the connection ends.
async fn listen(mut socket: Socket, heard: Rc<RefCell<Heard>>, appended: Arc<Appended>) {
    let why = loop {
        match socket.next().await {
            Some(Ok(Frame::Text(text))) => {
                heard.borrow_mut().text(&text, &appended, time::Instant::now());
            }
            Some(Ok(Frame::Ping(payload))) => {
                if let Err(error) = send(&mut socket, Message::Pong(payload)).await {
                    break error.to_string();
                }
            }
            Some(Ok(Frame::Pong(_))) => {}
            Some(Ok(Frame::Close(reason))) => {
                // The answer ends the connection in order; that it may be gone already is no harm.
                send(&mut socket, Message::Close(reason.clone())).await.ok();
                break reason.map_or("without a reason".to_owned(), |reason| {
                    let text = reason.description.unwrap_or_default();
                    format!("{} {text}", u16::from(reason.code))
                });
            }
            Some(Ok(other)) => break format!("a message that is not known: {other:?}"),
            Some(Err(error)) => break error.to_string(),
            None => break "the connection was cut".to_owned(),
        }
    };
    heard.borrow_mut().closed = Some(why);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_and_a_seq_that_does_not_grow_is_noticed() {
        let mut heard = Heard::default();
        let mut hear = |text: &str| {
            heard.text(text.as_bytes(), &Appended::default(), time::Instant::now());
        };

        hear(r#"{"type":"hello","seq":90}"#);
        for seq in [5, 7, 7, 6, 8] {
            hear(&format!(r#"{{"type":"event","topic":"fills","seq":{seq},"block":1}}"#));
        }
        hear("no JSON");

        assert_eq!((heard.events, heard.disordered), (5, 2));
    }
}

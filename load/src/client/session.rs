//! One client: connects, shakes hands, subscribes, and reads.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    Due, Group, Order, Transport,
    http::{self, Chunks, HttpError},
    judge::Judge,
    tally::{Faults, Window},
};
use crate::{
    frame::{self, CLOSE, Frame, Kind, PING, PONG, TEXT},
    ledger::Ledger,
    traffic::Traffic,
};

/// Of a client that stops reading: as little as the kernel gives.
const STALLED_RECEIVE_BUFFER: usize = 4 << 10;

/// Every so many events one is compared with what was written.
const COMPARE_EVERY: u64 = 1_000;

const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Connecting,
    Shaking,
    Subscribing,
    Live,
    Stalled,
}

/// Why a session is over, other than by our will.
#[derive(Debug, thiserror::Error)]
pub enum End {
    #[error("the server closed with {0}")]
    Closed(u16),
    #[error("the server hung up while the client was {0:?}")]
    HungUp(Stage),
    #[error("{0}")]
    Socket(#[from] io::Error),
    #[error("the handshake was answered with {0:?}")]
    Refused(String),
    #[error("{0}")]
    Frame(#[from] frame::FrameError),
    #[error("{0}")]
    Http(#[from] HttpError),
}

/// What all sessions share.
pub struct Scene<'a> {
    pub ledger: &'a Ledger,
    pub traffic: Traffic,
    pub window: &'a mut Window,
    pub faults: &'a mut Faults,
    pub events_seen: &'a mut u64,
    pub compared: &'a mut u64,
    /// Where the block's number stood in the last frame.
    pub hint: &'a mut usize,
    /// An event whose cursor is wanted, and that cursor.
    pub capture: &'a mut Option<(u64, Option<String>)>,
}

pub struct Session {
    pub stream: TcpStream,
    transport: Transport,
    server: SocketAddr,
    chunks: Chunks,
    pub stage: Stage,
    pub order: Order,
    pub judge: Judge,
    /// Everything of the past is here.
    pub joined: bool,
    /// Of the newest event, if it is kept.
    pub cursor: String,
    /// The beginning of a frame whose end did not come yet.
    carry: Vec<u8>,
    /// When it was subscribed.
    live_since: u64,
    /// When a poll asked that begins in the past, until its first answer.
    asked_past: Option<u64>,
}

impl Session {
    /// Begins to connect.
    pub fn connect(
        order: Order,
        source: Ipv4Addr,
        server: SocketAddr,
        transport: Transport,
        traffic: &Traffic,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if order.stalls {
            socket.set_recv_buffer_size(STALLED_RECEIVE_BUFFER)?;
        }
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        match socket.connect(&server.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        let due = match &order.from {
            Some((_, due)) => *due,
            None => Due { event: u64::MAX, exact: false },
        };
        let judge = Judge::new(traffic.share(order.wish), due);
        Ok(Self {
            stream: socket.into(),
            transport,
            server,
            chunks: Chunks::default(),
            stage: Stage::Connecting,
            order,
            judge,
            joined: false,
            cursor: String::new(),
            carry: Vec::new(),
            live_since: 0,
            asked_past: None,
        })
    }

    /// The connection stands, or does not.
    pub fn shake_hands(&mut self, traffic: &Traffic, now: u64) -> Result<(), End> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error.into());
        }
        self.stage = Stage::Shaking;
        let (server, wish) = (self.server, self.order.wish);
        let from = self.order.from.as_ref().map_or("now", |(cursor, _)| &**cursor);
        let path = if self.transport == Transport::Ws { "/v1/ws" } else { "/ws" };
        let request = match self.transport {
            // The key is the example of RFC 6455.
            Transport::Ws | Transport::Official => format!(
                "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
            Transport::Sse => http::stream_request(server, traffic, wish, from),
            // The first one is to be told where it stands.
            Transport::Poll => http::poll_request(server, traffic, wish, from, "1ms"),
        };
        self.asked_past = self.order.from.as_ref().map(|_| now);
        self.send(request.as_bytes())
    }

    /// Reads once. `buffer` is shared by all sessions and holds nothing between two calls.
    pub fn read(&mut self, buffer: &mut [u8], scene: &mut Scene<'_>) -> Result<(), End> {
        let carried = self.carry.len();
        buffer[..carried].copy_from_slice(&self.carry);
        let read = match self.stream.read(&mut buffer[carried..]) {
            Ok(0) => return Err(End::HungUp(self.stage)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let received = scene.window.group_mut(self.order.group);
        received.bytes += read as u64;
        received.reads += 1;
        let max = buffer.len();
        let bytes = &mut buffer[..carried + read];
        let left = match self.transport {
            Transport::Ws | Transport::Official => self.take(bytes, max, scene)?..bytes.len(),
            Transport::Sse => self.take_stream(bytes, carried, scene)?,
            Transport::Poll => self.take_answer(bytes, scene)?..bytes.len(),
        };
        self.carry.clear();
        self.carry.extend_from_slice(&bytes[left]);
        Ok(())
    }

    /// Takes the messages of a stream that are whole and gives where the rest stands. What was carried
    /// is content already, once the head was there.
    fn take_stream(
        &mut self,
        bytes: &mut [u8],
        carried: usize,
        scene: &mut Scene<'_>,
    ) -> Result<std::ops::Range<usize>, End> {
        let (mut taken, fresh) = match self.stage {
            Stage::Shaking => {
                let Some(head) = http::head(bytes)? else { return Ok(0..bytes.len()) };
                self.chunks = Chunks::of(&bytes[..head])?;
                self.stage = Stage::Subscribing;
                (head, head)
            }
            _ => (0, carried),
        };
        let end = fresh + self.chunks.join(&mut bytes[fresh..])?;
        let now = scene.ledger.now();
        while let Some((data, length)) = http::message(&bytes[taken..end]) {
            self.message(&bytes[taken..][data], now, scene);
            taken += length;
        }
        Ok(taken..end)
    }

    /// Takes an answer, if it is whole, and asks again. Gives how much that was.
    fn take_answer(&mut self, bytes: &[u8], scene: &mut Scene<'_>) -> Result<usize, End> {
        let Some(answer) = http::answer(bytes)? else { return Ok(0) };
        let now = scene.ledger.now();
        let asked_past = self.asked_past.take();
        if self.stage == Stage::Shaking {
            self.begin(now, scene);
        }
        let mut events = 0;
        for message in http::messages(&bytes[answer.events]) {
            self.message(message, now, scene);
            events += 1;
        }
        self.joined |= events < http::poll_limit(&scene.traffic);
        if let Some(asked) = asked_past.filter(|_| events > 0) {
            let received = scene.window.group_mut(self.order.group);
            received.answers.record(now.saturating_sub(asked) / 1_000);
        }
        let cursor = String::from_utf8_lossy(&bytes[answer.cursor]);
        let (server, wish) = (self.server, self.order.wish);
        let request = http::poll_request(server, &scene.traffic, wish, &cursor, "60s");
        if self.order.keeps_cursor {
            self.cursor = cursor.into_owned();
        }
        if self.stage == Stage::Live {
            self.send(request.as_bytes())?;
        }
        Ok(answer.end)
    }

    /// Takes what is whole and gives how much that was.
    fn take(&mut self, bytes: &[u8], max: usize, scene: &mut Scene<'_>) -> Result<usize, End> {
        let mut taken = 0;
        if self.stage == Stage::Shaking {
            let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(0) };
            taken = end + 4;
            self.subscribe(&bytes[..taken], scene.traffic)?;
        }
        let now = scene.ledger.now();
        while let Some(frame) = frame::first(&bytes[taken..], max)? {
            let payload = &bytes[taken..][frame.payload.clone()];
            taken += frame.payload.end;
            self.frame(&frame, payload, now, scene)?;
        }
        Ok(taken)
    }

    fn subscribe(&mut self, answer: &[u8], traffic: Traffic) -> Result<(), End> {
        let accepted =
            answer.starts_with(b"HTTP/1.1 101 ") && memchr::memmem::find(answer, ACCEPT).is_some();
        if !accepted {
            let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
            return Err(End::Refused(String::from_utf8_lossy(line).into_owned()));
        }
        self.stage = Stage::Subscribing;
        let cursor = self.order.from.as_ref().map(|(cursor, _)| &**cursor);
        let message = match self.transport {
            Transport::Official => traffic.subscribe_officially(self.order.wish, cursor),
            _ => traffic.subscribe(self.order.wish, cursor),
        };
        self.send(&frame::of_client(TEXT, message.as_bytes()))
    }

    fn frame(
        &mut self,
        frame: &Frame,
        payload: &[u8],
        now: u64,
        scene: &mut Scene<'_>,
    ) -> Result<(), End> {
        match frame.opcode {
            TEXT => self.message(payload, now, scene),
            PING => self.send(&frame::of_client(PONG, payload))?,
            CLOSE => {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                return Err(End::Closed(code));
            }
            _ => {}
        }
        Ok(())
    }

    fn message(&mut self, payload: &[u8], now: u64, scene: &mut Scene<'_>) {
        let kind = match self.transport {
            Transport::Official => frame::official_kind(payload),
            _ => frame::kind(payload),
        };
        match kind {
            Kind::Event => return self.event(payload, now, scene),
            Kind::Ack => self.begin(now, scene),
            Kind::Live => self.joined = true,
            Kind::Gap | Kind::Error => {
                scene.faults.told += 1;
                scene.faults.say(|| String::from_utf8_lossy(payload).into_owned());
            }
            Kind::Hello | Kind::Heartbeat | Kind::Bye | Kind::Other => return,
        }
        self.keep_cursor(payload);
    }

    /// It is subscribed.
    fn begin(&mut self, now: u64, scene: &Scene<'_>) {
        self.stage = if self.order.stalls { Stage::Stalled } else { Stage::Live };
        self.live_since = now;
        if self.order.from.is_none() {
            self.judge.begin(scene.ledger.events());
            self.joined = true;
        }
    }

    fn event(&mut self, payload: &[u8], now: u64, scene: &mut Scene<'_>) {
        let received = scene.window.group_mut(self.order.group);
        received.events += 1;
        received.payload_bytes += payload.len() as u64;
        let place = frame::place(payload, scene.hint);
        let Some((event, written_at)) =
            place.and_then(|(block, index)| scene.ledger.find(block, index))
        else {
            scene.faults.foreign += 1;
            scene.faults.say(|| String::from_utf8_lossy(payload).into_owned());
            return;
        };
        if written_at >= self.live_since && self.order.group != Group::Bulk {
            received.latency.record(now.saturating_sub(written_at) / 1_000);
        }
        if let Err(fault) = self.judge.take(event) {
            scene.faults.note(fault, event);
        }
        self.keep_cursor(payload);
        if let Some((wanted, found @ None)) = scene.capture
            && *wanted == event
        {
            *found = frame::cursor(payload).map(str::to_owned);
        }
        *scene.events_seen += 1;
        if (*scene.events_seen).is_multiple_of(COMPARE_EVERY) {
            compare(event, payload, self.transport, scene);
        }
    }

    fn keep_cursor(&mut self, payload: &[u8]) {
        if self.order.keeps_cursor
            && let Some(cursor) = frame::cursor(payload)
        {
            self.cursor.clear();
            self.cursor.push_str(cursor);
        }
    }

    /// Ends it without a word: the kernel sends a reset.
    pub fn reset(self) -> io::Result<()> {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }

    pub fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }

    pub fn is_opening(&self) -> bool {
        !matches!(self.stage, Stage::Live | Stage::Stalled)
    }

    pub fn group(&self) -> Group {
        self.order.group
    }

    /// A few bytes into an empty socket: they fit, or the server is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        Ok(self.stream.write_all(bytes)?)
    }
}

/// Parses one event as a client would, and compares its body with what was written. The raw writer's
/// events have no body.
fn compare(event: u64, payload: &[u8], transport: Transport, scene: &mut Scene<'_>) {
    let (begin, end) = match transport {
        Transport::Official => (&br#","fills":["#[..], &br#"],"block":"#[..]),
        _ => (&br#","data":"#[..], &b"}"[..]),
    };
    let Some(at) = memchr::memmem::find(payload, begin) else { return };
    if payload.get(at + begin.len()) != Some(&b'{') {
        return;
    }
    *scene.compared += 1;
    let parsed = serde_json::from_slice::<serde_json::Value>(payload);
    let whole = parsed.is_ok_and(|event| match transport {
        Transport::Official => event["channel"] == "userFills",
        _ => event["type"] == "event" && event["topic"] == "fills",
    });
    let rest = &payload[at + begin.len()..];
    let body = memchr::memmem::rfind(rest, end).map(|end| &rest[..end]);
    if !whole || body != Some(scene.traffic.body(event).as_bytes()) {
        scene.faults.differing += 1;
        scene.faults.say(|| format!("event {event}: {}", String::from_utf8_lossy(payload)));
    }
}

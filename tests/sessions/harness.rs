//! A server with a log that the test fills, and clients.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use actix::prelude::*;
use actix_http::header::HeaderName;
use bytes::Bytes;
use nodecast::{
    config::{Config, HttpConfig, LiveConfig, OfficialConfig, SessionConfig, StoreConfig},
    delivery::{Casting, Foundation, SessionSet, serve},
    event::{Address, Event, EventId, SequencedEvent, Timestamp, Topic},
    router::{
        log::{Heads, Log, LogEvent, NewSegment, Notice},
        readers::Readers,
    },
    source::{BatchLost, Budget, Density, Form, Progress, Stream, node},
    stats::Stats,
    store::{self, CommitBatch, EarlierRun, RetentionLimits, StoreWriter},
    whitelist::{CurrentList, Listing, Whitelist},
};
use serde_json::Value;
use slog::{Discard, Logger, o};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::sync::SemaphorePermit;
use tungstenite::{
    Message, WebSocket, client::IntoClientRequest, handshake::client::Request,
    protocol::frame::coding::CloseCode,
};

pub const FILLS: Topic = Topic::new("fills");
pub const MISC: Topic = Topic::new("misc");
pub const ALICE: &str = "0x025a744111554e57c66ba2069a8081249fbe5e11";
pub const BOB: &str = "0x1e37a337ed460039d1b15bd3bc489de789768d5e";
/// Nothing here takes that long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Header of the proxy that all clients come through, as far as it is set.
const IDENTITY: &str = "x-forwarded-user";

/// Asks for a native session.
pub const HANDSHAKE: &str = "GET /v1/ws HTTP/1.1\r\nHost: n\r\nConnection: upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A run of the same store that ended after it had committed this `seq`.
pub const EARLIER_RUN: EarlierRun = EarlierRun { id: 0xd, last_seq: 103 };

pub struct Server {
    pub address: SocketAddr,
    pub stats: Arc<Stats>,
    pub log: Arc<Log>,
    pub sessions: Arc<SessionSet>,
    pub casting: Arc<Casting>,
    /// Whose events are kept.
    pub users: Arc<CurrentList>,
    readers: Arc<Readers>,
    budget: Arc<Budget>,
    stream: Arc<Stream>,
    seq: AtomicU64,
    /// How far each topic has come.
    heads: Mutex<Heads>,
    /// Of the store that clients read what has been from, with its commits so far.
    writer: Mutex<(Box<dyn StoreWriter>, u64)>,
    _directory: TempDir,
    handle: actix_server::ServerHandle,
    thread: Option<JoinHandle<()>>,
}

/// Takes the reports of lost batches: the tests commit nothing.
struct Sink;

impl Actor for Sink {
    type Context = Context<Self>;
}

impl Handler<BatchLost> for Sink {
    type Result = ();

    fn handle(&mut self, _: BatchLost, _: &mut Self::Context) {}
}

impl Server {
    pub fn start(configure: impl FnOnce(&mut SessionConfig)) -> Self {
        Self::start_with_log(1 << 30, configure)
    }

    /// With a log that keeps at most so many bytes of what is committed.
    pub fn start_with_log(max_bytes: usize, configure: impl FnOnce(&mut SessionConfig)) -> Self {
        Self::start_behind(100, max_bytes, configure)
    }

    /// The same behind a `seq` that was given before.
    pub fn start_behind(
        last_seq: u64,
        max_bytes: usize,
        configure: impl FnOnce(&mut SessionConfig),
    ) -> Self {
        Self::start_configured(last_seq, max_bytes, Whitelist::all(), |config| {
            config.whitelist.all = true;
            configure(&mut config.session);
        })
    }

    /// Everybody else is not listed.
    pub fn start_listing(list: Whitelist, configure: impl FnOnce(&mut Config)) -> Self {
        Self::start_configured(100, 1 << 30, list, configure)
    }

    fn start_configured(
        last_seq: u64,
        max_bytes: usize,
        list: Whitelist,
        configure: impl FnOnce(&mut Config),
    ) -> Self {
        // Nothing comes on its own but in tests that are about it, however long one takes.
        let session = SessionConfig {
            ping_interval: Duration::from_secs(3_600),
            heartbeat_interval: Duration::from_secs(3_600),
            ..SessionConfig::default()
        };
        let http = HttpConfig {
            request_timeout: Duration::from_secs(1),
            trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()],
            identity_header: Some(HeaderName::from_static(IDENTITY)),
            ..HttpConfig::default()
        };
        // Looked at with each heartbeat.
        let idle_timeout = Duration::from_millis(100);
        let official = OfficialConfig { idle_timeout, ..OfficialConfig::default() };
        let mut config = Config { session, http, official, ..Config::default() };
        configure(&mut config);
        let stats = Arc::new(Stats::default());
        let heads = Heads { epoch: 0xe, run: 0xf, positions: vec![] };
        let log = Log::new(max_bytes, last_seq, heads.clone());
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("nodecast.db").display());
        let durable = StoreConfig { durable: false, ..StoreConfig::default() };
        let (store, writer) = block_on(async {
            let store = store::open(&url, &durable).await.unwrap();
            let (writer, _) = store.open_writer().await.unwrap();
            (store, Mutex::new((writer, 0)))
        });
        let logger = Logger::root(Discard, o!());
        let users = CurrentList::new(Arc::new(list));
        let listing = Listing::new(users.clone(), &config.whitelist, stats.clone(), logger.clone());
        let config = Arc::new(LiveConfig::new(config));
        let readers = Arc::new(Readers::default());
        let casting = Casting::new(Foundation {
            store,
            log: log.clone(),
            readers: readers.clone(),
            config,
            listing,
            stats: stats.clone(),
            keys: node::keys_of,
            earlier_runs: vec![EARLIER_RUN],
            topics: vec![FILLS, MISC],
            logger,
        });
        let sessions = casting.sessions.clone();
        let held = casting.clone();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            System::new().block_on(async move {
                let lost = Sink.start().recipient();
                let server = serve(listener, casting, |_| {}).unwrap();
                tell.send((server.handle(), Budget::new(usize::MAX, lost))).unwrap();
                server.await.unwrap();
            });
        });
        let (handle, budget) = told.recv().unwrap();
        let stream = Arc::new(Stream {
            name: "fills".into(),
            node: "node".into(),
            topic: FILLS,
            form: Form::ByBlock,
            density: Density::Dense,
            directory: "fills".into(),
        });
        let (seq, thread) = (AtomicU64::new(last_seq + 1), Some(thread));
        Self {
            address,
            stats,
            log,
            sessions,
            users,
            casting: held,
            readers,
            budget,
            stream,
            seq,
            heads: Mutex::new(heads),
            writer,
            _directory: directory,
            handle,
            thread,
        }
    }

    /// Stores what is in the log and not in the store, so that it may leave memory.
    pub fn commit(&self) {
        let state = self.log.state();
        let segments = self.log.read(state.committed.max(state.first), usize::MAX).segments;
        let events: Vec<_> = segments
            .iter()
            .flat_map(|segment| segment.events.iter().map(|event| &event.sequenced))
            .collect();
        let mut writer = self.writer.lock().unwrap();
        writer.1 += 1;
        let batch = CommitBatch {
            number: writer.1,
            events: &events,
            seen: &[],
            gaps_opened: &[],
            gaps_closed: &[],
            progress: &[],
            last_seq: state.last_seq,
            newest_time: events.iter().map(|row| row.event.time).max(),
        };
        let committed = block_on(writer.0.commit(batch)).unwrap();
        assert_eq!(committed.duplicates, 0);
        self.log.commit(state.next);
    }

    /// Deletes what is stored and older than this.
    pub fn delete_before(&self, edge: Timestamp) {
        let limits = RetentionLimits {
            now: Timestamp::now(),
            edge,
            max_bytes: None,
            min_free_bytes: 0,
            portion: 1_000,
        };
        let mut writer = self.writer.lock().unwrap();
        while block_on(writer.0.retain(limits)).unwrap().more {}
    }

    /// Appends events and wakes the shards.
    pub fn append(&self, events: Vec<Event>) {
        self.append_with(events, vec![]);
    }

    pub fn append_with(&self, events: Vec<Event>, notices: Vec<Notice>) {
        self.append_unseen(events, notices);
        self.wake();
    }

    pub fn wake(&self) {
        self.readers.wake();
    }

    /// All places of those who look for where they begin, until this is dropped.
    pub fn take_searches(&self) -> SemaphorePermit<'_> {
        let searches = self.casting.pages.searches();
        searches.try_acquire_many(searches.available_permits() as u32).unwrap()
    }

    /// Appends and wakes nobody.
    pub fn append_unseen(&self, events: Vec<Event>, notices: Vec<Notice>) {
        self.append_block(events, notices, None);
    }

    /// As the Router does: gaps are known before the batch is, and a block of which nobody wants anything
    /// counts.
    pub fn append_block(
        &self,
        events: Vec<Event>,
        notices: Vec<Notice>,
        empty: Option<(Topic, u64)>,
    ) {
        let gaps = &self.stats.router.gaps;
        let mut open = gaps.list();
        for notice in &notices {
            match notice.gap() {
                (gap, false) => open.push(gap.clone()),
                (gap, true) => {
                    open.retain(|one| (one.topic, one.first) != (gap.topic, gap.first));
                }
            }
        }
        gaps.replace(open);
        let mut heads = self.heads.lock().unwrap();
        let before = Arc::new(heads.clone());
        // As the Router does between all batches; here only where it matters, so that tests can count.
        let first = events.first().map(|event| (event.id.topic, event.id.position));
        if first.is_some_and(|(topic, block)| heads.cursor(0).position(topic) == Some(block)) {
            self.seq.fetch_add(1, Ordering::SeqCst);
        }
        let events: Vec<_> = events
            .into_iter()
            .map(|event| {
                let seq = self.seq.fetch_add(1, Ordering::SeqCst);
                let EventId { topic, position, .. } = event.id;
                let late = raise(&mut heads, topic, position);
                LogEvent::new(SequencedEvent { seq, late, event }, before.clone())
            })
            .collect();
        empty.map(|(topic, position)| raise(&mut heads, topic, position));
        self.log.append(NewSegment {
            generation: 0,
            events,
            notices,
            seen: vec![],
            heads: Arc::new(heads.clone()),
            progress: Progress {
                stream: self.stream.clone(),
                files: vec![],
                state: Default::default(),
            },
            read_at: Timestamp::now(),
            credit: self.budget.take(1, 0),
        });
    }

    pub fn connect(&self, path: &str) -> Client {
        self.connect_with(path, TcpStream::connect(self.address).unwrap())
    }

    /// A client whose socket takes hardly anything while nobody reads.
    pub fn connect_small(&self, path: &str) -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        socket.connect(&self.address.into()).unwrap();
        self.connect_with(path, socket.into())
    }

    pub fn connect_with(&self, path: &str, stream: TcpStream) -> Client {
        let url = format!("ws://{}{path}", self.address);
        Self::handshake(url.into_client_request().unwrap(), stream)
    }

    fn handshake(request: Request, stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let (socket, _) = tungstenite::client(request, stream).unwrap();
        Client { socket }
    }

    /// A client on `/ws` of whom the proxy says who he is.
    pub fn connect_as(&self, identity: &'static str) -> Client {
        let mut request = format!("ws://{}/ws", self.address).into_client_request().unwrap();
        request.headers_mut().insert(IDENTITY, identity.parse().unwrap());
        Self::handshake(request, TcpStream::connect(self.address).unwrap())
    }

    /// Changes what a reload changes.
    pub fn reload(&self, change: impl FnOnce(&mut Config)) {
        let mut config = (*self.casting.config.get()).clone();
        change(&mut config);
        self.casting.config.set(config);
    }

    /// A native client that has read its `hello`.
    pub fn native(&self) -> Client {
        let mut client = self.connect("/v1/ws");
        assert_eq!(client.json()["type"], "hello");
        client
    }

    /// Sends an HTTP request as it is, and reads to the end of the answer.
    pub fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub fn close_all(&self, deadline: Duration) -> usize {
        let closing = self.sessions.close_all(Duration::ZERO, deadline);
        block_on(closing)
    }

    /// Stops the server as the daemon does once the sessions are closed; gives how long it took.
    pub fn stop(&self) -> Duration {
        let started = Instant::now();
        block_on(self.handle.stop(true));
        started.elapsed()
    }

    /// Waits until every session is gone and checks that no frame disappeared uncounted.
    pub fn settle(&self) {
        self.wait_until("all sessions are gone", |stats| stats.sessions.open.get() == 0);
        let stats = &self.stats.sessions;
        assert_eq!(
            stats.frames_queued.get(),
            stats.frames_sent.get() + stats.frames_dropped.get(),
            "queued = sent + dropped"
        );
        assert_eq!((stats.subscriptions.get(), stats.users.get()), (0, 0));
        assert_eq!(stats.outbox_bytes.get(), 0);
        assert_eq!(stats.subscriptions.get(), 0);
        assert_eq!(stats.opened.get(), stats.closed.get());
    }

    pub fn wait_until(&self, what: &str, mut holds: impl FnMut(&Stats) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(&self.stats) {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        block_on(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Notes how far a topic has come. Gives whether it had come further.
fn raise(heads: &mut Heads, topic: Topic, position: u64) -> bool {
    match heads.positions.iter_mut().find(|(known, _)| *known == topic) {
        Some((_, head)) if *head > position => return true,
        Some((_, head)) => *head = position,
        None => heads.positions.push((topic, position)),
    }
    false
}

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    actix_rt::Runtime::new().unwrap().block_on(work)
}

pub struct Client {
    pub socket: WebSocket<TcpStream>,
}

impl Client {
    pub fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// The next text, control frames passed over.
    pub fn text(&mut self) -> String {
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => return text.to_string(),
                Message::Close(frame) => panic!("closed instead: {frame:?}"),
                _ => {}
            }
        }
    }

    pub fn json(&mut self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// Asks for an answer and reads it; no other text may come before.
    pub fn ask(&mut self, text: &str) -> Value {
        self.say(text);
        self.json()
    }

    /// Everything that was said before is done when this returns. For `/ws`, which acknowledges
    /// nothing: frames of one client are handled in their order.
    pub fn sync(&mut self) {
        self.socket.send(Message::Ping(Bytes::from_static(b"sync"))).unwrap();
        loop {
            match self.socket.read().unwrap() {
                Message::Pong(payload) if payload == Bytes::from_static(b"sync") => return,
                Message::Pong(_) | Message::Ping(_) => {}
                other => panic!("{other:?} instead of a pong"),
            }
        }
    }

    /// Reads to the close frame; gives it and how many texts came before.
    pub fn closed(&mut self) -> (u16, String, usize) {
        let mut texts = 0;
        loop {
            match self.socket.read().unwrap() {
                Message::Text(_) => texts += 1,
                Message::Close(Some(frame)) => {
                    return (frame.code.into(), frame.reason.to_string(), texts);
                }
                Message::Close(None) => return (CloseCode::Status.into(), String::new(), texts),
                _ => {}
            }
        }
    }

    /// Writes a frame as it is, masked with zeros.
    pub fn frame(&mut self, finished: bool, opcode: u8, payload: &[u8]) {
        assert!(payload.len() < 126);
        let first = if finished { 0x80 } else { 0 } | opcode;
        let mut frame = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        self.socket.get_mut().write_all(&frame).unwrap();
    }
}

pub fn event(topic: Topic, block: u64, index: u32, user: Option<&str>, body: &str) -> Event {
    Event {
        id: EventId { topic, position: block, index, part: 0 },
        time: Timestamp(1_773_532_800_000_000),
        user: user.map(|user| user.parse::<Address>().unwrap()),
        keys: node::keys_of(topic, body.as_bytes()),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

pub fn fill(block: u64, user: &str, coin: &str) -> Event {
    let body = format!(r#"{{"coin":"{coin}","px":"1.10","side":"B","dir":"Open Long"}}"#);
    event(FILLS, block, 0, Some(user), &body)
}

pub fn misc(block: u64, user: Option<&str>) -> Event {
    let body = r#"{"time":"2025-11-05T16:09:18.466557521","hash":"0x4a","inner":{"CDeposit":{"amount":"10.0"}}}"#;
    event(MISC, block, 0, user, body)
}

//! From the append of a line to a client that has its events, at the rate of the network.
//!
//! In turn with the daemon two others are measured on the same lines, which say what the machine
//! itself takes at that moment: a bare thread that waits for inotify, reads the line and writes it
//! to a socket; and the same work spread over a bare chain of four actors on four threads.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use actix::prelude::*;
use inotify::{EventOwned, Inotify, WatchMask};
use nodecast::event::Timestamp;
use serde_json::{Value, json};
use tungstenite::Message;

use super::common::{
    Client, Setup,
    node::{ALICE, Kind, fills_line},
    receive_type, send,
};

const WARM_UP: u64 = 30;
pub const FILLS: u64 = 3;

/// Blocks a second, and how many: the network's rate, and one at which the processors have no time
/// to fall asleep between two blocks. The difference is what waking them takes.
const RATES: [(u32, u64); 2] = [(15, 600), (300, 3_000)];

pub fn measure() -> io::Result<()> {
    RATES.iter().try_for_each(|&(rate, blocks)| measure_at(rate, blocks))
}

fn measure_at(rate: u32, blocks: u64) -> io::Result<()> {
    let period = Duration::from_secs(1) / rate;
    let total = blocks + WARM_UP;
    let setup = Setup::new();
    // The hour of now, so that it is the newest file throughout.
    let now = Timestamp::now().to_string();
    let day = now[..10].replace('-', "").parse().expect("a date");
    let hour = now[11..13].parse().expect("an hour");
    let mut file = Kind::fills(setup.node()).open(day, hour);
    let daemon = setup.start();
    let mut client = daemon.connect("/v1/ws");
    send(&mut client, &json!({"type": "subscribe", "id": 1, "topic": "fills"}));
    receive_type(&mut client, "ack");
    // A new stream is read once its start is in the store.
    file.write_all((fills_line(999, ALICE, 1) + "\n").as_bytes())?;
    receive_type(&mut client, "event");
    let mut references = [
        Reference::start("one bare thread", setup.root.path(), total, one_thread)?,
        Reference::start("four actors on four threads", setup.root.path(), total, four_actors)?,
    ];

    let events = thread::spawn(move || client_times(client, total));
    let mut appended = Vec::new();
    let begun = Instant::now();
    for block in 0..total {
        // Equal distances keep the three apart.
        let due = begun + period * block as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let line = fills_line(1_000 + block, ALICE, FILLS) + "\n";
        appended.push(Instant::now());
        file.write_all(line.as_bytes())?;
        for (reference, turn) in references.iter_mut().zip(1..) {
            let due = due + period * turn / 3;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            reference.append(&line)?;
        }
    }
    let arrived = events.join().expect("the client reads");

    let mut out = io::stdout().lock();
    writeln!(
        out,
        "append to client on loopback, us: {blocks} blocks, {rate} a second, {FILLS} fills each"
    )?;
    let warm = arrived.iter().filter(|(block, _)| *block >= WARM_UP);
    let times = warm.map(|(block, at)| at.duration_since(appended[*block as usize]));
    print(&mut out, "nodecast, every event", &mut times.collect::<Vec<_>>())?;
    references.into_iter().try_for_each(|reference| {
        let name = reference.name;
        print(&mut out, name, &mut reference.times())
    })
}

/// Sorts them.
pub fn print(out: &mut impl Write, name: &str, times: &mut [Duration]) -> io::Result<()> {
    times.sort_unstable();
    let at = |share| at(times, share).as_micros();
    writeln!(
        out,
        "  {name:<27} p50 {} p90 {} p99 {} p99.9 {} max {} ({} times)",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0),
        times.len()
    )
}

/// The time that this share of the sorted ones does not exceed.
pub fn at(times: &[Duration], share: f64) -> Duration {
    times[((times.len() - 1) as f64 * share).round() as usize]
}

/// When each event came, by the number of its append. Frames are decoded after the last one.
pub fn client_times(mut client: Client, total: u64) -> Vec<(u64, Instant)> {
    let mut frames = Vec::new();
    while frames.len() < (total * FILLS) as usize {
        let message = client.read().expect("the daemon goes on");
        let at = Instant::now();
        if let Message::Text(text) = message
            && text.starts_with(r#"{"type":"event""#)
        {
            frames.push((text, at));
        }
    }
    let block = |text: &str| {
        let frame: Value = serde_json::from_str(text).expect("a frame is JSON");
        frame["block"].as_u64().expect("an event has its block") - 1_000
    };
    frames.iter().map(|(text, at)| (block(text), *at)).collect()
}

/// What is measured beside the daemon: its file, and its client's end.
struct Reference {
    name: &'static str,
    file: File,
    appended: Vec<Instant>,
    arrived: JoinHandle<Vec<Instant>>,
}

impl Reference {
    /// Starts it; `serve` is given the file to follow and the socket to write to.
    fn start(
        name: &'static str,
        directory: &Path,
        total: u64,
        serve: impl FnOnce(Inotify, File, TcpStream),
    ) -> io::Result<Self> {
        let path = directory.join(name);
        let file = File::options().create(true).append(true).open(&path)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        server.set_nodelay(true)?;
        let inotify = Inotify::init()?;
        inotify.watches().add(&path, WatchMask::MODIFY)?;
        serve(inotify, File::open(&path)?, server);
        let arrived = thread::spawn(move || line_times(client, total));
        Ok(Self { name, file, appended: Vec::new(), arrived })
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        self.appended.push(Instant::now());
        self.file.write_all(line.as_bytes())
    }

    fn times(self) -> Vec<Duration> {
        let arrived = self.arrived.join().expect("the reference reads");
        let both = arrived.iter().zip(&self.appended).skip(WARM_UP as usize);
        both.map(|(at, from)| at.duration_since(*from)).collect()
    }
}

fn one_thread(mut inotify: Inotify, mut source: File, mut server: TcpStream) {
    thread::spawn(move || -> io::Result<()> {
        let (mut events, mut bytes) = ([0; 4_096], vec![0; 1 << 20]);
        loop {
            inotify.read_events_blocking(&mut events)?.for_each(drop);
            let length = source.read(&mut bytes)?;
            server.write_all(&bytes[..length])?;
        }
    });
}

/// The first actor reads, the next two pass on, the last writes.
fn four_actors(inotify: Inotify, source: File, server: TcpStream) {
    let runtime = System::new();
    let last = Arbiter::new();
    let end = End(server);
    let end = End::start_in_arbiter(&last.handle(), |_| end).recipient();
    let third = Arbiter::new();
    let pass = Pass(end);
    let pass = Pass::start_in_arbiter(&third.handle(), |_| pass).recipient();
    let second = Arbiter::new();
    let passed = Pass(pass);
    let passed = Pass::start_in_arbiter(&second.handle(), |_| passed).recipient();
    let first = Arbiter::new();
    let begin = Begin { inotify: Some(inotify), source, next: passed };
    Begin::start_in_arbiter(&first.handle(), |_| begin);
    drop(runtime);
}

#[derive(Message)]
#[rtype(result = "()")]
struct Bytes(Vec<u8>);

struct Begin {
    inotify: Option<Inotify>,
    source: File,
    next: Recipient<Bytes>,
}

struct Pass(Recipient<Bytes>);

struct End(TcpStream);

impl Actor for Begin {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let inotify = self.inotify.take().expect("it starts once");
        ctx.add_stream(inotify.into_event_stream(vec![0; 4_096]).expect("inotify works"));
    }
}

impl StreamHandler<io::Result<EventOwned>> for Begin {
    fn handle(&mut self, _: io::Result<EventOwned>, _: &mut Self::Context) {
        let mut bytes = Vec::new();
        self.source.read_to_end(&mut bytes).expect("the file can be read");
        if !bytes.is_empty() {
            self.next.do_send(Bytes(bytes));
        }
    }
}

impl Actor for Pass {
    type Context = Context<Self>;
}

impl Handler<Bytes> for Pass {
    type Result = ();

    fn handle(&mut self, bytes: Bytes, _: &mut Self::Context) {
        self.0.do_send(bytes);
    }
}

impl Actor for End {
    type Context = Context<Self>;
}

impl Handler<Bytes> for End {
    type Result = ();

    fn handle(&mut self, bytes: Bytes, _: &mut Self::Context) {
        self.0.write_all(&bytes.0).expect("the client reads");
    }
}

/// When each line was there in full.
fn line_times(mut client: TcpStream, total: u64) -> Vec<Instant> {
    let (mut bytes, mut times) = (vec![0; 1 << 20], Vec::new());
    while times.len() < total as usize {
        let length = client.read(&mut bytes).expect("the reference goes on");
        assert!(length > 0, "the reference goes on");
        let at = Instant::now();
        times.extend(bytes[..length].iter().filter(|byte| **byte == b'\n').map(|_| at));
    }
    times
}

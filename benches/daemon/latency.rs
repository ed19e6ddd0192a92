//! From the append of a line to a client that has its events, at the rate of the network.
//!
//! In turn with the daemon a bare thread is measured that waits for inotify, reads the line and
//! writes it to a socket: what the machine itself takes at that moment.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use inotify::{Inotify, WatchMask};
use nodecast::event::Timestamp;
use serde_json::{Value, json};
use tungstenite::Message;

use super::common::{
    Client, Setup,
    node::{ALICE, Kind, fills_line},
    receive_type, send,
};

const WARM_UP: u64 = 30;
const FILLS: u64 = 3;

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
    let (bare_stream, mut bare_file) = bare(setup.root.path())?;

    let events = thread::spawn(move || client_times(client, total));
    let lines = thread::spawn(move || bare_times(bare_stream, total));
    let (mut appended, mut bare_appended) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    for block in 0..total {
        // The half period keeps the two apart.
        let due = begun + period * block as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let line = fills_line(1_000 + block, ALICE, FILLS) + "\n";
        appended.push(Instant::now());
        file.write_all(line.as_bytes())?;
        thread::sleep((due + period / 2).saturating_duration_since(Instant::now()));
        bare_appended.push(Instant::now());
        bare_file.write_all(line.as_bytes())?;
    }
    let arrived = events.join().expect("the client reads");
    let bare_arrived = lines.join().expect("the bare client reads");

    let mut out = io::stdout().lock();
    writeln!(
        out,
        "append to client on loopback, us: {blocks} blocks, {rate} a second, {FILLS} fills each"
    )?;
    let of_blocks = |times: &[(u64, Instant)]| -> Vec<Duration> {
        let warm = times.iter().filter(|(block, _)| *block >= WARM_UP);
        warm.map(|(block, at)| at.duration_since(appended[*block as usize])).collect()
    };
    print(&mut out, "nodecast, every event", of_blocks(&arrived))?;
    let bare = bare_arrived.iter().zip(&bare_appended).skip(WARM_UP as usize);
    print(&mut out, "one bare thread", bare.map(|(at, from)| at.duration_since(*from)).collect())
}

fn print(out: &mut impl Write, name: &str, mut times: Vec<Duration>) -> io::Result<()> {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_micros();
    writeln!(
        out,
        "  {name:<24} p50 {} p90 {} p99 {} p99.9 {} max {} ({} times)",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0),
        times.len()
    )
}

/// When each event came, by the number of its append. Frames are decoded after the last one.
fn client_times(mut client: Client, total: u64) -> Vec<(u64, Instant)> {
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

/// Starts the bare thread on a file of its own; gives its client's end and the file.
fn bare(directory: &Path) -> io::Result<(TcpStream, File)> {
    let path = directory.join("bare");
    let file = File::options().create(true).append(true).open(&path)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    server.set_nodelay(true)?;
    let mut inotify = Inotify::init()?;
    inotify.watches().add(&path, WatchMask::MODIFY)?;
    let mut source = File::open(&path)?;
    let (ready, started) = mpsc::channel();
    thread::spawn(move || -> io::Result<()> {
        let (mut events, mut bytes) = ([0; 4_096], vec![0; 1 << 20]);
        ready.send(()).map_err(io::Error::other)?;
        loop {
            inotify.read_events_blocking(&mut events)?.for_each(drop);
            let length = source.read(&mut bytes)?;
            server.write_all(&bytes[..length])?;
        }
    });
    started.recv().map_err(io::Error::other)?;
    Ok((client, file))
}

/// When each line was there in full.
fn bare_times(mut client: TcpStream, total: u64) -> Vec<Instant> {
    let (mut bytes, mut times) = (vec![0; 1 << 20], Vec::new());
    while times.len() < total as usize {
        let length = client.read(&mut bytes).expect("the bare thread goes on");
        assert!(length > 0, "the bare thread goes on");
        let at = Instant::now();
        times.extend(bytes[..length].iter().filter(|byte| **byte == b'\n').map(|_| at));
    }
    times
}

//! What clients notice of a database that is away: from the append of a line to a client, with
//! PostgreSQL there, killed and hung, in turn in one run.

use std::{
    fs::File,
    io::{self, Write},
    thread,
    time::{Duration, Instant},
};

use nodecast::event::Timestamp;
use serde_json::{Value, json};

use super::{
    common::{
        Setup, TestDaemon, eventually,
        node::{ALICE, Kind, fills_line},
        postgres::PostgresServer,
        receive_type, send,
    },
    latency::{FILLS, at, client_times, print},
};

/// Blocks a second: the processors have no time to fall asleep between two.
const RATE: u32 = 300;

/// Blocks of one phase: longer than it takes until commits fail and are tried again.
const BLOCKS: u64 = 1_500;

const ROUNDS: u64 = 4;

/// Where the server is during a phase.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    There,
    Killed,
    Hung,
}

/// As often there as away, so that both meet the same moments of the machine.
const PHASES: [Server; 4] = [Server::There, Server::Killed, Server::There, Server::Hung];

pub fn measure() -> io::Result<()> {
    let server = PostgresServer::start();
    let mut setup = Setup::new();
    setup.database_url = Some(server.url.clone());
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

    let total = ROUNDS * PHASES.len() as u64 * BLOCKS;
    let events = thread::spawn(move || client_times(client, total));
    let (mut appended, mut phases) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for phase in PHASES {
            match phase {
                Server::There => {}
                Server::Killed => server.kill(),
                Server::Hung => server.hang(),
            }
            append(&mut file, &mut appended)?;
            phases.push(phase);
            match phase {
                Server::There => {}
                Server::Killed => server.restart(),
                Server::Hung => server.wake(),
            }
            wait_until_stored(&daemon, 1 + appended.len() as u64 * FILLS);
        }
    }
    let arrived = events.join().expect("the client reads");

    let mut out = io::stdout().lock();
    writeln!(
        out,
        "append to client on loopback while PostgreSQL is away, us: {RATE} blocks a second, {FILLS} \
         fills each, {ROUNDS} rounds of {} s",
        BLOCKS / u64::from(RATE)
    )?;
    let mut times_while = |wanted: Server, name: &str| {
        let is_wanted = |block: &u64| phases[(block / BLOCKS) as usize] == wanted;
        let wanted = arrived.iter().filter(|(block, _)| is_wanted(block));
        let times = wanted.map(|(block, at)| at.duration_since(appended[*block as usize]));
        let mut times: Vec<Duration> = times.collect();
        print(&mut out, name, &mut times)?;
        io::Result::Ok(times)
    };
    let there = times_while(Server::There, "PostgreSQL is there")?;
    let killed = times_while(Server::Killed, "it was killed")?;
    let hung = times_while(Server::Hung, "it hangs")?;
    let ratio = |times: &[Duration], share| {
        at(times, share).as_secs_f64() / at(&there, share).as_secs_f64()
    };
    writeln!(
        out,
        "  away : there              p50 {:.2} and {:.2}, p99 {:.2} and {:.2} (wanted: at most 2)",
        ratio(&killed, 0.5),
        ratio(&hung, 0.5),
        ratio(&killed, 0.99),
        ratio(&hung, 0.99),
    )
}

/// Appends the blocks of one phase in equal distances.
fn append(file: &mut File, appended: &mut Vec<Instant>) -> io::Result<()> {
    let period = Duration::from_secs(1) / RATE;
    let begun = Instant::now();
    for step in 0..BLOCKS {
        thread::sleep((begun + period * step as u32).saturating_duration_since(Instant::now()));
        let line = fills_line(1_000 + appended.len() as u64, ALICE, FILLS) + "\n";
        appended.push(Instant::now());
        file.write_all(line.as_bytes())?;
    }
    Ok(())
}

/// The next phase begins with nothing left to do.
fn wait_until_stored(daemon: &TestDaemon, events: u64) {
    let mut status = Value::Null;
    eventually("all is stored", || {
        status = daemon.status();
        status["store"]["inserted"] == events && status["store"]["failing_for_ms"].is_null()
    });
}

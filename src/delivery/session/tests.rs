use std::{
    io::Write,
    net::{Shutdown, TcpListener},
};

use socket2::SockRef;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::*;
use crate::{
    client::Client,
    config::{LiveConfig, SessionConfig},
    delivery::Foundation,
    router::log::{Heads, Log},
    stats::Stats,
    testing::foundation,
};

/// A ping of a client, with the longest payload that there is.
const PING: [u8; 131] = {
    let mut ping = [0; 131];
    (ping[0], ping[1]) = (0x89, 0x80 | 125);
    ping
};

/// A session whose client has said nothing but pings, as many as the socket takes, before it begins.
struct Flooded {
    stats: Arc<Stats>,
    allowances: SharedAllowances,
    client: std::net::TcpStream,
    _session: Addr<Session>,
    _directory: TempDir,
}

impl Flooded {
    async fn start(session: SessionConfig) -> Self {
        let (foundation, directory) = foundation(Log::new(1 << 30, 1, Heads::default())).await;
        let config = Config { session, ..Config::default() };
        let live = Arc::new(LiveConfig::new(config.clone()));
        let casting = Casting::new(Foundation { config: live, ..foundation });
        let stats = casting.stats.clone();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        SockRef::from(&listener).set_recv_buffer_size(400 << 10).unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        client.set_nonblocking(true).unwrap();
        let (pings, mut said) = (PING.repeat(10_000), 0);
        while let Ok(more) = client.write(&pings[said..])
            && more > 0
        {
            said += more;
        }
        assert!(said > 300 << 10, "only {said} bytes");
        let permit = casting.sessions.enter(Client::default(), &config.session).unwrap();
        let allowances = permit.allowances();
        let socket = TcpStream::from_std(socket).unwrap();
        let wire = Wire::new(socket, &config.session, usize::MAX, stats.clone(), permit).unwrap();
        let session = Session::new(Start {
            wire,
            door: Door::Native,
            inflates: false,
            inbound: BytesMut::new(),
            allowances: allowances.clone(),
            members: Rc::new(RefCell::new(Members::new(casting.clone()))),
            casting,
            config: Arc::new(config),
        });
        Self { stats, allowances, client, _session: session.start(), _directory: directory }
    }
}

#[actix_rt::test]
async fn a_client_that_says_much_lets_the_other_tasks_of_its_thread_have_their_turn() {
    let flooded = Flooded::start(SessionConfig {
        max_messages_per_minute: 0,
        max_bytes_per_minute: 0,
        ..SessionConfig::default()
    });
    let flooded = flooded.await;
    let stats = &flooded.stats;

    let answered = || stats.sessions.frames_queued.get() as usize;
    let (mut most, mut last) = (0, 0);
    while answered() < (256 << 10) / PING.len() {
        tokio::task::yield_now().await;
        most = most.max(answered() - last);
        last = answered();
    }

    // And the greeting.
    assert!(most <= READS_PER_ROUND * 4_096 / PING.len() + 2, "{most} answers without a rest");
}

#[actix_rt::test]
async fn who_is_closed_for_saying_too_much_is_not_charged_for_what_was_under_way() {
    let flooded = Flooded::start(SessionConfig {
        max_messages_per_minute: 0,
        max_bytes_per_minute: 100_000,
        ..SessionConfig::default()
    });
    let flooded = flooded.await;
    flooded.client.shutdown(Shutdown::Write).unwrap();

    // It is read to its end.
    while flooded.stats.sessions.open.get() > 0 {
        tokio::task::yield_now().await;
    }

    assert_eq!(flooded.stats.sessions.endings.too_many.get(), 1);
    let now = Instant::now();
    let debt = flooded.allowances.recovered_at(now) - now - Duration::from_secs(60);
    assert!(debt < Duration::from_secs(5), "{debt:?} for one read of 4 KiB");
}

//! What the service manager is told: ready, alive, stopping.

use std::{
    collections::VecDeque,
    env,
    io::ErrorKind,
    os::unix::net::UnixDatagram,
    process,
    time::{Duration, Instant},
};

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use tokio::runtime;

use crate::{
    DAY,
    common::{
        PATIENCE, Setup, TestDaemon, eventually,
        node::{ALICE, Kind, append, fills_line},
        receive_type,
    },
    harness::lock_database,
};

/// The end of the socket that systemd holds.
struct Manager {
    socket: UnixDatagram,
    /// States of a datagram that were not asked for yet.
    heard: VecDeque<String>,
}

impl Manager {
    /// Starts the daemon as systemd does, with `WatchdogSec=` of this time.
    fn start(setup: &mut Setup, watchdog: Duration) -> (Self, TestDaemon) {
        let path = setup.root.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        setup.wrapper = vec![
            "env".to_owned(),
            format!("NOTIFY_SOCKET={}", path.display()),
            format!("WATCHDOG_USEC={}", watchdog.as_micros()),
        ];
        (Self { socket, heard: VecDeque::new() }, setup.spawn())
    }

    /// The next state, if one comes in time.
    fn next(&mut self, within: Duration) -> Option<String> {
        if self.heard.is_empty() {
            let mut datagram = [0; 4096];
            self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1)))).unwrap();
            let length = match self.socket.recv(&mut datagram) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("{error}"),
            };
            let states = str::from_utf8(&datagram[..length]).unwrap();
            self.heard.extend(states.lines().map(str::to_owned));
        }
        self.heard.pop_front()
    }

    /// Whether this state comes in time; others are passed over.
    fn hears(&mut self, wanted: &str, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while let Some(state) = self.next(deadline.saturating_duration_since(Instant::now())) {
            if state == wanted {
                return true;
            }
        }
        false
    }
}

#[test]
fn the_service_manager_is_told_ready_alive_and_stopping() {
    let mut setup = Setup::new();
    let (mut manager, daemon) = Manager::start(&mut setup, Duration::from_secs(2));

    assert!(manager.hears("READY=1", PATIENCE), "{}", daemon.log_tail());
    assert_eq!(daemon.get("/livez").0, 200, "ready is when it listens");
    let listening = manager.next(PATIENCE).unwrap();
    assert_eq!(listening, format!("STATUS=listening on 127.0.0.1:{}", daemon.port));
    // A node that writes nothing is no reason to die.
    for _ in 0..3 {
        assert!(manager.hears("WATCHDOG=1", PATIENCE), "{}", daemon.log_tail());
    }
    assert!(manager.hears("STATUS=no block yet, 0 sessions", PATIENCE));
    daemon.signal(rustix::process::Signal::TERM);
    assert!(manager.hears("STOPPING=1", PATIENCE), "{}", daemon.log_tail());
    assert_eq!(daemon.stop().code(), Some(0));
}

/// To wait is what it was started for: the service manager must not take it for a start that hangs.
#[test]
fn a_standby_is_ready_and_fed_while_it_waits_and_says_when_it_takes_over() {
    let first_setup = Setup::new();
    let first = first_setup.start();
    let mut setup = Setup::new();
    setup.config = "[store]\nstandby = true\n".to_owned();
    setup.database_url = Some(format!("sqlite:{}", first_setup.database().display()));
    setup.data_dirs = first_setup.data_dirs.clone();
    let (mut manager, standby) = Manager::start(&mut setup, Duration::from_secs(2));

    assert!(manager.hears("READY=1", PATIENCE), "{}", standby.log_tail());
    let status = manager.next(PATIENCE).unwrap();
    let holder = format!("STATUS=standby: process {} on ", first.pid());
    assert!(status.starts_with(&holder), "{status}");
    for _ in 0..3 {
        assert!(manager.hears("WATCHDOG=1", PATIENCE), "{}", standby.log_tail());
    }
    assert_eq!(first.stop().code(), Some(0));

    let listening = format!("STATUS=listening on 127.0.0.1:{}", standby.port);
    assert!(manager.hears(&listening, PATIENCE), "{}", standby.log_tail());
    assert!(manager.hears("WATCHDOG=1", PATIENCE), "{}", standby.log_tail());
    assert_eq!(standby.stop().code(), Some(0));
}

#[test]
fn a_stage_that_hangs_is_not_fed_for() {
    const PERIOD: Duration = Duration::from_secs(2);
    for stage in ["filter.handle", "router.handle", "writer.handle", "shard.turn"] {
        let mut setup = Setup::new();
        // A shard takes a turn when it is born.
        let pass = if stage == "shard.turn" { 2 } else { 1 };
        setup.failpoints = format!("{stage}=hang@{pass}");
        setup.config = "[http]\nworkers = 1\n".to_owned();
        let (mut manager, daemon) = Manager::start(&mut setup, PERIOD);
        assert!(manager.hears("WATCHDOG=1", PATIENCE), "{}", daemon.log_tail());

        // A shard without sessions is not woken.
        let _client = daemon.subscribe("fills");
        let mut file = Kind::fills(setup.node()).open(DAY, 9);
        append(&mut file, &(fills_line(1, ALICE, 1) + "\n"));
        // What was said before it hung is passed over.
        eventually(&format!("the log says that {stage} hangs"), || {
            daemon.log().contains("stages do not answer")
        });
        while manager.next(Duration::from_millis(1)).is_some() {}

        // As long as this systemd would wait.
        assert!(!manager.hears("WATCHDOG=1", PERIOD), "{stage}\n{}", daemon.log_tail());
        daemon.kill();
    }
}

#[test]
fn a_store_that_is_away_does_not_starve_the_watchdog() {
    // A locked database occupies the writer's thread for two seconds a try.
    const PERIOD: Duration = Duration::from_secs(6);
    let mut setup = Setup::new();
    let (mut manager, daemon) = Manager::start(&mut setup, PERIOD);
    assert!(manager.hears("WATCHDOG=1", PATIENCE), "{}", daemon.log_tail());
    let lock = lock_database(&setup);
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    append(&mut file, &(fills_line(1, ALICE, 1) + "\n"));

    let start = Instant::now();
    let mut away = false;
    while start.elapsed() < 3 * PERIOD {
        // A noisy machine delays it; a starved watchdog never hears it.
        assert!(manager.hears("WATCHDOG=1", 3 * PERIOD), "{}", daemon.log_tail());
        let status = manager.next(PATIENCE).unwrap();
        away |= status.contains("store away since");
    }
    assert!(away, "the store was there\n{}", daemon.log_tail());
    drop(lock);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_postgresql_server_that_does_not_answer_does_not_starve_the_watchdog() {
    const PERIOD: Duration = Duration::from_secs(2);
    let server = env::var("NODECAST_TEST_POSTGRES")
        .expect("NODECAST_TEST_POSTGRES names a PostgreSQL server: scripts/test.sh starts one");
    let (base, _) = server.rsplit_once('/').unwrap();
    let name = format!("watchdog_{}", process::id());
    let url = format!("{base}/{name}");
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = |url: &str, statement: &str| {
        runtime.block_on(async {
            let mut connection = AsyncPgConnection::establish(url).await.unwrap();
            connection.batch_execute(statement).await.unwrap();
            connection
        })
    };
    run(&server, &format!("CREATE DATABASE {name}"));
    let mut setup = Setup::new();
    setup.config = format!("[store]\nurl = \"{url}\"\n");
    let (mut manager, daemon) = Manager::start(&mut setup, PERIOD);
    assert!(manager.hears("WATCHDOG=1", PATIENCE), "{}", daemon.log_tail());

    let mut client = daemon.subscribe("fills");
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    append(&mut file, &(fills_line(1, ALICE, 1) + "\n"));
    receive_type(&mut client, "event");
    eventually("the first is stored", || daemon.status()["store"]["inserted"] == 1);

    // Every commit waits for this row, for a minute each time.
    let lock = run(&url, "BEGIN; SELECT * FROM nodecast.store_state FOR UPDATE");
    append(&mut file, &(fills_line(2, ALICE, 1) + "\n"));
    receive_type(&mut client, "event");
    let start = Instant::now();
    while start.elapsed() < 3 * PERIOD {
        // A noisy machine delays it; a starved watchdog never hears it.
        assert!(manager.hears("WATCHDOG=1", 3 * PERIOD), "{}", daemon.log_tail());
    }
    assert_eq!(daemon.status()["store"]["inserted"], 1, "the server answered");

    drop(lock);
    run(
        &server,
        &format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = '{name}' AND state = 'idle in transaction'"
        ),
    );
    while daemon.status()["store"]["inserted"] != 2 {
        // A noisy machine delays it; a starved watchdog never hears it.
        assert!(manager.hears("WATCHDOG=1", 3 * PERIOD), "{}", daemon.log_tail());
    }
    assert_eq!(daemon.stop().code(), Some(0));
    run(&server, &format!("DROP DATABASE {name} WITH (FORCE)"));
}

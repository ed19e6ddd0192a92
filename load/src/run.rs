//! One server with its clients and what is written to them.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use crate::{
    client::{Clients, Connecting, Group, Order, State, Transport, Window},
    histogram::Histogram,
    ledger::Ledger,
    options::Common,
    process::{self, Cpu, Memory},
    server::{
        Server,
        daemon::{Daemon, FIRST_BLOCK},
        raw::Raw,
    },
};

/// How long clients may take to connect, or events to arrive.
const PATIENCE: Duration = Duration::from_secs(120);

/// Room besides the sessions that are wanted: those that come while others are not yet gone.
const MORE_SESSIONS: u32 = 1_000;

pub struct Run {
    pub ledger: Arc<Ledger>,
    pub server: Server,
    pub clients: Clients,
}

/// Percentiles in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl From<&Histogram> for Latency {
    fn from(times: &Histogram) -> Self {
        let at = |share| times.at(share) as f64 / 1e3;
        let max = times.max() as f64 / 1e3;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max }
    }
}

/// What was measured between two moments.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    pub name: String,
    pub server: &'static str,
    pub sessions: u64,
    pub seconds: f64,
    /// Events that were written.
    pub events: u64,
    pub deliveries: u64,
    pub deliveries_per_second: f64,
    /// Of the server; null when its process is not known, like all that follows from it.
    pub cpu: Option<Cpu>,
    pub cpu_us_per_delivery: Option<f64>,
    pub deliveries_per_cpu_second: Option<f64>,
    pub latency_ms: Latency,
    /// Of polls that found something waiting.
    pub answers_ms: Option<Latency>,
    /// Events that a client found at one read, on average.
    pub events_per_read: f64,
    pub payload_bytes: f64,
    pub memory: Option<Memory>,
    pub driver_cpu_seconds: f64,
    /// Processors that others kept busy on this machine meanwhile.
    pub others_busy: f64,
    #[serde(skip)]
    pub window: Window,
}

/// How a server was found at the end.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub server: &'static str,
    pub clients: State,
    /// What the daemon says of its sessions.
    pub sessions: Option<Value>,
    /// Why the counts do not add up.
    pub failure: Option<String>,
}

/// The moment at which a measurement begins.
pub struct Mark {
    at: Instant,
    cpu: Option<Cpu>,
    driver: Cpu,
    busy: f64,
    events: u64,
}

impl Run {
    /// Starts a daemon, or uses the one that runs, and writes the first event.
    pub fn daemon(
        common: &Common,
        sessions: u32,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let traffic = common.traffic();
        let mut daemon = match (common.url, &common.node_dir) {
            (Some(url), Some(node)) => Daemon::running(url, node, common.pid, traffic)?,
            _ => {
                let most = (sessions + MORE_SESSIONS).to_string();
                let mut all = vec![("session.max_sessions".to_owned(), most)];
                let owned = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
                all.extend(settings.iter().map(owned));
                // Said last, they win.
                all.extend(common.set.iter().cloned());
                Daemon::start(&common.daemon, &all, traffic)?
            }
        };
        let ledger = Arc::new(Ledger::new(daemon.next_block));
        daemon.warm_up(&ledger)?;
        Self::with(common, common.connecting(), ledger, Server::Daemon(daemon))
    }

    pub fn raw(common: &Common, payload_bytes: usize) -> anyhow::Result<Self> {
        let server = Server::Raw(Raw::start(payload_bytes)?);
        // It says what it says in one way.
        let connecting = Connecting { transport: Transport::Ws, ..common.connecting() };
        Self::with(common, connecting, Arc::new(Ledger::new(FIRST_BLOCK)), server)
    }

    fn with(
        common: &Common,
        connecting: Connecting,
        ledger: Arc<Ledger>,
        server: Server,
    ) -> anyhow::Result<Self> {
        let traffic = common.traffic();
        let clients = Clients::start(server.address(), connecting, ledger.clone(), traffic)?;
        Ok(Self { ledger, server, clients })
    }

    /// Opens clients and waits until all are subscribed. Gives the seconds it took.
    pub fn open(&mut self, orders: Vec<Order>) -> anyhow::Result<f64> {
        let begun = Instant::now();
        self.clients.open(orders, None)?;
        self.clients.wait_until_live(PATIENCE)?;
        Ok(begun.elapsed().as_secs_f64())
    }

    pub fn memory(&self) -> anyhow::Result<Option<Memory>> {
        Ok(self.server.pid().map(Memory::of).transpose()?)
    }

    /// One block.
    pub fn feed(&mut self, events: u64) -> anyhow::Result<()> {
        self.server.feed(&self.ledger, events).context("an event cannot be written")
    }

    /// Writes blocks at a rate, in equal distances, whatever the server does; `meanwhile` is called
    /// after each.
    pub fn write(
        &mut self,
        events: u64,
        per_second: f64,
        seconds: f64,
        mut meanwhile: impl FnMut(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        let blocks = (per_second * seconds).round().max(1.0) as u64;
        for block in 0..blocks {
            let due = begun + Duration::from_secs_f64(block as f64 / per_second);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            self.feed(events)?;
            meanwhile(self)?;
        }
        Ok(())
    }

    /// Waits until everything that was written is with everybody. What did not come is found by
    /// [`Run::finish`].
    pub fn settle(&mut self) -> anyhow::Result<bool> {
        // What later events have shown to be missing is not waited for.
        self.clients.wait(PATIENCE, |state| {
            state.expected.saturating_sub(state.received) <= state.faults.missing
        })
    }

    /// Begins a measurement: what was before does not count.
    pub fn mark(&mut self) -> anyhow::Result<Mark> {
        self.clients.window()?;
        Ok(Mark {
            at: Instant::now(),
            cpu: self.server.pid().map(Cpu::of).transpose()?,
            driver: Cpu::of(std::process::id())?,
            busy: process::machine_busy()?,
            events: self.ledger.events(),
        })
    }

    /// Ends a measurement. Latency is that of the clients that are there all the time.
    pub fn phase(&mut self, name: impl Into<String>, mark: &Mark) -> anyhow::Result<Phase> {
        let seconds = mark.at.elapsed().as_secs_f64();
        let now = self.server.pid().map(Cpu::of).transpose()?;
        let cpu = now.zip(mark.cpu).map(|(now, before)| now - before);
        let driver = (Cpu::of(std::process::id())? - mark.driver).sum();
        let busy = process::machine_busy()? - mark.busy;
        let window = self.clients.window()?;
        let deliveries = window.events();
        let steady = window.group(Group::Steady);
        let answers = window.answers();
        let each = |cpu: Cpu| cpu.sum() * 1e6 / deliveries.max(1) as f64;
        let others = busy - driver - cpu.map_or(0.0, |cpu| cpu.sum());
        Ok(Phase {
            name: name.into(),
            server: self.server.name(),
            sessions: self.clients.state()?.live,
            seconds,
            events: self.ledger.events() - mark.events,
            deliveries,
            deliveries_per_second: deliveries as f64 / seconds,
            cpu,
            cpu_us_per_delivery: cpu.map(each),
            // Below a tick of the kernel's clock there is nothing to divide by.
            deliveries_per_cpu_second: cpu
                .filter(|cpu| cpu.sum() > 0.0)
                .map(|cpu| deliveries as f64 / cpu.sum()),
            latency_ms: Latency::from(&steady.latency),
            answers_ms: (!answers.is_empty()).then(|| Latency::from(&answers)),
            events_per_read: steady.events as f64 / steady.reads.max(1) as f64,
            payload_bytes: steady.payload_bytes as f64 / steady.events.max(1) as f64,
            memory: self.memory()?,
            driver_cpu_seconds: driver,
            others_busy: others.max(0.0) / seconds,
            window,
        })
    }

    /// Writes for a time and measures until everything has arrived.
    pub fn measure(
        &mut self,
        name: impl Into<String>,
        events: u64,
        per_second: f64,
        seconds: f64,
    ) -> anyhow::Result<Phase> {
        let mark = self.mark()?;
        self.write(events, per_second, seconds, |_| Ok(()))?;
        self.settle()?;
        self.phase(name, &mark)
    }

    /// Looks whether everything that was written was delivered and stored, and stops the server.
    pub fn finish(mut self) -> anyhow::Result<Outcome> {
        self.settle()?;
        let clients = self.clients.state()?;
        let server = self.server.name();
        let mut failure = clients.faults.first.clone();
        if clients.expected != clients.received {
            let (expected, received) = (clients.expected, clients.received);
            let first = failure.take().map_or(String::new(), |first| format!("; {first}"));
            failure = Some(format!("expected {expected} events, received {received}{first}"));
        }
        let status = self.server.status()?;
        let sessions = status.map(|mut status| status["sessions"].take());
        self.clients.stop()?;
        match self.server {
            Server::Daemon(daemon) => {
                if let Err(error) = daemon.wait_until_stored(&self.ledger) {
                    failure.get_or_insert(format!("{error:#}"));
                }
                daemon.stop()?;
            }
            Server::Raw(raw) => raw.stop()?,
        }
        Ok(Outcome { server, clients, sessions, failure })
    }
}

//! The thread of all clients: one buffer, one read a wake-up.
//!
//! Invariant: whose latency is measured is read first, however many others have something to read.

mod churn;

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, TryRecvError},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
};

use super::{
    Churn, Connecting, Group, Order, State, Window,
    pace::Pace,
    session::{End, Scene, Session, Stage},
    tally::GROUPS,
    turns::{Seat, Turns},
};
use crate::{
    frame::{self, CLOSE},
    ledger::Ledger,
    traffic::Traffic,
};

/// How long the thread sleeps at most when nothing comes: commands wait so long.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
/// The longest frame, and the most that is read at once.
pub const BUFFER_BYTES: usize = 256 << 10;
const EVENTS_AT_ONCE: usize = 1_024;
/// Others that are read until the steady clients are looked at again.
const EXTRAS_AT_ONCE: usize = 8;
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// An event that was written so long ago must be there.
const OVERDUE: Duration = Duration::from_secs(10);

/// What the measuring thread wants.
pub enum Command {
    Open { orders: Vec<Order>, per_second: Option<f64> },
    Churn(Option<Churn>),
    Close(Group),
    Capture(u64, Sender<String>),
    State(Sender<State>),
    Window(Sender<Window>),
}

pub struct Swarm {
    server: SocketAddr,
    connecting: Connecting,
    ledger: Arc<Ledger>,
    traffic: Traffic,
    commands: Receiver<Command>,
    /// Of the sessions of each group.
    epolls: [OwnedFd; GROUPS],
    /// Of all these.
    either: OwnedFd,
    buffer: Box<[u8]>,
    /// With the number of times that each place was given away: an event for the one before is not
    /// taken for one of the present owner.
    sessions: Vec<(u32, Option<Session>)>,
    free: Vec<usize>,
    turns: Turns,
    /// Not begun yet.
    waiting: VecDeque<Order>,
    pace: Option<Pace>,
    /// Begun and not subscribed yet.
    under_way: usize,
    /// How many were begun, which gives each its source address.
    begun: u32,
    churn: Option<Pace>,
    /// Who goes next, the oldest first.
    oldest: VecDeque<(u32, usize)>,
    random: fastrand::Rng,
    window: Window,
    /// Counts of those that are over; the living ones are added when it is asked for.
    state: State,
    events_seen: u64,
    hint: usize,
    capture: Option<(u64, Option<String>)>,
    captured: Option<Sender<String>>,
}

impl Swarm {
    pub fn new(
        server: SocketAddr,
        connecting: Connecting,
        ledger: Arc<Ledger>,
        traffic: Traffic,
        commands: Receiver<Command>,
    ) -> anyhow::Result<Self> {
        let create = || epoll::create(CreateFlags::CLOEXEC);
        let epolls = [create()?, create()?, create()?];
        let either = epoll::create(CreateFlags::CLOEXEC)?;
        for (group, epoll) in epolls.iter().enumerate() {
            epoll::add(&either, epoll, EventData::new_u64(group as u64), EventFlags::IN)?;
        }
        Ok(Self {
            server,
            connecting,
            ledger,
            traffic,
            commands,
            epolls,
            either,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            sessions: Vec::new(),
            free: Vec::new(),
            turns: Turns::new(),
            waiting: VecDeque::new(),
            pace: None,
            under_way: 0,
            begun: 0,
            churn: None,
            oldest: VecDeque::new(),
            random: fastrand::Rng::with_seed(1),
            window: Window::default(),
            state: State::default(),
            events_seen: 0,
            hint: 0,
            capture: None,
            captured: None,
        })
    }

    /// Runs until nobody can send commands any more.
    pub fn run(mut self) -> anyhow::Result<()> {
        let mut either = Vec::with_capacity(self.epolls.len());
        let mut ready = [EVENTS_AT_ONCE, EXTRAS_AT_ONCE, EXTRAS_AT_ONCE].map(Vec::with_capacity);
        loop {
            loop {
                match self.commands.try_recv() {
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            self.open_waiting()?;
            while self.churn.as_mut().is_some_and(Pace::due) {
                self.replace_oldest();
            }
            either.clear();
            let nap = if self.turns.is_due() { &AT_ONCE } else { &NAP };
            match epoll::wait(&self.either, spare_capacity(&mut either), Some(nap)) {
                Err(rustix::io::Errno::INTR) => continue,
                waited => waited?,
            };
            // In the order of the groups.
            for (epoll, ready) in self.epolls.iter().zip(&mut ready) {
                match epoll::wait(epoll, spare_capacity(ready), Some(&AT_ONCE)) {
                    Err(rustix::io::Errno::INTR) => continue,
                    waited => waited?,
                };
            }
            for event in ready.iter_mut().flat_map(|ready| ready.drain(..)) {
                let data = event.data.u64();
                self.serve(((data >> 32) as u32, data as u32 as usize))?;
            }
            for seat in self.turns.take(Instant::now()) {
                self.serve(seat)?;
            }
            if let Some((_, found @ Some(_))) = &mut self.capture
                && let (Some(cursor), Some(asker)) = (found.take(), self.captured.take())
            {
                self.capture = None;
                // Whoever asked may not want it any more.
                drop(asker.send(cursor));
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Open { orders, per_second } => {
                self.waiting.extend(orders);
                self.pace = per_second.map(Pace::new);
            }
            Command::Churn(churn) => self.churn = churn.map(|churn| Pace::new(churn.per_second)),
            Command::Close(group) => self.close_group(group),
            Command::Capture(event, asker) => {
                self.capture = Some((event, None));
                self.captured = Some(asker);
            }
            // Whoever asked may be gone.
            Command::State(asker) => drop(asker.send(self.state())),
            Command::Window(asker) => drop(asker.send(std::mem::take(&mut self.window))),
        }
    }

    fn open_waiting(&mut self) -> anyhow::Result<()> {
        while self.under_way < self.connecting.at_once
            && !self.waiting.is_empty()
            && self.pace.as_mut().is_none_or(Pace::due)
        {
            if let Some(order) = self.waiting.pop_front() {
                self.open(order)?;
            }
        }
        Ok(())
    }

    fn open(&mut self, order: Order) -> anyhow::Result<()> {
        let nth = self.begun % self.connecting.addresses.max(1);
        self.begun = self.begun.wrapping_add(1);
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 1, 1)) + nth);
        let transport = self.connecting.transport;
        let session = Session::connect(order, source, self.server, transport, &self.traffic)
            .with_context(|| format!("a client of {source} cannot connect to {}", self.server))?;
        let at = self.free.pop().unwrap_or(self.sessions.len());
        if at == self.sessions.len() {
            self.sessions.push((0, None));
        }
        let place = &mut self.sessions[at];
        place.0 = place.0.wrapping_add(1);
        let epoll = &self.epolls[session.group() as usize];
        epoll::add(epoll, &session.stream, data(place.0, at), EventFlags::OUT)?;
        place.1 = Some(session);
        self.under_way += 1;
        Ok(())
    }

    fn serve(&mut self, (number, at): Seat) -> anyhow::Result<()> {
        let Some((current, Some(session))) = self.sessions.get_mut(at) else { return Ok(()) };
        if *current != number {
            return Ok(());
        }
        let opening = session.is_opening();
        let epoll = &self.epolls[session.group() as usize];
        let result = match session.stage {
            Stage::Connecting => {
                epoll::modify(epoll, &session.stream, data(number, at), EventFlags::IN)?;
                session.shake_hands(&self.traffic, self.ledger.now())
            }
            // Only its end is waited for.
            Stage::Stalled => Err(End::HungUp(Stage::Stalled)),
            _ => session.read(
                &mut self.buffer,
                &mut Scene {
                    ledger: &self.ledger,
                    traffic: self.traffic,
                    window: &mut self.window,
                    faults: &mut self.state.faults,
                    events_seen: &mut self.events_seen,
                    compared: &mut self.state.compared,
                    hint: &mut self.hint,
                    capture: &mut self.capture,
                },
            ),
        };
        if opening && !session.is_opening() {
            self.under_way -= 1;
            self.state.opened += 1;
            self.oldest.push_back((number, at));
            let takes_turns = session.is_live() && session.group() == Group::Bulk;
            if takes_turns {
                self.turns.add((number, at));
            }
            if takes_turns || session.stage == Stage::Stalled {
                let end = EventFlags::RDHUP;
                epoll::modify(epoll, &session.stream, data(number, at), end)?;
            }
        }
        if let Err(end) = result {
            self.ended(at, &end);
        }
        Ok(())
    }

    /// The server, or the network, has ended a session.
    fn ended(&mut self, at: usize, end: &End) {
        if let End::Closed(code) = end {
            *self.state.closes.entry(*code).or_default() += 1;
        }
        let Some(session) = self.remove(at) else { return };
        if session.stage == Stage::Stalled {
            self.state.cut += 1;
            self.waiting.push_back(session.order);
            return;
        }
        self.settle(&session);
        self.state.faults.ended += 1;
        self.state.faults.say(|| end.to_string());
    }

    /// Takes a session out of its place.
    fn remove(&mut self, at: usize) -> Option<Session> {
        let session = self.sessions[at].1.take()?;
        self.free.push(at);
        self.under_way -= usize::from(session.is_opening());
        Some(session)
    }

    /// Enters what a session that is over had to get and got.
    fn settle(&mut self, session: &Session) {
        if session.order.stalls || session.is_opening() {
            return;
        }
        let waits_for = session.judge.waits_for();
        self.state.expected += session.judge.expected(waits_for);
        self.state.received += session.judge.received();
        let overdue = self.ledger.now().saturating_sub(OVERDUE.as_nanos() as u64);
        if self.ledger.written_at(waits_for).is_some_and(|written_at| written_at < overdue) {
            self.state.faults.overdue += 1;
            self.state.faults.say(|| format!("event {waits_for} did not come in {OVERDUE:?}"));
        }
    }

    fn close_group(&mut self, group: Group) {
        self.waiting.retain(|order| order.group != group);
        for at in 0..self.sessions.len() {
            if self.sessions[at].1.as_ref().is_some_and(|session| session.group() == group)
                && let Some(mut session) = self.remove(at)
            {
                self.settle(&session);
                if session.is_live() {
                    // As above.
                    drop(session.send(&frame::of_client(CLOSE, &1_000_u16.to_be_bytes())));
                }
            }
        }
    }

    fn state(&self) -> State {
        let mut state = self.state.clone();
        let events = self.ledger.events();
        state.opening = (self.waiting.len() + self.under_way) as u64;
        for session in self.sessions.iter().filter_map(|(_, session)| session.as_ref()) {
            match session.stage {
                Stage::Live => {
                    state.live += 1;
                    state.joined += u64::from(session.order.from.is_some() && session.joined);
                    state.expected += session.judge.expected(events);
                    state.received += session.judge.received();
                }
                Stage::Stalled => state.stalled += 1,
                _ => {}
            }
        }
        state
    }
}

fn data(number: u32, at: usize) -> EventData {
    EventData::new_u64(u64::from(number) << 32 | at as u64)
}

//! Thousands of clients on one thread. The thread that measures talks to it by messages.

mod http;
mod judge;
mod pace;
mod session;
mod swarm;
mod tally;
mod turns;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::ValueEnum;

use self::swarm::{Command, Swarm};
pub use self::{
    judge::Due,
    tally::{Group, State, Window},
};
use crate::{
    ledger::Ledger,
    traffic::{Traffic, Wish},
};

/// How often it is looked whether something has happened.
const LOOK: Duration = Duration::from_millis(20);

/// How clients get their events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// WebSocket, `/v1/ws`
    #[default]
    Ws,
    /// WebSocket, `/ws`, in the official protocol: `userFills` of a list of users
    Official,
    /// Server-Sent Events, `/v1/stream`
    Sse,
    /// Long polls, `/v1/poll`
    Poll,
}

impl Transport {
    pub fn is_socket(self) -> bool {
        matches!(self, Self::Ws | Self::Official)
    }
}

/// How clients connect.
#[derive(Clone, Copy, Debug)]
pub struct Connecting {
    pub transport: Transport,
    /// Source addresses, 127.0.1.1 and so on.
    pub addresses: u32,
    /// Handshakes under way at one time.
    pub at_once: usize,
}

/// One client to open.
#[derive(Clone, Debug)]
pub struct Order {
    pub group: Group,
    pub wish: Wish,
    /// Where it begins, `None` is now.
    pub from: Option<(Arc<str>, Due)>,
    /// It stops reading once it is subscribed, and comes back when it is cut.
    pub stalls: bool,
    /// It remembers its cursor, so that another can go on.
    pub keeps_cursor: bool,
}

impl Order {
    pub fn now(group: Group, wish: Wish) -> Self {
        Self { group, wish, from: None, stalls: false, keeps_cursor: false }
    }
}

/// How clients come and go.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// Clients that go, the oldest first; for each another one comes.
    pub per_second: f64,
}

/// All clients of a run.
pub struct Clients {
    commands: Sender<Command>,
    /// `None` when it was told to end.
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Clients {
    pub fn start(
        server: SocketAddr,
        connecting: Connecting,
        ledger: Arc<Ledger>,
        traffic: Traffic,
    ) -> anyhow::Result<Self> {
        let (commands, receiver) = mpsc::channel();
        let swarm = Swarm::new(server, connecting, ledger, traffic, receiver)?;
        let thread = thread::Builder::new().name("clients".into()).spawn(|| swarm.run())?;
        Ok(Self { commands, thread: Some(thread) })
    }

    /// Opens clients, as fast as they connect or at a rate.
    pub fn open(&mut self, orders: Vec<Order>, per_second: Option<f64>) -> anyhow::Result<()> {
        self.tell(Command::Open { orders, per_second })
    }

    pub fn churn(&mut self, churn: Option<Churn>) -> anyhow::Result<()> {
        self.tell(Command::Churn(churn))
    }

    /// Closes all clients of a group.
    pub fn close(&mut self, group: Group) -> anyhow::Result<()> {
        self.tell(Command::Close(group))
    }

    pub fn state(&mut self) -> anyhow::Result<State> {
        self.ask(Command::State)
    }

    /// What has happened since this was last asked.
    pub fn window(&mut self) -> anyhow::Result<Window> {
        self.ask(Command::Window)
    }

    /// The cursor that the next client shows behind this event.
    pub fn capture(&mut self, event: u64) -> anyhow::Result<Receiver<String>> {
        let (sender, receiver) = mpsc::channel();
        self.tell(Command::Capture(event, sender))?;
        // Answered in order: once this is, they are looking.
        self.state()?;
        Ok(receiver)
    }

    /// Waits until something holds. Gives whether it came to hold in time.
    pub fn wait(
        &mut self,
        patience: Duration,
        mut holds: impl FnMut(&State) -> bool,
    ) -> anyhow::Result<bool> {
        let begun = Instant::now();
        while !holds(&self.state()?) {
            if begun.elapsed() > patience {
                return Ok(false);
            }
            thread::sleep(LOOK);
        }
        Ok(true)
    }

    /// Waits until all clients that were asked for are subscribed.
    ///
    /// # Errors
    /// When they are not.
    pub fn wait_until_live(&mut self, patience: Duration) -> anyhow::Result<()> {
        if self.wait(patience, |state| state.opening == 0)? {
            return Ok(());
        }
        let state = self.state()?;
        bail!("{} clients are live, {} are not, after {patience:?}", state.live, state.opening)
    }

    fn ask<T>(&mut self, question: impl FnOnce(Sender<T>) -> Command) -> anyhow::Result<T> {
        let (sender, receiver) = mpsc::channel();
        self.tell(question(sender))?;
        match receiver.recv() {
            Ok(answer) => Ok(answer),
            Err(_) => Err(self.end()),
        }
    }

    fn tell(&mut self, command: Command) -> anyhow::Result<()> {
        match self.commands.send(command) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.end()),
        }
    }

    /// Why the thread does not answer.
    fn end(&mut self) -> anyhow::Error {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => error.context("the clients ended"),
            _ => anyhow::anyhow!("the clients ended"),
        }
    }

    /// Closes everything.
    ///
    /// # Errors
    /// Those of the thread.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let (unused, _) = mpsc::channel();
        drop(std::mem::replace(&mut self.commands, unused));
        let thread = self.thread.take().context("it is told once")?;
        thread.join().map_err(|_| anyhow::anyhow!("the clients panicked"))?
    }
}

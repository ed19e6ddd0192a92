//! The demo: a simulated node, the real daemon, a live client, and the proof at the end.
//!
//! Place: around the whole pipeline. It starts a [`Daemon`] from a configuration as `run` does, and
//! meets it only where a node, a client and an operator would: files, the port, counters.
//! Invariants: every figure was counted by the stage that it tells of; the verdict compares the
//! database with what the simulator noted down while it wrote, row by row.

mod audit;
mod client;
mod folder;
mod node;
mod screen;

use std::{
    collections::HashSet,
    future,
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_rt::time::{interval_at, sleep};
use anyhow::Context;
use slog::{Level, Logger};

use self::{
    audit::Verdict,
    client::Client,
    folder::Folder,
    node::{Appended, Node},
    screen::{Progress, say},
};
use crate::{
    config::{Config, FlagValue, Inputs, LogFormat, Need},
    daemon::{self, Daemon, Signals},
    event::Address,
    generate::{Faults, Plan, Users},
    logging, store,
};

const SECOND: Duration = Duration::from_secs(1);

/// How long nothing may arrive, at the end, before what is missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time between two looks whether all has arrived.
const ARRIVAL_CHECK: Duration = Duration::from_millis(5);

/// What is to be shown.
#[derive(Clone, Debug)]
pub struct Options {
    /// A free port is taken when this one is in use.
    pub listen: SocketAddr,
    /// Greater than 0.
    pub blocks_per_second: f64,
    pub users: usize,
    pub seed: u64,
    /// `None`: until a signal comes.
    pub duration: Option<Duration>,
    /// A directory to use and keep instead of a temporary one.
    pub keep: Option<PathBuf>,
    pub faults: Faults,
    /// Whether to show the daemon's log, and not only what an operator would have to know.
    pub verbose: bool,
}

/// Shows the daemon at work. Tells whether the store is equal to what the node wrote, and the live
/// client got all of it.
///
/// # Errors
/// When the demo cannot start, or the daemon or the node ended with a fault.
pub fn run(options: Options) -> anyhow::Result<bool> {
    let plan = Plan {
        seed: options.seed,
        node_seed: options.seed,
        users: options.users,
        block_interval: Duration::from_secs_f64(1.0 / options.blocks_per_second),
        faults: options.faults,
        ..Plan::default()
    };
    plan.validate().context("the options do not fit together")?;
    let users = Users::new(plan.seed, plan.users);
    let listed: HashSet<Address> = users.addresses().iter().step_by(2).copied().collect();
    let folder = Folder::create(options.keep.as_deref())?;
    folder.write_whitelist(users.addresses().iter().filter(|user| listed.contains(user)))?;
    let config = config(&options, &folder)?;
    let (logger, _flushed_at_exit) = logging::start(&config.log);
    // The first ones trade the most.
    let most_active = users.addresses()[0];
    let demo = Demo { options, plan, folder, listed, most_active };
    daemon::block_on(demo.run(config, logger))
}

/// The configuration as `run` would load it from flags; the environment is not asked.
fn config(options: &Options, folder: &Folder) -> anyhow::Result<Config> {
    let flag = |flag: &str, key, value: String, is_list| FlagValue {
        flag: flag.to_owned(),
        key,
        values: vec![value],
        is_list,
    };
    let path = |path: PathBuf| path.display().to_string();
    let listen = free_address(options.listen)?;
    let level = if options.verbose { "info" } else { "warn" };
    let flags = vec![
        flag("--data-dir", "source.data_dirs", path(folder.node()), true),
        flag("--state-dir", "state_dir", path(folder.state()), false),
        flag("--whitelist", "whitelist.file", path(folder.whitelist()), false),
        flag("--from", "source.from", "oldest".to_owned(), false),
        flag("--listen", "http.listen", listen.to_string(), false),
        flag("--log-level", "log.level", level.to_owned(), false),
    ];
    let mut config = Inputs { flags, ..Inputs::default() }.load(Need::Run)?.config;
    // The node's directories are there before it writes, as those of a node that has run before.
    config.source.create_missing = true;
    config.log.format = LogFormat::Term;
    if !options.verbose {
        // It would tell of each line that the node is made to cut; the table counts them.
        config.log.levels.push(("parser".to_owned(), Level::Error));
    }
    Ok(config)
}

/// The wanted address, or a free port when another program has the wanted one.
fn free_address(wanted: SocketAddr) -> anyhow::Result<SocketAddr> {
    match TcpListener::bind(wanted) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            say(&format!("{wanted} is in use by another program: taking a free port.\n"))?;
            Ok(SocketAddr::new(wanted.ip(), 0))
        }
        // What else is wrong with the address, the daemon says better.
        _ => Ok(wanted),
    }
}

struct Demo {
    options: Options,
    plan: Plan,
    folder: Folder,
    listed: HashSet<Address>,
    /// Of those who are listed.
    most_active: Address,
}

/// The parts that live while the demo runs.
struct Scene {
    daemon: Daemon,
    client: Client,
    appended: Arc<Appended>,
    begun: Instant,
}

impl Demo {
    async fn run(self, config: Config, logger: Logger) -> anyhow::Result<bool> {
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        let url = config.store.url.clone();
        let store_config = config.store.clone();
        let daemon = Daemon::start(config, &logger).await?;
        let address = screen::reachable(daemon.address());
        let appended = Arc::<Appended>::default();
        let client = Client::connect(address, appended.clone())
            .await
            .context("the demo's own client cannot listen")?;
        let Options { blocks_per_second, users, .. } = self.options;
        let head =
            screen::addresses(address, &self.folder, blocks_per_second, users, self.most_active);
        say(&head)?;

        let (plan, manifest) = (self.plan.clone(), self.folder.manifest());
        let mut node = Node::start(plan, &self.folder.node(), &manifest, appended.clone())?;
        let scene = Scene { daemon, client, appended, begun: Instant::now() };
        scene.watch(self.options.duration, &mut node, &mut signals).await?;
        // From here on a second signal ends the process without the comparison.
        signals.stop_at_once_on_the_next(logger);
        node.stop();
        let totals = node.ended().await?;

        let written = audit::count_written(&manifest, &self.listed)?;
        scene.await_arrival(written).await?;
        let Scene { daemon, client, .. } = scene;
        let (stats, closed_early) = (daemon.stats().clone(), client.closed());
        daemon.stop().await.context("the daemon did not stop in order")?;
        let store = store::open(&url, &store_config).await?;
        let verdict = audit::compare(&manifest, &self.listed, &*store).await?;

        let broken: u64 = stats.streams().iter().map(|stream| broken_lines(stream)).sum();
        let repeats = stats.router.duplicates.get();
        say(&format!(
            "\nThe node wrote {} events in {} blocks, cut {broken} lines and repeated {repeats} \
             listed events.\n",
            totals.rows, totals.blocks
        ))?;
        let cast_whole = say_cast(&client, closed_early, &verdict)?;
        say(&screen::verdict(&verdict))?;
        self.say_kept()?;
        Ok(verdict.is_equal() && cast_whole)
    }

    /// How to go on with files that stay.
    fn say_kept(&self) -> anyhow::Result<()> {
        if self.folder.is_temporary() {
            return Ok(());
        }
        let (node, state) = (self.folder.node(), self.folder.state());
        let list = self.folder.whitelist();
        let [node, state, list] = [node, state, list].map(|path| path.display().to_string());
        say(&format!(
            "To look at it again: nodecast run --data-dir {node} --state-dir {state} --whitelist \
             {list}\n"
        ))?;
        Ok(())
    }
}

impl Scene {
    /// Shows what happens until the time is over, a signal comes or nobody reads any more.
    async fn watch(
        &self,
        duration: Option<Duration>,
        node: &mut Node,
        signals: &mut Signals,
    ) -> anyhow::Result<()> {
        let mut end = pin!(async {
            match duration {
                Some(duration) => sleep(duration).await,
                None => future::pending().await,
            }
        });
        let mut ended = pin!(node.ended());
        let mut seconds = interval_at((self.begun + SECOND).into(), SECOND);
        loop {
            tokio::select! {
                _ = seconds.tick() => if !say(&self.progress())? {
                    return Ok(());
                },
                () = &mut end => return Ok(()),
                // Also when the terminal is closed: there is nothing to reload here.
                _ = signals.next() => return Ok(()),
                fault = self.daemon.fault() => return Err(fault.into()),
                early = &mut ended => return early.map(drop),
            }
        }
    }

    fn progress(&self) -> String {
        let stats = self.daemon.stats();
        let streams = stats.streams();
        screen::progress(&mut Progress {
            seconds: (self.begun.elapsed() + SECOND / 2).as_secs(),
            blocks: self.appended.count(),
            read: streams.iter().map(|stream| stream.candidates.get()).sum(),
            broken_lines: streams.iter().map(|stream| broken_lines(stream)).sum(),
            repeats: stats.router.duplicates.get(),
            kept: stats.router.sequenced.get(),
            stored: stats.store.inserted.get(),
            cast: self.client.events(),
            delays: self.client.take_delays(),
            sessions: stats.sessions.open.get(),
        })
    }

    /// Waits until everything is stored and cast. Gives up when nothing arrives any more: the
    /// comparison then says what is missing.
    async fn await_arrival(&self, written: u64) -> anyhow::Result<()> {
        let (mut last, mut since) = ((0, 0), Instant::now());
        loop {
            let stored = self.daemon.stats().store.inserted.get();
            let cast = if self.client.closed().is_some() { written } else { self.client.events() };
            if stored >= written && cast >= written || since.elapsed() > PATIENCE {
                return Ok(());
            }
            if last != (stored, cast) {
                (last, since) = ((stored, cast), Instant::now());
            }
            tokio::select! {
                () = sleep(ARRIVAL_CHECK) => {}
                fault = self.daemon.fault() => return Err(fault.into()),
            }
        }
    }
}

/// Says what the live client got. Tells whether that is right: everything, once and in order. A
/// client that was closed, for being slower than the node for instance, got what it got.
fn say_cast(
    client: &Client,
    closed_early: Option<String>,
    verdict: &Verdict,
) -> anyhow::Result<bool> {
    let (events, disordered, written) = (client.events(), client.disordered(), verdict.written);
    if let Some(why) = closed_early {
        say(&format!("The live client was closed after {events} of {written} events: {why}.\n"))?;
        return Ok(true);
    }
    say(&format!(
        "The live client received {events} of {written} events, {disordered} of them repeated or \
         out of order.\n"
    ))?;
    Ok(events == written && disordered == 0)
}

fn broken_lines(stream: &crate::stats::StreamStats) -> u64 {
    stream.recovered_lines.get() + stream.malformed_lines.get()
}

//! `nodecast backfill`: stores older events from hour files and their archives.
//!
//! Through the daemon where one runs in the state directory, because a store has one writer; else it
//! opens the store and takes the writer's lease itself.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use async_trait::async_trait;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use slog::{Discard, Logger, o};

use crate::{
    backfill::{
        self, Input, JobState, Keeping, Order, OwnStore, Pace, Pass, Report, Saved, Scope, Sink,
        SinkError, Tally, Users,
    },
    cli::{
        flags::Flags,
        generate::{parse_duration, stop_on_signal},
        legacy::LegacyFlags,
        output::print,
    },
    config::{Config, Inputs, Need},
    control::{Answer, Client, ClientError},
    daemon,
    event::{Address, Event, Timestamp},
    store::{self, Setting, StoreError, inspect::inspect},
    whitelist::{WhitelistKeeper, read_list},
};

/// Exit code of a command that a signal ended.
const EXIT_INTERRUPTED: u8 = 130;

/// How often the wish to end is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Time between two lines of progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  nodecast backfill --from ~/hl/data --users 0x010461c14e146ac35fe42271bdc1134ee31c703a
  nodecast backfill --from /archive/node_fills_by_block --users users.txt --keep 90d
  nodecast backfill --from /archive/node_fills_by_block/hourly/20260315/7.lz4

Files lie as a node writes them: KIND/hourly/YYYYMMDD/H, such as node_fills_by_block/hourly/20260315/7,
plain or as an LZ4 archive (H.lz4). Run it as the user of the daemon. What is stored already is passed
over, so the command can be repeated; one that was ended goes on where it stopped.";

/// Stores older events from hour files and their archives.
///
/// The events are in history, marked late, and are not cast. The daemon that runs on the same state
/// directory does the work, at low priority; without one the command opens the store itself. The
/// command ends with 1 when a file could not be read to its end, and the others are done then.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Files, or directories with hour files below
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub from: Vec<PathBuf>,
    /// Whose events: addresses, or files with one address a line [default: the whitelist]
    #[arg(long, value_name = "ADDRESS|FILE", num_args = 1.., value_delimiter = ',')]
    pub users: Vec<String>,
    /// Keep the days of these events for this long, such as 90d, also beyond the retention. The days
    /// are kept as a whole, with everything that is stored of them
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub keep: Option<Duration>,
    /// Cast what is new to the clients of the running daemon
    #[arg(long)]
    pub broadcast: bool,
    /// The TOML file to read [default: $NODECAST_CONFIG, else /etc/nodecast/nodecast.toml if it
    /// exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the daemon of these events has its state, and this command its progress
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<String>,
    /// The database, where no daemon runs [default: sqlite:{state-dir}/nodecast.db]
    #[arg(long, value_name = "sqlite:PATH|postgres://..")]
    pub database_url: Option<String>,
    /// A file with one address a line, or `all` for everybody, where no daemon runs
    #[arg(long, value_name = "FILE|all")]
    pub whitelist: Option<String>,
}

/// # Errors
/// When there is nothing to read, or neither a daemon nor the store can do it.
pub fn run(args: Args, legacy: LegacyFlags) -> anyhow::Result<ExitCode> {
    let mut inputs = Inputs::of_process();
    let flags = Flags {
        config: args.config,
        state_dir: args.state_dir,
        database_url: args.database_url,
        whitelist: args.whitelist,
        ..Flags::default()
    };
    flags.add_to(&mut inputs);
    legacy.add_to(&mut inputs);
    let config = inputs.load(Need::Credentials)?.config;
    let order = Order {
        paths: args.from.iter().map(std::path::absolute).collect::<io::Result<_>>()?,
        users: users_of(&args.users)?,
        keep_ms: args.keep.map(|keep| keep.as_millis() as u64),
        broadcast: args.broadcast,
    };
    let stop = stop_on_signal()?;
    let mut shown = Shown::new();
    let report = match Client::connect(&config.state_dir)? {
        Some(daemon) => through_daemon(daemon, &order, &stop, &mut shown)?,
        None => by_itself(config, order, &stop, &mut shown)?,
    };
    shown.finish();
    Ok(tell_outcome(&report)?)
}

/// Reads addresses and files of addresses; none at all means the whitelist.
fn users_of(given: &[String]) -> anyhow::Result<Option<Vec<Address>>> {
    if given.is_empty() {
        return Ok(None);
    }
    let mut users = Vec::new();
    for text in given {
        if let Ok(address) = text.parse() {
            users.push(address);
            continue;
        }
        let list = read_list(Path::new(text)).map_err(|fault| {
            anyhow!("--users: {text} is neither 0x and 40 hexadecimal digits nor a list: {fault}")
        })?;
        users.extend(list.addresses);
    }
    // The same users in another order are the same job.
    users.sort_unstable();
    users.dedup();
    Ok(Some(users))
}

/// Has the daemon do it.
fn through_daemon(
    daemon: Client,
    order: &Order,
    stop: &AtomicBool,
    shown: &mut Shown,
) -> anyhow::Result<Report> {
    let mut answers = daemon.request(backfill::NAME, serde_json::to_value(order)?)?;
    answers.wait_at_most(Some(LOOK))?;
    let mut last = Report::default();
    loop {
        if stop.load(Ordering::Relaxed) {
            // The connection ends with us, and the job with it.
            return Ok(Report { state: JobState::Cancelled, ..last });
        }
        match answers.next_line() {
            // Nothing more than that it was taken, for a while.
            Ok(None) if last.state == JobState::Waiting => shown.show_waiting(&last),
            Ok(None) => {}
            Ok(Some(Answer::Progress { progress })) => {
                last = serde_json::from_value(progress)?;
                shown.show(&last);
            }
            Ok(Some(Answer::Done { result })) => return Ok(serde_json::from_value(result)?),
            Ok(Some(Answer::Error { code, message })) => {
                return Err(ClientError::Refused { code, message }.into());
            }
            Err(error @ ClientError::Gone) => {
                return Err(error).context("run the same command again to go on");
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens the store and does it here.
fn by_itself(
    config: Config,
    order: Order,
    stop: &Arc<AtomicBool>,
    shown: &mut Shown,
) -> anyhow::Result<Report> {
    if order.broadcast {
        bail!(
            "--broadcast needs a running daemon, and none runs in {}",
            config.state_dir.display()
        );
    }
    let inputs = backfill::find(&order.paths)?;
    // What goes wrong is said by the command itself.
    let logger = Logger::root(Discard, o!());
    let stop = stop.clone();
    daemon::block_on(async move {
        let (users, name) = match &order.users {
            Some(users) => (Users::Named(users.iter().copied().collect()), order.name(None)),
            None => {
                let whitelist = &config.whitelist;
                if !whitelist.is_given() {
                    bail!(
                        "no users: give --users, or a whitelist by --config FILE or --whitelist FILE"
                    );
                }
                let keeper = WhitelistKeeper::open(whitelist, &config.state_dir, &logger).await;
                let list = keeper.context("no --users are given, and the whitelist")?.list();
                let name = order.name(Some(&list));
                (Users::Listed(list), name)
            }
        };
        // The wrong place would get a second database, in which nobody looks for the events.
        let made = inspect(&config.store.url).await?;
        if made.is_none_or(|found| found.schema.applied.is_empty()) {
            bail!(
                "there is no database of nodecast in {}: give the --state-dir, --database-url or \
                 --config of the daemon, or make one by `nodecast db migrate`",
                config.state_dir.display()
            );
        }
        let store = store::open(&config.store.url, &config.store).await?;
        let (writer, recovered) = store.open_writer().await.map_err(|error| match error {
            StoreError::LeaseLost(holder) => anyhow!(
                "another program writes to {}: {holder}; if it is a daemon, give the --state-dir that \
                 it was started with, so that it does the work",
                store.describe()
            ),
            error => error.into(),
        })?;
        let now = Timestamp::now();
        let scope = Scope {
            users,
            edge: backfill::edge(recovered.newest_time, now, config.store.retention, order.keep()),
            height: recovered.heads.iter().map(|head| head.1).max(),
            max_line_bytes: config.source.max_line_bytes,
        };
        let setting = Setting { keep: order.keep() };
        let mut sink = Stoppable { store: OwnStore::new(writer, setting), stop };
        let mut saved = Saved::read(&config.state_dir, &name)?;
        let report = Report {
            job: name.clone(),
            files_total: inputs.len() as u64,
            bytes_total: inputs.iter().map(|input: &Input| input.bytes).sum(),
            ..Report::default()
        };
        let place = saved.place.take();
        let pass = Pass::new(scope, inputs, &saved.done, place);
        let keeping = Keeping { state_dir: &config.state_dir, name: &name };
        let pace = Pace { max_bytes_per_second: 0 };
        let mut tell = |report: &Report| shown.show(report);
        let ran =
            backfill::run(pass, &mut saved, keeping, &mut sink, pace, report, &mut tell).await;
        let closed = sink.store.close().await;
        let report = ran.with_context(|| format!("progress in {}", config.state_dir.display()))?;
        closed?;
        Ok(report)
    })
}

/// Ends the job when a signal has come.
struct Stoppable {
    store: OwnStore,
    stop: Arc<AtomicBool>,
}

#[async_trait(?Send)]
impl Sink for Stoppable {
    async fn store(&mut self, events: Vec<Event>) -> Result<Tally, SinkError> {
        self.store.store(events).await
    }

    async fn between(&mut self) -> Result<(), SinkError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(SinkError::Cancelled);
        }
        self.store.between().await
    }
}

/// Progress on standard error: a bar on a terminal, else a line now and then.
struct Shown {
    bar: Option<ProgressBar>,
    line_at: Instant,
    /// Whether it was said that the job waits.
    is_waiting: bool,
}

impl Shown {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let template = "{bar:30} {bytes}/{total_bytes} {msg}";
            bar.set_style(
                ProgressStyle::with_template(template).expect("the template is a constant"),
            );
            bar
        });
        Self { bar, line_at: Instant::now(), is_waiting: false }
    }

    fn show(&mut self, report: &Report) {
        let text = progress_text(report);
        match &self.bar {
            Some(bar) => {
                bar.set_length(report.bytes_total);
                bar.set_position(report.bytes_done);
                bar.set_message(text);
            }
            None if self.line_at.elapsed() >= LINE_EVERY => {
                self.line_at = Instant::now();
                let (done, total) = (HumanBytes(report.bytes_done), HumanBytes(report.bytes_total));
                // Nobody has to read it.
                writeln!(io::stderr(), "{done} of {total}, {text}").ok();
            }
            None => {}
        }
    }

    /// Says once, and not only after a while, that nothing is done yet.
    fn show_waiting(&mut self, report: &Report) {
        if self.bar.is_none() && !std::mem::replace(&mut self.is_waiting, true) {
            writeln!(io::stderr(), "{}", progress_text(report)).ok();
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn progress_text(report: &Report) -> String {
    if report.state == JobState::Waiting {
        return "waits for another back-fill".to_owned();
    }
    let mut text = format!("{} events stored", report.stored);
    if let Some(rate) = report.bytes_per_second {
        text += &format!(", {}/s", HumanBytes(rate));
    }
    if let Some(remaining) = report.remaining_ms {
        text += &format!(", {} left", HumanDuration(Duration::from_millis(remaining)));
    }
    text
}

/// Says what was done, and what was not.
fn tell_outcome(report: &Report) -> io::Result<ExitCode> {
    let Report { stored, known, files_done, files_total, .. } = report;
    let bytes = HumanBytes(report.bytes_done);
    if *files_total == 0 {
        print("nothing was done: it had not begun\n")?;
    } else {
        print(&format!(
            "{stored} events stored, {known} were there already; {files_done} of {files_total} files, {bytes}\n"
        ))?;
    }
    let mut stderr = io::stderr().lock();
    if report.refused_blocks > 0 {
        writeln!(
            stderr,
            "{} blocks were refused: older than the retention (give --keep DURATION), or not believed",
            report.refused_blocks
        )?;
    }
    if report.damaged_lines > 0 {
        writeln!(stderr, "{} lines were damaged", report.damaged_lines)?;
    }
    if report.refused_rows > 0 {
        writeln!(stderr, "{} events were refused by the store", report.refused_rows)?;
    }
    for fault in &report.faults {
        writeln!(stderr, "nodecast: {fault}")?;
    }
    let untold = report.faults_total - report.faults.len() as u64;
    if untold > 0 {
        writeln!(stderr, "nodecast: and {untold} more files")?;
    }
    Ok(match report.state {
        JobState::Cancelled => {
            writeln!(stderr, "ended before it was done: the same command goes on from here")?;
            ExitCode::from(EXIT_INTERRUPTED)
        }
        JobState::Done if report.faults_total == 0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

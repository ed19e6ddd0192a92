//! `nodecast generate`: writes files as a node does, with a manifest of what is in them.

use std::{
    io::{self, Write},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    pin::pin,
    process::{self, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use clap::ArgAction;
use futures_util::future::select;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    event::Timestamp,
    generate::{self, Faults, MANIFEST_FILE, Plan, PlanError, Rows, Simulator, Totals, USERS_FILE},
};

/// Blocks a second that are accepted, beside 0.
const RATES: RangeInclusive<f64> = 0.001..=1e6;

/// Exit code of a process that a second signal stopped.
const EXIT_INTERRUPTED: i32 = 130;

/// Writes hour files as a node does, for tests, benchmarks and trials.
///
/// The files lie below --out as below a node's data directory, with `manifest.jsonl`, the rows
/// that a correct reader finds in them, and `users.txt`, all users, usable as a whitelist. With
/// --start the same options give the same bytes; without it the chain of a run that is replaced
/// goes on, for a reader that still follows it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Directory to write to: a new or empty one, or that of an earlier run, which is replaced.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Blocks written per second, and per second of simulated time: 0.001 to 1000000. 0 is
    /// --max-speed.
    #[arg(long, value_name = "R", default_value_t = Plan::REAL_RATE)]
    pub blocks_per_second: f64,
    /// How many users trade, at most 10 million.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub users: usize,
    /// Decides the content.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Time of the first block, UTC, such as 2026-03-14T23:59:50. Default: now; for a run at full
    /// speed, so long ago that the last block is now.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub start: Option<Timestamp>,
    /// Stop after this much simulated time, such as 90s, 15m, 2h or 1d.
    #[arg(long, value_name = "D", value_parser = parse_duration, conflicts_with = "blocks")]
    pub duration: Option<Duration>,
    /// Stop after this many blocks.
    #[arg(long, value_name = "N")]
    pub blocks: Option<u64>,
    /// Write as fast as possible; simulated time still goes by at --blocks-per-second.
    #[arg(long, visible_alias = "no-pace", action = ArgAction::SetTrue)]
    pub max_speed: bool,
    /// Lines arrive in pieces, also over the change of an hour.
    #[arg(long)]
    pub torn: bool,
    /// The node dies in mid-line now and then: glued lines and runs of NUL bytes.
    #[arg(long)]
    pub crash: bool,
    /// The node goes back some hundred blocks now and then, and repeats them.
    #[arg(long)]
    pub rewind: bool,
    /// Some blocks are never written.
    #[arg(long)]
    pub gap: bool,
    /// Write `_streaming` files, a few events a line, instead of `_by_block` ones.
    #[arg(long)]
    pub streaming: bool,
    /// Write `node_order_statuses` too, about 200 kB per block.
    #[arg(long)]
    pub order_statuses: bool,
    /// Write no manifest.
    #[arg(long)]
    pub no_manifest: bool,
}

/// Runs the command until it has written what was asked for, or SIGINT or SIGTERM comes.
///
/// # Errors
/// When the options contradict each other, or the directory is not ours or cannot be written.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let blocks = args.wanted_blocks()?;
    let plan = args.after_an_earlier_run(args.plan(blocks)?)?;
    generate::prepare(&args.out)?;
    let rows =
        if args.no_manifest { Rows::Forget } else { Rows::Write(args.out.join(MANIFEST_FILE)) };
    let mut simulator = Simulator::with_rows(plan, &args.out, rows)?;
    let failed = || format!("writing below {}", args.out.display());
    generate::write_users(&args.out, simulator.users()).with_context(failed)?;
    let stop = stop_on_signal()?;
    if blocks.is_none() {
        writeln!(io::stderr(), "writing to {} until Ctrl-C", args.out.display())?;
    }

    let begun = Instant::now();
    let pace = if args.is_paced() { args.blocks_per_second } else { 0.0 };
    simulator.run(blocks, pace, &stop).with_context(failed)?;
    simulator.finish().with_context(failed)?;

    let totals = simulator.manifest().totals;
    writeln!(io::stdout(), "{}", summary(&args.out, totals, begun.elapsed()))?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn is_paced(&self) -> bool {
        !self.max_speed && self.blocks_per_second > 0.0
    }

    /// Blocks a second of simulated time.
    fn rate(&self) -> f64 {
        if self.blocks_per_second > 0.0 { self.blocks_per_second } else { Plan::REAL_RATE }
    }

    fn wanted_blocks(&self) -> anyhow::Result<Option<u64>> {
        let rate = self.blocks_per_second;
        if rate != 0.0 && !RATES.contains(&rate) {
            // Printed by `Debug`, which does not write out the zeros of 1e300.
            bail!("--blocks-per-second {rate:?} is neither 0 nor within 0.001 to 1000000");
        }
        let blocks = match self.duration {
            Some(duration) => Some((duration.as_secs_f64() * self.rate()).round() as u64),
            None => self.blocks,
        };
        if blocks.is_none() && !self.is_paced() {
            bail!("at full speed --blocks or --duration must say when to stop");
        }
        Ok(blocks)
    }

    fn plan(&self, blocks: Option<u64>) -> anyhow::Result<Plan> {
        let every = |wanted, every| if wanted { every } else { 0 };
        let mut plan = Plan {
            seed: self.seed,
            node_seed: self.seed,
            users: self.users,
            start: self.start,
            block_interval: Duration::from_secs_f64(1.0 / self.rate()),
            streaming: self.streaming,
            order_statuses: self.order_statuses,
            faults: Faults {
                torn: self.torn,
                unterminated: false,
                crash_every: every(self.crash, Faults::CRASH_EVERY),
                rewind_every: every(self.rewind, Faults::REWIND_EVERY),
                gap_every: every(self.gap, Faults::GAP_EVERY),
            },
            ..Plan::default()
        };
        plan.validate().map_err(|error| match error {
            PlanError::NoUsers | PlanError::TooManyUsers(_) => anyhow!("--users: {error}"),
            PlanError::StartOutOfRange(_) => anyhow!("--start: {error}"),
            PlanError::BlockTooHigh(_) | PlanError::IntervalTooShort => anyhow!(error),
        })?;
        let span = plan.block_interval.as_secs_f64() * blocks.unwrap_or_default() as f64;
        let span = Duration::try_from_secs_f64(span).unwrap_or(Duration::MAX);
        let now = Timestamp::now();
        if plan.start.is_none() && !self.is_paced() {
            // Written at once, the last blocks would otherwise lie in the future.
            plan.start = Some(now.minus(span.saturating_add(2 * plan.node_lag)));
        }
        let start = plan.start.unwrap_or(now);
        if start < Timestamp(0) || start.plus(span) >= Plan::END_OF_TIME {
            bail!(
                "so many blocks do not fit between 1970 and 2199: give fewer, or another --start"
            );
        }
        Ok(plan)
    }

    /// The plan with the block numbers that follow those of the run in the directory, unless a
    /// start is given, which decides every byte.
    fn after_an_earlier_run(&self, mut plan: Plan) -> anyhow::Result<Plan> {
        if self.start.is_none()
            && let Some(last) = generate::last_block(&self.out).context("the earlier run there")?
        {
            plan.first_block = last + 1;
            plan.validate()?;
        }
        Ok(plan)
    }
}

/// Gives a flag that the first SIGINT or SIGTERM sets. A second one ends the process at once.
#[expect(clippy::disallowed_methods, reason = "there is no pipeline to drain")]
pub(super) fn stop_on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let set_by_signal = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    // It ends with the process.
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                select(pin!(interrupt.recv()), pin!(terminate.recv())).await;
                if set_by_signal.swap(true, Ordering::Relaxed) {
                    process::exit(EXIT_INTERRUPTED);
                }
            }
        });
    })?;
    Ok(stop)
}

fn summary(out: &Path, totals: Totals, took: Duration) -> String {
    let Totals { blocks, highest_block, fills, misc, bytes, .. } = totals;
    let megabytes = bytes as f64 / 1e6;
    format!(
        "{blocks} blocks up to {highest_block}, {fills} fills, {misc} misc events, {megabytes:.1} MB \
         in {:.1} s ({:.0} MB/s); users in {}",
        took.as_secs_f64(),
        megabytes / took.as_secs_f64().max(1e-9),
        out.join(USERS_FILE).display()
    )
}

pub(super) fn parse_time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_node(text.trim_end_matches('Z').as_bytes()).map_err(|error| error.to_string())
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" | "" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err("the unit is one of ms, s, m, h, d".to_owned()),
    };
    let number: f64 = digits.parse().map_err(|_| "a duration is a number and a unit".to_owned())?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn args(text: &str) -> Args {
        Command::try_parse_from(text.split(' ')).unwrap().args
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1.5h"), Ok(Duration::from_secs(5_400)));
        for text in ["", "h", "5y", "-3s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn full_speed_needs_an_end() {
        assert!(args("generate --out x --max-speed").wanted_blocks().is_err());
        assert!(args("generate --out x --blocks-per-second 0").wanted_blocks().is_err());
        let hour = args("generate --out x --no-pace --duration 1h --blocks-per-second 2");
        assert_eq!(hour.wanted_blocks().unwrap(), Some(7_200));
    }

    #[test]
    fn what_cannot_be_simulated_is_refused_in_one_short_sentence_that_names_the_option() {
        for (options, said) in [
            ("--users 0", "--users: a chain needs at least one user"),
            ("--users 10000001", "--users: 10000001 users are more than are simulated"),
            ("--users 99999999999", "--users: 99999999999 users are more than are simulated"),
            ("--start 1900-01-01T00:00:00", "--start: the first block is of 1900-01-01T00:00:00"),
            ("--start 9999-01-01T00:00:00", "--start: the first block is of 9999-01-01T00:00:00"),
            ("--blocks-per-second 1e300", "--blocks-per-second 1e300 is neither"),
            ("--blocks-per-second 1e-300", "--blocks-per-second 1e-300 is neither"),
            ("--blocks-per-second=-1", "--blocks-per-second -1.0 is neither"),
            ("--blocks-per-second NaN", "--blocks-per-second NaN is neither"),
            ("--max-speed --blocks 99999999999", "so many blocks do not fit"),
            ("--duration 99999999h", "so many blocks do not fit"),
        ] {
            let args = args(&format!("generate --out x {options}"));
            let plan = args.wanted_blocks().and_then(|blocks| args.plan(blocks));

            let error = plan.unwrap_err().to_string();

            assert!(error.starts_with(said) && error.len() < 120, "{options}: {error}");
        }
        assert!(args("generate --out x --users 10000000").plan(None).is_ok());
    }

    #[test]
    fn a_run_at_full_speed_ends_now_and_not_in_the_future() {
        let before = Timestamp::now();

        let plan =
            args("generate --out x --max-speed --blocks 145000").plan(Some(145_000)).unwrap();

        let ahead = before.since(plan.start.unwrap());
        assert!((10_000..10_002).contains(&ahead.as_secs()), "{ahead:?}");
    }

    #[test]
    fn each_fault_has_its_option() {
        let plan = args("generate --out x --torn --crash --rewind --gap").plan(None).unwrap();

        assert_eq!(plan.faults, Faults { unterminated: false, ..Faults::all() });
        assert_eq!(args("generate --out x").plan(None).unwrap().faults, Faults::default());
    }

    #[test]
    fn the_chain_of_a_run_that_is_replaced_goes_on_unless_a_start_is_given() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().display();
        let plan = |options: &str| {
            let args = args(&format!("generate --out {out}{options}"));
            args.after_an_earlier_run(args.plan(Some(20)).unwrap()).unwrap()
        };
        let first = plan("");
        generate::prepare(directory.path()).unwrap();
        let mut simulator = Simulator::new(first.clone(), directory.path()).unwrap();
        simulator.run(Some(20), 0.0, &AtomicBool::new(false)).unwrap();
        simulator.finish().unwrap();

        assert_eq!(first.first_block, Plan::default().first_block);
        assert_eq!(plan("").first_block, first.first_block + 20);
        assert_eq!(plan(" --start 2026-03-14T00:00:00").first_block, first.first_block);
    }
}

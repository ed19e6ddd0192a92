//! `nodecast demo`: the whole product at work, without a node.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;
use clap::ValueEnum;

use super::generate::parse_duration;
use crate::{
    demo::{self, Options},
    generate::{Faults, Plan},
};

/// Blocks from one fault to the next: often enough that a demo of ten seconds shows some.
const CRASH_EVERY: u32 = 40;
const REWIND_EVERY: u32 = 60;

/// Above it the demo would show the simulator's limits, not ours.
const MAX_RATE: f64 = 10_000.0;

/// Shows the whole product at work on simulated files.
///
/// A simulated node writes hour files into a temporary directory, and crashes and goes back now and
/// then; the daemon follows them into an embedded database; a client of the demo's own listens on a
/// WebSocket. At the end the database is compared with what the node wrote, row by row: exit code 0
/// when they are equal.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// IP address and port of HTTP and WebSocket; a free port is taken when this one is in use
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Blocks that the node writes per second, 0.1 to 10000; a block has three to four fills
    #[arg(long, value_name = "R", default_value_t = Plan::REAL_RATE)]
    pub blocks_per_second: f64,
    /// How many users trade; every second one is listed
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub users: usize,
    /// Decides the content
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// End by itself after this time, such as 30s or 5m [default: at Ctrl-C]
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// How the node misbehaves
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "crash,rewind")]
    pub faults: Vec<NodeFault>,
    /// Use this new or empty directory and keep it [default: a temporary one]
    #[arg(long, value_name = "DIR", visible_alias = "dir")]
    pub keep: Option<PathBuf>,
    /// Show the daemon's log
    #[arg(long)]
    pub verbose: bool,
}

/// What goes wrong in the simulated node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NodeFault {
    /// It dies in mid-line and goes on in the same line: glued lines and runs of NUL bytes
    Crash,
    /// It goes back some hundred blocks and repeats them
    Rewind,
    /// Lines arrive in pieces; the lag is then mostly that of the node's buffer
    Torn,
    /// Nothing
    None,
}

/// Runs the demo.
///
/// # Errors
/// When it cannot start, or the daemon or the node ended with a fault.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if !(0.1..=MAX_RATE).contains(&args.blocks_per_second) {
        bail!("--blocks-per-second {} is not within 0.1 to {MAX_RATE}", args.blocks_per_second);
    }
    let is_equal = demo::run(Options {
        listen: args.listen,
        faults: faults(&args.faults),
        blocks_per_second: args.blocks_per_second,
        users: args.users,
        seed: args.seed,
        duration: args.duration,
        keep: args.keep,
        verbose: args.verbose,
    })?;
    Ok(if is_equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn faults(wanted: &[NodeFault]) -> Faults {
    let every = |fault, every| if wanted.contains(&fault) { every } else { 0 };
    Faults {
        torn: wanted.contains(&NodeFault::Torn),
        crash_every: every(NodeFault::Crash, CRASH_EVERY),
        rewind_every: every(NodeFault::Rewind, REWIND_EVERY),
        ..Faults::default()
    }
}

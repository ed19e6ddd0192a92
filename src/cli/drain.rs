//! `nodecast drain`: sends the clients of the running daemon away, or lets them in again.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{anyhow, bail};

use crate::{
    cli::{flags::Flags, generate::parse_duration, output::print},
    config::{Inputs, Need},
    control::{Client, ClientError},
    delivery::drain::{DRAIN, DrainOrder, Drained, MAX_OVER},
};

const EXAMPLES: &str = "\
Examples:
  nodecast drain --over 2m && systemctl stop nodecast
  nodecast drain --cancel

The drain goes on when this command is ended, and holds until it is cancelled or the daemon stops.";

/// Sends the clients of the running daemon away.
///
/// The daemon takes no new sessions, streams and polls (503, code `draining`), /readyz says so, and those
/// that are open are told one by one to connect again; history, health and metrics are answered, and
/// events are read and stored as before. The command ends with 0 when no session is left, with 1 when some
/// stay open all the same.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Spread the sessions evenly over this time, such as 30s or 5m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30s")]
    over: Duration,
    /// Let clients in again
    #[arg(long, conflicts_with = "over")]
    cancel: bool,
    /// The TOML file to read [default: $NODECAST_CONFIG, else /etc/nodecast/nodecast.toml if it
    /// exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the daemon has its state
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
}

/// # Errors
/// When no daemon runs there, or it does not know how.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut inputs = Inputs::of_process();
    Flags { config: args.config, state_dir: args.state_dir, ..Flags::default() }
        .add_to(&mut inputs);
    let config = inputs.load(Need::Nothing)?.config;
    if args.over > MAX_OVER {
        bail!("--over: sessions are spread over {MAX_OVER:?} at most");
    }
    let order = if args.cancel {
        DrainOrder::Cancel
    } else {
        DrainOrder::Begin { over_ms: args.over.as_millis() as u64 }
    };
    let daemon = Client::connect(&config.state_dir)?
        .ok_or_else(|| anyhow!("no daemon runs in {}", config.state_dir.display()))?;
    let answers = daemon.request(DRAIN, serde_json::to_value(order)?)?;
    let mut last = None;
    let told = answers.finish(|progress| {
        let left = progress["left"].as_u64();
        // What cannot be printed is told by the result.
        if left != last {
            print(&format!("{} sessions left\n", left.unwrap_or_default())).ok();
            last = left;
        }
    });
    let told = told.map_err(|error| match error {
        ClientError::Gone => anyhow!("the daemon stopped while it drained"),
        other => other.into(),
    })?;
    let Drained { left, draining, stopping } = serde_json::from_value(told)?;
    let (text, code) = match (args.cancel, draining, left) {
        (true, true, left) => {
            (format!("clients are let in again; {left} sessions stayed"), ExitCode::SUCCESS)
        }
        (true, false, _) => ("nothing was draining".to_owned(), ExitCode::SUCCESS),
        (false, true, 0) => ("drained: no session is left".to_owned(), ExitCode::SUCCESS),
        (false, true, left) => {
            (format!("{left} sessions are still open; nobody else is let in"), ExitCode::FAILURE)
        }
        (false, false, left) if stopping => {
            (format!("the daemon stops: it closes {left} sessions"), ExitCode::FAILURE)
        }
        (false, false, left) => {
            (format!("the drain was cancelled; {left} sessions stay"), ExitCode::FAILURE)
        }
    };
    print(&format!("{text}\n"))?;
    Ok(code)
}

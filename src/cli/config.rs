//! `nodecast config`: the configuration, without starting anything.

use std::process::ExitCode;

use clap::Subcommand;

use crate::{
    cli::{flags::Flags, legacy::LegacyFlags, output::print, preflight},
    config::{DEFAULT_FILE, Inputs, Loaded, Need},
    logging::complain,
};

const EXAMPLES: &str = "\
Examples:
  nodecast config default > nodecast.toml
  nodecast config check --config nodecast.toml
  NODECAST_STORE__RETENTION=30d nodecast config show --origin";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum ConfigCommand {
    /// Print every fault at once and exit with 78, or print ok
    ///
    /// Looks at the whitelist file, the state directory and the place of the database too, and
    /// changes nothing. Not looked at: whether the port is free, and the data directories, which
    /// `run` waits for.
    Check {
        #[command(flatten)]
        flags: Flags,
    },
    /// Print the configuration that `run` would have, as TOML
    Show {
        /// Say where each value is from
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        flags: Flags,
    },
    /// Print the commented default file
    Default,
}

/// # Errors
/// With [`Faults`](crate::config::Faults), or when standard output cannot be written.
pub fn run(args: Args, legacy: LegacyFlags) -> anyhow::Result<ExitCode> {
    match args.command {
        ConfigCommand::Check { flags } => {
            let loaded = inputs(flags, legacy).load_and_look(Need::Nothing, preflight::look)?;
            warn_of_missing(&loaded);
            print("ok\n")?;
        }
        ConfigCommand::Show { origin, flags } => {
            let loaded = inputs(flags, legacy).load(Need::Nothing)?;
            warn_of_missing(&loaded);
            print(&loaded.to_toml(origin))?;
        }
        ConfigCommand::Default => print(DEFAULT_FILE)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Names what only the running service has: the rest is looked at without it.
fn warn_of_missing(loaded: &Loaded) {
    for missing in &loaded.missing {
        complain(&format!("nodecast: warning: not checked: {missing}"));
    }
}

fn inputs(flags: Flags, legacy: LegacyFlags) -> Inputs {
    let mut inputs = Inputs::of_process();
    flags.add_to(&mut inputs);
    legacy.add_to(&mut inputs);
    inputs
}

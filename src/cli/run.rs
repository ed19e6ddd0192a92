//! `nodecast run`: the daemon.

use std::{env, ffi::OsString, process::ExitCode};

use slog::{crit, error, info, o};

use crate::{
    cli::{
        EXIT_CONFIG,
        flags::{self, Flags},
        legacy::LegacyFlags,
        preflight,
    },
    config::{Inputs, Need},
    daemon, logging,
    whitelist::{FileFault, WhitelistError},
};

/// A node panics when another process has this in its command line, and takes both down.
const NODE_PROGRAM: &str = "hl-node";

const EXAMPLES: &str = "\
Examples:
  nodecast run --data-dir ~/hl/data --whitelist addresses.txt
  nodecast run --data-dir /data/a --data-dir /data/b --whitelist all --from 20260315/7
  NODECAST_STORE__RETENTION=30d nodecast run --config nodecast.toml

Every key of the configuration: `nodecast config default`.

The flags of the older service work too, in all its spellings: -data_dir=DIR, -port=PORT,
-redis_host, -redis_port, -redis_password, -redis_db (the whitelist and the positions), -postgres_host,
-postgres_port, -postgres_user, -postgres_password, -postgres_db. As there,
-port=8080 listens on all interfaces (0.0.0.0:8080).";

#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub flags: Flags,
    /// Where another nodecast writes to the database: wait for its end and take over
    #[arg(long)]
    pub standby: bool,
}

/// A run: the configuration, complete and valid; logs; the daemon until it is told to stop.
///
/// # Errors
/// With [`Faults`](crate::config::Faults) before anything has started. What stops the daemon later
/// is logged, and gives exit code 1; a faulty whitelist, without which nothing starts, gives 78.
pub fn run(args: Args, legacy: LegacyFlags) -> anyhow::Result<ExitCode> {
    let mut inputs = Inputs::of_process();
    args.flags.add_to(&mut inputs);
    if args.standby {
        inputs.flags.push(flags::text("--standby", "store.standby", true.to_string()));
    }
    legacy.add_to(&mut inputs);
    let loaded = inputs.clone().load_and_look(Need::Run, preflight::look_at_trust)?;

    let (root, flushed_at_exit) = logging::start(&loaded.config.log);
    let (levels, queued) = (flushed_at_exit.levels(), flushed_at_exit.queued());
    let origins = daemon::Origins { inputs, levels, queued };
    let log = root.new(o!("component" => "main"));
    let file = loaded.file.as_deref().map_or("none".into(), |file| file.to_string_lossy());
    info!(log, "starting"; "version" => env!("CARGO_PKG_VERSION"), "config" => %file);
    if makes_a_node_panic(env::args_os()) {
        error!(
            log,
            "the command line contains hl-node: a node that sees this process panics and \
                     both die, move the path to the configuration file"
        );
    }

    match daemon::run(loaded.config, origins, root) {
        Ok(()) => {
            info!(log, "stopped");
            Ok(ExitCode::SUCCESS)
        }
        // Into the log, in its format: there the reader looks for why a service stopped.
        Err(error) => {
            crit!(log, "stopped by a fault"; "error" => format!("{error:#}"));
            // Nothing mends itself by trying again there. Later faults of the whitelist stop nobody.
            Ok(match error.downcast_ref::<WhitelistError>() {
                // A Redis comes back, and its list may come after it; a full disk can be emptied.
                Some(
                    WhitelistError::Redis { .. }
                    | WhitelistError::File { fault: FileFault::List(_), .. },
                )
                | None => ExitCode::FAILURE,
                Some(_) => ExitCode::from(EXIT_CONFIG),
            })
        }
    }
}

/// Whether a node that sees this command line panics.
fn makes_a_node_panic(mut args: impl Iterator<Item = OsString>) -> bool {
    args.any(|arg| arg.to_string_lossy().contains(NODE_PROGRAM))
}

#[cfg(test)]
mod tests {
    use super::*;

    // No process is started for this: a node on the same machine would see it.
    #[test]
    fn a_command_line_with_the_name_of_the_node_program_is_known_to_make_a_node_panic() {
        let panics = |line: &str| makes_a_node_panic(line.split(' ').map(OsString::from));

        assert!(panics("nodecast run --data-dir /hl-node/data --whitelist all"));
        assert!(panics("nodecast run --data-dir=/var/lib/hl-node"));
        assert!(!panics("nodecast run --data-dir /home/hl/data --whitelist node"));
    }
}

//! `nodecast db`: the database in the hands of an operator, beside the daemon or without it.
//!
//! Invariant: a running daemon is never written past: `prune` has it do the work, or holds the writer's
//! lease where none runs; `migrate` refuses while somebody else does; `status`, `backup`, `--check` and `--dry-run` only read, and go
//! well beside it. No password is printed.

mod backup;
mod migrate;
mod prune;
mod status;

use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::Subcommand;

use crate::{
    cli::flags::StoreFlags,
    config::{Config, Inputs, Need, without_password},
    store::inspect::{Inspection, inspect},
};

const EXAMPLES: &str = "\
Examples:
  nodecast db status
  nodecast db migrate --check || nodecast db migrate
  nodecast db prune --older-than 7d --dry-run
  nodecast db backup /var/backups/nodecast
  nodecast db status --database-url postgres://ann@db.example.org/events";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: DbCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum DbCommand {
    /// Bring the tables up to this program, and say which migrations that took
    ///
    /// `run` does the same when it starts. A daemon that runs has to be stopped before.
    Migrate(migrate::Args),
    /// Say what is stored, since when, and who writes to it
    Status(status::Args),
    /// Delete old events now, instead of by store.retention
    ///
    /// The daemon that runs on the same state directory does it; without one the command takes the
    /// writer's lease. PostgreSQL gives up whole days.
    Prune(prune::Args),
    /// Copy the database into a file, beside a running daemon too
    ///
    /// An embedded database becomes a database file; of PostgreSQL pg_dump makes an archive of the
    /// schema nodecast.
    Backup(backup::Args),
}

/// # Errors
/// With [`Faults`](crate::config::Faults), or when the database does not do what it is asked for.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    actix_rt::System::new().block_on(async {
        match args.command {
            DbCommand::Migrate(args) => migrate::run(args).await,
            DbCommand::Status(args) => status::run(args).await,
            DbCommand::Prune(args) => prune::run(args).await,
            DbCommand::Backup(args) => backup::run(args).await,
        }
    })
}

fn load(flags: StoreFlags) -> anyhow::Result<Config> {
    let mut inputs = Inputs::of_process();
    flags.add_to(&mut inputs);
    Ok(inputs.load(Need::Store)?.config)
}

/// Looks at a database that has to be there.
async fn existing(config: &Config) -> anyhow::Result<Inspection> {
    let found = inspect(&config.store.url).await?;
    found.ok_or_else(|| {
        let shown = without_password(&config.store.url);
        anyhow!("{shown} does not exist; `nodecast run` or `nodecast db migrate` makes it")
    })
}

/// As [`existing`], with the tables of this program.
async fn current(config: &Config) -> anyhow::Result<Inspection> {
    let found = existing(config).await?;
    if let Some(newer) = found.schema.unknown.first() {
        bail!("{} was made by a newer nodecast (migration {newer} is unknown here)", found.store);
    }
    if !found.schema.pending.is_empty() {
        bail!("{} lacks migrations: run `nodecast db migrate` first", found.store);
    }
    Ok(found)
}

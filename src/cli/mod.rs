//! The command line: one file per command.
//!
//! Exit codes: 0, done; 1, a fault while running, or "no" as the answer of a question; 2, the command
//! line was not understood; 69, a source of the whitelist cannot be read (`EX_UNAVAILABLE`); 78, the
//! configuration or the whitelist is faulty (`EX_CONFIG`, which a service manager can be told not
//! to retry); 130, a second signal ended the orderly stop.

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{config::Faults, logging};

pub mod backfill;
pub mod config;
pub mod db;
pub mod demo;
pub mod docs;
pub mod doctor;
pub mod drain;
pub mod flags;
pub mod generate;
pub mod legacy;
mod older_servers;
pub mod output;
mod preflight;
pub mod run;
mod units;
pub mod whitelist;

use legacy::LegacyFlags;

/// `EX_CONFIG` of sysexits.h.
const EXIT_CONFIG: u8 = 78;

/// `EX_UNAVAILABLE` of sysexits.h.
const EXIT_UNAVAILABLE: u8 = 69;

const EXAMPLES: &str = "\
Examples:
  nodecast demo
  nodecast run --data-dir ~/hl/data --whitelist addresses.txt
  nodecast run --data-dir ~/hl/data --whitelist all --from oldest --listen 0.0.0.0:8080
  nodecast backfill --from ~/hl/data --users 0x010461c14e146ac35fe42271bdc1134ee31c703a
  nodecast doctor --config nodecast.toml
  nodecast config default > nodecast.toml
  nodecast config check --config nodecast.toml
  nodecast whitelist list --origin --config nodecast.toml

`nodecast COMMAND --help` says more about a command.";

/// Follows a node's hour files, stores the events of listed users exactly once and casts them live.
#[derive(Debug, Parser)]
#[command(name = "nodecast", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Follow node directories, store and cast
    Run(run::Args),
    /// Show the whole product at work on simulated files
    Demo(demo::Args),
    /// Store older events from hour files and their archives
    Backfill(backfill::Args),
    /// Write hour files as a node does
    Generate(generate::Args),
    /// Look at everything that a run depends on, and say what to do
    Doctor(doctor::Args),
    /// Send the clients of the running daemon away, or let them in again
    Drain(drain::Args),
    /// Migrate, look at, prune or back up the database
    Db(db::Args),
    /// Check, show or print configuration
    Config(config::Args),
    /// Write man pages, shell completions and the configuration of the package
    #[command(hide = true)]
    GenerateDocs(docs::Args),
    /// Say who is listed by which source; add and remove addresses
    Whitelist(whitelist::Args),
}

/// Reads the command line. Ends the program with a message and code 2 when it is not understood,
/// and after `--help` and `--version`.
pub fn parse(args: impl Iterator<Item = OsString>) -> (Command, LegacyFlags) {
    let (args, legacy) = legacy::take(args);
    (Cli::parse_from(args).command, legacy)
}

/// Tells what went wrong, and gives the exit code.
pub fn exit_code(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    match outcome {
        Ok(code) => code,
        Err(error) => {
            logging::complain(&format!("nodecast: {error:#}"));
            match error.downcast_ref::<Faults>() {
                Some(_) => ExitCode::from(EXIT_CONFIG),
                None => ExitCode::FAILURE,
            }
        }
    }
}

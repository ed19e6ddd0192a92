//! The program: what was asked, done, and its exit code.

use std::{env, process::ExitCode};

use nodecast::cli::{self, Command};

fn main() -> ExitCode {
    let (command, legacy) = cli::parse(env::args_os());
    let outcome = match command {
        Command::Run(args) => cli::run::run(args, legacy),
        Command::Demo(args) => cli::demo::run(args),
        Command::Backfill(args) => cli::backfill::run(args, legacy),
        Command::GenerateDocs(args) => cli::docs::run(args),
        Command::Generate(args) => cli::generate::run(args),
        Command::Doctor(args) => cli::doctor::run(args, legacy),
        Command::Drain(args) => cli::drain::run(args),
        Command::Db(args) => cli::db::run(args),
        Command::Config(args) => cli::config::run(args, legacy),
        Command::Whitelist(args) => cli::whitelist::run(args, legacy),
    };
    cli::exit_code(outcome)
}

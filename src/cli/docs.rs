//! `nodecast generate-docs`: man pages and shell completions, made from the command line itself, so
//! that they never say anything else; and the configuration of the package, made from the default one.
//!
//! Place: the making of a package calls it; it is hidden from people.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};

use super::Cli;
use crate::config;

/// Writes man pages, shell completions and the configuration of the package.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Gets `man/*.1`, `completions/` and `nodecast.toml`
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// # Errors
/// When the files cannot be written.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let cannot = || format!("cannot write in {}", args.directory.display());
    let (man, completions) = (args.directory.join("man"), args.directory.join("completions"));
    for directory in [&man, &completions] {
        fs::create_dir_all(directory).with_context(cannot)?;
    }
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut visible(), "nodecast", &completions).with_context(cannot)?;
    }
    clap_mangen::generate_to(Cli::command(), &man).with_context(cannot)?;
    let file = args.directory.join("nodecast.toml");
    fs::write(file, config::packaged_file()).with_context(cannot)?;
    Ok(ExitCode::SUCCESS)
}

/// The commands that people are shown. One cannot be taken out of a command line, so another is made
/// of the others.
fn visible() -> Command {
    let cli = Cli::command();
    let shown = cli.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    Command::new("nodecast").version(env!("CARGO_PKG_VERSION")).subcommands(shown)
}

//! `nodecast generate-docs`: man pages and shell completions, made from the command line itself, so
//! that they never say anything else; and the configuration of the package, made from the default one.
//!
//! Place: the making of a package calls it; it is hidden from people.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Arg, ArgAction, Command, CommandFactory};
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
    clap_mangen::generate_to(with_values(Cli::command(), ""), &man).with_context(cannot)?;
    let file = args.directory.join("nodecast.toml");
    fs::write(file, config::packaged_file()).with_context(cannot)?;
    Ok(ExitCode::SUCCESS)
}

/// Says in the synopsis of each command which values its flags take. The generator leaves them out.
fn with_values(command: Command, above: &str) -> Command {
    let path = format!("{above}{}", command.get_name());
    let below = format!("{path} ");
    let command = command.mut_subcommands(|inner| with_values(inner, &below));
    if command.has_subcommands() {
        return command;
    }
    let usage = usage(&path, &command);
    command.override_usage(usage)
}

fn usage(path: &str, command: &Command) -> String {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let words = shown.map(|arg| match arg.is_required_set() {
        true => word(arg),
        false => format!("[{}]", word(arg)),
    });
    format!("{path} {}", words.collect::<Vec<_>>().join(" "))
}

/// `--data-dir DIR...`, `--json` or `ADDRESS...`.
fn word(arg: &Arg) -> String {
    let flag = arg.get_long().map(|name| format!("--{name}"));
    let takes_values = arg.get_action().takes_values();
    let value = arg.get_value_names().filter(|_| takes_values).map(|names| names.join(" "));
    let is_many = matches!(arg.get_action(), ArgAction::Append)
        || arg.get_num_args().is_some_and(|count| count.max_values() > 1);
    let words: Vec<String> = flag.into_iter().chain(value).collect();
    format!("{}{}", words.join(" "), if is_many { "..." } else { "" })
}

/// The commands that people are shown. One cannot be taken out of a command line, so another is made
/// of the others.
fn visible() -> Command {
    let cli = Cli::command();
    let shown = cli.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    Command::new("nodecast").version(env!("CARGO_PKG_VERSION")).subcommands(shown)
}

//! `nodecast demo`.

use std::process::ExitCode;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {}

/// # Errors
/// Always: this file is replaced.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("demo is not built in")
}

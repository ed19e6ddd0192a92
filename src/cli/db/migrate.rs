//! `nodecast db migrate`: the tables as this program wants them.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, bail};

use super::load;
use crate::{
    cli::{flags::StoreFlags, output::print},
    config::without_password,
    store::{
        self,
        inspect::{Inspection, SchemaState, inspect, known_versions},
    },
};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Change nothing; exit with 1 when migrations are pending
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    flags: StoreFlags,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = load(args.flags)?;
    let shown = without_password(&config.store.url);
    let found = inspect(&config.store.url).await?;
    let holder = found.as_ref().and_then(|found| found.holder.clone());
    let before = schema(found, &config.store.url)?;
    if let Some(newer) = before.unknown.first() {
        bail!("{shown} was made by a newer nodecast (migration {newer} is unknown here)");
    }
    if args.check {
        for version in &before.pending {
            print(&format!("pending {version}\n"))?;
        }
        return Ok(match &before.pending[..] {
            [] => {
                print("nothing is pending\n")?;
                ExitCode::SUCCESS
            }
            _ => ExitCode::FAILURE,
        });
    }
    // An older daemon goes on with the tables as it knows them.
    if let Some(holder) = holder.filter(|holder| !before.pending.is_empty() && !holder.is_gone()) {
        bail!("{holder} writes to {shown}: stop it first, its tables would change under it");
    }
    // As `run` does, and no other directory.
    fs::create_dir_all(&config.state_dir).with_context(|| {
        format!("cannot create the state directory {}", config.state_dir.display())
    })?;
    let opened = store::open(&config.store.url, &config.store).await?;
    let after = schema(inspect(&config.store.url).await?, &config.store.url)?;
    let applied = after.applied.iter().filter(|version| !before.applied.contains(version));
    let applied: Vec<String> = applied.map(|version| format!("applied {version}\n")).collect();
    match applied.is_empty() {
        true => print("nothing was pending\n")?,
        false => print(&applied.concat())?,
    }
    for warning in opened.warnings() {
        eprintln!("nodecast: {warning}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Of a database that is not there yet, everything is pending.
fn schema(found: Option<Inspection>, url: &str) -> anyhow::Result<SchemaState> {
    Ok(match found {
        Some(found) => found.schema,
        None => SchemaState { pending: known_versions(url)?, ..SchemaState::default() },
    })
}

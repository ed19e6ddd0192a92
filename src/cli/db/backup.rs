//! `nodecast db backup`: a copy of the database, which has its name when it is whole.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use tempfile::NamedTempFile;

use super::{existing, load};
use crate::{
    cli::{flags::StoreFlags, output::print, units},
    config::sqlite_path,
    event::Timestamp,
    store,
};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The file to make, or a directory for a file with the time in its name
    #[arg(value_name = "FILE|DIR")]
    target: PathBuf,
    #[command(flatten)]
    flags: StoreFlags,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = load(args.flags)?;
    existing(&config).await?;
    let url = &config.store.url;
    let database = sqlite_path(url);
    let target = target(args.target, if database.is_some() { "db" } else { "dump" });
    if target.exists() {
        bail!("{} exists: it is not written over", target.display());
    }
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // In the same directory, so that it gets its name in one step; 0600, and gone when we fail.
    let copy = tempfile::Builder::new()
        .prefix(".nodecast-backup-")
        .tempfile_in(directory)
        .with_context(|| format!("cannot write in {}", directory.display()))?;
    let restore = store::backup::backup(url, copy.path(), &target).await?;
    let bytes = copy.path().metadata()?.len();
    publish(copy, &target, directory)
        .with_context(|| format!("cannot write {}", target.display()))?;
    print(&format!("{}: {}\nto restore: {restore}\n", target.display(), units::bytes(bytes)))?;
    Ok(ExitCode::SUCCESS)
}

/// `nodecast-20260315T071500Z.db` in a directory, else what was given.
fn target(given: PathBuf, extension: &str) -> PathBuf {
    if !given.is_dir() {
        return given;
    }
    let now = Timestamp::now().to_string();
    let time: String = now.chars().take(19).filter(|c| !"-:".contains(*c)).collect();
    given.join(format!("nodecast-{time}Z.{extension}"))
}

/// Gives the copy its name once its bytes are on the disk.
fn publish(copy: NamedTempFile, target: &Path, directory: &Path) -> io::Result<()> {
    // By the path: the program that wrote it may have put another file there.
    File::open(copy.path())?.sync_all()?;
    copy.persist_noclobber(target).map_err(|refused| refused.error)?;
    File::open(directory)?.sync_all()
}

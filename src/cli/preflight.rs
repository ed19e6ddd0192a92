//! What `config check` and `doctor` look at beyond the text of the configuration.
//!
//! Invariant: nothing is created, written or locked, and what a running daemon holds is no fault.
//! So `config check` does not try the port, and a missing node directory is no fault either: `run`
//! waits for it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

use crate::{
    config::{Config, Finding, PostgresUrl, sqlite_path, without_password},
    whitelist::read_list_into,
};

/// Looks at what the configuration names.
pub fn look(config: &Config) -> Vec<Finding> {
    let found = [
        whitelist_file(config).map(|why| {
            let path = config.whitelist.file.as_deref().unwrap_or(Path::new(""));
            ("whitelist.file", format!("whitelist.file = {}: {why}", path.display()))
        }),
        state_dir(&config.state_dir)
            .map(|why| ("state_dir", format!("state_dir = {}: {why}", config.state_dir.display()))),
        database(config).map(|why| of_store(config, &why)),
    ];
    found.into_iter().flatten().map(|(key, message)| Finding { key, message }).collect()
}

/// Looks at what a server is trusted by, before a run that would try it again and again.
pub(super) fn look_at_trust(config: &Config) -> Vec<Finding> {
    let url = PostgresUrl::parse(&config.store.url);
    let why = url.ok().and_then(|url| url.trusted().err());
    let found = why.map(|why| of_store(config, &why));
    found.into_iter().map(|(key, message)| Finding { key, message }).collect()
}

fn of_store(config: &Config, why: &str) -> (&'static str, String) {
    ("store.url", format!("store.url = {}: {why}", without_password(&config.store.url)))
}

/// Why the file of the whitelist cannot be used.
fn whitelist_file(config: &Config) -> Option<String> {
    let path = config.whitelist.file.as_deref().filter(|_| !config.whitelist.all)?;
    Some(read_list_into(path, |_| Ok(())).err()?.to_string())
}

/// Why the state directory cannot be used or made.
pub(super) fn state_dir(directory: &Path) -> Option<String> {
    // The loader has said so already.
    if directory.as_os_str().is_empty() {
        return None;
    }
    usable(directory).err()
}

/// Why the place of an embedded database cannot be used, or what a server is trusted by. The database
/// itself is not opened.
pub(super) fn database(config: &Config) -> Option<String> {
    let Some(path) = sqlite_path(&config.store.url) else {
        return PostgresUrl::parse(&config.store.url).ok()?.trusted().err();
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Some("not a regular file".to_owned()),
        Ok(_) if access(path, Access::READ_OK | Access::WRITE_OK).is_err() => {
            Some("this user may not read and write it".to_owned())
        }
        _ if directory == config.state_dir => None,
        _ => match directory.metadata() {
            // The start makes the state directory and those above it, no other one.
            Err(_) if config.state_dir.starts_with(directory) => None,
            Err(error) => Some(format!("the directory {}: {error}", directory.display())),
            Ok(_) => usable(directory).err(),
        },
    }
}

/// Free bytes for this user where a path is, or will be.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (nearest, _) = nearest_existing(absolute).ok()?;
    let found = rustix::fs::statvfs(&nearest).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Whether files can be made in a directory, once it and the missing ones above it are made.
fn usable(directory: &Path) -> Result<(), String> {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let (nearest, found) = nearest_existing(absolute).map_err(|error| error.to_string())?;
    if !found.is_dir() {
        return Err(format!("{} is not a directory", nearest.display()));
    }
    access(&nearest, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|_| format!("this user may not write in {}", nearest.display()))
}

fn nearest_existing(mut path: PathBuf) -> io::Result<(PathBuf, fs::Metadata)> {
    loop {
        match fs::metadata(&path) {
            Ok(found) => return Ok((path, found)),
            // Something above is a file.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) && path.pop() => {}
            Err(error) => return Err(error),
        }
    }
}

//! `nodecast whitelist`: who is listed, and by which source.
//!
//! The sources are read as they are now, whether a daemon runs or not. Nothing is held in memory
//! that grows with a list.

use std::{collections::BTreeSet, future::Future, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Subcommand;

use crate::{
    cli::{EXIT_UNAVAILABLE, flags::Flags, legacy::LegacyFlags, output::print_lines},
    config::{Inputs, Loaded, Need, Origin, RedisUrl, WhitelistConfig},
    event::Address,
    whitelist::{
        AddressList, Edit, Edited, Folder, Place, RedisFault, RedisList, SourceKind, Union,
        WhitelistError, found_within, is_too_much, read_config, read_file, read_list_into,
        read_redis,
    },
};

const EXAMPLES: &str = "\
Examples:
  nodecast whitelist list --origin --config nodecast.toml
  nodecast whitelist check 0x010461c14e146ac35fe42271bdc1134ee31c703a --whitelist addresses.txt
  nodecast whitelist add 0x010461c14e146ac35fe42271bdc1134ee31c703a
  nodecast whitelist remove --redis 0x010461c14e146ac35fe42271bdc1134ee31c703a

A running daemon follows what is added and removed by itself.";

/// The command line was not understood.
const EXIT_USAGE: u8 = 2;

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: WhitelistCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum WhitelistCommand {
    /// Print every listed address once, in order; exit with 69 if a source cannot be read
    ///
    /// What the other sources list is printed then as well.
    List {
        /// Say behind each address which sources list it: file, redis, config
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        flags: Flags,
    },
    /// Say of each address whether it is listed and by which sources; exit with 1 if one is not
    ///
    /// Exits with 69 if that is not known of one, because a source cannot be read.
    Check {
        #[command(flatten)]
        addresses: Addresses,
        #[command(flatten)]
        flags: Flags,
    },
    /// Add addresses to the file of the whitelist, or to its key in Redis
    ///
    /// The file is replaced in one step; comments, owner and mode stay. One that the configuration
    /// names is made when it is missing.
    Add {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        flags: Flags,
    },
    /// Remove addresses from the file of the whitelist, or from its key in Redis
    ///
    /// The file is replaced in one step; comments on other lines, owner and mode stay.
    Remove {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        flags: Flags,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct Addresses {
    /// 0x and 40 hexadecimal digits each, in any case
    #[arg(value_name = "ADDRESS", required = true)]
    addresses: Vec<String>,
}

#[derive(Clone, Debug, clap::Args)]
struct Target {
    #[command(flatten)]
    addresses: Addresses,
    /// Change the key in Redis and not the file
    #[arg(long)]
    redis: bool,
}

/// # Errors
/// With [`Faults`](crate::config::Faults), or when a source cannot be changed.
pub fn run(args: Args, legacy: LegacyFlags) -> anyhow::Result<ExitCode> {
    match args.command {
        WhitelistCommand::List { origin, flags } => {
            list(&load(flags, legacy)?.config.whitelist, origin)
        }
        WhitelistCommand::Check { addresses, flags } => match addresses.read() {
            Ok(addresses) => check(&load(flags, legacy)?.config.whitelist, &addresses),
            Err(code) => Ok(code),
        },
        WhitelistCommand::Add { target, flags } => change(&load(flags, legacy)?, Edit::Add, target),
        WhitelistCommand::Remove { target, flags } => {
            change(&load(flags, legacy)?, Edit::Remove, target)
        }
    }
}

fn load(flags: Flags, legacy: LegacyFlags) -> anyhow::Result<Loaded> {
    let mut inputs = Inputs::of_process();
    flags.add_to(&mut inputs);
    legacy.add_to(&mut inputs);
    let loaded = inputs.load(Need::Whitelist)?;
    if !loaded.config.whitelist.is_given() {
        bail!(
            "no whitelist is configured: give --config FILE or --whitelist FILE, or set \
             whitelist.file, whitelist.redis_url or whitelist.addresses"
        );
    }
    Ok(loaded)
}

impl Addresses {
    /// Reads all of them, once each in the order given, or names every bad one and gives the exit code.
    fn read(&self) -> Result<Vec<Address>, ExitCode> {
        let read: Vec<Result<Address, _>> =
            self.addresses.iter().map(|text| text.trim().parse()).collect();
        let bad: Vec<_> =
            self.addresses.iter().zip(&read).filter(|(_, read)| read.is_err()).collect();
        if bad.is_empty() {
            let mut known = BTreeSet::new();
            let addresses = read.into_iter().flatten();
            return Ok(addresses.filter(|address| known.insert(*address)).collect());
        }
        for (text, _) in bad {
            eprintln!("nodecast: {text:?} is not an address: 0x and 40 hexadecimal digits");
        }
        Err(ExitCode::from(EXIT_USAGE))
    }
}

/// Runs what asks Redis.
fn block_on<T>(asking: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("cannot start")?.block_on(asking))
}

fn list(config: &WhitelistConfig, origin: bool) -> anyhow::Result<ExitCode> {
    if config.all {
        eprintln!("whitelist.all is set: everybody's events are kept, and there is no list");
        return Ok(ExitCode::SUCCESS);
    }
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let folder = Folder::at(folder.path());
    let (mut kinds, mut lists, mut unread) = (Vec::new(), Vec::new(), Vec::new());
    for kind in SourceKind::ALL {
        match read_list(config, kind, &folder) {
            Ok(None) => {}
            Ok(Some(list)) => {
                kinds.push(kind);
                lists.push(list);
            }
            Err(error) => {
                complain(&error);
                unread.push(kind);
            }
        }
    }
    print_lines(Union::of(&lists).map(|(address, holders)| {
        if !origin {
            return address.to_string();
        }
        let names = kinds.iter().zip(0..).filter(|(_, bit)| holders & (1 << bit) != 0);
        format!("{address} {}", joined(names.map(|(kind, _)| kind)))
    }))?;
    if unread.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("nodecast: the list is not whole: {} could not be read", joined(unread.iter()));
    Ok(ExitCode::from(EXIT_UNAVAILABLE))
}

/// The list of a source as it is now; none if it is not configured.
fn read_list(
    config: &WhitelistConfig,
    kind: SourceKind,
    folder: &Folder,
) -> anyhow::Result<Option<AddressList>> {
    Ok(match (kind, &config.file, &config.redis_url) {
        (SourceKind::File, Some(path), _) => {
            // That an address stands there twice is nobody's concern here.
            let logger = slog::Logger::root(slog::Discard, slog::o!());
            Some(read_file(path, folder, &logger)?)
        }
        (SourceKind::Redis, _, Some(url)) => {
            Some(block_on(read_redis(url, &config.redis_key, folder))??)
        }
        (SourceKind::Config, ..) => Some(read_config(config)?),
        _ => None,
    })
}

fn complain(error: &anyhow::Error) {
    eprintln!("nodecast: {error:#}");
}

fn joined<'k>(kinds: impl Iterator<Item = &'k SourceKind>) -> String {
    kinds.map(|kind| kind.as_str()).collect::<Vec<_>>().join(",")
}

fn check(config: &WhitelistConfig, asked: &[Address]) -> anyhow::Result<ExitCode> {
    if config.all {
        print_lines(asked.iter().map(|address| format!("{address} listed by whitelist.all")))?;
        return Ok(ExitCode::SUCCESS);
    }
    let set = asked.iter().copied().collect();
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    for kind in SourceKind::ALL {
        match find(config, kind, &set) {
            Ok(listed) => found.push((kind, listed)),
            Err(error) => {
                complain(&error);
                unread.push(kind);
            }
        }
    }
    let holders = |address: &Address| {
        joined(found.iter().filter(|(_, listed)| listed.contains(address)).map(|(kind, _)| kind))
    };
    print_lines(asked.iter().map(|address| match holders(address).as_str() {
        "" if unread.is_empty() => format!("{address} not listed"),
        "" => format!("{address} not known: {} cannot be read", joined(unread.iter())),
        names => format!("{address} listed by {names}"),
    }))?;
    let are_listed = asked.iter().all(|address| !holders(address).is_empty());
    Ok(match (are_listed, unread.is_empty()) {
        // What one source lists is listed, whatever the others say.
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::from(EXIT_UNAVAILABLE),
    })
}

/// Which of some addresses a source lists; none if it is not configured.
fn find(
    config: &WhitelistConfig,
    kind: SourceKind,
    asked: &BTreeSet<Address>,
) -> Result<BTreeSet<Address>, anyhow::Error> {
    let mut found = BTreeSet::new();
    match (kind, &config.file, &config.redis_url) {
        (SourceKind::File, Some(path), _) => {
            let read = read_list_into(path, |address| {
                if asked.contains(&address) {
                    found.insert(address);
                }
                Ok(())
            });
            read.map_err(|fault| WhitelistError::File { path: path.clone(), fault })?;
        }
        (SourceKind::Redis, _, Some(url)) => {
            found = block_on(async { server(url, config)?.find(asked).await })?
                .map_err(|fault| in_redis(url, config, fault))?;
        }
        (SourceKind::Config, ..) => {
            let listed = read_config(config)?;
            found.extend(asked.iter().filter(|address| listed.contains(address)));
        }
        _ => {}
    }
    Ok(found)
}

fn server(url: &RedisUrl, config: &WhitelistConfig) -> Result<RedisList, RedisFault> {
    // No list is built.
    RedisList::new(url, &config.redis_key, Folder::at(Path::new("")))
}

fn in_redis(url: &RedisUrl, config: &WhitelistConfig, fault: RedisFault) -> WhitelistError {
    WhitelistError::Redis { url: url.clone(), key: config.redis_key.clone(), fault }
}

fn change(loaded: &Loaded, edit: Edit, target: Target) -> anyhow::Result<ExitCode> {
    let config = &loaded.config.whitelist;
    let asked = match target.addresses.read() {
        Ok(asked) => asked.into_iter().collect(),
        Err(code) => return Ok(code),
    };
    if config.all {
        bail!("whitelist.all is set: everybody's events are kept, and there is no list to change");
    }
    let place = match (Place::file(config), Place::redis(config)) {
        (_, None) if target.redis => bail!("--redis: whitelist.redis_url is not configured"),
        (_, Some(redis)) if target.redis => redis,
        (Some(file), _) => file,
        (None, Some(_)) => {
            bail!("whitelist.file is not configured; --redis changes the key in Redis")
        }
        (None, None) => bail!(
            "whitelist.file is not configured, and whitelist.addresses are changed in the \
             configuration file"
        ),
    };
    let new_file = match &place {
        Place::File(path) if edit == Edit::Add && matches!(path.try_exists(), Ok(false)) => {
            Some(path)
        }
        _ => None,
    };
    // What was typed may be mistyped, and the daemon follows what is configured.
    if let Some(path) = new_file
        && matches!(loaded.origin("whitelist.file"), Origin::Flag(_))
    {
        bail!("{} does not exist: make it, or correct --whitelist", path.display());
    }
    let edited = block_on(place.edit(edit, &asked))??;
    if let Some(path) = new_file {
        eprintln!("{} did not exist and was made.", path.display());
    }
    let kind = place.kind();
    let (done, was_so) = match edit {
        Edit::Add | Edit::AddToExisting => ("added to", "was already in"),
        Edit::Remove => ("removed from", "was not in"),
    };
    print_lines(asked.iter().map(|address| {
        let said = if edited.changed.contains(address) { done } else { was_so };
        format!("{address} {said} {place}")
    }))?;
    if edit == Edit::Remove {
        tell_who_stays(config, kind, &asked);
    }
    if edit == Edit::Remove && waits_for_confirmation(config, kind, &edited) {
        eprintln!(
            "These are {} of {} addresses, more than may go at once (whitelist.max_shrink): a running \
             daemon keeps them until SIGHUP (systemctl reload nodecast) confirms it, once its status \
             tells so.",
            edited.changed.len(),
            edited.before
        );
    } else if !edited.changed.is_empty() {
        tell_when_found(config, kind, edit, edited.before as u64);
    }
    Ok(ExitCode::SUCCESS)
}

/// Says how long a running daemon takes to follow. Long lists in Redis are looked at less often.
fn tell_when_found(config: &WhitelistConfig, kind: SourceKind, edit: Edit, members: u64) {
    let secs = |duration: Duration| duration.as_secs_f64().ceil();
    let (sorted, plain) = match kind {
        SourceKind::Redis => found_within(edit, members, config.refresh_interval),
        _ => (config.refresh_interval, config.refresh_interval),
    };
    let of_plain = match sorted == plain {
        true => String::new(),
        false => format!(" (of a plain set with {members} members: {} s)", secs(plain)),
    };
    eprintln!("A running daemon follows by itself within {} s{of_plain}.", secs(sorted));
}

/// Says which addresses another source still lists.
fn tell_who_stays(config: &WhitelistConfig, changed: SourceKind, asked: &BTreeSet<Address>) {
    for kind in SourceKind::ALL.into_iter().filter(|kind| *kind != changed) {
        match find(config, kind, asked) {
            Ok(listed) => {
                for address in listed {
                    eprintln!("{address} stays listed by {kind}.");
                }
            }
            Err(error) => eprintln!("Whether {kind} lists them as well is not known: {error:#}."),
        }
    }
}

/// Whether the daemon takes what was removed for a fault. A key in Redis goes with its last member, and
/// that is one whatever may be lost.
fn waits_for_confirmation(config: &WhitelistConfig, kind: SourceKind, edited: &Edited) -> bool {
    let (removed, of) = (edited.changed.len(), edited.before);
    let is_gone = kind == SourceKind::Redis && removed > 0 && removed >= of;
    is_gone || is_too_much(removed, of, config.max_shrink)
}

//! `nodecast db prune`: deletes old events.
//!
//! Through the daemon where one runs in the state directory, because a store has one writer; else it
//! takes the writer's lease itself.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, anyhow, bail};

use super::{current, load};
use crate::{
    cli::{
        flags::StoreFlags,
        generate::{parse_duration, parse_time},
        output::print,
    },
    config::Config,
    control::{Client, ClientError},
    event::Timestamp,
    store::{
        self, Deleted, OTHER_STORE, PRUNE, PruneOrder, RetentionLimits, StoreError,
        inspect::count_before,
    },
};

/// Rows that are deleted in one transaction.
const PORTION: usize = 10_000;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Delete events that are older, by event time, such as 36h or 7d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration,
        required_unless_present = "before", conflicts_with = "before")]
    older_than: Option<Duration>,
    /// Delete events before this time in UTC, such as 2026-03-15T00:00:00
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    before: Option<Timestamp>,
    /// Only say how many events would go
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    flags: StoreFlags,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = load(args.flags)?;
    let now = Timestamp::now();
    let edge = match (args.before, args.older_than) {
        (Some(before), _) => before,
        (None, Some(age)) => now.minus(age),
        (None, None) => bail!("give --older-than or --before"),
    };
    if edge > now {
        bail!("{edge} lies in the future");
    }
    let found = current(&config).await?;
    let days = found.content.and_then(|content| content.partitions);
    let whole_days = if days.is_some() { ", as whole days" } else { "" };
    if args.dry_run {
        let events = count_before(&config.store.url, edge).await?;
        print(&format!("{events} events before {edge} would be deleted{whole_days}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let deleted = match through_daemon(&config, &found.store, edge)? {
        Some(deleted) => deleted,
        None => delete(&config, now, edge).await?,
    };
    print(&format!("{deleted} events before {edge} were deleted{whole_days}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Has the daemon of the state directory do it. `None` where there is none, or none for this store.
///
/// # Errors
/// The daemon's own words, among others.
fn through_daemon(config: &Config, store: &str, edge: Timestamp) -> anyhow::Result<Option<usize>> {
    let Some(daemon) = Client::connect(&config.state_dir)? else { return Ok(None) };
    let order = PruneOrder { store: store.to_owned(), before: edge.0 };
    let answers = daemon.request(PRUNE, serde_json::to_value(order)?)?;
    match answers.finish(|_| {}) {
        Ok(result) => Ok(Some(serde_json::from_value::<Deleted>(result)?.deleted)),
        // An older daemon does not know the request; who takes the lease is told whether it is free.
        Err(ClientError::Refused { code, .. })
            if code == OTHER_STORE || code == "unknown_request" =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

async fn delete(config: &Config, now: Timestamp, edge: Timestamp) -> anyhow::Result<usize> {
    let store = store::open(&config.store.url, &config.store).await?;
    let (mut writer, _) = store.open_writer().await.map_err(|error| match error {
        StoreError::LeaseLost(holder) => anyhow!(
            "{holder}: it is the only one that may write. Give the --state-dir that it was started \
             with, so that it does the work, or stop it first"
        ),
        other => other.into(),
    })?;
    let limits =
        RetentionLimits { now, edge, max_bytes: None, min_free_bytes: 0, portion: PORTION };
    let mut deleted = 0;
    let outcome = loop {
        match writer.retain(limits).await {
            Ok(portion) => {
                deleted += portion.deleted;
                if !portion.more {
                    break Ok(());
                }
            }
            Err(error) => break Err(error),
        }
        if let Err(error) = writer.renew().await {
            break Err(error);
        }
    };
    // Whatever happened, the next daemon need not wait for the lease.
    let closed = writer.close().await;
    outcome.with_context(|| format!("stopped after {deleted} events"))?;
    closed?;
    Ok(deleted)
}

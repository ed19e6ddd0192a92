//! `nodecast db prune`: deletes old events.
//!
//! Through the daemon where one runs in the state directory, because a store has one writer; else it
//! takes the writer's lease itself.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, anyhow, bail};

use super::{
    current, load,
    status::{DAY_MICROS, kept as kept_days},
};
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
        self, Deleted, KeptDay, OTHER_STORE, PRUNE, PruneOrder, RetentionLimits, StoreError,
        inspect::count_before,
    },
};

/// Rows that are deleted in one transaction.
const PORTION: usize = 10_000;

#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("edge").required(true).args(["older_than", "before"]))]
pub struct Args {
    /// Delete events that are older, by event time, such as 36h or 7d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
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
    let content = found.content.unwrap_or_default();
    let whole_days = if content.partitions.is_some() { ", as whole days" } else { "" };
    let kept = kept_before(&content.kept, edge);
    if args.dry_run {
        let events = count_before(&config.store.url, edge).await?;
        print(&format!("{events} events before {edge} would be deleted{whole_days}\n{kept}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let deleted = match through_daemon(&config, &found.store, edge)? {
        Some(deleted) => deleted,
        None => delete(&config, now, edge).await?,
    };
    print(&format!("{deleted} events before {edge} were deleted{whole_days}\n{kept}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Says which days before a time stay all the same; nothing where there are none.
fn kept_before(kept: &[KeptDay], edge: Timestamp) -> String {
    let day_begins = |(day, _): &&KeptDay| Timestamp(day.saturating_mul(DAY_MICROS)) < edge;
    let before: Vec<KeptDay> = kept.iter().filter(day_begins).copied().collect();
    kept_days(&before).map_or_else(String::new, |days| {
        format!("not those of kept days (backfill --keep): {days}\n")
    })
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

//! Many sessions come back at once, each wanting what it missed, while others are live.

use std::{
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde_json::json;

use super::steady;
use crate::{
    client::{Due, Group, Order},
    options::Storm,
    report::Report,
    run::Run,
    traffic::{Mix, Wish},
};

/// Events in a block of what is missed.
const BLOCK: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(options: &Storm) -> anyhow::Result<ExitCode> {
    let common = &options.common;
    let mut report = Report::new("storm", common.json)?;
    let mut run = Run::daemon(common, options.storm + options.live, &[])?;
    run.open(steady(common, options.live.max(1), &Mix::everything()))?;
    let (cursor, due) = miss(&mut run, options.back.into())?;
    let before = run.measure("before the storm", 1, common.rate, common.seconds)?;
    report.phase(&before)?;

    let comes_back =
        Order { from: Some((cursor, due)), ..Order::now(Group::Extra, Wish::Everything) };
    let mark = run.mark()?;
    let begun = Instant::now();
    run.clients.open(vec![comes_back; options.storm as usize], None)?;
    let mut highest = run.memory()?.map_or(0, |memory| memory.rss);
    let patience = Duration::from_secs(options.patience);
    let mut connected = None;
    let mut block = 0.0;
    loop {
        let due = begun + Duration::from_secs_f64(block / common.rate);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        block += 1.0;
        run.feed(1)?;
        highest = highest.max(run.memory()?.map_or(0, |memory| memory.rss));
        let state = run.clients.state()?;
        if state.opening == 0 {
            connected.get_or_insert(begun.elapsed().as_secs_f64());
        }
        if state.joined >= u64::from(options.storm) {
            break;
        }
        anyhow::ensure!(
            begun.elapsed() < patience,
            "{} of {} sessions have all they missed after {patience:?}; {}",
            state.joined,
            options.storm,
            serde_json::to_string(&state)?
        );
    }
    let took = begun.elapsed().as_secs_f64();
    let phase = run.phase("in the storm", &mark)?;
    report.phase(&phase)?;
    let replayed = phase.window.group(Group::Extra).events;
    let rate = replayed as f64 / took;
    report.say(format_args!(
        "{} sessions had what they missed after {took:.1} s (subscribed after {:.1} s): {replayed} events, \
         {rate:.0}/s; live p99 {:.1} ms, before {:.1} ms; RSS at most {:.0} MB",
        options.storm,
        connected.unwrap_or(took),
        phase.latency_ms.p99,
        before.latency_ms.p99,
        highest as f64 / 1e6,
    ))?;
    report.put(
        "storm",
        json!({
            "sessions": options.storm,
            "events_each": options.back,
            "seconds": took,
            "subscribed_after_seconds": connected,
            "events": replayed,
            "events_per_second": rate,
            "live_p99_ms": phase.latency_ms.p99,
            "live_p99_ms_before": before.latency_ms.p99,
            "highest_rss": highest,
        }),
    );
    report.outcome(&run.finish()?)?;
    report.end()
}

/// Writes what will be missed; gives the cursor before it, and what comes first behind that.
fn miss(run: &mut Run, events: u64) -> anyhow::Result<(Arc<str>, Due)> {
    let last = run.ledger.events();
    let cursor = run.clients.capture(last)?;
    run.feed(1)?;
    let mut left = events;
    while left > 0 {
        let now = left.min(BLOCK);
        run.feed(now)?;
        left -= now;
    }
    run.settle()?;
    let cursor = cursor.recv_timeout(PATIENCE).context("no event came")?;
    Ok((cursor.into(), Due { event: last + 1, exact: true }))
}

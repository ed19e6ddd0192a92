//! What clients that stop reading do to the others: phases without and with them, in turn.
//!
//! They ask for everything since the start, so that their buffers are full at once and not after
//! minutes, and come back whenever the daemon cuts them.

use std::{process::ExitCode, time::Duration};

use super::{PATIENCE, SMALL_BUFFERS, audience, miss, share, steady};
use crate::{
    client::{Group, Order},
    histogram::Histogram,
    options::Isolation,
    report::Report,
    run::{Latency, Phase, Run},
    traffic::{Mix, Wish},
};

/// Events of before, for the buffers of those that stall: some 2 MB.
const BACKLOG: u64 = 3_000;

pub fn run(options: &Isolation) -> anyhow::Result<ExitCode> {
    let common = &options.common;
    let mut report = Report::new("isolation", common.json)?;
    let stalling = share(options.sessions, options.stalled);
    let mut run = Run::daemon(common, options.sessions + stalling, &SMALL_BUFFERS)?;
    run.open(steady(common, 1, &Mix::everything()))?;
    let before = miss(&mut run, BACKLOG)?;
    run.open(audience(common, options.sessions.saturating_sub(1), &Mix::everything()))?;
    run.feed(1)?;
    run.settle()?;
    let stall =
        Order { from: Some(before), stalls: true, ..Order::now(Group::Extra, Wish::Everything) };
    let (mut without, mut with) = (Histogram::default(), Histogram::default());
    for _ in 0..options.rounds.max(1) {
        let phase = run.measure("all read", 1, common.rate, common.seconds)?;
        add(&mut without, &phase, &mut report)?;

        run.open(vec![stall.clone(); stalling as usize])?;
        wait_until_behind(&mut run, stalling)?;
        // That they have come is no part of it.
        run.feed(1)?;
        run.settle()?;
        let phase = run.measure(format!("{stalling} stalled"), 1, common.rate, common.seconds)?;
        add(&mut with, &phase, &mut report)?;
        run.clients.close(Group::Extra)?;
        run.clients.wait(PATIENCE, |state| state.stalled == 0)?;
    }
    let (without, with) = (Latency::from(&without), Latency::from(&with));
    let ratio = with.p99 / without.p99;
    report.say(format_args!(
        "p50 {:.2} and {:.2} ms, p99 {:.2} and {:.2} ms: with stalled clients p99 is {ratio:.3} of that \
         without",
        without.p50, with.p50, without.p99, with.p99
    ))?;
    report.put("latency_ms_without", serde_json::to_value(&without)?);
    report.put("latency_ms_with", serde_json::to_value(&with)?);
    report.put("p99_ratio", ratio);
    let outcome = run.finish()?;
    report.say(format_args!("the daemon cut stalled clients {} times", outcome.clients.cut))?;
    report.outcome(&outcome)?;
    report.end()
}

/// Waits until the daemon, too, sees all of them stalled.
fn wait_until_behind(run: &mut Run, stalling: u32) -> anyhow::Result<()> {
    let begun = std::time::Instant::now();
    loop {
        let status = run.server.status()?.unwrap_or_default();
        let behind = status["sessions"]["behind"].as_u64().unwrap_or(0);
        if behind >= u64::from(stalling) {
            return Ok(());
        }
        anyhow::ensure!(begun.elapsed() < PATIENCE, "{behind} of {stalling} clients are behind");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn add(sum: &mut Histogram, phase: &Phase, report: &mut Report) -> anyhow::Result<()> {
    sum.add(&phase.window.group(Group::Steady).latency);
    report.phase(phase)
}

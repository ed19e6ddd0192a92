//! Many sessions come back at once, each wanting what it missed, while others are live.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{miss, steady};
use crate::{
    client::{Group, Order},
    options::Storm,
    report::Report,
    run::Run,
    traffic::{Mix, Wish},
};

/// Time between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(20);

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
    let mut blocks = 0.0;
    loop {
        if begun.elapsed().as_secs_f64() >= blocks / common.rate {
            blocks += 1.0;
            run.feed(1)?;
        }
        thread::sleep(LOOK);
        highest = highest.max(run.memory()?.map_or(0, |memory| memory.rss));
        let state = run.clients.state()?;
        if state.opening == 0 {
            connected.get_or_insert(begun.elapsed().as_secs_f64());
        }
        if state.joined >= u64::from(options.storm) {
            break;
        }
        anyhow::ensure!(
            begun.elapsed() < patience && state.faults.ended == 0,
            "{} of {} sessions have all they missed after {:.0?}; {}",
            state.joined,
            options.storm,
            begun.elapsed(),
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

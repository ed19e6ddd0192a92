//! Clients come and go for a long time, with all kinds of filters; some say nonsense, some hang up in the
//! middle, some stop reading, and a third goes on where another one stopped.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{SMALL_BUFFERS, miss, share, steady};
use crate::{
    client::{Churn, Group, Order},
    options::Soak,
    report::Report,
    run::Run,
    traffic::{Mix, Wish},
};

/// The log of recent events is full after a few minutes, so that its growth is not taken for a leak.
const SMALL_LOG: (&str, &str) = ("router.recent_bytes", "4MiB");

/// Events before all others: with them the database's own cache of pages (16 MiB) is full, too.
const BEFORE: u64 = 60_000;

/// Time between two looks at the daemon's memory.
const SAMPLE: Duration = Duration::from_secs(5);
/// Time between two lines of the report.
const LINE: Duration = Duration::from_secs(60);

pub fn run(options: &Soak) -> anyhow::Result<ExitCode> {
    let common = &options.common;
    let mut report = Report::new("soak", common.json)?;
    let stalling = if options.stalled > 0.0 { share(options.sessions, options.stalled) } else { 0 };
    let settings = [&SMALL_BUFFERS[..], &[SMALL_LOG]].concat();
    let mut run = Run::daemon(common, options.sessions + stalling, &settings)?;
    run.open(steady(common, 1, &Mix::everything()))?;
    miss(&mut run, BEFORE)?;
    let mut orders = steady(common, options.sessions.saturating_sub(1), &options.mix);
    orders.iter_mut().for_each(|order| order.keeps_cursor = true);
    let stall = Order { stalls: true, ..Order::now(Group::Extra, Wish::Everything) };
    orders.extend(vec![stall; stalling as usize]);
    run.open(orders)?;
    run.clients.churn(Some(Churn { per_second: options.churn }))?;

    let mark = run.mark()?;
    let begun = Instant::now();
    let (mut sampled, mut told) = (begun, begun);
    let mut samples = Vec::new();
    run.write(options.burst.into(), common.rate, options.minutes * 60.0, |run| {
        if sampled.elapsed() >= SAMPLE {
            sampled = Instant::now();
            samples.extend(run.memory()?.map(|memory| (begun.elapsed().as_secs(), memory.rss)));
        }
        if told.elapsed() >= LINE {
            told = Instant::now();
            let state = run.clients.state()?;
            let rss = samples.last().map_or(0, |(_, rss)| *rss);
            report.say(format_args!(
                "{:>4} s: {} live, {} opened, {} resumed, {} cut, {} of {} events, RSS {:.1} MB",
                begun.elapsed().as_secs(),
                state.live,
                state.opened,
                state.resumed,
                state.cut,
                state.received,
                state.expected,
                rss as f64 / 1e6,
            ))?;
        }
        Ok(())
    })?;
    run.clients.churn(None)?;
    run.clients.wait_until_live(LINE)?;
    run.settle()?;
    let phase = run.phase("churn", &mark)?;
    report.phase(&phase)?;
    let state = run.clients.state()?;
    let rate = state.opened as f64 / phase.seconds;
    report.say(format_args!(
        "{} clients opened, {rate:.0}/s, {} of them went on from a cursor; stalled ones were cut {} times",
        state.opened, state.resumed, state.cut
    ))?;
    if let Some(growth) = growth(&samples) {
        report.say(format_args!("RSS grew by {:.2} % in the last two thirds", growth * 100.0))?;
        report.put("rss_growth_in_last_two_thirds", growth);
    }
    report.put("rss", json!(samples));
    report.put("opened_per_second", rate);
    report.outcome(&run.finish()?)?;
    report.end()
}

/// How much memory grew from the second third to the end, each taken as the mean of a sixth of all
/// samples.
fn growth(samples: &[(u64, u64)]) -> Option<f64> {
    let sixth = samples.len() / 6;
    let mean = |part: &[(u64, u64)]| {
        part.iter().map(|(_, rss)| *rss as f64).sum::<f64>() / part.len() as f64
    };
    if sixth == 0 {
        return None;
    }
    let third = samples.len() / 3;
    let (begin, end) = (&samples[third..third + sixth], &samples[samples.len() - sixth..]);
    Some(mean(end) / mean(begin) - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_that_of_the_last_two_thirds() {
        let start_up = (0..20).map(|at| (at, 50 + at));
        let flat = (20..60).map(|at| (at, 100));
        let samples: Vec<_> = start_up.chain(flat).collect();
        let rising: Vec<_> = (0..60).map(|at| (at, if at < 40 { 100 } else { 110 })).collect();

        assert_eq!(growth(&samples), Some(0.0));
        assert!((growth(&rising).unwrap() - 0.1).abs() < 1e-9);
        assert_eq!(growth(&samples[..5]), None);
    }
}

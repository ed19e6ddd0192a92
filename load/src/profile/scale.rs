//! What one session costs, at growing numbers of sessions.

use std::{process::ExitCode, thread, time::Duration};

use serde_json::json;

use super::audience;
use crate::{options::Scale, process::Memory, report::Report, run::Run};

/// After the last handshake, until memory is looked at.
const REST: Duration = Duration::from_secs(2);

pub fn run(options: &Scale) -> anyhow::Result<ExitCode> {
    let mut report = Report::new("scale", options.common.json)?;
    let mut rows = Vec::new();
    let mut payload_bytes = 600.0;
    for &sessions in &options.sessions {
        let run = Run::daemon(&options.common, sessions, &[])?;
        rows.push(step(run, options, sessions, &mut payload_bytes, &mut report)?);
        if options.raw {
            let run = Run::raw(&options.common, payload_bytes as usize)?;
            rows.push(step(run, options, sessions, &mut payload_bytes, &mut report)?);
        }
    }
    report.put("steps", rows);
    report.end()
}

fn step(
    mut run: Run,
    options: &Scale,
    sessions: u32,
    payload_bytes: &mut f64,
    report: &mut Report,
) -> anyhow::Result<serde_json::Value> {
    let common = &options.common;
    let server = run.server.name();
    let empty = run.memory()?;
    let mark = run.mark()?;
    let took = run.open(audience(common, sessions, &options.mix))?;
    let connecting = run.phase("connecting", &mark)?;
    // Not a condition: memory of sessions at rest is what is measured.
    thread::sleep(REST);
    let idle = run.memory()?;
    let mark = run.mark()?;
    thread::sleep(Duration::from_secs_f64(common.seconds));
    let resting = run.phase("idle", &mark)?;
    let phase = run.measure(format!("{sessions} sessions"), 1, common.rate, common.seconds)?;
    let busy = run.memory()?;
    let each = |memory: Option<Memory>| {
        memory
            .zip(empty)
            .map(|(now, empty)| now.rss.saturating_sub(empty.rss) as f64 / f64::from(sessions))
    };
    let idle_cpu = resting.cpu.map(|cpu| cpu.sum() / resting.seconds);
    let connect_us = connecting.cpu.map(|cpu| cpu.sum() * 1e6 / f64::from(sessions));
    let text = |value: Option<f64>| value.map_or("?".to_owned(), |value| format!("{value:.0}"));
    report.phase(&phase)?;
    report.say(format_args!(
        "{server:<8} {sessions} sessions: RSS {} bytes each idle, {} after {} events; {:.0} connects/s, {} us \
         of server each",
        text(each(idle)),
        text(each(busy)),
        phase.events,
        f64::from(sessions) / took,
        text(connect_us),
    ))?;
    report.say(format_args!(
        "{server:<8} {sessions} idle sessions: {} ms of server a second",
        text(idle_cpu.map(|share| share * 1e3)),
    ))?;
    report.outcome(&run.finish()?)?;
    *payload_bytes = phase.payload_bytes;
    Ok(json!({
        "server": server,
        "sessions": sessions,
        "rss_bytes_per_idle_session": each(idle),
        "rss_bytes_per_session_after_events": each(busy),
        "memory_without_sessions": empty,
        "connects_per_second": f64::from(sessions) / took,
        "cpu_us_per_connect": connect_us,
        "idle_cpu_share": idle_cpu,
        "cpu_us_per_delivery": phase.cpu_us_per_delivery,
        "latency_ms": phase.latency_ms,
    }))
}

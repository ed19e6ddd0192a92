//! Every event to everybody: what a delivery costs, beside the raw writer, in turn.

use std::process::ExitCode;

use super::audience;
use crate::{
    options::Fanout,
    report::Report,
    run::{Phase, Run},
    traffic::Mix,
};

/// Blocks at one read above which a server was not keeping up.
const MERGED_BY_ITSELF: f64 = 1.1;

/// Deliveries and the server's processor time of all rounds.
#[derive(Default)]
struct Sum {
    deliveries: f64,
    cpu: f64,
    p99: Vec<f64>,
    /// The most of all rounds.
    events_per_read: f64,
}

impl Sum {
    fn add(&mut self, phase: &Phase) {
        self.deliveries += phase.deliveries as f64;
        self.cpu += phase.cpu.map_or(0.0, |cpu| cpu.sum());
        self.p99.push(phase.latency_ms.p99);
        self.events_per_read = self.events_per_read.max(phase.events_per_read);
    }

    fn rate(&self) -> f64 {
        self.deliveries / self.cpu
    }
}

pub fn run(options: &Fanout) -> anyhow::Result<ExitCode> {
    let common = &options.common;
    let everything = Mix::everything();
    let mix = options.mix.as_ref().unwrap_or(&everything);
    let mut report = Report::new("fanout", common.json)?;
    let sessions = options.sessions;
    for &merge in &options.merge {
        let (mut ours, mut raw) = (Sum::default(), Sum::default());
        for _ in 0..options.rounds.max(1) {
            let run = Run::daemon(common, sessions, &[])?;
            let phase = measure(run, options, mix, merge, &mut report)?;
            ours.add(&phase);
            if options.mix.is_none() && common.transport.is_socket() {
                let run = Run::raw(common, phase.payload_bytes.round() as usize)?;
                raw.add(&measure(run, options, mix, merge, &mut report)?);
            }
        }
        if raw.cpu > 0.0 && ours.cpu > 0.0 {
            let ratio = ours.rate() / raw.rate();
            report.say(format_args!(
                "merge {merge}: {:.0} deliveries a server second, raw writer {:.0}: ratio {ratio:.3}; \
                 p99 {:.1?} and {:.1?} ms",
                ours.rate(),
                raw.rate(),
                ours.p99,
                raw.p99,
            ))?;
            report.put(&format!("ratio_merge_{merge}"), ratio);
            // Who cannot keep up sends several blocks at once, which is cheaper.
            let merged = ours.events_per_read.max(raw.events_per_read) / f64::from(merge);
            if merged > MERGED_BY_ITSELF {
                report.say(format_args!(
                    "!! not like with like: up to {merged:.1} blocks came at once; choose a lower --rate"
                ))?;
            }
        }
    }
    report.end()
}

fn measure(
    mut run: Run,
    options: &Fanout,
    mix: &Mix,
    merge: u32,
    report: &mut Report,
) -> anyhow::Result<Phase> {
    let common = &options.common;
    run.open(audience(common, options.sessions, mix))?;
    // The first block grows what has to grow.
    run.feed(merge.into())?;
    run.settle()?;
    let name = format!("{merge} a block");
    let phase = run.measure(name, merge.into(), common.rate, common.seconds)?;
    report.phase(&phase)?;
    report.outcome(&run.finish()?)?;
    Ok(phase)
}

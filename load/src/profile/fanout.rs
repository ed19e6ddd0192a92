//! Every event to everybody: what a delivery costs, beside the raw writer, in turn.

use std::process::ExitCode;

use super::steady;
use crate::{
    options::Fanout,
    report::Report,
    run::{Phase, Run},
    traffic::Mix,
};

/// Deliveries and the server's processor time of all rounds.
#[derive(Default)]
struct Sum {
    deliveries: f64,
    cpu: f64,
    p99: Vec<f64>,
}

impl Sum {
    fn add(&mut self, phase: &Phase) {
        self.deliveries += phase.deliveries as f64;
        self.cpu += phase.cpu.map_or(0.0, |cpu| cpu.sum());
        self.p99.push(phase.latency_ms.p99);
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
            if options.mix.is_none() {
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
    run.open(steady(common, options.sessions, mix))?;
    // The first block grows what has to grow.
    run.feed(merge.into())?;
    run.settle()?;
    let name = format!("{merge} a block");
    let phase = run.measure(name, merge.into(), common.rate, common.seconds)?;
    report.phase(&phase)?;
    report.outcome(&run.finish()?)?;
    Ok(phase)
}

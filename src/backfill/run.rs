//! Runs a pass to its end: events to the sink, progress to the state directory and the report.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{
    PORTION,
    pass::{Pass, Step},
    report::{JobState, Report},
    saved::Saved,
    sink::{Sink, SinkError, Tally},
};
use crate::event::Event;

/// How often progress is written down: what is read again after a crash.
const SAVE: Duration = Duration::from_secs(1);

/// How often it is told.
const TELL: Duration = Duration::from_millis(200);

/// How fast files are read.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// 0: as fast as it goes.
    pub max_bytes_per_second: u64,
}

impl Pace {
    /// How long to wait when so many bytes were read in this time.
    fn pause(self, read_bytes: u64, took: Duration) -> Duration {
        match self.max_bytes_per_second {
            0 => Duration::ZERO,
            limit => Duration::from_secs_f64(read_bytes as f64 / limit as f64).saturating_sub(took),
        }
    }
}

/// Which job it is, and where its progress is kept.
pub struct Keeping<'k> {
    pub state_dir: &'k Path,
    pub name: &'k str,
}

/// Runs a pass. The report is told as it changes; its last state is the outcome. A job that ended is
/// forgotten, one that was cancelled or failed can go on.
///
/// # Errors
/// When progress cannot be kept.
pub async fn run(
    mut pass: Pass,
    saved: &mut Saved,
    keeping: Keeping<'_>,
    sink: &mut dyn Sink,
    pace: Pace,
    mut report: Report,
    tell: &mut dyn FnMut(&Report),
) -> std::io::Result<Report> {
    let begun = Instant::now();
    report.state = JobState::Running;
    let (mut saved_at, mut told_at) = (begun, None::<Instant>);
    let outcome = loop {
        let (step_begun, bytes_before_step) = (Instant::now(), pass.counts.read_bytes);
        let step = pass.step();
        let mut is_end_of_file = false;
        match step {
            Step::Events(events) => {
                if let Err(error) = store(events, sink, &mut report).await {
                    break Err(error);
                }
            }
            Step::FileDone => is_end_of_file = true,
            Step::Fault(fault) => report.note_fault(fault.to_string()),
            Step::End => break Ok(()),
        }
        if is_end_of_file && let Some((path, bytes)) = pass.finished_file() {
            saved.done.insert(path, bytes);
            saved.place = pass.place();
        }
        if let Err(error) = sink.between().await {
            saved.place = pass.place();
            break Err(error);
        }
        if saved_at.elapsed() >= SAVE {
            saved.place = pass.place();
            saved.write(keeping.state_dir, keeping.name)?;
            saved_at = Instant::now();
        }
        if told_at.is_none_or(|told| told.elapsed() >= TELL) {
            count(&pass, &mut report, begun.elapsed());
            tell(&report);
            told_at = Some(Instant::now());
        }
        crate::fail_point!("backfill.step");
        let read = pass.counts.read_bytes - bytes_before_step;
        let pause = pace.pause(read, step_begun.elapsed());
        // Also without a pause others on this thread get their turn.
        match pause {
            Duration::ZERO => tokio::task::yield_now().await,
            pause => actix_rt::time::sleep(pause).await,
        }
    };
    count(&pass, &mut report, begun.elapsed());
    report.remaining_ms = None;
    match outcome {
        Ok(()) => {
            report.state = JobState::Done;
            Saved::remove(keeping.state_dir, keeping.name)?;
        }
        Err(error) => {
            // A portion that failed is read again from the place that was kept before it.
            saved.write(keeping.state_dir, keeping.name)?;
            report.state = match error {
                SinkError::Cancelled | SinkError::Stopping => JobState::Cancelled,
                SinkError::Store(_) => JobState::Failed,
            };
            if let SinkError::Store(error) = error {
                report.note_fault(error.to_string());
            }
        }
    }
    tell(&report);
    Ok(report)
}

async fn store(
    mut events: Vec<Event>,
    sink: &mut dyn Sink,
    report: &mut Report,
) -> Result<(), SinkError> {
    while !events.is_empty() {
        let rest = events.split_off(events.len().min(PORTION));
        let Tally { stored, known, refused } = sink.store(events).await?;
        report.stored += stored;
        report.known += known;
        report.refused_rows += refused;
        events = rest;
    }
    Ok(())
}

fn count(pass: &Pass, report: &mut Report, took: Duration) {
    let counts = &pass.counts;
    report.files_done = counts.files_done;
    // A file can have grown since it was found.
    report.bytes_done = counts.read_bytes + counts.passed_bytes;
    report.read_bytes = counts.read_bytes;
    report.bytes_total = report.bytes_total.max(report.bytes_done);
    report.refused_blocks = counts.refused_blocks;
    report.damaged_lines = counts.damaged_lines;
    let read = counts.read_bytes;
    let millis = took.as_millis() as u64;
    report.bytes_per_second = (millis > 0 && read > 0).then(|| read.saturating_mul(1_000) / millis);
    let left = report.bytes_total - report.bytes_done;
    report.remaining_ms = report
        .bytes_per_second
        .filter(|rate| *rate > 0)
        .map(|rate| left.saturating_mul(1_000) / rate);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_pace_waits_for_what_was_read_too_fast() {
        let pace = Pace { max_bytes_per_second: 1_000 };

        assert_eq!(pace.pause(500, Duration::from_millis(100)), Duration::from_millis(400));
        assert_eq!(pace.pause(500, Duration::from_secs(1)), Duration::ZERO);
        let unlimited = Pace { max_bytes_per_second: 0 };
        assert_eq!(unlimited.pause(u64::MAX, Duration::ZERO), Duration::ZERO);
    }
}

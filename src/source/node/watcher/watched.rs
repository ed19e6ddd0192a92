//! One stream as its watcher knows it: what was said of it, and what its first batch carries.

use std::sync::Arc;

use slog::{Logger, info, warn};

use super::super::{
    follow::{Change, Follower},
    start::Start,
};
use crate::{
    source::{
        Budget, StreamState,
        quarantine::{Quarantine, Refused},
    },
    stats::StreamStats,
};

/// One stream and what the watcher knows of it.
pub struct Watched {
    pub follower: Follower,
    pub stats: Arc<StreamStats>,
    /// Where it begins without a checkpoint.
    pub start: Start,
    /// Travels with the first batch.
    pub resume: Option<StreamState>,
    /// The budget of its baseline, while that is under way.
    pub baseline: Option<Arc<Budget>>,
    /// What is wrong, as it was last said.
    problem: Option<String>,
}

impl Watched {
    pub fn new(
        follower: Follower,
        stats: Arc<StreamStats>,
        start: Start,
        state: StreamState,
    ) -> Self {
        Self { follower, stats, start, resume: Some(state), baseline: None, problem: None }
    }

    /// Whether this stream may be read: a baseline in flight must be in the store first, or a kill
    /// would let the next start choose a later one. Until then its return wakes the watcher.
    pub fn may_read(&mut self) -> bool {
        if let Some(baseline) = &self.baseline
            && baseline.in_flight_batches() > 0
        {
            baseline.wait();
            // What came back just before sends no message.
            if baseline.in_flight_batches() > 0 {
                return false;
            }
        }
        self.baseline = None;
        self.follower.baseline_committed();
        true
    }

    /// Says once that something is wrong, and once that it is over.
    pub fn note_problem(&mut self, log: &Logger) {
        let problem = self.follower.problem();
        if self.problem.as_deref() == problem {
            return;
        }
        let name = &self.follower.stream().name;
        match problem {
            Some(problem) => {
                warn!(log, "stream cannot be read"; "stream" => %name, "error" => problem)
            }
            None => info!(log, "stream can be read"; "stream" => %name),
        }
        self.stats.set_problem(problem.unwrap_or_default());
        self.problem = problem.map(str::to_owned);
    }

    /// Tells what happened to files besides that they grow.
    pub fn tell_changes(&mut self, log: &Logger) {
        for changed in self.follower.take_changes() {
            let (file, offset) = (&*changed.file, changed.offset);
            let stream = &self.follower.stream().name;
            match changed.change {
                Change::Truncated => warn!(log, "file truncated, it is read again from where it \
                    differs"; "stream" => %stream, "file" => file, "offset_bytes" => offset),
                Change::Replaced => warn!(log, "file replaced by another, which is read from its \
                    start"; "stream" => %stream, "file" => file, "offset_bytes" => offset),
                Change::RemovedUnread { lost_bytes } => {
                    warn!(log, "file removed before it was read to its end"; "stream" => %stream,
                        "file" => file, "offset_bytes" => offset, "lost_bytes" => lost_bytes)
                }
                Change::Pruned => info!(log, "file removed, it was read to its end";
                    "stream" => %stream, "file" => file, "offset_bytes" => offset),
            }
        }
    }

    /// Puts the heads of over-long lines into quarantine.
    pub fn set_oversized_aside(&mut self, quarantine: Option<&Quarantine>, log: &Logger) {
        for oversized in self.follower.take_oversized() {
            let offset_bytes = oversized.line.offset;
            warn!(log, "line skipped"; "reason" => "over-long line", "path" => &*oversized.file,
                "stream" => %self.follower.stream().name, "offset_bytes" => offset_bytes);
            let origin = format!("{}/{}", self.follower.stream().name, oversized.file);
            let refused = Refused {
                reason: "over-long line",
                origin: &origin,
                offset_bytes,
                content: &oversized.line.head,
            };
            if let Some(Err(error)) = quarantine.map(|quarantine| quarantine.put(refused)) {
                warn!(log, "quarantine cannot be written"; "error" => %error);
            }
        }
    }
}

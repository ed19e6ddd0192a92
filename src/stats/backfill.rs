//! What back-filling counts.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Counter, Gauge};
use crate::backfill::{PendingState, Report};

/// The jobs of this run. Rows = stored + known + refused.
#[derive(Debug, Default)]
pub struct BackfillStats {
    pub waiting: Gauge,
    pub running: Gauge,
    /// Jobs that ended, cancelled and failed ones too.
    pub ended: Counter,
    pub read_bytes: Counter,
    pub stored: Counter,
    pub known: Counter,
    pub refused_rows: Counter,
    pub refused_blocks: Counter,
    pub damaged_lines: Counter,
    /// Files that could not be read to their end.
    pub faults: Counter,
    reports: Mutex<Reports>,
    pending: Mutex<Vec<PendingState>>,
}

#[derive(Debug, Default)]
struct Reports {
    running: Option<Report>,
    last: Option<Report>,
}

impl BackfillStats {
    /// How far the job is that runs, and how the last one ended.
    pub fn reports(&self) -> (Option<Report>, Option<Report>) {
        let reports = self.lock();
        (reports.running.clone(), reports.last.clone())
    }

    /// The jobs by list that are not done.
    pub fn pending(&self) -> Vec<PendingState> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_pending(&self, pending: Vec<PendingState>) {
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = pending;
    }

    /// Notes how far a job is.
    pub fn tell(&self, report: &Report) {
        let mut reports = self.lock();
        let before = match &reports.running {
            Some(before) if before.job == report.job => before.clone(),
            _ => Report::default(),
        };
        let more =
            |counter: &Counter, now: u64, before: u64| counter.add(now.saturating_sub(before));
        more(&self.read_bytes, report.read_bytes, before.read_bytes);
        more(&self.stored, report.stored, before.stored);
        more(&self.known, report.known, before.known);
        more(&self.refused_rows, report.refused_rows, before.refused_rows);
        more(&self.refused_blocks, report.refused_blocks, before.refused_blocks);
        more(&self.damaged_lines, report.damaged_lines, before.damaged_lines);
        more(&self.faults, report.faults_total, before.faults_total);
        reports.running = Some(report.clone());
    }

    /// Notes how a job ended.
    pub fn end(&self, report: &Report) {
        self.tell(report);
        let mut reports = self.lock();
        reports.running = None;
        reports.last = Some(report.clone());
        self.ended.add(1);
    }

    fn lock(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_counts_what_it_does_itself_and_only_once() {
        let stats = BackfillStats::default();
        let report = |read_bytes, stored| Report {
            job: "a".to_owned(),
            // What is passed over is no reading.
            bytes_done: 100 + 2 * read_bytes,
            read_bytes,
            stored,
            ..Report::default()
        };

        stats.tell(&report(0, 0));
        stats.tell(&report(50, 3));
        stats.end(&report(80, 5));
        stats.tell(&report(10, 1));

        assert_eq!((stats.read_bytes.get(), stats.stored.get()), (90, 6));
        assert_eq!(stats.ended.get(), 1);
        assert_eq!(stats.reports(), (Some(report(10, 1)), Some(report(80, 5))));
    }
}

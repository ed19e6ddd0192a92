//! How far a job is.

use serde::{Deserialize, Serialize};

/// Faults that are told one by one.
pub const MAX_FAULTS: usize = 20;

/// What a job has done and has left to do. It travels over the control socket, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub job: String,
    pub state: JobState,
    pub files_total: u64,
    pub files_done: u64,
    pub bytes_total: u64,
    /// With those that are passed over.
    pub bytes_done: u64,
    /// In this run of the job.
    pub read_bytes: u64,
    /// Rows that were not there.
    pub stored: u64,
    /// Rows that were there already.
    pub known: u64,
    /// Rows that the store refused; they are in quarantine.
    pub refused_rows: u64,
    /// Blocks that are older than what is kept, or not believed.
    pub refused_blocks: u64,
    pub damaged_lines: u64,
    /// Of this run of the job; null before it can be told.
    pub bytes_per_second: Option<u64>,
    pub remaining_ms: Option<u64>,
    /// Files that could not be read to their end, the first [`MAX_FAULTS`].
    pub faults: Vec<String>,
    pub faults_total: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    #[default]
    Waiting,
    Running,
    Done,
    Cancelled,
    /// The store could not go on.
    Failed,
}

/// A job by list that is not done. It is kept in the store, so that whoever writes next does it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PendingState {
    pub job: String,
    /// Null: for the whole list.
    pub users: Option<usize>,
    /// An earlier writer has left it, on this machine or another one.
    pub taken_over: bool,
}

impl Report {
    pub fn note_fault(&mut self, fault: String) {
        self.faults_total += 1;
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault);
        }
    }

    pub fn is_over(&self) -> bool {
        matches!(self.state, JobState::Done | JobState::Cancelled | JobState::Failed)
    }
}

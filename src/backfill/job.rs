//! A job: what was ordered by hand, or is owed by list.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    input::Input,
    report::{JobState, Report},
};
use crate::{event::Address, whitelist::Whitelist};

/// How long a job by list waits that failed; each time twice as long, up to the most.
const FIRST_DELAY: Duration = Duration::from_secs(10);
const MAX_DELAY: Duration = Duration::from_secs(320);

/// What is ordered by hand. The same order is the same job: it goes on where it was cancelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Absolute: files, or directories with hour files below.
    pub paths: Vec<PathBuf>,
    /// `None`: everybody on the whitelist.
    #[serde(default)]
    pub users: Option<Vec<Address>>,
    /// A time of its own instead of the retention.
    #[serde(default)]
    pub keep_ms: Option<u64>,
    /// Cast what is new.
    #[serde(default)]
    pub broadcast: bool,
}

impl Order {
    pub fn keep(&self) -> Option<Duration> {
        self.keep_ms.map(Duration::from_millis)
    }

    /// The name under which its progress is kept. `list`: who is listed, which is part of an order
    /// that names no users. A file that was read for others is not done for who is new.
    pub fn name(&self, list: Option<&Whitelist>) -> String {
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        if let Some(list) = list.filter(|_| self.users.is_none()) {
            text.extend(list.digest().to_le_bytes());
        }
        format!("order-{:016x}", xxh3_64(&text))
    }
}

/// A job.
pub struct Job {
    pub name: String,
    pub what: What,
    /// How often it failed in a row.
    pub failures: u32,
    /// It has not begun, in this run or an earlier one: there is still room in it for others.
    pub is_new: bool,
    /// It does not begin before.
    pub due: Instant,
    cancelled: AtomicBool,
    report: watch::Sender<Report>,
}

pub enum What {
    /// Users were added to the list: the books say which.
    List,
    /// With the list that it was ordered with.
    Order(Order, Vec<Input>, Arc<Whitelist>),
}

impl Job {
    pub fn new(name: String, what: What) -> Self {
        let mut report = Report { job: name.clone(), ..Report::default() };
        if let What::Order(_, inputs, _) = &what {
            report.files_total = inputs.len() as u64;
            report.bytes_total = inputs.iter().map(|input| input.bytes).sum();
        }
        let (report, cancelled) = (watch::Sender::new(report), AtomicBool::new(false));
        Self { name, what, failures: 0, is_new: true, due: Instant::now(), cancelled, report }
    }

    /// One that has begun before, and failed so often since.
    pub fn again(failures: u32, name: String) -> Self {
        let due = Instant::now() + delay(failures);
        Self { failures, is_new: false, due, ..Self::new(name, What::List) }
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// The same order goes on with it.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// How it ended, or how far it is.
    pub fn state(&self) -> JobState {
        self.report.borrow().state
    }

    /// Whether it is to end or has ended.
    pub fn is_over(&self) -> bool {
        self.is_cancelled() || self.report.borrow().is_over()
    }

    pub fn tell(&self, report: &Report) {
        self.report.send_replace(report.clone());
    }

    pub fn follow(&self) -> watch::Receiver<Report> {
        self.report.subscribe()
    }
}

/// The wait behind so many failures.
fn delay(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        failures => FIRST_DELAY.saturating_mul(2_u32.saturating_pow(failures - 1)).min(MAX_DELAY),
    }
}

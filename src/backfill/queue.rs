//! The jobs of a daemon: those that wait and the one that runs.
//!
//! Invariant: a job by list is on the disk before the list counts as known.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use slog::{Logger, error, info};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    input::Input,
    report::{JobState, Report},
    saved::{BY_LIST, Saved},
};
use crate::{
    control::Refusal,
    event::{Address, Timestamp},
    stats::Stats,
    whitelist::{ListChanged, MAX_NAMED, Whitelist},
};

/// Jobs by hand that may wait.
pub const MAX_WAITING: usize = 8;

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
    failures: u32,
    /// It does not begin before.
    due: Instant,
    cancelled: AtomicBool,
    report: watch::Sender<Report>,
}

pub enum What {
    /// Users were added to the list: they are in the state directory.
    List,
    /// With the list that it was ordered with.
    Order(Order, Vec<Input>, Arc<Whitelist>),
}

impl Job {
    fn new(name: String, what: What) -> Arc<Self> {
        Self::after(0, name, what)
    }

    fn after(failures: u32, name: String, what: What) -> Arc<Self> {
        let report = Report { job: name.clone(), ..Report::default() };
        let (report, cancelled) = (watch::Sender::new(report), AtomicBool::new(false));
        let due = Instant::now() + delay(failures);
        Arc::new(Self { name, what, failures, due, cancelled, report })
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
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

/// All jobs; shared by the runner, the control socket and status.
pub struct Backfills {
    state_dir: PathBuf,
    enabled: bool,
    inner: Mutex<Inner>,
    work: Notify,
    stopping: AtomicBool,
    stats: Arc<Stats>,
    logger: Logger,
}

struct Inner {
    waiting: VecDeque<Arc<Job>>,
    running: Option<Arc<Job>>,
    list: Arc<Whitelist>,
}

impl Backfills {
    /// `enabled`: whether users who are added to the list make jobs.
    pub fn new(
        state_dir: PathBuf,
        enabled: bool,
        list: Arc<Whitelist>,
        stats: Arc<Stats>,
        logger: Logger,
    ) -> Arc<Self> {
        let inner = Mutex::new(Inner { waiting: VecDeque::new(), running: None, list });
        let stopping = AtomicBool::new(false);
        Arc::new(Self { state_dir, enabled, inner, work: Notify::new(), stopping, stats, logger })
    }

    /// Takes up the jobs by list of an earlier life.
    pub fn take_up(&self) -> io::Result<()> {
        if self.enabled {
            for name in Saved::list(&self.state_dir)? {
                info!(self.logger, "back-fill goes on"; "job" => &name);
                self.push(&mut self.lock(), Job::new(name, What::List));
            }
        }
        Ok(())
    }

    pub fn list(&self) -> Arc<Whitelist> {
        self.lock().list.clone()
    }

    pub fn replace_list(&self, list: Arc<Whitelist>) {
        self.lock().list = list;
    }

    /// Users were added: one job for all who come before the next one begins.
    ///
    /// # Errors
    /// When the job cannot be kept: then there is none, and the change is to be told again.
    pub fn list_changed(&self, change: &ListChanged) -> io::Result<()> {
        let mut inner = self.lock();
        if !self.enabled || change.added_count == 0 || inner.list.is_all() {
            return Ok(());
        }
        let waits = inner.waiting.iter().find(|job| matches!(job.what, What::List)).cloned();
        // One that began before a restart has its bounds already: it is too late for others.
        let waits = waits.and_then(|job| {
            let saved = Saved::read(&self.state_dir, &job.name).ok()?;
            saved.bounds.is_none().then_some((job.name.clone(), saved))
        });
        let (name, mut saved, is_new) = match waits {
            Some((name, saved)) => (name, saved, false),
            None => {
                let users = Some(Vec::new());
                let name = format!("{BY_LIST}{:020}", Timestamp::now().0);
                (name, Saved { users, ..Saved::default() }, true)
            }
        };
        saved.users = saved.users.filter(|_| !change.is_cut()).map(|known| {
            let all: BTreeSet<Address> =
                known.into_iter().chain(change.added.iter().copied()).collect();
            all.into_iter().collect()
        });
        saved.users = saved.users.filter(|users: &Vec<Address>| users.len() <= MAX_NAMED);
        info!(self.logger, "users were added, their older events are back-filled";
            "job" => &name, "users" => change.added_count);
        if let Err(error) = saved.write(&self.state_dir, &name) {
            error!(self.logger, "back-fill of added users cannot be kept, it is tried again later";
                "job" => &name, "error" => %error);
            return Err(error);
        }
        if is_new {
            self.push(&mut inner, Job::new(name, What::List));
        }
        Ok(())
    }

    /// Takes an order.
    ///
    /// # Errors
    /// When too many wait, or the same one is there.
    pub async fn submit(&self, order: Order, inputs: Vec<Input>) -> Result<Arc<Job>, Refusal> {
        let list = self.list();
        // It walks over the list, which may be a long one.
        let (asked, listed) = (order.clone(), list.clone());
        let name = actix_rt::task::spawn_blocking(move || asked.name(Some(&listed)));
        let name = name.await.map_err(|error| Refusal::new("stopping", error.to_string()))?;
        let mut inner = self.lock();
        // One that is about to end is no hindrance: the next one begins when it has.
        let is_alive = |job: &Job| !job.is_cancelled() && !job.report.borrow().is_over();
        let mut others = inner.running.iter().chain(&inner.waiting);
        if others.any(|job| job.name == name && is_alive(job)) {
            let text = "the same back-fill is under way, see /v1/status".to_owned();
            return Err(Refusal::new("busy", text));
        }
        if inner.waiting.len() >= MAX_WAITING {
            return Err(Refusal::new("busy", format!("{MAX_WAITING} back-fills wait already")));
        }
        let job = Job::new(name, What::Order(order, inputs, list));
        self.push(&mut inner, job.clone());
        Ok(job)
    }

    /// Ends a job; the same order goes on with it.
    pub fn cancel(&self, job: &Arc<Job>) {
        job.cancelled.store(true, Ordering::Relaxed);
        let mut inner = self.lock();
        inner.waiting.retain(|other| !Arc::ptr_eq(other, job));
        self.count(&inner);
    }

    /// Waits for the next job; it runs until [`Self::finished`].
    pub async fn next(&self) -> Arc<Job> {
        loop {
            let work = self.work.notified();
            let next_due = match self.begin() {
                Ok(job) => return job,
                Err(next_due) => next_due,
            };
            match next_due {
                // It is time for that one, or there is another one.
                Some(due) => drop(timeout_at(due, work).await),
                None => work.await,
            }
        }
    }

    /// Begins the first job that is due, or gives when there is one.
    fn begin(&self) -> Result<Arc<Job>, Option<Instant>> {
        if self.is_stopping() {
            return Err(None);
        }
        let mut inner = self.lock();
        let now = Instant::now();
        let due = inner.waiting.iter().position(|job| job.due <= now);
        let Some(job) = due.and_then(|at| inner.waiting.remove(at)) else {
            return Err(inner.waiting.iter().map(|job| job.due).min());
        };
        inner.running = Some(job.clone());
        self.count(&inner);
        Ok(job)
    }

    /// The job that ran has ended. One by list whose store failed comes again, after a while in which
    /// others can run.
    pub fn finished(&self) {
        let mut inner = self.lock();
        let failed = inner.running.take().filter(|job| {
            matches!(job.what, What::List) && job.report.borrow().state == JobState::Failed
        });
        match failed {
            Some(job) => {
                let again = Job::after(job.failures + 1, job.name.clone(), What::List);
                self.push(&mut inner, again);
            }
            None => self.count(&inner),
        }
    }

    /// The daemon stops: the job that runs ends where it is.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn push(&self, inner: &mut Inner, job: Arc<Job>) {
        inner.waiting.push_back(job);
        self.count(inner);
        self.work.notify_one();
    }

    fn count(&self, inner: &Inner) {
        self.stats.backfill.waiting.set(inner.waiting.len() as i64);
        self.stats.backfill.running.set(i64::from(inner.running.is_some()));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete before a panic could happen.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

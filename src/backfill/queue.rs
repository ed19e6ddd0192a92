//! The jobs of a daemon: those that wait and the one that runs.
//!
//! Invariant: a job by list is in the books before the list counts as known, and leaves them when it
//! is done.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use slog::{Logger, debug, error, info, warn};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

use super::{
    books::{Books, Owed, absorb, name_behind, owed},
    input::Input,
    job::{Job, Order, What},
    report::{JobState, PendingState},
    saved::Saved,
};
use crate::{
    control::Refusal,
    event::{Address, Timestamp},
    stats::Stats,
    store::{Pending, PendingJob, StoreError},
    whitelist::{ListNews, MAX_NAMED, Whitelist},
};

/// Jobs by hand that may wait.
pub const MAX_WAITING: usize = 8;

/// How long after a failure the books are written again; each time twice as long, up to the most.
const BOOKS_DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// All jobs; shared by the runner, the control socket and status.
pub struct Backfills {
    state_dir: PathBuf,
    enabled: bool,
    books: Arc<dyn Books>,
    /// Held while the books are written, so that one writing follows the other, and while a job
    /// begins: nobody is added to it then.
    turn: tokio::sync::Mutex<()>,
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
    /// What the books say; `None` before they were read.
    pending: Option<Pending>,
    /// The names of jobs that an earlier writer has left.
    taken_over: Vec<String>,
    /// Whether it was said that the books cannot be written.
    is_unkept: bool,
}

impl Backfills {
    /// `enabled`: whether users who are added to the list make jobs.
    pub fn new(
        state_dir: PathBuf,
        enabled: bool,
        books: Arc<dyn Books>,
        list: Arc<Whitelist>,
        stats: Arc<Stats>,
        logger: Logger,
    ) -> Arc<Self> {
        let inner = Mutex::new(Inner {
            waiting: VecDeque::new(),
            running: None,
            list,
            pending: None,
            taken_over: Vec::new(),
            is_unkept: false,
        });
        let (turn, work) = (tokio::sync::Mutex::default(), Notify::new());
        let stopping = AtomicBool::new(false);
        Arc::new(Self { state_dir, enabled, books, turn, inner, work, stopping, stats, logger })
    }

    /// What the books say. They are read once: nobody else writes them while the lease is ours. The
    /// jobs that an earlier writer has left, on this machine or another one, are taken up then.
    async fn read_books(&self) -> Result<Pending, StoreError> {
        if let Some(pending) = self.lock().pending.clone() {
            return Ok(pending);
        }
        let mut pending = self.books.load().await?;
        if absorb(&mut pending, None) > 0 {
            self.books.save(&pending).await?;
        }
        self.forget_others(&pending);
        let mut inner = self.lock();
        for job in &pending.jobs {
            inner.taken_over.push(job.name.clone());
            if self.enabled {
                let users = job.users.as_ref().map(Vec::len);
                info!(self.logger, "back-fill of an earlier writer is taken up";
                    "job" => &job.name, "users" => users);
                self.push(&mut inner, Job::again(0, job.name.clone()).into());
            }
        }
        self.note_pending(&mut inner, pending.clone());
        Ok(pending)
    }

    /// Forgets the progress of jobs that are owed no more.
    fn forget_others(&self, pending: &Pending) {
        if let Err(error) = Saved::forget_others(&self.state_dir, pending) {
            warn!(self.logger, "the progress of back-fills that are done stays in the state directory";
                "error" => %error);
        }
    }

    fn note_pending(&self, inner: &mut Inner, pending: Pending) {
        let state = |job: &PendingJob| PendingState {
            job: job.name.clone(),
            users: job.users.as_ref().map(Vec::len),
            taken_over: inner.taken_over.contains(&job.name),
        };
        self.stats.backfill.set_pending(pending.jobs.iter().map(state).collect());
        inner.pending = Some(pending);
    }

    /// For whom a job by list is: `None`, for everybody on it.
    pub fn users(&self, name: &str) -> Option<Vec<Address>> {
        let inner = self.lock();
        let jobs = inner.pending.iter().flat_map(|pending| &pending.jobs);
        jobs.into_iter().find(|job| job.name == name)?.users.clone()
    }

    pub fn list(&self) -> Arc<Whitelist> {
        self.lock().list.clone()
    }

    pub fn replace_list(&self, list: Arc<Whitelist>) {
        self.lock().list = list;
    }

    /// The list is another one: there is one job for all who come before the next one begins.
    ///
    /// # Errors
    /// When the books cannot be written: then there is no job, and the news are to be told again.
    pub async fn list_changed(&self, news: &ListNews) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let kept = self.keep(news).await;
        let mut inner = self.lock();
        let was_unkept = std::mem::replace(&mut inner.is_unkept, kept.is_err());
        match &kept {
            Err(error) if !was_unkept => {
                error!(self.logger, "what is to be back-filled cannot be kept, it is tried again until it can";
                    "error" => %error);
            }
            Err(error) => {
                debug!(self.logger, "what is to be back-filled cannot be kept yet"; "error" => %error);
            }
            Ok(()) if was_unkept => info!(self.logger, "what is to be back-filled is kept again"),
            Ok(()) => {}
        }
        kept
    }

    async fn keep(&self, news: &ListNews) -> Result<(), StoreError> {
        let old = self.read_books().await?;
        let now = news.list.mark();
        let owed = match self.enabled {
            true => owed(old.list, now, news),
            false => Owed::Nothing,
        };
        let is_unknown = owed == Owed::Unknown;
        let users = match owed {
            Owed::Nothing => None,
            Owed::Users(users) => Some(Some(users)),
            Owed::Everybody | Owed::Unknown => Some(None),
        };
        let mut new = Pending { list: Some(now), ..old.clone() };
        let job = users.map(|users| self.enter(&mut new, users));
        let running = self.lock().running.clone();
        let absorbed = absorb(&mut new, running.as_ref().map(|job| job.name.as_str()));
        if new != old {
            self.books.save(&new).await?;
        }
        if absorbed > 0 {
            self.forget_others(&new);
        }
        let mut inner = self.lock();
        inner.waiting.retain(|job| {
            matches!(job.what, What::Order(..)) || new.jobs.iter().any(|owed| owed.name == job.name)
        });
        self.note_pending(&mut inner, new);
        self.count(&inner);
        let Some((name, is_new)) = job else { return Ok(()) };
        if absorbed > 0 {
            info!(self.logger, "a back-fill of the whole list takes in those that wait";
                "job" => &name, "absorbed" => absorbed);
        }
        match is_unknown {
            true => {
                info!(self.logger, "the last writer knew another list, and this machine does not know \
                who has come since: the whole list is back-filled"; "job" => &name)
            }
            false => info!(self.logger, "users were added, their older events are back-filled";
                "job" => &name, "users" => news.change.added_count),
        }
        if is_new {
            self.push(&mut inner, Job::new(name, What::List).into());
        }
        Ok(())
    }

    /// Enters users into the job that has room for them, or into a new one. Gives its name, and
    /// whether it is new.
    fn enter(&self, pending: &mut Pending, users: Option<Vec<Address>>) -> (String, bool) {
        let inner = self.lock();
        // One that has begun has its bounds already: it is too late for others.
        let with_room = |job: &&Arc<Job>| matches!(job.what, What::List) && job.is_new;
        let waits = inner.waiting.iter().find(with_room).map(|job| &job.name);
        let known = pending.jobs.iter_mut().find(|job| Some(&job.name) == waits);
        let Some(job) = known else {
            let name = name_behind(&pending.jobs, Timestamp::now());
            pending.jobs.push(PendingJob { name: name.clone(), users });
            return (name, true);
        };
        job.users = job.users.take().zip(users).map(|(mut all, more)| {
            all.extend(more);
            all.sort_unstable();
            all.dedup();
            all
        });
        job.users.take_if(|users| users.len() > MAX_NAMED);
        (job.name.clone(), false)
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
        let mut others = inner.running.iter().chain(&inner.waiting);
        if others.any(|job| job.name == name && !job.is_over()) {
            let text = "the same back-fill is under way, see /v1/status".to_owned();
            return Err(Refusal::new("busy", text));
        }
        // Those by list are no more than one for the whole list and a few for named users, and
        // nobody can do anything about them.
        let by_hand = inner.waiting.iter().filter(|job| matches!(job.what, What::Order(..)));
        if by_hand.count() >= MAX_WAITING {
            let text = format!("{MAX_WAITING} back-fills given by hand wait already");
            return Err(Refusal::new("busy", text));
        }
        let job = Arc::new(Job::new(name, What::Order(order, inputs, list)));
        self.push(&mut inner, job.clone());
        Ok(job)
    }

    /// Ends a job; the same order goes on with it.
    pub fn cancel(&self, job: &Arc<Job>) {
        job.cancel();
        let mut inner = self.lock();
        inner.waiting.retain(|other| !Arc::ptr_eq(other, job));
        self.count(&inner);
    }

    /// Waits for the next job; it runs until [`Self::finished`].
    pub async fn next(&self) -> Arc<Job> {
        loop {
            let work = self.work.notified();
            let begun = {
                let _turn = self.turn.lock().await;
                self.begin()
            };
            let next_due = match begun {
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

    /// The job that ran has ended. One by list leaves the books when it is done, and comes again when
    /// it failed, after a while in which others can run.
    pub async fn finished(&self) {
        let Some(job) = self.lock().running.clone() else { return };
        let state = job.state();
        let is_by_list = matches!(job.what, What::List);
        if is_by_list && state == JobState::Done {
            self.strike_out(&job.name).await;
        }
        let mut inner = self.lock();
        inner.running = None;
        match is_by_list && state == JobState::Failed {
            true => {
                let again = Job::again(job.failures + 1, job.name.clone());
                self.push(&mut inner, again.into());
            }
            false => self.count(&inner),
        }
    }

    /// Takes a job out of the books. If the daemon stops before that is done, the next one does it
    /// again, which changes nothing.
    async fn strike_out(&self, name: &str) {
        let mut pause = BOOKS_DELAY.0;
        loop {
            let struck = {
                let _turn = self.turn.lock().await;
                self.save_without(name).await
            };
            let Err(error) = struck else { return };
            if self.is_stopping() {
                return;
            }
            if pause == BOOKS_DELAY.0 {
                warn!(self.logger, "that a back-fill is done cannot be kept, it is tried again";
                    "job" => name, "error" => %error);
            }
            sleep(pause).await;
            pause = (2 * pause).min(BOOKS_DELAY.1);
        }
    }

    async fn save_without(&self, name: &str) -> Result<(), StoreError> {
        let mut pending = self.read_books().await?;
        pending.jobs.retain(|job| job.name != name);
        self.books.save(&pending).await?;
        self.note_pending(&mut self.lock(), pending);
        Ok(())
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

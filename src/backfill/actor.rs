//! Runs the jobs of a daemon, one after the other, on a thread that gives way to all others.
//!
//! Place: told of new lists by `WhitelistKeeper`; asks filters, Router and `DbWriter` where the
//! pipeline stands; rows go to `DbWriter`, or through the Router where they are to be cast.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use actix::prelude::*;
use async_trait::async_trait;
use slog::{Logger, debug, error, info, o, warn};

use super::{
    input::{self, Input},
    job::{Job, What},
    pass::Pass,
    queue::Backfills,
    report::{JobState, Report},
    run::{Keeping, Pace, run},
    saved::Saved,
    scope::{self, Scope, Users},
    sink::{Sink, SinkError, Tally},
};
use crate::{
    config::Config,
    event::{Event, Timestamp},
    roll_call::RollCall,
    router::{CastLate, Router, log::Log},
    source::{Budget, Horizon, StreamCheckpoint},
    stats::Stats,
    store::{Backfill, DbWriter, GetCheckpoints, Setting, StoreError, Stored},
    whitelist::{ListNews, ReplaceWhitelist},
};

/// The lowest priority of a thread. Its share of the disk follows from it.
const NICE: i32 = 19;

/// Wait before a portion is offered again that was postponed.
const POSTPONED: Duration = Duration::from_millis(50);

/// Wait before a store that is away is asked again.
const AWAY: Duration = Duration::from_secs(1);

/// Time between two looks whether the log is committed.
const COMMIT_CHECK: Duration = Duration::from_millis(20);

/// What the runner works with.
pub struct Parts {
    pub backfills: Arc<Backfills>,
    pub writer: Addr<DbWriter>,
    pub router: Addr<Router>,
    /// The filters of all chains.
    pub filters: Vec<Recipient<RollCall>>,
    /// Of what is cast.
    pub budget: Arc<Budget>,
    pub log: Arc<Log>,
    pub horizon: Arc<Horizon>,
    pub stats: Arc<Stats>,
    pub config: Config,
    pub logger: Logger,
}

/// The actor.
pub struct Backfiller {
    backfills: Arc<Backfills>,
    /// Until it is started.
    runner: Option<Runner>,
    logger: Logger,
}

struct Runner(Parts);

impl Backfiller {
    pub fn new(parts: Parts) -> Self {
        let logger = parts.logger.new(o!("actor" => "backfiller"));
        let backfills = parts.backfills.clone();
        let parts = Parts { logger: logger.clone(), ..parts };
        Self { backfills, runner: Some(Runner(parts)), logger }
    }
}

impl Runner {
    /// The first job comes with the first news of the list, by which the books are read.
    async fn run(self) {
        loop {
            let job = self.0.backfills.next().await;
            let ended = match self.saved(&job.name) {
                Ok(mut saved) => self.run_job(&job, &mut saved).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                if job.failures == 0 {
                    error!(self.0.logger, "back-fill failed: its state cannot be kept, it is tried again";
                        "job" => &job.name, "error" => %error);
                } else {
                    debug!(self.0.logger, "back-fill failed again"; "job" => &job.name,
                        "failures" => job.failures, "error" => %error);
                }
                let mut report = job.follow().borrow().clone();
                report.state = JobState::Failed;
                report.note_fault(format!("the state directory: {error}"));
                job.tell(&report);
                self.0.stats.backfill.end(&report);
            }
            self.0.backfills.finished().await;
        }
    }

    /// Says once that the store is away.
    fn say_away(&self, said: &mut bool, error: &StoreError) {
        say_away(&self.0.logger, said, error);
    }

    /// How far a job is. What cannot be understood is begun anew.
    fn saved(&self, name: &str) -> io::Result<Saved> {
        let state_dir = &self.0.config.state_dir;
        match Saved::read(state_dir, name) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let aside = Saved::put_aside(state_dir, name)?;
                error!(self.0.logger, "the state of a back-fill cannot be understood, it begins anew";
                    "job" => name, "error" => %error, "kept_as" => %aside.display());
                Ok(Saved::default())
            }
            read => read,
        }
    }

    async fn run_job(&self, job: &Job, saved: &mut Saved) -> io::Result<()> {
        let parts = &self.0;
        let (inputs, users, setting, broadcast) = match &job.what {
            What::List => {
                let Some(inputs) = self.inputs_of_list(job, saved).await? else { return Ok(()) };
                let list = parts.backfills.list();
                let users = match parts.backfills.users(&job.name) {
                    // Who has left the list since is not stored any more.
                    Some(users) => Users::NamedAndListed(users.into_iter().collect(), list),
                    None => Users::Listed(list),
                };
                (inputs, users, Setting::default(), false)
            }
            What::Order(order, inputs, list) => {
                let users = match &order.users {
                    Some(users) => Users::Named(users.iter().copied().collect()),
                    None => Users::Listed(list.clone()),
                };
                (inputs.clone(), users, Setting { keep: order.keep() }, order.broadcast)
            }
        };
        let now = Timestamp::now();
        // Not that of the start: a reload may have changed it.
        let retention = parts.horizon.retention();
        let scope = Scope {
            users,
            edge: scope::edge(parts.horizon.newest(), now, retention, setting.keep),
            height: parts.log.heads().positions.iter().map(|head| head.1).max(),
            max_line_bytes: parts.config.source.max_line_bytes,
        };
        let report = Report {
            job: job.name.clone(),
            files_total: inputs.len() as u64,
            bytes_total: inputs.iter().map(|input| input.bytes).sum(),
            ..Report::default()
        };
        info!(parts.logger, "back-fill begins"; "job" => &job.name, "files" => report.files_total,
            "bytes" => report.bytes_total, "users" => ?scope.users);
        let place = saved.place.take();
        let pass = Pass::new(scope, inputs, &saved.done, place);
        let mut sink = DaemonSink { parts, job, setting, broadcast };
        let pace = Pace { max_bytes_per_second: parts.config.backfill.max_bytes_per_second };
        let keeping = Keeping { state_dir: &parts.config.state_dir, name: &job.name };
        let mut tell = |report: &Report| {
            job.tell(report);
            parts.stats.backfill.tell(report);
        };
        let report = run(pass, saved, keeping, &mut sink, pace, report, &mut tell).await?;
        parts.stats.backfill.end(&report);
        info!(parts.logger, "back-fill ended"; "job" => &job.name, "state" => ?report.state,
            "stored" => report.stored, "known" => report.known,
            "refused_blocks" => report.refused_blocks);
        for fault in &report.faults {
            if job.failures == 0 {
                warn!(parts.logger, "back-fill met a fault"; "job" => &job.name, "error" => fault);
            } else {
                debug!(parts.logger, "back-fill met a fault again"; "job" => &job.name,
                    "failures" => job.failures, "error" => fault);
            }
        }
        Ok(())
    }

    /// The files of a job by list, up to where the chains had read them when they got the list.
    /// `None` when the daemon stops.
    async fn inputs_of_list(&self, job: &Job, saved: &mut Saved) -> io::Result<Option<Vec<Input>>> {
        if saved.bounds.is_none() {
            let Some(checkpoints) = self.checkpoints().await else { return Ok(None) };
            let inputs = input::below(&checkpoints, &self.0.config.source.data_dirs);
            saved.bounds =
                Some(inputs.into_iter().map(|input| (input.path, input.bytes)).collect());
            saved.write(&self.0.config.state_dir, &job.name)?;
        }
        Ok(saved.bounds.as_ref().map(|bounds: &Vec<(PathBuf, u64)>| input::bounded(bounds)))
    }

    /// Waits until everything is committed that was filtered before every filter had its present
    /// list, and reads the checkpoints then.
    async fn checkpoints(&self) -> Option<Vec<StreamCheckpoint>> {
        let parts = &self.0;
        // Their mailboxes hold the new list before this.
        for filter in &parts.filters {
            filter.send(RollCall).await.ok()?;
        }
        parts.router.send(RollCall).await.ok()?;
        let next = parts.log.state().next;
        while parts.log.state().committed < next {
            if parts.backfills.is_stopping() {
                return None;
            }
            actix_rt::time::sleep(COMMIT_CHECK).await;
        }
        let mut said = false;
        loop {
            match parts.writer.send(GetCheckpoints).await.ok()? {
                Ok(checkpoints) => return Some(checkpoints),
                Err(error) => {
                    self.say_away(&mut said, &error);
                    if parts.backfills.is_stopping() {
                        return None;
                    }
                    actix_rt::time::sleep(AWAY).await;
                }
            }
        }
    }
}

/// Says once that the store is away, and then in detail.
fn say_away(logger: &Logger, said: &mut bool, error: &StoreError) {
    if !std::mem::replace(said, true) {
        warn!(logger, "back-fill waits for the store"; "error" => %error);
    } else {
        debug!(logger, "back-fill still waits for the store"; "error" => %error);
    }
}

/// Gives portions to the daemon's writer, when it has time for them.
struct DaemonSink<'p> {
    parts: &'p Parts,
    job: &'p Job,
    setting: Setting,
    broadcast: bool,
}

impl DaemonSink<'_> {
    fn go_on(&self) -> Result<(), SinkError> {
        if self.parts.backfills.is_stopping() {
            Err(SinkError::Stopping)
        } else if self.job.is_cancelled() {
            Err(SinkError::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Has events cast that are new, and waits until they are stored. Gives how many they were.
    async fn cast(&self, events: &[Event]) -> Result<u64, SinkError> {
        let parts = self.parts;
        let mut by_topic: Vec<Event> = events.to_vec();
        by_topic.sort_by_key(|event| event.id);
        let mut new = 0;
        for events in by_topic.chunk_by(|one, other| one.id.topic == other.id.topic) {
            loop {
                self.go_on()?;
                let generation = parts.stats.router.generations.get();
                let cast = CastLate { events: events.to_vec(), budget: parts.budget.clone() };
                let cast = parts.router.send(cast).await.map_err(|_| SinkError::Stopping)?;
                while parts.budget.in_flight_batches() > 0 {
                    if parts.backfills.is_stopping() {
                        return Err(SinkError::Stopping);
                    }
                    actix_rt::time::sleep(COMMIT_CHECK).await;
                }
                new += cast as u64;
                // Else the pipeline went back to its checkpoints, and may have lost them.
                if parts.stats.router.generations.get() == generation {
                    break;
                }
            }
        }
        Ok(new)
    }
}

#[async_trait(?Send)]
impl Sink for DaemonSink<'_> {
    async fn store(&mut self, events: Vec<Event>) -> Result<Tally, SinkError> {
        let mut tally = Tally::default();
        if self.broadcast {
            let new = self.cast(&events).await?;
            tally =
                Tally { stored: new, known: (events.len() as u64).saturating_sub(new), refused: 0 };
            if self.setting.keep.is_none() {
                return Ok(tally);
            }
            // They are stored; their days are still to be kept.
        }
        let mut said = false;
        loop {
            self.go_on()?;
            let message = Backfill { events: events.clone(), setting: self.setting };
            match self.parts.writer.send(message).await.map_err(|_| SinkError::Stopping)? {
                Ok(Stored::Done(_)) if self.broadcast => return Ok(tally),
                Ok(Stored::Done(done)) => {
                    let (stored, known) = (done.inserted as u64, done.known as u64);
                    return Ok(Tally { stored, known, refused: done.refused.len() as u64 });
                }
                Ok(Stored::Postponed(_)) => actix_rt::time::sleep(POSTPONED).await,
                Err(_) if self.parts.backfills.is_stopping() => return Err(SinkError::Stopping),
                Err(error @ StoreError::Unavailable(_)) => {
                    say_away(&self.parts.logger, &mut said, &error);
                    actix_rt::time::sleep(AWAY).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn between(&mut self) -> Result<(), SinkError> {
        self.go_on()
    }
}

impl Actor for Backfiller {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Of this thread alone, as Linux has it.
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            warn!(self.logger, "back-fill runs with full priority"; "error" => %error);
        }
        if let Some(runner) = self.runner.take() {
            ctx.spawn(runner.run().into_actor(self));
        }
    }
}

impl Handler<ReplaceWhitelist> for Backfiller {
    type Result = ();

    fn handle(&mut self, message: ReplaceWhitelist, _ctx: &mut Self::Context) {
        self.backfills.replace_list(message.0);
    }
}

impl Handler<ListNews> for Backfiller {
    type Result = ResponseFuture<io::Result<()>>;

    fn handle(&mut self, news: ListNews, _ctx: &mut Self::Context) -> Self::Result {
        let backfills = self.backfills.clone();
        Box::pin(async move { backfills.list_changed(&news).await.map_err(io::Error::other) })
    }
}

//! Follows the hour files of one node directory and hands on their whole lines.
//!
//! Place in the pipeline: **`FileWatcher`** -> `Parser`, one per node directory, on one thread.
//! Invariants: inotify wakes and a timer decides; at most the budget's bytes are in flight; the
//! baseline of a new stream is committed before anything of it is read; after [`StopReading`] no
//! batch leaves. Which streams there are is found out in `discover`; here they are read by turns.

mod discover;
mod watched;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use actix::{fut::wrap_future, prelude::*};
use inotify::EventOwned;
use slog::{Logger, debug, info, o, warn};

use self::watched::Watched;
use super::{
    follow::Batch,
    layout::{self, HourFile},
    wake::{Hint, Wakeups},
};
use crate::{
    config::SourceConfig,
    event::Timestamp,
    fail_point,
    roll_call::RollCall,
    source::{
        Budget, CreditReturned, FileMark, RawBatch, Stream, StreamCheckpoint,
        quarantine::Quarantine,
    },
    stats::Stats,
};

/// A new life of the pipeline: forget everything and go on from these checkpoints.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Restart {
    pub generation: u64,
    pub checkpoints: Vec<StreamCheckpoint>,
}

/// The daemon stops. Answered when no further batch will be sent.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct StopReading;

/// Follows the streams of one node directory by turns.
pub struct FileWatcher {
    node: PathBuf,
    config: SourceConfig,
    generation: u64,
    checkpoints: HashMap<Arc<str>, StreamCheckpoint>,
    /// Baselines of this run. One that is lost before its commit is chosen again as it was:
    /// a later "now" would skip what was written in between.
    baselines: HashMap<Arc<str>, Vec<FileMark>>,
    /// Where streams begin that were never read before, as another program left them.
    imported: HashMap<Arc<str>, (HourFile, u64)>,
    streams: Vec<Watched>,
    /// The stream that reads next.
    turn: usize,
    /// Whether the node directory was looked at before: kinds that appear later begin at 0.
    looked: bool,
    /// A continuation is under way, so that hints do not start a second one.
    continuing: bool,
    stopped: bool,
    /// Off in tests of the timer.
    use_inotify: bool,
    /// `None` where inotify cannot be had: the timer alone works too.
    wakeups: Option<Wakeups>,
    budget: Arc<Budget>,
    next: Recipient<RawBatch>,
    quarantine: Option<Arc<Quarantine>>,
    stats: Arc<Stats>,
    /// What is wrong with the node directory, as it was last said.
    problem: Option<String>,
    /// Plain directories that were refused; each is said once.
    refused: Vec<Arc<Stream>>,
    log: Logger,
}

impl FileWatcher {
    #[expect(clippy::too_many_arguments, reason = "the wiring names each of them once")]
    pub fn new(
        node: &Path,
        config: &SourceConfig,
        checkpoints: Vec<StreamCheckpoint>,
        generation: u64,
        budget: Arc<Budget>,
        next: Recipient<RawBatch>,
        stats: Arc<Stats>,
        log: &Logger,
    ) -> Self {
        Self {
            node: node.to_owned(),
            config: config.clone(),
            generation,
            checkpoints: by_name(checkpoints),
            baselines: HashMap::new(),
            imported: HashMap::new(),
            streams: Vec::new(),
            turn: 0,
            looked: false,
            continuing: false,
            stopped: false,
            use_inotify: true,
            wakeups: None,
            budget,
            next,
            quarantine: None,
            stats,
            problem: None,
            refused: Vec::new(),
            log: log.new(o!("actor" => "file_watcher", "node" => node.display().to_string())),
        }
    }

    /// Begins these streams, unless they have a checkpoint, at a place in a file.
    pub fn with_imported(mut self, imported: HashMap<Arc<str>, (HourFile, u64)>) -> Self {
        self.imported = imported;
        self
    }

    /// Keeps the heads of over-long lines here.
    pub fn with_quarantine(mut self, quarantine: Arc<Quarantine>) -> Self {
        self.quarantine = Some(quarantine);
        self
    }

    /// Asks inotify for wake-ups.
    fn listen(&mut self, ctx: &mut Context<Self>) {
        if !self.use_inotify {
            return;
        }
        match Wakeups::new() {
            Ok((wakeups, events)) => {
                self.wakeups = Some(wakeups);
                ctx.add_stream(events);
            }
            Err(error) => {
                warn!(self.log, "inotify is not available, the timer goes on alone"; "error" => %error);
            }
        }
    }

    /// Runs with inotify while it works; without it the timer goes on alone.
    fn watch(&mut self, set: impl FnOnce(&mut Wakeups, &Path) -> io::Result<()>) {
        let Some(wakeups) = &mut self.wakeups else { return };
        if let Err(error) = set(wakeups, &self.node) {
            warn!(self.log, "inotify refuses a watch, the timer goes on alone"; "error" => %error);
            self.wakeups = None;
        }
    }

    /// Hands on one batch of each stream that has one, then lets other messages through.
    fn read_on(&mut self, ctx: &mut Context<Self>) {
        self.continuing = false;
        if self.stopped {
            return;
        }
        let now = Instant::now();
        for _ in 0..self.streams.len() {
            if !self.has_room() {
                return;
            }
            self.turn = (self.turn + 1) % self.streams.len();
            let stream = self.turn;
            // A stream without its baseline in the store waits alone: a kind that appears while the
            // store is away stops no other.
            if self.streams[stream].may_read()
                && let Some(batch) = self.streams[stream].follower.next_batch(now)
            {
                self.send(stream, batch);
            }
            let watched = &mut self.streams[stream];
            watched.set_oversized_aside(self.quarantine.as_deref(), &self.log);
            watched.tell_changes(&self.log);
            watched.note_problem(&self.log);
        }
        // A stream whose baseline is under way has no work; the return of its credit wakes us.
        if self.has_work() {
            self.continuing = true;
            ctx.spawn(
                wrap_future::<_, Self>(tokio::task::yield_now())
                    .map(|(), watcher, ctx| watcher.read_on(ctx)),
            );
        }
    }

    /// Reads on unless that is under way.
    fn wake(&mut self, ctx: &mut Context<Self>) {
        if !self.continuing {
            self.read_on(ctx);
        }
    }

    fn has_work(&self) -> bool {
        self.streams.iter().any(|watched| watched.follower.has_work())
    }

    fn has_room(&self) -> bool {
        if self.budget.has_room() {
            return true;
        }
        self.budget.wait();
        // What came back just before sends no message.
        self.budget.has_room()
    }

    fn send(&mut self, stream: usize, batch: Batch) {
        let watched = &mut self.streams[stream];
        let is_baseline = watched.follower.awaits_commit();
        let budget =
            if is_baseline { watched.baseline.insert(self.budget.sibling()) } else { &self.budget };
        let credit = budget.take(batch.lines.len(), self.generation);
        let batch = RawBatch {
            stream: watched.follower.stream().clone(),
            generation: self.generation,
            file: batch.file,
            offset: batch.offset,
            credit,
            lines: batch.lines,
            marks: batch.marks,
            resume: watched.resume.take(),
            discontinuity: batch.discontinuity,
            read_at: Timestamp::now(),
        };
        if batch.discontinuity {
            warn!(self.log, "unread bytes are lost"; "stream" => %batch.stream.name, "path" => &*batch.file);
        }
        debug!(self.log, "batch read"; "path" => &*batch.file, "offset_bytes" => batch.offset,
            "bytes" => batch.lines.len());
        fail_point!("watcher.send");
        self.next.do_send(batch);
        if is_baseline {
            fail_point!("watcher.baseline");
        }
    }
}

fn by_name(checkpoints: Vec<StreamCheckpoint>) -> HashMap<Arc<str>, StreamCheckpoint> {
    checkpoints.into_iter().map(|checkpoint| (checkpoint.name.clone(), checkpoint)).collect()
}

impl Actor for FileWatcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.budget.wake_with(ctx.address().recipient());
        if self.config.create_missing
            && let Err(error) = layout::create_missing(&self.node)
        {
            warn!(self.log, "directories cannot be created"; "error" => %error);
        }
        self.listen(ctx);
        self.rescan();
        self.read_on(ctx);
        ctx.run_interval(self.config.rescan_interval, |watcher, ctx| {
            watcher.rescan();
            watcher.wake(ctx);
        });
    }
}

/// A wake-up by inotify.
impl StreamHandler<io::Result<EventOwned>> for FileWatcher {
    fn handle(&mut self, event: io::Result<EventOwned>, ctx: &mut Self::Context) {
        fail_point!("watcher.handle");
        let Some(wakeups) = &mut self.wakeups else { return };
        match event.map(|event| wakeups.read(&event)) {
            Ok(None) => return,
            Ok(Some(Hint::File { stream, file })) => {
                let open = |watched: &mut Watched| watched.follower.wake(file);
                if !self.streams.get_mut(stream).is_some_and(open) {
                    self.rescan_stream(stream);
                }
            }
            Ok(Some(Hint::Stream { stream })) => self.rescan_stream(stream),
            Ok(Some(Hint::Everything)) => self.rescan(),
            Err(error) => {
                warn!(self.log, "inotify failed, the timer goes on alone"; "error" => %error);
                self.wakeups = None;
            }
        }
        self.wake(ctx);
    }

    fn finished(&mut self, _ctx: &mut Self::Context) {
        // The default would stop the actor; the timer goes on.
        self.wakeups = None;
    }
}

impl Handler<CreditReturned> for FileWatcher {
    type Result = ();

    fn handle(&mut self, _: CreditReturned, ctx: &mut Self::Context) {
        self.wake(ctx);
    }
}

impl Handler<Restart> for FileWatcher {
    type Result = ();

    fn handle(&mut self, restart: Restart, ctx: &mut Self::Context) {
        info!(self.log, "pipeline starts anew"; "generation" => restart.generation);
        self.generation = restart.generation;
        self.checkpoints = by_name(restart.checkpoints);
        for stream in 0..self.streams.len() {
            let Watched { follower, stats, start, .. } = &self.streams[stream];
            let begun = self.begin(follower.stream().clone(), stats.clone(), *start);
            self.streams[stream] = begun;
        }
        self.rescan();
        self.wake(ctx);
    }
}

impl Handler<StopReading> for FileWatcher {
    type Result = ();

    fn handle(&mut self, _: StopReading, _ctx: &mut Self::Context) {
        self.stopped = true;
    }
}

impl Handler<RollCall> for FileWatcher {
    type Result = ();

    fn handle(&mut self, _: RollCall, _ctx: &mut Self::Context) {}
}

#[cfg(test)]
mod tests;

//! Tells the service manager what the daemon does, and feeds its watchdog while every stage of the
//! pipeline answers.
//!
//! Place: beside the pipeline, on the main thread. It speaks the protocol of `sd_notify`; without
//! `NOTIFY_SOCKET` nothing is said, without `WATCHDOG_USEC` nobody is asked.
//! Invariants: one stage that is silent is enough for no food; waiting is alive. A stage without
//! data answers at once. One that waits for the store cannot answer before the store does; it is
//! alive while its thread turns, however long the outage. So is one whose answer is late, up to
//! half of the watchdog's period: a commit on a slow disk occupies its thread.

use std::{future::Future, sync::Arc, time::Duration};

use actix::prelude::*;
use futures_util::future::{LocalBoxFuture, join_all};
use sd_notify::NotifyState;
use slog::{Logger, error, info, o, warn};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{delivery::SessionSet, event::Timestamp, roll_call::RollCall, stats::Stats};

/// Questions in one period of the watchdog: a round that is late spoils nothing.
const ROUNDS_IN_PERIOD: u32 = 4;

/// Longest time between two rounds: the status line is renewed with them.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Time after which a stage that does not answer is looked at: it may wait for the store.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

type Answer = LocalBoxFuture<'static, bool>;

/// One that has to answer.
pub struct Stage {
    name: &'static str,
    ask: Box<dyn Fn() -> Answer>,
    /// The answer that is waited for: a silent stage is asked once, not again in each round.
    asked: Option<Answer>,
    waiting: Option<Waiting>,
}

/// How it is known that a stage waits for the store.
struct Waiting {
    waits: Box<dyn Fn() -> bool>,
    thread: ArbiterHandle,
}

impl Stage {
    /// An actor, which is alive when it answers.
    pub fn new(name: &'static str, actor: Recipient<RollCall>) -> Self {
        Self::of(name, move || {
            let answer = actor.send(RollCall);
            async move { answer.await.is_ok() }
        })
    }

    /// The shards of all HTTP workers.
    pub fn shards(sessions: Arc<SessionSet>) -> Self {
        Self::of("shards", move || sessions.call_roll())
    }

    fn of<F>(name: &'static str, ask: impl Fn() -> F + 'static) -> Self
    where
        F: Future<Output = bool> + 'static,
    {
        let ask = Box::new(move || Box::pin(ask()) as Answer);
        Self { name, ask, asked: None, waiting: None }
    }

    /// While `waits` holds, the stage is alive when its thread is.
    pub fn or_waits(
        mut self,
        thread: &ArbiterHandle,
        stats: &Arc<Stats>,
        waits: impl Fn(&Stats) -> bool + 'static,
    ) -> Self {
        let stats = stats.clone();
        let waits = Box::new(move || waits(&stats));
        self.waiting = Some(Waiting { waits, thread: thread.clone() });
        self
    }

    /// Waits until it is known to be alive, or gone.
    ///
    /// # Cancel safety
    /// The next call waits for the same answer.
    async fn is_alive(&mut self) -> bool {
        let ask = &self.ask;
        let answer = self.asked.get_or_insert_with(ask);
        loop {
            tokio::select! {
                biased;
                alive = &mut *answer => {
                    self.asked = None;
                    return alive;
                }
                () = sleep(LOOK_AGAIN) => {}
            }
            if let Some(waiting) = &self.waiting
                && (waiting.waits)()
                && turns(&waiting.thread).await
            {
                return true;
            }
        }
    }
}

/// Waits until a thread runs what it is given.
async fn turns(thread: &ArbiterHandle) -> bool {
    let (sender, turned) = oneshot::channel();
    let sent = thread.spawn_fn(move || {
        // Who does not wait any more need not know.
        sender.send(()).ok();
    });
    sent && turned.await.is_ok()
}

/// Tells the service manager; without one it does nothing.
pub fn tell(states: &[NotifyState<'_>], logger: &Logger) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(logger, "the service manager cannot be told"; "error" => %error);
    }
}

/// Asks the stages for as long as the daemon runs, if the service manager wants to know. To be
/// aborted when the daemon stops.
pub fn start(stages: Vec<Stage>, stats: Arc<Stats>, logger: &Logger) -> Option<JoinHandle<()>> {
    let period = sd_notify::watchdog_enabled()?;
    let logger = logger.new(o!("component" => "watchdog"));
    info!(logger, "watchdog is fed"; "period_ms" => period.as_millis() as u64);
    Some(actix_rt::spawn(watch(stages, period, stats, logger)))
}

async fn watch(mut stages: Vec<Stage>, period: Duration, stats: Arc<Stats>, logger: Logger) {
    let pause = (period / ROUNDS_IN_PERIOD).min(MAX_PAUSE);
    let mut known_silent = Vec::new();
    loop {
        let silent = silent_ones(&mut stages, pause).await;
        if silent.is_empty() {
            tell(&[NotifyState::Watchdog, NotifyState::Status(&status(&stats))], &logger);
        }
        if silent != known_silent {
            match &silent[..] {
                [] => info!(logger, "every stage answers again"),
                _ => error!(logger, "stages do not answer, the watchdog is not fed";
                    "stages" => silent.join(", ")),
            }
            known_silent = silent;
        }
        sleep(pause).await;
    }
}

/// The names of those who do not answer in time.
async fn silent_ones(stages: &mut [Stage], within: Duration) -> Vec<&'static str> {
    let asked = stages.iter_mut().map(async |stage| {
        let alive = timeout(within, stage.is_alive()).await == Ok(true);
        (!alive).then_some(stage.name)
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// What `systemctl status` shows.
pub fn status(stats: &Stats) -> String {
    let block = match stats.router.height.get() {
        0 => "no block yet".to_owned(),
        height => format!("block {height}"),
    };
    let sessions = stats.sessions.open.get();
    match stats.store.failing_since.get() {
        0 => format!("{block}, {sessions} sessions"),
        since => format!("{block}, {sessions} sessions, store away since {}", Timestamp(since)),
    }
}

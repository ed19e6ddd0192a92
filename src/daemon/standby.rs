//! Waits for the lease that another daemon holds, as its stand-in.
//!
//! Place: before the pipeline, of which nothing exists yet; what it goes on from is read when the lease
//! is ours. Meanwhile the port answers that this daemon stands by, and the service manager knows it
//! ready and alive: to wait is what it was started for.
//! Invariants: it asks without end, also a database that is away; only what waiting cannot mend
//! ends it. A lease that was given back, or whose holder is known to be dead, is taken at once; one that
//! has ended, when its holder has had its head start ([`HeadStart`]).

use std::{convert::Infallible, future, iter, sync::Arc, time::Duration};

use actix_server::ServerHandle;
use sd_notify::NotifyState;
use slog::{Logger, info, o, warn};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    ground::{Ground, Leased},
    head_start::HeadStart,
    signals::{Signals, Wish},
    watchdog,
};
use crate::{
    http::{self, StandbyState},
    store::{self, Standing, StoreError},
};

/// Time between two questions for the lease: how much later than its end it is taken over.
const QUESTIONS: Duration = Duration::from_secs(1);

/// Longest time between two meals of the watchdog.
const FEEDING: Duration = Duration::from_secs(10);

/// Meals in one period of the watchdog.
const MEALS_IN_PERIOD: u32 = 4;

/// Takes the lease, at once or when its holder has let go of it. `None` when a signal has asked us
/// to stop before.
///
/// # Errors
/// When the store cannot be used; without `store.standby` also when another daemon holds it.
pub async fn take_lease(
    ground: &mut Ground,
    signals: &mut Signals,
    logger: &Logger,
) -> anyhow::Result<Option<Leased>> {
    let (reason, was_answered) = match ground.lease().await {
        Err(StoreError::LeaseLost(reason)) if ground.config.store.standby => (reason, true),
        Err(StoreError::Unavailable(reason)) if ground.config.store.standby => (reason, false),
        leased => return Ok(Some(leased?)),
    };
    let waiting = Waiting::begin(ground, reason, logger)?;
    let head_start = HeadStart::new(was_answered, Instant::now());
    let leased = tokio::select! {
        leased = waiting.for_lease(ground, head_start) => Some(leased),
        never = waiting.feed_watchdog() => match never {},
        () = until_stopped(signals, logger) => None,
    };
    // Who is being answered gets the rest; nobody waits for it.
    for server in &waiting.servers {
        actix_rt::spawn(server.stop(true));
    }
    let Some(leased) = leased else {
        watchdog::tell(&[NotifyState::Stopping, NotifyState::Status("stopping")], &waiting.logger);
        return Ok(None);
    };
    let leased = leased?;
    info!(waiting.logger, "the lease is ours, taking over"; "last_seq" => leased.recovered.last_seq);
    match ground.open_store().await {
        // The lease is ours all the same, and the writer waits for its server.
        Ok(_) | Err(StoreError::Unavailable(_) | StoreError::Denied(_)) => Ok(Some(leased)),
        // A newer program has changed the tables meanwhile.
        Err(error) => Err(error.into()),
    }
}

async fn until_stopped(signals: &mut Signals, logger: &Logger) {
    while signals.next().await != Wish::Stop {
        warn!(logger, "not reloaded: a standby takes over with the configuration of its start");
    }
}

struct Waiting {
    state: Arc<StandbyState>,
    /// Of the clients' port and of that of the metrics.
    servers: Vec<ServerHandle>,
    logger: Logger,
}

impl Waiting {
    fn begin(ground: &Ground, reason: String, logger: &Logger) -> anyhow::Result<Self> {
        let logger = logger.new(o!("component" => "standby"));
        let state = Arc::new(StandbyState::new(ground.started, reason));
        let mut servers = Vec::new();
        for listener in iter::once(&ground.listener).chain(&ground.metrics_listener) {
            // The socket stays bound when this server ends, so that nobody is refused in between.
            let server = http::serve_standby(listener.try_clone()?, state.clone())?;
            servers.push(server.handle());
            actix_rt::spawn(server);
        }
        info!(logger, "standing by for the lease of another nodecast";
            "address" => %ground.address()?, "reason" => state.reason());
        let waiting = Self { state, servers, logger };
        watchdog::tell(&[NotifyState::Ready], &waiting.logger);
        waiting.tell_status();
        Ok(waiting)
    }

    /// Asks until the lease is taken.
    ///
    /// # Cancel safety
    /// A lease that is being taken may be left taken: it ends with this process.
    async fn for_lease(
        &self,
        ground: &mut Ground,
        mut head_start: HeadStart,
    ) -> Result<Leased, StoreError> {
        loop {
            sleep(QUESTIONS).await;
            let reason = match ask(ground, &mut head_start).await {
                Err(StoreError::LeaseLost(reason)) => reason,
                // It was asked before, so that it refuses us is an outage, too.
                Err(error @ (StoreError::Unavailable(_) | StoreError::Denied(_))) => {
                    head_start.failed();
                    error.to_string()
                }
                leased => return leased,
            };
            // More may be known of the same holder: that the tables are to be changed behind it.
            if !self.state.reason().starts_with(&reason) {
                warn!(self.logger, "still standing by"; "reason" => &reason);
                self.state.set_reason(reason);
                self.tell_status();
            }
        }
    }

    fn tell_status(&self) {
        let status = format!("standby: {}", self.state.reason());
        watchdog::tell(&[NotifyState::Status(&status)], &self.logger);
    }

    /// One thread does all that there is to do: that it turns is what it shows.
    async fn feed_watchdog(&self) -> Infallible {
        let Some(period) = sd_notify::watchdog_enabled() else { return future::pending().await };
        let mut rounds = interval((period / MEALS_IN_PERIOD).min(FEEDING));
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            watchdog::tell(&[NotifyState::Watchdog], &self.logger);
        }
    }
}

/// Takes the lease if it is free. First it is looked at: a server that hung may answer late, and what it
/// was asked before the outage must not be the taking.
async fn ask(ground: &mut Ground, head_start: &mut HeadStart) -> Result<Leased, StoreError> {
    let standing = store::look_at_lease(&ground.config.store.url).await?;
    let now = Instant::now();
    head_start.answered(now);
    match standing {
        Standing::Held(reason) => Err(StoreError::LeaseLost(reason)),
        Standing::Ended(holder) if head_start.left(now).is_some() => {
            Err(StoreError::LeaseLost(format!(
                "the lease of {holder} has ended in an outage, and it has a head start to come back"
            )))
        }
        Standing::Ended(_) | Standing::Free => ground.lease().await,
    }
}

//! Stopping in the direction of the data, so that nothing is cut off that was read.

use std::{
    net::Shutdown,
    time::{Duration, Instant},
};

use futures_util::future::{join, join_all};
use slog::{info, warn};
use socket2::SockRef;
use tokio::time::timeout;

use super::{Daemon, supervisor::StopSupervising};
use crate::{
    mirror::Finish,
    source::node::StopReading,
    store::{Flush, Hurry, StoreError},
    whitelist::Settle,
};

/// How long what was read may take to be committed. A store that is away does not hold the end up:
/// the files are the buffer.
const DRAIN_WITHIN: Duration = Duration::from_secs(3);

/// How long the writer may go on behind that. A store that is away is tried once more in any case,
/// and waits two seconds for a lock: with the clients' time all of it is within 10 seconds.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// How long the whitelist may take to be kept for the next start.
const SETTLE_WITHIN: Duration = Duration::from_secs(1);

/// How long watchers may take to say that they have stopped.
const STOP_READING_WITHIN: Duration = Duration::from_secs(1);

/// How long the writer's answer is waited for: its own patience, one try behind it, and a lock.
const WRITER_WITHIN: Duration = Duration::from_millis(3_500);

/// How long Redis may take for the last positions, while clients close.
const MIRROR_WITHIN: Duration = Duration::from_secs(1);

/// How long clients may take to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Sessions that are told all at once; more of them are told one after the other over [`CLOSE_OVER`], so
/// that their farewells and their ends do not all meet in one turn, here and where they connect again.
const CLOSE_AT_ONCE: usize = 200;

/// Over which part of [`CLOSE_WITHIN`] many clients are told.
const CLOSE_OVER: Duration = Duration::from_secs(1);

/// How long farewells may take on their way to the system.
const WRITTEN_WITHIN: Duration = Duration::from_millis(500);

/// Time between two looks whether all is committed.
const DRAIN_CHECK: Duration = Duration::from_millis(2);

impl Daemon {
    /// Stops sources, pipeline, writer, sessions and server, within 10 seconds in all. After a
    /// fault what was read is not waited for: it would not be committed any more.
    ///
    /// A store that is away is no fault of a stop: the files are the buffer.
    ///
    /// # Errors
    /// When the writer could not flush for another reason. Nothing is lost then either.
    pub async fn stop(self) -> anyhow::Result<()> {
        info!(self.logger, "stopping");
        let start = Instant::now();
        // Who comes from here on is told to come again later, or finds nobody.
        self.sessions.shut();
        self.server.pause().await;
        if let Some(control) = &self.control {
            // Nobody shall wait for an answer of ours. A socket that stays is replaced at the next start.
            control.remove().ok();
        }
        // What an operator has confirmed holds after the next start too, unless the store is away.
        drop(timeout(SETTLE_WITHIN, self.keeper.send(Settle)).await);
        self.shut_the_door();
        self.backfills.stop();
        let stop_reading = self.watchers.iter().map(|watcher| watcher.send(StopReading));
        // A watcher that is gone reads no further either; one that hangs in a read of a dead disk
        // is not waited for.
        if timeout(STOP_READING_WITHIN, join_all(stop_reading)).await.is_err() {
            warn!(self.logger, "a node directory does not answer");
        }
        self.supervisor.do_send(StopSupervising);
        self.writer.do_send(Hurry);
        if self.faults.borrow().is_none() {
            self.drain(start + DRAIN_WITHIN).await;
        }
        let flush = self.writer.send(Flush { within: FLUSH_WITHIN });
        let flushed = match timeout(WRITER_WITHIN, flush).await {
            Ok(Ok(flushed)) => flushed,
            Ok(Err(error)) => Err(StoreError::Failed(error.to_string())),
            Err(_) => Err(StoreError::Unavailable("it does not answer".to_owned())),
        };
        let clients = self.sessions.close_all(self.close_over(), CLOSE_WITHIN);
        let (left, ()) = join(clients, self.finish_mirror()).await;
        if left > 0 {
            warn!(self.logger, "sessions did not close in time"; "sessions" => left);
        }
        // A session is gone when its last frames are with HTTP, which writes them in the same piece of
        // work: who answers behind that has written them.
        drop(timeout(WRITTEN_WITHIN, self.sessions.call_roll()).await);
        self.server.stop(false).await;
        if let Some(metrics) = &self.metrics {
            metrics.stop(false).await;
        }
        self.threads.stop();
        match flushed {
            Err(StoreError::Unavailable(reason)) => warn!(self.logger,
                "the store is away: what it lacks is read again from the files at the next start";
                "events" => self.stats.store.queued.get(), "error" => reason),
            flushed => flushed?,
        }
        info!(self.logger, "stopped"; "after_ms" => start.elapsed().as_millis() as u64);
        Ok(())
    }

    /// From here on the system refuses who connects, those included who wait to be accepted: nobody hangs
    /// on a server that does not come. By now that server has heard of the pause; if it had not, it would
    /// only log that it cannot accept.
    fn shut_the_door(&self) {
        if let Err(error) = SockRef::from(&self.door).shutdown(Shutdown::Both) {
            warn!(self.logger, "the listener does not close yet"; "error" => %error);
        }
    }

    /// Over which time clients are told to close.
    fn close_over(&self) -> Duration {
        if self.sessions.open() > CLOSE_AT_ONCE { CLOSE_OVER } else { Duration::ZERO }
    }

    /// Has the last positions written to Redis, where that is wanted.
    async fn finish_mirror(&self) {
        if let Some(mirror) = &self.mirror
            && timeout(MIRROR_WITHIN, mirror.send(Finish)).await.is_err()
        {
            warn!(self.logger, "the last positions are not mirrored: Redis does not answer");
        }
    }

    /// Waits until every batch that was read is in the store.
    async fn drain(&self, deadline: Instant) {
        let batches =
            || self.budgets.iter().map(|budget| budget.in_flight_batches()).sum::<usize>();
        while batches() > 0 {
            if Instant::now() > deadline {
                warn!(self.logger, "the store does not take what was read in time";
                    "batches" => batches());
                return;
            }
            actix_rt::time::sleep(DRAIN_CHECK).await;
        }
    }
}

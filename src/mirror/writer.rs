//! Writes the committed positions to Redis, at most once a second.
//!
//! Place in the pipeline: beside it, on a thread of its own. Invariants: nothing is written before
//! its commit, because it is not in [`Committed`] before; a Redis that is away costs one line of the
//! log and is asked again.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use actix::{
    fut::{self, LocalBoxActorFuture},
    prelude::*,
};
use bb8_redis::{
    bb8::{Pool, RunError},
    redis::{self, RedisError},
};
use slog::{Logger, info, o, warn};

use super::Committed;
use crate::{
    config::RedisUrl,
    event::Timestamp,
    redis_client::{CONNECT_TIMEOUT, Manager},
    stats::Stats,
};

/// Between two writes.
const INTERVAL: Duration = Duration::from_secs(1);

/// One write is under way at a time.
const CONNECTIONS: u32 = 1;

/// Writes the last positions, as part of stopping. Answered when Redis has them or does not answer.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Finish;

/// The actor.
pub struct MirrorWriter {
    committed: Arc<Committed>,
    url: RedisUrl,
    manager: Option<Manager>,
    /// Made on the actor's own thread, which drives its connections.
    pool: Option<Pool<Manager>>,
    stats: Arc<Stats>,
    logger: Logger,
}

impl MirrorWriter {
    /// # Errors
    /// When the address cannot be used, such as for a file of certificates that is not there.
    pub fn new(
        url: &RedisUrl,
        committed: Arc<Committed>,
        stats: Arc<Stats>,
        logger: &Logger,
    ) -> Result<Self, RedisError> {
        let logger = logger.new(o!("actor" => "mirror_writer"));
        let manager = Some(Manager::new(url)?);
        stats.mirror.enabled.set(1);
        Ok(Self { committed, url: url.clone(), manager, pool: None, stats, logger })
    }

    /// Writes what is new. To be waited for: nothing else is handled meanwhile.
    fn write(&self) -> Option<LocalBoxActorFuture<Self, ()>> {
        let pool = self.pool.clone()?;
        let news = self.committed.take_news();
        if news.is_empty() {
            return None;
        }
        let mut command = redis::cmd("MSET");
        for (key, position) in &news {
            let text = serde_json::json!(position).to_string();
            command.arg(key).arg(text);
        }
        let write = async move {
            let mut connection = pool.get().await?;
            command.query_async::<()>(&mut *connection).await.map_err(RunError::User)
        };
        Some(Box::pin(write.into_actor(self).map(|written, actor, _ctx| actor.wrote(written))))
    }

    fn wrote(&mut self, written: Result<(), RunError<RedisError>>) {
        let stats = &self.stats.mirror;
        let mut problem = stats.problem.lock().unwrap_or_else(PoisonError::into_inner);
        match written {
            Ok(()) => {
                stats.writes.add(1);
                stats.last_write_at.set(Timestamp::now().0);
                stats.failing_since.set(0);
                if problem.take().is_some() {
                    info!(self.logger, "positions are mirrored again"; "redis" => %self.url);
                }
            }
            Err(error) => {
                self.committed.put_back();
                stats.failures.add(1);
                if problem.is_none() {
                    stats.failing_since.set(Timestamp::now().0);
                    warn!(self.logger, "positions are not mirrored, it is tried again";
                        "redis" => %self.url, "error" => %error);
                }
                *problem = Some(error.to_string());
            }
        }
    }
}

impl Actor for MirrorWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(manager) = self.manager.take() else { return };
        let pool = Pool::builder()
            .max_size(CONNECTIONS)
            .connection_timeout(CONNECT_TIMEOUT)
            .retry_connection(false)
            .build_unchecked(manager);
        self.pool = Some(pool);
        ctx.run_interval(INTERVAL, |writer, ctx| {
            if let Some(write) = writer.write() {
                ctx.wait(write);
            }
        });
    }
}

impl Handler<Finish> for MirrorWriter {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: Finish, _ctx: &mut Self::Context) -> Self::Result {
        AtomicResponse::new(self.write().unwrap_or_else(|| Box::pin(fut::ready(()))))
    }
}

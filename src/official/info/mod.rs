//! The info service: requests of the official protocol, answered from the store, and from an upstream
//! where one is set.
//!
//! Place in the pipeline: beside HTTP history. `POST /info` and `post` over WebSocket ask for answers, the
//! subscriptions of the official protocol for the snapshots that they begin with.
//! Invariants: what stands in the store and is asked for is in the answer or behind its last time; a store
//! or an upstream that cannot be reached is an error and never an empty answer; the memory of answers is
//! bounded until their clients have taken them.

mod answers;
mod error;
mod history;
mod meta;
mod newest;
mod request;
mod upstream;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use slog::{Logger, warn};
use tokio::{sync::Semaphore, time::timeout};

use self::{answers::Answers, history::Order, meta::Metas, request::Request, upstream::Upstream};
pub use self::{
    answers::MAX_ANSWER_BYTES,
    error::{InfoError, UpstreamError},
    newest::{MAX_READS, Newest},
    upstream::MAX_PASSING,
};
use crate::{
    client::Client,
    config::LiveConfig,
    event::Address,
    official::{Admission, Rows},
    router::log::Log,
    stats::Stats,
    store::{EventStore, StoreError},
    whitelist::Listing,
};

/// How long a snapshot may take, with the wait for its turn: its client is heard with nothing but pings meanwhile.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The info service. One is made at the start and shared by all workers.
pub struct Info {
    store: Arc<dyn EventStore>,
    log: Arc<Log>,
    config: Arc<LiveConfig>,
    listing: Arc<Listing>,
    answers: Answers,
    /// Places for snapshots that read the store.
    reads: Semaphore,
    stats: Arc<Stats>,
    /// Where `official.info_upstream` names one.
    upstream: Option<(Arc<Upstream>, Arc<Metas>)>,
    logger: Logger,
}

impl Info {
    pub fn new(
        store: Arc<dyn EventStore>,
        log: Arc<Log>,
        config: Arc<LiveConfig>,
        listing: Arc<Listing>,
        stats: Arc<Stats>,
        logger: Logger,
    ) -> Self {
        let current = config.get();
        let upstream = current.official.info_upstream.as_ref().map(|url| {
            let upstream = Arc::new(Upstream::new(url, stats.clone()));
            let metas = Metas::open(upstream.clone(), &current.state_dir, logger.clone());
            (upstream, Arc::new(metas))
        });
        let (answers, reads) = (Answers::new(stats.clone()), Semaphore::new(MAX_READS));
        Self { store, log, config, listing, answers, reads, stats, upstream, logger }
    }

    /// Answers a request: JSON, as it goes to the client.
    ///
    /// # Errors
    /// With what the client is told.
    ///
    /// # Cancel safety
    /// Whoever asks may go away at any moment.
    pub async fn answer(&self, request: &[u8], client: &Client) -> Result<Bytes, InfoError> {
        match Request::read(request)? {
            Request::History { user, rows, times, reversed } => {
                // Without times the newest are asked for, and nobody goes on behind them.
                let order = match (&times, reversed) {
                    (None, _) => Order::Newest,
                    (Some(_), false) => Order::Forward,
                    (Some(_), true) => Order::Backward,
                };
                let config = self.config.get();
                let room = self.answers.room(config.official.max_rows, config.http.request_timeout);
                let room = room.await?;
                let read = history::answer(&*self.store, rows, user, times, order, room.limits());
                let unread = |error| {
                    warn!(self.logger, "history cannot be read"; "client" => %client, "error" => %error);
                    InfoError::from(error)
                };
                let body = read.await.map_err(unread)?;
                // What was stored while he was listed stays readable, and where it ends is empty.
                if body == b"[]"
                    && !self.listing.is_listed(&user)
                    && let Admission::Refused(_) = Admission::of(&config.official, client)
                    && !history::is_known(&*self.store, user).await.map_err(unread)?
                {
                    return Err(InfoError::NotListed(user));
                }
                Ok(room.filled(body))
            }
            Request::Meta(meta) => match &self.upstream {
                Some((_, metas)) => Ok(metas.get(meta).await?),
                None => Ok(Bytes::from_static(meta.empty().as_bytes())),
            },
            Request::Other(kind) => match &self.upstream {
                Some((upstream, _)) => Ok(upstream.pass(request).await?),
                None => Err(InfoError::unsupported(&kind)),
            },
        }
    }

    /// The newest rows of a user, of the store and of what is cast and not stored yet, and the place behind
    /// which live ones follow.
    ///
    /// # Errors
    /// Those of the store.
    ///
    /// # Cancel safety
    /// Whoever asks may go away at any moment.
    pub async fn newest(&self, rows: Rows, user: Address) -> Result<Newest, StoreError> {
        let read = async {
            // When many clients come back at once, they wait here and not with what they have read.
            let _place = self.reads.acquire().await.expect("the semaphore is never closed");
            let _reading = self.stats.official.snapshots.one_more();
            let limit = self.config.get().official.snapshot_rows;
            newest::newest(&*self.store, &self.log, rows, user, limit).await
        };
        timeout(MAX_WAIT, read).await.unwrap_or_else(|_| {
            let why = "too many snapshots are read, or this one takes too long: try again";
            Err(StoreError::Unavailable(why.to_owned()))
        })
    }
}

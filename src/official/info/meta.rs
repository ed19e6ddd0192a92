//! `meta` and `spotMeta`: what clients ask for when they start, as the upstream has said it last.
//!
//! Invariants: one question each is under way at one time; an old answer is better than none, and so is that of
//! an earlier run, which is stored in the state directory. Without any, clients get an error: an empty list of
//! coins would be wrong for as long as they run.

mod question;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use slog::{Logger, info, warn};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout},
};

use self::question::{Question, Stored};
use super::{
    error::UpstreamError,
    request::Meta,
    upstream::{PATIENCE, Upstream},
};

/// How long a client waits where an old answer is at hand: one that starts should not wait for a dead upstream.
const PATIENCE_WITH_OLD: Duration = Duration::from_secs(2);

/// The answers to what everybody asks.
pub struct Metas {
    upstream: Arc<Upstream>,
    perps: Question,
    spot: Question,
    logger: Logger,
}

impl Metas {
    /// Begins with what an earlier run was told by the same upstream.
    pub fn open(upstream: Arc<Upstream>, state_dir: &Path, logger: Logger) -> Self {
        let question = |meta, file| Question::open(meta, state_dir.join(file), &upstream);
        let perps = question(Meta::Perps, "meta.json");
        let spot = question(Meta::Spot, "spot_meta.json");
        Self { upstream, perps, spot, logger }
    }

    /// Gives an answer that is not older than a minute, if there is one.
    ///
    /// # Errors
    /// When no answer is known and the upstream gives none.
    ///
    /// # Cancel safety
    /// Whoever asks may go away at any moment.
    pub async fn get(self: &Arc<Self>, meta: Meta) -> Result<Bytes, UpstreamError> {
        let question = self.question(meta);
        if let Some(fresh) = question.fresh() {
            return fresh;
        }
        let old = question.known().answer.clone();
        let turn = match (question.turn.clone().try_lock_owned(), &old) {
            (Ok(turn), _) => turn,
            // Somebody asks already.
            (Err(_), Some(old)) => return Ok(old.clone()),
            (Err(_), None) => question.turn.clone().lock_owned().await,
        };
        // Who had the turn before may have got it.
        if let Some(fresh) = question.fresh() {
            return fresh;
        }
        let metas = self.clone();
        let asking = tokio::spawn(async move {
            let _turn = turn;
            metas.ask(meta).await
        });
        let Some(old) = old else {
            // It has panicked, or the thread that it was on ends.
            let given_up = || UpstreamError::Unreachable("the question was given up".to_owned());
            return asking.await.unwrap_or_else(|_| Err(given_up()));
        };
        match timeout(PATIENCE_WITH_OLD, asking).await {
            Ok(Ok(answer)) => answer,
            // What comes later is there for the next client.
            _ => Ok(old),
        }
    }

    fn question(&self, meta: Meta) -> &Question {
        match meta {
            Meta::Perps => &self.perps,
            Meta::Spot => &self.spot,
        }
    }

    /// Asks once, and keeps what is said.
    async fn ask(&self, meta: Meta) -> Result<Bytes, UpstreamError> {
        let question = self.question(meta);
        let request = Bytes::from_static(meta.request().as_bytes());
        let asked = self.upstream.ask(request, PATIENCE).await.and_then(|answer| {
            if question.is_answered_by(&answer) {
                return Ok(answer);
            }
            self.upstream.count_failure();
            Err(UpstreamError::NotMeta)
        });
        let mut known = question.known();
        let failed_before = known.asked.as_ref().is_some_and(|(_, failed)| failed.is_some());
        let failed = match asked {
            Ok(answer) => {
                let is_new = known.answer.as_ref() != Some(&answer);
                if is_new || !question.is_stored.load(Ordering::Relaxed) {
                    self.store(question, answer.clone());
                }
                known.answer = Some(answer);
                None
            }
            Err(error) => Some(error),
        };
        // Once for each time that it begins or ends.
        let host = self.upstream.host();
        match &failed {
            Some(error) if !failed_before => {
                warn!(self.logger, "the upstream of info gives no answer"; "upstream" => host,
                    "request" => meta.request(), "status" => error.status(), "error" => %error,
                    "old_answer" => known.answer.is_some());
            }
            None if failed_before => {
                info!(self.logger, "the upstream of info answers again"; "upstream" => host);
            }
            _ => {}
        }
        known.asked = Some((Instant::now(), failed));
        known.given()
    }

    /// Stores an answer for the next run; where that fails, the next one that comes is tried.
    fn store(&self, question: &Question, answer: Bytes) {
        let (file, is_stored) = (question.file.clone(), question.is_stored.clone());
        let (upstream, logger) = (self.upstream.clone(), self.logger.clone());
        is_stored.store(true, Ordering::Relaxed);
        spawn_blocking(move || {
            if let Err(error) = Stored::write(&upstream, &answer, &file) {
                is_stored.store(false, Ordering::Relaxed);
                warn!(logger, "the upstream's answer cannot be stored for the next start";
                    "file" => %file.display(), "error" => %error);
            }
        });
    }
}

//! `meta` and `spotMeta`: what clients ask for when they start, as the upstream has said it last.
//!
//! Invariants: one question each is under way at one time; an old answer is better than none, and so is that of
//! an earlier run, which is kept in the state directory. Without any, clients get an error: an empty list of
//! coins would be wrong for as long as they run.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;
use slog::{Logger, info, warn};
use tempfile::NamedTempFile;
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout},
};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    error::UpstreamError,
    request::Meta,
    upstream::{PATIENCE, Upstream},
};
use crate::object;

/// How long a client waits where an old answer is at hand: one that starts should not wait for a dead upstream.
const PATIENCE_WITH_OLD: Duration = Duration::from_secs(2);

/// How long an answer to `meta` holds. New coins are listed some times a week.
const HOLDS: Duration = Duration::from_secs(60);

/// How long the upstream is left alone when it gave no answer.
const PAUSE: Duration = Duration::from_secs(5);

/// The answers to what everybody asks.
pub struct Metas {
    upstream: Arc<Upstream>,
    perps: Kept,
    spot: Kept,
    logger: Logger,
}

/// The answer to one question.
struct Kept {
    /// Where it outlives the daemon.
    file: PathBuf,
    /// Held by who asks the upstream.
    turn: Arc<tokio::sync::Mutex<()>>,
    known: Mutex<Known>,
}

struct Known {
    answer: Option<Bytes>,
    /// When the upstream was asked last, and how it failed then.
    asked: Option<(Instant, Option<UpstreamError>)>,
}

/// What stands in the file.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// A digest of its URL, which may hold a secret: another upstream may be of another chain.
    upstream: String,
    answer: Box<RawValue>,
}

/// What each answer has.
#[derive(Deserialize)]
struct Coins {
    #[serde(rename = "universe")]
    _universe: Vec<IgnoredAny>,
}

impl Metas {
    /// Begins with what an earlier run was told by the same upstream.
    pub fn open(upstream: Arc<Upstream>, state_dir: &Path, logger: Logger) -> Self {
        let kept = |name| Kept::open(state_dir.join(name), &digest_of(&upstream));
        let (perps, spot) = (kept("meta.json"), kept("spot_meta.json"));
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
        let kept = self.kept(meta);
        if let Some(held) = kept.held() {
            return held;
        }
        let old = kept.known().answer.clone();
        let turn = match (kept.turn.clone().try_lock_owned(), &old) {
            (Ok(turn), _) => turn,
            // Somebody asks already.
            (Err(_), Some(old)) => return Ok(old.clone()),
            (Err(_), None) => kept.turn.clone().lock_owned().await,
        };
        // Who had the turn before may have got it.
        if let Some(held) = kept.held() {
            return held;
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

    fn kept(&self, meta: Meta) -> &Kept {
        match meta {
            Meta::Perps => &self.perps,
            Meta::Spot => &self.spot,
        }
    }

    /// Asks once, and keeps what is said.
    async fn ask(&self, meta: Meta) -> Result<Bytes, UpstreamError> {
        let request = Bytes::from_static(meta.request().as_bytes());
        let asked = self.upstream.ask(request, PATIENCE).await.and_then(|answer| {
            if is_meta(&answer) {
                return Ok(answer);
            }
            self.upstream.count_failure();
            Err(UpstreamError::NotMeta)
        });
        let kept = self.kept(meta);
        let mut known = kept.known();
        let failed_before = known.asked.as_ref().is_some_and(|(_, failed)| failed.is_some());
        let failed = match asked {
            Ok(answer) => {
                if known.answer.as_ref() != Some(&answer) {
                    self.store(kept, &answer);
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

    /// Keeps an answer for the next run. What cannot be kept is asked for again.
    fn store(&self, kept: &Kept, answer: &Bytes) {
        let Ok(answer) = serde_json::from_slice(answer) else { return };
        let stored = Stored { upstream: digest_of(&self.upstream), answer };
        let (file, logger) = (kept.file.clone(), self.logger.clone());
        spawn_blocking(move || {
            if let Err(error) = stored.write(&file) {
                warn!(logger, "the upstream's answer cannot be kept for the next start";
                    "file" => %file.display(), "error" => %error);
            }
        });
    }
}

/// Whether it is an answer that clients can start with.
fn is_meta(answer: &[u8]) -> bool {
    object::read::<Coins>(answer).is_ok()
}

fn digest_of(upstream: &Upstream) -> String {
    format!("{:032x}", xxh3_128(upstream.uri().to_string().as_bytes()))
}

impl Stored {
    fn read(file: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    }

    /// All of it or nothing.
    fn write(&self, file: &Path) -> io::Result<()> {
        let folder = file.parent().unwrap_or(Path::new("."));
        let mut draft = NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut draft, self)?;
        draft.as_file().sync_all()?;
        draft.persist(file)?;
        Ok(())
    }
}

impl Kept {
    fn open(file: PathBuf, upstream: &str) -> Self {
        let is_sound = |stored: &Stored| {
            stored.upstream == upstream && is_meta(stored.answer.get().as_bytes())
        };
        let stored = Stored::read(&file).filter(is_sound);
        let answer = stored.map(|stored| String::from(Box::<str>::from(stored.answer)).into());
        let known = Mutex::new(Known { answer, asked: None });
        Self { file, turn: Default::default(), known }
    }

    /// What needs no question now.
    fn held(&self) -> Option<Result<Bytes, UpstreamError>> {
        let known = self.known();
        let (at, failed) = known.asked.as_ref()?;
        let holds = if failed.is_some() { PAUSE } else { HOLDS };
        (at.elapsed() < holds).then(|| known.given())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change is complete before a panic could happen.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The last answer, else why there is none.
    fn given(&self) -> Result<Bytes, UpstreamError> {
        match (&self.answer, &self.asked) {
            (Some(answer), _) => Ok(answer.clone()),
            (None, Some((_, Some(failed)))) => Err(failed.clone()),
            (None, _) => Err(UpstreamError::Unreachable("it was not asked".to_owned())),
        }
    }
}

//! One of the questions that everybody asks: what the upstream has said to it, in memory and in a file.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;
use tempfile::NamedTempFile;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    object,
    official::info::{error::UpstreamError, request::Meta, upstream::Upstream},
};

/// How long an answer holds. New coins are listed some times a week.
const HOLDS: Duration = Duration::from_secs(60);

/// How long the upstream is left alone when it gave no answer.
const PAUSE: Duration = Duration::from_secs(5);

pub struct Question {
    meta: Meta,
    /// Where its answer outlives the daemon.
    pub file: PathBuf,
    /// Whether the last answer stands there.
    pub is_stored: Arc<AtomicBool>,
    /// Held by who asks the upstream.
    pub turn: Arc<tokio::sync::Mutex<()>>,
    known: Mutex<Known>,
}

pub struct Known {
    pub answer: Option<Bytes>,
    /// When the upstream was asked last, and how it failed then.
    pub asked: Option<(Instant, Option<UpstreamError>)>,
}

/// What stands in the file.
#[derive(Serialize, Deserialize)]
pub struct Stored {
    /// A digest of its URL, which may hold a secret: another upstream may be of another chain.
    upstream: String,
    answer: Box<RawValue>,
}

/// What answers have; that to `spotMeta` has tokens, too.
#[derive(Deserialize)]
struct Coins {
    universe: Vec<IgnoredAny>,
    tokens: Option<Vec<IgnoredAny>>,
}

impl Question {
    pub fn open(meta: Meta, file: PathBuf, upstream: &Upstream) -> Self {
        let stored = Stored::read(&file).filter(|stored| stored.upstream == digest_of(upstream));
        let known = Mutex::new(Known { answer: None, asked: None });
        let is_stored = Arc::new(AtomicBool::new(stored.is_some()));
        let question = Self { meta, file, is_stored, turn: Arc::default(), known };
        let answer = stored.map(|stored| Bytes::from(stored.answer.get().to_owned()));
        question.known().answer = answer.filter(|answer| question.is_answered_by(answer));
        question
    }

    /// Whether clients can start with an answer. One without any coin takes the place of none that has some.
    pub fn is_answered_by(&self, answer: &[u8]) -> bool {
        let Ok(Coins { universe, tokens }) = object::read(answer) else { return false };
        let is_whole = self.meta == Meta::Perps || tokens.is_some();
        let has_coins = |known: &Bytes| {
            object::read::<Coins>(known).is_ok_and(|coins| !coins.universe.is_empty())
        };
        is_whole && (!universe.is_empty() || !self.known().answer.as_ref().is_some_and(has_coins))
    }

    /// What needs no question now.
    pub fn fresh(&self) -> Option<Result<Bytes, UpstreamError>> {
        let known = self.known();
        let (at, failed) = known.asked.as_ref()?;
        let holds = if failed.is_some() { PAUSE } else { HOLDS };
        (at.elapsed() < holds).then(|| known.given())
    }

    pub fn known(&self) -> MutexGuard<'_, Known> {
        // Every change is complete before a panic could happen.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The last answer, else why there is none.
    pub fn given(&self) -> Result<Bytes, UpstreamError> {
        match (&self.answer, &self.asked) {
            (Some(answer), _) => Ok(answer.clone()),
            (None, Some((_, Some(failed)))) => Err(failed.clone()),
            (None, _) => Err(UpstreamError::Unreachable("it was not asked".to_owned())),
        }
    }
}

impl Stored {
    fn read(file: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    }

    /// All of it or nothing.
    pub fn write(upstream: &Upstream, answer: &[u8], file: &Path) -> io::Result<()> {
        let (upstream, answer) = (digest_of(upstream), serde_json::from_slice(answer)?);
        let folder = file.parent().unwrap_or(Path::new("."));
        let mut draft = NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut draft, &Self { upstream, answer })?;
        draft.as_file().sync_all()?;
        draft.persist(file)?;
        Ok(())
    }
}

fn digest_of(upstream: &Upstream) -> String {
    format!("{:032x}", xxh3_128(upstream.uri().to_string().as_bytes()))
}

//! Who is asked for what is not known here: a node that serves info, or the official service.
//!
//! Invariants: what it says is passed on as it is, within bounds of size, time and number; of `meta` and
//! `spotMeta` one question each is under way at one time, and an old answer is better than none.

use std::{
    error::Error as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    Request, Uri,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use serde::de::IgnoredAny;
use slog::{Logger, info, warn};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{
    error::{Said, UpstreamError},
    request::Meta,
};
use crate::{config::InfoUrl, stats::Stats};

/// Most requests of clients that are passed on at one time.
pub const MAX_PASSING: usize = 32;

/// Longest answer that is taken, in bytes: those of `meta` are the longest, below a megabyte.
const MAX_BYTES: usize = 16 << 20;

/// How long an answer may take from the first byte that we send to the last that comes.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same where an old answer is at hand: clients that start should not wait for a dead upstream.
const PATIENCE_WITH_OLD: Duration = Duration::from_secs(2);

/// How long an answer to `meta` holds. New coins are listed some times a week.
const HOLDS: Duration = Duration::from_secs(60);

/// How long the upstream is left alone when it gave no answer.
const PAUSE: Duration = Duration::from_secs(5);

/// How long a connection is kept for the next request.
const IDLE: Duration = Duration::from_secs(30);

/// How long a connection may take to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

pub struct Upstream {
    uri: Uri,
    client: HttpClient,
    passing: Arc<Semaphore>,
    perps: Kept,
    spot: Kept,
    stats: Arc<Stats>,
    logger: Logger,
}

/// The answer to one question that everybody asks.
#[derive(Default)]
struct Kept {
    /// Held by who asks the upstream.
    turn: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    answer: Option<Bytes>,
    /// When the upstream was asked last, and how it failed then.
    asked: Option<(Instant, Option<UpstreamError>)>,
}

impl Upstream {
    pub fn new(url: &InfoUrl, stats: Arc<Stats>, logger: Logger) -> Self {
        let mut plain = HttpConnector::new();
        plain.enforce_http(false);
        plain.set_nodelay(true);
        plain.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls())
            .https_or_http()
            .enable_http1()
            .wrap_connector(plain);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(MAX_PASSING)
            .build(connector);
        Self {
            uri: url.uri().clone(),
            client,
            passing: Arc::new(Semaphore::new(MAX_PASSING)),
            perps: Kept::default(),
            spot: Kept::default(),
            stats,
            logger,
        }
    }

    /// Passes a request on, and gives the answer as it comes.
    ///
    /// # Errors
    /// [`UpstreamError::Refused`] for what it answers with another status than that of success; why it gave no
    /// answer; [`UpstreamError::Busy`].
    pub async fn pass(&self, request: &[u8]) -> Result<Bytes, UpstreamError> {
        let Ok(place) = self.passing.clone().try_acquire_owned() else {
            self.stats.official.not_passed.add(1);
            return Err(UpstreamError::Busy);
        };
        self.stats.official.passed.add(1);
        let _passing = self.stats.official.passing.one_more();
        let body = self.ask(Bytes::copy_from_slice(request), PATIENCE).await?;
        Ok(Bytes::from_owner(Passed { body, _place: place }))
    }

    /// Gives an answer that is not older than a minute, if there is one.
    ///
    /// # Errors
    /// When no answer is known and the upstream gives none.
    pub async fn meta(&self, meta: Meta) -> Result<Bytes, UpstreamError> {
        let kept = match meta {
            Meta::Perps => &self.perps,
            Meta::Spot => &self.spot,
        };
        if let Some(held) = kept.held() {
            return held;
        }
        let old = kept.known().answer.clone();
        let _turn = match (kept.turn.try_lock(), &old) {
            (Ok(turn), _) => turn,
            // Somebody asks already.
            (Err(_), Some(old)) => return Ok(old.clone()),
            (Err(_), None) => kept.turn.lock().await,
        };
        // Who had the turn before may have got it.
        if let Some(held) = kept.held() {
            return held;
        }
        let patience = if old.is_some() { PATIENCE_WITH_OLD } else { PATIENCE };
        let request = Bytes::from_static(meta.request().as_bytes());
        let asked = self.ask(request, patience).await;
        self.keep(kept, meta, asked)
    }

    fn keep(
        &self,
        kept: &Kept,
        meta: Meta,
        asked: Result<Bytes, UpstreamError>,
    ) -> Result<Bytes, UpstreamError> {
        let mut known = kept.known();
        let failed_before = known.asked.as_ref().is_some_and(|(_, failed)| failed.is_some());
        let failed = match asked {
            Ok(answer) => {
                known.answer = Some(answer);
                None
            }
            Err(error) => Some(error),
        };
        // Once for each time that it begins or ends.
        let upstream = self.uri.to_string();
        match &failed {
            Some(error) if !failed_before => {
                warn!(self.logger, "the upstream of info gives no answer"; "upstream" => upstream,
                    "request" => meta.request(), "error" => %error, "old_answer" => known.answer.is_some());
            }
            None if failed_before => {
                info!(self.logger, "the upstream of info answers again"; "upstream" => upstream);
            }
            _ => {}
        }
        known.asked = Some((Instant::now(), failed));
        known.given()
    }

    /// Asks once.
    async fn ask(&self, body: Bytes, patience: Duration) -> Result<Bytes, UpstreamError> {
        let asked = match timeout(patience, self.post(body)).await {
            Ok(asked) => asked,
            Err(_) => Err(UpstreamError::TooSlow(patience)),
        };
        // What it refuses is an answer, what it cannot do is none.
        if asked.as_ref().is_err_and(|error| error.status() >= 500) {
            self.stats.official.upstream_failures.add(1);
        }
        asked
    }

    async fn post(&self, body: Bytes) -> Result<Bytes, UpstreamError> {
        let json = HeaderValue::from_static("application/json");
        let request = Request::post(self.uri.clone())
            .header(CONTENT_TYPE, json.clone())
            .header(ACCEPT, json)
            .header(USER_AGENT, concat!("nodecast/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .expect("a URL of the configuration and fixed headers make a request");
        let answer = self.client.request(request).await;
        let (head, body) =
            answer.map_err(|error| UpstreamError::Unreachable(reasons(&error)))?.into_parts();
        let body = Limited::new(body, MAX_BYTES).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => UpstreamError::TooLong(MAX_BYTES),
            false => UpstreamError::Unreachable(error.to_string()),
        })?;
        let body = body.to_bytes();
        if !head.status.is_success() {
            let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            let (status, content_type) = (head.status.as_u16(), kind.map(str::to_owned));
            return Err(UpstreamError::Refused(Said { status, content_type, body }));
        }
        // It stands within the frames of a WebSocket too.
        if serde_json::from_slice::<IgnoredAny>(&body).is_err() {
            return Err(UpstreamError::NotJson);
        }
        Ok(body)
    }
}

/// An answer of the upstream that keeps its place among those which are passed on until its client has taken it.
struct Passed {
    body: Bytes,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Passed {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Kept {
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

/// Trusts the certificates of the system.
fn tls() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("this provider has the suites of TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// An error of the client says where it happened, and its sources what.
fn reasons(error: &hyper_util::client::legacy::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(deeper) = source {
        text.push_str(": ");
        text.push_str(&deeper.to_string());
        source = deeper.source();
    }
    text
}

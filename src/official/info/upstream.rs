//! Who is asked for what is not known here: a node that serves info, or the official service.
//!
//! Invariant: what it says is passed on as it is, within bounds of size, time and number.

use std::{error::Error as _, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    Request, Uri,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use serde::de::IgnoredAny;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::error::{Said, UpstreamError};
use crate::{config::InfoUrl, stats::Stats};

/// Most requests of clients that are passed on at one time.
pub const MAX_PASSING: usize = 32;

/// Longest answer that is taken, in bytes: those of `meta` are the longest, below a megabyte.
const MAX_BYTES: usize = 16 << 20;

/// The same of a refusal, for which no room is kept.
const MAX_REFUSAL_BYTES: usize = 64 << 10;

/// How long an answer may take from the first byte that we send to the last that comes.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection is kept for the next request.
const IDLE: Duration = Duration::from_secs(30);

/// How long a connection may take to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

pub struct Upstream {
    uri: Uri,
    client: HttpClient,
    passing: Arc<Semaphore>,
    stats: Arc<Stats>,
}

impl Upstream {
    pub fn new(url: &InfoUrl, stats: Arc<Stats>) -> Self {
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
            stats,
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

    /// Where it is, for people: the path may hold a secret.
    pub fn host(&self) -> String {
        self.uri.authority().map(ToString::to_string).unwrap_or_default()
    }

    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Asks once.
    ///
    /// # Errors
    /// As [`pass`](Self::pass), and when there is no answer within `patience`.
    pub async fn ask(&self, body: Bytes, patience: Duration) -> Result<Bytes, UpstreamError> {
        let asked = match timeout(patience, self.post(body)).await {
            Ok(asked) => asked,
            Err(_) => Err(UpstreamError::TooSlow(patience)),
        };
        // What it refuses is an answer, what it cannot do is none.
        if asked.as_ref().is_err_and(|error| error.status() >= 500) {
            self.count_failure();
        }
        asked
    }

    /// It gave no answer.
    pub fn count_failure(&self) {
        self.stats.official.upstream_failures.add(1);
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
        if head.status.is_redirection() {
            return Err(UpstreamError::Elsewhere(head.status.as_u16()));
        }
        let is_success = head.status.is_success();
        let max_bytes = if is_success { MAX_BYTES } else { MAX_REFUSAL_BYTES };
        let body = Limited::new(body, max_bytes).collect().await;
        let body = match body {
            Ok(body) => body.to_bytes(),
            // Its status says enough.
            Err(error) if error.is::<LengthLimitError>() && !is_success => Bytes::new(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(UpstreamError::TooLong(max_bytes));
            }
            Err(error) => return Err(UpstreamError::Unreachable(error.to_string())),
        };
        if !is_success {
            let text = |name| head.headers.get(name).and_then(|text| text.to_str().ok());
            let (content_type, retry_after) = (text(CONTENT_TYPE), text(RETRY_AFTER));
            return Err(UpstreamError::Refused(Said {
                status: head.status.as_u16(),
                content_type: content_type.map(str::to_owned),
                retry_after: retry_after.map(str::to_owned),
                body,
            }));
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

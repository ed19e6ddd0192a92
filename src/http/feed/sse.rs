//! `GET /v1/stream`: Server-Sent Events.
//!
//! Invariant: the body is polled only while its client reads, so nothing of it waits in here; the feed
//! behind it cuts off who stalls.

use actix_web::{HttpRequest, HttpResponse, http::Method, http::header, web::Bytes};
use futures_util::{Stream, stream};

use super::{Answer, Asked, client, feeds, peer, since, unbuffered};
use crate::{
    delivery::{
        dialect::sse::Sse,
        feed::{Handle, Request},
        policy::Policy,
        subscription::MAX_LINGER_MS,
    },
    http::{
        State,
        error::ApiError,
        params::{self, Params},
    },
};

/// What browsers send when they connect again.
const LAST_EVENT_ID: &str = "last-event-id";

pub async fn stream(state: State, http: HttpRequest) -> Answer {
    let mut params = Params::new(http.query_string());
    let mut asked = Asked::read(&mut params, &state.topics);
    // It is newer than what stands in the URL.
    if let Some(last) = http.headers().get(LAST_EVENT_ID).filter(|last| !last.is_empty()) {
        match last.to_str().ok().and_then(|text| since(text, &state.topics)) {
            Some(from) => asked.from = from,
            None => params.fault("Last-Event-ID: not a cursor of this service"),
        }
    }
    let policy = params.one("policy", "disconnect or skip", |text| match text {
        "disconnect" => Some(Policy::Disconnect),
        "skip" => Some(Policy::Skip),
        _ => None,
    });
    let linger_ms = params.one("linger_ms", "a number from 0 to 1000", |text| {
        params::number(text)
            .and_then(|linger| u16::try_from(linger).ok())
            .filter(|linger| *linger <= MAX_LINGER_MS)
    });
    for wanted in &mut asked.wanted {
        wanted.policy = policy.unwrap_or_default();
        wanted.linger_ms = linger_ms.unwrap_or_default();
    }
    params.finish()?;
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CONTENT_TYPE, "text/event-stream; charset=utf-8"));
    unbuffered(&mut response);
    if http.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let Asked { wanted, from } = asked;
    let request = Request {
        wanted,
        from,
        dialect: &Sse,
        limit: usize::MAX,
        client: client(&state, &http),
        peer: peer(&http)?,
    };
    let handle = feeds(&http)?.begin(request).await.map_err(ApiError::from)?;
    Ok(response.streaming(chunks(handle)))
}

fn chunks(handle: Handle) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    stream::poll_fn(move |cx| {
        let chunk = handle.body.poll_chunk(cx, || handle.drained());
        chunk.map(|chunk| chunk.map(Ok))
    })
}

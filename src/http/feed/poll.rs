//! `GET /v1/poll`: a long poll, answered when there is something to say or when its time is over.

use std::{convert::Infallible, future::poll_fn, time::Duration};

use actix_web::{HttpRequest, HttpResponse, body::SizedStream, http::Method, web::Bytes};
use futures_util::stream;
use tokio::time::{Instant, timeout_at};

use super::{Answer, Asked, client, feeds, peer, unbuffered};
use crate::{
    config::read_duration,
    delivery::{dialect::plain::Plain, feed::Request, replay::Since},
    event::Cursor,
    http::{
        State,
        error::ApiError,
        params::{self, Params},
    },
};

/// How long a request may wait for its first event at most, whatever it asks for.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How long a client waits that does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(25);

/// Events of an answer when the client does not say.
const DEFAULT_LIMIT: usize = 100;

pub async fn poll(state: State, http: HttpRequest) -> Answer {
    let mut params = Params::new(http.query_string());
    let Asked { wanted, from } = Asked::read(&mut params, &state.topics);
    let accepted = format!("a duration of at most {}s, such as 25s", MAX_WAIT.as_secs());
    let wait = params
        .one("timeout", &accepted, |text| read_duration(text).filter(|wait| *wait <= MAX_WAIT));
    let max_limit = state.config.get().http.max_limit;
    let limit = params.one("limit", &format!("a number from 1 to {max_limit}"), |text| {
        params::number(text)
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| (1..=max_limit).contains(limit))
    });
    params.finish()?;
    let mut response = HttpResponse::Ok();
    unbuffered(&mut response);
    response.content_type("application/json");
    if http.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    let from_past = from != Since::Now;
    let request = Request {
        wanted,
        from,
        dialect: &Plain,
        limit,
        client: client(&state, &http),
        peer: peer(&http)?,
    };
    let latest = Instant::now() + MAX_WAIT;
    let handle = feeds(&http)?.begin(request).await.map_err(ApiError::from)?;
    // However short a client waits: what has been is its answer. Then the answer is what there is.
    let past = poll_fn(|cx| handle.body.poll_queued(from_past, cx));
    if from_past {
        drop(timeout_at(latest, past).await);
    }
    let queued = poll_fn(|cx| handle.body.poll_queued(false, cx));
    let until = Instant::now() + wait.unwrap_or(DEFAULT_WAIT);
    drop(timeout_at(until.min(latest), queued).await);
    let Some((frames, cursor)) = handle.take().await else { return Err(ApiError::ShuttingDown) };
    let pieces = pieces(frames, &cursor, handle.recovered);
    let length = pieces.iter().map(Bytes::len).sum::<usize>() as u64;
    Ok(response
        .body(SizedStream::new(length, stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)))))
}

/// `{"events":[..],"cursor":".."}`: the next poll goes on behind the cursor. In pieces, since a
/// connection copies what it is given, and keeps that room. Who may get events again is told so.
fn pieces(frames: Vec<Bytes>, cursor: &Cursor, recovered: bool) -> Vec<Bytes> {
    let mut pieces = vec![Bytes::from_static(b"{\"events\":[")];
    for frame in frames {
        if pieces.len() > 1 {
            pieces.push(Bytes::from_static(b","));
        }
        pieces.push(frame);
    }
    let again = if recovered { "" } else { ",\"recovered\":false" };
    pieces.push(format!("],\"cursor\":\"{cursor}\"{again}}}").into());
    pieces
}

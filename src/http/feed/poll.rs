//! `GET /v1/poll`: a long poll, answered when there is something to say or when its time is over.

use std::{future::poll_fn, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::Method, web::Bytes};

use super::{Answer, Asked, address, feeds, peer, unbuffered};
use crate::{
    config::read_duration,
    delivery::{
        dialect::plain::Plain,
        feed::{MAX_WAIT, Request},
        replay::Since,
    },
    event::Cursor,
    http::{
        State,
        error::ApiError,
        params::{self, Params},
    },
};

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
        address: address(&state, &http),
        peer: peer(&http)?,
    };
    let handle = feeds(&http)?.begin(request).await.map_err(ApiError::from)?;
    // However short a client waits: what has been is its answer. Then the answer is what there is.
    let past = poll_fn(|cx| handle.body.poll_queued(from_past, cx));
    if from_past {
        drop(tokio::time::timeout(MAX_WAIT, past).await);
    }
    let queued = poll_fn(|cx| handle.body.poll_queued(false, cx));
    drop(tokio::time::timeout(wait.unwrap_or(DEFAULT_WAIT), queued).await);
    let Some((frames, cursor)) = handle.take().await else { return Err(ApiError::ShuttingDown) };
    Ok(response.body(answer(&frames, &cursor)))
}

/// `{"events":[..],"cursor":".."}`: the next poll goes on behind the cursor.
fn answer(frames: &[Bytes], cursor: &Cursor) -> Vec<u8> {
    let mut out =
        Vec::with_capacity(frames.iter().map(|frame| frame.len() + 1).sum::<usize>() + 128);
    out.extend_from_slice(b"{\"events\":[");
    for (number, frame) in frames.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.extend_from_slice(frame);
    }
    out.extend_from_slice(format!("],\"cursor\":\"{cursor}\"}}").as_bytes());
    out
}

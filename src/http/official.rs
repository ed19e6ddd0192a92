//! `POST /info`: requests of the official protocol, for clients that know no other address than its own.
//!
//! Success is what [`Info`](crate::official::info::Info) answers, as it is. Faults are
//! `{"code":..,"msg":..,"data":..}`, which official clients read, or what the upstream has said.

use actix_web::{
    HttpRequest, HttpResponse, Resource,
    body::SizedStream,
    http::{StatusCode, header},
    web::{self, Bytes},
};
use futures_util::stream;
use tokio::time::timeout;

use super::{ApiState, State};
use crate::{
    client::Client,
    official::info::{InfoError, UpstreamError},
};

/// Most bytes handed to the connection at once: it keeps them until its client takes them.
const CHUNK_BYTES: usize = 32 << 10;

pub fn info_resource() -> Resource {
    web::resource("/info").route(web::post().to(info)).default_service(web::to(post_only))
}

async fn post_only() -> HttpResponse {
    let mut response = refused(InfoError::NotPosted);
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("POST"));
    response
}

/// Whatever the content type says: the body decides.
async fn info(state: State, http: HttpRequest, body: web::Payload) -> HttpResponse {
    let config = state.config.get();
    let connected = http.peer_addr().map(|address| address.ip());
    let client = Client::of(connected, http.headers(), &config.http);
    let answer = match read(&state, body).await {
        Ok(request) => state.info.answer(&request, &client).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(body) => HttpResponse::Ok()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .content_type("application/json")
            .body(SizedStream::new(body.len() as u64, chunks(body))),
        Err(error) => refused(error),
    }
}

async fn read(state: &ApiState, body: web::Payload) -> Result<Bytes, InfoError> {
    let config = state.config.get();
    let (max_bytes, patience) = (config.http.max_body_bytes, config.http.request_timeout);
    let body = timeout(patience, body.to_bytes_limited(max_bytes))
        .await
        .map_err(|_| InfoError::BodyTooSlow(patience))?;
    let body = body.map_err(|_| InfoError::BodyTooLong(max_bytes))?;
    body.map_err(|_| InfoError::BodyUnread)
}

/// Parts of an answer. All of it at once would be copied to where the connection waits for its client,
/// beyond the room that answers have.
fn chunks(body: Bytes) -> impl stream::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    stream::unfold(body, |mut left| async move {
        let next = left.split_to(CHUNK_BYTES.min(left.len()));
        (!next.is_empty()).then_some((Ok(next), left))
    })
}

fn refused(error: InfoError) -> HttpResponse {
    // The upstream's own are those of HTTP, too.
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = HttpResponse::build(status);
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.insert_header((header::RETRY_AFTER, "1"));
    }
    match error {
        InfoError::Upstream(UpstreamError::Refused(said)) => {
            if let Some(kind) = said.content_type {
                response.content_type(kind);
            }
            if let Some(wait) = said.retry_after {
                response.insert_header((header::RETRY_AFTER, wait));
            }
            response.body(said.body)
        }
        error => response.content_type("application/json").body(error.body()),
    }
}

//! `POST /events` and `GET /height` as the older service has them.
//!
//! Success is JSON, a bare array of events. Faults are one line of plain text, word for word the
//! older service's where it has the fault at all; its clients know no other form.

use actix_web::{
    HttpResponse, Resource, guard,
    http::{StatusCode, header},
    web,
};
use serde::{Deserialize, Serialize};
use slog::warn;
use tokio::time::timeout;

use super::{ApiState, State, json};
use crate::{
    delivery::dialect::encode::{self, OLDER_TOPICS},
    object,
    store::{EventQuery, StoreError},
};

/// Databases count in signed numbers; no store holds as many rows.
const MAX_OFFSET: usize = i64::MAX as usize;

/// The body of `POST /events`. What is left out counts as zero, as there, and so fails the checks
/// of `page` and `pageSize`; unknown fields are passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Request {
    start_block: u64,
    end_block: u64,
    page: i64,
    page_size: i64,
    user_address: Option<String>,
    event: Option<String>,
    order: Option<String>,
}

/// A fault in the older form.
#[derive(Debug, PartialEq, Eq)]
struct Fault(StatusCode, String);

#[derive(Serialize)]
struct Height {
    block: u64,
}

pub fn events_resource() -> Resource {
    web::resource("/events")
        .route(web::post().to(events))
        .default_service(web::to(|| method_not_allowed("POST")))
}

pub fn height_resource() -> Resource {
    web::resource("/height")
        .route(web::route().guard(guard::Any(guard::Get()).or(guard::Head())).to(height))
        .default_service(web::to(|| method_not_allowed("GET, HEAD")))
}

async fn events(state: State, body: web::Payload) -> HttpResponse {
    match answer(&state, body).await {
        Ok(body) => HttpResponse::Ok()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .content_type("application/json")
            .body(body),
        Err(fault) => fault.response(),
    }
}

async fn answer(state: &ApiState, body: web::Payload) -> Result<Vec<u8>, Fault> {
    let config = state.config.get();
    let (max_bytes, patience) = (config.http.max_body_bytes, config.http.request_timeout);
    let body = timeout(patience, body.to_bytes_limited(max_bytes)).await.map_err(|_| {
        let text = format!("the body must be here within {} ms", patience.as_millis());
        Fault(StatusCode::REQUEST_TIMEOUT, text)
    })?;
    let body = body.map_err(|_| {
        let text = format!("the body must not be longer than {max_bytes} bytes");
        Fault(StatusCode::PAYLOAD_TOO_LARGE, text)
    })?;
    let body = body.map_err(|_| bad("the body cannot be read"))?;
    // Also what is JSON but no object is called so there.
    let request: Request = object::read(&body).map_err(|_| bad("Invalid JSON"))?;
    let query = request.query(state.config.get().http.max_page_size)?;
    let events = state.store.events(query).await.map_err(|error| {
        warn!(state.logger, "history cannot be read"; "error" => %error);
        let status = match error {
            StoreError::TooSlow(_) => return bad(&error.to_string()),
            StoreError::Refused(_) | StoreError::Unusable(_) | StoreError::Denied(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Fault(status, "Failed to query events".to_owned())
    })?;
    let mut body = b"[".to_vec();
    for (ordinal, event) in events.iter().enumerate() {
        if ordinal > 0 {
            body.push(b',');
        }
        encode::older_event(event, &mut body);
    }
    body.push(b']');
    Ok(body)
}

impl Request {
    /// The checks, in the older service's order; ours follow.
    fn query(self, max_page_size: usize) -> Result<EventQuery, Fault> {
        let page = usize::try_from(self.page).ok().filter(|page| *page >= 1);
        let page = page.ok_or_else(|| bad("page must be greater than 0"))?;
        let size = usize::try_from(self.page_size).ok().filter(|size| *size >= 1);
        let size = size.ok_or_else(|| bad("size must be greater than 0"))?;
        if self.start_block > self.end_block {
            return Err(bad("startBlock must be less than or equal to endBlock"));
        }
        if size > max_page_size {
            return Err(bad(&format!("pageSize must not be greater than {max_page_size}")));
        }
        // Clients that fill in every field leave these empty.
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let users = match given(self.user_address) {
            None => Vec::new(),
            Some(text) => {
                let user = text.parse().map_err(|error| bad(&format!("userAddress: {error}")))?;
                vec![user]
            }
        };
        let topics = match given(self.event) {
            None => OLDER_TOPICS.to_vec(),
            Some(name) => {
                let topic =
                    OLDER_TOPICS.into_iter().find(|topic| encode::older_name(*topic) == name);
                vec![topic.ok_or_else(|| bad("event must be fill or misc"))?]
            }
        };
        let descending = match given(self.order).as_deref() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(_) => return Err(bad("order must be asc or desc")),
        };
        Ok(EventQuery {
            topics,
            users,
            kind: None,
            coin: None,
            positions: Some(self.start_block..=self.end_block),
            times: None,
            in_order: false,
            descending,
            after: None,
            limit: size,
            // A page beyond all numbers is as empty as one beyond the last row.
            offset: (page - 1).saturating_mul(size).min(MAX_OFFSET),
        })
    }
}

/// The highest block read: seen in this run, or known from the store.
async fn height(state: State) -> HttpResponse {
    json(HttpResponse::Ok(), &Height { block: highest_block(&state) })
}

/// Also what the store knew at the start counts: before the first line there is no other height.
pub fn highest_block(state: &ApiState) -> u64 {
    let seen = u64::try_from(state.stats.router.height.get()).unwrap_or(0);
    state.log.head().positions.iter().map(|(_, position)| *position).fold(seen, u64::max)
}

async fn method_not_allowed(allow: &'static str) -> HttpResponse {
    let fault = Fault(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed".to_owned());
    let mut response = fault.response();
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allow));
    response
}

fn bad(text: &str) -> Fault {
    Fault(StatusCode::BAD_REQUEST, text.to_owned())
}

impl Fault {
    fn response(&self) -> HttpResponse {
        HttpResponse::build(self.0)
            .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .content_type("text/plain; charset=utf-8")
            .body(format!("{}\n", self.1))
    }
}

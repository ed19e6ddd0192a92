//! NDJSON: a whole range of history as one answer, one event a line.
//!
//! Invariants: the store is read page by page, only as fast as the client reads, and nothing of it
//! is held in between; an answer that ends without its last line (`"type":"end"`) is not whole.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    web::Bytes,
};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    State,
    error::ApiError,
    history::{Cursors, NDJSON, Page, Request, place, read_page},
};
use crate::store::EventQuery;

/// Exports at one time, each with a page in memory.
const MAX_EXPORTS: usize = 64;

/// Rows of one read: some hundred kilobytes at real sizes.
const PAGE_ROWS: usize = 256;

/// The places for exports that are under way.
#[derive(Clone, Debug)]
pub struct Exports(Arc<Semaphore>);

impl Default for Exports {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_EXPORTS)))
    }
}

impl Exports {
    /// Exports under way, for status.
    pub fn open(&self) -> usize {
        MAX_EXPORTS - self.0.available_permits()
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.0.clone().try_acquire_owned().map_err(|_| ApiError::Busy(MAX_EXPORTS))
    }
}

/// One export, between two reads.
struct Export {
    state: State,
    query: EventQuery,
    cursors: Cursors,
    /// Rows that may still be sent; `None`: to the end of the range.
    left: Option<usize>,
    /// A page that was read and not sent.
    page: Option<Page>,
    _place: OwnedSemaphorePermit,
}

/// Starts an export. The first page is read before the answer begins, so that a store which does
/// not answer is told by the status.
pub async fn answer(
    state: &State,
    http: &HttpRequest,
    request: Request,
) -> Result<HttpResponse, ApiError> {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::VARY, "accept"))
        .content_type(NDJSON);
    if http.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let mut export = Export {
        state: state.clone(),
        query: request.query,
        cursors: request.cursors,
        left: request.limit,
        page: None,
        _place: state.exports.enter()?,
    };
    export.page = Some(export.read().await?);
    Ok(response.streaming(stream::unfold(Some(export), step)))
}

/// Encodes one page and reads the next when the client has taken it.
async fn step(export: Option<Export>) -> Option<(Result<Bytes, ApiError>, Option<Export>)> {
    let mut export = export?;
    let page = match export.page.take() {
        Some(page) => page,
        None => match export.read().await {
            Ok(page) => page,
            // The head of the answer has left: the fault is told in the last line.
            Err(error) => return Some((Ok(export.failed(&error)), None)),
        },
    };
    let mut lines = Vec::new();
    for event in &page.events {
        export.cursors.write_event(event, &mut lines);
        lines.push(b'\n');
    }
    if let Some(last) = page.events.last() {
        export.query.after = Some(place(last));
    }
    export.left = export.left.map(|left| left - page.events.len());
    if page.more && export.left != Some(0) {
        return Some((Ok(lines.into()), Some(export)));
    }
    let end = format!("{{\"type\":\"end\",{}}}\n", export.cursors.places(&page));
    lines.extend_from_slice(end.as_bytes());
    Some((Ok(lines.into()), None))
}

impl Export {
    async fn read(&self) -> Result<Page, ApiError> {
        let rows = self.left.map_or(PAGE_ROWS, |left| left.min(PAGE_ROWS));
        read_page(&self.state, self.query.clone(), rows).await
    }

    /// The last line of an export that broke off: the error, and where to go on.
    fn failed(&self, error: &ApiError) -> Bytes {
        let place = self.cursors.at(self.query.after);
        let next = place.map_or("null".to_owned(), |place| format!("\"{place}\""));
        let resume = &self.cursors.resume;
        let (code, message) = (error.code(), serde_json::Value::from(error.to_string()));
        format!(
            "{{\"type\":\"error\",\"code\":\"{code}\",\"message\":{message},\
             \"next\":{next},\"resume\":\"{resume}\"}}\n"
        )
        .into()
    }
}

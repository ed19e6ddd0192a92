//! NDJSON: a whole range of history as one answer, one event a line.
//!
//! Invariants: the store is read page by page, only as fast as the client reads, and nothing of it
//! is held in between; an answer that ends without its last line (`"type":"end"`) is not whole. A
//! client that takes nothing loses its connection, see [`crate::delivery::peer`], and its place with that.

use std::{convert::Infallible, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    web::{Bytes, BytesMut},
};
use futures_util::{Stream, stream};
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

/// Most bytes handed to the connection at once: it keeps them until its client takes them.
const CHUNK_BYTES: usize = 32 << 10;

/// The places for exports that are under way.
#[derive(Clone, Debug)]
pub struct Exports {
    places: Arc<Semaphore>,
    max_open: usize,
}

impl Default for Exports {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(MAX_EXPORTS)), max_open: MAX_EXPORTS }
    }
}

impl Exports {
    /// Exports under way, for status.
    pub fn open(&self) -> usize {
        self.max_open - self.places.available_permits()
    }

    /// How many there may be at one time.
    pub fn max_open(&self) -> usize {
        self.max_open
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.places.clone().try_acquire_owned().map_err(|_| ApiError::Busy(self.max_open))
    }
}

/// One export, between two chunks.
struct Export {
    state: State,
    query: EventQuery,
    cursors: Cursors,
    /// Rows that may still be sent; `None`: to the end of the range.
    left: Option<usize>,
    /// Lines that the connection has not taken yet.
    lines: BytesMut,
    /// The last line is among `lines`.
    ended: bool,
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
        lines: BytesMut::new(),
        ended: false,
        _place: state.exports.enter()?,
    };
    let page = export.read().await?;
    export.add(&page);
    Ok(response.streaming(chunks(export)))
}

fn chunks(export: Export) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(export, async |mut export| {
        let chunk = export.next().await?;
        Some((Ok(chunk), export))
    })
}

impl Export {
    /// The next bytes for the connection; `None` behind the last line.
    async fn next(&mut self) -> Option<Bytes> {
        if self.lines.is_empty() {
            if self.ended {
                return None;
            }
            match self.read().await {
                Ok(page) => self.add(&page),
                // The head of the answer has left: the fault is told in the last line.
                Err(error) => self.fail(&error),
            }
        }
        Some(self.lines.split_to(self.lines.len().min(CHUNK_BYTES)).freeze())
    }

    async fn read(&self) -> Result<Page, ApiError> {
        let rows = self.left.map_or(PAGE_ROWS, |left| left.min(PAGE_ROWS));
        read_page(&self.state, self.query.clone(), rows).await
    }

    /// Encodes a page, and the last line when it ends the range or the limit.
    fn add(&mut self, page: &Page) {
        let mut lines = Vec::new();
        for event in &page.events {
            self.cursors.write_event(event, &mut lines);
            lines.push(b'\n');
        }
        if let Some(last) = page.events.last() {
            self.query.after = Some(place(last));
        }
        self.left = self.left.map(|left| left - page.events.len());
        if !page.more || self.left == Some(0) {
            let end = format!("{{\"type\":\"end\",{}}}\n", self.cursors.places(page));
            lines.extend_from_slice(end.as_bytes());
            self.ended = true;
        }
        self.lines = Bytes::from(lines).into();
    }

    /// The last line of an export that broke off: the error, and where to go on.
    fn fail(&mut self, error: &ApiError) {
        let place = self.cursors.at(self.query.after);
        let next = place.map_or("null".to_owned(), |place| format!("\"{place}\""));
        let resume = &self.cursors.resume;
        let (code, message) = (error.code(), serde_json::Value::from(error.to_string()));
        let line = format!(
            "{{\"type\":\"error\",\"code\":\"{code}\",\"message\":{message},\
             \"next\":{next},\"resume\":\"{resume}\"}}\n"
        );
        self.lines = line.as_bytes().into();
        self.ended = true;
    }
}

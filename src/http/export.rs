//! NDJSON: a whole range of history as one answer, one event a line.
//!
//! Invariants: the store is read page by page, only as fast as the client reads, and nothing of it
//! is held in between; an answer that ends without its last line (`"type":"end"`) is not whole; a
//! client that takes nothing keeps no place for long.

use std::{
    cell::RefCell,
    io,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    rt::{self, task::JoinHandle},
    web::{Bytes, BytesMut},
};
use futures_util::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    State,
    error::ApiError,
    history::{Cursors, NDJSON, Page, Request, place, read_page},
};
use crate::store::EventQuery;

/// Exports at one time, each with a page in memory.
const MAX_EXPORTS: usize = 64;

/// How long a client may take nothing. Bodies are polled only while their client reads, so the
/// time runs outside of the body.
const MAX_IDLE: Duration = Duration::from_secs(60);

/// Rows of one read: some hundred kilobytes at real sizes.
const PAGE_ROWS: usize = 256;

/// Most bytes handed to the connection at once. It keeps them until its client takes them, also
/// when the export was given up.
const CHUNK_BYTES: usize = 32 << 10;

/// The places for exports that are under way.
#[derive(Clone, Debug)]
pub struct Exports {
    places: Arc<Semaphore>,
    max_open: usize,
    max_idle: Duration,
}

impl Default for Exports {
    fn default() -> Self {
        Self::new(MAX_EXPORTS, MAX_IDLE)
    }
}

impl Exports {
    pub fn new(max_open: usize, max_idle: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(max_open)), max_open, max_idle }
    }

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
    /// When the connection took the last chunk.
    taken_at: Instant,
    _place: OwnedSemaphorePermit,
}

/// Where an export waits for its client; empty while a page is read, and when it was given up.
type Slot = RefCell<Option<Export>>;

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
        taken_at: Instant::now(),
        _place: state.exports.enter()?,
    };
    let page = export.read().await?;
    export.add(&page);
    Ok(response.streaming(chunks(export, state.exports.max_idle)))
}

/// The body of the answer. An error ends it without the end of its encoding, which shows the
/// client that it is not whole.
fn chunks(export: Export, max_idle: Duration) -> impl Stream<Item = io::Result<Bytes>> {
    let slot = Rc::new(RefCell::new(Some(export)));
    let reaper = Reaper(rt::spawn(give_up_when_idle(Rc::downgrade(&slot), max_idle)));
    stream::try_unfold((slot, reaper), async |(slot, reaper)| {
        let taken = slot.borrow_mut().take();
        let Some(mut export) = taken else {
            return Err(io::Error::other("the client took nothing for too long"));
        };
        let Some(chunk) = export.next().await else { return Ok(None) };
        slot.replace(Some(export));
        Ok(Some((chunk, (slot, reaper))))
    })
}

/// Frees the place and the page of an export whose client has stalled.
async fn give_up_when_idle(slot: Weak<Slot>, max_idle: Duration) {
    let mut look_again = Instant::now() + max_idle;
    loop {
        tokio::time::sleep_until(look_again).await;
        let Some(slot) = slot.upgrade() else { return };
        let taken_at = slot.borrow().as_ref().map(|export| export.taken_at);
        // Without an export in its slot the store is being read: that is not the client's time.
        look_again = taken_at.unwrap_or_else(Instant::now) + max_idle;
        if look_again <= Instant::now() {
            slot.replace(None);
            return;
        }
    }
}

/// Ends the watch over an export with the export.
struct Reaper(JoinHandle<()>);

impl Drop for Reaper {
    fn drop(&mut self) {
        self.0.abort();
    }
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
        self.taken_at = Instant::now();
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

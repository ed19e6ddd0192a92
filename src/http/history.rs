//! `GET /v1/events`: history by topic, user, coin, block and time, in JSON pages or as NDJSON.
//!
//! Order: by block, then by arrival (`seq`); `next` is the place at which a page ends, so pages
//! neither repeat nor skip, whatever their limits.

use actix_web::{HttpRequest, HttpResponse, http::header};
use slog::warn;

use super::{
    ApiState, State,
    error::ApiError,
    export,
    page::PageCursor,
    params::{self, Params},
};
use crate::{
    delivery::dialect::encode,
    event::{Address, Cursor, SequencedEvent, Timestamp},
    store::{EventQuery, PageKey},
};

/// Rows of a page when the client does not say.
const DEFAULT_LIMIT: usize = 100;

/// Most users of one query: more belong into several queries, or into a subscription.
const MAX_USERS: usize = 500;

/// Longest name of a coin. Real ones have at most a few dozen characters.
const MAX_COIN_BYTES: usize = 128;

pub const NDJSON: &str = "application/x-ndjson";

/// What a client asked for.
pub struct Request {
    /// Without its limit.
    pub query: EventQuery,
    pub limit: Option<usize>,
    pub cursors: Cursors,
}

/// Makes the cursors of an answer.
pub struct Cursors {
    descending: bool,
    /// Where a subscription goes on behind these pages.
    pub resume: Cursor,
}

/// One read of the store.
pub struct Page {
    pub events: Vec<SequencedEvent>,
    /// Whether more lies behind.
    pub more: bool,
}

pub async fn events(state: State, http: HttpRequest) -> Result<HttpResponse, ApiError> {
    let ndjson = wants_ndjson(&http);
    let request = Request::read(http.query_string(), ndjson, &state)?;
    if ndjson {
        return export::answer(&state, &http, request).await;
    }
    let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
    let page = read_page(&state, request.query, limit).await?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::VARY, "accept"))
        .content_type("application/json")
        .body(request.cursors.json_page(&page)))
}

/// NDJSON is for those who name it; everybody else gets JSON.
fn wants_ndjson(http: &HttpRequest) -> bool {
    let accept = http.headers().get_all(header::ACCEPT).filter_map(|value| value.to_str().ok());
    accept
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|kind| kind.trim().eq_ignore_ascii_case(NDJSON))
}

/// Reads one page and tells whether more lies behind it.
pub async fn read_page(
    state: &ApiState,
    mut query: EventQuery,
    limit: usize,
) -> Result<Page, ApiError> {
    // One row more than asked for: only so is `next` null exactly at the end.
    query.limit = limit.saturating_add(1);
    let mut events = state.store.events(query).await.map_err(|error| {
        warn!(state.logger, "history cannot be read"; "error" => %error);
        ApiError::from(error)
    })?;
    let more = events.len() > limit;
    events.truncate(limit);
    Ok(Page { events, more })
}

impl Request {
    fn read(text: &str, ndjson: bool, state: &ApiState) -> Result<Self, ApiError> {
        let mut params = Params::new(text);
        let topic_names: Vec<&str> = state.topics.iter().map(|topic| topic.as_str()).collect();
        let topics = params.all("topic", &topic_names.join(" or "), |name| {
            state.topics.iter().copied().find(|topic| topic.as_str() == name)
        });
        let users = params.all("user", "0x and 40 hexadecimal digits", |text| text.parse().ok());
        let coin = params.one("coin", "the name of a coin, such as BTC", |name| {
            (1..=MAX_COIN_BYTES).contains(&name.len()).then(|| name.to_owned())
        });
        let from_block = params.one("from_block", "a block number", params::number);
        let to_block = params.one("to_block", "a block number", params::number);
        let from_time = params.one("from_time", params::TIME, params::time);
        let to_time = params.one("to_time", params::TIME, params::time);
        let order = params.one("order", "asc or desc", |order| match order {
            "asc" => Some(false),
            "desc" => Some(true),
            _ => None,
        });
        let descending = order.unwrap_or_default();
        // An export has no page in memory, so it needs no upper limit.
        let max_limit = if ndjson { usize::MAX } else { state.config.get().http.max_limit };
        let limits = if ndjson {
            "a number from 1".to_owned()
        } else {
            format!("a number from 1 to {max_limit}")
        };
        let limit = params.one("limit", &limits, |text| {
            let limit = usize::try_from(params::number(text)?).ok()?;
            (1..=max_limit).contains(&limit).then_some(limit)
        });
        let after = params.one("after", "the `next` of an earlier answer", |text| {
            PageCursor::parse(text, &state.topics).ok()
        });
        if users.len() > MAX_USERS {
            params.fault(format!("user: {} given, at most {MAX_USERS} are accepted", users.len()));
        }
        if let (Some(from), Some(to)) = (from_block, to_block)
            && from > to
        {
            params.fault("from_block: lies above to_block");
        }
        if let (Some(from), Some(to)) = (from_time, to_time)
            && from > to
        {
            params.fault("from_time: lies after to_time");
        }
        if let Some(after) = &after {
            if after.descending != descending {
                params.fault("after: belongs to the other order, repeat the order of its answer");
            }
            if after.resume.epoch != state.run.epoch {
                params.fault("after: belongs to another store, start again without it");
            }
        }
        params.finish()?;
        // Taken before the store is read, so that nothing falls between history and live.
        let (after, resume) = match after {
            Some(after) => (Some(after.key), after.resume),
            None => (None, state.log.committed_head()),
        };
        let query = EventQuery {
            topics,
            users: distinct(users),
            kind: None,
            coin,
            positions: (from_block.is_some() || to_block.is_some())
                .then(|| from_block.unwrap_or(0)..=to_block.unwrap_or(u64::MAX)),
            times: (from_time.is_some() || to_time.is_some()).then(|| {
                from_time.unwrap_or(Timestamp(i64::MIN))..=to_time.unwrap_or(Timestamp(i64::MAX))
            }),
            in_order: false,
            descending,
            after,
            limit: 0,
            offset: 0,
        };
        Ok(Self { query, limit, cursors: Cursors { descending, resume } })
    }
}

fn distinct(mut users: Vec<Address>) -> Vec<Address> {
    users.sort_unstable();
    users.dedup();
    users
}

impl Cursors {
    /// Where the next page goes on; `None` at the end.
    fn next(&self, page: &Page) -> Option<PageCursor> {
        self.at(page.events.last().filter(|_| page.more).map(place))
    }

    /// The place as clients see it.
    pub fn at(&self, key: Option<PageKey>) -> Option<PageCursor> {
        let (descending, resume) = (self.descending, self.resume.clone());
        Some(PageCursor { descending, key: key?, resume })
    }

    /// Writes an event as a live frame shows it. Its cursor knows its own topic only: a live frame
    /// also tells how far the others had come.
    pub fn write_event(&self, event: &SequencedEvent, out: &mut Vec<u8>) {
        let id = &event.event.id;
        let cursor = Cursor {
            epoch: self.resume.epoch,
            run: self.resume.run,
            seq: event.seq,
            positions: vec![(id.topic, id.position)],
        };
        encode::native_event(event, &cursor, true, out);
    }

    fn json_page(&self, page: &Page) -> Vec<u8> {
        let mut body = b"{\"events\":[".to_vec();
        for (ordinal, event) in page.events.iter().enumerate() {
            if ordinal > 0 {
                body.push(b',');
            }
            self.write_event(event, &mut body);
        }
        body.extend_from_slice(b"],");
        body.extend_from_slice(self.places(page).as_bytes());
        body.push(b'}');
        body
    }

    /// `"next":"..","resume":".."`. Cursors need no escapes.
    pub fn places(&self, page: &Page) -> String {
        let next = self.next(page).map_or("null".to_owned(), |next| format!("\"{next}\""));
        format!("\"next\":{next},\"resume\":\"{}\"", self.resume)
    }
}

/// The place of an event in the order of history.
pub fn place(event: &SequencedEvent) -> PageKey {
    PageKey { position: event.event.id.position, seq: event.seq }
}

//! The HTTP routes over a store in memory that answers queries exactly.

// The helpers of tests are tests too, which clippy's own exception does not see.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use actix_web::{
    App, HttpServer,
    body::MessageBody,
    dev::ServiceResponse,
    http::{Method, StatusCode, header},
    test::{self, TestRequest},
};
use async_trait::async_trait;
use bytes::Bytes;
use nodecast::{
    config::{Config, HttpConfig, LiveConfig},
    event::{Address, Event, EventId, Keys, SequencedEvent, Timestamp, Topic},
    http::{ApiState, Exports, routes},
    official::info::Info,
    router::log::{Heads, Log},
    stats::Stats,
    store::{
        Arrivals, EventQuery, EventStore, PageKey, ReadConnections, Recovered, Run, StoreError,
        StoreSize, StoreWriter,
    },
    whitelist::{Listing, Whitelist, WhitelistState},
};
use proptest::prelude::*;
use serde_json::Value;
use slog::{Discard, Logger, o};

const FILLS: Topic = Topic::new("fills");
const MISC: Topic = Topic::new("misc");
const NDJSON: (header::HeaderName, &str) = (header::ACCEPT, "application/x-ndjson");

/// Rows in memory, with the filters and orders that the trait promises.
#[derive(Default)]
struct MemoryStore {
    rows: Vec<SequencedEvent>,
    /// Reads that still succeed; each later one finds the store away.
    reads_left: Option<AtomicUsize>,
    /// Highest limit of any query.
    largest_read: Mutex<usize>,
}

#[async_trait]
impl EventStore for MemoryStore {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn read_connections(&self) -> ReadConnections {
        ReadConnections::default()
    }

    async fn open_writer(&self) -> Result<(Box<dyn StoreWriter>, Recovered), StoreError> {
        unreachable!("routes do not write")
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<SequencedEvent>, StoreError> {
        if let Some(left) = &self.reads_left
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err()
        {
            return Err(StoreError::Unavailable("cut".to_owned()));
        }
        // What a database can count.
        assert!(i64::try_from(query.limit).is_ok() && i64::try_from(query.offset).is_ok());
        let mut largest = self.largest_read.lock().unwrap();
        *largest = query.limit.max(*largest);
        let mut rows: Vec<_> = self.rows.iter().filter(|row| matches(row, &query)).collect();
        rows.sort_by_key(|row| key(row));
        if query.descending {
            rows.reverse();
        }
        Ok(rows.into_iter().skip(query.offset).take(query.limit).cloned().collect())
    }

    async fn arrivals(&self, _after: u64, _limit: usize) -> Result<Arrivals, StoreError> {
        unreachable!("routes resume nothing")
    }

    async fn stored(&self, _ids: Vec<EventId>) -> Result<HashSet<EventId>, StoreError> {
        unreachable!("routes do not ask for identities")
    }

    async fn size(&self) -> Result<StoreSize, StoreError> {
        Ok(StoreSize { bytes: 4_096, ..StoreSize::default() })
    }
}

fn matches(row: &SequencedEvent, query: &EventQuery) -> bool {
    let event = &row.event;
    let behind = |after: PageKey| match query.descending {
        false => key(row) > after,
        true => key(row) < after,
    };
    (query.topics.is_empty() || query.topics.contains(&event.id.topic))
        && (query.users.is_empty() || event.user.is_some_and(|user| query.users.contains(&user)))
        && query.kind.is_none_or(|kind| event.kind() == Some(kind))
        && query.coin.as_deref().is_none_or(|coin| event.key("coin") == Some(coin))
        && query.positions.as_ref().is_none_or(|range| range.contains(&event.id.position))
        && query.times.as_ref().is_none_or(|range| range.contains(&event.time))
        && query.after.is_none_or(behind)
}

fn key(row: &SequencedEvent) -> PageKey {
    PageKey { position: row.event.id.position, seq: row.seq }
}

fn user(number: u8) -> Address {
    Address([number; 20])
}

/// The event of `seq`: its time is its block in seconds.
fn row(seq: u64, topic: Topic, block: u64, of: u8, coin: &str) -> SequencedEvent {
    let body = format!(r#"{{"coin":"{coin}","px":"12817942.2417900003","n":{seq}}}"#);
    let at = 9..9 + coin.len() as u32;
    SequencedEvent {
        seq,
        late: false,
        event: Event {
            id: EventId { topic, position: block, index: seq as u32, part: 0 },
            time: Timestamp(block as i64 * 1_000_000),
            user: Some(user(of)),
            keys: Keys::new([("coin", at)]),
            body: Bytes::from(body),
        },
    }
}

/// Two topics, two users, blocks of several events, and a late one: seq 7 is of an early block.
fn sample() -> Vec<SequencedEvent> {
    vec![
        row(1, FILLS, 10, 1, "BTC"),
        row(2, FILLS, 10, 2, "BTC"),
        row(3, MISC, 10, 1, "ETH"),
        row(4, FILLS, 11, 1, "ETH"),
        row(5, MISC, 12, 2, "BTC"),
        row(6, FILLS, 13, 1, "BTC"),
        row(7, FILLS, 11, 2, "BTC"),
    ]
}

fn state(store: MemoryStore) -> Arc<ApiState> {
    state_of(Arc::new(store))
}

fn state_of(store: Arc<MemoryStore>) -> Arc<ApiState> {
    let heads = Heads { epoch: 0xe, run: 0xa, positions: vec![(FILLS, 13)] };
    let (stats, log) = (Arc::<Stats>::default(), Log::new(1 << 20, 7, heads));
    let config = Arc::new(LiveConfig::new(Config {
        http: HttpConfig { max_body_bytes: 1_024, ..HttpConfig::default() },
        ..Config::default()
    }));
    let logger = Logger::root(Discard, o!());
    let info = Info::new(
        store.clone(),
        log.clone(),
        config.clone(),
        Listing::unchanging(Whitelist::all()),
        stats.clone(),
        logger.clone(),
    );
    Arc::new(ApiState {
        store,
        stats,
        log,
        config,
        info: Arc::new(info),
        budgets: Vec::new(),
        topics: vec![FILLS, MISC],
        nodes: Vec::new(),
        whitelist: Box::new(|| WhitelistState {
            size: None,
            sources: Vec::new(),
            started: Timestamp::now(),
        }),
        run: Run { id: 0xa, epoch: 0xe },
        started: Timestamp::now(),
        exports: Exports::default(),
        logger,
    })
}

struct Answer {
    status: StatusCode,
    headers: header::HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn lines(&self) -> Vec<Value> {
        self.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

async fn ask(state: &Arc<ApiState>, request: TestRequest) -> Answer {
    let app = test::init_service(App::new().configure(routes(state.clone()))).await;
    let response = test::call_service(&app, request.to_request()).await;
    read(response).await
}

async fn read(response: ServiceResponse<impl MessageBody>) -> Answer {
    let (status, headers) = (response.status(), response.headers().clone());
    let body = String::from_utf8(test::read_body(response).await.to_vec()).unwrap();
    Answer { status, headers, body }
}

async fn get(state: &Arc<ApiState>, uri: &str) -> Answer {
    ask(state, TestRequest::get().uri(uri)).await
}

async fn post_events(state: &Arc<ApiState>, body: &str) -> Answer {
    ask(state, TestRequest::post().uri("/events").set_payload(body.to_owned())).await
}

/// The `seq` of each event of an answer.
fn seqs(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

async fn history(state: &Arc<ApiState>, query: &str) -> Vec<u64> {
    let answer = get(state, &format!("/v1/events?{query}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    seqs(answer.json()["events"].as_array().unwrap())
}

// The route of the official protocol.

async fn post_info(state: &Arc<ApiState>, body: &str) -> Answer {
    ask(state, TestRequest::post().uri("/info").set_payload(body.to_owned())).await
}

#[actix_rt::test]
async fn info_answers_rows_and_says_what_is_wrong_in_the_words_of_its_clients() {
    let state = state(MemoryStore { rows: sample(), ..MemoryStore::default() });
    let request = format!(r#"{{"type":"userFills","user":"{}"}}"#, user(2));

    let answer = post_info(&state, &request).await;

    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.header(header::CONTENT_TYPE), "application/json");
    assert_eq!(answer.header(header::CACHE_CONTROL), "no-store");
    let fills = answer.json();
    let numbers: Vec<_> = fills.as_array().unwrap().iter().map(|fill| &fill["n"]).collect();
    assert_eq!(numbers, [7, 2], "{}", answer.body);
    for (status, code, body) in [
        (400, "invalid_json", "userFills".to_owned()),
        (422, "invalid_request", r#"{"type":"userFills"}"#.to_owned()),
        (422, "unsupported_type", r#"{"type":"allMids"}"#.to_owned()),
        (413, "unread_body", " ".repeat(1_025)),
    ] {
        let answer = post_info(&state, &body).await;
        let error = answer.json();
        assert_eq!((answer.status.as_u16(), &error["data"]), (status, &code.into()));
        assert_eq!(error["code"], status);
        assert!(answer.json()["msg"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(answer.header(header::CONTENT_TYPE), "application/json");
    }
    for method in [Method::GET, Method::PUT] {
        let answer = ask(&state, TestRequest::default().method(method).uri("/info")).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.header(header::ALLOW), "POST");
        assert_eq!(answer.json()["data"], "method_not_allowed");
    }
}

#[actix_rt::test]
async fn info_never_answers_with_nothing_because_the_store_is_away() {
    let rows = sample();
    let away =
        MemoryStore { rows, reads_left: Some(AtomicUsize::new(0)), ..MemoryStore::default() };
    let state = state(away);

    let answer =
        post_info(&state, &format!(r#"{{"type":"userFunding","user":"{}"}}"#, user(1))).await;

    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["data"], "unavailable");
    assert_eq!(answer.header(header::RETRY_AFTER), "1");
    assert_eq!(post_info(&state, r#"{"type":"meta"}"#).await.body, r#"{"universe":[]}"#);
}

// The older service's routes.

#[actix_rt::test]
async fn the_older_route_answers_an_array_of_its_four_fields_by_block_and_insertion() {
    // H35, H36. The late event of block 11 stands behind the other one of its block.
    let state = state(MemoryStore { rows: sample(), ..MemoryStore::default() });

    let answer =
        post_events(&state, r#"{"startBlock":10,"endBlock":11,"page":1,"pageSize":10}"#).await;

    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header(header::CONTENT_TYPE), "application/json");
    let expected = [(1, "fill", 10, 1), (2, "fill", 10, 2), (1, "misc", 10, 3), (1, "fill", 11, 4)]
        .into_iter()
        .chain([(2, "fill", 11, 7)])
        .map(|(of, event, block, n)| {
            let coin = if n == 3 || n == 4 { "ETH" } else { "BTC" };
            let data = format!(r#"{{"coin":"{coin}","px":"12817942.2417900003","n":{n}}}"#);
            let user = user(of);
            format!(r#"{{"user":"{user}","event":"{event}","block":{block},"data":{data}}}"#)
        })
        .collect::<Vec<_>>()
        .join(",");
    assert_eq!(answer.body, format!("[{expected}]"));
}

#[actix_rt::test]
async fn the_older_route_takes_user_event_and_order() {
    // H38.
    let state = state(MemoryStore { rows: sample(), ..MemoryStore::default() });
    let base = r#""startBlock":0,"endBlock":99,"page":1,"pageSize":10"#;

    for (more, expected) in [
        (format!(r#""userAddress":"{}""#, user(2).to_string().to_uppercase()), vec![2, 7, 5]),
        (r#""event":"misc""#.to_owned(), vec![3, 5]),
        (r#""event":"fill","order":"desc""#.to_owned(), vec![6, 7, 4, 2, 1]),
        (r#""event":"","userAddress":"","order":"""#.to_owned(), vec![1, 2, 3, 4, 7, 5, 6]),
    ] {
        let answer = post_events(&state, &format!("{{{base},{more}}}")).await;

        let numbers: Vec<u64> = answer
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["data"]["n"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers, expected, "{more}");
    }
}

#[actix_rt::test]
async fn numbered_pages_neither_repeat_nor_skip() {
    // H38.
    let state = state(MemoryStore { rows: sample(), ..MemoryStore::default() });
    let mut numbers = Vec::new();

    for page in 1..=4 {
        let body = format!(r#"{{"startBlock":0,"endBlock":99,"page":{page},"pageSize":2}}"#);
        let answer = post_events(&state, &body).await;
        let events = answer.json();
        numbers.extend(events.as_array().unwrap().iter().map(|e| e["data"]["n"].as_u64().unwrap()));
    }

    assert_eq!(numbers, [1, 2, 3, 4, 7, 5, 6]);
    // The offset of this page is beyond what a database can count.
    let beyond = r#"{"startBlock":0,"endBlock":99,"page":9223372036854775807,"pageSize":1000}"#;
    assert_eq!(post_events(&state, beyond).await.body, "[]");
}

#[actix_rt::test]
async fn faults_of_the_older_route_are_its_own_plain_texts() {
    // H37, H38.
    let state = state(MemoryStore::default());
    for (body, text) in [
        (r#"{"startBlock":1,"endBlock":2,"page":0,"pageSize":1}"#, "page must be greater than 0"),
        (r#"{"startBlock":1,"endBlock":2,"pageSize":1}"#, "page must be greater than 0"),
        (r#"{"startBlock":1,"endBlock":2,"page":1,"pageSize":-1}"#, "size must be greater than 0"),
        (r#"{"startBlock":1,"endBlock":2,"page":1}"#, "size must be greater than 0"),
        (
            r#"{"startBlock":3,"endBlock":2,"page":1,"pageSize":1}"#,
            "startBlock must be less than or equal to endBlock",
        ),
        (
            r#"{"startBlock":1,"endBlock":2,"page":1,"pageSize":1001}"#,
            "pageSize must not be greater than 1000",
        ),
        (
            r#"{"startBlock":1,"endBlock":2,"page":1,"pageSize":1,"userAddress":"0x1"}"#,
            "userAddress: an address is 0x and 40 hexadecimal digits",
        ),
        (
            r#"{"startBlock":1,"endBlock":2,"page":1,"pageSize":1,"event":"fills"}"#,
            "event must be fill or misc",
        ),
        (
            r#"{"startBlock":1,"endBlock":2,"page":1,"pageSize":1,"order":"up"}"#,
            "order must be asc or desc",
        ),
        (r#"{"startBlock":"1"}"#, "Invalid JSON"),
        (r#"{"startBlock":-1,"endBlock":2,"page":1,"pageSize":1}"#, "Invalid JSON"),
        ("[0,2000000000,1,1]", "Invalid JSON"),
        ("null", "Invalid JSON"),
        ("{", "Invalid JSON"),
        ("", "Invalid JSON"),
    ] {
        let answer = post_events(&state, body).await;

        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer.body, format!("{text}\n"), "{body}");
        assert_eq!(answer.header(header::CONTENT_TYPE), "text/plain; charset=utf-8");
    }
}

#[actix_rt::test]
async fn other_methods_of_the_older_routes_answer_405_with_allow() {
    // H37.
    let state = state(MemoryStore::default());
    for (method, path, allow) in [
        (Method::GET, "/events", "POST"),
        (Method::DELETE, "/events", "POST"),
        (Method::POST, "/height", "GET, HEAD"),
    ] {
        let answer = ask(&state, TestRequest::with_uri(path).method(method)).await;

        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(answer.header(header::ALLOW), allow);
        assert_eq!(answer.body, "Method not allowed\n");
    }
}

#[actix_rt::test]
async fn a_body_over_the_limit_answers_413() {
    let state = state(MemoryStore::default());

    let fits = post_events(&state, &" ".repeat(1_024)).await;
    let over = post_events(&state, &" ".repeat(1_025)).await;

    assert_eq!(fits.status, StatusCode::BAD_REQUEST);
    assert_eq!(over.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(over.body, "the body must not be longer than 1024 bytes\n");
}

#[actix_rt::test]
async fn the_height_is_the_highest_block_read() {
    // H39.
    let state = state(MemoryStore::default());
    state.stats.router.height.raise(923_950_857);

    let answer = get(&state, "/height").await;

    assert_eq!(answer.body, r#"{"block":923950857}"#);
}

// History.

#[actix_rt::test]
async fn history_shows_events_as_live_frames_do() {
    let state = state(MemoryStore { rows: sample(), ..MemoryStore::default() });

    let answer = get(&state, "/v1/events?limit=1").await;

    let user = user(1);
    assert_eq!(
        answer.body,
        format!(
            r#"{{"events":[{{"type":"event","topic":"fills","cursor":"1.e.a.1.fills-a","seq":1,"block":10,"index":1,"part":0,"time":10000000,"user":"{user}","late":false,"replayed":true,"data":{{"coin":"BTC","px":"12817942.2417900003","n":1}}}}],"next":"1.a.a.1~1.e.a.7.fills-d","resume":"1.e.a.7.fills-d"}}"#
        )
    );
}

#[actix_rt::test]
async fn every_filter_of_history_narrows_it() {
    let state = state(MemoryStore { rows: sample(), ..MemoryStore::default() });
    let (one, two) = (user(1), user(2));
    for (query, expected) in [
        (String::new(), vec![1, 2, 3, 4, 7, 5, 6]),
        ("order=desc".to_owned(), vec![6, 5, 7, 4, 3, 2, 1]),
        ("topic=misc".to_owned(), vec![3, 5]),
        ("topic=misc&topic=fills&limit=2".to_owned(), vec![1, 2]),
        (format!("user={two}"), vec![2, 7, 5]),
        (format!("user={two}&user={one}&user={one}&topic=misc"), vec![3, 5]),
        ("coin=ETH".to_owned(), vec![3, 4]),
        ("from_block=11".to_owned(), vec![4, 7, 5, 6]),
        ("to_block=10".to_owned(), vec![1, 2, 3]),
        ("from_block=11&to_block=12".to_owned(), vec![4, 7, 5]),
        ("from_time=12000000".to_owned(), vec![5, 6]),
        ("to_time=1970-01-01T00:00:10Z".to_owned(), vec![1, 2, 3]),
        ("from_time=1970-01-01T01:00:11%2B01:00&to_time=12000000".to_owned(), vec![4, 7, 5]),
    ] {
        assert_eq!(history(&state, &query).await, expected, "{query}");
    }
}

#[actix_rt::test]
async fn every_fault_of_a_request_is_told_in_one_answer() {
    let state = state(MemoryStore::default());

    let answer = get(
        &state,
        "/v1/events?topic=trades&user=0x1&limit=10001&from_block=-3&order=up&from_time=noon&\
         after=x&page=2",
    )
    .await;

    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let error = answer.json();
    assert_eq!(error["code"], "invalid_parameter");
    let message = error["message"].as_str().unwrap();
    for part in [
        r#"topic: "trades" is not accepted, give fills or misc"#,
        r#"user: "0x1" is not accepted, give 0x and 40 hexadecimal digits"#,
        r#"limit: "10001" is not accepted, give a number from 1 to 10000"#,
        r#"from_block: "-3" is not accepted, give a block number"#,
        r#"order: "up" is not accepted, give asc or desc"#,
        r#"from_time: "noon" is not accepted, give RFC 3339"#,
        r#"after: "x" is not accepted, give the `next` of an earlier answer"#,
        r#""page": unknown parameter, known are topic, user, coin, from_block"#,
    ] {
        assert!(message.contains(part), "{part} is missing in {message}");
    }
}

#[actix_rt::test]
async fn ranges_that_hold_nothing_are_faults() {
    let state = state(MemoryStore::default());
    for (query, text) in [
        ("from_block=2&to_block=1", "from_block: lies above to_block"),
        ("from_time=2&to_time=1", "from_time: lies after to_time"),
        ("limit=0", "limit:"),
        ("coin=", "coin:"),
        ("limit=1&limit=2", "limit: given 2 times"),
        ("after=1.d.1.1~1.e.a.7", "after: belongs to the other order"),
        ("after=1.a.1.1~1.f.a.7", "after: belongs to another store"),
    ] {
        let answer = get(&state, &format!("/v1/events?{query}")).await;

        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(answer.json()["message"].as_str().unwrap().contains(text), "{}", answer.body);
    }
}

#[actix_rt::test]
async fn pages_keep_the_resume_cursor_of_the_first_one() {
    let rows = sample();
    let first_state = state(MemoryStore { rows: rows.clone(), ..MemoryStore::default() });
    let first = get(&first_state, "/v1/events?order=desc&limit=3").await.json();
    // Meanwhile the log went on to seq 9.
    let store = MemoryStore { rows, ..MemoryStore::default() };
    let heads = Heads { epoch: 0xe, run: 0xa, positions: vec![(FILLS, 14)] };
    let mut later = Arc::into_inner(state(store)).unwrap();
    later.log = Log::new(1 << 20, 9, heads);
    let later = Arc::new(later);

    let next = first["next"].as_str().unwrap();
    let second = get(&later, &format!("/v1/events?order=desc&limit=3&after={next}")).await.json();

    assert_eq!(first["resume"], "1.e.a.7.fills-d");
    assert_eq!(second["resume"], first["resume"]);
    assert_eq!(get(&later, "/v1/events").await.json()["resume"], "1.e.a.9.fills-e");
}

#[actix_rt::test]
async fn a_store_that_is_away_is_an_error_and_never_an_empty_answer() {
    let store = || MemoryStore { reads_left: Some(AtomicUsize::new(0)), ..MemoryStore::default() };

    let json = get(&state(store()), "/v1/events").await;
    let ndjson =
        ask(&state(store()), TestRequest::get().uri("/v1/events").insert_header(NDJSON)).await;
    let older =
        post_events(&state(store()), r#"{"startBlock":1,"endBlock":2,"page":1,"pageSize":1}"#)
            .await;

    for answer in [json, ndjson] {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.json()["code"], "unavailable");
        assert_eq!(answer.header(header::RETRY_AFTER), "1");
    }
    assert_eq!(older.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(older.body, "Failed to query events\n");
}

// NDJSON.

/// More rows than one read of an export takes, several in each block.
fn many(count: u64) -> Vec<SequencedEvent> {
    (1..=count).map(|seq| row(seq, FILLS, seq / 3, 1, "BTC")).collect()
}

#[actix_rt::test]
async fn an_export_gives_the_whole_range_in_bounded_reads_and_says_that_it_is_whole() {
    let store = Arc::new(MemoryStore { rows: many(1_000), ..MemoryStore::default() });
    let state = state_of(store.clone());

    let answer = ask(&state, TestRequest::get().uri("/v1/events").insert_header(NDJSON)).await;

    assert_eq!(answer.header(header::CONTENT_TYPE), "application/x-ndjson");
    let mut lines = answer.lines();
    let end = lines.pop().unwrap();
    assert_eq!(seqs(&lines), (1..=1_000).collect::<Vec<_>>());
    assert_eq!((&end["type"], &end["next"]), (&"end".into(), &Value::Null));
    assert_eq!(end["resume"], "1.e.a.7.fills-d");
    assert!(*store.largest_read.lock().unwrap() <= 257);
    assert_eq!(state.exports.open(), 0);
}

#[actix_rt::test]
async fn an_export_ends_at_its_limit_and_says_where_to_go_on() {
    let state = state(MemoryStore { rows: many(1_000), ..MemoryStore::default() });
    let uri = "/v1/events?limit=600";

    let mut lines = ask(&state, TestRequest::get().uri(uri).insert_header(NDJSON)).await.lines();
    let next = lines.pop().unwrap()["next"].as_str().unwrap().to_owned();
    let rest = history(&state, &format!("limit=1000&after={next}")).await;

    assert_eq!(seqs(&lines).len(), 600);
    assert_eq!(rest, (601..=1_000).collect::<Vec<_>>());
}

#[actix_rt::test]
async fn an_export_that_breaks_off_says_so_and_where_to_go_on() {
    let reads_left = Some(AtomicUsize::new(2));
    let broken = state(MemoryStore { rows: many(1_000), reads_left, ..MemoryStore::default() });
    let whole = state(MemoryStore { rows: many(1_000), ..MemoryStore::default() });

    let answer = ask(&broken, TestRequest::get().uri("/v1/events").insert_header(NDJSON)).await;

    let mut lines = answer.lines();
    let error = lines.pop().unwrap();
    assert_eq!((&error["type"], &error["code"]), (&"error".into(), &"unavailable".into()));
    let next = error["next"].as_str().unwrap();
    let rest = history(&whole, &format!("limit=1000&after={next}")).await;
    let all: Vec<u64> = seqs(&lines).into_iter().chain(rest).collect();
    assert_eq!(all, (1..=1_000).collect::<Vec<_>>());
}

#[actix_rt::test]
async fn exports_beyond_the_limit_are_refused_until_one_ends() {
    let state = state(MemoryStore { rows: sample(), ..MemoryStore::default() });
    let app = test::init_service(App::new().configure(routes(state.clone()))).await;
    let request = || TestRequest::get().uri("/v1/events").insert_header(NDJSON).to_request();
    let mut open = Vec::new();
    while open.len() < 64 {
        open.push(test::call_service(&app, request()).await);
    }

    let refused = read(test::call_service(&app, request()).await).await;
    open.pop();
    let accepted = read(test::call_service(&app, request()).await).await;

    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json()["code"], "busy");
    assert_eq!(accepted.status, StatusCode::OK);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pages_neither_repeat_nor_skip_whatever_their_limit(
        blocks in prop::collection::vec((0u64..6, any::<bool>()), 0..40),
        limit in 1usize..9,
        descending: bool,
    ) {
        let rows: Vec<_> = blocks
            .iter()
            .zip(1..)
            .map(|(&(block, fill), seq)| row(seq, if fill { FILLS } else { MISC }, block, 1, "BTC"))
            .collect();
        let mut expected: Vec<_> = rows.iter().map(key).collect();
        expected.sort();
        if descending {
            expected.reverse();
        }
        let expected: Vec<u64> = expected.into_iter().map(|key| key.seq).collect();
        let order = if descending { "desc" } else { "asc" };

        let (paged, exported) = actix_rt::System::new().block_on(async {
            let state = state(MemoryStore { rows, ..MemoryStore::default() });
            let mut paged = Vec::new();
            let mut after = String::new();
            loop {
                let uri = format!("/v1/events?order={order}&limit={limit}{after}");
                let page = get(&state, &uri).await.json();
                let events = page["events"].as_array().unwrap().clone();
                assert!(events.len() <= limit);
                // `next` promises more, so only the one page of an empty history is empty.
                assert!(!events.is_empty() || after.is_empty());
                paged.extend(events);
                let Some(next) = page["next"].as_str() else { break };
                after = format!("&after={next}");
            }
            let uri = format!("/v1/events?order={order}");
            let request = TestRequest::get().uri(&uri).insert_header(NDJSON);
            let mut exported = ask(&state, request).await.lines();
            exported.pop();
            (paged, exported)
        });

        prop_assert_eq!(seqs(&paged), expected);
        prop_assert_eq!(paged, exported);
    }
}

// Health, and what every route has in common.

#[actix_rt::test]
async fn health_routes_answer_by_what_is_true() {
    let state = state(MemoryStore::default());

    let live = get(&state, "/livez").await;
    let ready = get(&state, "/readyz").await;
    let health = get(&state, "/health").await;
    let status = get(&state, "/v1/status").await;

    assert_eq!((live.status, &live.json()["status"]), (StatusCode::OK, &"alive".into()));
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.json()["ready"], false);
    assert_eq!(health.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(health.json()["status"], "not_ready");
    assert_eq!(status.status, StatusCode::OK);
    assert_eq!(status.json()["store"]["size_bytes"], 4_096);
    assert_eq!(status.json()["whitelist"]["everything"], true);
}

#[actix_rt::test]
async fn unknown_paths_and_methods_answer_with_code_and_message() {
    let state = state(MemoryStore::default());

    let unknown = get(&state, "/v2/events").await;
    let method = ask(&state, TestRequest::post().uri("/v1/events")).await;
    let plain = get(&state, "/v1/ws").await;

    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(unknown.json()["code"], "not_found");
    assert_eq!(method.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(method.header(header::ALLOW), "GET, HEAD");
    assert_eq!(method.json()["code"], "method_not_allowed");
    assert_eq!(plain.status, StatusCode::UPGRADE_REQUIRED);
    assert_eq!(plain.json()["code"], "upgrade_required");
}

#[actix_rt::test]
async fn the_root_lists_routes_that_exist() {
    let state = state(MemoryStore::default());

    let info = get(&state, "/").await.json();

    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    for route in info["routes"].as_array().unwrap() {
        let method: Method = route["method"].as_str().unwrap().parse().unwrap();
        let request = TestRequest::with_uri(route["path"].as_str().unwrap()).method(method);
        let answer = ask(&state, request).await;
        let missing = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];
        assert!(!missing.contains(&answer.status), "{route}");
    }
}

#[test]
fn over_a_socket_head_has_no_body_and_an_export_arrives_whole() {
    let state = state(MemoryStore { rows: many(600), ..MemoryStore::default() });
    let (address_tx, address_rx) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        actix_rt::System::new().block_on(async {
            let server = HttpServer::new(move || App::new().configure(routes(state.clone())))
                .workers(1)
                .disable_signals()
                .bind("127.0.0.1:0")
                .unwrap();
            let address = server.addrs()[0];
            let server = server.run();
            address_tx.send((address, server.handle())).unwrap();
            server.await.unwrap();
        });
    });
    let (address, handle) = address_rx.recv().unwrap();
    let base = format!("http://{address}");

    for path in ["/", "/height", "/livez", "/v1/status", "/v1/events"] {
        let mut head = ureq::head(format!("{base}{path}")).call().unwrap();
        assert_eq!(head.status(), 200, "{path}");
        assert_eq!(head.body_mut().read_to_string().unwrap(), "", "{path}");
    }
    let mut export = ureq::get(format!("{base}/v1/events"))
        .header("accept", "application/json;q=0.5, Application/X-NDJSON")
        .call()
        .unwrap();
    let text = export.body_mut().read_to_string().unwrap();

    assert_eq!(text.lines().count(), 601);
    assert!(text.lines().last().unwrap().starts_with(r#"{"type":"end""#));
    // Not waited for: the client keeps its connection open.
    drop(handle.stop(false));
    thread.join().unwrap();
}

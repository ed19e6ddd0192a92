//! Pages of history: keyset reads that walk an index in the order of the answer.
//!
//! A page is a merge of branches: one per user and topic, one per user where a kind is asked for, or
//! else one per topic. Each walks its index by position and stops at the limit, so the cost of a page
//! grows neither with its depth nor with what else a user has. Where times are asked for, they are made
//! positions first ([`spans`]).

use std::{collections::HashSet, fmt::Write};

use diesel::{
    QueryableByName,
    pg::Pg,
    prelude::*,
    query_builder::{BoxedSqlQuery, SqlQuery},
    sql_types::{Array, BigInt, Binary, Bool, Integer, Nullable, SmallInt, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{
    fault::Fault,
    schema::events,
    spans::{Span, spans},
    topics::Topics,
};
use crate::{
    event::{Address, EventId, SequencedEvent, Timestamp},
    store::{
        EventQuery, StoreError,
        records::{EventRow, clamp, seq_bound},
    },
};

/// Most branches of one statement. Users that need more than these are looked for along the topics'
/// index instead.
const MAX_BRANCHES: usize = 400;

pub const COLUMNS: &str = "seq, position, time, idx, part, topic_id, late, user_address, body";

/// A row of the events, as read.
#[derive(QueryableByName)]
pub struct Row {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = BigInt)]
    time: i64,
    #[diesel(sql_type = Integer)]
    idx: i32,
    #[diesel(sql_type = Integer)]
    part: i32,
    #[diesel(sql_type = SmallInt)]
    topic_id: i16,
    #[diesel(sql_type = Bool)]
    late: bool,
    #[diesel(sql_type = Nullable<Binary>)]
    user_address: Option<Vec<u8>>,
    #[diesel(sql_type = Text)]
    body: String,
}

#[derive(QueryableByName)]
struct Place {
    #[diesel(sql_type = BigInt)]
    ordinal: i64,
}

/// A statement and the texts it binds. Numbers and addresses are literals: their types leave no
/// room for anything else.
#[derive(Debug, Default)]
pub struct Statement {
    pub sql: String,
    pub binds: Vec<String>,
}

/// Reads one page.
pub async fn page(
    connection: &mut AsyncPgConnection,
    query: &EventQuery,
) -> Result<Vec<SequencedEvent>, Fault> {
    let topics = Topics::load(connection).await?;
    let spans = spans(connection, query, &topics).await?;
    let Some(statement) = statement(query, &spans) else { return Ok(Vec::new()) };
    let mut boxed: BoxedSqlQuery<'_, Pg, SqlQuery> = diesel::sql_query(statement.sql).into_boxed();
    for text in statement.binds {
        boxed = boxed.bind::<Text, _>(text);
    }
    let rows: Vec<Row> = boxed.load(connection).await?;
    Ok(rows.into_iter().map(|row| event(row, &topics)).collect::<Result<_, StoreError>>()?)
}

/// Writes the statement of a page; `None` when nothing can match.
pub fn statement(query: &EventQuery, spans: &[Span]) -> Option<Statement> {
    if spans.is_empty() || query.limit == 0 {
        return None;
    }
    let mut statement = Statement::default();
    let users: HashSet<Address> = query.users.iter().copied().collect();
    let topics_each = if query.kind.is_some() { 1 } else { spans.len() };
    if users.is_empty() || users.len() * topics_each > MAX_BRANCHES {
        for span in spans {
            statement.begin_branch();
            statement.push(format_args!("topic_id = {}", span.topic));
            statement.between(span.first, span.last);
            if !users.is_empty() {
                statement.users(&users);
            }
            statement.of_kind(query);
            statement.end_branch(query);
        }
    } else if query.kind.is_some() {
        for user in users {
            statement.begin_branch();
            statement.push(format_args!("user_address = {}", literal(&user)));
            statement.of_kind(query);
            statement.between_all(spans);
            if !query.topics.is_empty() {
                // A product, as no index by topic is of use here.
                let topics: Vec<_> = spans.iter().map(|span| span.topic.to_string()).collect();
                statement.push(format_args!(" AND topic_id * 1 IN ({})", topics.join(", ")));
            }
            statement.end_branch(query);
        }
    } else {
        for user in users {
            for span in spans {
                statement.begin_branch();
                // The very sum of the index.
                let Span { topic, first, last } = span;
                let user = literal(&user);
                statement.push(format_args!(
                    "user_address = {user} AND topic_id + 0::smallint = {topic}"
                ));
                statement.between(*first, *last);
                statement.end_branch(query);
            }
        }
    }
    let (limit, offset, order) = (query.limit, query.offset, order(query));
    statement.push(format_args!(") AS page {order} LIMIT {limit} OFFSET {offset}"));
    Some(statement)
}

fn order(query: &EventQuery) -> &'static str {
    match query.descending {
        true => "ORDER BY position DESC, seq DESC",
        false => "ORDER BY position, seq",
    }
}

fn literal(user: &Address) -> String {
    format!("'\\x{}'::bytea", user.to_string().trim_start_matches("0x"))
}

impl Statement {
    fn begin_branch(&mut self) {
        match self.sql.is_empty() {
            true => self.push(format_args!("SELECT {COLUMNS} FROM (")),
            false => self.sql.push_str(" UNION ALL "),
        }
        self.push(format_args!("(SELECT {COLUMNS} FROM nodecast.events WHERE "));
    }

    /// Adds what no index answers, the order and the limit.
    fn end_branch(&mut self, query: &EventQuery) {
        if let Some(times) = &query.times {
            // It also spares the partitions of all other days. What is no bound is none of the
            // server's `bigint` either.
            let (first, last) = (times.start().0, times.end().0);
            if first > i64::MIN {
                self.push(format_args!(" AND time >= {first}"));
            }
            self.push(format_args!(" AND time <= {last}"));
        }
        if query.in_order {
            // A sum, as the index by arrival gives no order and is of no use here.
            self.sql.push_str(" AND seq + 0 > 0 AND NOT late");
        }
        if let Some(after) = query.after {
            let (position, seq) = (clamp(after.position), seq_bound(after.seq));
            let past = if query.descending { '<' } else { '>' };
            // The first condition is for the index.
            self.push(format_args!(
                " AND position {past}= {position} AND (position, seq) {past} ({position}, {seq})"
            ));
        }
        if let Some(coin) = &query.coin {
            self.text(" AND body::json->>'coin' = ", coin.clone());
        }
        let most = query.limit.saturating_add(query.offset);
        self.push(format_args!(" {} LIMIT {most})", order(query)));
    }

    fn of_kind(&mut self, query: &EventQuery) {
        if let Some(kind) = query.kind {
            // The first condition is that of the index.
            self.text(" AND kind <> '' AND kind = ", kind.to_owned());
        }
    }

    /// The spans differ by topic only because of the time, which is tested again on each row.
    fn between_all(&mut self, spans: &[Span]) {
        let first = spans.iter().map(|span| span.first).min().unwrap_or(0);
        let last = spans.iter().map(|span| span.last).max().unwrap_or(i64::MAX);
        self.between(first, last);
    }

    fn between(&mut self, first: i64, last: i64) {
        self.push(format_args!(" AND position >= {first} AND position <= {last}"));
    }

    fn users(&mut self, users: &HashSet<Address>) {
        let users: Vec<String> = users.iter().map(literal).collect();
        self.push(format_args!(" AND user_address IN ({})", users.join(", ")));
    }

    /// Adds a text as a parameter.
    fn text(&mut self, before: &str, text: String) {
        self.binds.push(text);
        let number = self.binds.len();
        self.push(format_args!("{before}${number}"));
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.sql.write_fmt(text).expect("writing to a string does not fail");
    }
}

/// Tells which events are stored.
pub async fn stored(
    connection: &mut AsyncPgConnection,
    ids: &[EventId],
) -> Result<HashSet<EventId>, Fault> {
    let column = |number: fn(&EventId) -> u32| -> Vec<i32> {
        ids.iter().map(|id| number(id) as i32).collect()
    };
    let found: Vec<Place> = diesel::sql_query(
        "SELECT ordinal FROM unnest($1, $2, $3, $4) WITH ORDINALITY \
         AS wanted (topic, position, idx, part, ordinal) \
         JOIN nodecast.topics ON topics.name = wanted.topic \
         WHERE EXISTS (SELECT FROM nodecast.events e WHERE e.topic_id = topics.id \
             AND e.position = wanted.position AND e.idx = wanted.idx AND e.part = wanted.part)",
    )
    .bind::<Array<Text>, _>(ids.iter().map(|id| id.topic.as_str()).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(ids.iter().map(|id| clamp(id.position)).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(column(|id| id.index))
    .bind::<Array<Integer>, _>(column(|id| id.part))
    .load(connection)
    .await?;
    // Ordinals count from 1.
    Ok(found.iter().filter_map(|place| ids.get(place.ordinal as usize - 1).copied()).collect())
}

/// The first row in the order of history, of the topic where that is the oldest. Its `seq` only
/// where it has a place in the order of arrival.
pub async fn oldest(
    connection: &mut AsyncPgConnection,
) -> Result<Option<(Option<u64>, Timestamp)>, Fault> {
    let mut oldest: Option<(i64, i64)> = None;
    for (topic, _) in Topics::load(connection).await?.iter() {
        let first: Option<(i64, i64)> = events::table
            .filter(events::topic_id.eq(topic))
            .order(events::position)
            .select((events::time, events::seq))
            .first(connection)
            .await
            .optional()?;
        oldest = oldest.into_iter().chain(first).min();
    }
    Ok(oldest.map(|(time, seq)| (u64::try_from(seq).ok(), Timestamp(time))))
}

/// The time of the last row in the order of history, of the topic where that is the newest.
pub async fn newest(connection: &mut AsyncPgConnection) -> Result<Option<Timestamp>, Fault> {
    let mut newest: Option<i64> = None;
    for (topic, _) in Topics::load(connection).await?.iter() {
        let last: Option<i64> = events::table
            .filter(events::topic_id.eq(topic))
            .order(events::position.desc())
            .select(events::time)
            .first(connection)
            .await
            .optional()?;
        newest = newest.max(last);
    }
    Ok(newest.map(Timestamp))
}

/// Gives the event of a row.
pub fn event(row: Row, topics: &Topics) -> Result<SequencedEvent, StoreError> {
    let Row { seq, position, time, idx, part, topic_id, late, user_address, body } = row;
    let topic = topics.name(topic_id)?.as_str().to_owned();
    // The bit patterns of 32 bits without a sign.
    let (idx, part) = (i64::from(idx as u32), i64::from(part as u32));
    EventRow { seq, topic, position, idx, part, time, user: user_address, late, body }.try_into()
}

//! Pages of history: keyset reads that walk an index in the order of the answer.
//!
//! A page is a merge of branches: one per user and topic, one per user where a kind is asked for, or
//! else one per topic. Each branch walks its index by (position, seq), so SQLite merges them lazily and
//! stops at the limit: the cost of a page grows neither with its depth nor with what else a user has.
//! Only within one block of a topic something is sorted.

use std::{collections::HashSet, fmt::Write};

use diesel::{
    prelude::*,
    query_builder::{BoxedSqlQuery, SqlQuery},
    sql_types::{BigInt, Binary, Bool, Nullable, Text},
    sqlite::Sqlite,
};

use super::{fault::Fault, schema::events, state};
use crate::{
    event::{Address, EventId, SequencedEvent, Timestamp},
    store::{
        Arrivals, EventQuery, StoreError,
        records::{EventRow, clamp, seq_bound},
    },
};

/// Most branches of one statement (SQLite allows 500). Users that need more than these are looked for
/// along the topics' index instead.
const MAX_BRANCHES: usize = 400;

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Text)]
    topic: String,
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = BigInt)]
    idx: i64,
    #[diesel(sql_type = BigInt)]
    part: i64,
    #[diesel(sql_type = BigInt)]
    time: i64,
    #[diesel(sql_type = Nullable<Binary>)]
    user: Option<Vec<u8>>,
    #[diesel(sql_type = Bool)]
    late: bool,
    #[diesel(sql_type = Text)]
    body: String,
}

/// A statement and the texts it binds. Numbers and addresses are literals: their types leave no
/// room for anything else.
#[derive(Debug, Default)]
pub struct Statement {
    pub sql: String,
    pub binds: Vec<String>,
    branches: usize,
}

/// Positions of one topic, inclusive.
#[derive(Clone, Debug)]
struct Span {
    topic: String,
    first: i64,
    last: i64,
}

/// Reads one page.
pub fn page(
    connection: &mut SqliteConnection,
    query: &EventQuery,
) -> Result<Vec<SequencedEvent>, Fault> {
    // The bisection and the page see the same rows.
    connection.transaction(|connection| {
        let Some(statement) = statement(connection, query)? else { return Ok(Vec::new()) };
        let mut boxed: BoxedSqlQuery<'_, Sqlite, SqlQuery> =
            diesel::sql_query(statement.sql).into_boxed();
        for text in statement.binds {
            boxed = boxed.bind::<Text, _>(text);
        }
        let mut rows: Vec<Row> = boxed.load(connection)?;
        rows.sort_unstable_by_key(|row| (row.position, row.seq));
        if query.descending {
            rows.reverse();
        }
        Ok(rows.into_iter().map(event).collect::<Result<_, StoreError>>()?)
    })
}

/// Reads what follows a `seq` in the order of arrival, which is the order of the table.
pub fn arrivals(
    connection: &mut SqliteConnection,
    after: u64,
    limit: usize,
) -> Result<Arrivals, Fault> {
    connection.transaction(|connection| {
        let after = clamp(after);
        let rows: Vec<Row> = diesel::sql_query(format!(
            "SELECT seq, topic, position, idx, part, time, user, late, body FROM events \
             WHERE seq > {after} ORDER BY seq LIMIT {limit}"
        ))
        .load(connection)?;
        let events = rows.into_iter().map(event).collect::<Result<_, StoreError>>()?;
        Ok(Arrivals { events, deleted_seq: state::deleted_seq(connection)? })
    })
}

/// Writes the statement of a page; `None` when nothing can match.
pub fn statement(
    connection: &mut SqliteConnection,
    query: &EventQuery,
) -> Result<Option<Statement>, Fault> {
    let spans = spans(connection, query)?;
    if spans.is_empty() || query.limit == 0 {
        return Ok(None);
    }
    let mut statement = Statement::default();
    let order = if query.descending { "DESC" } else { "ASC" };
    statement.sql.push_str(
        "SELECT e.seq, e.topic, e.position, e.idx, e.part, e.time, e.user, e.late, e.body FROM (",
    );
    let users: HashSet<Address> = query.users.iter().copied().collect();
    let topics_each = if query.kind.is_some() { 1 } else { spans.len() };
    if users.is_empty() || users.len() * topics_each > MAX_BRANCHES {
        for span in &spans {
            statement.begin_branch("events_identity");
            statement.of_topic(span);
            if !users.is_empty() {
                statement.sql.push_str(" AND user IN (");
                statement.users(&users);
                statement.sql.push(')');
            }
            statement.of_kind(query);
            statement.residual(query);
        }
    } else if query.kind.is_some() {
        for user in users {
            statement.begin_branch("events_by_kind");
            statement.of_user(user);
            statement.of_kind(query);
            statement.between_all(&spans);
            // A kind is one of a single topic: hardly a row is in vain.
            if !query.topics.is_empty() {
                statement.topics(&spans);
            }
            statement.residual(query);
        }
    } else {
        for user in users {
            for span in &spans {
                statement.begin_branch("events_by_user");
                statement.of_user(user);
                statement.sql.push_str(" AND ");
                statement.of_topic(span);
                statement.residual(query);
            }
        }
    }
    let (limit, offset) = (query.limit, query.offset);
    // CROSS JOIN keeps the planner from turning the join around.
    write!(
        statement.sql,
        " ORDER BY position {order}, seq {order} LIMIT {limit} OFFSET {offset}) AS page \
         CROSS JOIN events AS e ON e.seq = page.seq"
    )
    .expect("writing to a string does not fail");
    Ok(Some(statement))
}

impl Statement {
    /// Starts a branch. The index is named, so that a plan without it is an error and not slow.
    fn begin_branch(&mut self, index: &str) {
        let union = if self.branches > 0 { " UNION ALL " } else { "" };
        self.branches += 1;
        self.push(format_args!(
            "{union}SELECT seq, position FROM events INDEXED BY {index} WHERE "
        ));
    }

    fn of_topic(&mut self, span: &Span) {
        self.sql.push_str("topic = ?");
        self.binds.push(span.topic.clone());
        self.between(span.first, span.last);
    }

    fn of_user(&mut self, user: Address) {
        self.sql.push_str("user = ");
        self.users([&user]);
    }

    fn of_kind(&mut self, query: &EventQuery) {
        if let Some(kind) = query.kind {
            self.sql.push_str(" AND kind = ?");
            self.binds.push(kind.to_owned());
        }
    }

    fn topics(&mut self, spans: &[Span]) {
        self.sql.push_str(" AND topic IN (");
        for (ordinal, span) in spans.iter().enumerate() {
            self.sql.push_str(if ordinal == 0 { "?" } else { ", ?" });
            self.binds.push(span.topic.clone());
        }
        self.sql.push(')');
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

    fn users<'u>(&mut self, users: impl IntoIterator<Item = &'u Address>) {
        for (ordinal, user) in users.into_iter().enumerate() {
            let text = user.to_string();
            let comma = if ordinal == 0 { "" } else { ", " };
            self.push(format_args!("{comma}x'{}'", text.trim_start_matches("0x")));
        }
    }

    /// What no index answers.
    fn residual(&mut self, query: &EventQuery) {
        if let Some(times) = &query.times {
            let (first, last) = (times.start().0, times.end().0);
            self.push(format_args!(" AND time >= {first} AND time <= {last}"));
        }
        if query.in_order {
            // The first is in every index: it spares the rows of what was back-filled.
            self.sql.push_str(" AND seq > 0 AND late = 0");
        }
        if let Some(after) = query.after {
            let (position, seq) = (clamp(after.position), seq_bound(after.seq));
            let past = if query.descending { '<' } else { '>' };
            self.push(format_args!(" AND (position {past} {position} OR seq {past} {seq})"));
        }
        if let Some(coin) = &query.coin {
            self.sql.push_str(" AND json_extract(body, '$.coin') = ?");
            self.binds.push(coin.clone());
        }
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.sql.write_fmt(text).expect("writing to a string does not fail");
    }
}

/// The positions that can match, of each topic asked for.
fn spans(connection: &mut SqliteConnection, query: &EventQuery) -> Result<Vec<Span>, Fault> {
    let mut topics = state::topics(connection)?;
    if !query.topics.is_empty() {
        topics.retain(|known| query.topics.iter().any(|topic| topic.as_str() == known));
    }
    let (mut first, mut last) = (0, i64::MAX);
    if let Some(positions) = &query.positions {
        (first, last) = (clamp(*positions.start()), clamp(*positions.end()));
        if *positions.start() > i64::MAX as u64 {
            return Ok(Vec::new());
        }
    }
    if let Some(after) = query.after {
        // The rest of the block of `after` is decided by `seq`.
        match query.descending {
            true => last = last.min(clamp(after.position)),
            false => first = first.max(clamp(after.position)),
        }
    }
    let mut spans = Vec::new();
    for topic in topics {
        let mut span = Span { topic, first, last };
        if let Some(times) = &query.times {
            let Some(from) = first_position(connection, &span.topic, *times.start())? else {
                continue;
            };
            span.first = span.first.max(from);
            let end = Timestamp(times.end().0.saturating_add(1));
            if let Some(beyond) = first_position(connection, &span.topic, end)? {
                span.last = span.last.min(beyond - 1);
            }
        }
        if span.first <= span.last {
            spans.push(span);
        }
    }
    Ok(spans)
}

/// The first position of a topic with an event at or after a time, found by bisection: block time
/// grows with the position.
pub fn first_position(
    connection: &mut SqliteConnection,
    topic: &str,
    time: Timestamp,
) -> Result<Option<i64>, Fault> {
    let bounds: (Option<i64>, Option<i64>) = (
        events::table
            .filter(events::topic.eq(topic))
            .select(diesel::dsl::min(events::position))
            .first(connection)?,
        events::table
            .filter(events::topic.eq(topic))
            .select(diesel::dsl::max(events::position))
            .first(connection)?,
    );
    let (Some(mut low), Some(newest)) = bounds else { return Ok(None) };
    // The answer lies in low..=high, where newest + 1 stands for "none".
    let mut high = newest + 1;
    while low < high {
        let middle = low + (high - low) / 2;
        let found: Option<(i64, i64)> = events::table
            .filter(events::topic.eq(topic))
            .filter(events::position.ge(middle))
            .order((events::position, events::idx, events::part))
            .select((events::position, events::time))
            .first(connection)
            .optional()?;
        match found {
            Some((position, found_time)) if found_time < time.0 => low = position + 1,
            // Between the middle and the event found there is none.
            _ => high = middle,
        }
    }
    Ok((low <= newest).then_some(low))
}

/// Tells which events are stored.
pub fn stored(
    connection: &mut SqliteConnection,
    ids: Vec<EventId>,
) -> Result<HashSet<EventId>, Fault> {
    connection.transaction(|connection| {
        let mut found = HashSet::new();
        for id in ids {
            let row: Option<i64> = events::table
                .filter(events::topic.eq(id.topic.as_str()))
                .filter(events::position.eq(clamp(id.position)))
                .filter(events::idx.eq(i64::from(id.index)))
                .filter(events::part.eq(i64::from(id.part)))
                .select(events::seq)
                .first(connection)
                .optional()?;
            if row.is_some() {
                found.insert(id);
            }
        }
        Ok(found)
    })
}

fn event(row: Row) -> Result<SequencedEvent, StoreError> {
    let Row { seq, topic, position, idx, part, time, user, late, body } = row;
    EventRow { seq, topic, position, idx, part, time, user, late, body }.try_into()
}

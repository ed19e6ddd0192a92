//! Which positions a query can mean, of each topic.
//!
//! Times become positions by bisection: block time grows with the position. Each end is looked for in the
//! partition of its day alone; the days before and behind it are none that the page reads.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Nullable},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{fault::Fault, partitions::Day, topics::Topics};
use crate::{
    event::Timestamp,
    store::{EventQuery, records::clamp},
};

/// Positions of one topic, inclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub topic: i16,
    pub first: i64,
    pub last: i64,
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = BigInt)]
    probe: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    position: Option<i64>,
}

/// The positions that can match, of each topic asked for. Rows that are committed meanwhile may be missed.
pub async fn spans(
    connection: &mut AsyncPgConnection,
    query: &EventQuery,
    topics: &Topics,
) -> Result<Vec<Span>, Fault> {
    let mut spans = by_position(query, topics);
    if let Some(times) = &query.times
        && !spans.is_empty()
    {
        narrow(connection, &mut spans, *times.start(), *times.end()).await?;
        spans.retain(|span| span.first <= span.last);
    }
    Ok(spans)
}

/// Without a look at the times.
pub fn by_position(query: &EventQuery, topics: &Topics) -> Vec<Span> {
    let mut topics: Vec<i16> = match query.topics.as_slice() {
        [] => topics.iter().map(|(id, _)| id).collect(),
        // One that has no number has no events either.
        wanted => wanted.iter().filter_map(|topic| topics.id(*topic)).collect(),
    };
    topics.sort_unstable();
    topics.dedup();
    let (mut first, mut last) = (0, i64::MAX);
    if let Some(positions) = &query.positions {
        if *positions.start() > i64::MAX as u64 {
            return Vec::new();
        }
        (first, last) = (clamp(*positions.start()), clamp(*positions.end()));
    }
    if first > last {
        return Vec::new();
    }
    topics.into_iter().map(|topic| Span { topic, first, last }).collect()
}

/// Bounds the positions by times.
async fn narrow(
    connection: &mut AsyncPgConnection,
    spans: &mut [Span],
    from: Timestamp,
    to: Timestamp,
) -> Result<(), Fault> {
    let Some(question) = question(spans, from, to) else { return Ok(()) };
    let found: Vec<Found> = diesel::sql_query(question).load(connection).await?;
    for Found { probe, position } in found {
        let Some(position) = position else { continue };
        let span = usize::try_from(probe / 2).ok().and_then(|ordinal| spans.get_mut(ordinal));
        match span {
            Some(span) if probe % 2 == 0 => span.first = span.first.max(position),
            Some(span) => span.last = span.last.min(position - 1),
            None => {}
        }
    }
    Ok(())
}

/// Asks for both ends of each topic at once: two probes a span, in their order. `None` when neither end is
/// a bound.
pub fn question(spans: &[Span], from: Timestamp, to: Timestamp) -> Option<String> {
    let beyond = Timestamp(to.0.saturating_add(1));
    let mut probes = Vec::new();
    for (ordinal, span) in spans.iter().enumerate() {
        for (end, time) in [from, beyond].into_iter().enumerate() {
            if time.0 != i64::MIN && time.0 != i64::MAX {
                probes.push(first_position(2 * ordinal + end, span.topic, time));
            }
        }
    }
    (!probes.is_empty()).then(|| probes.join(" UNION ALL "))
}

/// Writes the question for the first position of a topic, in the partition of a time's day, from which on
/// no event is before that time: behind the last one where all are. Nothing of a day without events.
fn first_position(probe: usize, topic: i16, time: Timestamp) -> String {
    let day = Day::of(time);
    let (first, end, time) = (day.start(), day.next().start(), time.0);
    let of_day =
        format!("nodecast.events WHERE topic_id = {topic} AND time >= {first} AND time < {end}");
    // The answer lies in `low..=high`. Between the middle and the event found there is none.
    format!(
        "SELECT {probe}::bigint AS probe, (\
         WITH RECURSIVE search (low, high) AS (\
             SELECT (SELECT position FROM {of_day} ORDER BY position LIMIT 1), \
                 (SELECT position + 1 FROM {of_day} ORDER BY position DESC LIMIT 1) \
             UNION ALL \
             SELECT CASE WHEN found.time < {time} THEN found.position + 1 ELSE low END, \
                 CASE WHEN found.time < {time} THEN high ELSE middle END \
             FROM search, \
                 LATERAL (SELECT low + (high - low) / 2 AS middle) AS middle, \
                 LATERAL (SELECT position, time FROM {of_day} AND position >= middle \
                     ORDER BY position LIMIT 1) AS found \
             WHERE low < high\
         ) SELECT low FROM search WHERE low = high) AS position"
    )
}

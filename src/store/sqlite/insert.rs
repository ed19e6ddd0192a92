//! The statements that store an event: they run once a row.
//!
//! Diesel's own insert with `ON CONFLICT` has no static query id, so its text is built anew for
//! each row, only to look the prepared statement up: a fifth of the work of a commit. This one is
//! written by hand and found by its type.

use diesel::{
    QueryResult, RunQueryDsl,
    query_builder::{AstPass, QueryFragment, QueryId},
    sql_types::{BigInt, Binary, Bool, Nullable, Text},
    sqlite::{Sqlite, SqliteConnection},
};

use super::fault::Fault;
use crate::{
    event::{Event, SequencedEvent},
    store::{StoreError, records::signed},
};

/// The conflict is named: a `seq` that was given twice must fail and not pass for a duplicate.
/// What is cast live can be resumed: it takes the place of a back-filled row.
const BEFORE: &str = "INSERT INTO events \
    (seq, topic, position, idx, part, time, user, late, body, kind) VALUES (";
const AFTER: &str = ") ON CONFLICT (topic, position, idx, part) \
    DO UPDATE SET seq = excluded.seq, late = excluded.late WHERE seq < 0";
/// A back-filled event takes nobody's place.
const AFTER_BACKFILLED: &str = ") ON CONFLICT (topic, position, idx, part) DO NOTHING";

/// A row on its way into the table.
struct InsertEvent<'e, const BACKFILLED: bool> {
    seq: i64,
    topic: &'e str,
    position: i64,
    index: i64,
    part: i64,
    time: i64,
    user: Option<&'e [u8]>,
    late: bool,
    body: &'e str,
    kind: Option<&'e str>,
}

/// Inserts one event and gives 1, or 0 when its identity is there already.
pub fn insert(
    connection: &mut SqliteConnection,
    sequenced: &SequencedEvent,
) -> Result<usize, Fault> {
    let SequencedEvent { seq, late, event } = sequenced;
    Ok(row::<false>(signed(*seq, "seq")?, *late, event)?.execute(connection)?)
}

/// Inserts one event outside the order of arrival, with a negative number.
pub fn insert_backfilled(
    connection: &mut SqliteConnection,
    seq: i64,
    event: &Event,
) -> Result<usize, Fault> {
    Ok(row::<true>(seq, true, event)?.execute(connection)?)
}

fn row<const BACKFILLED: bool>(
    seq: i64,
    late: bool,
    event: &Event,
) -> Result<InsertEvent<'_, BACKFILLED>, StoreError> {
    let body = std::str::from_utf8(&event.body)
        .map_err(|error| StoreError::Refused(format!("the body is not UTF-8: {error}")))?;
    Ok(InsertEvent {
        seq,
        topic: event.id.topic.as_str(),
        position: signed(event.id.position, "position")?,
        index: i64::from(event.id.index),
        part: i64::from(event.id.part),
        time: event.time.0,
        user: event.user.as_ref().map(|user| user.0.as_slice()),
        late,
        body,
        kind: event.kind(),
    })
}

impl<const BACKFILLED: bool> QueryId for InsertEvent<'_, BACKFILLED> {
    type QueryId = InsertEvent<'static, BACKFILLED>;

    // The text is the same for every row.
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const BACKFILLED: bool> RunQueryDsl<SqliteConnection> for InsertEvent<'_, BACKFILLED> {}

impl<const BACKFILLED: bool> QueryFragment<Sqlite> for InsertEvent<'_, BACKFILLED> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql(BEFORE);
        out.push_bind_param::<BigInt, _>(&self.seq)?;
        out.push_sql(", ");
        out.push_bind_param::<Text, _>(self.topic)?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.position)?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.index)?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.part)?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.time)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Binary>, _>(&self.user)?;
        out.push_sql(", ");
        out.push_bind_param::<Bool, _>(&self.late)?;
        out.push_sql(", ");
        out.push_bind_param::<Text, _>(self.body)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Text>, _>(&self.kind)?;
        out.push_sql(if BACKFILLED { AFTER_BACKFILLED } else { AFTER });
        Ok(())
    }
}

//! The statement that stores an event: the one that runs once a row.
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
    event::SequencedEvent,
    store::{StoreError, records::signed},
};

/// The conflict is named: a `seq` that was given twice must fail and not pass for a duplicate.
const BEFORE: &str = "INSERT INTO events \
    (seq, topic, position, idx, part, time, user, late, body) VALUES (";
const AFTER: &str = ") ON CONFLICT (topic, position, idx, part) DO NOTHING";

/// A row on its way into the table.
struct InsertEvent<'e> {
    seq: i64,
    topic: &'e str,
    position: i64,
    index: i64,
    part: i64,
    time: i64,
    user: Option<&'e [u8]>,
    late: bool,
    body: &'e str,
}

/// Inserts one event and gives 1, or 0 when its identity is there already.
pub fn insert(
    connection: &mut SqliteConnection,
    sequenced: &SequencedEvent,
) -> Result<usize, Fault> {
    let SequencedEvent { seq, late, event } = sequenced;
    let body = std::str::from_utf8(&event.body)
        .map_err(|error| StoreError::Refused(format!("the body is not UTF-8: {error}")))?;
    let row = InsertEvent {
        seq: signed(*seq, "seq")?,
        topic: event.id.topic.as_str(),
        position: signed(event.id.position, "position")?,
        index: i64::from(event.id.index),
        part: i64::from(event.id.part),
        time: event.time.0,
        user: event.user.as_ref().map(|user| user.0.as_slice()),
        late: *late,
        body,
    };
    Ok(row.execute(connection)?)
}

impl QueryId for InsertEvent<'_> {
    type QueryId = InsertEvent<'static>;

    // The text is the same for every row.
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl RunQueryDsl<SqliteConnection> for InsertEvent<'_> {}

impl QueryFragment<Sqlite> for InsertEvent<'_> {
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
        out.push_sql(AFTER);
        Ok(())
    }
}

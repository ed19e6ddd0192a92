//! The statement that stores events: columns as arrays, of any number of rows.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Binary, Bool, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::fault::Fault;
use crate::{
    event::SequencedEvent,
    store::{StoreError, records::signed},
};

/// A parameter for each column instead of one for each value: the protocol allows 65,535.
const INSERT: &str = "INSERT INTO nodecast.events \
    (seq, topic, position, idx, part, time, user_address, late, body) \
    SELECT seq, topic, position, idx, part, time, user_address, late, body::json \
    FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9) \
    AS row (seq, topic, position, idx, part, time, user_address, late, body) \
    ON CONFLICT (topic, position, idx, part, time) DO NOTHING";

const FIND: &str = "SELECT count(*) AS rows FROM unnest($1, $2, $3, $4, $5) \
    AS row (seq, topic, position, idx, part) \
    JOIN nodecast.events USING (seq, topic, position, idx, part)";

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = BigInt)]
    rows: i64,
}

/// The rows of a batch, column by column.
#[derive(Debug, Default)]
pub struct Columns<'e> {
    seq: Vec<i64>,
    topic: Vec<&'e str>,
    position: Vec<i64>,
    index: Vec<i64>,
    part: Vec<i64>,
    time: Vec<i64>,
    user: Vec<Option<&'e [u8]>>,
    late: Vec<bool>,
    body: Vec<&'e str>,
}

impl<'e> Columns<'e> {
    /// # Errors
    /// [`StoreError::Refused`] when a row has something that no column can hold, or a `seq` that is
    /// not above those before it.
    pub fn of(events: &[&'e SequencedEvent]) -> Result<Self, StoreError> {
        let mut columns = Self::default();
        let mut last_seq = i64::MIN;
        for sequenced in events {
            let SequencedEvent { seq, late, event } = sequenced;
            let body = std::str::from_utf8(&event.body)
                .map_err(|error| StoreError::Refused(format!("the body is not UTF-8: {error}")))?;
            let seq = signed(*seq, "seq")?;
            if seq <= last_seq {
                return Err(StoreError::Refused(format!("seq {seq} follows seq {last_seq}")));
            }
            last_seq = seq;
            columns.seq.push(seq);
            columns.topic.push(event.id.topic.as_str());
            columns.position.push(signed(event.id.position, "position")?);
            columns.index.push(event.id.index.into());
            columns.part.push(event.id.part.into());
            columns.time.push(event.time.0);
            columns.user.push(event.user.as_ref().map(|user| user.0.as_slice()));
            columns.late.push(*late);
            columns.body.push(body);
        }
        Ok(columns)
    }

    /// The highest `seq` among them.
    pub fn last_seq(&self) -> Option<i64> {
        self.seq.last().copied()
    }

    /// Looks whether every row up to `last_seq`, the highest that the store has given away, is there
    /// with that very number: a part of this batch that was committed before. No unique key can see
    /// over all partitions that a number is given twice.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when one is not: it must fail and not pass for a duplicate.
    pub async fn check_repeated(
        &self,
        connection: &mut AsyncPgConnection,
        last_seq: i64,
    ) -> Result<(), Fault> {
        let repeated = self.seq.partition_point(|seq| *seq <= last_seq);
        if repeated == 0 {
            return Ok(());
        }
        let found: Found = diesel::sql_query(FIND)
            .bind::<Array<BigInt>, _>(&self.seq[..repeated])
            .bind::<Array<Text>, _>(&self.topic[..repeated])
            .bind::<Array<BigInt>, _>(&self.position[..repeated])
            .bind::<Array<BigInt>, _>(&self.index[..repeated])
            .bind::<Array<BigInt>, _>(&self.part[..repeated])
            .get_result(connection)
            .await?;
        if found.rows != repeated as i64 {
            let first = self.seq[0];
            let text = format!("seq {first} or one behind it was given before, up to {last_seq}");
            return Err(Fault(StoreError::Refused(text)));
        }
        Ok(())
    }

    /// Inserts what is not there yet, and gives how many rows that were.
    pub async fn insert(&self, connection: &mut AsyncPgConnection) -> Result<usize, Fault> {
        if self.seq.is_empty() {
            return Ok(0);
        }
        Ok(diesel::sql_query(INSERT)
            .bind::<Array<BigInt>, _>(&self.seq)
            .bind::<Array<Text>, _>(&self.topic)
            .bind::<Array<BigInt>, _>(&self.position)
            .bind::<Array<BigInt>, _>(&self.index)
            .bind::<Array<BigInt>, _>(&self.part)
            .bind::<Array<BigInt>, _>(&self.time)
            .bind::<Array<Nullable<Binary>>, _>(&self.user)
            .bind::<Array<Bool>, _>(&self.late)
            .bind::<Array<Text>, _>(&self.body)
            .execute(connection)
            .await?)
    }
}

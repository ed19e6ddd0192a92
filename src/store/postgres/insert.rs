//! The statement that stores events: columns as arrays, of any number of rows.
//!
//! A parameter for each column instead of one for each value: the protocol allows 65,535.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Binary, Bool, Integer, Nullable, SmallInt, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{fault::Fault, statement::statement, topics::Topics};
use crate::{
    event::SequencedEvent,
    store::{StoreError, records::signed},
};

statement! {
    /// `unnest` in the list of columns hands row by row on; in `FROM` the server would first put all
    /// rows into a table of its own, for a fifth of the work of a row.
    Insert<'c> {
        "INSERT INTO nodecast.events \
         (seq, position, time, idx, part, topic_id, late, user_address, body) \
         SELECT unnest(" seq: &'c [i64] => Array<BigInt>,
        "), unnest(" position: &'c [i64] => Array<BigInt>,
        "), unnest(" time: &'c [i64] => Array<BigInt>,
        "), unnest(" index: &'c [i32] => Array<Integer>,
        "), unnest(" part: &'c [i32] => Array<Integer>,
        "), unnest(" topic: &'c [i16] => Array<SmallInt>,
        "), unnest(" late: &'c [bool] => Array<Bool>,
        "), unnest(" user: &'c [Option<&'c [u8]>] => Array<Nullable<Binary>>,
        "), unnest(" body: &'c [&'c str] => Array<Text>;
        ") ON CONFLICT (topic_id, position, idx, part, time) DO NOTHING"
    }
}

const FIND: &str = "SELECT count(*) AS rows FROM unnest($1, $2, $3, $4, $5) \
    AS row (seq, topic_id, position, idx, part) \
    JOIN nodecast.events USING (seq, topic_id, position, idx, part)";

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = BigInt)]
    rows: i64,
}

/// The rows of a batch, column by column.
#[derive(Debug, Default)]
pub struct Columns<'e> {
    seq: Vec<i64>,
    position: Vec<i64>,
    time: Vec<i64>,
    /// Bit patterns, as those of `part`.
    index: Vec<i32>,
    part: Vec<i32>,
    topic: Vec<i16>,
    late: Vec<bool>,
    user: Vec<Option<&'e [u8]>>,
    body: Vec<&'e str>,
}

impl<'e> Columns<'e> {
    /// # Errors
    /// [`StoreError::Refused`] when a row has something that no column can hold, or a `seq` that is
    /// not above those before it.
    pub fn of(events: &[&'e SequencedEvent], topics: &Topics) -> Result<Self, StoreError> {
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
            columns.position.push(signed(event.id.position, "position")?);
            columns.time.push(event.time.0);
            columns.index.push(event.id.index as i32);
            columns.part.push(event.id.part as i32);
            let topic = topics.id(event.id.topic);
            columns.topic.push(topic.ok_or_else(|| {
                StoreError::Failed(format!("topic {} has no number", event.id.topic))
            })?);
            columns.late.push(*late);
            columns.user.push(event.user.as_ref().map(|user| user.0.as_slice()));
            columns.body.push(body);
        }
        Ok(columns)
    }

    /// The lowest `seq` among them.
    pub fn first_seq(&self) -> Option<i64> {
        self.seq.as_slice().first().copied()
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
            .bind::<Array<SmallInt>, _>(&self.topic[..repeated])
            .bind::<Array<BigInt>, _>(&self.position[..repeated])
            .bind::<Array<Integer>, _>(&self.index[..repeated])
            .bind::<Array<Integer>, _>(&self.part[..repeated])
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
    pub async fn insert(&self, mut connection: &AsyncPgConnection) -> Result<usize, Fault> {
        if self.seq.is_empty() {
            return Ok(0);
        }
        let insert = Insert {
            seq: &self.seq,
            position: &self.position,
            time: &self.time,
            index: &self.index,
            part: &self.part,
            topic: &self.topic,
            late: &self.late,
            user: &self.user,
            body: &self.body,
        };
        Ok(insert.execute(&mut connection).await?)
    }
}

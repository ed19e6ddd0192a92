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
    event::{Event, SequencedEvent},
    store::{StoreError, records::signed},
};

statement! {
    /// `unnest` in the list of columns hands row by row on; in `FROM` the server would first put all
    /// rows into a table of its own, for a fifth of the work of a row.
    Insert<'c> {
        "INSERT INTO nodecast.events \
         (seq, position, time, idx, part, topic_id, late, user_address, body, kind) \
         SELECT unnest(" seq: &'c [i64] => Array<BigInt>,
        "), unnest(" position: &'c [i64] => Array<BigInt>,
        "), unnest(" time: &'c [i64] => Array<BigInt>,
        "), unnest(" index: &'c [i32] => Array<Integer>,
        "), unnest(" part: &'c [i32] => Array<Integer>,
        "), unnest(" topic: &'c [i16] => Array<SmallInt>,
        "), unnest(" late: &'c [bool] => Array<Bool>,
        "), unnest(" user: &'c [Option<&'c [u8]>] => Array<Nullable<Binary>>,
        "), unnest(" body: &'c [&'c str] => Array<Text>,
        "), unnest(" kind: &'c [&'c str] => Array<Text>;
        ") ON CONFLICT (topic_id, position, idx, part, time) DO NOTHING"
    }
}

/// Takes back-filled rows away that have one of these identities.
const MAKE_WAY: &str = "DELETE FROM nodecast.events e USING unnest($1, $2, $3, $4, $5) \
    AS live (topic_id, position, idx, part, time) \
    WHERE e.seq < 0 AND e.topic_id = live.topic_id AND e.position = live.position \
    AND e.idx = live.idx AND e.part = live.part AND e.time = live.time";

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
    /// Empty: it has none.
    kind: Vec<&'e str>,
}

impl<'e> Columns<'e> {
    /// # Errors
    /// [`StoreError::Refused`] when a row has something that no column can hold, or a `seq` that is
    /// not above those before it.
    pub fn of(events: &[&'e SequencedEvent], topics: &Topics) -> Result<Self, StoreError> {
        let mut columns = Self::default();
        let mut last_seq = i64::MIN;
        for SequencedEvent { seq, late, event } in events {
            let seq = signed(*seq, "seq")?;
            if seq <= last_seq {
                return Err(StoreError::Refused(format!("seq {seq} follows seq {last_seq}")));
            }
            last_seq = seq;
            columns.push(seq, *late, event, topics)?;
        }
        Ok(columns)
    }

    /// Of back-filled events, with these numbers: from `first` upwards.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn backfilled(
        events: &'e [Event],
        first: i64,
        topics: &Topics,
    ) -> Result<Self, StoreError> {
        let mut columns = Self::default();
        for (seq, event) in (first..).zip(events) {
            columns.push(seq, true, event, topics)?;
        }
        Ok(columns)
    }

    fn push(
        &mut self,
        seq: i64,
        late: bool,
        event: &'e Event,
        topics: &Topics,
    ) -> Result<(), StoreError> {
        let Event { id, time, user, body, .. } = event;
        let body = std::str::from_utf8(body)
            .map_err(|error| StoreError::Refused(format!("the body is not UTF-8: {error}")))?;
        let topic = topics.id(id.topic);
        let topic =
            topic.ok_or_else(|| StoreError::Failed(format!("topic {} has no number", id.topic)))?;
        self.seq.push(seq);
        self.position.push(signed(id.position, "position")?);
        self.time.push(time.0);
        self.index.push(id.index as i32);
        self.part.push(id.part as i32);
        self.topic.push(topic);
        self.late.push(late);
        self.user.push(user.as_ref().map(|user| user.0.as_slice()));
        self.body.push(body);
        self.kind.push(event.kind().unwrap_or_default());
        Ok(())
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

    /// Takes back-filled rows away whose place these take.
    pub async fn make_way(&self, mut connection: &AsyncPgConnection) -> Result<(), Fault> {
        diesel::sql_query(MAKE_WAY)
            .bind::<Array<SmallInt>, _>(&self.topic)
            .bind::<Array<BigInt>, _>(&self.position)
            .bind::<Array<Integer>, _>(&self.index)
            .bind::<Array<Integer>, _>(&self.part)
            .bind::<Array<BigInt>, _>(&self.time)
            .execute(&mut connection)
            .await?;
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
            kind: &self.kind,
        };
        Ok(insert.execute(&mut connection).await?)
    }
}

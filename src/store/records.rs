//! What both databases hold in the same way: how our types become columns and come back.
//!
//! Invariant: integers of the databases are signed; what does not fit is refused and never wrapped.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use super::{EarlierRun, StoreError, ranges::merge};
use crate::{
    event::{Address, BACKFILLED_SEQ, Event, EventId, Keys, SequencedEvent, Timestamp, Topic},
    router::ledger::{BlockRange, Gap},
    source::{FileMark, Progress, StreamState},
};

/// Makes a number one of the database's.
pub fn signed(number: u64, what: &str) -> Result<i64, StoreError> {
    i64::try_from(number)
        .map_err(|_| StoreError::Refused(format!("{what} {number} is beyond 63 bits")))
}

/// Reads a number that [`signed`] wrote.
pub fn unsigned(number: i64, what: &str) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Unusable(format!("{what} {number} is negative")))
}

/// Reads a number of 32 bits.
pub fn unsigned_32(number: i64, what: &str) -> Result<u32, StoreError> {
    u32::try_from(number)
        .map_err(|_| StoreError::Unusable(format!("{what} {number} is beyond 32 bits")))
}

/// What a `seq` of ours and of the databases differ by for back-filled events: there they are
/// negative. So whatever asks for the highest `seq`, or for those behind a cursor, passes them over,
/// and none of them stands at the end of the table, where live ones are appended.
pub const SHIFT: i64 = 1 << 53;

/// The column `seq` of an event.
pub fn seq_column(seq: u64) -> Result<i64, StoreError> {
    let number = signed(seq, "seq")?;
    Ok(if seq < BACKFILLED_SEQ { number } else { number - SHIFT })
}

/// Reads what [`seq_column`] wrote.
pub fn seq_of(column: i64) -> Result<u64, StoreError> {
    unsigned(if column < 0 { column + SHIFT } else { column }, "seq")
}

/// The column `seq` as a bound of a page.
pub fn seq_bound(seq: u64) -> i64 {
    seq_column(seq).unwrap_or(i64::MAX)
}

/// A bound of a query: what no row can reach is as good as the largest.
pub fn clamp(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A row of the events as it was read.
pub struct EventRow {
    pub seq: i64,
    pub topic: String,
    pub position: i64,
    pub idx: i64,
    pub part: i64,
    pub time: i64,
    pub user: Option<Vec<u8>>,
    pub late: bool,
    pub body: String,
}

impl TryFrom<EventRow> for SequencedEvent {
    type Error = StoreError;

    fn try_from(row: EventRow) -> Result<Self, StoreError> {
        let user = row.user.map(|user| user.try_into().map(Address)).transpose().map_err(|_| {
            StoreError::Unusable(format!("the user of event {} is not 20 bytes", row.seq))
        })?;
        let id = EventId {
            topic: Topic::intern(&row.topic),
            position: unsigned(row.position, "position")?,
            index: unsigned_32(row.idx, "index")?,
            part: unsigned_32(row.part, "part")?,
        };
        let (time, body) = (Timestamp(row.time), Bytes::from(row.body));
        let event = Event { id, time, user, keys: Keys::default(), body };
        Ok(Self { seq: seq_of(row.seq)?, late: row.late, event })
    }
}

/// Topic, first, last, next index and digests of a row of the ledger.
pub type RangeRow = (String, i64, i64, Option<i64>, Vec<u8>);

pub fn range(
    (topic, first, last, next_index, digests): RangeRow,
) -> Result<BlockRange, StoreError> {
    Ok(BlockRange {
        topic: Topic::intern(&topic),
        first: unsigned(first, "position")?,
        last: unsigned(last, "position")?,
        next_index: next_index.map(|index| unsigned_32(index, "index")).transpose()?,
        digests: digests.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect(),
    })
}

/// Little-endian, one behind the other.
pub fn digest_bytes(range: &BlockRange) -> Vec<u8> {
    range.digests.iter().flat_map(|digest| digest.to_le_bytes()).collect()
}

/// Which rows of the ledger a compaction replaces by which.
pub fn compaction(rows: Vec<BlockRange>) -> (Vec<BlockRange>, Vec<BlockRange>) {
    let merged = merge(rows.clone());
    let key = |range: &BlockRange| (range.topic, range.first);
    let before: HashMap<_, _> = rows.iter().map(|range| (key(range), range)).collect();
    let after: HashMap<_, _> = merged.iter().map(|range| (key(range), range)).collect();
    let only_in = |these: &HashMap<_, &BlockRange>, others: &HashMap<_, &BlockRange>| {
        let differs = these.iter().filter(|(key, range)| others.get(*key) != Some(*range));
        differs.map(|(_, range)| (*range).clone()).collect()
    };
    (only_in(&before, &after), only_in(&after, &before))
}

/// An open gap, of topic, first, last and the time it was noticed.
pub fn gap((topic, first, last, opened): (String, i64, i64, i64)) -> Result<Gap, StoreError> {
    Ok(Gap {
        topic: Topic::intern(&topic),
        first: unsigned(first, "position")?,
        last: unsigned(last, "position")?,
        opened: Timestamp(opened),
        closed: None,
    })
}

/// A run that has ended, of its number and the last `seq` that it committed.
pub fn earlier_run((id, last_seq): (i64, i64)) -> Result<EarlierRun, StoreError> {
    Ok(EarlierRun { id: unsigned(id, "run")?, last_seq: unsigned(last_seq, "seq")? })
}

/// What the progress of a commit ends with: it may hold thousands of small batches of one stream.
#[derive(Default)]
pub struct FinalProgress<'p> {
    pub states: HashMap<&'p str, &'p StreamState>,
    /// By stream and file.
    pub marks: HashMap<(&'p str, &'p Arc<str>), &'p FileMark>,
}

impl<'p> FinalProgress<'p> {
    /// Later steps replace earlier ones.
    pub fn of(progress: &[&'p Progress]) -> Self {
        let mut last = Self::default();
        // What is cast late comes from no directory: nothing goes on from there.
        let of_nodes = progress.iter().filter(|step| !step.stream.directory.as_os_str().is_empty());
        for step in of_nodes {
            last.states.insert(&step.stream.name, &step.state);
            for mark in &step.files {
                let (FileMark::At { file, .. } | FileMark::Gone { file }) = mark;
                last.marks.insert((&step.stream.name, file), mark);
            }
        }
        last
    }
}

pub fn state_text(name: &str, state: &StreamState) -> Result<String, StoreError> {
    serde_json::to_string(state)
        .map_err(|error| StoreError::Refused(format!("the state of stream {name}: {error}")))
}

/// Reads what [`state_text`] wrote.
pub fn state_of(name: &str, text: &str) -> Result<StreamState, StoreError> {
    serde_json::from_str(text).map_err(|error| {
        StoreError::Unusable(format!("the state of stream {name} cannot be read: {error}"))
    })
}

pub fn mark(file: String, offset: i64, digest: i64) -> Result<FileMark, StoreError> {
    let offset = unsigned(offset, "offset")?;
    Ok(FileMark::At { file: file.into(), offset, digest: digest as u64 })
}

/// The highest position of each topic, from its newest event and from the ledger.
pub fn heads(newest_events: Vec<(Topic, u64)>, seen: &[BlockRange]) -> Vec<(Topic, u64)> {
    let mut heads: HashMap<Topic, u64> = newest_events.into_iter().collect();
    for range in seen {
        let head = heads.entry(range.topic).or_default();
        *head = range.last.max(*head);
    }
    let mut heads: Vec<_> = heads.into_iter().collect();
    heads.sort_unstable();
    heads
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::source::{Density, Form, Stream};

    #[test]
    fn what_comes_from_no_directory_leaves_no_stream() {
        let of = |directory: &str| Progress {
            stream: Arc::new(Stream {
                name: format!("stream of {directory}").into(),
                node: "".into(),
                topic: Topic::new("fills"),
                form: Form::ByBlock,
                density: Density::Sparse,
                directory: PathBuf::from(directory),
            }),
            files: Vec::new(),
            state: StreamState::default(),
        };
        let (late, node) = (of(""), of("/data/fills"));

        let last = FinalProgress::of(&[&late, &node]);

        assert_eq!(last.states.into_keys().collect::<Vec<_>>(), ["stream of /data/fills"]);
    }
}

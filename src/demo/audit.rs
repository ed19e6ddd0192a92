//! The proof: the store against the manifest, row by row.
//!
//! Place: after the end. It reads what the simulator noted down and what the database holds, one
//! block at a time, so that a demo of a week needs no memory for it; it asks no counter.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    iter::Peekable,
    path::Path,
};

use crate::{
    event::{Address, Event},
    generate::{Manifest, ManifestError, Row},
    store::{EventQuery, EventStore, PageKey, StoreError},
};

/// Rows that are read from the store at a time.
const PAGE_ROWS: usize = 5_000;

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the comparison has found, in rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// By the node, for listed users.
    pub written: u64,
    pub stored: u64,
    pub lost: u64,
    pub twice: u64,
    /// Stored with another time, user or body.
    pub altered: u64,
    /// Stored and never written.
    pub invented: u64,
}

impl Verdict {
    pub fn is_equal(&self) -> bool {
        let Self { written, stored, lost, twice, altered, invented } = *self;
        written == stored && [lost, twice, altered, invented] == [0; 4]
    }

    /// Adds one block: what was written of it, and what is stored.
    fn add(&mut self, written: &[Row], stored: &[Event]) {
        self.written += written.len() as u64;
        self.stored += stored.len() as u64;
        let mut rows: HashMap<_, _> = written.iter().map(|row| (row.id, row)).collect();
        let mut found = HashSet::new();
        for event in stored {
            if !found.insert(event.id) {
                self.twice += 1;
                continue;
            }
            match rows.remove(&event.id) {
                None => self.invented += 1,
                Some(row) if !is_same(row, event) => self.altered += 1,
                Some(_) => {}
            }
        }
        self.lost += rows.len() as u64;
    }
}

fn is_same(row: &Row, event: &Event) -> bool {
    row.time_ns.div_euclid(1_000) == event.time.0
        && row.user == event.user
        && row.body.as_bytes() == &*event.body
}

/// Counts what the node wrote for listed users.
///
/// # Errors
/// When the manifest cannot be read or has no end.
pub fn count_written(manifest: &Path, listed: &HashSet<Address>) -> Result<u64, AuditError> {
    let mut count = 0;
    for row in listed_rows(manifest, listed)? {
        row?;
        count += 1;
    }
    Ok(count)
}

/// Compares all that is stored with all that was written for listed users.
///
/// # Errors
/// When one of both cannot be read.
pub async fn compare(
    manifest: &Path,
    listed: &HashSet<Address>,
    store: &dyn EventStore,
) -> Result<Verdict, AuditError> {
    let mut written = WrittenBlocks(listed_rows(manifest, listed)?.peekable());
    let mut stored = StoredBlocks { store, rows: VecDeque::new(), after: None };
    let mut verdict = Verdict::default();
    loop {
        let next = [written.position()?, stored.position().await?];
        let Some(position) = next.into_iter().flatten().min() else { return Ok(verdict) };
        verdict.add(&written.take(position)?, &stored.take(position).await?);
    }
}

fn listed_rows<'a>(
    manifest: &Path,
    listed: &'a HashSet<Address>,
) -> Result<impl Iterator<Item = Result<Row, ManifestError>> + use<'a>, ManifestError> {
    let is_listed = |row: &Row| row.user.is_some_and(|user| listed.contains(&user));
    Ok(Manifest::rows_of(manifest)?.filter(move |row| row.as_ref().map_or(true, is_listed)))
}

/// The rows of the manifest, which stand in the order of the blocks.
struct WrittenBlocks<I: Iterator>(Peekable<I>);

impl<I: Iterator<Item = Result<Row, ManifestError>>> WrittenBlocks<I> {
    fn position(&mut self) -> Result<Option<u64>, ManifestError> {
        match self.0.next_if(Result::is_err) {
            Some(Err(error)) => Err(error),
            _ => Ok(self.0.peek().and_then(|row| row.as_ref().ok()).map(|row| row.id.position)),
        }
    }

    fn take(&mut self, position: u64) -> Result<Vec<Row>, ManifestError> {
        let mut rows = Vec::new();
        while self.position()? == Some(position) {
            rows.extend(self.0.next().transpose()?);
        }
        Ok(rows)
    }
}

/// The rows of the store in the order of the blocks, a page at a time.
struct StoredBlocks<'a> {
    store: &'a dyn EventStore,
    rows: VecDeque<Event>,
    after: Option<PageKey>,
}

impl StoredBlocks<'_> {
    async fn position(&mut self) -> Result<Option<u64>, StoreError> {
        if self.rows.is_empty() {
            let after = self.after;
            let query = EventQuery { after, limit: PAGE_ROWS, ..EventQuery::default() };
            let page = self.store.events(query).await?;
            if let Some(last) = page.last() {
                self.after = Some(PageKey { position: last.event.id.position, seq: last.seq });
            }
            self.rows.extend(page.into_iter().map(|row| row.event));
        }
        Ok(self.rows.front().map(|event| event.id.position))
    }

    async fn take(&mut self, position: u64) -> Result<Vec<Event>, StoreError> {
        let mut events = Vec::new();
        while self.position().await? == Some(position) {
            events.extend(self.rows.pop_front());
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        event::{EventId, Keys, Timestamp},
        generate::FILLS,
    };

    fn row(index: u32) -> Row {
        let id = EventId { topic: FILLS, position: 7, index, part: 0 };
        Row { id, time_ns: 1_999, user: None, body: format!("{{\"tid\":{index}}}") }
    }

    fn event(index: u32) -> Event {
        let Row { id, user, body, .. } = row(index);
        Event { id, time: Timestamp(1), user, keys: Keys::default(), body: Bytes::from(body) }
    }

    fn verdict(written: &[Row], stored: &[Event]) -> Verdict {
        let mut verdict = Verdict::default();
        verdict.add(written, stored);
        verdict
    }

    #[test]
    fn equal_rows_are_equal_in_any_order() {
        let verdict = verdict(&[row(0), row(1)], &[event(1), event(0)]);

        assert_eq!(verdict, Verdict { written: 2, stored: 2, ..Verdict::default() });
        assert!(verdict.is_equal());
    }

    #[test]
    fn each_kind_of_difference_is_found() {
        let other_body = Event { body: Bytes::from_static(b"{}"), ..event(0) };
        let other_time = Event { time: Timestamp(2), ..event(0) };
        let other_user = Event { user: Some(Address([1; 20])), ..event(0) };

        let lost = verdict(&[row(0), row(1)], &[event(0)]);
        let twice = verdict(&[row(0)], &[event(0), event(0)]);
        let invented = verdict(&[], &[event(0)]);

        assert_eq!((lost.lost, twice.twice, invented.invented), (1, 1, 1));
        assert!(!lost.is_equal() && !twice.is_equal() && !invented.is_equal());
        for altered in [other_body, other_time, other_user] {
            let verdict = verdict(&[row(0)], &[altered]);
            assert_eq!(verdict.altered, 1);
            assert!(!verdict.is_equal());
        }
    }

    #[test]
    fn a_loss_and_an_invention_do_not_cancel_each_other() {
        let verdict = verdict(&[row(0)], &[event(1)]);

        assert_eq!((verdict.lost, verdict.invented), (1, 1));
        assert!(!verdict.is_equal());
    }
}

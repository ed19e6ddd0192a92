//! The channel between those who log and the thread that writes.
//!
//! Place: behind the level filter, before the format. Records go in at [`Queue`] and come out at
//! [`Written`]; what lies between them is counted in [`Queued`], which the metrics read.
//! Invariant: nobody waits; a record that finds the channel full is dropped and counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use slog::{Drain, Level, Never, OwnedKVList, Record, b, o, record};
use slog_async::{AsyncCore, AsyncGuard};

use crate::stats::{Counter, Gauge};

/// How full the channel is. Clones are the same channel.
#[derive(Clone, Debug)]
pub struct Queued(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    records: Gauge,
    dropped: Counter,
    limit: usize,
}

impl Queued {
    /// Records that wait for their writing.
    pub fn records(&self) -> i64 {
        self.0.records.get()
    }

    /// Records that found no room, since the start.
    pub fn dropped(&self) -> &Counter {
        &self.0.dropped
    }

    /// Most records that wait: `log.channel_records`.
    pub fn limit(&self) -> usize {
        self.0.limit
    }
}

/// Puts a channel of so many records before a format.
pub fn before<D>(format: D, limit: usize) -> (Queue, Queued, AsyncGuard)
where
    D: Drain<Ok = (), Err = Never> + Send + 'static,
{
    let counts = Counts { records: Gauge::default(), dropped: Counter::default(), limit };
    let queued = Queued(Arc::new(counts));
    let (channel, guard) = AsyncCore::custom(Written { format, queued: queued.clone() })
        .chan_size(limit)
        .thread_name("log".to_owned())
        .build_with_guard();
    (Queue { channel, queued: queued.clone(), unreported: AtomicU64::new(0) }, queued, guard)
}

/// Puts records into the channel and never waits. A record that finds it full is dropped; the next
/// one that finds room reports how many were. `slog_async::Async` does the same, but counts its own
/// reports that found no room as dropped records.
pub struct Queue {
    channel: AsyncCore,
    queued: Queued,
    /// Dropped and not yet reported.
    unreported: AtomicU64,
}

impl Queue {
    /// Tells whether there was room.
    fn put(&self, record: &Record, values: &OwnedKVList) -> bool {
        // Counted before: the other end may be quicker than this one.
        self.queued.0.records.add(1);
        let sent = self.channel.log(record, values).is_ok();
        if !sent {
            self.queued.0.records.add(-1);
        }
        sent
    }

    /// Tells whether there was room for the report.
    fn report(&self, dropped: u64) -> bool {
        let values = o!("component" => "logging").into();
        // In one statement: the record borrows its parts.
        self.put(
            &record!(
                Level::Warning,
                "",
                &format_args!("log records dropped"),
                b!("dropped_records" => dropped)
            ),
            &values,
        )
    }
}

impl Drain for Queue {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record, values: &OwnedKVList) -> Result<(), Never> {
        let mut unreported = self.unreported.swap(0, Ordering::Relaxed);
        if unreported > 0 && self.report(unreported) {
            unreported = 0;
        }
        if !self.put(record, values) {
            self.queued.0.dropped.add(1);
            unreported += 1;
        }
        if unreported > 0 {
            self.unreported.fetch_add(unreported, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The end of the channel: a record leaves it when its writing begins.
struct Written<D> {
    format: D,
    queued: Queued,
}

impl<D: Drain<Ok = (), Err = Never>> Drain for Written<D> {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record, values: &OwnedKVList) -> Result<(), Never> {
        self.queued.0.records.add(-1);
        self.format.log(record, values)
    }
}

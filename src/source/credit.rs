//! The limit on bytes in flight, drawn at the source.
//!
//! `do_send` ignores a mailbox's capacity, so nothing downstream can refuse a batch. Instead each
//! batch carries a [`Credit`] of its bytes; a watcher reads no further when its share is out, and
//! the bytes come back when the batch has been committed.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use actix::{Message, Recipient};

/// Bytes came back to a watcher that was waiting for them.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct CreditReturned;

/// A batch was dropped before it was committed: the pipeline has to go back to its checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct BatchLost {
    /// The life of the pipeline that lost it.
    pub generation: u64,
}

/// The share of one chain in the bytes that may be in flight.
pub struct Budget {
    limit_bytes: usize,
    in_flight_bytes: AtomicUsize,
    batches: AtomicUsize,
    /// Set by a watcher that has stopped reading; the next return clears it and wakes the watcher,
    /// so a batch costs no message while nobody waits.
    waiting: AtomicBool,
    wake: OnceLock<Recipient<CreditReturned>>,
    lost: Recipient<BatchLost>,
    /// Counts the batches of this one too.
    whole: Option<Arc<Budget>>,
}

impl Budget {
    pub fn new(limit_bytes: usize, lost: Recipient<BatchLost>) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            in_flight_bytes: AtomicUsize::new(0),
            batches: AtomicUsize::new(0),
            waiting: AtomicBool::new(false),
            wake: OnceLock::new(),
            lost,
            whole: None,
        })
    }

    /// A budget of its own for one batch that is waited for by itself: it wakes the same watcher, at
    /// the return of that batch, and reports the same losses. The batch counts in both.
    pub fn sibling(self: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes: self.limit_bytes,
            in_flight_bytes: AtomicUsize::new(0),
            batches: AtomicUsize::new(0),
            waiting: AtomicBool::new(true),
            wake: self.wake.clone(),
            lost: self.lost.clone(),
            whole: Some(self.clone()),
        })
    }

    /// Names the watcher that is woken. Later calls have no effect.
    pub fn wake_with(&self, watcher: Recipient<CreditReturned>) {
        let _first_wins = self.wake.set(watcher);
    }

    /// Whether another read may start. The read that crosses the limit is allowed, so a line
    /// longer than the whole budget still gets through.
    pub fn has_room(&self) -> bool {
        self.in_flight_bytes.load(Ordering::Acquire) < self.limit_bytes
    }

    /// Bytes of the batches that are neither committed nor lost.
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes.load(Ordering::Acquire)
    }

    /// Number of batches that are neither committed nor lost.
    pub fn in_flight_batches(&self) -> usize {
        self.batches.load(Ordering::Acquire)
    }

    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// Asks for a [`CreditReturned`] at the next return. Look again afterwards: what came back
    /// just before sends none.
    pub fn wait(&self) {
        self.waiting.store(true, Ordering::SeqCst);
    }

    /// Takes `bytes` out for a batch of `generation`.
    pub fn take(self: &Arc<Self>, bytes: usize, generation: u64) -> Credit {
        self.in_flight_bytes.fetch_add(bytes, Ordering::AcqRel);
        self.batches.fetch_add(1, Ordering::AcqRel);
        if let Some(whole) = &self.whole {
            whole.batches.fetch_add(1, Ordering::AcqRel);
        }
        Credit { bytes, generation, committed: false, budget: self.clone() }
    }

    fn give_back(&self, bytes: usize) {
        self.in_flight_bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.wake_waiting();
    }

    fn wake_waiting(&self) {
        if self.waiting.swap(false, Ordering::SeqCst)
            && let Some(watcher) = self.wake.get()
        {
            watcher.do_send(CreditReturned);
        }
    }
}

/// The bytes that one batch holds of its chain's budget.
///
/// Dropped without [`Credit::done`] it reports the batch as lost.
pub struct Credit {
    bytes: usize,
    generation: u64,
    committed: bool,
    budget: Arc<Budget>,
}

impl Credit {
    /// Charges what the batch really holds, once the filter has copied the few wanted bodies out
    /// of the read buffer.
    pub fn resize(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => {
                self.budget.in_flight_bytes.fetch_add(more, Ordering::AcqRel);
            }
            None => self.budget.give_back(self.bytes - bytes),
        }
        self.bytes = bytes;
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The batch is committed: its bytes may be used again.
    pub fn done(mut self) {
        self.committed = true;
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.budget.batches.fetch_sub(1, Ordering::AcqRel);
        if let Some(whole) = &self.budget.whole {
            whole.batches.fetch_sub(1, Ordering::AcqRel);
        }
        self.budget.give_back(self.bytes);
        if !self.committed {
            self.budget.lost.do_send(BatchLost { generation: self.generation });
        }
    }
}

impl fmt::Debug for Credit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credit({} bytes)", self.bytes)
    }
}

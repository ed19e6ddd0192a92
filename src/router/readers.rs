//! Who is woken when the log has grown.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use actix::{Message, Recipient};

/// The log has grown. At most one of these is under way to each reader.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Appended;

/// The readers of the log: `DbWriter`, and one shard per HTTP worker.
#[derive(Default)]
pub struct Readers(Mutex<Vec<Arc<Reader>>>);

/// One reader's bell.
pub struct Reader {
    rung: AtomicBool,
    /// Clients wait for it.
    urgent: AtomicBool,
    recipient: Recipient<Appended>,
}

impl Readers {
    /// Adds a reader; it starts where the log is when it first reads.
    pub fn register(&self, recipient: Recipient<Appended>) -> Arc<Reader> {
        let reader = Arc::new(Reader {
            rung: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            recipient,
        });
        self.lock().push(reader.clone());
        reader
    }

    /// Wakes all; readers that are gone are forgotten.
    ///
    /// Those for whom clients wait go first: to wake a thread on a processor that sleeps takes
    /// some ten microseconds, and the writer lets events gather in any case.
    pub fn wake(&self) {
        // Each is asked once: one that changes its mind in between must not be left out.
        let mut others = Vec::new();
        self.lock().retain(|reader| {
            if reader.is_urgent() {
                reader.ring()
            } else {
                others.push(reader.clone())
            }
            reader.recipient.connected()
        });
        others.iter().for_each(|reader| reader.ring());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Reader>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// The reader calls this when it has been woken and before it reads, so that what is appended
    /// afterwards wakes it again.
    pub fn answered(&self) {
        self.rung.store(false, Ordering::Release);
    }

    /// The reader tells whether clients wait for it. Decides the order of waking and nothing else.
    pub fn set_urgent(&self, urgent: bool) {
        self.urgent.store(urgent, Ordering::Relaxed);
    }

    fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed)
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.recipient.do_send(Appended);
        }
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Readers({})", self.lock().len())
    }
}

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
    recipient: Recipient<Appended>,
}

impl Readers {
    /// Adds a reader; it starts where the log is when it first reads. The last to come is woken
    /// first: clients wait for the shards, whereas the writer, which is there before them, lets
    /// events gather in any case and would only take the processor from them.
    pub fn register(&self, recipient: Recipient<Appended>) -> Arc<Reader> {
        let reader = Arc::new(Reader { rung: AtomicBool::new(false), recipient });
        self.lock().insert(0, reader.clone());
        reader
    }

    /// Wakes all; readers that are gone are forgotten.
    pub fn wake(&self) {
        self.lock().retain(|reader| {
            if reader.rung.swap(true, Ordering::AcqRel) {
                return reader.recipient.connected();
            }
            reader.recipient.do_send(Appended);
            reader.recipient.connected()
        });
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
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Readers({})", self.lock().len())
    }
}

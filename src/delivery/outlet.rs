//! Where the frames of a session go: to a socket that it owns, or into a response body.
//!
//! Place in the pipeline: shard -> **`Outlet`** -> client. The shard knows nothing else of a client's
//! transport.
//! Invariant: nothing here waits.

use std::rc::Rc;

use bytes::Bytes;

use super::{bundle::Bundle, outbox::Full};

/// How a flush ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Nothing waits.
    Drained,
    /// The client takes no more at the moment; its session waits for it.
    Blocked,
    /// The client is gone.
    Broken,
}

/// A bounded way to one client.
pub trait Outlet {
    /// Queues a frame; the caller flushes when it has queued all.
    ///
    /// # Errors
    /// [`Full`] when it does not fit even after what the client takes at once. It is not counted.
    fn push(&self, frame: Bytes) -> Result<(), Full>;

    /// Queues frames in one piece.
    ///
    /// # Errors
    /// [`Full`] when not all of them fit: then none is queued or counted, and some may fit one by one.
    fn push_bundle(&self, bundle: &Rc<Bundle>) -> Result<(), Full>;

    /// Queues a frame beyond the limit: one of few.
    fn force(&self, frame: Bytes);

    /// Hands on what waits, unless the session is already waiting for its client.
    fn flush(&self) -> Flush;

    /// Reads what the next push or flush will read, for the caches of the processor only: what it gives says
    /// nothing.
    fn warm(&self) -> usize {
        0
    }

    /// Counts what is queued, where that is not flushed at once.
    fn count(&self);

    /// What has been is queued; what follows is live.
    fn joined(&self) {}

    /// Frames of this length and longer are wanted compressed, where that makes them smaller.
    fn packs_from(&self) -> usize {
        usize::MAX
    }

    /// Bytes that wait.
    fn waiting_bytes(&self) -> usize;

    /// Whether the caller is the first, since the client last took no more, to see to it that the
    /// session waits for it.
    fn claim_wait(&self) -> bool;
}

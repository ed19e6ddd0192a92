//! The outlet of a client that reads a response body.
//!
//! Place in the pipeline: shard -> outbox -> **`Body`** -> HTTP connection. The connection polls it as
//! its client reads, and not at all while that stalls: so nothing here depends on being polled, and
//! who stalls for too long is cut off from outside.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};

use super::{
    bundle::Bundle,
    outbox::{Full, Outbox},
    outlet::{Flush, Outlet},
    set::Permit,
};
use crate::{config::SessionConfig, event::Cursor, stats::Stats};

/// Most bytes handed to the connection at once. It keeps them until its client takes them.
const CHUNK_BYTES: usize = 32 << 10;

/// A bounded queue between a shard and a response body, both on one thread.
pub struct Body {
    outbox: RefCell<Outbox>,
    /// Frames that it takes in all; then it is full. Frames that are forced are not counted: they belong to
    /// others, where an event has several, or are no events.
    left: Cell<usize>,
    /// The connection has taken all that was there, and asks for more. It cannot ask again before the turn ends
    /// that queues it, so until then more may wait: as many bytes as in all where there is a socket, which takes
    /// some of them at once.
    asks: Cell<bool>,
    most_bytes: usize,
    /// Bytes that the connection took in all.
    taken: Cell<u64>,
    /// Somebody waits for it to be drained.
    awaited: Cell<bool>,
    /// Set when no frame follows: how far the client is then.
    ended: RefCell<Option<Cursor>>,
    /// What has been is queued.
    joined: Cell<bool>,
    /// The connection is gone.
    gone: Cell<bool>,
    reader: Cell<Option<Waker>>,
    stats: Arc<Stats>,
    _permit: Permit,
}

impl Body {
    /// A queue of so many frames at most.
    pub fn new(
        config: &SessionConfig,
        max_frames: usize,
        stats: Arc<Stats>,
        permit: Permit,
    ) -> Rc<Self> {
        Rc::new(Self {
            outbox: RefCell::new(Outbox::new(config.outbox_bytes)),
            left: Cell::new(max_frames),
            asks: Cell::new(false),
            most_bytes: config.outbox_bytes.saturating_add(config.send_buffer_bytes as usize),
            taken: Cell::new(0),
            awaited: Cell::new(false),
            ended: RefCell::new(None),
            joined: Cell::new(false),
            gone: Cell::new(false),
            reader: Cell::new(None),
            stats,
            _permit: permit,
        })
    }

    /// Bytes that the connection took in all.
    pub fn taken_bytes(&self) -> u64 {
        self.taken.get()
    }

    /// Nothing follows what is queued, with which its client has everything up to here.
    pub fn end(&self, delivered: Cursor) {
        self.ended.replace(Some(delivered));
        self.wake();
    }

    pub fn ended(&self) -> Option<Cursor> {
        self.ended.borrow().clone()
    }

    /// Drops what waits, but not the rest of what the connection has begun to take.
    pub fn abandon(&self) {
        self.outbox.borrow_mut().abandon();
        self.report();
    }

    /// The connection is gone: what waits is dropped.
    pub fn leave(&self) {
        self.gone.set(true);
        self.wake();
        self.outbox.borrow_mut().clear();
        self.report();
    }

    /// Takes what waits, a chunk of it; none when it has ended. `drained` is called when that was all
    /// and somebody waits for room.
    pub fn poll_chunk(&self, cx: &mut Context<'_>, drained: impl FnOnce()) -> Poll<Option<Bytes>> {
        let chunk = self.take(CHUNK_BYTES);
        self.asks.set(chunk.is_empty());
        if chunk.is_empty() {
            if self.gone.get() || self.ended.borrow().is_some() {
                return Poll::Ready(None);
            }
            self.reader.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        if self.waiting_bytes() == 0 && self.awaited.replace(false) {
            drained();
        }
        Poll::Ready(Some(chunk))
    }

    /// Waits until something is queued, or nothing will be. With `past` it is enough that nothing of the
    /// past is to come.
    pub fn poll_queued(&self, past: bool, cx: &mut Context<'_>) -> Poll<()> {
        let is_over = self.gone.get() || self.ended.borrow().is_some();
        if self.waiting_bytes() > 0 || is_over || (past && self.joined.get()) {
            return Poll::Ready(());
        }
        self.reader.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Takes what is queued, frame by frame.
    pub fn take_frames(&self) -> Vec<Bytes> {
        let frames = self.outbox.borrow_mut().take_all();
        self.report();
        frames
    }

    fn take(&self, most: usize) -> Bytes {
        let mut chunk = BytesMut::new();
        // Copying never fails; "would block" says that the chunk is full.
        drop(self.outbox.borrow_mut().write_to(|slices| {
            let mut written = 0;
            for slice in slices {
                let room = most - chunk.len();
                if room == 0 {
                    break;
                }
                let part = &slice[..slice.len().min(room)];
                chunk.extend_from_slice(part);
                written += part.len();
            }
            if written == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(written) }
        }));
        self.report();
        chunk.freeze()
    }

    fn wake(&self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn report(&self) {
        let tally = self.outbox.borrow_mut().take_tally();
        self.taken.set(self.taken.get() + tally.sent_bytes);
        tally.count(&self.stats.sessions);
    }
}

impl Outlet for Body {
    fn push(&self, frame: Bytes) -> Result<(), Full> {
        let left = self.left.get().checked_sub(1).ok_or(Full)?;
        let mut outbox = self.outbox.borrow_mut();
        match self.asks.get() && outbox.bytes() + frame.len() <= self.most_bytes {
            true => outbox.force(frame),
            false => outbox.push(frame)?,
        }
        self.left.set(left);
        Ok(())
    }

    fn push_bundle(&self, bundle: &Rc<Bundle>) -> Result<(), Full> {
        let left = self.left.get().checked_sub(bundle.frame_count()).ok_or(Full)?;
        self.outbox.borrow_mut().push_bundle(bundle)?;
        self.left.set(left);
        Ok(())
    }

    fn force(&self, frame: Bytes) {
        self.outbox.borrow_mut().force(frame);
    }

    fn flush(&self) -> Flush {
        self.report();
        if self.gone.get() {
            return Flush::Broken;
        }
        self.wake();
        match self.waiting_bytes() {
            0 => Flush::Drained,
            _ => Flush::Blocked,
        }
    }

    fn count(&self) {
        self.report();
    }

    fn warm(&self) -> usize {
        self.outbox.borrow().next_len()
    }

    fn joined(&self) {
        self.joined.set(true);
        self.wake();
    }

    fn waiting_bytes(&self) -> usize {
        self.outbox.borrow().bytes()
    }

    fn claim_wait(&self) -> bool {
        !self.awaited.replace(true)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.outbox.borrow_mut().clear();
        self.report();
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderMap;
    use futures_util::task::noop_waker_ref;

    use super::*;
    use crate::{
        client::Client,
        config::HttpConfig,
        delivery::Casting,
        router::log::{Heads, Log},
        testing::foundation,
    };

    #[actix_rt::test]
    async fn who_has_taken_all_may_get_more_in_one_turn_than_may_wait_for_a_slow_one() {
        let (foundation, _directory) = foundation(Log::new(1 << 20, 0, Heads::default())).await;
        let casting = Casting::new(foundation);
        let (outbox_bytes, send_buffer_bytes) = (1_000, 500);
        let config = SessionConfig { outbox_bytes, send_buffer_bytes, ..SessionConfig::default() };
        let client = Client::of(None, &HeaderMap::new(), &HttpConfig::default());
        let permit = casting.sessions.enter(client, &config).unwrap();
        let body = Body::new(&config, usize::MAX, casting.stats.clone(), permit);
        let fill = || {
            while body.push(Bytes::from_static(&[0; 100])).is_ok() {}
            body.waiting_bytes()
        };
        let mut cx = Context::from_waker(noop_waker_ref());
        let mut poll = || body.poll_chunk(&mut cx, || {});

        assert_eq!(fill(), 1_000, "nobody has asked");
        assert!(poll().is_ready());
        assert_eq!(fill(), 1_000, "it may not have sent that yet");
        assert!(poll().is_ready() && poll().is_pending());
        assert_eq!(fill(), 1_500);
        assert!(poll().is_ready());
        assert_eq!(fill(), 1_000);
    }
}

//! The wire to one client: its socket and its outbox.
//!
//! Place in the pipeline: shared by the shard, which fills it with events, and the session, which
//! waits for room on the socket; both live on the same thread.
//! Invariant: nothing here waits. A stalled socket makes [`Flush::Blocked`], never a delay.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    net::Shutdown,
    os::fd::AsRawFd,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::{
    bundle::Bundle,
    outbox::{Full, Outbox},
    outlet::{Flush, Outlet},
    set::Permit,
};
use crate::{client::Client, config::SessionConfig, stats::Stats};

/// The socket of one session with the frames that wait for it; shared by the session and its shard,
/// which live on one thread.
pub struct Wire {
    socket: TcpStream,
    outbox: RefCell<Outbox>,
    /// The socket took no more when it was last asked: nobody but its session asks again.
    blocked: Cell<bool>,
    /// The session waits for the socket, or was told to.
    awaited: Cell<bool>,
    /// Bytes that the socket took in all.
    taken: Cell<u64>,
    /// What the client says is not asked for; who waits for it meanwhile.
    deaf: Cell<bool>,
    listener: Cell<Option<Waker>>,
    /// Others have their turn before more is read.
    resting: Cell<bool>,
    /// Shortest frame that is sent compressed.
    packs_from: usize,
    stats: Arc<Stats>,
    /// Given back last: whoever sees no session open also sees all of their frames counted.
    permit: Permit,
}

impl Wire {
    /// Takes over an upgraded socket.
    ///
    /// # Errors
    /// Those of the socket's options: it is gone.
    pub fn new(
        socket: TcpStream,
        config: &SessionConfig,
        packs_from: usize,
        stats: Arc<Stats>,
        permit: Permit,
    ) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        // One client that stops reading would otherwise fill megabytes of the kernel's memory
        // before anything of it shows here.
        SockRef::from(&socket).set_send_buffer_size(config.send_buffer_bytes as usize)?;
        let outbox = RefCell::new(Outbox::new(config.outbox_bytes));
        Ok(Self {
            socket,
            outbox,
            blocked: Cell::new(false),
            awaited: Cell::new(false),
            taken: Cell::new(0),
            deaf: Cell::new(false),
            listener: Cell::new(None),
            resting: Cell::new(false),
            packs_from,
            stats,
            permit,
        })
    }

    pub fn client(&self) -> &Client {
        self.permit.client()
    }

    /// Bytes that the socket took in all.
    pub fn taken_bytes(&self) -> u64 {
        self.taken.get()
    }

    /// Those of them that have reached the client's machine. A kernel tells that its send buffer has room
    /// when a third of it is free only, which for a slow client takes long; this shows each step.
    pub fn received_bytes(&self) -> u64 {
        let mut under_way: libc::c_int = 0;
        // SAFETY: the descriptor is open as long as the socket, and the answer is an `int`.
        let asked =
            unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut under_way) };
        // A socket that does not tell is gone: nothing is under way.
        let under_way = if asked == 0 { u64::try_from(under_way).unwrap_or(0) } else { 0 };
        self.taken.get().saturating_sub(under_way)
    }

    /// The socket has become writable: what waits can be flushed.
    pub fn unblock(&self) {
        self.blocked.set(false);
        self.awaited.set(false);
    }

    /// Drops what waits.
    pub fn abandon(&self) {
        let mut outbox = self.outbox.borrow_mut();
        outbox.abandon();
        self.report(&mut outbox);
    }

    pub fn is_awaited(&self) -> bool {
        self.awaited.get()
    }

    /// Nothing is readable until it listens again: what the client says waits in the kernel.
    pub fn listen(&self, listens: bool) {
        self.deaf.set(!listens);
        if listens && let Some(waker) = self.listener.take() {
            waker.wake();
        }
    }

    /// Nothing is readable before the thread's other tasks and sockets had their turn.
    pub fn rest(&self) {
        self.resting.set(true);
    }

    /// Waits until something can be read.
    pub async fn readable(&self) -> io::Result<()> {
        if self.resting.take() {
            tokio::task::yield_now().await;
        }
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf.get() {
            self.listener.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        self.socket.poll_read_ready(cx)
    }

    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_write_ready(cx)
    }

    /// Reads what is there, `WouldBlock` when nothing is, 0 when the client has closed.
    pub fn read(&self, into: &mut BytesMut) -> io::Result<usize> {
        // `try_read_buf` would need another feature of tokio's for no gain at these sizes.
        let mut chunk = [0; 4_096];
        let read = self.socket.try_read(&mut chunk)?;
        into.extend_from_slice(&chunk[..read]);
        Ok(read)
    }

    /// Tells the client that nothing follows; it may still talk.
    pub fn end(&self) {
        // A socket that cannot be shut down is shut down already.
        drop(SockRef::from(&self.socket).shutdown(Shutdown::Write));
    }

    /// Where the client did not take what was sent, its connection ends with a reset when the wire is
    /// dropped. The kernel would otherwise keep a full send buffer for minutes, for a client that
    /// does not read, and that client would never hear of its end.
    pub fn cut(&self) {
        if self.blocked.get() {
            // A socket that takes no option is gone already.
            drop(SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)));
        }
    }

    fn write(&self, outbox: &mut Outbox) -> Flush {
        match outbox.write_to(|slices| match slices {
            [one] => self.socket.try_write(one),
            many => self.socket.try_write_vectored(many),
        }) {
            Ok(true) => Flush::Drained,
            Ok(false) => {
                self.blocked.set(true);
                Flush::Blocked
            }
            Err(_) => Flush::Broken,
        }
    }

    /// A turn may bring more than the outbox holds to a client that keeps up.
    fn make_room(&self, outbox: &mut Outbox) -> Result<(), Full> {
        if self.blocked.get() || self.write(outbox) == Flush::Broken {
            return Err(Full);
        }
        Ok(())
    }

    fn report(&self, outbox: &mut Outbox) {
        let tally = outbox.take_tally();
        self.taken.set(self.taken.get() + tally.sent_bytes);
        tally.count(&self.stats.sessions);
    }
}

impl Outlet for Wire {
    fn push(&self, frame: Bytes) -> Result<(), Full> {
        let mut outbox = self.outbox.borrow_mut();
        if !outbox.fits(frame.len()) {
            self.make_room(&mut outbox)?;
        }
        outbox.push(frame)
    }

    fn push_bundle(&self, bundle: &Rc<Bundle>) -> Result<(), Full> {
        let mut outbox = self.outbox.borrow_mut();
        let len = bundle.bytes().len();
        if !outbox.has_room(len) && outbox.could_hold(len) {
            self.make_room(&mut outbox)?;
        }
        outbox.push_bundle(bundle)
    }

    fn force(&self, frame: Bytes) {
        self.outbox.borrow_mut().force(frame);
    }

    fn flush(&self) -> Flush {
        let mut outbox = self.outbox.borrow_mut();
        let flush = if self.blocked.get() { Flush::Blocked } else { self.write(&mut outbox) };
        self.report(&mut outbox);
        flush
    }

    fn warm(&self) -> usize {
        self.outbox.borrow().next_len()
    }

    fn packs_from(&self) -> usize {
        self.packs_from
    }

    fn count(&self) {
        self.report(&mut self.outbox.borrow_mut());
    }

    fn waiting_bytes(&self) -> usize {
        self.outbox.borrow().bytes()
    }

    fn claim_wait(&self) -> bool {
        !self.awaited.replace(true)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let mut outbox = self.outbox.borrow_mut();
        outbox.clear();
        self.report(&mut outbox);
    }
}

#[cfg(test)]
mod tests;

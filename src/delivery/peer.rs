//! The socket below HTTP, so that what a request has begun learns of its client's end.
//!
//! Place in the pipeline: between the kernel and the HTTP server. While an answer is a stream, HTTP
//! notices a client that is gone only when it next writes, and one that stalls never: so the end of what
//! the client says is noted here on its way, and a connection can be cut off from outside.
//! Invariant: a [`Peer`] keeps no socket open.

use std::{
    cell::Cell,
    future::poll_fn,
    io::{self, IoSlice},
    net::Shutdown,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A socket that HTTP reads and writes.
pub struct Connection {
    socket: Rc<TcpStream>,
    end: Rc<End>,
}

/// The other side of a [`Connection`], for as long as that lives.
#[derive(Clone)]
pub struct Peer {
    socket: Weak<TcpStream>,
    end: Rc<End>,
}

/// Whether the client says nothing more.
#[derive(Default)]
struct End {
    is_seen: Cell<bool>,
    /// Who waits for it: the one answer that is under way.
    waiting: Cell<Option<Waker>>,
}

impl Connection {
    pub fn new(socket: TcpStream) -> Self {
        Self { socket: Rc::new(socket), end: Rc::default() }
    }

    pub fn peer(&self) -> Peer {
        Peer { socket: Rc::downgrade(&self.socket), end: self.end.clone() }
    }

    /// Gives the socket to who takes it over.
    pub fn into_socket(self) -> Option<TcpStream> {
        let socket = self.socket.clone();
        drop(self);
        // Nobody else has it: a peer only borrows it for a moment.
        Rc::into_inner(socket)
    }
}

impl Peer {
    /// Waits until the client has closed, or its connection is gone.
    pub async fn gone(&self) {
        poll_fn(|cx| {
            if self.end.is_seen.get() {
                return Poll::Ready(());
            }
            self.end.waiting.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Ends the connection in both directions.
    pub fn cut(&self) {
        if let Some(socket) = self.socket.upgrade() {
            // One that is shut down already needs no second time.
            drop(SockRef::from(&*socket).shutdown(Shutdown::Both));
        }
    }
}

impl End {
    fn see(&self) {
        self.is_seen.set(true);
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end.see();
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            match self.socket.try_read(into.initialize_unfilled()) {
                Ok(0) if into.remaining() > 0 => {
                    self.end.see();
                    return Poll::Ready(Ok(()));
                }
                Ok(read) => {
                    into.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.end.see();
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |socket| socket.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |socket| socket.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.socket).shutdown(Shutdown::Write))
    }
}

impl Connection {
    fn poll_writing(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match write(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

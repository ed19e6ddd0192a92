//! The socket below HTTP, so that what a request has begun learns of its client's end.
//!
//! Place in the pipeline: between the kernel and the HTTP server. While an answer is a stream, HTTP
//! notices a client that is gone only when it next writes, and one that stalls never: so the end of what
//! the client says is noted here on its way, and a connection can be cut off from outside.
//! Invariants: a [`Peer`] keeps no socket open; a client that takes nothing of an answer for
//! `http.write_timeout` loses its connection, and with it what the answer held.

use std::{
    cell::Cell,
    future::poll_fn,
    io::{self, IoSlice},
    net::Shutdown,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::lobby::{Served, Visit};
use crate::stats::Stats;

/// A socket that HTTP reads and writes.
pub struct Connection {
    socket: Rc<TcpStream>,
    end: Rc<End>,
    visit: Rc<Visit>,
    /// How long the client may take nothing of an answer.
    patience: Duration,
    /// Runs while it takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    stats: Arc<Stats>,
}

/// The other side of a [`Connection`], for as long as that lives.
#[derive(Clone)]
pub struct Peer {
    socket: Weak<TcpStream>,
    end: Rc<End>,
    visit: Rc<Visit>,
}

/// Whether the client says nothing more.
#[derive(Default)]
struct End {
    is_seen: Cell<bool>,
    /// It has taken nothing for too long.
    is_stalled: Cell<bool>,
    /// Who waits for it: the one answer that is under way.
    waiting: Cell<Option<Waker>>,
}

impl Connection {
    pub fn new(socket: TcpStream, visit: Visit, patience: Duration, stats: Arc<Stats>) -> Self {
        let (socket, end, visit) = (Rc::new(socket), Rc::default(), Rc::new(visit));
        Self { socket, end, visit, patience, stalled: None, stats }
    }

    pub fn peer(&self) -> Peer {
        let (end, visit) = (self.end.clone(), self.visit.clone());
        Peer { socket: Rc::downgrade(&self.socket), end, visit }
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

    /// Whether the connection has ended as its client took nothing of an answer.
    pub fn has_stalled(&self) -> bool {
        self.end.is_stalled.get()
    }

    /// Bounds what the kernel keeps for a client that does not read: it would take megabytes before
    /// anything of that shows here.
    pub fn bound_send_buffer(&self, bytes: u32) {
        if let Some(socket) = self.socket.upgrade() {
            // One that takes no option is gone.
            drop(SockRef::from(&*socket).set_send_buffer_size(bytes as usize));
        }
    }

    /// A request of this client is being answered, for as long as what this gives lives.
    pub fn served(&self) -> Served {
        Served::new(self.visit.clone())
    }

    /// The connection counts as a session until the answer that is under way ends.
    pub fn becomes_session(&self) {
        self.visit.becomes_session();
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
        self.visit.ends();
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.visit.is_late(cx) {
            // For HTTP as if the client had closed.
            self.end.see();
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            match self.socket.try_read(into.initialize_unfilled()) {
                Ok(0) if into.remaining() > 0 => {
                    self.end.see();
                    return Poll::Ready(Ok(()));
                }
                Ok(read) => {
                    into.advance(read);
                    self.visit.heard();
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
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.visit.said(bytes);
        self.poll_writing(cx, |socket| socket.try_write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
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
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        while self.socket.poll_write_ready(cx)?.is_ready() {
            match write(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    self.stalled = None;
                    return Poll::Ready(done);
                }
            }
        }
        let patience = self.patience;
        ready!(self.stalled.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx));
        self.stats.write_timeouts.add(1);
        self.end.is_stalled.set(true);
        // The kernel would otherwise keep what it took for minutes. A socket that takes no option is gone.
        drop(SockRef::from(&*self.socket).set_linger(Some(Duration::ZERO)));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, net::TcpStream as Client};

    use super::*;
    use crate::delivery::lobby::Lobby;

    const PATIENCE: Duration = Duration::from_millis(300);

    /// A connection and its client, with as little between them as the kernel allows.
    fn pair(stats: &Arc<Stats>) -> (Connection, Client) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        SockRef::from(&listener).set_recv_buffer_size(4_096).unwrap();
        let ours = Client::connect(listener.local_addr().unwrap()).unwrap();
        ours.set_nonblocking(true).unwrap();
        SockRef::from(&ours).set_send_buffer_size(4_096).unwrap();
        let (client, _) = listener.accept().unwrap();
        let socket = TcpStream::from_std(ours).unwrap();
        let place = Lobby::new(stats.clone()).enter(1).unwrap();
        let visit = Visit::new(place, PATIENCE);
        (Connection::new(socket, visit, PATIENCE, stats.clone()), client)
    }

    /// Writes until that fails or as much is written. Gives how it ended.
    async fn write(connection: &mut Connection, mut bytes: usize) -> io::Result<()> {
        let chunk = [0; 1_024];
        while bytes > 0 {
            let written = poll_fn(|cx| Pin::new(&mut *connection).poll_write(cx, &chunk)).await?;
            bytes = bytes.saturating_sub(written);
        }
        Ok(())
    }

    #[actix_rt::test]
    async fn a_client_that_takes_nothing_of_an_answer_loses_its_connection() {
        let stats = Arc::new(Stats::default());
        let (mut connection, _client) = pair(&stats);

        let ended = write(&mut connection, 64 << 20).await;

        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(connection.peer().has_stalled());
        assert_eq!(stats.write_timeouts.get(), 1);
    }

    /// Writes once, if that can be done now.
    async fn try_write(connection: &mut Connection) -> Poll<io::Result<usize>> {
        let chunk = [0; 1_024];
        poll_fn(|cx| Poll::Ready(Pin::new(&mut *connection).poll_write(cx, &chunk))).await
    }

    #[actix_rt::test]
    async fn a_client_that_takes_little_at_a_time_keeps_it() {
        let stats = Arc::new(Stats::default());
        let (mut connection, mut client) = pair(&stats);
        client.set_nonblocking(true).unwrap();
        tokio::time::pause();

        // It takes nothing for most of its time, again and again.
        for _ in 0..6 {
            while let Poll::Ready(written) = try_write(&mut connection).await {
                written.unwrap();
            }
            tokio::time::advance(PATIENCE * 2 / 3).await;
            // Time stands still until something is taken and the kernel has room for more.
            while try_write(&mut connection).await.map(Result::unwrap).is_pending() {
                drop(io::Read::read(&mut client, &mut [0; 4_096]));
                tokio::task::yield_now().await;
            }
        }

        assert_eq!(stats.write_timeouts.get(), 0);
        assert!(!connection.peer().has_stalled());
    }
}

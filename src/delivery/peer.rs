//! The socket below an HTTP request, as far as it has to be cut off.
//!
//! A response body is polled only while its client reads, so a client that stalls can only be ended
//! from outside. Invariant: a [`Peer`] is used only while the connection it came from lives.

use std::{
    net::Shutdown,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
};

use socket2::SockRef;
use tokio::net::TcpStream;

/// The socket of a connection. It lies in the connection's data, and what holds a copy of it ends with
/// a body of that connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(RawFd);

impl Peer {
    pub fn of(socket: &TcpStream) -> Self {
        Self(socket.as_raw_fd())
    }

    /// Ends the connection in both directions; the HTTP server notices and drops the rest.
    pub fn cut(&self) {
        // SAFETY: the descriptor is open, as the connection drops a body before or together with its
        // socket, on this very thread, and nobody cuts it off afterwards.
        let socket = unsafe { BorrowedFd::borrow_raw(self.0) };
        // One that is shut down already needs no second time.
        drop(SockRef::from(&socket).shutdown(Shutdown::Both));
    }
}

//! Puts the SQLSTATE in front of the server's error messages, as `[57014] canceling statement ..`.
//!
//! Place: between the socket, or its TLS, and the driver. What an error means must not hang on its
//! text, which is in the language of the server; but diesel hands on the text and not the SQLSTATE.
//! Here both pass by, as fields of one message of the protocol.
//! Invariant: every other message is handed on as it came.
//!
//! The driver has one place for something around its socket: TLS. So a plain connection is TLS to
//! it, of a kind that encrypts nothing and is not negotiated. A Unix socket has no such place, as it
//! has no host name: there the text is all there is.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    pin::Pin,
    task::{self, Context, Poll},
};

use futures_util::{FutureExt, TryFutureExt, future::BoxFuture};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::{
    Socket,
    tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
};

/// An error longer than this is handed on as it came, in bytes.
const MAX_ERROR: usize = 1 << 20;

/// Type and length of a message.
const HEAD: usize = 5;

/// A stream from the server whose errors carry their SQLSTATE in the message.
pub struct Marked<S> {
    inner: S,
    messages: Messages,
    /// Was read and is not handed on yet, from `handed_on`.
    ready: Vec<u8>,
    handed_on: usize,
    binding: fn(&S) -> ChannelBinding,
}

impl<S> Marked<S> {
    fn new(inner: S, binding: fn(&S) -> ChannelBinding) -> Self {
        Self { inner, messages: Messages::default(), ready: Vec::new(), handed_on: 0, binding }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Marked<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.handed_on == this.ready.len() {
            let before = buffer.filled().len();
            task::ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
            let read = &buffer.filled()[before..];
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.ready.clear();
            this.handed_on = 0;
            this.messages.mark(read, &mut this.ready);
            buffer.set_filled(before);
        }
        let left = &this.ready[this.handed_on..];
        let fits = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..fits]);
        this.handed_on += fits;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Marked<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Marked<S> {
    fn channel_binding(&self) -> ChannelBinding {
        (self.binding)(&self.inner)
    }
}

/// A connection without encryption, for `SslNegotiation::Direct`.
#[derive(Clone, Copy)]
pub struct Plain;

impl MakeTlsConnect<Socket> for Plain {
    type Stream = Marked<Socket>;
    type TlsConnect = Self;
    type Error = Infallible;

    fn make_tls_connect(&mut self, _host: &str) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

impl TlsConnect<Socket> for Plain {
    type Stream = Marked<Socket>;
    type Error = Infallible;
    type Future = Ready<Result<Marked<Socket>, Infallible>>;

    fn connect(self, socket: Socket) -> Self::Future {
        ready(Ok(Marked::new(socket, |_| ChannelBinding::none())))
    }
}

/// A connection by the TLS of `T`.
#[derive(Clone)]
pub struct Encrypted<T>(pub T);

impl<T> MakeTlsConnect<Socket> for Encrypted<T>
where
    T: MakeTlsConnect<Socket>,
    Encrypted<T::TlsConnect>: TlsConnect<Socket, Stream = Marked<T::Stream>>,
{
    type Stream = Marked<T::Stream>;
    type TlsConnect = Encrypted<T::TlsConnect>;
    type Error = T::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, T::Error> {
        self.0.make_tls_connect(host).map(Encrypted)
    }
}

impl<C> TlsConnect<Socket> for Encrypted<C>
where
    C: TlsConnect<Socket>,
    C::Future: Send + 'static,
{
    type Stream = Marked<C::Stream>;
    type Error = C::Error;
    type Future = BoxFuture<'static, Result<Self::Stream, C::Error>>;

    fn connect(self, socket: Socket) -> Self::Future {
        self.0.connect(socket).map_ok(|tls| Marked::new(tls, C::Stream::channel_binding)).boxed()
    }
}

/// Where in the stream of messages the next byte belongs.
#[derive(Debug, Default)]
struct Messages {
    /// Of a message that has begun: its head, and all of it if it is an error.
    held: Vec<u8>,
    /// Bytes of a message that is no error and that are to come.
    passing: usize,
}

impl Messages {
    /// Hands `bytes` on to `out`, an error when it is whole.
    fn mark(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.passing > 0 {
                let (now, rest) = bytes.split_at(self.passing.min(bytes.len()));
                out.extend_from_slice(now);
                self.passing -= now.len();
                bytes = rest;
                continue;
            }
            let wanted = match self.length() {
                Some(length) => length,
                None => HEAD,
            };
            let (now, rest) = bytes.split_at((wanted - self.held.len()).min(bytes.len()));
            self.held.extend_from_slice(now);
            bytes = rest;
            match self.length() {
                None => {}
                Some(length) if self.held[0] == b'E' && length <= MAX_ERROR => {
                    if self.held.len() == length {
                        match with_state(&self.held[HEAD..]) {
                            Some(marked) => out.extend(marked),
                            None => out.extend_from_slice(&self.held),
                        }
                        self.held.clear();
                    }
                }
                Some(length) => {
                    out.extend_from_slice(&self.held);
                    self.passing = length - HEAD;
                    self.held.clear();
                }
            }
        }
    }

    /// Of the message that is held, its head included, as soon as that is there.
    fn length(&self) -> Option<usize> {
        let head = self.held.first_chunk::<HEAD>()?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        // The type is not counted; the length counts itself.
        Some((length as usize).saturating_add(1).max(HEAD))
    }
}

/// The error message with its SQLSTATE in its text, if it has both.
fn with_state(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut fields = Vec::new();
    while let Some((kind, rest)) = body.split_first()
        && *kind != 0
    {
        let end = rest.iter().position(|byte| *byte == 0)?;
        fields.push((*kind, &rest[..end]));
        body = &rest[end + 1..];
    }
    let (_, state) = *fields.iter().find(|(kind, _)| *kind == b'C')?;
    let mut marked = vec![b'E', 0, 0, 0, 0];
    for (kind, text) in &fields {
        marked.push(*kind);
        if *kind == b'M' {
            marked.extend([b"[", state, b"] "].concat());
        }
        marked.extend_from_slice(text);
        marked.push(0);
    }
    marked.push(0);
    let length = u32::try_from(marked.len() - 1).ok()?;
    marked[1..HEAD].copy_from_slice(&length.to_be_bytes());
    Some(marked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32 + 4).to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    #[test]
    fn an_error_gets_its_state_however_the_bytes_come() {
        let row = message(b'D', &[b'E'; 300]);
        let empty = message(b'Z', &[]);
        let error = message(b'E', b"SFEHLER\0C57014\0MAnweisung wird abgebrochen\0\0");
        let marked = message(b'E', b"SFEHLER\0C57014\0M[57014] Anweisung wird abgebrochen\0\0");
        let odd = message(b'E', b"Mno state\0\0");
        let stream = |error: &Vec<u8>| [&row[..], error, &empty, &odd, error, &row].concat();
        let (sent, expected) = (stream(&error), stream(&marked));

        for portion in 1..sent.len() {
            let (mut messages, mut out) = (Messages::default(), Vec::new());
            sent.chunks(portion).for_each(|bytes| messages.mark(bytes, &mut out));

            assert_eq!(out, expected, "portions of {portion}");
        }
    }

    #[test]
    fn garbage_is_handed_on() {
        for garbage in [&b"E\0\0\0\0xyz"[..], b"\xff\xff\xff\xff\xff\xff", b"E\xff\xff\xff\xffabc"]
        {
            let (mut messages, mut out) = (Messages::default(), Vec::new());

            messages.mark(garbage, &mut out);

            assert!(garbage.starts_with(&out) && out.len() >= 5, "{out:?}");
        }
    }
}

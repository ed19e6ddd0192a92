//! The WebSocket protocol over real sockets, against a door that says what it hears: the cases 1 to 7, 9,
//! 10, 12 and 13 of the Autobahn test suite, with the strict answer where that suite lets a server choose.
//!
//! The client here is bytes on a socket: it shares no code with the server, and can say what no library
//! would.

#![cfg(feature = "echo")]
// The exception for tests does not cover the functions that tests share.
#![allow(clippy::unwrap_used)]

#[path = "conformance/control.rs"]
mod control;
#[path = "conformance/deflate.rs"]
mod deflate;
#[path = "conformance/fragments.rs"]
mod fragments;
#[path = "conformance/framing.rs"]
mod framing;
#[allow(dead_code, reason = "these tests need the server, and neither events nor a client library")]
#[path = "sessions/harness.rs"]
mod harness;
#[path = "conformance/peer.rs"]
mod peer;
#[path = "conformance/text.rs"]
mod text;

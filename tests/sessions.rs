//! Sessions over real sockets: log, shards, sessions and the server, without the rest of the daemon.

// The exception for tests does not cover the functions that tests share.
#![allow(clippy::unwrap_used)]

#[path = "sessions/bursts.rs"]
mod bursts;
#[path = "sessions/drain.rs"]
mod drain;
#[path = "sessions/gaps.rs"]
mod gaps;
#[path = "sessions/harness.rs"]
mod harness;
#[path = "sessions/hyper.rs"]
mod hyper;
#[path = "sessions/hyperliquid.rs"]
mod hyperliquid;
#[path = "sessions/lists.rs"]
mod lists;
#[path = "sessions/native.rs"]
mod native;
#[path = "sessions/outboxes.rs"]
mod outboxes;
#[cfg(feature = "failpoints")]
#[path = "sessions/panics.rs"]
mod panics;
#[path = "sessions/pings.rs"]
mod pings;
#[path = "sessions/places.rs"]
mod places;
#[path = "sessions/policies.rs"]
mod policies;
#[path = "sessions/resume.rs"]
mod resume;
#[path = "sessions/unlisted.rs"]
mod unlisted;
#[path = "sessions/wire.rs"]
mod wire;

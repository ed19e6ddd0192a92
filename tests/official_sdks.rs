//! The three official clients, installed from their registries, against the real daemon.
//!
//! `scripts/test.sh` installs those of Python and TypeScript, `scripts/test.sh --all` builds that of Rust, too; where
//! none is, its tests say loudly that they are skipped. What the clients get is compared with what the node
//! wrote, by none of our code. See `tests/sdk/README.md`.

// The helpers of tests are tests too, which clippy's own exception does not see.
#![allow(clippy::unwrap_used)]

mod common;

#[path = "official_sdks/chain.rs"]
mod chain;
#[path = "official_sdks/client.rs"]
mod client;
#[path = "official_sdks/errors.rs"]
mod errors;
#[path = "official_sdks/feed.rs"]
mod feed;
#[path = "official_sdks/history.rs"]
mod history;
#[path = "official_sdks/raw.rs"]
mod raw;
#[path = "official_sdks/real.rs"]
mod real;
#[path = "official_sdks/reconnects.rs"]
mod reconnects;
#[path = "../src/testing/samples.rs"]
mod samples;
#[path = "official_sdks/scene.rs"]
mod scene;
#[path = "official_sdks/streams.rs"]
mod streams;
#[path = "official_sdks/upstream.rs"]
mod upstream;
#[path = "official_sdks/users.rs"]
mod users;

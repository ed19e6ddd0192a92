//! The whole daemon as its own process, in release: memory at rest, hour files to SQLite and to
//! PostgreSQL, the time from an append to a client, also while PostgreSQL is away, and long
//! whitelists.
//!
//! `cargo bench --bench daemon`, or `-- idle`, `-- ingest`, `-- latency`, `-- outage`,
//! `-- whitelist` for one of them; `scripts/bench.sh` starts the PostgreSQL server for it. Beside
//! the figures stands a reference that was measured in the same run: plain writes of the same size
//! to the same disk, and one bare thread between a file and a socket.

#[path = "../../tests/common/mod.rs"]
mod common;
mod idle;
mod ingest;
mod latency;
mod outage;
mod process;
mod whitelist;

use std::io;

fn main() -> io::Result<()> {
    let asked: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|arg| name.contains(&**arg));
    if wanted("idle") {
        idle::measure()?;
    }
    if wanted("ingest") {
        ingest::measure(false)?;
        ingest::measure(true)?;
    }
    if wanted("latency") {
        latency::measure()?;
    }
    if wanted("outage") {
        outage::measure()?;
    }
    if wanted("whitelist") {
        whitelist::measure()?;
    }
    Ok(())
}

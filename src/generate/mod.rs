//! A node simulator: writes hour files as a real node does, misbehaviour included, and knows what
//! a correct reader must make of them.
//!
//! Place in the pipeline: before it, in the node's stead; for tests, benchmarks and the demo.
//! [`Chain`] (what happens) -> [`Simulator`] (what goes wrong, and the clock) -> [`NodeWriter`]
//! (files), with the [`Manifest`] beside it.
//! Invariants: the same [`Plan`] with a fixed start gives the same bytes; a block's content depends
//! on the seed and its ordinal alone, so rewinds and a second node directory repeat it exactly; the
//! manifest is noted down while the content is made and never parsed from it.

mod block;
mod chain;
mod deltas;
mod fills;
mod manifest;
mod misc;
mod output;
mod plan;
mod simulator;
mod statuses;
mod text;
mod users;
mod writer;

pub use self::{
    block::{Block, Elements},
    chain::Chain,
    manifest::{FILLS, Gap, MISC, Manifest, ManifestError, Row, Totals},
    output::{MANIFEST_FILE, OutputError, USERS_FILE, last_block, prepare, write_users},
    plan::{Faults, Plan, PlanError},
    simulator::{Rows, Simulator, StartError},
    users::Users,
    writer::{HourFile, Kind, NodeWriter},
};

/// Gives lines of by-block fills for benchmarks, whole ones, of at least `bytes` bytes in all.
pub fn fills_lines(seed: u64, users: usize, bytes: usize) -> Vec<u8> {
    // Noon: no dust block of a day's start, no hour change for a good while.
    let plan = Plan { seed, users, start: Some(plan::noon()), ..Plan::default() };
    let chain = Chain::new(&plan);
    let mut lines = Vec::with_capacity(bytes + (64 << 10));
    let mut block = Block::default();
    let mut ordinal = 0;
    while lines.len() < bytes {
        chain.read(ordinal, &mut block);
        // A healthy node writes a block about half a second after its time.
        let local_ns = block.time_ns + 400_000_000;
        block.push_line(&mut lines, local_ns, block.fills.bytes());
        ordinal += 1;
    }
    lines
}

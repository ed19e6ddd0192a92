//! Lets the simulated node write in real time.
//!
//! Invariant: the pace decides when a block is written and nothing else: what is in the files is the
//! same at every pace.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::Simulator;

/// The longest sleep of a paced run: how late it may notice that it is to stop.
const SLICE: Duration = Duration::from_millis(50);

impl Simulator {
    /// Writes blocks at a pace, until there are `blocks` new ones or `stop` is set.
    ///
    /// `blocks_per_second` of 0 is as fast as possible. At the rate of the plan's block interval a
    /// line is written when its local time comes.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn run(
        &mut self,
        blocks: Option<u64>,
        blocks_per_second: f64,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        self.run_watched(blocks, blocks_per_second, stop, |_| ())
    }

    /// Like [`Self::run`], and tells the number of each new block just before it is written.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn run_watched(
        &mut self,
        blocks: Option<u64>,
        blocks_per_second: f64,
        stop: &AtomicBool,
        mut about_to_write: impl FnMut(u64),
    ) -> io::Result<()> {
        let (begun, first_ns) = (Instant::now(), self.next_local_ns());
        let rate = 1.0 / self.plan.block_interval.as_secs_f64();
        let mut written = 0;
        while blocks.is_none_or(|blocks| written < blocks) {
            if blocks_per_second > 0.0 {
                let simulated_ns = (self.next_local_ns() - first_ns).max(0) as u64;
                let due = Duration::from_nanos(simulated_ns).mul_f64(rate / blocks_per_second);
                sleep_until(begun + due, stop);
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
            about_to_write(self.chain.number(self.next));
            self.write_block()?;
            written += 1;
        }
        Ok(())
    }

    /// When the next line is due by this node's clock, unless a fault comes first.
    fn next_local_ns(&self) -> i64 {
        self.local_ns.max(self.chain.time_ns(self.next) + self.lag_ns(self.next))
    }
}

fn sleep_until(due: Instant, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(SLICE));
    }
}

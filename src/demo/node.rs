//! The simulated node of the demo, on a thread of its own as a node is a process of its own.

use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::Context;
use tokio::sync::oneshot;

use crate::generate::{Plan, Rows, Simulator, Totals};

/// Blocks whose moment of writing is remembered: at the highest rate some seconds.
const REMEMBERED: usize = 1 << 16;

/// When each of the last blocks was written, for those who measure how long it took from there.
#[derive(Default)]
pub struct Appended(Mutex<Blocks>);

#[derive(Default)]
struct Blocks {
    /// Ascending numbers.
    recent: VecDeque<(u64, Instant)>,
    count: u64,
}

impl Appended {
    /// How many blocks were written.
    pub fn count(&self) -> u64 {
        self.blocks().count
    }

    /// When this block was about to be written; `None` when that is too long ago.
    pub fn at(&self, number: u64) -> Option<Instant> {
        let blocks = self.blocks();
        let place = blocks.recent.binary_search_by_key(&number, |(known, _)| *known).ok()?;
        Some(blocks.recent[place].1)
    }

    fn note(&self, number: u64, now: Instant) {
        let mut blocks = self.blocks();
        if blocks.recent.len() == REMEMBERED {
            blocks.recent.pop_front();
        }
        blocks.recent.push_back((number, now));
        blocks.count += 1;
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        // Each change is whole, so a panic elsewhere spoils nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Node {
    stop: Arc<AtomicBool>,
    ended: oneshot::Receiver<io::Result<Totals>>,
}

impl Node {
    /// Starts writing, at the rate of the plan's block interval.
    ///
    /// # Errors
    /// When the plan is invalid, or the manifest cannot be created.
    pub fn start(
        plan: Plan,
        directory: &Path,
        manifest: &Path,
        appended: Arc<Appended>,
    ) -> anyhow::Result<Self> {
        let rate = 1.0 / plan.block_interval.as_secs_f64();
        let mut simulator =
            Simulator::with_rows(plan, directory, Rows::Write(manifest.to_owned()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, ended) = oneshot::channel();
        let stopped = stop.clone();
        let mut write = move || -> io::Result<Totals> {
            simulator
                .run_watched(None, rate, &stopped, |block| appended.note(block, Instant::now()))?;
            simulator.finish()?;
            Ok(simulator.manifest().totals)
        };
        thread::Builder::new()
            .name("node".to_owned())
            // Nobody listens when the demo has ended with a fault of its own.
            .spawn(move || tell.send(write()).ok())
            .context("cannot start the simulated node")?;
        Ok(Self { stop, ended })
    }

    /// Waits for its end, which comes by [`Self::stop`] or by a fault. To be awaited once.
    ///
    /// # Errors
    /// When a file could not be written.
    pub async fn ended(&mut self) -> anyhow::Result<Totals> {
        let ended = (&mut self.ended).await.context("the simulated node has died")?;
        ended.context("the simulated node cannot write")
    }

    /// Lets it end after the block that it writes.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

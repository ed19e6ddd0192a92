//! What was written, and when: shared by who writes events and by who receives them.
//!
//! Events are numbered from 0 in the order in which they are written. A number is what order, loss
//! and repeats are judged by.
//! Invariant: an event is in here before its first byte is written, so nothing can be received that
//! is not known.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// Blocks of one run: 32 MB, and a day at 10 blocks a second.
const MAX_BLOCKS: usize = 1 << 20;

struct Block {
    /// Of its first event.
    event: AtomicU64,
    /// Nanoseconds since the ledger began.
    written_at: AtomicU64,
}

pub struct Ledger {
    began: Instant,
    first_block: u64,
    blocks: Box<[Block]>,
    block_count: AtomicU64,
    event_count: AtomicU64,
}

impl Ledger {
    pub fn new(first_block: u64) -> Self {
        let block = || Block { event: AtomicU64::new(0), written_at: AtomicU64::new(0) };
        Self {
            began: Instant::now(),
            first_block,
            blocks: (0..MAX_BLOCKS).map(|_| block()).collect(),
            block_count: AtomicU64::new(0),
            event_count: AtomicU64::new(0),
        }
    }

    /// Nanoseconds since it began.
    pub fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// How many events were written, or are being written.
    pub fn events(&self) -> u64 {
        self.event_count.load(Ordering::Acquire)
    }

    /// The number that the next block will have.
    pub fn next_block(&self) -> u64 {
        self.first_block + self.block_count.load(Ordering::Acquire)
    }

    /// Enters the next block and gives its number and that of its first event. Only one thread
    /// writes.
    ///
    /// # Errors
    /// When the run is longer than the ledger.
    pub fn enter(&self, events: u64) -> io::Result<(u64, u64)> {
        let at = self.block_count.load(Ordering::Relaxed);
        let event = self.event_count.load(Ordering::Relaxed);
        let Some(block) = self.blocks.get(at as usize) else {
            return Err(io::Error::other(format!("a run has at most {MAX_BLOCKS} blocks")));
        };
        block.event.store(event, Ordering::Relaxed);
        block.written_at.store(self.now(), Ordering::Relaxed);
        self.block_count.store(at + 1, Ordering::Release);
        self.event_count.store(event + events, Ordering::Release);
        Ok((self.first_block + at, event))
    }

    /// The number of an event and when it was written; `None` when nobody wrote it.
    pub fn find(&self, block: u64, index: u64) -> Option<(u64, u64)> {
        let at = block.checked_sub(self.first_block)?;
        let blocks = self.block_count.load(Ordering::Acquire);
        if at >= blocks {
            return None;
        }
        let block = &self.blocks[at as usize];
        let event = block.event.load(Ordering::Relaxed) + index;
        let end = match self.blocks.get(at as usize + 1) {
            Some(next) if at + 1 < blocks => next.event.load(Ordering::Relaxed),
            _ => self.events(),
        };
        (event < end).then(|| (event, block.written_at.load(Ordering::Relaxed)))
    }

    /// When an event was written; `None` when it was not.
    pub fn written_at(&self, event: u64) -> Option<u64> {
        if event >= self.events() {
            return None;
        }
        let blocks = &self.blocks[..self.block_count.load(Ordering::Acquire) as usize];
        let behind = blocks.partition_point(|block| block.event.load(Ordering::Relaxed) <= event);
        let block = blocks.get(behind.checked_sub(1)?)?;
        Some(block.written_at.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_numbered_through_all_blocks() {
        let ledger = Ledger::new(923_950_857);
        let (first, zero) = ledger.enter(3).unwrap();
        let (second, three) = ledger.enter(1).unwrap();

        assert_eq!((zero, three, ledger.events()), (0, 3, 4));
        assert_eq!(ledger.find(first, 2).unwrap().0, 2);
        assert_eq!(ledger.find(second, 0).unwrap().0, 3);
    }

    #[test]
    fn what_nobody_wrote_is_not_found() {
        let ledger = Ledger::new(923_950_857);
        let (block, _) = ledger.enter(2).unwrap();
        ledger.enter(2).unwrap();

        assert_eq!(ledger.find(block, 2), None);
        assert_eq!(ledger.find(block - 1, 0), None);
        assert_eq!(ledger.find(block + 2, 0), None);
        assert_eq!(ledger.written_at(4), None);
    }

    #[test]
    fn an_event_has_the_time_of_its_block() {
        let ledger = Ledger::new(923_950_857);
        let (first, _) = ledger.enter(2).unwrap();
        let (second, _) = ledger.enter(2).unwrap();

        assert_eq!(ledger.written_at(1), ledger.find(first, 0).map(|(_, at)| at));
        assert_eq!(ledger.written_at(2), ledger.find(second, 1).map(|(_, at)| at));
    }
}

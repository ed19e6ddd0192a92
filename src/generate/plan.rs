//! The plan: everything that decides what a simulated node writes.

use std::time::Duration;

use crate::event::Timestamp;

/// What a simulated node does. Two runs of one plan with a `start` write the same bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Decides the content: users, trades, deltas.
    pub seed: u64,
    /// Decides what differs between two nodes of one chain: delays, cuts, the moments of faults.
    pub node_seed: u64,
    /// How many users trade. 1 to [`Plan::MAX_USERS`].
    pub users: usize,
    /// Time of the first block, from 1970 to 2199; without one, such that the first line is
    /// written now.
    pub start: Option<Timestamp>,
    /// Number of the first block. At most `u32::MAX`, because hashes hold it in four bytes.
    pub first_block: u64,
    /// Simulated time from block to block; independent of how fast the files are written.
    pub block_interval: Duration,
    /// Least time from a block to its line; up to as much again is added to each.
    pub node_lag: Duration,
    /// Writes `_streaming` files, a few events a line, instead of `_by_block` ones.
    pub streaming: bool,
    /// Writes `node_order_statuses` too, some 500 per block, which no reader of ours wants.
    pub order_statuses: bool,
    /// Leaves out the misc lines of blocks without misc events.
    pub sparse_misc: bool,
    pub faults: Faults,
}

/// How the node misbehaves. The `every` fields are mean distances in blocks; 0: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Bytes reach the files in pieces of any length, the end of an hour's file even after the
    /// beginning of the next.
    pub torn: bool,
    /// The last line of an hour's file lacks its newline. By-block files only.
    pub unterminated: bool,
    /// The node dies in mid-line and appends to the same file when it is back.
    pub crash_every: u32,
    /// The node goes back some hundred blocks and repeats them.
    pub rewind_every: u32,
    /// Some blocks are never written.
    pub gap_every: u32,
}

impl Faults {
    /// What `--crash` sets: about one in 14 seconds at the real rate.
    pub const CRASH_EVERY: u32 = 200;
    /// What `--rewind` sets.
    pub const REWIND_EVERY: u32 = 500;
    /// What `--gap` sets.
    pub const GAP_EVERY: u32 = 400;

    /// All of them, at the distances of the command line.
    pub fn all() -> Self {
        Self {
            torn: true,
            unterminated: true,
            crash_every: Self::CRASH_EVERY,
            rewind_every: Self::REWIND_EVERY,
            gap_every: Self::GAP_EVERY,
        }
    }
}

/// Why a plan cannot be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("a chain needs at least one user")]
    NoUsers,
    #[error("{0} users are more than are simulated, at most {max}", max = Plan::MAX_USERS)]
    TooManyUsers(usize),
    #[error("the first block is of {0}, accepted are times from 1970 to 2199")]
    StartOutOfRange(Timestamp),
    #[error("the first block is {0}, but block numbers have to fit into 32 bits")]
    BlockTooHigh(u64),
    #[error("the block interval must be at least one microsecond")]
    IntervalTooShort,
}

impl Plan {
    /// Blocks a second of the real network in 2026.
    pub const REAL_RATE: f64 = 14.5;

    /// Each takes about a hundred bytes of memory.
    pub const MAX_USERS: usize = 10_000_000;

    /// 2200-01-01T00:00:00. Times are nanoseconds in lines, and overflow in 2262.
    pub const END_OF_TIME: Timestamp = Timestamp(7_258_118_400_000_000);

    pub fn validate(&self) -> Result<(), PlanError> {
        if self.users == 0 {
            return Err(PlanError::NoUsers);
        }
        if self.users > Self::MAX_USERS {
            return Err(PlanError::TooManyUsers(self.users));
        }
        if let Some(start) = self.start
            && !(Timestamp(0)..Self::END_OF_TIME).contains(&start)
        {
            return Err(PlanError::StartOutOfRange(start));
        }
        if u32::try_from(self.first_block).is_err() {
            return Err(PlanError::BlockTooHigh(self.first_block));
        }
        if self.block_interval < Duration::from_micros(1) {
            return Err(PlanError::IntervalTooShort);
        }
        Ok(())
    }

    /// The plan of a second node that follows the same chain and writes `later` than this one.
    /// Both need the same `start`.
    pub fn lagging_by(&self, later: Duration) -> Self {
        Self {
            node_seed: self.node_seed.wrapping_add(1),
            node_lag: self.node_lag + later,
            ..self.clone()
        }
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            seed: 1,
            node_seed: 1,
            users: 1_000,
            start: None,
            first_block: 1_050_000_000,
            block_interval: Duration::from_secs_f64(1.0 / Self::REAL_RATE),
            node_lag: Duration::from_millis(300),
            streaming: false,
            order_statuses: false,
            sparse_misc: false,
            faults: Faults::default(),
        }
    }
}

/// 2026-03-14T12:00:00.
pub(super) fn noon() -> Timestamp {
    Timestamp(1_773_489_600_000_000)
}

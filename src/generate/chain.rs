//! The chain: which blocks there are, when, and what happens in them.
//!
//! Pure: a block depends on the seed, the start, the interval and its ordinal, on nothing before
//! it. So it can be read again at any time, by a node that rewinds or by a second node.

use super::{
    block::{Block, Elements},
    fills, misc,
    plan::Plan,
    statuses,
    text::{mix, push_hex},
    users::Users,
};
use crate::event::Timestamp;

const SECOND_NS: i64 = 1_000_000_000;
const HOUR_NS: i64 = 3_600 * SECOND_NS;
const DAY_NS: i64 = 24 * HOUR_NS;

/// Independent sequences of chance within one block.
#[derive(Clone, Copy)]
enum Purpose {
    Time,
    Fills,
    Misc,
    Statuses,
}

/// The blocks of one chain, which every node of it writes.
pub struct Chain {
    seed: u64,
    users: Users,
    start_ns: i64,
    interval_ns: i64,
    first_block: u64,
}

/// What the writers of elements need to know about their block.
pub(super) struct Moment<'a> {
    pub number: u64,
    pub time_ns: i64,
    pub users: &'a Users,
    pub rng: fastrand::Rng,
}

impl Chain {
    pub fn new(plan: &Plan) -> Self {
        // Without a start the first line, which comes after the lag, is written now.
        let start = plan.start.unwrap_or_else(|| Timestamp::now().minus(plan.node_lag));
        Self {
            seed: plan.seed,
            users: Users::new(plan.seed, plan.users.max(1)),
            start_ns: start.0.saturating_mul(1_000),
            interval_ns: (plan.block_interval.as_nanos() as i64).max(1_000),
            first_block: plan.first_block,
        }
    }

    pub fn users(&self) -> &Users {
        &self.users
    }

    /// The number of the block with this ordinal.
    pub fn number(&self, ordinal: u64) -> u64 {
        self.first_block + ordinal
    }

    /// The time of a block, nanoseconds since 1970: strictly increasing, a little irregular.
    pub fn time_ns(&self, ordinal: u64) -> i64 {
        let jitter = self.chance(Purpose::Time, ordinal) % (self.interval_ns as u64 * 3 / 4);
        self.start_ns + ordinal as i64 * self.interval_ns + jitter as i64
    }

    /// Makes the block with this ordinal, counted from 0, in the place of what `block` held.
    pub fn read(&self, ordinal: u64, block: &mut Block) {
        block.number = self.number(ordinal);
        block.time_ns = self.time_ns(ordinal);
        block.fills.clear();
        block.misc.clear();
        let mut fills = self.moment(Purpose::Fills, ordinal);
        if self.begins(DAY_NS, ordinal) {
            fills::push_dust(&mut fills, &mut block.fills);
        }
        fills::push_trades(&mut fills, &mut block.fills);
        let mut misc = self.moment(Purpose::Misc, ordinal);
        if self.begins(HOUR_NS, ordinal) {
            misc::push_hourly(&mut misc, &mut block.misc);
        }
        misc::push_transactions(&mut misc, &mut block.misc);
    }

    /// Makes the order statuses of a block: bulk that a reader of fills must pass over.
    pub fn read_statuses(&self, ordinal: u64, statuses: &mut Elements) {
        statuses.clear();
        statuses::push(&mut self.moment(Purpose::Statuses, ordinal), statuses);
    }

    /// Whether this is the first block of a UTC hour or day. The first block of all is one only
    /// when the chain starts within the same interval.
    fn begins(&self, period_ns: i64, ordinal: u64) -> bool {
        let before = match ordinal.checked_sub(1) {
            Some(before) => self.time_ns(before),
            None => self.start_ns - 1,
        };
        self.time_ns(ordinal).div_euclid(period_ns) != before.div_euclid(period_ns)
    }

    fn moment(&self, purpose: Purpose, ordinal: u64) -> Moment<'_> {
        Moment {
            number: self.number(ordinal),
            time_ns: self.time_ns(ordinal),
            users: &self.users,
            rng: fastrand::Rng::with_seed(self.chance(purpose, ordinal)),
        }
    }

    fn chance(&self, purpose: Purpose, ordinal: u64) -> u64 {
        mix(mix(self.seed, purpose as u64 + 1), ordinal)
    }
}

impl Moment<'_> {
    pub fn one_in(&mut self, times: u32) -> bool {
        self.rng.u32(..times) == 0
    }

    /// The hash of a transaction in this block, as chains make it: byte 10 is 4, bytes 11 to 14
    /// are the block number.
    pub fn hash(&mut self) -> Vec<u8> {
        let mut bytes = [0; 32];
        for word in bytes.as_chunks_mut::<8>().0 {
            *word = self.rng.u64(..).to_be_bytes();
        }
        bytes[10] = 4;
        bytes[11..15].copy_from_slice(&(self.number as u32).to_be_bytes());
        let mut text = Vec::with_capacity(66);
        push_hex(&mut text, &bytes);
        text
    }
}

/// The hash of what no transaction made: 66 characters.
pub(super) const ZERO_HASH: &[u8; 66] =
    b"0x0000000000000000000000000000000000000000000000000000000000000000";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_the_same_whenever_it_is_read() {
        let chain =
            Chain::new(&Plan { start: Some(crate::generate::plan::noon()), ..Plan::default() });
        let (mut straight, mut again) = (Block::default(), Block::default());

        for ordinal in 0..100 {
            chain.read(ordinal, &mut straight);
        }
        chain.read(99, &mut again);

        assert_eq!(straight.fills.bytes(), again.fills.bytes());
        assert_eq!(straight.misc.bytes(), again.misc.bytes());
        assert_eq!(straight.time_ns, again.time_ns);
    }

    #[test]
    fn block_times_increase() {
        let chain = Chain::new(&Plan::default());

        assert!((0..1_000).all(|ordinal| chain.time_ns(ordinal) < chain.time_ns(ordinal + 1)));
    }
}

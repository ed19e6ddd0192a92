//! The memory that answers take until their clients have taken them.
//!
//! Invariant: an answer never grows beyond what was set aside for it, except by what one millisecond holds.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{error::InfoError, history::Limits};
use crate::stats::Stats;

/// Bytes of all answers together.
pub const MAX_ANSWER_BYTES: usize = 256 << 20;

/// An answer ends here, however many rows it may have.
const MAX_BYTES_OF_ONE: usize = 64 << 20;

/// More than a row takes: a fill with all that it can have is about 700 bytes.
const ROW_BYTES: usize = 1_024;

/// What is set aside is a multiple of this.
const UNIT_BYTES: usize = 1 << 20;

/// The room for answers.
pub struct Answers {
    units: Arc<Semaphore>,
    stats: Arc<Stats>,
}

/// What is set aside for one answer.
pub struct Room {
    rows: usize,
    units: usize,
    stats: Arc<Stats>,
    _permit: OwnedSemaphorePermit,
}

/// An answer and its room, which is free again when the last part of it is gone.
struct Filled {
    body: Vec<u8>,
    _room: Room,
}

impl Answers {
    pub fn new(stats: Arc<Stats>) -> Self {
        Self { units: Arc::new(Semaphore::new(MAX_ANSWER_BYTES / UNIT_BYTES)), stats }
    }

    /// Sets room aside for an answer of so many rows.
    ///
    /// # Errors
    /// [`InfoError::NoRoom`] when there is none within `patience`.
    pub async fn room(&self, rows: usize, patience: Duration) -> Result<Room, InfoError> {
        let bytes = rows.saturating_mul(ROW_BYTES).min(MAX_BYTES_OF_ONE);
        let units = bytes.div_ceil(UNIT_BYTES);
        let waiting = self.units.clone().acquire_many_owned(units as u32);
        let Ok(permit) = timeout(patience, waiting).await else {
            self.stats.official.no_room.add(1);
            return Err(InfoError::NoRoom);
        };
        let permit = permit.expect("the semaphore is never closed");
        self.stats.official.answer_bytes.add((units * UNIT_BYTES) as i64);
        Ok(Room { rows, units, stats: self.stats.clone(), _permit: permit })
    }
}

impl Room {
    pub fn limits(&self) -> Limits {
        Limits { rows: self.rows, bytes: self.units * UNIT_BYTES }
    }

    /// The answer, which holds its room.
    pub fn filled(self, body: Vec<u8>) -> Bytes {
        Bytes::from_owner(Filled { body, _room: self })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.stats.official.answer_bytes.add(-((self.units * UNIT_BYTES) as i64));
    }
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn room_is_free_again_when_the_last_part_of_an_answer_is_gone() {
        let stats = Arc::<Stats>::default();
        let answers = Answers::new(stats.clone());
        let mut bodies = Vec::new();
        for _ in 0..MAX_ANSWER_BYTES / MAX_BYTES_OF_ONE {
            let room = answers.room(1_000_000, Duration::ZERO).await.unwrap();
            assert_eq!(room.limits(), Limits { rows: 1_000_000, bytes: MAX_BYTES_OF_ONE });
            bodies.push(room.filled(b"[1]".to_vec()));
        }

        let full = answers.room(1, Duration::ZERO).await.err().unwrap();
        let part = bodies[0].slice(1..2);
        bodies.remove(0);
        let part_is_left = answers.room(1, Duration::ZERO).await.is_err();
        drop(part);
        let free = answers.room(1, Duration::ZERO).await.is_ok();

        assert_eq!((full.status(), full.code()), (503, "busy"));
        assert!(part_is_left && free);
        assert_eq!(stats.official.no_room.get(), 2);
        assert_eq!(stats.official.answer_bytes.get(), 3 * MAX_BYTES_OF_ONE as i64);
    }
}

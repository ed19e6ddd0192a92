//! Where the events of a job go.

use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::{
    event::Event,
    store::{Setting, StoreError, StoreWriter, store_backfilled},
};

/// How often the lease of a store is renewed that a command holds itself.
const RENEWAL: Duration = Duration::from_secs(3);

/// What became of a portion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub stored: u64,
    pub known: u64,
    pub refused: u64,
}

/// Why a portion was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Somebody wants the job to end.
    #[error("cancelled")]
    Cancelled,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the daemon stops")]
    Stopping,
}

/// Takes the events of a job, portion by portion; what it has taken is stored.
#[async_trait(?Send)]
pub trait Sink {
    async fn store(&mut self, events: Vec<Event>) -> Result<Tally, SinkError>;

    /// Called between two steps, also when there are no events for long.
    async fn between(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// The store of a command, where no daemon runs.
pub struct OwnStore {
    writer: Box<dyn StoreWriter>,
    setting: Setting,
    renewed: Instant,
}

impl OwnStore {
    pub fn new(writer: Box<dyn StoreWriter>, setting: Setting) -> Self {
        Self { writer, setting, renewed: Instant::now() }
    }

    /// Gives the lease back.
    pub async fn close(mut self) -> Result<(), StoreError> {
        self.writer.close().await
    }
}

#[async_trait(?Send)]
impl Sink for OwnStore {
    async fn store(&mut self, events: Vec<Event>) -> Result<Tally, SinkError> {
        let done = store_backfilled(&mut *self.writer, events, self.setting).await?;
        let (stored, known) = (done.inserted as u64, done.known as u64);
        Ok(Tally { stored, known, refused: done.refused.len() as u64 })
    }

    async fn between(&mut self) -> Result<(), SinkError> {
        if self.renewed.elapsed() >= RENEWAL {
            self.writer.renew().await?;
            self.renewed = Instant::now();
        }
        Ok(())
    }
}

//! The embedded store: one SQLite file beside the daemon.
//!
//! Place in the pipeline: [`SqliteWriter`] belongs to `DbWriter` and blocks its thread; history
//! reads run on the blocking pool over a few connections that cannot write.
//! Invariants: write-ahead log, so that readers and the writer do not wait for each other; one
//! writer, held by a lock of the operating system and by the run's number in every transaction.

mod backfill;
pub mod backup;
mod connection;
mod deadline;
mod disk;
mod fault;
mod history;
mod insert;
pub mod inspect;
mod lease;
mod pending;
mod retention;
mod schema;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use diesel::prelude::*;

pub use self::writer::SqliteWriter;
use self::{connection::ReadPool, fault::Fault};
use super::{
    Arrivals, EventQuery, EventStore, ReadConnections, Recovered, StoreError, StoreSize,
    StoreWriter,
};
use crate::{
    config::StoreConfig,
    event::{EventId, SequencedEvent},
};

/// A database file of ours, with its tables made.
pub struct SqliteStore {
    path: PathBuf,
    durable: bool,
    query_timeout: Duration,
    /// For history.
    readers: ReadPool,
    /// For the daemon's own questions, which must not wait for somebody's history.
    own: ReadPool,
}

impl SqliteStore {
    /// Opens a database, makes it when it is missing, and brings its tables up to date.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the directory is missing, the file is no SQLite database or
    /// not ours, or was made by a newer program: nothing is changed then.
    pub fn open(path: &Path, config: &StoreConfig) -> Result<Self, StoreError> {
        deadline::install();
        let path = connection::resolve(path)?;
        connection::migrate(&path, config.durable)?;
        let readers = connection::read_pool(&path, config.read_connections)?;
        let own = connection::read_pool(&path, 1)?;
        let (durable, query_timeout) = (config.durable, config.query_timeout);
        Ok(Self { path, durable, query_timeout, readers, own })
    }

    /// Runs a query on the blocking pool, with a connection of one of the pools.
    async fn read<T: Send + 'static>(
        readers: &ReadPool,
        query: impl FnOnce(&mut SqliteConnection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = readers.clone();
        blocking(move || {
            let mut connection =
                readers.get().map_err(|error| StoreError::Unavailable(error.to_string()))?;
            Ok(query(&mut connection)?)
        })
        .await
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())))
}

#[async_trait]
impl EventStore for SqliteStore {
    fn describe(&self) -> String {
        format!("sqlite:{}", self.path.display())
    }

    fn read_connections(&self) -> ReadConnections {
        let state = self.readers.state();
        let lent = state.connections.saturating_sub(state.idle_connections);
        ReadConnections { lent, limit: self.readers.max_size() }
    }

    async fn open_writer(&self) -> Result<(Box<dyn StoreWriter>, Recovered), StoreError> {
        let (path, durable) = (self.path.clone(), self.durable);
        let (writer, recovered) = blocking(move || SqliteWriter::open(path, durable)).await?;
        Ok((Box::new(writer), recovered))
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<SequencedEvent>, StoreError> {
        let limit = self.query_timeout;
        Self::read(&self.readers, move |connection| {
            deadline::within(limit, || history::page(connection, &query))
        })
        .await
    }

    async fn arrivals(&self, after: u64, limit: usize) -> Result<Arrivals, StoreError> {
        Self::read(&self.readers, move |connection| history::arrivals(connection, after, limit))
            .await
    }

    async fn stored(&self, ids: Vec<EventId>) -> Result<HashSet<EventId>, StoreError> {
        Self::read(&self.own, move |connection| history::stored(connection, ids)).await
    }

    async fn size(&self) -> Result<StoreSize, StoreError> {
        let path = self.path.clone();
        Self::read(&self.own, move |connection| disk::size(connection, &path)).await
    }
}

//! The store of production: a PostgreSQL server.
//!
//! Place in the pipeline: [`PostgresWriter`] belongs to `DbWriter`; history reads take a connection
//! of a small pool for the time of one page.
//! Invariants: own tables in the schema `nodecast` and nothing else; one writer, by a lease that every
//! transaction checks; nothing is written over a connection of the pool.

mod backfill;
mod commit;
mod connection;
mod fault;
mod history;
mod insert;
mod lease;
mod older;
mod partitions;
mod retention;
mod schema;
mod state;
mod statement;
#[cfg(test)]
mod tests;
mod topics;
mod writer;

use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;
use diesel_async::{AsyncPgConnection, pooled_connection::bb8};

pub use self::writer::PostgresWriter;
use self::{
    connection::{ReadPool, Server},
    fault::Fault,
};
use super::{EventQuery, EventStore, Recovered, StoreError, StoreSize, StoreWriter};
use crate::{
    config::StoreConfig,
    event::{EventId, SequencedEvent},
};

/// A database of ours on a server, with its tables made.
pub struct PostgresStore {
    server: Server,
    /// For history.
    readers: ReadPool,
    /// For the daemon's own questions, which must not wait for somebody's history.
    own: ReadPool,
    query_timeout: Duration,
    durable: bool,
    warnings: Vec<String>,
}

impl PostgresStore {
    /// Connects, and brings the tables up to date.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the server refuses us, the database is not there or is not
    /// ours; [`StoreError::Unavailable`] when nobody answers.
    pub async fn open(url: &str, config: &StoreConfig) -> Result<Self, StoreError> {
        let server = Server::parse(url)?;
        server.migrate().await?;
        let warning = older::create_view(&mut server.connect().await?).await?;
        let query_timeout = config.query_timeout;
        let readers = server.read_pool(config.read_connections, query_timeout);
        let own = server.read_pool(1, query_timeout);
        let warnings = warning.into_iter().collect();
        Ok(Self { server, readers, own, query_timeout, durable: config.durable, warnings })
    }
}

type Reader<'p> = bb8::PooledConnection<'p, AsyncPgConnection>;

async fn reader(pool: &ReadPool) -> Result<Reader<'_>, StoreError> {
    pool.get().await.map_err(|error| StoreError::Unavailable(error.to_string()))
}

async fn size(connection: &mut AsyncPgConnection) -> Result<StoreSize, Fault> {
    let oldest = history::oldest(connection).await?;
    let deleted_seq = lease::load(connection).await?.and_then(|state| state.deleted_seq);
    Ok(StoreSize {
        bytes: retention::size_bytes(connection).await?,
        free_disk_bytes: None,
        oldest_seq: oldest.and_then(|(seq, _)| seq),
        oldest_time: oldest.map(|(_, time)| time),
        deleted_seq: deleted_seq.map(|seq| seq as u64),
    })
}

#[async_trait]
impl EventStore for PostgresStore {
    fn describe(&self) -> String {
        self.server.to_string()
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    async fn open_writer(&self) -> Result<(Box<dyn StoreWriter>, Recovered), StoreError> {
        let (writer, recovered) = PostgresWriter::open(self.server.clone(), self.durable).await?;
        Ok((Box::new(writer), recovered))
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<SequencedEvent>, StoreError> {
        let mut connection = reader(&self.readers).await?;
        let page = history::page(&mut connection, &query).await;
        page.map_err(|Fault(error)| match error {
            StoreError::Unavailable(text) if text.contains("statement timeout") => {
                StoreError::TooSlow(self.query_timeout)
            }
            other => other,
        })
    }

    async fn stored(&self, ids: Vec<EventId>) -> Result<HashSet<EventId>, StoreError> {
        Ok(history::stored(&mut *reader(&self.own).await?, ids).await?)
    }

    async fn size(&self) -> Result<StoreSize, StoreError> {
        Ok(size(&mut *reader(&self.own).await?).await?)
    }
}

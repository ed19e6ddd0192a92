//! The store of production: a PostgreSQL server.
//!
//! Place in the pipeline: [`PostgresWriter`] belongs to `DbWriter`; history reads take a connection
//! of a small pool for the time of one page.
//! Invariants: own tables in the schema `nodecast` and nothing else; one writer, by a lease that every
//! transaction checks; nothing is written over a connection of the pool.

mod arrivals;
mod backfill;
mod commit;
mod connection;
pub mod dump;
mod fault;
mod history;
mod insert;
pub mod inspect;
mod lease;
mod link;
mod migrate;
mod older;
mod partitions;
mod pending;
mod pool;
mod retention;
mod schema;
mod spans;
mod sqlstate;
mod state;
mod statement;
#[cfg(test)]
mod tests;
mod topics;
mod writer;

use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;
use diesel_async::AsyncPgConnection;

use self::{
    connection::{GRACE, Server, limited},
    fault::Fault,
    link::Link,
    pool::ReadPool,
};
pub use self::{lease::LEASE, writer::PostgresWriter};
use super::{
    Arrivals, EventQuery, EventStore, ReadConnections, Recovered, Standing, StoreError, StoreSize,
    StoreWriter,
};
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
    /// Of each piece of the writer's work.
    write_timeout: Duration,
    /// Whether a commit is on the server's disk before it counts.
    durable: bool,
    warnings: Vec<String>,
}

impl PostgresStore {
    /// Connects, and brings the tables up to date.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the server refuses us, the database is not there or is not
    /// ours; [`StoreError::LeaseLost`] when its tables are to be changed while another daemon writes;
    /// [`StoreError::Unavailable`] when nobody answers.
    pub async fn open(url: &str, config: &StoreConfig) -> Result<Self, StoreError> {
        let server = Server::parse(url)?;
        migrate::migrate(&server).await?;
        let mut connection = server.connect().await?;
        let limit = config.write_timeout + GRACE;
        let warning = limited(limit, older::create_view(&mut connection)).await?;
        let pool = |connections| ReadPool::new(server.clone(), connections, config.query_timeout);
        let (readers, own) = (pool(config.read_connections), pool(1));
        let (write_timeout, warnings) = (config.write_timeout, warning.into_iter().collect());
        let durable = config.durable;
        Ok(Self { server, readers, own, write_timeout, durable, warnings })
    }
}

/// Looks at the lease over a connection of its own.
///
/// # Errors
/// As [`PostgresStore::open`].
pub async fn look_at_lease(url: &str) -> Result<Standing, StoreError> {
    let server = Server::parse(url)?;
    let mut connection = server.connect().await?;
    let looked = limited(LEASE / 2, lease::look(&mut connection)).await;
    looked.map_err(|error| server.within(error))
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

    fn read_connections(&self) -> ReadConnections {
        self.readers.connections()
    }

    async fn open_writer(&self) -> Result<(Box<dyn StoreWriter>, Recovered), StoreError> {
        let link = Link::new(self.server.clone(), self.write_timeout, self.durable);
        let (writer, recovered) = PostgresWriter::open(link).await?;
        Ok((Box::new(writer), recovered))
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<SequencedEvent>, StoreError> {
        self.readers.read(async |connection| history::page(connection, &query).await).await
    }

    async fn arrivals(&self, after: u64, limit: usize) -> Result<Arrivals, StoreError> {
        self.readers
            .read(async |connection| arrivals::arrivals(connection, after, limit).await)
            .await
    }

    async fn stored(&self, ids: Vec<EventId>) -> Result<HashSet<EventId>, StoreError> {
        self.own.read(async |connection| history::stored(connection, &ids).await).await
    }

    async fn size(&self) -> Result<StoreSize, StoreError> {
        self.own.read(async |connection| size(connection).await).await
    }
}

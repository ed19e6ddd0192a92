//! Connections for reads: a few, each lent to one read at a time.
//!
//! Invariants: nothing can be written over them; a read has a time limit on our side besides the
//! server's; a connection whose read did not end, because of the limit or because nobody waits for
//! the answer any more, is thrown away: the late answer would be in the way of the next read. A
//! connection that the server has closed fails no read while the server is there: what was opened before
//! it was noticed is lent no more, and the read is repeated once on a new one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bb8_redis::bb8;
use diesel_async::{
    AsyncPgConnection, SimpleAsyncConnection, pooled_connection::PoolableConnection,
};

use super::{
    connection::{GRACE, Server, limited},
    fault::{self, Fault},
};
use crate::store::{ReadConnections, StoreError};

/// How long a read waits for a connection before it is answered as unavailable.
const WAIT: Duration = Duration::from_secs(5);

/// Every read follows an index and ends with its page. The server would see that by its statistics,
/// but of a day that has just begun it has none; it takes its million rows for some dozen then, and
/// sorts them all for one page. `jit` would compile for as long, since what is off counts as dear.
const BY_INDEX: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; \
    SET enable_sort = off; SET jit = off";

/// Lends connections to reads.
pub struct ReadPool {
    pool: bb8::Pool<Connections>,
    /// Most connections at one time.
    limit: u32,
    query_timeout: Duration,
    generation: Arc<Generation>,
}

/// Counts how often the server was found to have closed a connection: those of an earlier count are
/// likely to be closed as well, as after its restart.
#[derive(Debug, Default)]
struct Generation(AtomicU64);

/// How the pool makes connections and knows the broken ones.
struct Connections {
    server: Server,
    query_timeout: Duration,
    generation: Arc<Generation>,
}

struct Lent {
    connection: AsyncPgConnection,
    generation: u64,
    /// From the beginning of a read to its good end.
    is_reading: bool,
}

impl ReadPool {
    /// Makes a pool that connects when it is used, and whose statements end after `query_timeout`.
    pub fn new(server: Server, connections: u32, query_timeout: Duration) -> Self {
        let limit = connections.max(1);
        let generation = Arc::<Generation>::default();
        let manager = Connections { server, query_timeout, generation: generation.clone() };
        let pool =
            bb8::Pool::builder().max_size(limit).connection_timeout(WAIT).build_unchecked(manager);
        Self { pool, limit, query_timeout, generation }
    }

    /// Tells how many are lent now, and how many there may be.
    pub fn connections(&self) -> ReadConnections {
        let state = self.pool.state();
        let lent = state.connections.saturating_sub(state.idle_connections);
        ReadConnections { lent, limit: self.limit }
    }

    /// Lends a connection to a read.
    ///
    /// # Errors
    /// [`StoreError::TooSlow`] when the server has broken it off, [`StoreError::Unavailable`] when
    /// the server says nothing in time.
    ///
    /// # Cancel safety
    /// The connection is thrown away with the read.
    pub async fn read<T>(
        &self,
        read: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, Fault> + Clone,
    ) -> Result<T, StoreError> {
        let answer = match self.read_once(read.clone()).await {
            Err(Failure { is_closed: true, .. }) => self.read_once(read).await,
            answer => answer,
        };
        answer.map_err(|failure| match failure.error.once_open() {
            StoreError::Unavailable(text) if fault::is_too_slow(&text) => {
                StoreError::TooSlow(self.query_timeout)
            }
            other => other,
        })
    }

    async fn read_once<T>(
        &self,
        read: impl AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, Fault>,
    ) -> Result<T, Failure> {
        let lent = self.pool.get().await;
        let mut lent = lent.map_err(|error| Failure {
            error: StoreError::Unavailable(error.to_string()),
            is_closed: false,
        })?;
        lent.is_reading = true;
        let answer = limited(self.query_timeout + GRACE, read(&mut lent.connection)).await;
        lent.is_reading = answer.is_err();
        answer.map_err(|error| {
            let is_closed = lent.connection.is_broken() || fault::is_closing(&error);
            if is_closed {
                self.generation.ended(lent.generation);
            }
            Failure { error, is_closed }
        })
    }
}

/// Why a read was not answered.
struct Failure {
    error: StoreError,
    /// The server has closed the connection; it says nothing of the server as it is now.
    is_closed: bool,
}

impl Generation {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Begins the next one, unless another read has.
    fn ended(&self, known: u64) {
        self.0.fetch_max(known + 1, Ordering::Relaxed);
    }
}

impl bb8::ManageConnection for Connections {
    type Connection = Lent;
    type Error = StoreError;

    async fn connect(&self) -> Result<Lent, StoreError> {
        // Before it connects: what is closed meanwhile may be this one.
        let generation = self.generation.now();
        let mut connection = self.server.connect().await?;
        let set_up = format!(
            "SET statement_timeout = {}; SET default_transaction_read_only = on; {BY_INDEX}",
            self.query_timeout.as_millis()
        );
        let setting_up = async { Ok(connection.batch_execute(&set_up).await?) };
        limited(self.query_timeout + GRACE, setting_up).await?;
        Ok(Lent { connection, generation, is_reading: false })
    }

    /// By its state: a query for each read would cost a round trip.
    async fn is_valid(&self, lent: &mut Lent) -> Result<(), StoreError> {
        if lent.generation < self.generation.now() || lent.connection.is_broken() {
            return Err(StoreError::Unavailable("the server has closed the connection".to_owned()));
        }
        Ok(())
    }

    fn has_broken(&self, lent: &mut Lent) -> bool {
        lent.is_reading || lent.connection.is_broken()
    }
}

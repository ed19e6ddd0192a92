//! The writer's connection: kept while its work succeeds, thrown away after anything else.
//!
//! Invariants: each piece of work has a time limit on our side, since a server that hangs, or whose
//! packets vanish, never says that it is away; behind the limit the connection is gone and the
//! outcome is not known. What a broken connection had begun does not hold up its successor: the
//! server itself ends a transaction that waits for us.

use std::{collections::BTreeSet, time::Duration};

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};

use super::{
    connection::{GRACE, Server, limited},
    fault::Fault,
    partitions::{self, Day},
    topics::Topics,
};
use crate::store::StoreError;

/// How long the server waits for our next statement within a transaction. A writer that hangs, or
/// can no longer be reached, holds the lease's row for so long: less than a lease lasts, so that
/// nobody who takes over waits for the row.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);

/// One connection at a time, opened when it is needed.
pub struct Link {
    server: Server,
    /// Of each statement, by the server's clock; a whole piece of work has little more, by ours.
    limit: Duration,
    /// Whether a commit is on the server's disk before it counts.
    durable: bool,
    /// `None` at first and after a failure: a connection whose transaction may still be open is not
    /// used again.
    open: Option<Opened>,
}

/// A connection, and what is known by it.
pub struct Opened {
    pub connection: AsyncPgConnection,
    /// Days that have a partition. Asked anew with each connection: while there was none somebody
    /// may have taken partitions away.
    pub days: BTreeSet<Day>,
    pub topics: Topics,
}

impl Link {
    pub fn new(server: Server, limit: Duration, durable: bool) -> Self {
        Self { server, limit, durable, open: None }
    }

    /// Runs a piece of work within the time limit.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after the limit: whether the server has done it is not known.
    ///
    /// # Cancel safety
    /// The connection is thrown away with the work.
    pub async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Opened) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let mut opened = match self.open.take() {
            Some(opened) => opened,
            None => self.connect().await?,
        };
        let done = limited(self.limit + GRACE, work(&mut opened)).await;
        // Refused content leaves a transaction that was rolled back in good order; after anything
        // else the state of the connection is not known.
        if matches!(done, Ok(_) | Err(StoreError::Refused(_))) {
            self.open = Some(opened);
        }
        done
    }

    /// Ends the connection.
    pub fn close(&mut self) {
        self.open = None;
    }

    async fn connect(&self) -> Result<Opened, StoreError> {
        let mut connection = self.server.connect().await?;
        let opening = async {
            self.set_up(&mut connection).await?;
            let days = partitions::list(&mut connection).await?;
            Ok((days, Topics::load(&mut connection).await?))
        };
        let (days, topics) = limited(self.limit + GRACE, opening).await?;
        Ok(Opened { connection, days, topics })
    }

    /// The server keeps to the limit too: otherwise what we have given up would go on over there.
    async fn set_up(&self, connection: &mut AsyncPgConnection) -> Result<(), Fault> {
        let mut set_up = format!(
            "SET statement_timeout = {}; SET idle_in_transaction_session_timeout = {}; SET jit = off",
            self.limit.as_millis(),
            IDLE_IN_TRANSACTION.as_millis(),
        );
        if !self.durable {
            set_up.push_str("; SET synchronous_commit = off");
        }
        Ok(connection.batch_execute(&set_up).await?)
    }
}

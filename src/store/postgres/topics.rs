//! Topics by number, as the rows of the events name them.
//!
//! Invariant: a number is given once, under the lease, and stays with its name.

use std::collections::BTreeSet;

use diesel::{prelude::*, sql_types::Text};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use super::{fault::Fault, lease, schema::topics};
use crate::{
    event::Topic,
    store::{Run, StoreError},
};

/// The topics that have a number. There is a handful.
#[derive(Clone, Debug, Default)]
pub struct Topics(Vec<(i16, Topic)>);

impl Topics {
    pub async fn load(connection: &mut AsyncPgConnection) -> Result<Self, Fault> {
        let rows: Vec<(i16, String)> = topics::table.order(topics::id).load(connection).await?;
        Ok(Self(rows.into_iter().map(|(id, name)| (id, Topic::intern(&name))).collect()))
    }

    /// Gives a number to each topic that has none yet.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when the run is not the writer any more.
    pub async fn learn(
        &mut self,
        connection: &mut AsyncPgConnection,
        run: Run,
        mut wanted: BTreeSet<Topic>,
    ) -> Result<(), Fault> {
        wanted.retain(|topic| self.id(*topic).is_none());
        if wanted.is_empty() {
            return Ok(());
        }
        let number = "INSERT INTO nodecast.topics (id, name) \
            SELECT coalesce(max(id), 0) + 1, $1 FROM nodecast.topics ON CONFLICT DO NOTHING";
        *self = connection
            .transaction(async |connection| {
                lease::check(connection, run).await?;
                for topic in wanted {
                    diesel::sql_query(number)
                        .bind::<Text, _>(topic.as_str())
                        .execute(connection)
                        .await?;
                }
                Self::load(connection).await
            })
            .await?;
        Ok(())
    }

    pub fn id(&self, topic: Topic) -> Option<i16> {
        self.0.iter().find(|(_, known)| *known == topic).map(|(id, _)| *id)
    }

    /// # Errors
    /// [`StoreError::Unusable`] for a number that nobody has given.
    pub fn name(&self, id: i16) -> Result<Topic, StoreError> {
        let found = self.0.iter().find(|(known, _)| *known == id).map(|(_, topic)| *topic);
        found.ok_or_else(|| StoreError::Unusable(format!("topic {id} has no name")))
    }

    pub fn iter(&self) -> impl Iterator<Item = (i16, Topic)> + '_ {
        self.0.iter().copied()
    }
}

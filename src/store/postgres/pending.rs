//! What is to be back-filled, as it is kept.

use diesel::{OptionalExtension, prelude::*};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use super::{
    fault::Fault,
    lease,
    schema::{backfill_jobs, known_list},
};
use crate::store::{Pending, Run};

pub async fn load(connection: &mut AsyncPgConnection, run: Run) -> Result<Pending, Fault> {
    connection
        .transaction(async |connection| {
            lease::check(connection, run).await?;
            let list = known_list::table
                .select((known_list::digest, known_list::size))
                .first(connection)
                .await
                .optional()?;
            let jobs = backfill_jobs::table.order(backfill_jobs::name).load(connection).await?;
            Ok(Pending::read(list, jobs)?)
        })
        .await
}

pub async fn save(
    connection: &mut AsyncPgConnection,
    run: Run,
    pending: &Pending,
) -> Result<(), Fault> {
    connection
        .transaction(async |connection| {
            lease::check(connection, run).await?;
            diesel::delete(backfill_jobs::table).execute(connection).await?;
            diesel::delete(known_list::table).execute(connection).await?;
            for job in &pending.jobs {
                let users = job.users_column();
                diesel::insert_into(backfill_jobs::table)
                    .values((backfill_jobs::name.eq(&job.name), backfill_jobs::users.eq(users)))
                    .execute(connection)
                    .await?;
            }
            if let Some((digest, size)) = pending.mark_row()? {
                diesel::insert_into(known_list::table)
                    .values((
                        known_list::id.eq(1),
                        known_list::digest.eq(digest),
                        known_list::size.eq(size),
                    ))
                    .execute(connection)
                    .await?;
            }
            Ok(())
        })
        .await
}

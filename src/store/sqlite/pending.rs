//! What is to be back-filled, as it is kept.

use diesel::prelude::*;

use super::{
    fault::Fault,
    schema::{backfill_jobs, known_list},
    state,
};
use crate::store::{Pending, Run};

pub fn load(connection: &mut SqliteConnection, run: Run) -> Result<Pending, Fault> {
    state::check_lease(connection, run)?;
    let list = known_list::table
        .select((known_list::digest, known_list::size))
        .first(connection)
        .optional()?;
    let jobs = backfill_jobs::table.order(backfill_jobs::name).load(connection)?;
    Ok(Pending::read(list, jobs)?)
}

/// Writes within an open transaction.
pub fn save(connection: &mut SqliteConnection, run: Run, pending: &Pending) -> Result<(), Fault> {
    state::check_lease(connection, run)?;
    diesel::delete(backfill_jobs::table).execute(connection)?;
    diesel::delete(known_list::table).execute(connection)?;
    for job in &pending.jobs {
        let users = job.users_column();
        diesel::insert_into(backfill_jobs::table)
            .values((backfill_jobs::name.eq(&job.name), backfill_jobs::users.eq(users)))
            .execute(connection)?;
    }
    if let Some((digest, size)) = pending.mark_row()? {
        diesel::insert_into(known_list::table)
            .values((
                known_list::id.eq(1),
                known_list::digest.eq(digest),
                known_list::size.eq(size),
            ))
            .execute(connection)?;
    }
    Ok(())
}

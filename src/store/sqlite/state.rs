//! What the store knows besides events: whose it is, how far it came, ledger and checkpoints.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Binary, Nullable, Text},
};

use super::{
    connection::immediate,
    fault::Fault,
    schema::{blocks, checkpoints, events, gaps, runs, store_state, streams},
};
use crate::{
    event::{Timestamp, Topic},
    router::ledger::{BlockRange, Gap},
    source::{FileMark, Progress, StreamCheckpoint},
    store::{
        EarlierRun, RUNS_KEPT, Recovered, Run, StoreError,
        ranges::merge,
        records::{self, FinalProgress, RangeRow, signed, unsigned},
    },
};

/// The one row of `store_state`.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = store_state)]
pub struct StoreState {
    pub epoch: i64,
    pub run: i64,
    pub commit_number: i64,
    pub last_seq: i64,
    pub newest_time: Option<i64>,
    pub deleted_seq: Option<i64>,
    pub shortened_to: Option<i64>,
}

pub fn load(connection: &mut SqliteConnection) -> Result<Option<StoreState>, Fault> {
    Ok(store_state::table.select(StoreState::as_select()).first(connection).optional()?)
}

/// Highest `seq` that retention has deleted.
pub fn deleted_seq(connection: &mut SqliteConnection) -> Result<Option<u64>, Fault> {
    let deleted = load(connection)?.and_then(|state| state.deleted_seq);
    Ok(deleted.map(|seq| unsigned(seq, "seq")).transpose()?)
}

/// Starts a run: its number is above every earlier one's, even if the clock has stepped back.
pub fn start_run(connection: &mut SqliteConnection, now: Timestamp) -> Result<Run, Fault> {
    immediate(connection, |connection| {
        let known = load(connection)?;
        let epoch = known.as_ref().map_or_else(|| fastrand::u64(1..), |state| state.epoch as u64);
        let id = known.as_ref().map_or(now.0, |state| now.0.max(state.run + 1));
        if let Some(ended) = &known {
            remember_run(connection, ended)?;
        }
        diesel::insert_into(store_state::table)
            .values((
                store_state::id.eq(1),
                store_state::epoch.eq(epoch as i64),
                store_state::run.eq(id),
                store_state::commit_number.eq(0),
                store_state::last_seq.eq(0),
            ))
            .on_conflict(store_state::id)
            .do_update()
            .set((store_state::run.eq(id), store_state::commit_number.eq(0)))
            .execute(connection)?;
        Ok(Run { id: unsigned(id, "run")?, epoch })
    })
}

/// Keeps how far a run came that has ended.
fn remember_run(connection: &mut SqliteConnection, ended: &StoreState) -> Result<(), Fault> {
    diesel::replace_into(runs::table)
        .values((runs::id.eq(ended.run), runs::last_seq.eq(ended.last_seq)))
        .execute(connection)?;
    let newest = runs::table.select(runs::id).order(runs::id.desc());
    let forgotten: Option<i64> = newest.offset(RUNS_KEPT).first(connection).optional()?;
    if let Some(newest) = forgotten {
        diesel::delete(runs::table.filter(runs::id.le(newest))).execute(connection)?;
    }
    Ok(())
}

fn load_runs(connection: &mut SqliteConnection) -> Result<Vec<EarlierRun>, Fault> {
    let rows: Vec<(i64, i64)> = runs::table.order(runs::id).load(connection)?;
    Ok(rows.into_iter().map(records::earlier_run).collect::<Result<_, StoreError>>()?)
}

/// Reads the state within a transaction of a run, if it is still the writer.
pub fn check_lease(connection: &mut SqliteConnection, run: Run) -> Result<StoreState, Fault> {
    let state = load(connection)?
        .ok_or_else(|| StoreError::Unusable("the row of the store's state is gone".into()))?;
    if state.run as u64 != run.id || state.epoch as u64 != run.epoch {
        return Err(Fault(StoreError::LeaseLost(format!(
            "run {} has taken over from run {}",
            state.run, run.id
        ))));
    }
    Ok(state)
}

/// Reads what a start or a new generation needs, all of one moment.
pub fn recover(connection: &mut SqliteConnection, run: Run) -> Result<Recovered, Fault> {
    immediate(connection, |connection| {
        let state = check_lease(connection, run)?;
        let newest_seq: Option<i64> =
            events::table.select(diesel::dsl::max(events::seq)).first(connection)?;
        let seen = merge(load_ranges(connection)?);
        Ok(Recovered {
            run,
            last_seq: unsigned(state.last_seq.max(newest_seq.unwrap_or(0)), "seq")?,
            heads: load_heads(connection, &seen)?,
            streams: load_streams(connection)?,
            newest_time: state.newest_time.map(Timestamp),
            seen,
            gaps: load_gaps(connection)?,
            earlier_runs: load_runs(connection)?,
        })
    })
}

fn load_heads(
    connection: &mut SqliteConnection,
    seen: &[BlockRange],
) -> Result<Vec<(Topic, u64)>, Fault> {
    let mut newest_events = Vec::new();
    for topic in topics(connection)? {
        let newest: Option<i64> = events::table
            .filter(events::topic.eq(&topic))
            // What was back-filled may lie ahead of what we follow.
            .filter(events::seq.ge(0))
            .select(diesel::dsl::max(events::position))
            .first(connection)?;
        if let Some(newest) = newest {
            newest_events.push((Topic::intern(&topic), unsigned(newest, "position")?));
        }
    }
    Ok(records::heads(newest_events, seen))
}

/// The topics that have events: one step in the index each, however many events there are.
pub fn topics(connection: &mut SqliteConnection) -> Result<Vec<String>, Fault> {
    let mut topics: Vec<String> = Vec::new();
    loop {
        let known = topics.last().map_or("", String::as_str);
        let next: Option<String> = events::table
            .filter(events::topic.gt(known))
            .select(diesel::dsl::min(events::topic))
            .first(connection)?;
        match next {
            Some(topic) => topics.push(topic),
            None => return Ok(topics),
        }
    }
}

pub fn load_streams(connection: &mut SqliteConnection) -> Result<Vec<StreamCheckpoint>, Fault> {
    let rows: Vec<(String, String)> = streams::table.order(streams::name).load(connection)?;
    let mut found = Vec::with_capacity(rows.len());
    for (name, state) in rows {
        let state = records::state_of(&name, &state)?;
        let marks: Vec<(String, i64, i64)> = checkpoints::table
            .filter(checkpoints::stream.eq(&name))
            .order(checkpoints::file)
            .select((checkpoints::file, checkpoints::file_offset, checkpoints::digest))
            .load(connection)?;
        let files =
            marks.into_iter().map(|(file, offset, digest)| records::mark(file, offset, digest));
        let files = files.collect::<Result<_, StoreError>>()?;
        found.push(StreamCheckpoint { name: name.into(), state, files });
    }
    Ok(found)
}

/// Writes checkpoints and states, of which the later replace the earlier.
pub fn save_progress(
    connection: &mut SqliteConnection,
    progress: &[&Progress],
) -> Result<(), Fault> {
    let last = FinalProgress::of(progress);
    for (name, state) in last.states {
        let state = records::state_text(name, state)?;
        diesel::replace_into(streams::table)
            .values((streams::name.eq(name), streams::state.eq(state)))
            .execute(connection)?;
    }
    for ((stream, file), mark) in last.marks {
        match mark {
            FileMark::At { offset, digest, .. } => {
                diesel::replace_into(checkpoints::table)
                    .values((
                        checkpoints::stream.eq(stream),
                        checkpoints::file.eq(&**file),
                        checkpoints::file_offset.eq(signed(*offset, "offset")?),
                        checkpoints::digest.eq(*digest as i64),
                    ))
                    .execute(connection)?;
            }
            FileMark::Gone { .. } => {
                diesel::delete(checkpoints::table.find((stream, &**file))).execute(connection)?;
            }
        }
    }
    Ok(())
}

/// Reads the rows of the ledger as they are.
fn load_ranges(connection: &mut SqliteConnection) -> Result<Vec<BlockRange>, Fault> {
    let rows: Vec<RangeRow> = blocks::table.load(connection)?;
    Ok(rows.into_iter().map(records::range).collect::<Result<_, StoreError>>()?)
}

/// A row that says more than the new one stays: it is complete, or reaches further.
const SAVE_RANGE: &str = "\
    INSERT INTO blocks (topic, first, last, next_index, digests) VALUES (?, ?, ?, ?, ?) \
    ON CONFLICT (topic, first) DO UPDATE SET \
        last = excluded.last, next_index = excluded.next_index, digests = excluded.digests \
    WHERE CASE \
        WHEN next_index IS NULL THEN excluded.next_index IS NULL AND excluded.last >= last \
        ELSE excluded.next_index IS NULL OR excluded.next_index >= next_index \
    END";

/// Adds a range, or widens the row of the same first block.
pub fn save_range(connection: &mut SqliteConnection, range: &BlockRange) -> Result<(), Fault> {
    let digests = records::digest_bytes(range);
    let next_index = range.next_index.map(i64::from);
    diesel::sql_query(SAVE_RANGE)
        .bind::<Text, _>(range.topic.as_str())
        .bind::<BigInt, _>(signed(range.first, "position")?)
        .bind::<BigInt, _>(signed(range.last, "position")?)
        .bind::<Nullable<BigInt>, _>(next_index)
        .bind::<Binary, _>(digests)
        .execute(connection)?;
    Ok(())
}

/// Replaces the rows of the ledger by fewer that say the same.
pub fn compact_ranges(connection: &mut SqliteConnection) -> Result<(), Fault> {
    let (replaced, new) = records::compaction(load_ranges(connection)?);
    for range in replaced {
        let first = signed(range.first, "position")?;
        diesel::delete(blocks::table.find((range.topic.as_str(), first))).execute(connection)?;
    }
    new.iter().try_for_each(|range| save_range(connection, range))
}

fn load_gaps(connection: &mut SqliteConnection) -> Result<Vec<Gap>, Fault> {
    let rows: Vec<(String, i64, i64, i64)> = gaps::table
        .filter(gaps::closed.is_null())
        .order((gaps::topic, gaps::first))
        .select((gaps::topic, gaps::first, gaps::last, gaps::opened))
        .load(connection)?;
    Ok(rows.into_iter().map(records::gap).collect::<Result<_, StoreError>>()?)
}

pub fn open_gap(connection: &mut SqliteConnection, gap: &Gap) -> Result<(), Fault> {
    diesel::insert_into(gaps::table)
        .values((
            gaps::topic.eq(gap.topic.as_str()),
            gaps::first.eq(signed(gap.first, "position")?),
            gaps::last.eq(signed(gap.last, "position")?),
            gaps::opened.eq(gap.opened.0),
        ))
        .on_conflict((gaps::topic, gaps::first, gaps::last, gaps::opened))
        .do_nothing()
        .execute(connection)?;
    Ok(())
}

pub fn close_gap(connection: &mut SqliteConnection, gap: &Gap) -> Result<(), Fault> {
    let open = gaps::table
        .filter(gaps::topic.eq(gap.topic.as_str()))
        .filter(gaps::first.eq(signed(gap.first, "position")?))
        .filter(gaps::last.eq(signed(gap.last, "position")?))
        .filter(gaps::closed.is_null());
    diesel::update(open)
        .set(gaps::closed.eq(gap.closed.unwrap_or_else(Timestamp::now).0))
        .execute(connection)?;
    Ok(())
}

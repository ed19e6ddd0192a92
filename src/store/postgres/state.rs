//! What the store knows besides events: how far it came, ledger and checkpoints.

use std::collections::HashMap;

use diesel::{
    prelude::*,
    sql_types::{Array, BigInt, Binary, Nullable, Text},
    upsert::excluded,
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use super::{
    fault::Fault,
    lease,
    schema::{blocks, checkpoints, events, gaps, streams},
};
use crate::{
    event::{Timestamp, Topic},
    router::ledger::{BlockRange, Gap},
    source::{FileMark, Progress, StreamCheckpoint},
    store::{
        Recovered, Run, StoreError,
        ranges::{condense, merge},
        records::{self, FinalProgress, RangeRow, signed, unsigned},
    },
};

/// Reads what a start or a new generation needs, all of one moment.
pub async fn recover(connection: &mut AsyncPgConnection, run: Run) -> Result<Recovered, Fault> {
    connection
        .transaction(async |connection| {
            let state = lease::check(connection, run).await?;
            let seen = merge(load_ranges(connection).await?);
            Ok(Recovered {
                run,
                last_seq: unsigned(state.last_seq, "seq")?,
                heads: load_heads(connection, &seen).await?,
                streams: load_streams(connection).await?,
                newest_time: state.newest_time.map(Timestamp),
                seen,
                gaps: load_gaps(connection).await?,
            })
        })
        .await
}

async fn load_heads(
    connection: &mut AsyncPgConnection,
    seen: &[BlockRange],
) -> Result<Vec<(Topic, u64)>, Fault> {
    let mut newest_events = Vec::new();
    for topic in topics(connection).await? {
        let newest: Option<i64> = events::table
            .filter(events::topic.eq(&topic))
            // What was back-filled may lie ahead of what we follow.
            .filter(events::seq.ge(0))
            .select(diesel::dsl::max(events::position))
            .first(connection)
            .await?;
        if let Some(newest) = newest {
            newest_events.push((Topic::intern(&topic), unsigned(newest, "position")?));
        }
    }
    Ok(records::heads(newest_events, seen))
}

/// The topics that have events: one step in the index each, however many events there are.
pub async fn topics(connection: &mut AsyncPgConnection) -> Result<Vec<String>, Fault> {
    let mut topics: Vec<String> = Vec::new();
    loop {
        let known = topics.last().map_or("", String::as_str);
        let next: Option<String> = events::table
            .filter(events::topic.gt(known))
            .order(events::topic)
            .select(events::topic)
            .first(connection)
            .await
            .optional()?;
        match next {
            Some(topic) => topics.push(topic),
            None => return Ok(topics),
        }
    }
}

pub async fn load_streams(
    connection: &mut AsyncPgConnection,
) -> Result<Vec<StreamCheckpoint>, Fault> {
    let rows: Vec<(String, String)> = streams::table.order(streams::name).load(connection).await?;
    let marks: Vec<(String, String, i64, i64)> =
        checkpoints::table.order((checkpoints::stream, checkpoints::file)).load(connection).await?;
    let mut files: HashMap<String, Vec<FileMark>> = HashMap::new();
    for (stream, file, offset, digest) in marks {
        let mark = records::mark(file, offset, digest)?;
        files.entry(stream).or_default().push(mark);
    }
    let streams = rows.into_iter().map(|(name, state)| {
        let state = records::state_of(&name, &state)?;
        let files = files.remove(&name).unwrap_or_default();
        Ok(StreamCheckpoint { name: name.into(), state, files })
    });
    Ok(streams.collect::<Result<_, StoreError>>()?)
}

/// Writes checkpoints and states, of which the later replace the earlier.
pub async fn save_progress(
    connection: &mut AsyncPgConnection,
    progress: &[&Progress],
) -> Result<(), Fault> {
    let last = FinalProgress::of(progress);
    let mut rows = Vec::with_capacity(last.states.len());
    for (name, state) in last.states {
        rows.push((streams::name.eq(name), streams::state.eq(records::state_text(name, state)?)));
    }
    if !rows.is_empty() {
        diesel::insert_into(streams::table)
            .values(rows)
            .on_conflict(streams::name)
            .do_update()
            .set(streams::state.eq(excluded(streams::state)))
            .execute(connection)
            .await?;
    }
    let mut rows = Vec::new();
    for ((stream, file), mark) in last.marks {
        match mark {
            FileMark::At { offset, digest, .. } => rows.push((
                checkpoints::stream.eq(stream),
                checkpoints::file.eq(&**file),
                checkpoints::file_offset.eq(signed(*offset, "offset")?),
                checkpoints::digest.eq(*digest as i64),
            )),
            FileMark::Gone { .. } => {
                diesel::delete(checkpoints::table.find((stream, &**file)))
                    .execute(connection)
                    .await?;
            }
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    diesel::insert_into(checkpoints::table)
        .values(rows)
        .on_conflict((checkpoints::stream, checkpoints::file))
        .do_update()
        .set((
            checkpoints::file_offset.eq(excluded(checkpoints::file_offset)),
            checkpoints::digest.eq(excluded(checkpoints::digest)),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

/// Reads the rows of the ledger as they are.
pub async fn load_ranges(connection: &mut AsyncPgConnection) -> Result<Vec<BlockRange>, Fault> {
    let rows: Vec<RangeRow> = blocks::table.load(connection).await?;
    Ok(rows.into_iter().map(records::range).collect::<Result<_, StoreError>>()?)
}

/// A row that says more than the new one stays: it is complete, or reaches further.
const SAVE_RANGES: &str = "\
    INSERT INTO nodecast.blocks AS known (topic, first, last, next_index, digests) \
    SELECT * FROM unnest($1, $2, $3, $4, $5) \
    ON CONFLICT (topic, first) DO UPDATE SET \
        last = excluded.last, next_index = excluded.next_index, digests = excluded.digests \
    WHERE CASE \
        WHEN known.next_index IS NULL \
            THEN excluded.next_index IS NULL AND excluded.last >= known.last \
        ELSE excluded.next_index IS NULL OR excluded.next_index >= known.next_index \
    END";

/// Adds ranges, or widens the rows of the same first blocks.
pub async fn save_ranges(
    connection: &mut AsyncPgConnection,
    ranges: &[&BlockRange],
) -> Result<(), Fault> {
    let ranges = condense(ranges);
    if ranges.is_empty() {
        return Ok(());
    }
    let position = |number: u64| signed(number, "position");
    let first: Vec<i64> =
        ranges.iter().map(|range| position(range.first)).collect::<Result<_, _>>()?;
    let last: Vec<i64> =
        ranges.iter().map(|range| position(range.last)).collect::<Result<_, _>>()?;
    let topic: Vec<&str> = ranges.iter().map(|range| range.topic.as_str()).collect();
    let next_index: Vec<Option<i64>> =
        ranges.iter().map(|range| range.next_index.map(i64::from)).collect();
    let digests: Vec<Vec<u8>> = ranges.iter().map(records::digest_bytes).collect();
    diesel::sql_query(SAVE_RANGES)
        .bind::<Array<Text>, _>(topic)
        .bind::<Array<BigInt>, _>(first)
        .bind::<Array<BigInt>, _>(last)
        .bind::<Array<Nullable<BigInt>>, _>(next_index)
        .bind::<Array<Binary>, _>(digests)
        .execute(connection)
        .await?;
    Ok(())
}

/// Replaces the rows of the ledger by fewer that say the same, within a transaction.
pub async fn compact_ranges(connection: &mut AsyncPgConnection) -> Result<(), Fault> {
    let (replaced, new) = records::compaction(load_ranges(connection).await?);
    for range in replaced {
        let first = signed(range.first, "position")?;
        diesel::delete(blocks::table.find((range.topic.as_str(), first)))
            .execute(connection)
            .await?;
    }
    save_ranges(connection, &new.iter().collect::<Vec<_>>()).await
}

async fn load_gaps(connection: &mut AsyncPgConnection) -> Result<Vec<Gap>, Fault> {
    let rows: Vec<(String, i64, i64, i64)> = gaps::table
        .filter(gaps::closed.is_null())
        .order((gaps::topic, gaps::first))
        .select((gaps::topic, gaps::first, gaps::last, gaps::opened))
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(records::gap).collect::<Result<_, StoreError>>()?)
}

pub async fn open_gap(connection: &mut AsyncPgConnection, gap: &Gap) -> Result<(), Fault> {
    diesel::insert_into(gaps::table)
        .values((
            gaps::topic.eq(gap.topic.as_str()),
            gaps::first.eq(signed(gap.first, "position")?),
            gaps::last.eq(signed(gap.last, "position")?),
            gaps::opened.eq(gap.opened.0),
        ))
        .on_conflict((gaps::topic, gaps::first, gaps::last, gaps::opened))
        .do_nothing()
        .execute(connection)
        .await?;
    Ok(())
}

pub async fn close_gap(connection: &mut AsyncPgConnection, gap: &Gap) -> Result<(), Fault> {
    let open = gaps::table
        .filter(gaps::topic.eq(gap.topic.as_str()))
        .filter(gaps::first.eq(signed(gap.first, "position")?))
        .filter(gaps::last.eq(signed(gap.last, "position")?))
        .filter(gaps::closed.is_null());
    diesel::update(open)
        .set(gaps::closed.eq(gap.closed.unwrap_or_else(Timestamp::now).0))
        .execute(connection)
        .await?;
    Ok(())
}

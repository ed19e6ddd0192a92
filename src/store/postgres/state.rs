//! What the store knows besides events: how far it came, ledger and checkpoints.

use std::collections::HashMap;

use diesel::{
    prelude::*,
    sql_types::{Array, BigInt, Binary, Nullable, Text},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use super::{
    fault::Fault,
    lease,
    schema::{blocks, checkpoints, events, gaps, runs, streams},
    statement::statement,
    topics::Topics,
};
use crate::{
    event::{Timestamp, Topic},
    router::ledger::{BlockRange, Gap},
    source::{FileMark, Progress, StreamCheckpoint},
    store::{
        EarlierRun, RUNS_KEPT, Recovered, Run, StoreError,
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
                earlier_runs: load_runs(connection).await?,
            })
        })
        .await
}

/// Keeps how far a run came that has ended.
pub async fn remember_run(
    connection: &mut AsyncPgConnection,
    ended: &lease::StoreState,
) -> Result<(), Fault> {
    let last_seq = runs::last_seq.eq(ended.last_seq);
    diesel::insert_into(runs::table)
        .values((runs::id.eq(ended.run), last_seq))
        .on_conflict(runs::id)
        .do_update()
        .set(last_seq)
        .execute(connection)
        .await?;
    let newest = runs::table.select(runs::id).order(runs::id.desc());
    let forgotten: Option<i64> = newest.offset(RUNS_KEPT).first(connection).await.optional()?;
    if let Some(newest) = forgotten {
        diesel::delete(runs::table.filter(runs::id.le(newest))).execute(connection).await?;
    }
    Ok(())
}

async fn load_runs(connection: &mut AsyncPgConnection) -> Result<Vec<EarlierRun>, Fault> {
    let rows: Vec<(i64, i64)> = runs::table.order(runs::id).load(connection).await?;
    Ok(rows.into_iter().map(records::earlier_run).collect::<Result<_, StoreError>>()?)
}

async fn load_heads(
    connection: &mut AsyncPgConnection,
    seen: &[BlockRange],
) -> Result<Vec<(Topic, u64)>, Fault> {
    let mut newest_events = Vec::new();
    for (id, topic) in Topics::load(connection).await?.iter() {
        let newest: Option<i64> = events::table
            // What was back-filled may lie ahead of what we follow.
            .filter(events::seq.ge(0))
            .filter(events::topic_id.eq(id))
            .select(diesel::dsl::max(events::position))
            .first(connection)
            .await?;
        if let Some(newest) = newest {
            newest_events.push((topic, unsigned(newest, "position")?));
        }
    }
    Ok(records::heads(newest_events, seen))
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

statement! {
    SaveStreams<'r> {
        "INSERT INTO nodecast.streams (name, state) SELECT unnest("
        name: &'r [&'r str] => Array<Text>,
        "), unnest(" state: &'r [String] => Array<Text>;
        ") ON CONFLICT (name) DO UPDATE SET state = excluded.state"
    }
}

statement! {
    SaveMarks<'r> {
        "INSERT INTO nodecast.checkpoints (stream, file, file_offset, digest) SELECT unnest("
        stream: &'r [&'r str] => Array<Text>,
        "), unnest(" file: &'r [&'r str] => Array<Text>,
        "), unnest(" offset: &'r [i64] => Array<BigInt>,
        "), unnest(" digest: &'r [i64] => Array<BigInt>;
        ") ON CONFLICT (stream, file) DO UPDATE SET \
             file_offset = excluded.file_offset, digest = excluded.digest"
    }
}

statement! {
    ForgetMarks<'r> {
        "DELETE FROM nodecast.checkpoints WHERE (stream, file) IN (SELECT unnest("
        stream: &'r [&'r str] => Array<Text>,
        "), unnest(" file: &'r [&'r str] => Array<Text>;
        "))"
    }
}

/// Writes checkpoints and states, of which the later replace the earlier.
pub async fn save_progress(
    mut connection: &AsyncPgConnection,
    progress: &[&Progress],
) -> Result<(), Fault> {
    let last = FinalProgress::of(progress);
    let (mut name, mut state) = (Vec::new(), Vec::new());
    for (stream, of_stream) in last.states {
        name.push(stream);
        state.push(records::state_text(stream, of_stream)?);
    }
    let (mut stream, mut file, mut offset, mut digest) =
        <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
    let (mut gone_stream, mut gone_file) = (Vec::new(), Vec::new());
    for ((of_stream, of_file), mark) in last.marks {
        match mark {
            FileMark::At { offset: at, digest: before, .. } => {
                stream.push(of_stream);
                file.push(&**of_file);
                offset.push(signed(*at, "offset")?);
                digest.push(*before as i64);
            }
            FileMark::Gone { .. } => {
                gone_stream.push(of_stream);
                gone_file.push(&**of_file);
            }
        }
    }
    let mut other = connection;
    let (states, marks) = futures_util::join!(
        async {
            match name.is_empty() {
                true => Ok(0),
                false => {
                    let save = SaveStreams { name: &name, state: &state };
                    save.execute(&mut connection).await
                }
            }
        },
        async {
            if !gone_stream.is_empty() {
                let forget = ForgetMarks { stream: &gone_stream, file: &gone_file };
                forget.execute(&mut other).await?;
            }
            if stream.is_empty() {
                return Ok(0);
            }
            let (offset, digest) = (&offset, &digest);
            SaveMarks { stream: &stream, file: &file, offset, digest }.execute(&mut other).await
        }
    );
    states?;
    marks?;
    Ok(())
}

/// Reads the rows of the ledger as they are.
pub async fn load_ranges(connection: &mut AsyncPgConnection) -> Result<Vec<BlockRange>, Fault> {
    let rows: Vec<RangeRow> = blocks::table.load(connection).await?;
    Ok(rows.into_iter().map(records::range).collect::<Result<_, StoreError>>()?)
}

statement! {
    /// A row that says more than the new one stays: it is complete, or reaches further.
    SaveRanges<'r> {
        "INSERT INTO nodecast.blocks AS known (topic, first, last, next_index, digests) \
         SELECT unnest(" topic: &'r [&'r str] => Array<Text>,
        "), unnest(" first: &'r [i64] => Array<BigInt>,
        "), unnest(" last: &'r [i64] => Array<BigInt>,
        "), unnest(" next_index: &'r [Option<i64>] => Array<Nullable<BigInt>>,
        "), unnest(" digests: &'r [Vec<u8>] => Array<Binary>;
        ") ON CONFLICT (topic, first) DO UPDATE SET \
             last = excluded.last, next_index = excluded.next_index, digests = excluded.digests \
         WHERE CASE \
             WHEN known.next_index IS NULL \
                 THEN excluded.next_index IS NULL AND excluded.last >= known.last \
             ELSE excluded.next_index IS NULL OR excluded.next_index >= known.next_index \
         END"
    }
}

/// Adds ranges, or widens the rows of the same first blocks.
pub async fn save_ranges(
    mut connection: &AsyncPgConnection,
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
    let save = SaveRanges {
        topic: &topic,
        first: &first,
        last: &last,
        next_index: &next_index,
        digests: &digests,
    };
    save.execute(&mut connection).await?;
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
    save_ranges(&*connection, &new.iter().collect::<Vec<_>>()).await
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

pub async fn open_gap(mut connection: &AsyncPgConnection, gap: &Gap) -> Result<(), Fault> {
    diesel::insert_into(gaps::table)
        .values((
            gaps::topic.eq(gap.topic.as_str()),
            gaps::first.eq(signed(gap.first, "position")?),
            gaps::last.eq(signed(gap.last, "position")?),
            gaps::opened.eq(gap.opened.0),
        ))
        .on_conflict((gaps::topic, gaps::first, gaps::last, gaps::opened))
        .do_nothing()
        .execute(&mut connection)
        .await?;
    Ok(())
}

pub async fn close_gap(mut connection: &AsyncPgConnection, gap: &Gap) -> Result<(), Fault> {
    let open = gaps::table
        .filter(gaps::topic.eq(gap.topic.as_str()))
        .filter(gaps::first.eq(signed(gap.first, "position")?))
        .filter(gaps::last.eq(signed(gap.last, "position")?))
        .filter(gaps::closed.is_null());
    diesel::update(open)
        .set(gaps::closed.eq(gap.closed.unwrap_or_else(Timestamp::now).0))
        .execute(&mut connection)
        .await?;
    Ok(())
}

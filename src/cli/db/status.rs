//! `nodecast db status`: what is stored.

use std::process::ExitCode;

use serde_json::json;

use super::{existing, load};
use crate::{
    cli::{flags::StoreFlags, output::print, units},
    event::Timestamp,
    store::{KeptDay, inspect::Inspection},
};

/// Of a [`KeptDay`].
pub(super) const DAY_MICROS: i64 = 86_400_000_000;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: StoreFlags,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = load(args.flags)?;
    let found = existing(&config).await?;
    print(&if args.json { to_json(&found) } else { to_text(&found) })?;
    Ok(ExitCode::SUCCESS)
}

fn to_json(found: &Inspection) -> String {
    let content = found.content.as_ref();
    let status = json!({
        "store": found.store,
        "version": found.version,
        "schema": {
            "applied": found.schema.applied,
            "pending": found.schema.pending,
            "unknown": found.schema.unknown,
        },
        "holder": found.holder.as_ref().map(|holder| {
            json!({ "host": holder.host, "process": holder.process })
        }),
        "bytes": content.map(|content| content.bytes),
        "rows": content.and_then(|content| content.rows),
        "rows_estimated": content.map(|content| content.rows_estimated),
        "oldest": content.and_then(|content| content.oldest),
        "newest": content.and_then(|content| content.newest),
        "kept_days": content.map(|content| {
            let day = |(day, until): &KeptDay| json!({ "day": date(*day), "until": until });
            content.kept.iter().map(day).collect::<Vec<_>>()
        }),
        "partitions": content.and_then(|content| content.partitions),
        "gaps_open": content.map(|content| content.open_gaps),
    });
    format!("{status:#}\n")
}

fn to_text(found: &Inspection) -> String {
    let mut lines = vec![
        ("store", format!("{} ({})", found.store, found.version)),
        ("schema", schema(found)),
        ("writer", found.holder.as_ref().map_or("nobody".to_owned(), ToString::to_string)),
    ];
    if let Some(content) = &found.content {
        let rows = match (content.rows, content.rows_estimated) {
            (None, _) => {
                "not known before the first ANALYZE, which the server does by itself".into()
            }
            (Some(rows), true) => format!("about {rows}"),
            (Some(rows), false) => rows.to_string(),
        };
        let time =
            |time: Option<Timestamp>| time.map_or("none".to_owned(), |time| time.to_string());
        lines.push(("size", units::bytes(content.bytes)));
        lines.push(("rows", rows));
        lines.push(("oldest", time(content.oldest)));
        lines.push(("newest", time(content.newest)));
        lines.extend(kept(&content.kept).map(|kept| ("kept days", kept)));
        lines.extend(content.partitions.map(|days| ("days", days.to_string())));
        lines.push(("gaps open", content.open_gaps.to_string()));
    }
    lines.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect()
}

/// What `backfill --keep` gave its own time.
pub(super) fn kept(days: &[KeptDay]) -> Option<String> {
    let ((first, _), (last, _)) = (days.first()?, days.last()?);
    let until = days.iter().map(|(_, until)| *until).max()?;
    let until = Timestamp(until);
    Some(match days.len() {
        1 => format!("{}, beyond the retention until {until}", date(*first)),
        count => format!(
            "{count} from {} to {}, beyond the retention until {until} at the latest",
            date(*first),
            date(*last)
        ),
    })
}

/// A day since 1970 as `2026-03-15`.
fn date(day: i64) -> String {
    let mut text = Timestamp(day.saturating_mul(DAY_MICROS)).to_string();
    text.truncate(text.find('T').unwrap_or(text.len()));
    text
}

fn schema(found: &Inspection) -> String {
    let newest = found.schema.applied.last().map_or("none", String::as_str);
    match (&found.schema.unknown[..], &found.schema.pending[..]) {
        ([], []) => format!("{newest}, that of this program"),
        ([newer, ..], _) => format!("{newer}, of a newer nodecast"),
        (_, pending) => {
            format!("{newest}, {} pending", units::count(pending.len() as u64, "migration"))
        }
    }
}

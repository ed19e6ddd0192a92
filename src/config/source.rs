//! `[source]`: what is read, and how.

use std::{path::PathBuf, time::Duration};

use time::{Date, Month};

use super::{
    check::Conflict,
    key::{Key, Refused},
    units::{GIB, KIB, MIB, TIB},
};

/// What is read, and how.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Node directories, such as `~/hl/data`; one chain of actors each. Default: none; `run`
    /// needs at least one.
    pub data_dirs: Vec<PathBuf>,
    /// Where a stream without a checkpoint starts. Default: now.
    pub from: StartFrom,
    /// Whether missing kind directories are created at the start (`node_fills_by_block/hourly`
    /// and `misc_events_by_block/hourly`), as the older service does. Default: no.
    pub create_missing: bool,
    /// Time between two looks at the directories when no event wakes the watcher. 250 ms to 1 s,
    /// default 500 ms.
    pub rescan_interval: Duration,
    /// How long an hour file must be unchanged, beside a newer one, to be complete. At least 60 s
    /// on a real node; less is for tests. Default 60 s.
    pub grace: Duration,
    /// Longer lines go to quarantine. Bytes, default 64 MiB.
    pub max_line_bytes: usize,
    /// Most bytes of one read. Default 1 MiB.
    pub read_bytes: usize,
    /// Most bytes in flight between reading and commit, shared by all node directories. Default
    /// 256 MiB: hours at real rates.
    pub budget_bytes: usize,
    /// Most bytes of the quarantine file. Default 64 MiB.
    pub quarantine_max_bytes: u64,
}

/// Where a stream without a checkpoint starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFrom {
    /// The end of the newest file, at the start of a line.
    Now,
    /// The beginning of the oldest file.
    Oldest,
    /// The beginning of the first file at or after this hour, UTC.
    Hour {
        /// As in directory names: 20260315.
        day: u32,
        /// 0 to 23.
        hour: u8,
    },
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            data_dirs: Vec::new(),
            from: StartFrom::Now,
            create_missing: false,
            rescan_interval: Duration::from_millis(500),
            grace: Duration::from_secs(60),
            max_line_bytes: 64 << 20,
            read_bytes: 1 << 20,
            budget_bytes: 256 << 20,
            quarantine_max_bytes: 64 << 20,
        }
    }
}

pub(super) fn keys() -> Vec<Key> {
    let ms = Duration::from_millis;
    vec![
        Key::list(
            "source.data_dirs",
            "a list of paths, such as [\"/home/node/hl/data\"]",
            |text| (!text.is_empty()).then(|| PathBuf::from(text)),
            |path| path.display().to_string(),
            |config| &mut config.source.data_dirs,
        ),
        Key::text(
            "source.from",
            "\"now\", \"oldest\" or an hour in UTC, such as \"20260315/7\"",
            |text| read_start(text).ok_or_else(Refused::not_understood),
            show_start,
            |config| &mut config.source.from,
        ),
        Key::switch("source.create_missing", |config| &mut config.source.create_missing),
        Key::duration("source.rescan_interval", ms(250)..=ms(1_000), |config| {
            &mut config.source.rescan_interval
        }),
        Key::duration("source.grace", ms(100)..=ms(3_600_000), |config| &mut config.source.grace),
        Key::size("source.max_line_bytes", KIB..=GIB, |config| &mut config.source.max_line_bytes),
        Key::size("source.read_bytes", 4 * KIB..=64 * MIB, |config| &mut config.source.read_bytes),
        Key::size("source.budget_bytes", MIB..=TIB, |config| &mut config.source.budget_bytes),
        Key::size("source.quarantine_max_bytes", 64 * KIB..=TIB, |config| {
            &mut config.source.quarantine_max_bytes
        }),
    ]
}

impl SourceConfig {
    pub(super) fn conflicts(&self) -> Vec<Conflict> {
        if self.budget_bytes >= self.read_bytes {
            return Vec::new();
        }
        vec![Conflict {
            key: "source.budget_bytes",
            other: "source.read_bytes",
            rule: "the budget must hold one read: give budget_bytes >= read_bytes",
        }]
    }
}

/// Reads `now`, `oldest` or `YYYYMMDD/H`, the way a node names its hour files.
fn read_start(text: &str) -> Option<StartFrom> {
    match text {
        "now" => return Some(StartFrom::Now),
        "oldest" => return Some(StartFrom::Oldest),
        _ => {}
    }
    let (day, hour) = text.split_once('/')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if day.len() != 8 || !(1..=2).contains(&hour.len()) || !digits(day) || !digits(hour) {
        return None;
    }
    let (day, hour) = (day.parse::<u32>().ok()?, hour.parse::<u8>().ok()?);
    let month = Month::try_from((day / 100 % 100) as u8).ok()?;
    Date::from_calendar_date((day / 10_000) as i32, month, (day % 100) as u8).ok()?;
    (hour < 24).then_some(StartFrom::Hour { day, hour })
}

fn show_start(start: &StartFrom) -> String {
    match start {
        StartFrom::Now => "now".to_owned(),
        StartFrom::Oldest => "oldest".to_owned(),
        StartFrom::Hour { day, hour } => format!("{day:08}/{hour}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_word_or_an_hour_that_exists() {
        assert_eq!(read_start("20260315/7"), Some(StartFrom::Hour { day: 20_260_315, hour: 7 }));
        assert_eq!(read_start("20240229/23"), Some(StartFrom::Hour { day: 20_240_229, hour: 23 }));
        for text in ["", "Now", "20260315", "20260230/1", "20260315/24", "2026031/1", "20260315/+1"]
        {
            assert_eq!(read_start(text), None, "{text}");
        }
    }
}

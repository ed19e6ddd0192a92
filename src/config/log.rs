//! `[log]`: what is logged, and how it looks.

use super::key::{Key, Refused};

/// What is logged, and how it looks. Logs go to standard error.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Default: for people on a terminal, else JSON.
    pub format: LogFormat,
    /// Records below this level are dropped. Default: info.
    pub level: slog::Level,
    /// Levels of single components, by their `actor` or `component` key.
    pub levels: Vec<(String, slog::Level)>,
    /// Records that may wait for the writing thread; what is beyond is counted and dropped.
    /// Default 8,192: the customary 128 overruns when thousands of sessions close at once.
    pub channel_records: usize,
}

/// How a record looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people on a terminal, else JSON.
    Auto,
    /// For people: one coloured line.
    Term,
    /// One JSON object a line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Auto,
            level: slog::Level::Info,
            levels: Vec::new(),
            channel_records: 8_192,
        }
    }
}

/// The levels by the names that people write.
const LEVELS: [(&str, slog::Level); 6] = [
    ("critical", slog::Level::Critical),
    ("error", slog::Level::Error),
    ("warn", slog::Level::Warning),
    ("info", slog::Level::Info),
    ("debug", slog::Level::Debug),
    ("trace", slog::Level::Trace),
];

const FORMATS: [(&str, LogFormat); 3] =
    [("auto", LogFormat::Auto), ("term", LogFormat::Term), ("json", LogFormat::Json)];

pub(super) fn keys() -> Vec<Key> {
    vec![
        Key::text(
            "log.format",
            "\"auto\", \"term\" or \"json\"",
            |text| {
                let found = FORMATS.iter().find(|(name, _)| *name == text);
                found.map(|(_, format)| *format).ok_or_else(Refused::not_understood)
            },
            |format| {
                let found = FORMATS.iter().find(|(_, named)| named == format);
                found.map_or("", |(name, _)| name).to_owned()
            },
            |config| &mut config.log.format,
        ),
        Key::text(
            "log.level",
            "\"critical\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
            |text| read_level(text).ok_or_else(Refused::not_understood),
            |level| level_name(*level).to_owned(),
            |config| &mut config.log.level,
        ),
        Key::table(
            "log.levels",
            "component = level, such as { router = \"debug\" }, with the levels critical, error, \
             warn, info, debug and trace",
            read_level,
            |level| level_name(*level).to_owned(),
            |config| &mut config.log.levels,
        ),
        Key::count("log.channel_records", 128..=10_000_000, |config| {
            &mut config.log.channel_records
        }),
    ]
}

fn read_level(text: &str) -> Option<slog::Level> {
    LEVELS.iter().find(|(name, _)| *name == text).map(|(_, level)| *level)
}

/// The name of a level, in configuration and in JSON logs.
pub fn level_name(level: slog::Level) -> &'static str {
    LEVELS.iter().find(|(_, named)| *named == level).map_or("", |(name, _)| name)
}

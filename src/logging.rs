//! The root logger: for people on a terminal, JSON for machines, always on standard error.
//!
//! A record passes, in this order: the level filter (outermost, so that what nobody reads is never
//! formatted), a bounded channel, the thread that writes. A full channel drops records and reports
//! how many: a log must never stall the pipeline. Records of dependencies, which use the `log`
//! crate, join at a fixed level. In systemd's journal each line carries its level.

mod journal;
mod levels;
mod queue;

use std::io::{self, BufWriter, IsTerminal, Write};

use slog::{Drain, FnValue, Level, Logger, Never, PushFnValue, Record, o};
use slog_async::AsyncGuard;

use self::{
    journal::{LineStarts, Marker},
    levels::LevelFilter,
};
pub use self::{levels::Levels, queue::Queued};
use crate::{
    config::{LogConfig, LogFormat, level_name},
    event::Timestamp,
};

/// Dependencies are heard from here on; below it they tell of single connections and statements.
const DEPENDENCIES: log::Level = log::Level::Warn;

/// Writes what is still queued when it is dropped.
#[must_use = "records that wait are written when this is dropped"]
pub struct LogGuard {
    _writer: AsyncGuard,
    levels: Levels,
    queued: Queued,
}

impl LogGuard {
    /// How full the channel is, for the metrics.
    pub fn queued(&self) -> Queued {
        self.queued.clone()
    }

    /// To change the levels while the process runs.
    pub fn levels(&self) -> Levels {
        self.levels.clone()
    }
}

/// Who reads standard error.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    Terminal,
    /// systemd's journal: each line begins with its level.
    Journal,
    Other,
}

impl Reader {
    fn of_standard_error() -> Self {
        if io::stderr().is_terminal() {
            Self::Terminal
        } else if journal::reads_standard_error() {
            Self::Journal
        } else {
            Self::Other
        }
    }
}

/// Writes a fault that comes before logging has started, or ends a command.
pub fn complain(text: &str) {
    match Reader::of_standard_error() {
        Reader::Journal => eprint!("{}", journal::marked(Level::Error, text)),
        Reader::Terminal | Reader::Other => eprintln!("{text}"),
    }
}

/// Starts logging for the process.
pub fn start(config: &LogConfig) -> (Logger, LogGuard) {
    let (log, guard) = root(config, Reader::of_standard_error(), io::stderr());
    // The global logger stays to the end: a late record of a dependency is then lost in the closed
    // channel, while without a logger it would be a panic.
    slog_scope::set_global_logger(log.clone()).cancel_reset();
    if slog_stdlog::init_with_level(DEPENDENCIES).is_err() {
        slog::warn!(log, "records of dependencies go elsewhere: a logger was already set");
    }
    (log, guard)
}

/// The root logger on any writer.
fn root<W>(config: &LogConfig, reader: Reader, writer: W) -> (Logger, LogGuard)
where
    W: Write + Send + 'static,
{
    // A record is one write.
    let writer = BufWriter::new(writer);
    let for_people = match config.format {
        LogFormat::Auto => reader == Reader::Terminal,
        LogFormat::Term => true,
        LogFormat::Json => false,
    };
    match (reader, for_people) {
        (Reader::Journal, true) => {
            let marker = Marker::default();
            let writer = LineStarts::new(writer, marker.clone());
            queued(config, marker.before(plain(writer).ignore_res()))
        }
        (Reader::Journal, false) => {
            let marker = Marker::default();
            let writer = LineStarts::new(writer, marker.clone());
            queued(config, marker.before(json(writer).ignore_res()))
        }
        // The decorator with colours writes to standard error by itself.
        (Reader::Terminal, true) => {
            let decorator = slog_term::TermDecorator::new().stderr().build();
            let format = slog_term::FullFormat::new(decorator).use_custom_timestamp(write_now);
            queued(config, format.build().ignore_res())
        }
        (Reader::Other, true) => queued(config, plain(writer).ignore_res()),
        (Reader::Terminal | Reader::Other, false) => queued(config, json(writer).ignore_res()),
    }
}

/// Puts the channel and the level filter before a format. What cannot be written is lost: there is
/// nowhere else to say so.
fn queued<D>(config: &LogConfig, format: D) -> (Logger, LogGuard)
where
    D: Drain<Ok = (), Err = Never> + Send + 'static,
{
    let (queue, queued, guard) = queue::before(format, config.channel_records);
    let levels = Levels::new(config);
    let filter = LevelFilter { levels: levels.clone(), next: queue };
    (Logger::root(filter, o!()), LogGuard { _writer: guard, levels, queued })
}

/// Text for people, without colours.
fn plain<W: Write>(writer: W) -> slog_term::FullFormat<slog_term::PlainDecorator<W>> {
    let decorator = slog_term::PlainDecorator::new(writer);
    slog_term::FullFormat::new(decorator).use_custom_timestamp(write_now).build()
}

/// One object a line: ts, level, msg, then the pairs.
fn json<W: Write>(writer: W) -> slog_json::Json<W> {
    // A later pair of `o!` is nearer, and the nearest is written first.
    slog_json::Json::new(writer)
        .set_flush(true)
        .add_key_value(o!("ts" => FnValue(|_| Timestamp::now().to_string())))
        .add_key_value(o!("level" => FnValue(|record| level_name(record.level()))))
        .add_key_value(o!("msg" => PushFnValue(|record: &Record, serializer| {
            serializer.emit(record.msg())
        })))
        .build()
}

fn write_now(output: &mut dyn Write) -> io::Result<()> {
    write!(output, "{}", Timestamp::now())
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        thread,
        time::{Duration, Instant},
    };

    use slog::{debug, info, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Everything that was written once the guard of the logger is gone.
    fn written(config: &LogConfig, speak: impl FnOnce(&Logger)) -> String {
        written_for(Reader::Other, config, speak)
    }

    fn written_for(reader: Reader, config: &LogConfig, speak: impl FnOnce(&Logger)) -> String {
        let output = Written::default();
        let (log, guard) = root(config, reader, output.clone());
        speak(&log);
        drop(guard);
        let bytes = output.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn json_config() -> LogConfig {
        LogConfig { format: LogFormat::Json, ..LogConfig::default() }
    }

    #[test]
    fn a_json_line_has_time_level_and_message_first() {
        let text = written(&json_config(), |log| {
            let log = log.new(o!("actor" => "router"));
            warn!(log, "gap opened"; "from_block" => 7);
        });

        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert!(Timestamp::parse_node(&line["ts"].as_str().unwrap().as_bytes()[..26]).is_ok());
        assert!(line["ts"].as_str().unwrap().ends_with('Z'));
        assert_eq!(line["level"], "warn");
        assert_eq!(line["msg"], "gap opened");
        assert_eq!(line["actor"], "router");
        assert_eq!(line["from_block"], 7);
        assert!(text.starts_with("{\"ts\":"), "{text}");
        assert!(text.find("\"level\"") < text.find("\"msg\""), "{text}");
    }

    #[test]
    fn without_a_terminal_auto_means_json_and_term_means_plain_text() {
        let auto = written(&LogConfig::default(), |log| info!(log, "hello"));
        let config = LogConfig { format: LogFormat::Term, ..LogConfig::default() };
        let term = written(&config, |log| info!(log, "hello"; "key" => 1));

        assert!(auto.starts_with('{'), "{auto}");
        assert!(term.contains("INFO hello, key: 1"), "{term}");
        assert!(!term.contains('\u{1b}'), "{term}");
    }

    #[test]
    fn the_journal_gets_the_level_at_the_start_of_each_line_in_both_formats() {
        let speak = |log: &Logger| {
            slog::crit!(log, "critical");
            slog::error!(log, "error");
            warn!(log, "warning");
            info!(log, "info");
            debug!(log, "debug");
        };
        for format in [LogFormat::Auto, LogFormat::Json, LogFormat::Term] {
            let config = LogConfig { format, level: Level::Debug, ..LogConfig::default() };

            let marked = written_for(Reader::Journal, &config, speak);
            let plain = written_for(Reader::Other, &config, speak);

            let marks: Vec<_> = marked.lines().map(|line| &line[..3]).collect();
            assert_eq!(marks, ["<2>", "<3>", "<4>", "<6>", "<7>"], "{format:?}");
            assert!(plain.lines().all(|line| !line.starts_with('<')), "{plain}");
        }
    }

    #[test]
    fn a_component_has_its_own_level_in_both_directions() {
        let levels = vec![("router".to_owned(), Level::Debug), ("store".to_owned(), Level::Error)];
        let config = LogConfig { levels, ..json_config() };

        let text = written(&config, |log| {
            let router = log.new(o!("actor" => "router"));
            let store = log.new(o!("component" => "store"));
            let inner = router.new(o!("actor" => "ledger"));
            debug!(router, "router debug");
            warn!(store, "store warn");
            debug!(inner, "ledger debug");
            info!(inner, "ledger info");
            debug!(log, "root debug");
        });

        assert!(text.contains("router debug"), "{text}");
        assert!(text.contains("ledger info"), "{text}");
        for dropped in ["store warn", "ledger debug", "root debug"] {
            assert!(!text.contains(dropped), "{text}");
        }
    }

    #[test]
    fn levels_can_change_while_loggers_are_in_use() {
        let output = Written::default();
        let config = json_config();
        let (log, guard) = root(&config, Reader::Other, output.clone());
        let router = log.new(o!("actor" => "router"));

        debug!(router, "before");
        let router_debug = vec![("router".to_owned(), Level::Debug)];
        guard.levels().set(&LogConfig {
            level: Level::Error,
            levels: router_debug,
            ..json_config()
        });
        debug!(router, "after");
        info!(log, "quiet");
        drop(guard);

        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("after"), "{text}");
        assert!(!text.contains("before") && !text.contains("quiet"), "{text}");
    }

    #[test]
    fn the_level_is_the_lowest_that_is_written() {
        let config = LogConfig { level: Level::Warning, ..json_config() };

        let text = written(&config, |log| {
            info!(log, "quiet");
            warn!(log, "loud");
        });

        assert!(!text.contains("quiet") && text.contains("loud"), "{text}");
    }

    #[test]
    fn what_the_http_protocol_says_of_its_clients_is_debug_and_of_itself_stays_an_error() {
        let speak = |log: &Logger| {
            slog::error!(log, # "actix_http::h1::dispatcher", "stream error: request parse error");
            slog::error!(log, # "actix_http::h1::dispatcher", "Response payload stream error: disk");
            slog::error!(log, "stream error: of our own");
        };

        let text = written(&json_config(), speak);
        assert!(!text.contains("request parse error"), "{text}");
        assert!(text.contains("payload stream error") && text.contains("of our own"), "{text}");

        let text = written(&LogConfig { level: Level::Debug, ..json_config() }, speak);
        let line = text.lines().find(|line| line.contains("request parse error")).unwrap();
        assert!(line.contains("\"debug\""), "{line}");
    }

    /// Blocks its writer until it is released.
    struct Stalled(Written, Arc<Mutex<()>>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            drop(self.1.lock().unwrap());
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_output_never_blocks_and_what_is_dropped_is_counted() {
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let output = Written::default();
        let config = LogConfig { channel_records: 128, ..json_config() };
        let (log, guard) = root(&config, Reader::Other, Stalled(output.clone(), gate.clone()));

        // More than the channel holds, while nothing can be written.
        (0..1_000).for_each(|_| info!(log, "many"));
        let queued = guard.queued();
        assert_eq!((queued.records(), queued.limit()), (128, 128));
        drop(closed);
        // The next record that finds room reports what was dropped.
        let count = |text: &str| {
            let bytes = output.0.lock().unwrap().clone();
            String::from_utf8(bytes).unwrap().lines().filter(|line| line.contains(text)).count()
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while count("\"many\"") < 128 {
            assert!(Instant::now() < deadline, "the queued records are not written");
            thread::yield_now();
        }
        info!(log, "after");
        drop(guard);

        let passed = count("\"many\"");
        assert!((128..=130).contains(&passed), "{passed}");
        // Room that came in the middle can have split the report.
        let bytes = output.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        let reported = text.split("\"dropped_records\":").skip(1).map(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<usize>().unwrap()
        });
        assert_eq!(reported.sum::<usize>(), 1_000 - passed);
        assert_eq!(queued.dropped().get() as usize, 1_000 - passed);
        assert_eq!(queued.records(), 0);
        assert_eq!(count("\"after\""), 1);
    }
}

//! The node directories: may they be read, what flags the node was started with, is it alive.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use super::{people, report::Report};
use crate::{
    cli::units,
    config::Config,
    event::Timestamp,
    source::{
        Form,
        node::{self, FileEnd, HourFiles, Surveyed},
    },
};

/// How long a file is observed, and between two looks at it. Blocks come 14 times a second.
const OBSERVE: Duration = Duration::from_millis(1_200);
const OBSERVE_PAUSE: Duration = Duration::from_millis(10);

/// From the writing of a row to that of the file: 190 ms on average with buffering and 0.5 ms, at
/// most 3.3 ms, without.
const BUFFERED: Duration = Duration::from_millis(30);

/// A node that lags its chain more than this catches up; 0.3 to 0.6 s are normal.
const NODE_LAG: Duration = Duration::from_secs(5);

/// A node's clock may be ahead of ours by this.
const CLOCK_AHEAD: Duration = Duration::from_secs(1);

pub const FLAGS: &str = "start the node with --write-fills --write-misc-events --batch-by-block \
                         --disable-output-file-buffering";

/// Looks at every node directory. Gives the bytes that its files grow by in an hour.
pub fn check(config: &Config, report: &mut Report) -> Vec<(String, u64)> {
    let mut rates = Vec::new();
    for node in &config.source.data_dirs {
        report.group(format!("node {}", node.display()));
        if let Some(rate) = check_node(node, config, report) {
            rates.push((node.display().to_string(), rate));
        }
    }
    rates
}

fn check_node(node: &Path, config: &Config, report: &mut Report) -> Option<u64> {
    if let Some((what, remedy)) = people::hindrance(node) {
        report.fail(what, remedy);
        return None;
    }
    let streams = match node::survey(node) {
        Ok(streams) => streams,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.fail(
                "the directory does not exist: `run` would wait for it",
                format!("correct source.data_dirs, or {FLAGS}"),
            );
            return None;
        }
        Err(error) => {
            report.fail(format!("cannot be read: {error}"), "give the node's data directory");
            return None;
        }
    };
    if streams.is_empty() {
        let remedy = format!("correct source.data_dirs, or {FLAGS}");
        report.fail(node::describe_nothing(node), remedy);
        return None;
    }
    let looked: Vec<_> = streams.iter().map(|stream| (stream, newest(stream, report))).collect();
    let now = Timestamp::now();
    let age = |end: &FileEnd| end.last.map(|last| now.since(last.local_time));
    let youngest = looked.iter().filter_map(|(_, end)| age(end.as_ref()?)).min();
    let is_alive = youngest.is_some_and(|age| age <= config.health.max_lag);
    for (stream, end) in &looked {
        if let Some(end) = end {
            freshness(stream, end, is_alive, config.health.max_lag, report);
        }
    }
    if is_alive {
        buffering(&looked, report);
    }
    let rates = streams.iter().filter_map(|stream| stream.files.as_ref().ok()?.bytes_per_hour);
    Some(rates.sum()).filter(|rate| *rate > 0)
}

/// The form of a stream, and the end of its newest file, as far as it may be read.
fn newest(surveyed: &Surveyed, report: &mut Report) -> Option<FileEnd> {
    let name = kind(surveyed);
    if let Some(problem) = &surveyed.plain {
        report.fail(problem.clone(), FLAGS);
        return None;
    }
    let form = match surveyed.stream.form {
        Form::ByBlock => "one line a block (--batch-by-block)",
        Form::Streaming => "several lines a block (--stream-with-block-info)",
    };
    let files = match &surveyed.files {
        Ok(files) => files,
        Err(error) => {
            let (what, remedy) = people::hindrance(&surveyed.stream.directory)
                .or_else(|| people::hindrance(&surveyed.stream.directory.join("hourly")))
                .unwrap_or_else(|| (error.to_string(), "see why it cannot be listed".to_owned()));
            report.fail(format!("{name}: {what}"), remedy);
            return None;
        }
    };
    hidden(&name, files, report);
    let Some(path) = &files.newest else {
        report.warn(format!("{name}: {form}, no hour file yet"), "see whether the node runs");
        return None;
    };
    match node::read_end(path) {
        Ok(end) => {
            report.ok(format!("{name}: {form}, {} hour files", files.count));
            if end.last.is_none() {
                report.warn(
                    format!(
                        "{name}: {} ({}) ends in no whole line",
                        path.display(),
                        units::bytes(end.bytes)
                    ),
                    "see whether the node runs",
                );
            }
            Some(end)
        }
        Err(error) => {
            let (what, remedy) = people::hindrance(path)
                .unwrap_or_else(|| (error.to_string(), "see why it cannot be read".to_owned()));
            report.fail(format!("{name}: {what}"), remedy);
            None
        }
    }
}

fn hidden(name: &str, files: &HourFiles, report: &mut Report) {
    if let Some((path, error)) = files.hidden.first() {
        let (what, remedy) = people::hindrance(path)
            .unwrap_or_else(|| (format!("{}: {error}", path.display()), "see why".to_owned()));
        let more = match files.hidden.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more such)"),
        };
        report.fail(format!("{name}: {what}{more}"), remedy);
    }
}

fn kind(surveyed: &Surveyed) -> String {
    let name = surveyed.stream.directory.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// How old the newest line is, by the node's clock and by the chain's.
fn freshness(
    surveyed: &Surveyed,
    end: &FileEnd,
    is_alive: bool,
    max_lag: Duration,
    report: &mut Report,
) {
    let Some(last) = end.last else { return };
    let name = kind(surveyed);
    let now = Timestamp::now();
    let age = now.since(last.local_time);
    let text = format!("{name}: newest block {} was written {} ago", last.block, units::span(age));
    if age <= max_lag {
        report.ok(text);
    } else if is_alive {
        report.warn(text, "other files of this node are fresh: see which --write flags it has");
    } else {
        let limit = units::span(max_lag);
        report.fail(
            format!("{text}, health.max_lag is {limit}"),
            "see whether the node runs and has peers",
        );
    }
    let ahead = last.local_time.since(now);
    if ahead > CLOCK_AHEAD {
        report.warn(
            format!("{name}: the node's clock is {} ahead of ours", units::span(ahead)),
            "synchronise the clocks of both machines",
        );
    }
    let lag = last.local_time.since(last.block_time);
    if lag > NODE_LAG && age <= max_lag {
        report.warn(
            format!("{name}: the node is {} behind its chain", units::span(lag)),
            "wait until it has caught up; if it never does, it needs more CPU or better peers",
        );
    }
}

/// Whether the node keeps lines back. Only files that grow can tell.
fn buffering(looked: &[(&Surveyed, Option<FileEnd>)], report: &mut Report) {
    let live: Vec<&Path> = looked
        .iter()
        .filter(|(_, end)| end.is_some_and(|end| end.last.is_some()))
        .filter_map(|(stream, _)| stream.files.as_ref().ok()?.newest.as_deref())
        .collect();
    let mut seen = Observed::default();
    let start = Instant::now();
    loop {
        for path in &live {
            seen.look(path);
        }
        if start.elapsed() >= OBSERVE || seen.delays.len() >= 20 {
            break;
        }
        std::thread::sleep(OBSERVE_PAUSE);
    }
    // A file that stands still was left as it is by a node that stopped, or died.
    if !seen.has_grown {
        return;
    }
    seen.delays.sort();
    let Some(median) = seen.delays.get(seen.delays.len() / 2) else { return };
    let delay = units::span(*median);
    let how = match (seen.is_torn, *median > BUFFERED) {
        (false, false) => {
            return report
                .ok(format!("the node does not buffer: lines reach the file after {delay}"));
        }
        // The lines that are whole are quick then, and no sign of anything.
        (true, false) => "in pieces".to_owned(),
        (true, true) => format!("{delay} after they were made, some in pieces"),
        (false, true) => format!("{delay} after they were made"),
    };
    report.warn(
        format!("the node buffers: lines reach the file {how}"),
        "start the node with --disable-output-file-buffering",
    );
}

/// What some looks at growing files saw.
#[derive(Default)]
struct Observed {
    /// From the line's time to that of the file; one for each state that was seen.
    delays: Vec<Duration>,
    is_torn: bool,
    has_grown: bool,
    /// The last state of each file.
    known: Vec<(std::path::PathBuf, u64)>,
}

impl Observed {
    fn look(&mut self, path: &Path) {
        // What was readable a moment ago may be pruned now.
        let Ok(bytes) = fs::metadata(path).map(|found| found.len()) else { return };
        match self.known.iter_mut().find(|(known, _)| known == path) {
            Some((_, known)) if *known == bytes => return,
            Some((_, known)) => {
                *known = bytes;
                self.has_grown = true;
            }
            None => self.known.push((path.to_owned(), bytes)),
        }
        let Ok(end) = node::read_end(path) else { return };
        self.is_torn |= end.torn_bytes > 0;
        self.delays.extend(end.last.map(|last| end.modified.since(last.local_time)));
    }
}

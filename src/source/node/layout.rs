//! Names below a node directory: `{data}/{kind}/hourly/{YYYYMMDD}/{H}`, UTC.
//!
//! Place in the pipeline: asked by the watcher and the follower; knows no file's content.
//! Invariants: hours have no leading zero, so files are ordered as numbers; a name that a node
//! does not write is passed over.

use std::{
    fmt,
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use super::{fills, misc};
use crate::{
    event::Topic,
    source::{Density, Form, Stream},
};

/// Below the directory of a kind.
const HOURLY: &str = "hourly";

/// One hour file. Its order is the order in which a node writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HourFile {
    /// As in the directory's name: 20260315.
    pub day: u32,
    pub hour: u8,
}

/// The name is not one that a node gives to an hour file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an hour file is YYYYMMDD/H, with H from 0 to 23 and no leading zero")]
pub struct HourFileError;

impl FromStr for HourFile {
    type Err = HourFileError;

    fn from_str(path: &str) -> Result<Self, HourFileError> {
        let (day, hour) = path.split_once('/').ok_or(HourFileError)?;
        let day = parse_day(day).ok_or(HourFileError)?;
        let hour = parse_hour(hour).ok_or(HourFileError)?;
        Ok(Self { day, hour })
    }
}

impl fmt::Display for HourFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}/{}", self.day, self.hour)
    }
}

impl HourFile {
    /// Where the file lies when `directory` is the directory of its kind.
    pub fn path(self, directory: &Path) -> PathBuf {
        directory.join(HOURLY).join(self.to_string())
    }
}

/// Reads the name of a day directory. Whether the calendar has that day is the node's business.
fn parse_day(name: &str) -> Option<u32> {
    let well_formed = name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_digit());
    name.parse().ok().filter(|_| well_formed)
}

/// Reads the name of an hour file, `0` to `23`.
pub fn parse_hour(name: &str) -> Option<u8> {
    let well_formed = name.bytes().all(|byte| byte.is_ascii_digit())
        && (name.len() == 1 || (name.len() == 2 && !name.starts_with('0')));
    name.parse().ok().filter(|&hour| well_formed && hour < 24)
}

/// What a node writes of one sort of event.
struct Kind {
    /// Name of its directory without a suffix.
    name: &'static str,
    topic: Topic,
    /// Of its by-block files: only fills were seen to have a line for every block.
    density: Density,
}

/// The kinds that become events. Others (`node_trades`, `node_order_statuses`, ...) are passed
/// over.
const KINDS: [Kind; 2] = [
    Kind { name: "node_fills", topic: fills::TOPIC, density: Density::Dense },
    Kind { name: "misc_events", topic: misc::TOPIC, density: Density::Learned },
];

const BY_BLOCK: &str = "_by_block";
const STREAMING: &str = "_streaming";

/// A directory of a kind that we know.
#[derive(Debug)]
pub enum Found {
    /// To be followed.
    Stream(Arc<Stream>),
    /// Written without block numbers: its events have no identity, so it cannot be followed.
    Plain { stream: Arc<Stream>, problem: String },
}

/// Looks for the kinds of one node directory.
///
/// When a node has both `_by_block` and `_streaming` of a kind, both are followed: the node may
/// have been switched from one to the other, and the identity of an event is the same in both, so
/// the ledger drops what comes twice. By-block comes first.
pub fn find_streams(node: &Path) -> io::Result<Vec<Found>> {
    if !fs::metadata(node)?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "is not a directory"));
    }
    let mut found = Vec::new();
    for kind in &KINDS {
        let by_block = stream(node, kind, BY_BLOCK, Form::ByBlock, kind.density);
        let streaming = stream(node, kind, STREAMING, Form::Streaming, Density::Sparse);
        let usable = [by_block, streaming].into_iter().filter(|stream| stream.directory.is_dir());
        let before = found.len();
        found.extend(usable.map(|stream| Found::Stream(Arc::new(stream))));
        let plain = stream(node, kind, "", Form::ByBlock, Density::Sparse);
        if found.len() == before && plain.directory.is_dir() {
            found.push(Found::Plain { stream: Arc::new(plain), problem: plain_problem(kind) });
        }
    }
    Ok(found)
}

/// The topic and the form of the files in a directory of this name, if it is that of a kind.
pub fn kind_of(name: &str) -> Option<(Topic, Form)> {
    KINDS.iter().find_map(|kind| match name.strip_prefix(kind.name)? {
        BY_BLOCK => Some((kind.topic, Form::ByBlock)),
        STREAMING => Some((kind.topic, Form::Streaming)),
        _ => None,
    })
}

/// Says what is missing in a node directory that exists and holds no kind.
pub fn describe_nothing(node: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let is_kind = |path: &Path| {
        let name = name(path).unwrap_or_default();
        KINDS.iter().any(|kind| {
            name.strip_prefix(kind.name)
                .is_some_and(|rest| ["", BY_BLOCK, STREAMING].contains(&rest))
        })
    };
    if let Some(kind) = node.ancestors().take(3).find(|path| is_kind(path))
        && let Some(parent) = kind.parent()
    {
        let (node, kind, parent) = (node.display(), kind.display(), parent.display());
        return format!("{node}: {kind} is a kind directory, give its parent {parent}");
    }
    let looked_for: Vec<String> = KINDS
        .iter()
        .flat_map(|kind| [BY_BLOCK, STREAMING].map(|suffix| format!("{}{suffix}", kind.name)))
        .collect();
    format!("{}: there is none of {} in it", node.display(), looked_for.join(", "))
}

/// The directories that are expected on a node that has none yet, for messages about it.
pub fn expected_streams(node: &Path) -> impl Iterator<Item = Arc<Stream>> {
    KINDS
        .iter()
        .map(move |kind| Arc::new(stream(node, kind, BY_BLOCK, Form::ByBlock, kind.density)))
}

/// Creates the directories of the by-block kinds where no form of the kind exists, as the older
/// service does.
pub fn create_missing(node: &Path) -> io::Result<()> {
    for kind in &KINDS {
        let exists = |suffix| node.join(format!("{}{suffix}", kind.name)).is_dir();
        if !exists(STREAMING) {
            fs::create_dir_all(node.join(format!("{}{BY_BLOCK}", kind.name)).join(HOURLY))?;
        }
    }
    Ok(())
}

fn stream(node: &Path, kind: &Kind, suffix: &str, form: Form, density: Density) -> Stream {
    let directory = node.join(format!("{}{suffix}", kind.name));
    Stream {
        name: directory.to_string_lossy().into(),
        node: node.to_string_lossy().into(),
        topic: kind.topic,
        form,
        density,
        directory,
    }
}

fn plain_problem(kind: &Kind) -> String {
    format!(
        "{} has no block numbers and cannot be followed: start the node with --batch-by-block",
        kind.name
    )
}

/// Where the day directories of a stream lie.
pub fn hourly(directory: &Path) -> PathBuf {
    directory.join(HOURLY)
}

/// The day directories that exist, in no order. None when there is no `hourly` directory yet.
///
/// # Errors
/// When the directory of the kind itself is missing, or cannot be read.
pub fn list_days(directory: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let entries = match fs::read_dir(hourly(directory)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::metadata(directory)?;
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut days = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some(day) = entry.file_name().to_str().and_then(parse_day) {
            days.push((day, entry.path()));
        }
    }
    Ok(days)
}

/// What lies in the day directories of a stream.
#[derive(Debug, Default)]
pub struct Listing {
    /// Every hour file, in order, each with what the file system says of it.
    pub files: Vec<(HourFile, io::Result<Metadata>)>,
    /// Days whose files are not known: they must not be taken for deleted.
    pub unreadable_days: Vec<(PathBuf, u32, io::Error)>,
}

impl Listing {
    pub fn contains(&self, file: HourFile) -> bool {
        self.files.binary_search_by_key(&file, |(listed, _)| *listed).is_ok()
    }

    pub fn is_known(&self, day: u32) -> bool {
        self.unreadable_days.iter().all(|(_, unreadable, _)| *unreadable != day)
    }
}

/// Lists every hour file of a stream.
///
/// # Errors
/// When the directory of the kind is missing, or the day directories cannot be listed.
pub fn list_files(directory: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for (day, path) in list_days(directory)? {
        match list_day(day, &path, &mut listing.files) {
            // Pruned a moment ago.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => listing.unreadable_days.push((path, day, error)),
            Ok(()) => {}
        }
    }
    listing.files.sort_by_key(|(file, _)| *file);
    Ok(listing)
}

fn list_day(
    day: u32,
    path: &Path,
    files: &mut Vec<(HourFile, io::Result<Metadata>)>,
) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let Some(hour) = entry.file_name().to_str().and_then(parse_hour) else { continue };
        match fs::metadata(entry.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            looked => files.push((HourFile { day, hour }, looked)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Result<HourFile, HourFileError> {
        name.parse()
    }

    #[test]
    fn hours_are_ordered_as_numbers() {
        let mut names = ["20260316/0", "20260315/10", "20260315/2", "20260315/23"];

        names.sort_by_key(|name| file(name).unwrap());

        assert_eq!(names, ["20260315/2", "20260315/10", "20260315/23", "20260316/0"]);
        assert_eq!(file("20260315/2").unwrap().to_string(), "20260315/2");
    }

    #[test]
    fn names_that_no_node_writes_are_passed_over() {
        let foreign = [
            "20260315/24",
            "20260315/02",
            "20260315/",
            "20260315/2.lz4",
            "20260315/+2",
            "2026031/2",
            "2026031a/2",
            "20260315",
            "202603150/2",
            "20260315/2/3",
            "+2026031/2",
        ];
        for name in foreign {
            assert_eq!(file(name), Err(HourFileError), "{name}");
        }

        let node = tempfile::tempdir().unwrap();
        let day = node.path().join("hourly/20260315");
        fs::create_dir_all(&day).unwrap();
        fs::create_dir_all(node.path().join("hourly/lost+found")).unwrap();
        for name in ["7", ".7.Xy1", "7.lz4", "07"] {
            fs::write(day.join(name), "").unwrap();
        }
        let files = list_files(node.path()).unwrap();

        assert_eq!(files.files.iter().map(|(file, _)| file.hour).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn kinds_are_found_by_themselves_and_plain_ones_are_refused_with_the_flag() {
        let node = tempfile::tempdir().unwrap();
        for name in ["node_fills_by_block", "node_fills_streaming", "misc_events", "node_trades"] {
            fs::create_dir(node.path().join(name)).unwrap();
        }

        let found = find_streams(node.path()).unwrap();

        let [Found::Stream(by_block), Found::Stream(streaming), Found::Plain { stream, problem }] =
            found.as_slice()
        else {
            panic!("{found:?}");
        };
        assert_eq!((by_block.form, by_block.density), (Form::ByBlock, Density::Dense));
        assert_eq!((streaming.form, streaming.density), (Form::Streaming, Density::Sparse));
        assert_eq!(by_block.topic, streaming.topic);
        assert_eq!(stream.topic.as_str(), "misc");
        assert!(problem.contains("--batch-by-block"));
    }

    #[test]
    fn a_plain_directory_beside_a_usable_one_is_no_problem() {
        let node = tempfile::tempdir().unwrap();
        for name in ["misc_events_by_block", "misc_events"] {
            fs::create_dir(node.path().join(name)).unwrap();
        }

        let found = find_streams(node.path()).unwrap();

        assert!(matches!(found.as_slice(), [Found::Stream(_)]));
    }

    #[test]
    fn missing_directories_are_created_once() {
        // H09
        let data = tempfile::tempdir().unwrap();
        let node = data.path().join("hl/data");
        fs::create_dir_all(node.join("misc_events_streaming")).unwrap();

        create_missing(&node).unwrap();
        create_missing(&node).unwrap();

        assert!(node.join("node_fills_by_block/hourly").is_dir());
        assert!(!node.join("misc_events_by_block").exists());
    }

    #[test]
    fn a_missing_kind_directory_is_an_error_and_a_missing_hourly_one_is_empty() {
        let node = tempfile::tempdir().unwrap();

        assert!(list_files(node.path()).unwrap().files.is_empty());
        assert!(list_files(&node.path().join("gone")).is_err());
    }
}

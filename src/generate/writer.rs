//! The files of a simulated node.
//!
//! Place: last; it knows bytes and hours, and nothing of blocks.
//! Invariant: the bytes of one file are in the order in which they were appended. Between an
//! [`NodeWriter::append`] and [`NodeWriter::flush`] a torn writer may hold back any tail of them.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::text::utc;

/// A torn file never holds back more than this, so that a big line arrives in several pieces.
const MAX_PENDING_BYTES: usize = 256 << 10;

/// A kind of file that a node writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Fills,
    Misc,
    OrderStatuses,
}

impl Kind {
    /// Name of the directory in the node's data directory.
    pub fn directory(self, streaming: bool) -> String {
        let (name, form) = match self {
            Self::Fills => ("node_fills", streaming),
            Self::Misc => ("misc_events", streaming),
            Self::OrderStatuses => ("node_order_statuses", streaming),
        };
        format!("{name}{}", if form { "_streaming" } else { "_by_block" })
    }
}

/// Which file of a kind: a UTC hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HourFile {
    /// As in the directory's name: 20260315.
    pub day: u32,
    pub hour: u8,
}

impl HourFile {
    /// The file that a node writes to at this time.
    pub fn at(time_ns: i64) -> Self {
        let utc = utc(time_ns);
        let date = utc.year().unsigned_abs() * 10_000;
        let date = date + u32::from(u8::from(utc.month())) * 100 + u32::from(utc.day());
        Self { day: date, hour: utc.hour() }
    }
}

/// Path below `hourly`; the hour has no leading zero.
impl fmt::Display for HourFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.day, self.hour)
    }
}

/// The hour files of one simulated node.
pub struct NodeWriter {
    kinds: Vec<KindFiles>,
    /// Decides the pieces when lines arrive torn.
    torn: Option<fastrand::Rng>,
    written_bytes: u64,
}

/// The files of one kind.
struct KindFiles {
    kind: Kind,
    hourly: PathBuf,
    /// Files that may still get bytes, in the order in which they were opened.
    open: Vec<OpenFile>,
    /// All files that exist.
    known: Vec<HourFile>,
}

struct OpenFile {
    hour: HourFile,
    file: File,
    pending: Vec<u8>,
}

impl NodeWriter {
    /// Creates nothing yet: a directory appears together with its first file.
    pub fn new(directory: &Path, kinds: &[Kind], streaming: bool) -> Self {
        let kinds = kinds
            .iter()
            .map(|&kind| KindFiles {
                kind,
                hourly: directory.join(kind.directory(streaming)).join("hourly"),
                open: Vec::new(),
                known: Vec::new(),
            })
            .collect();
        Self { kinds, torn: None, written_bytes: 0 }
    }

    /// Lets bytes arrive in pieces from now on.
    pub fn torn(mut self, seed: u64) -> Self {
        self.torn = Some(fastrand::Rng::with_seed(seed));
        self
    }

    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// The path of a file, whether it exists or not.
    pub fn path(&self, kind: Kind, hour: HourFile) -> Option<PathBuf> {
        Some(self.files(kind)?.hourly.join(hour.to_string()))
    }

    /// The files of a kind that were written and not pruned, oldest first.
    pub fn hours(&self, kind: Kind) -> Vec<HourFile> {
        let mut hours = self.files(kind).map_or_else(Vec::new, |files| files.known.clone());
        hours.sort_unstable();
        hours
    }

    /// Appends bytes to the file of an hour. Bytes of a kind that is not written are passed over.
    ///
    /// # Errors
    /// When the file cannot be made or written.
    pub fn append(&mut self, kind: Kind, hour: HourFile, bytes: &[u8]) -> io::Result<()> {
        let Some(files) = self.kinds.iter_mut().find(|files| files.kind == kind) else {
            return Ok(());
        };
        self.written_bytes += bytes.len() as u64;
        let open = files.open(hour)?;
        let Some(rng) = &mut self.torn else {
            open.file.write_all(bytes)?;
            // Whatever else is open was left behind by an hour change.
            files.open.retain(|open| open.hour == hour);
            return Ok(());
        };
        open.pending.extend_from_slice(bytes);
        for open in &mut files.open {
            let held = open.pending.len();
            let surplus = held.saturating_sub(MAX_PENDING_BYTES);
            // Mostly an odd piece, sometimes nothing or everything.
            let piece = match rng.u8(..8) {
                0 => 0,
                1 => held,
                _ => rng.usize(..=held),
            };
            open.release(piece.max(surplus))?;
        }
        files.open.retain(|open| open.hour == hour || !open.pending.is_empty());
        Ok(())
    }

    /// Writes everything that is held back.
    pub fn flush(&mut self) -> io::Result<()> {
        for open in self.kinds.iter_mut().flat_map(|files| &mut files.open) {
            open.release(open.pending.len())?;
        }
        Ok(())
    }

    /// Deletes the oldest files of each kind until `keep` are left, as a node's pruner does; at
    /// least one stays.
    pub fn prune(&mut self, keep: usize) -> io::Result<Vec<PathBuf>> {
        self.flush()?;
        let mut gone = Vec::new();
        for files in &mut self.kinds {
            files.known.sort_unstable();
            let surplus = files.known.len().saturating_sub(keep.max(1));
            for hour in files.known.drain(..surplus) {
                let path = files.hourly.join(hour.to_string());
                fs::remove_file(&path)?;
                files.open.retain(|open| open.hour != hour);
                gone.push(path);
            }
        }
        Ok(gone)
    }

    fn files(&self, kind: Kind) -> Option<&KindFiles> {
        self.kinds.iter().find(|files| files.kind == kind)
    }
}

impl KindFiles {
    /// Opens a file, with its directory in the same breath, unless it is open.
    fn open(&mut self, hour: HourFile) -> io::Result<&mut OpenFile> {
        let place = match self.open.iter().position(|open| open.hour == hour) {
            Some(place) => place,
            None => {
                let path = self.hourly.join(hour.to_string());
                let options = OpenOptions::new().create(true).append(true).clone();
                let file = match options.open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        fs::create_dir_all(self.hourly.join(hour.day.to_string()))?;
                        options.open(&path)?
                    }
                    opened => opened?,
                };
                if !self.known.contains(&hour) {
                    self.known.push(hour);
                }
                self.open.push(OpenFile { hour, file, pending: Vec::new() });
                self.open.len() - 1
            }
        };
        Ok(&mut self.open[place])
    }
}

impl OpenFile {
    /// Lets the first bytes of what is held back arrive.
    fn release(&mut self, bytes: usize) -> io::Result<()> {
        self.file.write_all(&self.pending[..bytes])?;
        self.pending.drain(..bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_has_no_leading_zero() {
        assert_eq!(HourFile::at(1_773_532_800_196_239_755).to_string(), "20260315/0");
        assert_eq!(HourFile::at(1_773_532_799_991_006_841).to_string(), "20260314/23");
    }

    #[test]
    fn torn_bytes_arrive_in_order_and_whole_after_a_flush() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = NodeWriter::new(directory.path(), &[Kind::Fills], false).torn(7);
        let hours = [HourFile { day: 20_260_314, hour: 23 }, HourFile { day: 20_260_315, hour: 0 }];
        let mut held_back = 0;

        for number in 0..200_u32 {
            let hour = hours[usize::from(number >= 100)];
            writer.append(Kind::Fills, hour, format!("{number}\n").as_bytes()).unwrap();
            let arrived = fs::metadata(writer.path(Kind::Fills, hours[0]).unwrap()).unwrap().len();
            held_back += u32::from(arrived < 290);
        }
        writer.flush().unwrap();

        assert!(held_back > 0);
        for (hour, numbers) in hours.into_iter().zip([0..100, 100..200]) {
            let text = fs::read_to_string(writer.path(Kind::Fills, hour).unwrap()).unwrap();
            assert_eq!(text, numbers.map(|number| format!("{number}\n")).collect::<String>());
        }
    }

    #[test]
    fn pruning_keeps_the_newest_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = NodeWriter::new(directory.path(), &[Kind::Misc], false);
        for hour in [9, 10] {
            writer.append(Kind::Misc, HourFile { day: 20_260_315, hour }, b"{}\n").unwrap();
        }

        writer.prune(0).unwrap();

        assert_eq!(writer.hours(Kind::Misc), [HourFile { day: 20_260_315, hour: 10 }]);
        assert!(!directory.path().join("misc_events_by_block/hourly/20260315/9").exists());
    }
}

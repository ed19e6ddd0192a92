//! Plays the node: appends blocks to the hour file of the moment, one line and one write each.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use time::OffsetDateTime;

use crate::{ledger::Ledger, traffic::Traffic};

pub struct Node {
    directory: PathBuf,
    /// Day and hour of the open file.
    open: Option<((i32, u8, u8, u8), File)>,
    traffic: Traffic,
    line: String,
}

impl Node {
    pub fn new(directory: &Path, traffic: Traffic) -> Self {
        let directory = directory.join("node_fills_by_block/hourly");
        Self { directory, open: None, traffic, line: String::new() }
    }

    /// Writes one block with this many events.
    pub fn write(&mut self, ledger: &Ledger, events: u64) -> io::Result<()> {
        let now = OffsetDateTime::now_utc();
        let hour = (now.year(), u8::from(now.month()), now.day(), now.hour());
        let file = match &mut self.open {
            Some((open, file)) if *open == hour => file,
            open => &mut open.insert((hour, create(&self.directory, hour)?)).1,
        };
        let (year, month, day, hour) = hour;
        let time = format!(
            "{year:04}-{month:02}-{day:02}T{hour:02}:{:02}:{:02}.{:09}",
            now.minute(),
            now.second(),
            now.nanosecond()
        );
        // The text is made before the clock of its events starts.
        let next = ledger.events();
        self.line.clear();
        self.traffic.push_line(&mut self.line, ledger.next_block(), &time, next..next + events);
        ledger.enter(events)?;
        file.write_all(self.line.as_bytes())
    }
}

fn create(directory: &Path, (year, month, day, hour): (i32, u8, u8, u8)) -> io::Result<File> {
    let day = directory.join(format!("{year:04}{month:02}{day:02}"));
    fs::create_dir_all(&day)?;
    File::options().create(true).append(true).open(day.join(hour.to_string()))
}

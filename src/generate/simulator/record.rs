//! Records what the simulated node has written: the manifest, in memory or in a file.
//!
//! Invariants: blocks come in ascending order, each once; totals and gaps are complete wherever the
//! rows go.

use std::{io, path::PathBuf};

use crate::{
    event::{EventId, Topic},
    generate::{
        block::{Block, Elements},
        manifest::{FILLS, Gap, MISC, Manifest, ManifestFile, Row, Totals},
    },
};

/// Where the rows of the manifest go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Into [`Simulator::manifest`](super::Simulator::manifest).
    Keep,
    /// Into this file, readable by [`Manifest::load`] after [`Simulator::finish`](super::Simulator::finish).
    Write(PathBuf),
    /// Nowhere; totals and gaps are kept all the same.
    Forget,
}

/// The manifest as it grows.
pub(super) struct Record {
    manifest: Manifest,
    rows: Rows,
    /// `None` unless the rows are written, and after [`Self::finish`].
    file: Option<ManifestFile>,
}

impl Record {
    pub fn new(rows: Rows) -> io::Result<Self> {
        let file = match &rows {
            Rows::Write(path) => Some(ManifestFile::create(path)?),
            Rows::Keep | Rows::Forget => None,
        };
        Ok(Self { manifest: Manifest::default(), rows, file })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn into_manifest(self) -> Manifest {
        self.manifest
    }

    /// How many bytes all files have been given so far.
    pub fn note_bytes(&mut self, written: u64) {
        self.manifest.totals.bytes = written;
    }

    /// Adds a block that was written for the first time.
    ///
    /// # Errors
    /// When the manifest's file cannot be written.
    pub fn note_block(&mut self, block: &Block) -> io::Result<()> {
        let Totals { blocks, first_block, highest_block, .. } = &mut self.manifest.totals;
        let number = block.number;
        if *blocks == 0 {
            *first_block = number;
        } else if number > *highest_block + 1 {
            self.manifest.gaps.push(Gap { first: *highest_block + 1, last: number - 1 });
        }
        *blocks += 1;
        *highest_block = number;
        self.manifest.totals.fills += block.fills.len() as u64;
        self.manifest.totals.misc += block.misc.len() as u64;
        for (topic, elements) in [(FILLS, &block.fills), (MISC, &block.misc)] {
            self.manifest.totals.rows += elements.shares().len() as u64;
            if self.rows == Rows::Forget {
                continue;
            }
            for row in rows_of(block, topic, elements) {
                match &mut self.file {
                    Some(file) => file.row(row)?,
                    None => self.manifest.rows.push(row),
                }
            }
        }
        Ok(())
    }

    /// Ends the manifest's file, if there is one.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Some(mut file) = self.file.take() {
            file.finish(&self.manifest.gaps, self.manifest.totals)?;
        }
        Ok(())
    }
}

fn rows_of(block: &Block, topic: Topic, elements: &Elements) -> impl Iterator<Item = Row> {
    elements.shares().map(move |(index, part, user, body)| Row {
        id: EventId { topic, position: block.number, index, part },
        time_ns: block.time_ns,
        user,
        body: String::from_utf8(body.to_vec()).expect("a line is made of text"),
    })
}

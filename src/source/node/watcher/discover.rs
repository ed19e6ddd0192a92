//! Finds the streams of a node directory and the place where each begins.
//!
//! Place in the pipeline: the part of `FileWatcher` that looks, before the part that reads.
//! Invariants: a stream that is followed is met once; it begins at its checkpoint, else at the
//! baseline that this run chose before, else where the older service stopped, else where the
//! configuration says; a directory that cannot
//! be followed is reported once and looked at again at each rescan.

use std::{io, sync::Arc, time::Instant};

use slog::{error, info, warn};

use super::{FileWatcher, watched::Watched};
use crate::{
    source::{
        Stream,
        node::{
            follow::{Follower, Settings},
            layout::{self, Found},
            start::Start,
            tail::Limits,
        },
    },
    stats::StreamStats,
};

impl FileWatcher {
    /// Looks at everything: the kinds of the node directory, then every file of each stream.
    pub(super) fn rescan(&mut self) {
        self.watch(|wakeups, node| wakeups.watch_node(node));
        match layout::find_streams(&self.node) {
            Ok(found) => {
                // A stream that vanishes says so itself.
                let nothing = found.is_empty() && self.streams.is_empty();
                self.note_node_problem(nothing.then(|| layout::describe_nothing(&self.node)));
                found.into_iter().for_each(|found| self.meet(found));
                self.looked = true;
            }
            Err(error) => {
                let kind = error.kind();
                self.looked |=
                    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
                self.note_node_problem(Some(format!("{}: {error}", self.node.display())));
            }
        }
        for stream in 0..self.streams.len() {
            self.rescan_stream(stream);
        }
    }

    /// Looks at every file of one stream, named by its place in `streams`.
    pub(super) fn rescan_stream(&mut self, stream: usize) {
        let Some(watched) = self.streams.get(stream) else { return };
        let directory = watched.follower.stream().directory.clone();
        self.watch(|wakeups, _| wakeups.watch_stream(stream, &directory));
        let Some(watched) = self.streams.get_mut(stream) else { return };
        watched.follower.rescan(Instant::now());
        if let Some(baseline) = watched.follower.baseline() {
            let name = watched.follower.stream().name.clone();
            self.baselines.entry(name).or_insert_with(|| baseline.to_vec());
        }
        watched.tell_changes(&self.log);
        watched.note_problem(&self.log);
    }

    /// Follows a stream that was found and is not followed yet.
    fn meet(&mut self, found: Found) {
        let stream = match found {
            Found::Stream(stream) => stream,
            Found::Plain { stream, problem } => {
                if self.refused.iter().all(|refused| refused.name != stream.name) {
                    error!(self.log, "directory refused"; "stream" => %stream.name, "reason" => &problem);
                    self.stats.stream(&stream).set_problem(&problem);
                    self.refused.push(stream);
                }
                return;
            }
        };
        if self.streams.iter().any(|known| known.follower.stream().name == stream.name) {
            return;
        }
        let stats = self.stats.stream(&stream);
        stats.set_problem("");
        let start = match self.imported.get(&stream.name) {
            Some(&(file, offset)) => Start::At { file, offset },
            None if self.looked => Start::Beginning,
            None => Start::Configured(self.config.from),
        };
        let watched = self.begin(stream, stats, start);
        info!(self.log, "stream found"; "stream" => %watched.follower.stream().name);
        self.streams.push(watched);
    }

    /// Begins a stream where its checkpoint says, else at its earlier baseline, else at `start`.
    pub(super) fn begin(
        &self,
        stream: Arc<Stream>,
        stats: Arc<StreamStats>,
        start: Start,
    ) -> Watched {
        let settings = Settings {
            limits: Limits {
                read_bytes: self.config.read_bytes,
                line_bytes: self.config.max_line_bytes,
            },
            grace: self.config.grace,
        };
        let now = Instant::now();
        let checkpoint = self.checkpoints.get(&stream.name);
        let state = checkpoint.map(|checkpoint| checkpoint.state.clone()).unwrap_or_default();
        let last_position = state.last_position;
        let counted = stats.clone();
        let follower = match (checkpoint, self.baselines.get(&stream.name)) {
            (None, Some(baseline)) => {
                Follower::rebase(stream, settings, baseline.clone(), now, counted)
            }
            (None, None) => Follower::new(stream, settings, start, counted),
            (Some(checkpoint), _) => match last_position {
                Some(block) if checkpoint.files.is_empty() => {
                    Follower::new(stream, settings, Start::Block(block), counted)
                }
                _ => Follower::resume(stream, settings, &checkpoint.files, now, counted),
            },
        };
        Watched::new(follower, stats, start, state)
    }

    fn note_node_problem(&mut self, problem: Option<String>) {
        if self.problem == problem {
            return;
        }
        match &problem {
            Some(problem) => {
                warn!(self.log, "node directory cannot be followed, waiting"; "error" => problem);
            }
            None => info!(self.log, "node directory can be followed"),
        }
        if self.streams.is_empty() {
            // Without any stream status would show nothing at all.
            for stream in layout::expected_streams(&self.node) {
                match &problem {
                    Some(problem) => self.stats.stream(&stream).set_problem(problem),
                    // Those that are there enter by themselves.
                    None => self.stats.retire(&stream),
                }
            }
        }
        self.problem = problem;
    }
}

//! What is counted of all clients together.

use std::collections::BTreeMap;

use serde::Serialize;

use super::judge::Fault;
use crate::histogram::Histogram;

pub const GROUPS: usize = 3;

/// Clients that are looked at apart from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Steady,
    /// Those that are there all the time too, and are read in turn: their latency is not measured.
    Bulk,
    /// Those that storm, or stall.
    Extra,
}

/// What a group has received.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub events: u64,
    /// Of the events' frames, without their heads.
    pub payload_bytes: u64,
    /// On the wire, all frames.
    pub bytes: u64,
    pub reads: u64,
    /// From the write into the node's file until the client has read the frame, in microseconds; of
    /// events that were written after the client had subscribed.
    pub latency: Histogram,
    /// From a poll that begins in the past, and finds something there, until its answer was read.
    pub answers: Histogram,
}

/// What has happened between two moments.
#[derive(Clone, Debug, Default)]
pub struct Window {
    pub groups: [Received; GROUPS],
}

impl Window {
    pub fn group(&self, group: Group) -> &Received {
        &self.groups[group as usize]
    }

    pub fn group_mut(&mut self, group: Group) -> &mut Received {
        &mut self.groups[group as usize]
    }

    pub fn answers(&self) -> Histogram {
        let mut all = Histogram::default();
        self.groups.iter().for_each(|group| all.add(&group.answers));
        all
    }

    pub fn events(&self) -> u64 {
        self.groups.iter().map(|group| group.events).sum()
    }
}

/// What must never happen. All of them are zero in a good run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Faults {
    /// Events that did not come though later ones did.
    pub missing: u64,
    pub repeated: u64,
    /// Events that nobody asked for, or nobody wrote.
    pub foreign: u64,
    /// Bodies that differ from what was written.
    pub differing: u64,
    /// Events that were not there long after they had been written, when their client left.
    pub overdue: u64,
    /// `gap` and `error` messages.
    pub told: u64,
    /// Clients that were refused, or that the server left, though they read.
    pub ended: u64,
    /// The first of all, in words.
    pub first: Option<String>,
}

impl Faults {
    pub fn note(&mut self, fault: Fault, event: u64) {
        match fault {
            Fault::Missing(count) => self.missing += count,
            Fault::Repeated => self.repeated += 1,
            Fault::Foreign => self.foreign += 1,
        }
        self.say(|| format!("event {event}: {fault:?}"));
    }

    pub fn say(&mut self, text: impl FnOnce() -> String) {
        self.first.get_or_insert_with(text);
    }
}

/// How things stand.
#[derive(Clone, Debug, Default, Serialize)]
pub struct State {
    /// Subscribed and reading.
    pub live: u64,
    /// Subscribed, and not reading on purpose.
    pub stalled: u64,
    /// Asked for and not subscribed yet.
    pub opening: u64,
    /// Of the live ones: asked for the past, and have it all.
    pub joined: u64,
    /// Clients that were subscribed at some time.
    pub opened: u64,
    /// Clients that went on from the cursor of another.
    pub resumed: u64,
    /// Stalled clients that the server cut.
    pub cut: u64,
    /// What had to come until now, to all clients that read, and what came.
    pub expected: u64,
    pub received: u64,
    /// Events that were compared with what was written, byte by byte.
    pub compared: u64,
    /// How often the server closed with which code.
    pub closes: BTreeMap<u16, u64>,
    pub faults: Faults,
}

//! What is measured: the daemon, or the raw writer beside it. Clients cannot tell them apart.

pub mod daemon;
pub mod raw;
pub mod raw_writer;

use std::{io, net::SocketAddr};

use serde_json::Value;

use self::{daemon::Daemon, raw::Raw};
use crate::ledger::Ledger;

/// A server that casts what is fed to it.
pub enum Server {
    Daemon(Daemon),
    Raw(Raw),
}

impl Server {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Daemon(_) => "nodecast",
            Self::Raw(_) => "raw",
        }
    }

    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Daemon(daemon) => daemon.address,
            Self::Raw(raw) => raw.address,
        }
    }

    /// `None` when a running daemon is driven whose process is not known.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Daemon(daemon) => daemon.pid,
            Self::Raw(raw) => Some(raw.pid()),
        }
    }

    /// One block with this many events.
    pub fn feed(&mut self, ledger: &Ledger, events: u64) -> io::Result<()> {
        match self {
            Self::Daemon(daemon) => daemon.node.write(ledger, events),
            Self::Raw(raw) => raw.feed(ledger, events),
        }
    }

    /// What it says of itself; the raw writer says nothing.
    pub fn status(&self) -> anyhow::Result<Option<Value>> {
        match self {
            Self::Daemon(daemon) => daemon.status().map(Some),
            Self::Raw(_) => Ok(None),
        }
    }
}

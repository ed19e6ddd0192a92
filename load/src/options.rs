//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::{
    client::{Connecting, Transport},
    traffic::Traffic,
};

/// Drives a nodecast with thousands of clients and measures what a delivery costs
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Profile,
}

#[derive(Debug, Subcommand)]
pub enum Profile {
    /// Every event to everybody, beside the raw writer: deliveries per second of server processor
    Fanout(Fanout),
    /// What one session costs, at growing numbers of sessions
    Scale(Scale),
    /// What some clients that stop reading do to the others
    Isolation(Isolation),
    /// Many sessions come back at once and want what they missed
    Storm(Storm),
    /// Clients come and go for a long time
    Soak(Soak),
    /// The raw writer itself; the other commands start it
    #[command(hide = true)]
    Raw(RawWriter),
}

/// What all profiles share.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Program of the daemon to start, on an empty store in a temporary directory
    #[arg(long, default_value = "target/release/nodecast", value_name = "PROGRAM")]
    pub daemon: PathBuf,
    /// Key of its configuration, such as session.outbox_bytes=64KiB; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub set: Vec<(String, String)>,
    /// Drive a daemon that runs, with everybody listed, instead of starting one
    #[arg(long, value_name = "IP:PORT", requires = "node_dir")]
    pub url: Option<SocketAddr>,
    /// The node directory that it follows
    #[arg(long, value_name = "DIR", requires = "url")]
    pub node_dir: Option<PathBuf>,
    /// Its process, so that processor time and memory can be told
    #[arg(long, requires = "url")]
    pub pid: Option<u32>,
    /// How clients get their events
    #[arg(long, value_enum, default_value_t)]
    pub transport: Transport,
    /// Blocks written in a second
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    pub rate: f64,
    /// Length of one measurement
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    pub seconds: f64,
    /// Bytes of an event in the node's file
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(400..=100_000))]
    pub event_bytes: u32,
    /// Users who trade in turn
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub users: u32,
    /// Source addresses of the clients, from 127.0.1.1 on
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub addresses: u32,
    /// Handshakes under way at one time
    #[arg(long, default_value_t = 256)]
    pub connecting: usize,
    /// Clients of fanout, scale and isolation whose latency is measured, in per cent, evenly spread. The
    /// others are read four times a second, which leaves the processors to the server
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    pub measured: f64,
    /// Print one JSON document; the text goes to standard error
    #[arg(long)]
    pub json: bool,
}

impl Common {
    pub fn traffic(&self) -> Traffic {
        Traffic { users: self.users.into(), event_bytes: self.event_bytes as usize }
    }

    pub fn connecting(&self) -> Connecting {
        let (transport, at_once) = (self.transport, self.connecting.max(1));
        Connecting { transport, addresses: self.addresses, at_once }
    }
}

#[derive(Debug, Args)]
pub struct Fanout {
    #[command(flatten)]
    pub common: Common,
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub sessions: u32,
    /// Events in one block, which a server may send by one write; a list is measured one by one
    #[arg(long, default_value = "1,16", value_delimiter = ',')]
    pub merge: Vec<u32>,
    /// What sessions ask for, such as all=1,user=7,coin=1,where=1. The raw writer knows only
    /// everybody, by WebSocket, and is left out for others
    #[arg(long, value_name = "MIX")]
    pub mix: Option<crate::traffic::Mix>,
    /// Daemon and raw writer take turns so often
    #[arg(long, default_value_t = 2)]
    pub rounds: u32,
}

#[derive(Debug, Args)]
pub struct Scale {
    #[command(flatten)]
    pub common: Common,
    #[arg(long, default_value = "1000,5000,10000,18000", value_delimiter = ',')]
    pub sessions: Vec<u32>,
    /// Measure the raw writer beside it too
    #[arg(long)]
    pub raw: bool,
    #[arg(long, default_value = "all=1", value_name = "MIX")]
    pub mix: crate::traffic::Mix,
}

#[derive(Debug, Args)]
pub struct Isolation {
    #[command(flatten)]
    pub common: Common,
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub sessions: u32,
    /// Clients besides those, in per cent of them, that stop reading
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    pub stalled: f64,
    /// Without and with them so often in turn
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
}

#[derive(Debug, Args)]
pub struct Storm {
    #[command(flatten)]
    pub common: Common,
    /// Sessions that come back at once
    #[arg(long, default_value_t = 5_000)]
    pub storm: u32,
    /// Events that each of them missed
    #[arg(long, default_value_t = 10_000)]
    pub back: u32,
    /// Sessions that are there all the time, and get what is written meanwhile
    #[arg(long, default_value_t = 1_000)]
    pub live: u32,
    /// How long the storm may take, in seconds
    #[arg(long, default_value_t = 600)]
    pub patience: u64,
}

#[derive(Debug, Args)]
pub struct Soak {
    #[command(flatten)]
    pub common: Common,
    #[arg(long, default_value_t = 30.0, value_parser = positive)]
    pub minutes: f64,
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub sessions: u32,
    /// Clients that go and come in a second
    #[arg(long, default_value_t = 500.0, value_parser = positive)]
    pub churn: f64,
    /// Events in one block
    #[arg(long, default_value_t = 3)]
    pub burst: u32,
    #[arg(long, default_value = "all=1,user=6,coin=2,where=1", value_name = "MIX")]
    pub mix: crate::traffic::Mix,
    /// Clients besides those, in per cent of them, that stop reading
    #[arg(long, default_value_t = 1.0)]
    pub stalled: f64,
}

#[derive(Debug, Args)]
pub struct RawWriter {
    /// Length of an event's message
    #[arg(long)]
    pub payload_bytes: usize,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is wanted")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && f64::is_finite(number) => Ok(number),
        _ => Err("a number above 0 is wanted".to_owned()),
    }
}

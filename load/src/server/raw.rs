//! The raw writer as a child process: started, fed by a pipe, ended by closing it.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::Context;

use crate::ledger::Ledger;

/// Bytes of what is written to it for each block: its number and how many events it has.
pub const TICK_BYTES: usize = 16;

pub struct Raw {
    pub address: SocketAddr,
    child: Child,
    /// `None` when it was told to end.
    feed: Option<ChildStdin>,
}

impl Raw {
    /// Starts this program again as the raw writer, with frames as long as the daemon's.
    pub fn start(payload_bytes: usize) -> anyhow::Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args(["raw", "--payload-bytes", &payload_bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let feed = child.stdin.take();
        let stdout = child.stdout.take().context("the pipe was asked for")?;
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address)?;
        let address = address.trim().parse().context("the raw writer tells no address")?;
        Ok(Self { address, child, feed })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn feed(&mut self, ledger: &Ledger, events: u64) -> io::Result<()> {
        let feed = self.feed.as_mut().ok_or_else(|| io::Error::other("it was told to end"))?;
        let (block, _) = ledger.enter(events)?;
        let mut tick = [0; TICK_BYTES];
        tick[..8].copy_from_slice(&block.to_le_bytes());
        tick[8..].copy_from_slice(&events.to_le_bytes());
        feed.write_all(&tick)
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it had failed.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.feed = None;
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "the raw writer ended with {status}");
        Ok(())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // It has ended already after a proper stop; else nobody asks any more how it ends.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

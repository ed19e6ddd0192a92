//! What the kernel counts for a process.

use std::{collections::BTreeMap, fs, io};

/// Ticks a second in `/proc`: the same on every Linux.
const TICKS: f64 = 100.0;

/// Kilobytes of one line of `/proc/PID/status`, such as `VmRSS`.
pub fn status_kb(pid: u32, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("no {name} of process {pid}")))
}

/// Processor time that threads have used, in seconds: of the program and of the kernel for it.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    pub user: f64,
    pub system: f64,
}

impl Cpu {
    pub fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}

/// The time of a PostgreSQL server on this machine: of the processes that live, and of those that
/// have ended.
pub fn server(postmaster: u32) -> io::Result<Cpu> {
    let own = stat(&postmaster.to_string())?;
    let mut sum =
        Cpu { user: own.cpu.user + own.ended.user, system: own.cpu.system + own.ended.system };
    for process in fs::read_dir("/proc")? {
        // A process may have ended in between; what is no number is no process.
        let Ok(child) = stat(&process?.file_name().to_string_lossy()) else { continue };
        if child.parent == postmaster {
            sum.user += child.cpu.user;
            sum.system += child.cpu.system;
        }
    }
    Ok(sum)
}

struct Stat {
    parent: u32,
    cpu: Cpu,
    /// Of its children that have ended.
    ended: Cpu,
}

fn stat(process: &str) -> io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, tail) = text.rsplit_once(") ").ok_or_else(|| io::Error::other("no such line"))?;
    let fields: Vec<&str> = tail.split(' ').collect();
    let seconds = |at: usize| fields.get(at).and_then(|f| f.parse().ok()).unwrap_or(0.0) / TICKS;
    Ok(Stat {
        parent: fields.get(1).and_then(|field| field.parse().ok()).unwrap_or(0),
        cpu: Cpu { user: seconds(11), system: seconds(12) },
        ended: Cpu { user: seconds(13), system: seconds(14) },
    })
}

/// The time of each thread; those of equal names together.
pub fn threads(pid: u32) -> io::Result<BTreeMap<String, Cpu>> {
    let mut threads: BTreeMap<String, Cpu> = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may have ended in between.
        let Ok(text) = fs::read_to_string(thread?.path().join("stat")) else { continue };
        let Some((head, tail)) = text.rsplit_once(") ") else { continue };
        let name = head.split_once('(').map_or("", |(_, name)| name);
        let mut fields = tail.split(' ').skip(11).map(|field| field.parse().unwrap_or(0.0));
        let cpu = threads.entry(name.to_owned()).or_default();
        cpu.user += fields.next().unwrap_or(0.0) / TICKS;
        cpu.system += fields.next().unwrap_or(0.0) / TICKS;
    }
    Ok(threads)
}

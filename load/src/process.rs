//! What the kernel counts: processor time and memory of a process, and how busy the machine is.

use std::{fs, io, ops::Sub};

use serde::Serialize;

/// Ticks a second in `/proc`: the same on every Linux.
const TICKS: f64 = 100.0;

/// Processor time in seconds: of the program, and of the kernel for it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cpu {
    pub user: f64,
    pub system: f64,
}

impl Cpu {
    /// Of a process that runs, since its start.
    pub fn of(process: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
        parse_stat(&text).ok_or_else(|| io::Error::other("an unknown form of /proc/PID/stat"))
    }

    pub fn sum(&self) -> f64 {
        self.user + self.system
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}

fn parse_stat(text: &str) -> Option<Cpu> {
    // The name of the program may hold spaces and brackets.
    let (_, tail) = text.rsplit_once(") ")?;
    let mut fields = tail.split(' ').skip(11).map(str::parse::<f64>);
    let (user, system) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some(Cpu { user: user / TICKS, system: system / TICKS })
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Memory {
    /// All that is resident, the program's own pages on disk too.
    pub rss: u64,
    /// Of it what belongs to no file.
    pub anonymous: u64,
}

impl Memory {
    pub fn of(process: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{process}/status"))?;
        Ok(Self { rss: kilobytes(&text, "VmRSS:")?, anonymous: kilobytes(&text, "RssAnon:")? })
    }
}

fn kilobytes(status: &str, name: &str) -> io::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.map(|kb| kb * 1_024).ok_or_else(|| io::Error::other(format!("no {name} in its status")))
}

/// Seconds that all processors of the machine have worked since it started.
pub fn machine_busy() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    parse_busy(&text).ok_or_else(|| io::Error::other("an unknown form of /proc/stat"))
}

fn parse_busy(text: &str) -> Option<f64> {
    let mut fields = text.lines().next()?.strip_prefix("cpu")?.split_whitespace();
    let mut next = || fields.next()?.parse::<f64>().ok();
    let (user, nice, system) = (next()?, next()?, next()?);
    let (_idle, _waiting) = (next()?, next()?);
    let (interrupts, soft_interrupts) = (next()?, next()?);
    Some((user + nice + system + interrupts + soft_interrupts) / TICKS)
}

/// The load average of the last minute.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_brackets() {
        let stat = "17 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 1250 0 0 20";

        let cpu = parse_stat(stat).unwrap();

        assert_eq!((cpu.user, cpu.system), (2.5, 12.5));
    }

    #[test]
    fn waiting_is_no_work() {
        assert_eq!(parse_busy("cpu  100 50 250 9000 800 60 40 0 0 0\ncpu0 1"), Some(5.0));
    }

    #[test]
    fn our_own_process_is_known_to_the_kernel() {
        let memory = Memory::of(std::process::id()).unwrap();

        assert!(memory.rss > memory.anonymous && memory.anonymous > 0);
        assert!(Cpu::of(std::process::id()).unwrap().sum() >= 0.0);
    }
}

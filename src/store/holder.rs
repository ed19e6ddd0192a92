//! Who writes to a store: a process, told apart from every other one.
//!
//! Invariant: a process is taken for dead only where it would be seen if it lived. A number of a
//! process means nothing in another PID namespace, on another machine, after another boot or once
//! it was given anew, and the name of a host means nothing at all: two containers can share it.

use std::{fmt, fs};

use rustix::{
    io::Errno,
    process::{self, Pid},
};

/// A process that holds a store, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub host: String,
    /// In its own PID namespace.
    pub process: u32,
    /// `None` where the system does not tell, as in a sandbox without `/proc/sys`.
    life: Option<Life>,
}

/// What makes the number of a process unique.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Life {
    /// Drawn by the kernel when it started.
    boot: String,
    /// Inode of the PID namespace. It can be given anew, but only when nobody lives there any more.
    namespace: String,
    /// Ticks from the boot to the start of the process.
    started: u64,
}

impl Holder {
    /// This process.
    pub fn own() -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let process = std::process::id();
        let life = || {
            let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
            let namespace = fs::read_link("/proc/self/ns/pid").ok()?.display().to_string();
            Some(Life { boot: boot.trim().to_owned(), namespace, started: start_of("self")? })
        };
        Self { host, process, life: life() }
    }

    /// Everything but the process as one text: the name of the host, then what else is known.
    pub fn place(&self) -> String {
        match &self.life {
            Some(Life { boot, namespace, started }) => {
                format!("{} {boot} {namespace} {started}", self.host)
            }
            None => self.host.clone(),
        }
    }

    /// Understands [`place`](Self::place), and the bare name of a host.
    pub fn of(place: &str, process: u32) -> Self {
        let mut words = place.split(' ').map(str::to_owned);
        let host = words.next().unwrap_or_default();
        let mut life = || {
            let (boot, namespace) = (words.next()?, words.next()?);
            Some(Life { boot, namespace, started: words.next()?.parse().ok()? })
        };
        Self { host, process, life: life() }
    }

    /// Whether it is known to be no more: then nobody has to wait for the end of its lease.
    pub fn is_gone(&self) -> bool {
        let own = Self::own();
        let (Some(life), Some(ours)) = (&self.life, &own.life) else { return false };
        let is_seen_from_here =
            self.host == own.host && life.boot == ours.boot && life.namespace == ours.namespace;
        let Some(pid) = i32::try_from(self.process).ok().and_then(Pid::from_raw) else {
            return false;
        };
        // First not by /proc: in the sandbox of the systemd unit processes of other users are
        // missing there.
        is_seen_from_here
            && (process::test_kill_process(pid) == Err(Errno::SRCH)
                || start_of(&self.process.to_string()).is_some_and(|start| start != life.started))
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.process, self.host)
    }
}

/// Field 22 of `/proc/PID/stat`. The second is the name, which can hold anything.
fn start_of(process: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// A process of this machine that has ended.
    fn ended() -> Holder {
        let mut child = Command::new("true").stdout(Stdio::null()).spawn().unwrap();
        let process = child.id();
        child.wait().unwrap();
        Holder { process, ..Holder::own() }
    }

    #[test]
    fn a_holder_is_understood_from_what_it_wrote() {
        let own = Holder::own();

        assert!(own.life.is_some(), "this system tells all of it");
        assert_eq!(Holder::of(&own.place(), own.process), own);
        assert_eq!(own.to_string(), format!("process {} on {}", own.process, own.host));
        let of_an_older_program = Holder::of("db-1", 7);
        assert_eq!((&*of_an_older_program.host, of_an_older_program.life), ("db-1", None));
    }

    #[test]
    fn a_process_that_ended_here_is_gone_and_one_that_lives_is_not() {
        assert!(ended().is_gone());
        assert!(!Holder::own().is_gone());
    }

    #[test]
    fn a_number_that_was_given_to_another_process_does_not_keep_the_first_alive() {
        let mut earlier = Holder::own();
        earlier.life.as_mut().unwrap().started -= 1;

        assert!(earlier.is_gone());
    }

    #[test]
    fn what_names_no_process_is_not_taken_for_dead() {
        let own = Holder::own();

        // Nobody has these numbers; what the kernel means by 0 is our own group.
        for process in [0, u32::MAX] {
            assert!(!Holder { process, ..own.clone() }.is_gone(), "{process}");
        }
        // A row that was cut short tells less than is needed.
        let place = own.place();
        for words in 1..4 {
            let cut: Vec<_> = place.split(' ').take(words).collect();
            let holder = Holder::of(&cut.join(" "), ended().process);
            assert_eq!((holder.life.is_none(), holder.is_gone()), (true, false), "{cut:?}");
        }
    }

    #[test]
    fn a_process_that_cannot_be_seen_from_here_is_not_taken_for_dead() {
        let elsewhere = |change: fn(&mut Holder)| {
            let mut holder = ended();
            change(&mut holder);
            holder.is_gone()
        };

        assert!(!elsewhere(|holder| holder.host.push('x')));
        assert!(!elsewhere(|holder| holder.life = None));
        assert!(!elsewhere(|holder| holder.life.as_mut().unwrap().boot.push('x')));
        // Two containers of one name.
        assert!(!elsewhere(|holder| holder.life.as_mut().unwrap().namespace.push('x')));
    }
}

//! What the kernel says of this process, by the names that every dashboard of Prometheus knows.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::text::{Kind, Page};

/// Ticks a second in which the kernel tells CPU time to programs: the same on every machine, whatever
/// its own clock does.
const TICKS: f64 = 100.0;

/// Adds what `/proc` tells; what it hides is not on the page.
pub fn process(page: &mut Page) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    page.family(
        Kind::Counter,
        "process_cpu_seconds_total",
        "CPU time of the process, by itself and in the kernel.",
    )
    .measured(&[], cpu_seconds(&stat));
    let files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count());
    page.family(Kind::Gauge, "process_open_fds", "Open files and sockets.").measured(&[], files);
    page.family(Kind::Gauge, "process_max_fds", "Bound of it: the soft limit of open files.")
        .measured(&[], getrlimit(Resource::Nofile).current);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    page.family(Kind::Gauge, "process_resident_memory_bytes", "Memory that is in RAM.")
        .measured(&[], bytes(&status, "VmRSS:"));
    page.family(
        Kind::Gauge,
        "process_anonymous_memory_bytes",
        "The part of it that is no file: what the process has allocated.",
    )
    .measured(&[], bytes(&status, "RssAnon:"));
    page.family(Kind::Gauge, "process_virtual_memory_bytes", "Address space that is in use.")
        .measured(&[], bytes(&status, "VmSize:"));
    page.family(Kind::Gauge, "process_threads", "Threads.")
        .measured(&[], number(&status, "Threads:"));
}

/// The 14th and 15th field of `/proc/self/stat`. The second is a name that may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}

fn number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A line such as `VmRSS:     12345 kB`.
fn bytes(status: &str, name: &str) -> Option<u64> {
    Some(number(status, name)? * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 5 0 100 1 1";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(bytes("Name:\tx\nVmRSS:\t   12 kB\n", "VmRSS:"), Some(12_288));
    }

    #[test]
    fn every_family_has_its_value_here() {
        let mut page = Page::default();

        process(&mut page);

        let page = page.finish();
        let samples = page.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples, 7, "{page}");
    }
}

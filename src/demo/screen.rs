//! What the demo says on standard output.

use std::{
    io::{self, ErrorKind, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::{audit::Verdict, folder::Folder};
use crate::event::Address;

/// Lines of progress between two repetitions of the table's head.
const HEAD_EVERY: u64 = 20;

const HEAD: &str = "\
\n     s   blocks     read  broken  repeats     kept   stored     cast  lag p50      p99  clients\n";

/// All counters since the start, and the delays of the last second.
pub struct Progress {
    pub seconds: u64,
    pub blocks: u64,
    pub read: u64,
    pub broken_lines: u64,
    pub repeats: u64,
    pub kept: u64,
    pub stored: u64,
    pub cast: u64,
    pub delays: Vec<Duration>,
    pub sessions: i64,
}

/// Writes and shows at once. Tells whether somebody still reads: `nodecast demo | head` ends.
///
/// # Errors
/// When standard output cannot be written, a full disk for one.
pub fn say(text: &str) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}

/// Where to look, ready to be pasted.
pub fn addresses(
    address: SocketAddr,
    folder: &Folder,
    rate: f64,
    users: usize,
    listed: Address,
) -> String {
    let at = reachable(address);
    let root = folder.root().display();
    let kept = if folder.is_temporary() { "removed at the end" } else { "kept" };
    format!(
        "\
nodecast demo: a simulated node writes {rate} blocks a second, everything behind it is real.
It has {users} users; the events of every second one are listed: kept, stored and cast.

  live            ws://{at}/v1/ws
  live, older     ws://{at}/ws
  in a browser    scripts/test_client.html#{at}
  history         curl 'http://{at}/v1/events?order=desc&limit=3'
  official, live  ws://{at}/ws, as clients of the official API speak it
  official        curl http://{at}/info -d '{{\"type\":\"userFills\",\"user\":\"{listed}\"}}'
  status          curl http://{at}/v1/status
  health          curl http://{at}/health
  files           {root} ({kept})

read: events in the files; broken: lines that a crash of the node cut; repeats: listed events
that the node wrote again; cast: received by the demo's own client over its WebSocket; lag:
from the node's writing of a block to that client, in the last second.
"
    )
}

/// One line of the table, with its head when it is due.
pub fn progress(progress: &mut Progress) -> String {
    let Progress { seconds, blocks, read, broken_lines, .. } = *progress;
    let Progress { repeats, kept, stored, cast, sessions, .. } = *progress;
    progress.delays.sort_unstable();
    let (p50, p99) = (percentile(&progress.delays, 50), percentile(&progress.delays, 99));
    let head = if seconds % HEAD_EVERY == 1 { HEAD } else { "" };
    format!(
        "{head}{seconds:>6} {blocks:>8} {read:>8} {broken_lines:>7} {repeats:>8} {kept:>8} \
         {stored:>8} {cast:>8} {p50:>8} {p99:>8} {sessions:>8}\n"
    )
}

/// The last line of a demo.
pub fn verdict(verdict: &Verdict) -> String {
    let Verdict { written, stored, lost, twice, altered, invented } = verdict;
    let head = if verdict.is_equal() { "Equal" } else { "NOT EQUAL" };
    let invented =
        if *invented == 0 { String::new() } else { format!(", {invented} never written") };
    format!(
        "{head}: {written} written, {stored} stored, {lost} lost, {twice} twice, \
         {altered} altered{invented}.\n"
    )
}

fn percentile(sorted: &[Duration], percent: usize) -> String {
    match sorted.get(sorted.len().saturating_sub(1) * percent / 100) {
        Some(delay) => format!("{:.2} ms", delay.as_secs_f64() * 1_000.0),
        None => "-".to_owned(),
    }
}

/// The address under which a client on this machine finds the port.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_whether_all_is_equal() {
        let equal = Verdict { written: 2, stored: 2, ..Verdict::default() };
        let lost = Verdict { written: 2, stored: 2, lost: 1, invented: 1, ..Verdict::default() };

        assert_eq!(verdict(&equal), "Equal: 2 written, 2 stored, 0 lost, 0 twice, 0 altered.\n");
        assert_eq!(
            verdict(&lost),
            "NOT EQUAL: 2 written, 2 stored, 1 lost, 0 twice, 0 altered, 1 never written.\n"
        );
    }

    #[test]
    fn a_percentile_is_one_of_the_measured_values() {
        let delays: Vec<_> = (1..=100).map(Duration::from_millis).collect();

        assert_eq!(percentile(&delays, 50), "50.00 ms");
        assert_eq!(percentile(&delays, 99), "99.00 ms");
        assert_eq!(percentile(&[], 99), "-");
    }

    #[test]
    fn a_wildcard_address_is_shown_as_one_that_can_be_opened() {
        assert_eq!(reachable("0.0.0.0:80".parse().unwrap()).to_string(), "127.0.0.1:80");
        assert_eq!(reachable("[::]:80".parse().unwrap()).to_string(), "[::1]:80");
        assert_eq!(reachable("10.0.0.1:80".parse().unwrap()).to_string(), "10.0.0.1:80");
    }
}

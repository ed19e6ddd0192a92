//! The addresses to listen on: free, ours already, or somebody else's.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use socket2::{Domain, Socket, Type};

use super::{
    proc::{self, Process},
    report::Report,
};
use crate::config::Config;

/// Looks at each address. Gives the process of a daemon that runs there.
pub fn check(config: &Config, report: &mut Report) -> Option<Process> {
    report.group("ports");
    let addresses = [
        ("http.listen", Some(config.http.listen)),
        ("http.metrics_listen", config.http.metrics_listen),
    ];
    let mut running = None;
    for (key, address) in addresses {
        if let Some(address) = address {
            running = check_one(key, address, report).or(running);
        }
    }
    running
}

fn check_one(key: &str, address: SocketAddr, report: &mut Report) -> Option<Process> {
    let shown = format!("{key} {address}");
    // A look at the table disturbs nobody; only where nobody listens an address is tried.
    if address.port() != 0
        && let Some(listener) = proc::listener(address)
    {
        return match listener {
            Some(process) if process.name == "nodecast" => {
                report.ok(format!("{shown} is taken by nodecast itself, process {}", process.id));
                Some(process)
            }
            Some(process) => {
                report.fail(
                    format!("{shown} is taken by {}, process {}", process.name, process.id),
                    format!("stop it, or give another port in {key}"),
                );
                None
            }
            None => {
                report.fail(
                    format!("{shown} is taken by a process of another user"),
                    format!(
                        "as root: ss -ltnp 'sport = :{}'; or give another port in {key}",
                        address.port()
                    ),
                );
                None
            }
        };
    }
    match try_address(address) {
        Ok(()) => report.ok(format!("{shown} is free")),
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need AmbientCapabilities=CAP_NET_BIND_SERVICE, see \
                     nodecast.service"
                        .to_owned()
                }
                io::ErrorKind::AddrNotAvailable => {
                    let all = if address.is_ipv4() { "0.0.0.0" } else { "[::]" };
                    format!("give an address of this machine, or {all} for all of them, in {key}")
                }
                _ => format!("give another address in {key}"),
            };
            report.fail(format!("{shown} cannot be used: {error}"), remedy);
        }
    }
    if is_public(address.ip()) {
        report.warn(
            format!("{shown} is open to every network of this machine, without authentication"),
            "listen on a private address, or put a firewall or a reverse proxy before it",
        );
    }
    None
}

/// Binds and listens not: a daemon that starts in this moment is not in its way.
fn try_address(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            !(address.is_loopback() || address.is_private() || address.is_link_local())
        }
        IpAddr::V6(address) => {
            !(address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Mark;

    #[test]
    fn an_address_that_others_can_reach_is_to_look_at() {
        let warnings = |address: &str| {
            let mut report = Report::default();
            check_one("http.listen", address.parse().unwrap(), &mut report);
            report.count(Mark::Warn)
        };

        assert_eq!((warnings("127.0.0.1:0"), warnings("0.0.0.0:0")), (0, 1));
        let is_open = |address: &str| is_public(address.parse().unwrap());
        assert!(["8.8.8.8", "::", "2001:db8::1"].into_iter().all(is_open));
        let closed = ["10.0.0.1", "169.254.1.1", "::1", "::ffff:127.0.0.1", "fd00::1", "fe80::1"];
        assert!(!closed.into_iter().any(is_open));
    }
}

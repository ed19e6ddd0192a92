//! What the system must allow for as many sessions as are configured, set or checked at the start.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use slog::{Logger, info, warn};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Config;

/// Files beside those of clients: hour files, the database, listeners.
const OTHER_FILES: u64 = 256;

/// Connections that may wait to be accepted; `net.core.somaxconn` caps it. The standard library asks
/// for 128, and a client beyond that is not refused but tries again after a second: thousands that
/// come back at once would meet that.
const BACKLOG: i32 = 4_096;

/// How many open files as many sessions and connections need as are configured.
pub fn files_needed(config: &Config) -> u64 {
    let clients = config.session.max_sessions + config.http.max_connections;
    clients as u64 + u64::from(config.store.read_connections) + OTHER_FILES
}

/// Listens with room for many who come at once.
///
/// # Errors
/// Those of `bind` and `listen`.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // As the standard library does: a port whose last connections still fade away can be taken.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Allows this process the open files that it needs, as far as the system lets it, and says what to
/// set where it does not.
pub fn allow_files(config: &Config, logger: &Logger) {
    let needed = files_needed(config);
    let limit = getrlimit(Resource::Nofile);
    let Some(soft) = limit.current.filter(|soft| *soft < needed) else { return };
    let most = limit.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit { current: Some(needed.min(most)), maximum: limit.maximum };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => needed.min(most),
        Err(_) => soft,
    };
    if allowed < needed {
        warn!(logger, "fewer open files are allowed than all sessions need: \
            set LimitNOFILE in the unit (or ulimit -n), or lower session.max_sessions";
            "allowed" => allowed, "needed" => needed);
    } else {
        info!(logger, "limit of open files raised"; "from" => soft, "to" => allowed);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, net::TcpStream, time::Duration};

    use super::*;

    /// More than the standard library lets wait.
    const CLIENTS: usize = 300;

    #[test]
    fn hundreds_of_clients_may_wait_to_be_accepted() {
        let most = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        if most.trim().parse::<usize>().unwrap() < CLIENTS {
            eprintln!("SKIPPED: net.core.somaxconn is {most}");
            return;
        }
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();

        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_secs(20));
        // Kept: an open one waits in the queue.
        let waiting: Vec<_> = (0..CLIENTS).map(connect).collect();

        assert!(waiting.iter().all(Result::is_ok));
    }
}

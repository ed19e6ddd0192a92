//! What `/proc` tells of other processes, as far as this user may see it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub id: u32,
    pub name: String,
}

/// Who listens at an address. The process is missing where it belongs to somebody else.
pub fn listener(address: SocketAddr) -> Option<Option<Process>> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .find_map(|table| table.lines().find_map(|line| listening_inode(line, address)))?;
    Some(owner_of_socket(inode))
}

/// The socket of a line of `/proc/net/tcp`, when it listens at this address or at all addresses.
fn listening_inode(line: &str, address: SocketAddr) -> Option<u64> {
    const LISTEN: &str = "0A";
    let words: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
    let (ip, port) = local.split_once(':')?;
    let ip = parse_ip(ip)?;
    let meets = ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
    let is_it = *state == LISTEN && u16::from_str_radix(port, 16) == Ok(address.port()) && meets;
    is_it.then(|| inode.parse().ok())?
}

/// Addresses stand there as 32-bit words in the machine's order.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            let bytes: [u8; 16] = words.try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

fn owner_of_socket(inode: u64) -> Option<Process> {
    let wanted = PathBuf::from(format!("socket:[{inode}]"));
    processes().find(|process| {
        let open = fs::read_dir(format!("/proc/{}/fd", process.id)).into_iter().flatten();
        open.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|link| link == wanted))
    })
}

/// Every process that can be seen.
pub fn processes() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        Some(Process { id, name: name(id) })
    })
}

fn name(id: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// The soft limit of open files of a process.
pub fn open_file_limit(process: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// A number in a file of `/proc/sys`.
pub fn setting(path: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/{path}")).ok()?.trim().parse().ok()
}

/// The inotify instances and watches of the processes of this user.
pub fn inotify_use() -> (u64, u64) {
    let (mut instances, mut watches) = (0, 0);
    for process in processes() {
        let open = fs::read_dir(format!("/proc/{}/fdinfo", process.id)).into_iter().flatten();
        for file in open.flatten() {
            let Ok(text) = fs::read_to_string(file.path()) else { continue };
            let found = text.lines().filter(|line| line.starts_with("inotify ")).count() as u64;
            instances += u64::from(found > 0);
            watches += found;
        }
    }
    (instances, watches)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_process_that_listens_is_found_in_both_families() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 has nothing to look for.
            let Ok(listener_) = TcpListener::bind(address) else { continue };
            let address = listener_.local_addr().unwrap();

            let found = listener(address).unwrap().unwrap();

            assert_eq!(found.id, std::process::id());
            drop(listener_);
            assert_eq!(listener(address), None);
        }
    }

    #[test]
    fn a_listener_on_all_addresses_is_in_the_way_of_one() {
        let line =
            "  0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 77 1";
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();

        assert_eq!(listening_inode(line, address("127.0.0.1:8080")), Some(77));
        assert_eq!(listening_inode(line, address("127.0.0.1:8081")), None);
        // Established, not listening.
        assert_eq!(listening_inode(&line.replace(" 0A ", " 01 "), address("127.0.0.1:8080")), None);
    }
}

//! The list as a key of Redis: a sorted set, whose scores tell when a member was listed, or a plain
//! set.
//!
//! Place in the pipeline: what `WhitelistKeeper` asks when the list is in Redis. Invariants: a list
//! is used only when it was scanned as a whole; one request is under way at a time, each bounded by
//! [`RESPONSE_TIMEOUT`]; after a fault everything is scanned again, because what answers next may be
//! another server.
//!
//! What is new in a sorted set is found by score, cheaply and often. Scores may lie (one score for
//! thousands, old ones, times in the future), so the number of members is compared as well: what the
//! scores do not explain is found by a scan.

use std::time::{Duration, Instant, SystemTime};

use ahash::HashSet;
use bb8_redis::redis::{
    self, AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError,
    aio::MultiplexedConnection,
};
use xxhash_rust::xxh3::xxh3_64;

use super::set::{Verdict, Whitelist};
use crate::{
    config::{RedisUrl, WhitelistConfig},
    event::Address,
};

/// The library waits half a second, too short for a busy server.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Members that the server looks at in one step of a scan: about a millisecond of its time.
const SCAN_COUNT: usize = 1_000;

/// Scans that are begun anew because the list changed strongly under them.
const SCAN_ATTEMPTS: usize = 3;

/// Up to this many members, a list is scanned every [`SCAN_INTERVAL`]; a longer one in proportion
/// less often.
const SHORT_LIST: u64 = 100_000;

/// Pause between two scans of a sorted set, by which removed members are found.
const SCAN_INTERVAL: Duration = Duration::from_secs(10);

/// Seconds before the newest score from which on scores are asked for again: clocks of those who
/// add members differ.
const OVERLAP_SECS: f64 = 60.0;

/// Most members that are asked for by score at a time. Of more, only the number is compared.
const MAX_RANGE: u64 = 10_000;

/// Scores from here on are milliseconds: as seconds it is the year 5138, as milliseconds 1973.
const FIRST_MILLISECONDS: f64 = 1e11;

/// Characters of a skipped member that are shown.
const SHOWN_CHARS: usize = 60;

/// Why Redis gave no list.
#[derive(Debug, thiserror::Error)]
pub enum RedisFault {
    /// Away, refusing, loading its data, or too slow.
    #[error(transparent)]
    Server(#[from] RedisError),
    /// Also what FLUSHALL leaves, and an empty set: Redis knows none.
    #[error("the key does not exist")]
    Missing,
    #[error("the key is a {found}, not a sorted set or a set")]
    WrongType { found: String },
    /// The key was replaced or changed strongly while it was read.
    #[error("the list changed while it was scanned: {found} of {of} members were found")]
    Unfinished { found: u64, of: u64 },
    #[error("none of its {members} members is an address, the first is {first:?}")]
    NoAddresses { members: usize, first: String },
}

/// Members that are no addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    pub count: usize,
    /// The text of one of them.
    pub example: Option<String>,
}

/// A whole list.
#[derive(Debug, Default)]
pub struct Scan {
    pub addresses: HashSet<Address>,
    pub skipped: Skipped,
    /// Equal lists have equal digests, in whatever order their members came.
    pub digest: u64,
}

/// What a look found.
#[derive(Debug)]
pub enum News {
    /// Nothing that a look without a scan can find.
    Nothing,
    /// Members that the list lacks.
    Added(Vec<Address>),
    /// Everything was read.
    Whole(Scan),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sorted,
    Plain,
}

/// The key, and what is known of it.
pub struct RedisList {
    client: Client,
    key: String,
    /// Driven by the thread on which it was made. Dropped after a fault of the server.
    connection: Option<MultiplexedConnection>,
    /// `None`: everything has to be scanned.
    known: Option<Known>,
}

/// What the last looks saw.
#[derive(Clone, Copy, Debug)]
struct Known {
    kind: Kind,
    members: u64,
    /// The highest finite score.
    newest: Option<f64>,
    scanned: Instant,
}

impl RedisList {
    /// Connects to nobody yet.
    pub fn new(url: &RedisUrl, config: &WhitelistConfig) -> Result<Self, RedisFault> {
        let client = Client::open(url.secret())?;
        Ok(Self { client, key: config.redis_key.clone(), connection: None, known: None })
    }

    /// Lets the connection go. The next request makes one on its own thread.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    /// The pause until the next look. A plain set is scanned at each one.
    pub fn pause(&self, refresh_interval: Duration) -> Duration {
        let pause = refresh_interval / 2;
        match self.known {
            Some(Known { kind: Kind::Plain, members, .. }) => stretched(pause, members),
            _ => pause,
        }
    }

    /// Reads everything.
    pub async fn scan(&mut self) -> Result<Scan, RedisFault> {
        let result = self.try_scan().await;
        self.settle(result)
    }

    /// Reads what is new, or everything when that is due.
    pub async fn look(&mut self, list: &Whitelist) -> Result<News, RedisFault> {
        let result = self.try_look(list).await;
        self.settle(result)
    }

    fn settle<T>(&mut self, result: Result<T, RedisFault>) -> Result<T, RedisFault> {
        if let Err(fault) = &result {
            self.known = None;
            if matches!(fault, RedisFault::Server(_)) {
                self.connection = None;
            }
        }
        result
    }

    async fn try_look(&mut self, list: &Whitelist) -> Result<News, RedisFault> {
        let known = match self.known {
            Some(known)
                if known.kind == Kind::Sorted
                    && known.scanned.elapsed() < stretched(SCAN_INTERVAL, known.members) =>
            {
                known
            }
            _ => return Ok(News::Whole(self.try_scan().await?)),
        };
        let members: u64 = self.ask(redis::cmd("ZCARD").arg(&self.key)).await?;
        let from = match known.newest {
            Some(newest) => recent(newest, SystemTime::now()).to_string(),
            None => "-inf".to_owned(),
        };
        let mut count = redis::cmd("ZCOUNT");
        let in_range: u64 = self.ask(count.arg(&self.key).arg(&from).arg("+inf")).await?;
        let mut newest = known.newest;
        let mut added = HashSet::default();
        if in_range <= MAX_RANGE {
            let mut range = redis::cmd("ZRANGEBYSCORE");
            range.arg(&self.key).arg(&from).arg("+inf").arg("WITHSCORES");
            let found: Vec<Vec<u8>> = self.ask(&range).await?;
            for (member, score) in found.chunks_exact(2).map(|pair| (&pair[0], &pair[1])) {
                newest = newer(newest, score);
                let address = Address::parse(member).ok();
                added.extend(address.filter(|new| list.contains(new) != Verdict::Listed));
            }
        }
        let is_explained = members == known.members + added.len() as u64;
        // Without the exact set, a list can only be built from all its members.
        let is_useless = !added.is_empty() && list.exact().is_none();
        if is_useless || (!is_explained && members <= SHORT_LIST) {
            return Ok(News::Whole(self.try_scan().await?));
        }
        self.known = Some(Known { members, newest, ..known });
        Ok(if added.is_empty() { News::Nothing } else { News::Added(added.into_iter().collect()) })
    }

    async fn try_scan(&mut self) -> Result<Scan, RedisFault> {
        let found: String = self.ask(redis::cmd("TYPE").arg(&self.key)).await?;
        let kind = match found.as_str() {
            "zset" => Kind::Sorted,
            "set" => Kind::Plain,
            "none" => return Err(RedisFault::Missing),
            _ => return Err(RedisFault::WrongType { found }),
        };
        let cardinality = match kind {
            Kind::Sorted => "ZCARD",
            Kind::Plain => "SCARD",
        };
        let cardinality = redis::cmd(cardinality).arg(&self.key).clone();
        let mut before: u64 = self.ask(&cardinality).await?;
        let mut unfinished = (0, before);
        for _ in 0..SCAN_ATTEMPTS {
            let mut reading = Reading::default();
            self.read_all(kind, &mut reading).await?;
            let after: u64 = self.ask(&cardinality).await?;
            let (read, least) = (reading.members.len() as u64, before.min(after));
            // Members that come and go meanwhile may be missed; the next scan finds them.
            if read + least / 100 >= least && after > 0 {
                let newest = reading.newest;
                self.known = Some(Known { kind, members: after, newest, scanned: Instant::now() });
                return reading.finish();
            }
            (before, unfinished) = (after, (read, least));
        }
        Err(RedisFault::Unfinished { found: unfinished.0, of: unfinished.1 })
    }

    async fn read_all(&mut self, kind: Kind, reading: &mut Reading) -> Result<(), RedisFault> {
        let (command, width) = match kind {
            Kind::Sorted => ("ZSCAN", 2),
            Kind::Plain => ("SSCAN", 1),
        };
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = redis::cmd(command);
            scan.arg(&self.key).arg(&cursor).arg("COUNT").arg(SCAN_COUNT);
            let (next, found): (String, Vec<Vec<u8>>) = self.ask(&scan).await?;
            for member in found.chunks_exact(width) {
                reading.add(&member[0], member.get(1).map(Vec::as_slice));
            }
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, RedisFault> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(CONNECT_TIMEOUT))
                    .set_response_timeout(Some(RESPONSE_TIMEOUT));
                let connected = self.client.get_multiplexed_async_connection_with_config(&config);
                none.insert(connected.await?)
            }
        };
        Ok(command.query_async(connection).await?)
    }
}

/// A scan under way.
#[derive(Default)]
struct Reading {
    scan: Scan,
    /// Hashes of the members: a scan may bring one twice.
    members: HashSet<u64>,
    newest: Option<f64>,
}

impl Reading {
    fn add(&mut self, member: &[u8], score: Option<&[u8]>) {
        let hash = xxh3_64(member);
        if !self.members.insert(hash) {
            return;
        }
        self.scan.digest = self.scan.digest.wrapping_add(hash);
        if let Some(score) = score {
            self.newest = newer(self.newest, score);
        }
        match Address::parse(member.trim_ascii()) {
            Ok(address) => {
                self.scan.addresses.insert(address);
            }
            Err(_) => {
                let skipped = &mut self.scan.skipped;
                skipped.count += 1;
                skipped.example.get_or_insert_with(|| {
                    let text =
                        String::from_utf8_lossy(&member[..member.len().min(4 * SHOWN_CHARS)]);
                    text.chars().take(SHOWN_CHARS).collect()
                });
            }
        }
    }

    fn finish(self) -> Result<Scan, RedisFault> {
        match self.scan {
            Scan { addresses, skipped: Skipped { count, example: Some(first) }, .. }
                if addresses.is_empty() =>
            {
                Err(RedisFault::NoAddresses { members: count, first })
            }
            scan => Ok(scan),
        }
    }
}

/// An interval that grows with the list.
fn stretched(interval: Duration, members: u64) -> Duration {
    interval.mul_f64((members as f64 / SHORT_LIST as f64).max(1.0))
}

/// The score from which on members may be new. A score of the future must not hide those of now.
fn recent(newest: f64, now: SystemTime) -> f64 {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let unit = if newest >= FIRST_MILLISECONDS { 1_000.0 } else { 1.0 };
    newest.min(now * unit) - OVERLAP_SECS * unit
}

fn newer(newest: Option<f64>, score: &[u8]) -> Option<f64> {
    let score: Option<f64> = std::str::from_utf8(score).ok().and_then(|text| text.parse().ok());
    match (newest, score.filter(|score| score.is_finite())) {
        (Some(newest), Some(score)) => Some(newest.max(score)),
        (newest, score) => newest.or(score),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    // H22
    #[test]
    fn the_overlap_has_the_unit_of_the_scores_and_the_future_hides_nothing() {
        let now = at(1_773_532_800);

        assert_eq!(recent(1_773_532_000.0, now), 1_773_531_940.0);
        assert_eq!(recent(1_773_532_000_000.0, now), 1_773_531_940_000.0);
        assert_eq!(recent(9_999_999_999.0, now), 1_773_532_740.0);
        assert_eq!(recent(0.0, now), -60.0);
    }

    #[test]
    fn scores_that_are_no_times_are_passed_over() {
        assert_eq!(newer(None, b"1.5e3"), Some(1_500.0));
        assert_eq!(newer(Some(2.0), b"1"), Some(2.0));
        assert_eq!(newer(Some(2.0), b"inf"), Some(2.0));
        assert_eq!(newer(None, b"-inf"), None);
    }

    // H21
    #[test]
    fn scans_become_rarer_with_the_length_of_the_list() {
        assert_eq!(stretched(SCAN_INTERVAL, 100), SCAN_INTERVAL);
        assert_eq!(stretched(SCAN_INTERVAL, 100_000), SCAN_INTERVAL);
        assert_eq!(stretched(SCAN_INTERVAL, 1_000_000), 10 * SCAN_INTERVAL);
    }

    #[test]
    fn a_member_that_comes_twice_counts_once_and_one_that_is_no_address_is_named() {
        let mut reading = Reading::default();

        for member in ["nobody", "0x010461c14e146ac35fe42271bdc1134ee31c703a", "nobody", "x"] {
            reading.add(member.as_bytes(), None);
        }

        assert_eq!(reading.members.len(), 3);
        let scan = reading.finish().unwrap();
        assert_eq!(scan.addresses.len(), 1);
        assert_eq!(scan.skipped, Skipped { count: 2, example: Some("nobody".to_owned()) });
    }

    #[test]
    fn a_list_without_any_address_is_a_fault() {
        let mut reading = Reading::default();
        reading.add(b"nobody", None);

        let fault = reading.finish().unwrap_err();

        assert!(fault.to_string().contains("\"nobody\""), "{fault}");
    }
}

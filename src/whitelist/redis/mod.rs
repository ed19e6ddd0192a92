//! The list as a key of Redis: a sorted set, whose scores tell when a member was listed, or a plain
//! set.
//!
//! Place in the pipeline: what the Redis source of the whitelist asks. Invariants: a list
//! is used only when it was scanned as a whole; one request is under way at a time, each bounded by
//! a timeout; after a fault everything is scanned again, because what answers next may be
//! another server.
//!
//! What is new in a sorted set is found by score, cheaply and often. Scores may lie (one score for
//! thousands, old ones, times in the future), so the number of members is compared as well: what the
//! scores do not explain is found by a scan.

use std::time::{Duration, Instant, SystemTime};

use ahash::HashSet;
use bb8_redis::redis::{self, Client, Cmd, FromRedisValue, RedisError, aio::MultiplexedConnection};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    edit::Edit,
    list::{AddressList, ListFault},
    sources::Folder,
};
use crate::{config::RedisUrl, event::Address, redis_client};

mod edit;
mod scan;

use self::scan::{Kind, Reading};
pub use self::scan::{Scan, Skipped};

/// Members that the server looks at in one step of a scan: about a millisecond of its time.
const SCAN_COUNT: usize = 1_000;

/// Scans that are begun anew because the list changed strongly under them.
const SCAN_ATTEMPTS: usize = 3;

/// Up to this many members, a list is scanned every [`SCAN_INTERVAL`], and before the daemon starts;
/// a longer one in proportion less often, and behind a list of the last run.
pub const SHORT_LIST: u64 = 100_000;

/// Pause between two scans of a sorted set, by which removed members are found.
const SCAN_INTERVAL: Duration = Duration::from_secs(10);

/// Seconds before the newest score from which on scores are asked for again: clocks of those who
/// add members differ.
const OVERLAP_SECS: f64 = 60.0;

/// Most members that are asked for by score at a time. Of more, only the number is compared.
const MAX_RANGE: u64 = 10_000;

/// Scores from here on are milliseconds: as seconds it is the year 5138, as milliseconds 1973.
const FIRST_MILLISECONDS: f64 = 1e11;

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
    /// The addresses could not be put away.
    #[error(transparent)]
    List(#[from] ListFault),
}

/// What a look found.
#[derive(Debug)]
pub enum News {
    /// Nothing that a look without a scan can find.
    Nothing,
    /// Members that the list lacks, and what they add to its digest.
    Added { addresses: Vec<Address>, digest: u64 },
    /// Everything was read.
    Whole(Scan),
}

/// The key, and what is known of it.
pub struct RedisList {
    client: Client,
    key: String,
    /// Where long lists are sorted.
    folder: Folder,
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
    pub fn new(url: &RedisUrl, key: &str, folder: Folder) -> Result<Self, RedisFault> {
        let client = redis_client::open(url)?;
        Ok(Self { client, key: key.to_owned(), folder, connection: None, known: None })
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

    /// Reads everything. With the digest of a list that is known, an equal one is not built again.
    pub async fn scan(&mut self, digest: Option<u64>) -> Result<Scan, RedisFault> {
        let result = self.try_scan(digest).await;
        self.settle(result)
    }

    /// Reads what is new, or everything when that is due. The digest is that of the list.
    pub async fn look(
        &mut self,
        list: &AddressList,
        digest: Option<u64>,
    ) -> Result<News, RedisFault> {
        let result = self.try_look(list, digest).await;
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

    async fn try_look(
        &mut self,
        list: &AddressList,
        digest: Option<u64>,
    ) -> Result<News, RedisFault> {
        let known = match self.known {
            Some(known)
                if known.kind == Kind::Sorted
                    && known.scanned.elapsed() < stretched(SCAN_INTERVAL, known.members) =>
            {
                known
            }
            _ => return Ok(News::Whole(self.try_scan(digest).await?)),
        };
        let members: u64 = self.ask(redis::cmd("ZCARD").arg(&self.key)).await?;
        let from = match known.newest {
            Some(newest) => recent(newest, SystemTime::now()).to_string(),
            None => "-inf".to_owned(),
        };
        let mut count = redis::cmd("ZCOUNT");
        let in_range: u64 = self.ask(count.arg(&self.key).arg(&from).arg("+inf")).await?;
        let mut newest = known.newest;
        let (mut added, mut added_digest) = (HashSet::default(), 0_u64);
        if in_range <= MAX_RANGE {
            let mut range = redis::cmd("ZRANGEBYSCORE");
            range.arg(&self.key).arg(&from).arg("+inf").arg("WITHSCORES");
            let found: Vec<Vec<u8>> = self.ask(&range).await?;
            for (member, score) in found.chunks_exact(2).map(|pair| (&pair[0], &pair[1])) {
                newest = newer(newest, score);
                let address = Address::parse(member.trim_ascii()).ok();
                if let Some(new) = address.filter(|new| !list.contains(new))
                    && added.insert(new)
                {
                    added_digest = added_digest.wrapping_add(xxh3_64(member));
                }
            }
        }
        let is_explained = members == known.members + added.len() as u64;
        if !is_explained && members <= SHORT_LIST {
            return Ok(News::Whole(self.try_scan(digest).await?));
        }
        self.known = Some(Known { members, newest, ..known });
        if added.is_empty() {
            return Ok(News::Nothing);
        }
        Ok(News::Added { addresses: added.into_iter().collect(), digest: added_digest })
    }

    async fn try_scan(&mut self, digest: Option<u64>) -> Result<Scan, RedisFault> {
        let kind = self.kind().await?;
        let members: u64 = self.ask(&self.cardinality(kind)).await?;
        // A long list is written to disk while it is built: not for nothing.
        if digest.is_some() && members > SHORT_LIST {
            let seen = self.read_whole(kind, || Reading::new(None)).await?;
            if digest == Some(seen.digest()) {
                return seen.finish(digest);
            }
        }
        let folder = self.folder.clone();
        let reading = self.read_whole(kind, || Reading::new(Some(&folder))).await?;
        reading.finish(digest)
    }

    async fn kind(&mut self) -> Result<Kind, RedisFault> {
        let found: String = self.ask(redis::cmd("TYPE").arg(&self.key)).await?;
        match found.as_str() {
            "zset" => Ok(Kind::Sorted),
            "set" => Ok(Kind::Plain),
            "none" => Err(RedisFault::Missing),
            _ => Err(RedisFault::WrongType { found }),
        }
    }

    fn cardinality(&self, kind: Kind) -> Cmd {
        let command = match kind {
            Kind::Sorted => "ZCARD",
            Kind::Plain => "SCARD",
        };
        redis::cmd(command).arg(&self.key).clone()
    }

    /// Reads until the list has held still enough.
    async fn read_whole(
        &mut self,
        kind: Kind,
        new: impl Fn() -> Reading,
    ) -> Result<Reading, RedisFault> {
        let cardinality = self.cardinality(kind);
        let mut before: u64 = self.ask(&cardinality).await?;
        let mut unfinished = (0, before);
        for _ in 0..SCAN_ATTEMPTS {
            let mut reading = new();
            self.each(kind, |member, score| Ok(reading.add(member, score)?)).await?;
            let after: u64 = self.ask(&cardinality).await?;
            let (read, least) = (reading.members(), before.min(after));
            // Members that come and go meanwhile may be missed; the next scan finds them.
            if read + least / 100 >= least && after > 0 {
                let newest = reading.newest();
                self.known = Some(Known { kind, members: after, newest, scanned: Instant::now() });
                return Ok(reading);
            }
            (before, unfinished) = (after, (read, least));
        }
        Err(RedisFault::Unfinished { found: unfinished.0, of: unfinished.1 })
    }

    /// Hands every member on, some more than once, with its score in a sorted set.
    async fn each(
        &mut self,
        kind: Kind,
        mut sink: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), RedisFault>,
    ) -> Result<(), RedisFault> {
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
                sink(&member[0], member.get(1).map(Vec::as_slice))?;
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
            none => none.insert(redis_client::connect(&self.client).await?),
        };
        Ok(command.query_async(connection).await?)
    }
}

/// How long a daemon may take to look for what a hand changed: in a sorted set, and in a plain one.
pub fn found_within(edit: Edit, members: u64, refresh_interval: Duration) -> (Duration, Duration) {
    let plain = stretched(refresh_interval / 2, members).max(refresh_interval);
    let sorted = match edit {
        // The number of members tells at the next look.
        Edit::Remove if members > SHORT_LIST => {
            stretched(SCAN_INTERVAL, members).max(refresh_interval)
        }
        Edit::Add | Edit::AddToExisting | Edit::Remove => refresh_interval,
    };
    (sorted, plain)
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

    #[test]
    fn what_a_hand_changes_in_a_long_list_is_found_later() {
        let secs = |edit, members| {
            let (sorted, plain) = found_within(edit, members, Duration::from_secs(5));
            (sorted.as_secs(), plain.as_secs())
        };

        assert_eq!((secs(Edit::Add, 100_000), secs(Edit::Remove, 100_000)), ((5, 5), (5, 5)));
        assert_eq!(secs(Edit::Add, 10_000_000), (5, 250));
        assert_eq!(secs(Edit::Remove, 10_000_000), (1_000, 250));
    }

    // H21
    #[test]
    fn scans_become_rarer_with_the_length_of_the_list() {
        assert_eq!(stretched(SCAN_INTERVAL, 100), SCAN_INTERVAL);
        assert_eq!(stretched(SCAN_INTERVAL, 100_000), SCAN_INTERVAL);
        assert_eq!(stretched(SCAN_INTERVAL, 1_000_000), 10 * SCAN_INTERVAL);
    }
}

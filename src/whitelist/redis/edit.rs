//! Changes a list in Redis: what `nodecast whitelist add --redis` and `remove --redis` do, and a client that
//! may.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use bb8_redis::redis;

use super::{super::edit::Edited, FIRST_MILLISECONDS, RedisFault, RedisList, newer, scan::Kind};
use crate::event::Address;

/// The members that spell each listed address; one may be there in several cases.
pub type Spellings = BTreeMap<Address, BTreeSet<Vec<u8>>>;

impl RedisList {
    /// Which of some addresses are listed. Looks at the usual spelling first, at all members only
    /// for what is not there.
    ///
    /// # Errors
    /// When there is no list.
    pub async fn find(
        &mut self,
        asked: &BTreeSet<Address>,
    ) -> Result<BTreeSet<Address>, RedisFault> {
        let kind = self.kind().await?;
        let mut found = BTreeSet::new();
        for address in asked {
            if self.has(kind, address).await? {
                found.insert(*address);
            }
        }
        if found.len() < asked.len() {
            found.extend(self.spellings(kind, asked).await?.into_keys());
        }
        Ok(found)
    }

    /// Adds addresses. A list that does not exist becomes a sorted set, where it may be made. Who is listed
    /// keeps its score.
    ///
    /// # Errors
    /// When the key is of another type, or missing. Nothing was changed then.
    pub async fn add(
        &mut self,
        addresses: &BTreeSet<Address>,
        may_make: bool,
    ) -> Result<Edited, RedisFault> {
        let kind = match self.kind().await {
            Err(RedisFault::Missing) if may_make => Kind::Sorted,
            kind => kind?,
        };
        let listed = self.spellings(kind, addresses).await?;
        let before: u64 = self.ask(&self.cardinality(kind)).await?;
        let changed: BTreeSet<_> =
            addresses.iter().filter(|address| !listed.contains_key(address)).copied().collect();
        let edited = Edited { changed, before: before as usize };
        if edited.changed.is_empty() {
            return Ok(edited);
        }
        let mut command = match kind {
            Kind::Sorted => redis::cmd("ZADD"),
            Kind::Plain => redis::cmd("SADD"),
        };
        command.arg(&self.key);
        match kind {
            Kind::Plain => {
                for address in &edited.changed {
                    command.arg(address.to_string());
                }
            }
            Kind::Sorted => {
                let score = score_of(self.highest_score().await?, SystemTime::now());
                command.arg("NX");
                for address in &edited.changed {
                    command.arg(score).arg(address.to_string());
                }
            }
        }
        let _added: u64 = self.ask(&command).await?;
        Ok(edited)
    }

    /// Removes addresses, in whatever case they are listed.
    ///
    /// # Errors
    /// When there is no list.
    pub async fn remove(&mut self, addresses: &BTreeSet<Address>) -> Result<Edited, RedisFault> {
        let kind = self.kind().await?;
        let before: u64 = self.ask(&self.cardinality(kind)).await?;
        let listed = self.spellings(kind, addresses).await?;
        if !listed.is_empty() {
            let mut command = match kind {
                Kind::Sorted => redis::cmd("ZREM"),
                Kind::Plain => redis::cmd("SREM"),
            };
            command.arg(&self.key);
            for member in listed.values().flatten() {
                command.arg(member);
            }
            let _removed: u64 = self.ask(&command).await?;
        }
        Ok(Edited { changed: listed.into_keys().collect(), before: before as usize })
    }

    async fn has(&mut self, kind: Kind, address: &Address) -> Result<bool, RedisFault> {
        let member = address.to_string();
        match kind {
            Kind::Sorted => {
                let score: Option<String> =
                    self.ask(redis::cmd("ZSCORE").arg(&self.key).arg(member)).await?;
                Ok(score.is_some())
            }
            Kind::Plain => self.ask(redis::cmd("SISMEMBER").arg(&self.key).arg(member)).await,
        }
    }

    async fn spellings(
        &mut self,
        kind: Kind,
        asked: &BTreeSet<Address>,
    ) -> Result<Spellings, RedisFault> {
        let mut found = Spellings::new();
        self.each(kind, |member, _score| {
            if let Ok(address) = Address::parse(member.trim_ascii())
                && asked.contains(&address)
            {
                found.entry(address).or_default().insert(member.to_owned());
            }
            Ok(())
        })
        .await?;
        Ok(found)
    }

    async fn highest_score(&mut self) -> Result<Option<f64>, RedisFault> {
        let mut range = redis::cmd("ZREVRANGEBYSCORE");
        range.arg(&self.key).arg("(+inf").arg("-inf").arg("WITHSCORES").arg("LIMIT").arg(0).arg(1);
        let found: Vec<Vec<u8>> = self.ask(&range).await?;
        Ok(found.get(1).and_then(|score| newer(None, score)))
    }
}

/// Now, in the unit of the scores that are there; seconds where there are none.
fn score_of(highest: Option<f64>, now: SystemTime) -> u64 {
    let now: Duration = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    match highest {
        Some(highest) if highest >= FIRST_MILLISECONDS => now.as_millis() as u64,
        _ => now.as_secs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_has_the_unit_of_those_that_are_there() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_773_532_800_123);

        assert_eq!(score_of(None, now), 1_773_532_800);
        assert_eq!(score_of(Some(1_700_000_000.0), now), 1_773_532_800);
        assert_eq!(score_of(Some(1_700_000_000_000.0), now), 1_773_532_800_123);
    }
}

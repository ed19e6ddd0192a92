//! How the keeper follows a list in Redis.
//!
//! A look is a future for which the actor waits: looks and reloads never overlap, and their order is
//! that in which they were asked for. Only this thread waits.

use std::time::Duration;

use actix::{fut::LocalBoxActorFuture, prelude::*};
use slog::{Logger, warn};

use super::{
    super::{
        change::WhitelistChange,
        redis::{News, RedisFault, RedisList, Scan, Skipped},
        set::Whitelist,
    },
    WhitelistError, WhitelistKeeper, add_configured,
};
use crate::config::{RedisUrl, WhitelistConfig};

/// Pause after the first failed look; it doubles with each further one,
const FIRST_RETRY: Duration = Duration::from_millis(250);

/// up to this.
const LAST_RETRY: Duration = Duration::from_secs(5);

impl WhitelistKeeper {
    /// Reads the first list from Redis.
    pub(super) async fn open_redis(
        url: &RedisUrl,
        config: &WhitelistConfig,
        logger: &Logger,
    ) -> Result<Self, WhitelistError> {
        let fault = |fault| fault_of(url, config, fault);
        let mut redis = RedisList::new(url, config).map_err(fault)?;
        let Scan { mut addresses, skipped, digest } = redis.scan().await.map_err(fault)?;
        add_configured(config, &mut addresses)?;
        // The keeper goes on on a thread of its own.
        redis.disconnect();
        let keeper = Self::with(Whitelist::build(addresses, config), config, logger);
        keeper.note_skipped(skipped);
        Ok(Self { redis: Some(redis), digest: Some(digest), ..keeper })
    }

    /// Looks at Redis when it is time to.
    pub(super) fn look_later(&mut self, ctx: &mut Context<Self>) {
        let Some(redis) = &self.redis else { return };
        let pause = match self.failures {
            0 => redis.pause(self.config.refresh_interval),
            failures => retry_after(failures),
        };
        ctx.run_later(pause, Self::look);
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let Some(mut redis) = self.redis.take() else { return };
        let list = self.list.clone();
        let look = async move {
            let found = redis.look(&list).await;
            (redis, found)
        };
        ctx.wait(look.into_actor(self).map(|(redis, found), keeper, ctx| {
            keeper.redis = Some(redis);
            keeper.count_failure(found.as_ref().err());
            if let Err(error) = keeper.take(found) {
                keeper.note_problem(&error);
            }
            keeper.look_later(ctx);
        }));
    }

    /// Reads everything and accepts it, a large shrink too.
    pub(super) fn confirm(
        &mut self,
        mut redis: RedisList,
    ) -> LocalBoxActorFuture<Self, Result<WhitelistChange, WhitelistError>> {
        let scan = async move {
            let found = redis.scan().await;
            (redis, found)
        };
        Box::pin(scan.into_actor(self).map(|(redis, found), keeper, _ctx| {
            keeper.redis = Some(redis);
            keeper.count_failure(found.as_ref().err());
            let result = match found {
                Ok(scan) => keeper.take_whole(scan, true),
                Err(fault) => Err(keeper.fault(fault)),
            };
            if let Err(error) = &result {
                keeper.note_problem(error);
            }
            result
        }))
    }

    fn take(&mut self, found: Result<News, RedisFault>) -> Result<(), WhitelistError> {
        match found.map_err(|fault| self.fault(fault))? {
            // What a scan refused is still refused: only the next one can say that all is well.
            News::Nothing => {}
            News::Added(added) => {
                let mut addresses = self.list.exact().cloned().unwrap_or_default();
                addresses.extend(added);
                self.replace(addresses, false)?;
                let size = self.list.size();
                self.status.update(|state| state.size = size);
            }
            News::Whole(scan) => {
                self.take_whole(scan, false)?;
            }
        }
        Ok(())
    }

    fn take_whole(
        &mut self,
        scan: Scan,
        accept_shrink: bool,
    ) -> Result<WhitelistChange, WhitelistError> {
        let Scan { mut addresses, skipped, digest } = scan;
        self.note_skipped(skipped);
        add_configured(&self.config, &mut addresses)?;
        // Without the exact set only the digest tells that nothing has changed.
        let is_same = self.list.exact().is_none() && self.digest == Some(digest);
        let change = if is_same {
            WhitelistChange { added: 0, removed: 0 }
        } else {
            self.replace(addresses, accept_shrink)?
        };
        self.digest = Some(digest);
        self.settle();
        Ok(change)
    }

    fn count_failure(&mut self, fault: Option<&RedisFault>) {
        self.failures = if fault.is_some() { self.failures.saturating_add(1) } else { 0 };
    }

    fn fault(&self, fault: RedisFault) -> WhitelistError {
        let url = self.config.redis_url.as_ref().expect("only a list in Redis has such a fault");
        fault_of(url, &self.config, fault)
    }

    /// Tells of members that are no addresses, once while their number is the same.
    fn note_skipped(&self, skipped: Skipped) {
        let Skipped { count, example } = skipped;
        let mut is_new = false;
        self.status.update(|state| {
            is_new = count > 0 && state.skipped != count;
            (state.skipped, state.skipped_example) = (count, example.clone());
        });
        if is_new {
            warn!(self.logger, "members of the whitelist in Redis are no addresses and are skipped";
                "members" => count, "example" => example);
        }
    }
}

fn fault_of(url: &RedisUrl, config: &WhitelistConfig, fault: RedisFault) -> WhitelistError {
    WhitelistError::Redis { url: url.clone(), key: config.redis_key.clone(), fault }
}

fn retry_after(failures: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LAST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_between_failed_looks_grows_up_to_five_seconds() {
        let pauses = [1, 2, 3, 5, 6, u32::MAX].map(|failures| retry_after(failures).as_millis());

        assert_eq!(pauses, [250, 500, 1_000, 4_000, 5_000, 5_000]);
    }
}

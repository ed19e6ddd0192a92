//! How much a client may send in a minute.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::config::SessionConfig;

/// Most identities that are remembered after their last session, those first that have recovered last.
const MAX_RECOVERING: usize = 10_000;

/// What one client may send in a minute, by all its sessions together where it has an identity.
#[derive(Debug)]
pub struct Allowances {
    messages: Allowance,
    bytes: Allowance,
}

/// The [`Allowances`] of one session, or of all sessions of an identity.
#[derive(Clone, Debug)]
pub struct SharedAllowances(Arc<Mutex<Allowances>>);

impl Allowances {
    pub fn shared(limits: &SessionConfig, now: Instant) -> SharedAllowances {
        SharedAllowances(Arc::new(Mutex::new(Self {
            messages: Allowance::new(limits.max_messages_per_minute, now),
            bytes: Allowance::new(limits.max_bytes_per_minute, now),
        })))
    }

    /// Goes on with what is left to an identity that comes back.
    fn resumed(limits: &SessionConfig, before: &Self, now: Instant) -> Self {
        let resumed = |per_minute, before: &Allowance| {
            let fresh = Allowance::new(per_minute, now);
            // The limit may have been changed meanwhile.
            Allowance { left: fresh.per_minute * before.share(now), ..fresh }
        };
        Self {
            messages: resumed(limits.max_messages_per_minute, &before.messages),
            bytes: resumed(limits.max_bytes_per_minute, &before.bytes),
        }
    }
}

impl SharedAllowances {
    /// When all of it is back.
    pub(super) fn recovered_at(&self, now: Instant) -> Instant {
        let this = self.lock();
        let least = this.messages.share(now).min(this.bytes.share(now));
        now + Duration::from_secs_f64(60.0 * (1.0 - least))
    }

    fn lock(&self) -> MutexGuard<'_, Allowances> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether so many more messages may come.
    pub fn take_messages(&self, messages: u64, now: Instant) -> bool {
        self.lock().messages.take(messages, now)
    }

    /// Whether so many more bytes may come.
    pub fn take_bytes(&self, bytes: u64, now: Instant) -> bool {
        self.lock().bytes.take(bytes, now)
    }
}

/// A minute's allowance, which comes back bit by bit.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    /// 0: without limit.
    per_minute: f64,
    left: f64,
    at: Instant,
}

impl Allowance {
    fn new(per_minute: u64, now: Instant) -> Self {
        let per_minute = per_minute as f64;
        Self { per_minute, left: per_minute, at: now }
    }

    /// Takes so much of it; false when less is left.
    fn take(&mut self, amount: u64, now: Instant) -> bool {
        if self.per_minute == 0.0 {
            return true;
        }
        self.left = self.left_at(now) - amount as f64;
        self.at = now;
        self.left >= 0.0
    }

    fn left_at(&self, now: Instant) -> f64 {
        let back = now.saturating_duration_since(self.at).as_secs_f64() / 60.0 * self.per_minute;
        (self.left + back).min(self.per_minute)
    }

    /// What is left of the whole, which is 1; of a debt no more is remembered than a minute brings back.
    fn share(&self, now: Instant) -> f64 {
        if self.per_minute == 0.0 {
            return 1.0;
        }
        (self.left_at(now) / self.per_minute).max(-1.0)
    }
}

/// What is left to identities that have no session any more, until all of it is back: who was closed
/// because it said too much does not begin anew by coming back. Bounded in number, and in time to two
/// minutes and until somebody comes or goes.
#[derive(Debug, Default)]
pub struct Recovering {
    allowances: HashMap<Arc<str>, (Instant, SharedAllowances)>,
    order: BTreeSet<(Instant, Arc<str>)>,
}

impl Recovering {
    /// The last session of an identity has ended.
    pub fn keep(&mut self, identity: Arc<str>, allowances: SharedAllowances, now: Instant) {
        self.forget(now);
        let at = allowances.recovered_at(now);
        if at <= now {
            return;
        }
        if self.order.len() >= MAX_RECOVERING
            && let Some((_, first)) = self.order.pop_first()
        {
            self.allowances.remove(&first);
        }
        self.order.insert((at, identity.clone()));
        self.allowances.insert(identity, (at, allowances));
    }

    /// Gives what an identity may send whose first session begins.
    pub fn take(
        &mut self,
        identity: &Arc<str>,
        limits: &SessionConfig,
        now: Instant,
    ) -> SharedAllowances {
        self.forget(now);
        let Some((at, before)) = self.allowances.remove(identity) else {
            return Allowances::shared(limits, now);
        };
        self.order.remove(&(at, identity.clone()));
        let resumed = Allowances::resumed(limits, &before.lock(), now);
        SharedAllowances(Arc::new(Mutex::new(resumed)))
    }

    /// Forgets those who have recovered.
    fn forget(&mut self, now: Instant) {
        while self.order.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, identity)) = self.order.pop_first()
        {
            self.allowances.remove(&identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_allowance_holds_for_any_minute_and_comes_back_bit_by_bit() {
        // M34
        let start = Instant::now();
        let mut allowance = Allowance::new(60, start);

        assert!((0..60).all(|_| allowance.take(1, start)));
        assert!(!allowance.take(1, start));
        assert!(allowance.take(1, start + Duration::from_secs(2)), "two came back, one was owed");
        assert!(!allowance.take(1, start + Duration::from_secs(2)));
        assert!(allowance.take(60, start + Duration::from_secs(600)), "no more than a minute's");
        assert!(!allowance.take(1, start + Duration::from_secs(600)));
        assert_eq!(allowance.share(start + Duration::from_secs(600)), -1.0 / 60.0);
        let mut unlimited = Allowance::new(0, start);
        assert!(unlimited.take(u64::MAX, start) && unlimited.take(u64::MAX, start));
        assert_eq!(unlimited.share(start), 1.0);
    }

    #[test]
    fn what_an_identity_has_spent_is_remembered_until_it_is_back_and_of_so_many_only() {
        let start = Instant::now();
        let limits = SessionConfig { max_messages_per_minute: 60, ..SessionConfig::default() };
        let mut recovering = Recovering::default();
        let take = |recovering: &mut Recovering, number: usize, now| {
            recovering.take(&number.to_string().into(), &limits, now)
        };
        let leave = |recovering: &mut Recovering, number: usize, now| {
            let allowances = take(recovering, number, now);
            while allowances.take_messages(1, now) {}
            recovering.keep(number.to_string().into(), allowances, now);
        };

        leave(&mut recovering, 0, start);
        let later = start + Duration::from_secs(3);
        let back = take(&mut recovering, 0, later);
        let left = (0..60).take_while(|_| back.take_messages(1, later)).count();
        assert_eq!(left, 2, "three came back, one was owed");
        let raised = SessionConfig { max_messages_per_minute: 120, ..limits.clone() };
        recovering.keep("0".into(), back, later);
        let later = later + Duration::from_secs(30);
        let back = recovering.take(&"0".into(), &raised, later);
        let left = (0..120).take_while(|_| back.take_messages(1, later)).count();
        assert!((1..60).contains(&left), "{left} of a limit that was raised meanwhile");

        // Who said nothing needs not to be remembered, nor who has recovered.
        recovering.keep("1".into(), Allowances::shared(&limits, later), later);
        assert!(recovering.allowances.is_empty() && recovering.order.is_empty());
        for number in 0..=MAX_RECOVERING {
            leave(&mut recovering, number, later + Duration::from_millis(number as u64));
        }
        assert_eq!(recovering.allowances.len(), MAX_RECOVERING);
        assert_eq!(recovering.order.len(), MAX_RECOVERING);
        assert!(!recovering.allowances.contains_key("0"), "the one that recovers first");
        drop(take(&mut recovering, 0, later + Duration::from_secs(180)));
        assert!(recovering.allowances.is_empty() && recovering.order.is_empty());
    }
}

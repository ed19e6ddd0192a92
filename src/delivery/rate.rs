//! How much a client may send in a minute.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::config::SessionConfig;

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
}

impl SharedAllowances {
    /// Whether one more message may come.
    pub fn take_message(&self, now: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).messages.take(1, now)
    }

    /// Whether so many more bytes may come.
    pub fn take_bytes(&self, bytes: u64, now: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bytes.take(bytes, now)
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
        let back = now.saturating_duration_since(self.at).as_secs_f64() / 60.0 * self.per_minute;
        self.left = (self.left + back).min(self.per_minute) - amount as f64;
        self.at = now;
        self.left >= 0.0
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
        let mut unlimited = Allowance::new(0, start);
        assert!(unlimited.take(u64::MAX, start) && unlimited.take(u64::MAX, start));
    }
}

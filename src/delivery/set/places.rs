//! Who has a place: the limits in all, of an address and of an identity.
//!
//! A plain type beside [`SessionSet`](super::SessionSet), which shares it between the workers.
//! Invariants: a limit that was lowered sends nobody away; who has left is remembered only while he would
//! begin anew with more than he had left.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use tokio::time::Instant;

use crate::{
    client::Client,
    config::SessionConfig,
    delivery::rate::{Allowances, Recovering, SharedAllowances},
    stats::{Counter, Refusals},
};

/// Why a client may not have a session now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnterError {
    #[error("as many sessions are open as are allowed")]
    Full,
    #[error("as many sessions of this address are open as are allowed")]
    CrowdedAddress,
    #[error("as many sessions of this identity are open as are allowed")]
    CrowdedIdentity,
    #[error("the server is draining: it takes no new sessions")]
    Draining,
    #[error("the server is shutting down")]
    Closing,
}

impl EnterError {
    /// The name that programs compare; it never changes.
    pub fn code(self) -> &'static str {
        match self {
            Self::Full => "too_many_sessions",
            Self::CrowdedAddress => "too_many_of_address",
            Self::CrowdedIdentity => "too_many_of_identity",
            Self::Draining => "draining",
            Self::Closing => "shutting_down",
        }
    }

    /// Whether it is this client's own number that is too high.
    pub fn is_own(self) -> bool {
        matches!(self, Self::CrowdedAddress | Self::CrowdedIdentity)
    }

    /// `Retry-After`, seconds.
    pub fn retry_after_secs(self) -> u64 {
        match self {
            // All who were sent away at once ask again: not all in the same second.
            Self::Draining => fastrand::u64(5..=15),
            Self::Full | Self::CrowdedAddress | Self::CrowdedIdentity | Self::Closing => 5,
        }
    }

    pub fn counter(self, refusals: &Refusals) -> &Counter {
        match self {
            Self::Full => &refusals.too_many_sessions,
            Self::CrowdedAddress => &refusals.too_many_of_address,
            Self::CrowdedIdentity => &refusals.too_many_of_identity,
            Self::Draining => &refusals.draining,
            Self::Closing => &refusals.shutting_down,
        }
    }
}

/// Whether clients are let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    #[default]
    Open,
    Draining,
    /// For good.
    Closing,
}

/// Who is in.
#[derive(Default)]
pub struct Places {
    open: usize,
    /// How many each address has open.
    addresses: HashMap<IpAddr, usize>,
    identities: HashMap<Arc<str>, OfIdentity>,
    /// Those that have none open and have not all of their allowance.
    recovering: Recovering,
    pub gate: Gate,
}

/// What the sessions of one identity share while any of them is open.
struct OfIdentity {
    open: usize,
    allowances: SharedAllowances,
}

impl Places {
    /// Takes a place, and gives what its client may say.
    ///
    /// # Errors
    /// When none is free, or nobody is let in.
    pub fn enter(
        &mut self,
        client: &Client,
        limits: &SessionConfig,
        now: Instant,
    ) -> Result<SharedAllowances, EnterError> {
        self.has_room(client, limits)?;
        self.open += 1;
        if let Some(address) = client.address {
            *self.addresses.entry(address).or_default() += 1;
        }
        let Some(identity) = &client.identity else { return Ok(Allowances::shared(limits, now)) };
        let Self { identities, recovering, .. } = self;
        let of_identity = identities.entry(identity.clone()).or_insert_with(|| OfIdentity {
            open: 0,
            allowances: recovering.take(identity, limits, now),
        });
        of_identity.open += 1;
        Ok(of_identity.allowances.clone())
    }

    pub fn open(&self) -> usize {
        self.open
    }

    /// How many addresses have a session open.
    #[cfg(test)]
    pub fn addresses(&self) -> usize {
        self.addresses.len()
    }

    /// How many identities have a session open.
    pub fn identities(&self) -> usize {
        self.identities.len()
    }

    fn has_room(&self, client: &Client, limits: &SessionConfig) -> Result<(), EnterError> {
        let is_below = |open: usize, most: usize| most == 0 || open < most;
        match self.gate {
            Gate::Open => {}
            Gate::Draining => return Err(EnterError::Draining),
            Gate::Closing => return Err(EnterError::Closing),
        }
        if self.open >= limits.max_sessions {
            return Err(EnterError::Full);
        }
        let of_address = client.address.and_then(|address| self.addresses.get(&address));
        if !is_below(of_address.copied().unwrap_or(0), limits.max_per_address) {
            return Err(EnterError::CrowdedAddress);
        }
        let of_identity = client.identity.as_ref().and_then(|one| self.identities.get(one));
        if !is_below(of_identity.map_or(0, |one| one.open), limits.max_per_identity) {
            return Err(EnterError::CrowdedIdentity);
        }
        Ok(())
    }

    /// Gives a place back. Gives how many are still taken.
    pub fn leave(&mut self, client: &Client, now: Instant) -> usize {
        self.open -= 1;
        if let Some(address) = client.address
            && let Some(open) = self.addresses.get_mut(&address)
        {
            *open -= 1;
            if *open == 0 {
                self.addresses.remove(&address);
            }
        }
        if let Some(identity) = &client.identity
            && let Some(of_identity) = self.identities.get_mut(identity)
        {
            of_identity.open -= 1;
            if of_identity.open == 0
                && let Some(gone) = self.identities.remove(identity)
            {
                self.recovering.keep(identity.clone(), gone.allowances, now);
            }
        }
        self.open
    }
}

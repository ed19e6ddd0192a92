//! The users of a simulated chain.

use super::text::{mix, push_hex};
use crate::event::Address;

/// Addresses drawn from the seed, with their text ready to be copied into lines.
pub struct Users {
    addresses: Vec<Address>,
    texts: Vec<[u8; Address::TEXT_LEN]>,
}

impl Users {
    pub fn new(seed: u64, count: usize) -> Self {
        let addresses: Vec<_> = (0..count as u64).map(|number| address(seed, number)).collect();
        let texts = addresses.iter().map(|address| text(*address)).collect();
        Self { addresses, texts }
    }

    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    pub(super) fn address(&self, user: usize) -> Address {
        self.addresses[user]
    }

    pub(super) fn text(&self, user: usize) -> &[u8; Address::TEXT_LEN] {
        &self.texts[user]
    }

    pub(super) fn name(&self, user: usize) -> &str {
        std::str::from_utf8(self.text(user)).expect("hexadecimal digits are ASCII")
    }

    /// Draws a user. Low numbers trade more often than high ones, as whales do.
    pub(super) fn draw(&self, rng: &mut fastrand::Rng) -> usize {
        rng.usize(..self.len()).min(rng.usize(..self.len()))
    }

    /// Draws a user other than `first`, when there is one.
    pub(super) fn draw_other(&self, rng: &mut fastrand::Rng, first: usize) -> usize {
        let other = self.draw(rng);
        if other == first { (first + 1) % self.len() } else { other }
    }
}

fn address(seed: u64, number: u64) -> Address {
    let mut bytes = [0; 20];
    for (place, chunk) in bytes.chunks_mut(8).enumerate() {
        let word = mix(seed ^ 0x7573_6572, number * 3 + place as u64).to_be_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    Address(bytes)
}

fn text(address: Address) -> [u8; Address::TEXT_LEN] {
    let mut text = Vec::with_capacity(Address::TEXT_LEN);
    push_hex(&mut text, &address.0);
    text.try_into().expect("20 bytes are 42 characters")
}

//! The file of a list: a header of 512 bytes, then the records in ascending order, 20 bytes each.
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | [`MAGIC`] |
//! | 8..12 | [`VERSION`] |
//! | 12..16 | length of the stamp |
//! | 16..24 | number of records |
//! | 24..32 | XXH3 of all records |
//! | 32..40 | identity, another one each time a list is kept |
//! | 40..296 | stamp |
//! | 504..512 | XXH3 of the bytes before |
//!
//! Numbers are little-endian.

use std::{
    hash::BuildHasher,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use xxhash_rust::xxh3::xxh3_64;

/// An address as it lies in the file.
pub type Record = [u8; 20];

/// Longest stamp in bytes.
pub const MAX_STAMP_BYTES: usize = 256;

pub const HEADER_BYTES: usize = 512;

/// The line ends in it are lost where a file was treated as text.
const MAGIC: [u8; 8] = *b"nclist\r\n";

const VERSION: u32 = 1;

const CHECKED: usize = HEADER_BYTES - 8;

/// The head of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub count: u64,
    pub checksum: u64,
    /// By which the changes know the base that they belong to.
    pub id: u64,
    pub stamp: Vec<u8>,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.stamp.len() as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.count.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.checksum.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.id.to_le_bytes());
        bytes[40..40 + self.stamp.len()].copy_from_slice(&self.stamp);
        let checksum = xxh3_64(&bytes[..CHECKED]);
        bytes[CHECKED..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// # Errors
    /// Says what is wrong.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, &'static str> {
        if bytes[..8] != MAGIC {
            return Err("it does not begin as a list does");
        }
        if bytes[8..12] != VERSION.to_le_bytes() {
            return Err("it is of another version");
        }
        if bytes[CHECKED..] != xxh3_64(&bytes[..CHECKED]).to_le_bytes() {
            return Err("its header is not as it was written");
        }
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let stamp_len = number(12) as u32 as usize;
        let stamp = bytes.get(40..40 + stamp_len.min(MAX_STAMP_BYTES)).unwrap_or_default();
        Ok(Self { count: number(16), checksum: number(24), id: number(32), stamp: stamp.to_vec() })
    }
}

/// An identity that no list had before.
pub fn new_id() -> u64 {
    static ORDINAL: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // The hasher's keys are random per process.
    let random = std::hash::RandomState::new();
    random.hash_one((now, ORDINAL.fetch_add(1, Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_is_read_as_it_was_written_and_no_other_byte_passes(count: u64, checksum: u64, stamp in prop::collection::vec(any::<u8>(), 0..=MAX_STAMP_BYTES), at in 0..HEADER_BYTES, with in 1..=255_u8) {
            let header = Header { count, checksum, id: new_id(), stamp };
            let mut bytes = header.encode();

            prop_assert_eq!(Header::decode(&bytes), Ok(header));
            bytes[at] ^= with;
            prop_assert!(Header::decode(&bytes).is_err());
        }
    }
}

//! A scan of a whole list: what its members are, as they come.

use ahash::HashSet;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    super::{
        list::{AddressList, ListBuilder, ListFault},
        sources::Folder,
        status::SourceKind,
    },
    RedisFault, newer,
};
use crate::event::Address;

/// Characters of a skipped member that are shown.
const SHOWN_CHARS: usize = 60;

/// Skipped members that are told from each other: a scan may bring one twice.
const MAX_TOLD_APART: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sorted,
    Plain,
}

/// Members that are no addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    pub count: usize,
    /// The text of one of them.
    pub example: Option<String>,
}

/// A whole list.
#[derive(Debug)]
pub struct Scan {
    /// `None`: the list whose digest was given.
    pub list: Option<AddressList>,
    pub skipped: Skipped,
    /// Equal lists have equal digests, in whatever order their members came. A member that came
    /// twice makes another one, and the list is built once more for nothing.
    pub digest: u64,
}

/// A scan under way.
pub(super) struct Reading {
    /// `None` where only the digest is asked for.
    builder: Option<ListBuilder>,
    /// Members that came, repeated ones too.
    members: u64,
    addresses: u64,
    digest: u64,
    skipped: Skipped,
    /// Hashes of skipped members.
    strangers: HashSet<u64>,
    newest: Option<f64>,
}

impl Reading {
    /// With a folder the list is built there.
    pub fn new(folder: Option<&Folder>) -> Self {
        Self {
            builder: folder.map(|folder| folder.builder(SourceKind::Redis)),
            members: 0,
            addresses: 0,
            digest: 0,
            skipped: Skipped::default(),
            strangers: HashSet::default(),
            newest: None,
        }
    }

    pub fn add(&mut self, member: &[u8], score: Option<&[u8]>) -> Result<(), ListFault> {
        let hash = xxh3_64(member);
        self.members += 1;
        self.digest = self.digest.wrapping_add(hash);
        if let Some(score) = score {
            self.newest = newer(self.newest, score);
        }
        match Address::parse(member.trim_ascii()) {
            Ok(address) => {
                self.addresses += 1;
                self.builder.as_mut().map_or(Ok(()), |builder| builder.push(address))
            }
            Err(_) => {
                self.skip(member, hash);
                Ok(())
            }
        }
    }

    fn skip(&mut self, member: &[u8], hash: u64) {
        if self.strangers.contains(&hash) {
            return;
        }
        if self.strangers.len() < MAX_TOLD_APART {
            self.strangers.insert(hash);
        }
        self.skipped.count += 1;
        self.skipped.example.get_or_insert_with(|| {
            let text = String::from_utf8_lossy(&member[..member.len().min(4 * SHOWN_CHARS)]);
            text.chars().take(SHOWN_CHARS).collect()
        });
    }

    pub fn members(&self) -> u64 {
        self.members
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }

    pub fn newest(&self) -> Option<f64> {
        self.newest
    }

    /// Gives the list, unless it is the one of this digest.
    pub fn finish(self, known: Option<u64>) -> Result<Scan, RedisFault> {
        let Self { builder, addresses, digest, skipped, .. } = self;
        if addresses == 0
            && let Skipped { count: members, example: Some(first) } = skipped
        {
            return Err(RedisFault::NoAddresses { members, first });
        }
        let list = match builder {
            Some(builder) if known != Some(digest) => Some(builder.finish()?),
            _ => None,
        };
        Ok(Scan { list, skipped, digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(members: &[&str]) -> Reading {
        let folder = tempfile::tempdir().unwrap();
        let mut reading = Reading::new(Some(&Folder::at(folder.path())));
        for member in members {
            reading.add(member.as_bytes(), None).unwrap();
        }
        reading
    }

    #[test]
    fn a_member_that_comes_twice_counts_once_and_one_that_is_no_address_is_named() {
        let reading =
            reading(&["nobody", "0x010461c14e146ac35fe42271bdc1134ee31c703a", "nobody", "x"]);

        let scan = reading.finish(None).unwrap();

        assert_eq!(scan.list.unwrap().len(), 1);
        assert_eq!(scan.skipped, Skipped { count: 2, example: Some("nobody".to_owned()) });
    }

    #[test]
    fn a_list_without_any_address_is_a_fault() {
        let fault = reading(&["nobody"]).finish(None).unwrap_err();

        assert!(fault.to_string().contains("\"nobody\""), "{fault}");
    }

    #[test]
    fn a_list_that_is_known_is_not_built_again_in_whatever_order_it_comes() {
        let members: Vec<_> = (0..50).map(|ordinal| format!("0x{ordinal:040x}")).collect();
        let mut members: Vec<_> = members.iter().map(String::as_str).collect();
        let known = reading(&members).finish(None).unwrap();

        members.reverse();
        let again = reading(&members).finish(Some(known.digest)).unwrap();
        let other = reading(&members[1..]).finish(Some(known.digest)).unwrap();

        assert!(again.list.is_none());
        assert_eq!(other.list.unwrap().len(), 49);
    }
}

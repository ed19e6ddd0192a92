#[cfg(feature = "failpoints")]
mod kills;

use std::collections::BTreeSet;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const NAME: &str = "whitelist-test";

/// Addresses of which many share their first bits and some are equal.
fn address(seed: u16) -> Address {
    let [high, low] = (seed % 600).to_be_bytes();
    let mut bytes = [0; 20];
    (bytes[0], bytes[3], bytes[19]) = (low.wrapping_mul(31) & 0xf0, high, low);
    Address(bytes)
}

fn addresses(seeds: &[u16]) -> BTreeSet<Address> {
    seeds.iter().copied().map(address).collect()
}

fn build(limits: Limits, directory: Option<&Path>, seeds: &[u16]) -> AddressList {
    let mut builder = ListBuilder::with_limits(limits, directory, NAME);
    for seed in seeds {
        builder.push(address(*seed)).unwrap();
    }
    assert_eq!(builder.pushed(), seeds.len() as u64);
    builder.finish().unwrap()
}

#[track_caller]
fn assert_same(list: &AddressList, model: &BTreeSet<Address>) {
    assert_eq!(list.len(), model.len());
    assert_eq!(list.iter().len(), model.len());
    assert!(
        list.iter().eq(model.iter().copied()),
        "{:?} and {model:?}",
        list.iter().collect::<Vec<_>>()
    );
    for seed in 0..600 {
        assert_eq!(list.contains(&address(seed)), model.contains(&address(seed)), "{seed}");
    }
}

fn files(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn limits() -> impl Strategy<Value = Limits> {
    (1..40_usize, 0..80_usize, 0..20_usize).prop_map(|(chunk, mapped_from, delta)| Limits {
        chunk,
        mapped_from,
        delta,
    })
}

fn seeds(most: usize) -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(0..600_u16, 0..most)
}

#[derive(Clone, Debug)]
enum Step {
    Change {
        added: Vec<u16>,
        removed: Vec<u16>,
    },
    /// Reads the source as a whole.
    Build(Vec<u16>),
    Keep(Vec<u8>),
    /// What a restart does.
    Reopen,
}

/// Of so few addresses that the same ones come, go and come again.
fn step() -> impl Strategy<Value = Step> {
    let few = |most| prop::collection::vec(0..50_u16, 0..most);
    prop_oneof![
        5 => (few(8), few(8)).prop_map(|(added, removed)| Step::Change { added, removed }),
        1 => few(100).prop_map(Step::Build),
        4 => prop::collection::vec(any::<u8>(), 0..9).prop_map(Step::Keep),
        2 => Just(Step::Reopen),
    ]
}

proptest! {
    #[test]
    fn any_script_of_changes_and_restarts_equals_a_set(limits in limits(), steps in prop::collection::vec(step(), 1..30)) {
        let directory = tempfile::tempdir().unwrap();
        let (mut list, mut model) = (AddressList { limits, ..Default::default() }, BTreeSet::new());
        let mut kept: Option<(BTreeSet<Address>, Vec<u8>)> = None;

        for step in steps {
            let (old, old_model) = (list.clone(), model.clone());
            match step {
                Step::Change { added, removed } => {
                    let (added, removed) = (addresses(&added), addresses(&removed));
                    list = list.changed(added.iter().copied(), removed.iter().copied());
                    model = model.difference(&removed).chain(&added).copied().collect();
                }
                Step::Build(seeds) => {
                    list = build(limits, Some(directory.path()), &seeds);
                    model = addresses(&seeds);
                }
                Step::Keep(stamp) => {
                    list = list.keep(directory.path(), NAME, &stamp).unwrap();
                    kept = Some((model.clone(), stamp));
                }
                Step::Reopen => {
                    let opened = AddressList::open_with(limits, directory.path(), NAME).unwrap();
                    prop_assert_eq!(opened.is_some(), kept.is_some());
                    if let Some((found, stamp)) = opened {
                        let (kept, kept_stamp) = kept.clone().unwrap();
                        prop_assert_eq!(stamp, kept_stamp);
                        (list, model) = (found, kept);
                    }
                }
            }

            assert_same(&list, &model);
            // Lists never change, mapped ones neither when their file is replaced.
            assert_same(&old, &old_model);
            let added: Vec<_> = list.difference(&old).collect();
            prop_assert!(added.iter().eq(model.difference(&old_model)));
            prop_assert!(old.difference(&list).eq(old_model.difference(&model).copied()));
        }
        drop(list);
        prop_assert!(files(&directory).iter().all(|name| !name.ends_with("unfinished")));
    }

    #[test]
    fn addresses_in_any_order_and_of_any_number_of_chunks_make_the_same_list(limits in limits(), seeds in seeds(300)) {
        let directory = tempfile::tempdir().unwrap();

        assert_same(&build(limits, Some(directory.path()), &seeds), &addresses(&seeds));
        assert_same(&build(limits, None, &seeds), &addresses(&seeds));
        prop_assert!(files(&directory).is_empty(), "what was not kept leaves nothing behind");
    }

    #[test]
    fn a_file_with_any_damage_is_a_fault(seeds in seeds(40), at: prop::sample::Index, with in 1..=255_u8, cut: bool) {
        let directory = tempfile::tempdir().unwrap();
        build(Limits::default(), None, &seeds).keep(directory.path(), NAME, b"stamp").unwrap();
        let path = base_path(directory.path(), NAME);
        let mut content = fs::read(&path).unwrap();
        let at = at.index(content.len());
        if cut {
            content.truncate(at);
        } else {
            content[at] ^= with;
        }

        fs::write(&path, &content).unwrap();

        let fault = AddressList::open(directory.path(), NAME).unwrap_err();
        prop_assert!(matches!(fault, ListFault::Damaged { .. }), "{}", fault);
        // The source builds it anew.
        let list = build(Limits::default(), None, &seeds);
        list.keep(directory.path(), NAME, b"again").unwrap();
        assert_same(&AddressList::open(directory.path(), NAME).unwrap().unwrap().0, &addresses(&seeds));
    }

    #[test]
    fn changes_that_are_torn_anywhere_give_the_list_before_them(limits in limits(), first in seeds(60), changes in prop::collection::vec((seeds(5), seeds(5)), 1..4), at: prop::sample::Index, garbage: bool) {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { delta: 1_000, ..limits };
        let mut list = build(limits, Some(directory.path()), &first);
        let mut states = vec![(0, list.clone())];
        list = list.keep(directory.path(), NAME, &[0]).unwrap();
        for (ordinal, (added, removed)) in changes.iter().enumerate() {
            list = list.changed(addresses(added), addresses(removed));
            list = list.keep(directory.path(), NAME, &[ordinal as u8 + 1]).unwrap();
            states.push((list.kept.as_ref().unwrap().changes_bytes as usize, list.clone()));
        }
        let path = changes_path(directory.path(), NAME);
        let mut content = fs::read(&path).unwrap();
        let at = at.index(content.len() + 1);
        content.truncate(at);
        let whole = states.iter().rposition(|(end, _)| *end <= at).unwrap();
        if garbage {
            content.extend_from_slice(&[0x5a; 40]);
        }

        fs::write(&path, &content).unwrap();

        let (list, stamp) = AddressList::open_with(limits, directory.path(), NAME).unwrap().unwrap();
        prop_assert_eq!(stamp, [whole as u8]);
        prop_assert!(list.iter().eq(states[whole].1.iter()));
        // What is kept next is found behind what was whole.
        let list = list.changed([address(599)], []).keep(directory.path(), NAME, b"next").unwrap();
        let (again, stamp) = AddressList::open_with(limits, directory.path(), NAME).unwrap().unwrap();
        prop_assert_eq!(stamp, b"next");
        prop_assert!(again.iter().eq(list.iter()));
    }
}

#[test]
fn a_short_list_is_in_memory_and_a_long_one_is_mapped() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { mapped_from: 100, ..Limits::default() };
    let few: Vec<_> = (0..99).collect();
    let many: Vec<_> = (0..100).collect();

    assert!(!build(limits, Some(directory.path()), &few).is_mapped());
    assert!(!build(limits, None, &many).is_mapped());
    let list = build(limits, Some(directory.path()), &many);
    assert!(list.is_mapped());

    list.keep(directory.path(), NAME, b"").unwrap();
    let (list, _) = AddressList::open_with(limits, directory.path(), NAME).unwrap().unwrap();
    assert!(list.is_mapped());
    let limits = Limits { delta: 1, ..limits };
    let shorter = AddressList { limits, ..list.changed([], [address(0), address(1)]) };
    assert!(!shorter.keep(directory.path(), NAME, b"").unwrap().is_mapped());
}

#[test]
fn a_small_change_of_a_long_list_is_kept_without_writing_the_list_again() {
    let directory = tempfile::tempdir().unwrap();
    let all: Vec<_> = (0..500).collect();
    let list = build(Limits::default(), None, &all).keep(directory.path(), NAME, b"1").unwrap();
    let base = || FileId::of(&base_path(directory.path(), NAME));
    let written = base();

    let list = list.changed([], [address(3)]).keep(directory.path(), NAME, b"2").unwrap();
    list.keep(directory.path(), NAME, b"2").unwrap();

    assert_eq!(base(), written);
    let length = fs::metadata(changes_path(directory.path(), NAME)).unwrap().len();
    assert!(length < 100, "{length} bytes");
    let (opened, stamp) = AddressList::open(directory.path(), NAME).unwrap().unwrap();
    assert_eq!((opened.len(), &*stamp), (499, &b"2"[..]));
}

#[test]
fn many_changes_are_merged_into_a_new_base() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { delta: 10, ..Limits::default() };
    let mut list = build(limits, None, &[]).keep(directory.path(), NAME, b"").unwrap();
    let mut longest = 0;

    // The one that comes and goes makes no delta, but it makes the file of the changes grow.
    for seed in 0..200 {
        list = list.changed([address(seed % 15)], [address(599)]);
        list = list.keep(directory.path(), NAME, b"a").unwrap();
        list = list.changed([address(599)], []).keep(directory.path(), NAME, b"b").unwrap();
        assert!(list.delta.len() <= 11);
        let changes = fs::metadata(changes_path(directory.path(), NAME));
        longest = longest.max(changes.map_or(0, |found| found.len()));
    }

    assert!(longest < 1_000, "{longest} bytes");
    assert_eq!(list.len(), 16);
    let (opened, _) = AddressList::open(directory.path(), NAME).unwrap().unwrap();
    assert!(opened.iter().eq(list.iter()));
}

#[test]
fn the_list_that_was_kept_last_is_found_whoever_kept_it() {
    let directory = tempfile::tempdir().unwrap();
    let one = build(Limits::default(), None, &[1]).keep(directory.path(), NAME, b"1").unwrap();
    build(Limits::default(), None, &[2]).keep(directory.path(), NAME, b"2").unwrap();

    let one = one.changed([address(3)], []).keep(directory.path(), NAME, b"3").unwrap();

    let (opened, stamp) = AddressList::open(directory.path(), NAME).unwrap().unwrap();
    assert_same(&opened, &addresses(&[1, 3]));
    assert_eq!(stamp, b"3");
    fs::remove_file(changes_path(directory.path(), NAME)).ok();
    fs::remove_file(base_path(directory.path(), NAME)).unwrap();
    one.keep(directory.path(), NAME, b"4").unwrap();
    let (opened, _) = AddressList::open(directory.path(), NAME).unwrap().unwrap();
    assert_same(&opened, &addresses(&[1, 3]));
}

#[test]
fn a_list_that_cannot_be_kept_is_still_a_list() {
    let directory = tempfile::tempdir().unwrap();
    let no_directory = directory.path().join("file");
    fs::write(&no_directory, "x").unwrap();
    let limits = Limits { mapped_from: 1, ..Limits::default() };
    let list = build(limits, Some(directory.path()), &[1, 2]);

    let fault = list.keep(&no_directory, NAME, b"").unwrap_err();

    assert!(matches!(fault, ListFault::Io { .. }), "{fault}");
    assert_same(&list, &addresses(&[1, 2]));
    assert!(AddressList::open(directory.path(), NAME).unwrap().is_none());
    list.keep(directory.path(), NAME, b"").unwrap();
    assert!(AddressList::open(directory.path(), NAME).unwrap().is_some());
}

#[test]
fn what_a_killed_process_left_is_removed_and_what_is_being_written_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let left = directory.path().join(format!("{NAME}.x1y2z3.unfinished"));
    let other = directory.path().join("other-list.x1y2z3.unfinished");
    fs::write(&left, "half").unwrap();
    fs::write(&other, "half").unwrap();
    let writer = SortedWriter::create(directory.path(), NAME).unwrap();

    assert!(AddressList::open(directory.path(), NAME).unwrap().is_none());

    assert!(!left.exists());
    assert!(other.exists());
    let fresh = writer.finish().unwrap();
    fresh.publish(&base_path(directory.path(), NAME), b"").unwrap();
}

/// Tells whether a file was replaced or written to.
#[derive(Debug, PartialEq)]
struct FileId(u64, i64, i64);

impl FileId {
    fn of(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        let found = fs::metadata(path).unwrap();
        Self(found.ino(), found.mtime(), found.mtime_nsec())
    }
}

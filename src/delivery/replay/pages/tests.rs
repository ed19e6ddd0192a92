use super::*;
use crate::{config::StoreConfig, store};

/// A page of this weight with nothing in it.
fn page(after: u64, cost_bytes: usize) -> Arc<Page> {
    let (events, deleted_seq) = (Vec::new(), None);
    Arc::new(Page { after, through: after + 10, events, deleted_seq, cost_bytes })
}

#[test]
fn pages_in_memory_are_bounded_and_those_go_first_that_nobody_has_used_for_longest() {
    let mut shelf = Shelf::default();
    shelf.put(page(0, MAX_BYTES / 2));
    shelf.put(page(10, MAX_BYTES / 2));
    assert!(shelf.find(5).is_some());

    assert!(shelf.put(page(20, MAX_BYTES / 2)) <= MAX_BYTES);

    assert!(shelf.find(10).is_none());
    assert!(shelf.find(0).is_some() && shelf.find(29).is_some() && shelf.find(30).is_none());
    // One is kept however large it is: somebody needs it.
    shelf.put(page(30, 2 * MAX_BYTES));
    assert!(shelf.find(30).is_some() && shelf.find(20).is_none());
}

#[actix_rt::test]
async fn a_page_of_which_something_may_be_deleted_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("nodecast.db").display());
    let store = store::open(&url, &StoreConfig::default()).await.unwrap();
    let log = Log::new(1 << 20, 100, Heads::default());
    let keys = |_, _: &[u8]| Keys::default();
    let pages = Pages::new(store, log, keys, vec![], Arc::default());
    for after in [0, 10, 20] {
        pages.shelf().put(page(after, 1));
    }

    assert_eq!(pages.note_deleted(Some(15)), 15);

    let shelved = [5, 12, 20].map(|seq| pages.shelved(seq).is_some());
    assert_eq!((shelved, pages.deleted_seq()), ([false, false, true], 15));
}

use bytes::Bytes;

use super::*;
use crate::{
    config::StoreConfig,
    event::{EventId, Timestamp},
    store::{self, CommitBatch},
};

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

#[actix_rt::test]
async fn what_is_committed_during_the_read_and_may_be_half_there_is_left_to_the_next_page() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("nodecast.db").display());
    let store = store::open(&url, &StoreConfig::default()).await.unwrap();
    let (mut writer, _) = store.open_writer().await.unwrap();
    let event = |seq: u64| {
        let id = EventId { topic: Topic::new("fills"), position: 7, index: seq as u32, part: 0 };
        let (keys, body) = (Keys::default(), Bytes::from_static(b"{}"));
        let event = Event { id, time: Timestamp(0), user: None, keys, body };
        SequencedEvent { seq, late: false, event }
    };
    // A batch ends at 100; of the next one, which the log does not know to be committed, a part is there.
    let rows: Vec<_> = [98, 99, 100, 102, 103].map(event).into();
    let batch = CommitBatch {
        number: 1,
        events: &rows.iter().collect::<Vec<_>>(),
        seen: &[],
        gaps_opened: &[],
        gaps_closed: &[],
        progress: &[],
        last_seq: 103,
        newest_time: None,
    };
    writer.commit(batch).await.unwrap();
    let log = Log::new(1 << 20, 100, Heads::default());
    let pages = Pages::new(store, log, |_, _| Keys::default(), vec![], Arc::default());

    let page = pages.page(90).await.unwrap();

    let seqs: Vec<_> = page.events.iter().map(|event| event.sequenced.seq).collect();
    assert_eq!((seqs, page.through), (vec![98, 99, 100], 100));
}

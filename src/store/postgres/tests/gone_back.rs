//! A store that has gone back: restored from a backup under a writer, or a replica that lagged.

use super::Database;
use crate::store::{
    StoreError,
    contract::{Content, FILLS, event, page},
};

#[actix_rt::test]
async fn a_store_that_has_gone_back_takes_nothing_until_its_state_is_read_again() {
    let database = Database::new().await;
    let store = database.open().await.unwrap();
    let (mut writer, _) = store.open_writer().await.unwrap();
    let events: Vec<_> = (1..=3).map(|seq| event(FILLS, seq, 0, seq)).collect();
    let contents = events.iter().map(|event| Content::of(vec![event.clone()])).collect::<Vec<_>>();
    contents[0].commit(1, &mut *writer).await.unwrap();
    contents[1].commit(2, &mut *writer).await.unwrap();
    database
        .run(
            "UPDATE nodecast.store_state SET commit_number = 1, last_seq = 1; \
              DELETE FROM nodecast.events WHERE seq = 2",
        )
        .await;

    let refused = contents[2].commit(3, &mut *writer).await;

    let Err(StoreError::Failed(said)) = refused else { panic!("{refused:?}") };
    assert!(said.contains("gone back to commit 1"), "{said}");
    assert_eq!(store.events(page(10)).await.unwrap(), events[..1]);
    assert_eq!(writer.recover().await.unwrap().last_seq, 1);
    contents[1].commit(4, &mut *writer).await.unwrap();
    contents[2].commit(5, &mut *writer).await.unwrap();
    assert_eq!(store.events(page(10)).await.unwrap(), events);
}

//! The pool of the readers and the link of the writer, without the daemon around them.

use super::*;

#[actix_rt::test]
async fn a_connection_that_is_lent_is_counted_until_it_is_back() {
    let (_, database) = new_store().await;
    let config = StoreConfig { read_connections: 2, ..StoreConfig::default() };
    let store = PostgresStore::open(&database.url, &config).await.unwrap();
    let before = store.read_connections();

    let meanwhile = store.readers.read(async |_| Ok(store.read_connections())).await.unwrap();

    assert_eq!(before, ReadConnections { lent: 0, limit: 2 });
    assert_eq!(meanwhile, ReadConnections { lent: 1, limit: 2 });
    assert_eq!(store.read_connections(), before);
}

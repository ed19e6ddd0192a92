//! The pool of the readers and the link of the writer, without the daemon around them.

use super::*;
use crate::testing::PATIENCE;

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

fn link_to(database: &Database, limit: Duration) -> Link {
    Link::new(Server::parse(&database.url).unwrap(), limit, true)
}

#[derive(QueryableByName)]
struct Backend {
    #[diesel(sql_type = diesel::sql_types::Integer)]
    pid: i32,
}

/// The server's process at the other end of the link.
async fn backend(link: &mut Link) -> i32 {
    let asked = link
        .run(async |opened| {
            let query = diesel::sql_query("SELECT pg_backend_pid() AS pid");
            Ok(query.get_result::<Backend>(&mut opened.connection).await?.pid)
        })
        .await;
    asked.unwrap()
}

async fn run(link: &mut Link, statement: &str) -> Result<(), StoreError> {
    link.run(async |opened| Ok(opened.connection.batch_execute(statement).await?)).await
}

#[actix_rt::test]
async fn work_that_the_server_never_answers_is_given_up_with_its_connection() {
    let (_, database) = new_store().await;
    let mut link = link_to(&database, Duration::from_millis(50));
    let before = backend(&mut link).await;

    let given_up = link.run::<()>(async |_| std::future::pending().await);
    let given_up = tokio::time::timeout(PATIENCE, given_up).await.expect("it has a limit");

    let Err(StoreError::Unavailable(reason)) = given_up else { panic!("{given_up:?}") };
    assert!(reason.contains("no answer within"), "{reason}");
    assert_ne!(backend(&mut link).await, before);
}

/// Otherwise what we have given up would go on over there.
#[actix_rt::test]
async fn the_server_gives_a_statement_of_the_writer_up_by_itself() {
    let (_, database) = new_store().await;
    let mut link = link_to(&database, Duration::from_millis(50));

    let given_up = run(&mut link, "SELECT pg_sleep(3600)").await;

    // In the server's words, which come before our own clock's.
    let Err(StoreError::Unavailable(reason)) = given_up else { panic!("{given_up:?}") };
    assert!(reason.contains("statement timeout"), "{reason}");
}

#[actix_rt::test]
async fn a_transaction_of_the_writer_that_stands_still_is_ended_before_its_lease() {
    let (_, database) = new_store().await;
    let mut link = link_to(&database, Duration::from_secs(30));
    let within = |setting: &str, least: &str, most: &str| {
        format!(
            "SELECT 1 / (current_setting('{setting}')::interval BETWEEN '{least}' AND '{most}')::int"
        )
    };

    let most = format!("{} seconds", lease::LEASE.as_secs() / 2);
    let standing = within("idle_in_transaction_session_timeout", "1 second", &most);
    run(&mut link, &standing).await.unwrap();
    run(&mut link, &within("statement_timeout", "30 seconds", "30 seconds")).await.unwrap();
}

#[actix_rt::test]
async fn a_connection_is_kept_while_its_work_succeeds_or_its_content_is_refused() {
    let (_, database) = new_store().await;
    let mut link = link_to(&database, Duration::from_secs(30));
    let first = backend(&mut link).await;

    let refused = run(&mut link, "SELECT 'x'::json").await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    assert_eq!(backend(&mut link).await, first);

    let failed = run(&mut link, "SELECT nothing_of_this_name()").await;
    assert!(!matches!(failed, Ok(()) | Err(StoreError::Refused(_))), "{failed:?}");
    assert_ne!(backend(&mut link).await, first);
}

#[actix_rt::test]
async fn a_server_that_takes_the_connection_and_says_nothing_is_given_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = format!("postgres://nodecast@127.0.0.1:{port}/x?connect_timeout=1");
    let mut link = Link::new(Server::parse(&url).unwrap(), Duration::from_secs(3_600), true);

    let given_up = tokio::time::timeout(PATIENCE, run(&mut link, "SELECT 1")).await;

    let given_up = given_up.expect("it has a limit");
    assert!(matches!(given_up, Err(StoreError::Unavailable(_))), "{given_up:?}");
}

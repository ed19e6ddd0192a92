//! A look at a database on a server, over one connection that may only read.

use diesel::{
    QueryableByName,
    migration::MigrationSource,
    sql_types::{BigInt, Bool, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{
    backfill, connection::Server, fault::Fault, history, lease, migrate::MIGRATIONS,
    partitions::Day, retention,
};
use crate::{
    event::Timestamp,
    store::{
        StoreError,
        inspect::{Content, Inspection, MissingRight, SchemaState, ServerFacts},
        kept,
    },
};

#[derive(QueryableByName)]
struct Facts {
    #[diesel(sql_type = Text)]
    version: String,
    #[diesel(sql_type = Text)]
    user_name: String,
    #[diesel(sql_type = Text)]
    database: String,
    #[diesel(sql_type = BigInt)]
    max_connections: i64,
    #[diesel(sql_type = BigInt)]
    used_connections: i64,
    #[diesel(sql_type = Bool)]
    is_read_only: bool,
    #[diesel(sql_type = Bool)]
    has_schema: bool,
    #[diesel(sql_type = Bool)]
    may_make_schema: bool,
    #[diesel(sql_type = Bool)]
    may_use_schema: bool,
    #[diesel(sql_type = Bool)]
    has_migrations: bool,
    #[diesel(sql_type = Nullable<Text>)]
    owner: Option<String>,
    #[diesel(sql_type = Bool)]
    is_owner: bool,
}

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = Text)]
    version: String,
}

#[derive(QueryableByName)]
struct Extent {
    #[diesel(sql_type = BigInt)]
    rows: i64,
    #[diesel(sql_type = Bool)]
    is_unknown: bool,
    #[diesel(sql_type = BigInt)]
    bytes: i64,
    #[diesel(sql_type = BigInt)]
    partitions: i64,
    #[diesel(sql_type = BigInt)]
    open_gaps: i64,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// As many bytes of rows are counted one by one, which takes a fraction of a second.
const COUNTED_BYTES: i64 = 32 << 20;

/// Each function on its own line: what we ask for is what the daemon will need.
const FACTS: &str = "SELECT \
    current_setting('server_version') AS version, \
    current_user::text AS user_name, \
    current_database()::text AS database, \
    (current_setting('max_connections')::bigint \
        - current_setting('superuser_reserved_connections')::bigint) AS max_connections, \
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') \
        AS used_connections, \
    (pg_is_in_recovery() OR EXISTS (SELECT 1 FROM pg_db_role_setting s, \
        unnest(s.setconfig) AS setting JOIN pg_database d ON d.datname = current_database() \
        WHERE s.setdatabase IN (d.oid, 0) AND setting = 'default_transaction_read_only=on')) \
        AS is_read_only, \
    to_regnamespace('nodecast') IS NOT NULL AS has_schema, \
    has_database_privilege(current_database(), 'CREATE') AS may_make_schema, \
    coalesce(has_schema_privilege(to_regnamespace('nodecast'), 'USAGE') \
        AND has_schema_privilege(to_regnamespace('nodecast'), 'CREATE'), false) AS may_use_schema, \
    to_regclass('nodecast.__diesel_schema_migrations') IS NOT NULL AS has_migrations, \
    (SELECT pg_get_userbyid(relowner)::text FROM pg_class \
        WHERE oid = to_regclass('nodecast.events')) AS owner, \
    coalesce((SELECT pg_has_role(relowner, 'USAGE') FROM pg_class \
        WHERE oid = to_regclass('nodecast.events')), false) AS is_owner";

/// Looks at the database that a URL names.
///
/// # Errors
/// As [`PostgresStore::open`](super::PostgresStore::open); nothing is made.
pub async fn inspect(url: &str) -> Result<Inspection, StoreError> {
    let server = Server::parse(url)?;
    let mut connection = read_only(&server).await?;
    let facts: Facts =
        diesel::sql_query(FACTS).get_result(&mut connection).await.map_err(Fault::from)?;
    let missing_rights = missing_rights(&facts);
    let is_readable = facts.has_migrations && facts.may_use_schema;
    let applied = if is_readable { applied(&mut connection).await? } else { Vec::new() };
    let schema = SchemaState::of(&known_versions()?, applied);
    let (mut holder, mut content) = (None, None);
    if is_readable && facts.owner.is_some() {
        let state = lease::load(&mut connection).await?;
        holder = state.as_ref().and_then(|state| state.writer());
        let newest = state.and_then(|state| state.newest_time).map(Timestamp);
        content = Some(self::content(&mut connection, newest).await?);
    }
    Ok(Inspection {
        store: server.to_string(),
        version: format!("PostgreSQL {}", facts.version),
        server: Some(ServerFacts {
            user: facts.user_name,
            max_connections: facts.max_connections,
            used_connections: facts.used_connections,
            is_read_only: facts.is_read_only,
            missing_rights,
        }),
        schema,
        holder,
        content,
    })
}

/// Connects. What is a slip here cannot write either.
async fn read_only(server: &Server) -> Result<AsyncPgConnection, StoreError> {
    let mut connection = server.connect().await?;
    let set_up = "SET default_transaction_read_only = on; SET statement_timeout = '60s'; \
                  SET lock_timeout = '5s'";
    connection.batch_execute(set_up).await.map_err(Fault::from)?;
    Ok(connection)
}

fn missing_rights(facts: &Facts) -> Vec<MissingRight> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let (user, database) = (quoted(&facts.user_name), quoted(&facts.database));
    let mut missing = Vec::new();
    if !facts.has_schema && !facts.may_make_schema {
        missing.push(MissingRight {
            what: "may not make the schema nodecast".to_owned(),
            remedy: format!("GRANT CREATE ON DATABASE {database} TO {user};"),
        });
    }
    if facts.has_schema && !facts.may_use_schema {
        missing.push(MissingRight {
            what: "may not use the schema nodecast".to_owned(),
            remedy: format!("GRANT USAGE, CREATE ON SCHEMA nodecast TO {user};"),
        });
    }
    // Only an owner can attach and drop partitions.
    if let Some(owner) = facts.owner.as_deref().filter(|_| !facts.is_owner) {
        missing.push(MissingRight {
            what: format!("is not the owner of the tables, which is {owner}"),
            remedy: format!("GRANT {} TO {user};", quoted(owner)),
        });
    }
    missing
}

/// The versions of all migrations of this program.
pub fn known_versions() -> Result<Vec<String>, StoreError> {
    let known = MigrationSource::<diesel::pg::Pg>::migrations(&MIGRATIONS);
    let known = known.map_err(|error| StoreError::Failed(error.to_string()))?;
    Ok(known.iter().map(|migration| migration.name().version().to_string()).collect())
}

async fn applied(connection: &mut AsyncPgConnection) -> Result<Vec<String>, Fault> {
    let query =
        "SELECT version::text AS version FROM nodecast.__diesel_schema_migrations ORDER BY version";
    let applied: Vec<Version> = diesel::sql_query(query).load(connection).await?;
    Ok(applied.into_iter().map(|row| row.version).collect())
}

async fn content(
    connection: &mut AsyncPgConnection,
    newest: Option<Timestamp>,
) -> Result<Content, Fault> {
    // A partition that was never analysed has no estimate; -1 says so. Until then it may be any number.
    let extent: Extent = diesel::sql_query(
        "SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint AS rows, \
            coalesce(max(c.reltuples), 0) < 0 AS is_unknown, \
            coalesce(sum(pg_relation_size(c.oid)), 0)::bigint AS bytes, \
            count(*) AS partitions, \
            (SELECT count(*) FROM nodecast.gaps WHERE closed IS NULL) AS open_gaps \
         FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = 'nodecast.events'::regclass",
    )
    .get_result(connection)
    .await?;
    let is_small = extent.bytes <= COUNTED_BYTES;
    let rows = match (is_small, extent.is_unknown) {
        (true, _) => {
            let counting = "SELECT count(*) AS count FROM nodecast.events";
            Some(diesel::sql_query(counting).get_result::<Count>(connection).await?.count)
        }
        (false, true) => None,
        (false, false) => Some(extent.rows),
    };
    let newest = match newest {
        None => history::newest(connection).await?,
        newest => newest,
    };
    let now = newest.map_or_else(Timestamp::now, |newest| newest.min(Timestamp::now()));
    Ok(Content {
        bytes: retention::size_bytes(connection).await?,
        free_disk_bytes: None,
        rows: rows.map(|rows| rows.max(0) as u64),
        rows_estimated: !is_small,
        oldest: history::oldest(connection).await?.map(|(_, time)| time),
        newest,
        kept: backfill::still_kept(connection, now).await?,
        partitions: Some(extent.partitions.max(0) as usize),
        open_gaps: extent.open_gaps.max(0) as u64,
    })
}

/// Counts the events of the days that end before a time and are not kept: days go as a whole.
pub async fn count_before(url: &str, edge: Timestamp) -> Result<u64, StoreError> {
    let mut connection = read_only(&Server::parse(url)?).await?;
    Ok(count_due(&mut connection, edge).await?)
}

async fn count_due(connection: &mut AsyncPgConnection, edge: Timestamp) -> Result<u64, Fault> {
    let newest = lease::load(connection).await?.and_then(|state| state.newest_time);
    let now = newest.map_or(edge, Timestamp).min(Timestamp::now());
    let kept = backfill::still_kept(connection, now).await?;
    let mut due = 0;
    for span in kept::spans_not_kept(&kept, Timestamp(Day::of(edge).start())) {
        let query = "SELECT count(*) AS count FROM nodecast.events WHERE time >= $1 AND time < $2";
        let query =
            diesel::sql_query(query).bind::<BigInt, _>(span.start).bind::<BigInt, _>(span.end);
        let found: Count = query.get_result(connection).await?;
        due += found.count.max(0) as u64;
    }
    Ok(due)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_lacks_is_told_with_the_statement_that_gives_it() {
        let facts = |has_schema, may_use_schema, owner: Option<&str>| Facts {
            version: "15".to_owned(),
            user_name: "no\"dy".to_owned(),
            database: "events".to_owned(),
            max_connections: 97,
            used_connections: 1,
            is_read_only: false,
            has_schema,
            may_make_schema: false,
            may_use_schema,
            has_migrations: has_schema,
            owner: owner.map(str::to_owned),
            is_owner: false,
        };
        let remedies = |facts: Facts| -> Vec<String> {
            missing_rights(&facts).into_iter().map(|missing| missing.remedy).collect()
        };

        let first = remedies(facts(false, false, None));
        let second = remedies(facts(true, false, Some("ann")));

        assert_eq!(first, ["GRANT CREATE ON DATABASE \"events\" TO \"no\"\"dy\";"]);
        assert_eq!(
            second,
            [
                "GRANT USAGE, CREATE ON SCHEMA nodecast TO \"no\"\"dy\";",
                "GRANT \"ann\" TO \"no\"\"dy\";"
            ]
        );
    }
}

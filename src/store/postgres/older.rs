//! A view for those who read the older service's table, `public.events`.
//!
//! Invariant: where that name is taken by somebody else, nothing is touched.

use diesel::{QueryableByName, sql_types::Bool};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{fault::Fault, migrate::MIGRATION_LOCK};

/// The comment tells our view from somebody else's.
const CREATE: &str = "\
DO $$ BEGIN
    IF to_regclass('public.events') IS NULL AND to_regnamespace('public') IS NOT NULL
        AND has_schema_privilege('public', 'CREATE')
    THEN
        CREATE VIEW public.events AS
        SELECT
            '0x' || encode(event.user_address, 'hex') AS user_address,
            CASE topic.name WHEN 'fills' THEN 'fill' ELSE topic.name END AS event_type,
            event.position AS block_number,
            CASE topic.name
                WHEN 'misc' THEN (event.body::jsonb->'inner') || jsonb_build_object(
                    'hash', event.body::jsonb->'hash', 'time', event.body::jsonb->'time')
                ELSE event.body::jsonb
            END AS data,
            to_timestamp(event.time / 1000000.0) AS created_at
        FROM nodecast.events AS event
        JOIN nodecast.topics AS topic ON topic.id = event.topic_id;
        COMMENT ON VIEW public.events IS 'nodecast: the older service''s table';
    END IF;
END $$";

const IS_OURS: &str = "SELECT coalesce(obj_description(to_regclass('public.events'), 'pg_class') \
    LIKE 'nodecast:%', false) AS is_ours";

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    is_ours: bool,
}

/// Makes the view unless it is there. Gives what to tell the operator when it cannot be made.
pub async fn create_view(connection: &mut AsyncPgConnection) -> Result<Option<String>, Fault> {
    // In one transaction with the lock that the tables are made under.
    let lock = format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})");
    connection.batch_execute(&format!("{lock}; {CREATE}")).await?;
    let answer: Answer = diesel::sql_query(IS_OURS).get_result(connection).await?;
    Ok((!answer.is_ours).then(|| {
        "the view public.events for readers of the older service's table is not made: the name is \
         taken, or this user may not create there"
            .to_owned()
    }))
}

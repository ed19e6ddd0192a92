-- Back-fills by list that are not done, for whichever machine writes next.
CREATE TABLE nodecast.backfill_jobs (
    name text PRIMARY KEY,
    users bytea -- 20 bytes each; NULL: the whole list
);

-- One row: the list for which nothing is to be back-filled but these.
CREATE TABLE nodecast.known_list (
    id bigint PRIMARY KEY CHECK (id = 1),
    digest bigint NOT NULL, -- u64 as its bit pattern
    size bigint -- NULL: everybody
);

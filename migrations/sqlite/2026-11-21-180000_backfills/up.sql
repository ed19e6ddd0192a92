-- Back-fills by list that are not done, for whichever machine writes next.
CREATE TABLE backfill_jobs (
    name TEXT PRIMARY KEY NOT NULL,
    users BLOB -- 20 bytes each; NULL: the whole list
) STRICT, WITHOUT ROWID;

-- One row: the list for which nothing is to be back-filled but these.
CREATE TABLE known_list (
    id INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    digest INTEGER NOT NULL, -- u64 as its bit pattern
    size INTEGER -- NULL: everybody
) STRICT;

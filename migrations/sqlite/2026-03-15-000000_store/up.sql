-- Events of listed users, each once. `seq` is the row id, so an index on (user, position) also
-- holds `seq` and gives the order of history without sorting.
CREATE TABLE events (
    seq INTEGER PRIMARY KEY NOT NULL, -- negative: back-filled, outside the order of arrival
    topic TEXT NOT NULL,
    position INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    part INTEGER NOT NULL,
    time INTEGER NOT NULL, -- microseconds since 1970
    user BLOB,
    late INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX events_identity ON events (topic, position, idx, part);

CREATE INDEX events_by_user ON events (user, position) WHERE user IS NOT NULL;

-- One row: what belongs to the store as a whole. The run is the lease of the one writer.
CREATE TABLE store_state (
    id INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    epoch INTEGER NOT NULL, -- u64 as its bit pattern
    run INTEGER NOT NULL,
    commit_number INTEGER NOT NULL, -- the last commit of this run
    last_seq INTEGER NOT NULL,
    newest_time INTEGER,
    deleted_seq INTEGER, -- highest seq that retention has deleted
    shortened_to INTEGER -- newest event time that was deleted for want of space
) STRICT;

CREATE TABLE streams (
    name TEXT PRIMARY KEY NOT NULL,
    state TEXT NOT NULL -- JSON
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (
    stream TEXT NOT NULL,
    file TEXT NOT NULL,
    file_offset INTEGER NOT NULL,
    digest INTEGER NOT NULL, -- u64 as its bit pattern
    PRIMARY KEY (stream, file)
) STRICT, WITHOUT ROWID;

-- Blocks that were delivered, events or not.
CREATE TABLE blocks (
    topic TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    next_index INTEGER, -- NULL: complete
    digests BLOB NOT NULL, -- little-endian u64 each
    PRIMARY KEY (topic, first)
) STRICT;

CREATE TABLE gaps (
    topic TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    opened INTEGER NOT NULL,
    closed INTEGER,
    PRIMARY KEY (topic, first, last, opened)
) STRICT, WITHOUT ROWID;

-- Days whose events are kept beyond the retention.
CREATE TABLE kept_days (
    day INTEGER PRIMARY KEY NOT NULL, -- since 1970
    kept_until INTEGER NOT NULL -- microseconds since 1970, on the clock of retention
) STRICT;

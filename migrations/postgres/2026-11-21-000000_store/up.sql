-- All tables are in the schema `nodecast`, which is there before this runs.

DO $$ BEGIN
    IF current_setting('server_version_num')::int < 140000 THEN
        RAISE EXCEPTION 'nodecast needs PostgreSQL 14 or newer, this is %',
            current_setting('server_version');
    END IF;
END $$;

-- A row of the events names its topic by number: two bytes in the row and in its key.
CREATE TABLE nodecast.topics (
    id smallint PRIMARY KEY,
    name text NOT NULL UNIQUE
);

-- Events of listed users, each once, in partitions by day of event time: retention drops a day at a
-- time. A unique key of a partitioned table has to hold the partition's key; a block has one time,
-- so the identity is as unique as without it. There is no default partition: what it held would
-- have to be searched whenever a day is added. The order of the columns leaves no padding.
CREATE TABLE nodecast.events (
    seq bigint NOT NULL,
    position bigint NOT NULL,
    time bigint NOT NULL, -- microseconds since 1970
    idx integer NOT NULL, -- u32 as its bit pattern
    part integer NOT NULL, -- u32 as its bit pattern
    topic_id smallint NOT NULL, -- of nodecast.topics; a foreign key would cost more than the row's place
    late boolean NOT NULL,
    user_address bytea,
    -- JSON, as the node wrote it and the parser has checked it. As `json` the server would check it
    -- again, for a third of the work of a row; `jsonb` would not keep the bytes either.
    body text NOT NULL,
    PRIMARY KEY (topic_id, position, idx, part, time)
) PARTITION BY RANGE (time);

-- `seq` is in it, so that it gives the order of history without sorting.
CREATE INDEX events_by_user ON nodecast.events (user_address, position, seq)
    WHERE user_address IS NOT NULL;

-- One row: what belongs to the store as a whole, and who writes to it.
CREATE TABLE nodecast.store_state (
    id bigint PRIMARY KEY CHECK (id = 1),
    epoch bigint NOT NULL, -- u64 as its bit pattern
    run bigint NOT NULL,
    commit_number bigint NOT NULL, -- the last commit of this run
    last_seq bigint NOT NULL,
    newest_time bigint,
    deleted_seq bigint, -- highest seq that retention has deleted
    shortened_to bigint, -- newest event time that was deleted for want of space
    holder_host text NOT NULL,
    holder_process bigint NOT NULL,
    leased_until timestamptz NOT NULL -- by the clock of this server
);

CREATE TABLE nodecast.streams (
    name text PRIMARY KEY,
    state text NOT NULL -- JSON
);

CREATE TABLE nodecast.checkpoints (
    stream text NOT NULL,
    file text NOT NULL,
    file_offset bigint NOT NULL,
    digest bigint NOT NULL, -- u64 as its bit pattern
    PRIMARY KEY (stream, file)
);

-- Blocks that were delivered, events or not.
CREATE TABLE nodecast.blocks (
    topic text NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    next_index bigint, -- NULL: complete
    digests bytea NOT NULL, -- little-endian u64 each
    PRIMARY KEY (topic, first)
);

CREATE TABLE nodecast.gaps (
    topic text NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    opened bigint NOT NULL,
    closed bigint,
    PRIMARY KEY (topic, first, last, opened)
);

-- Days whose events are kept beyond the retention.
CREATE TABLE nodecast.kept_days (
    day bigint PRIMARY KEY, -- since 1970
    kept_until bigint NOT NULL -- microseconds since 1970, on the clock of retention
);

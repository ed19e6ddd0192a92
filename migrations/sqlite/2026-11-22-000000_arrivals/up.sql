-- How far each earlier run had come when the next one began: a cursor of a run counts up to there.
CREATE TABLE runs (
    id INTEGER PRIMARY KEY NOT NULL,
    last_seq INTEGER NOT NULL
) STRICT;

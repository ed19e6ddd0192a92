-- How far each earlier run had come when the next one began: a cursor of a run counts up to there.
CREATE TABLE nodecast.runs (
    id bigint PRIMARY KEY,
    last_seq bigint NOT NULL
);

-- The order of arrival, which clients resume in. It grows at its end only; back-filled events have
-- no place in that order.
CREATE INDEX events_by_arrival ON nodecast.events (seq) WHERE seq > 0;

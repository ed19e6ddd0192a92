-- What a newer program adds, when the test lets it.
SELECT pg_advisory_xact_lock(4711);
CREATE TABLE more (id bigint PRIMARY KEY);

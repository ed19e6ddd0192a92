-- The order of arrival follows that of the pages of a day, so the bounds of each half MiB find a
-- place in it; an entry for each row cost the server a tenth of its work. The daemon summarizes
-- what was added, since the server's own would wait for its autovacuum.
DROP INDEX nodecast.events_by_arrival;

CREATE INDEX events_by_arrival ON nodecast.events USING brin (seq) WITH (pages_per_range = 64);

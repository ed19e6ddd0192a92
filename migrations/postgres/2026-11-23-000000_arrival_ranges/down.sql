DROP INDEX nodecast.events_by_arrival;

CREATE INDEX events_by_arrival ON nodecast.events (seq) WHERE seq > 0;

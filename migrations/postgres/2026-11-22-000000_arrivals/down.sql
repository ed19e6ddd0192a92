DROP INDEX nodecast.events_by_arrival;

DROP TABLE nodecast.runs;

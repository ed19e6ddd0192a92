DROP TABLE nodecast.known_list;
DROP TABLE nodecast.backfill_jobs;

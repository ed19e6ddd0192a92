DROP TABLE known_list;
DROP TABLE backfill_jobs;

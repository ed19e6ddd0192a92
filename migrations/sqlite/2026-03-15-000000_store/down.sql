DROP TABLE kept_days;
DROP TABLE gaps;
DROP TABLE blocks;
DROP TABLE checkpoints;
DROP TABLE streams;
DROP TABLE store_state;
DROP TABLE events;

DROP TABLE nodecast.kept_days;
DROP TABLE nodecast.gaps;
DROP TABLE nodecast.blocks;
DROP TABLE nodecast.checkpoints;
DROP TABLE nodecast.streams;
DROP TABLE nodecast.store_state;
DROP TABLE nodecast.events;
DROP TABLE nodecast.topics;

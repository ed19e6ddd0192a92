DROP INDEX nodecast.events_by_kind;
DROP INDEX nodecast.events_by_user;

CREATE INDEX events_by_user ON nodecast.events (user_address, position, seq)
    WHERE user_address IS NOT NULL;

ALTER TABLE nodecast.events DROP COLUMN kind;

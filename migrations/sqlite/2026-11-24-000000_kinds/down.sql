DROP INDEX events_by_kind;
DROP INDEX events_by_user;

CREATE INDEX events_by_user ON events (user, position) WHERE user IS NOT NULL;

ALTER TABLE events DROP COLUMN kind;

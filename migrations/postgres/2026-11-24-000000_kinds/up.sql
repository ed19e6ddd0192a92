-- The kind of an event within its topic: the variant of a misc event, such as `Funding`, and `twapId` of
-- a fill that is a slice of a TWAP, of at most 64 bytes. Empty: it has none. That is one byte of a row,
-- where NULL would be eight: the tenth column takes the map of those that are NULL beyond its header.
ALTER TABLE nodecast.events ADD COLUMN kind text NOT NULL DEFAULT '';

-- Nothing is taken from a body that the server does not read, as it does not read `\u0000`.
CREATE FUNCTION nodecast.kind_of(topic text, body text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    variant text;
BEGIN
    CASE topic
        WHEN 'misc' THEN
            SELECT CASE WHEN count(*) = 1 AND octet_length(min(name)) <= 64 THEN min(name) END
                INTO variant FROM json_object_keys(body::json->'inner') AS name;
            RETURN coalesce(variant, '');
        WHEN 'fills' THEN
            RETURN CASE WHEN body::json->>'twapId' IS NULL THEN '' ELSE 'twapId' END;
        ELSE
            RETURN '';
    END CASE;
EXCEPTION WHEN data_exception THEN
    RETURN '';
END $$;

DROP INDEX nodecast.events_by_user;

-- Rows that are there get theirs from their bodies: each is read once, those with a kind are written
-- anew, behind the other rows of their day, and the index of users is made again. A million fills and a
-- hundred thousand misc events take ten seconds and the room of the latter; who reads waits meanwhile. The
-- condition on the text only spares the reading of what is no slice, as nodes write it.
UPDATE nodecast.events AS event SET kind = nodecast.kind_of(topic.name, event.body)
    FROM nodecast.topics AS topic
    WHERE topic.id = event.topic_id
        AND (topic.name = 'misc' OR strpos(event.body, '"twapId":null') = 0)
        AND nodecast.kind_of(topic.name, event.body) <> '';

DROP FUNCTION nodecast.kind_of;

-- `seq` is in both, so that they give the order of history without sorting: of a user's topic, which
-- takes the place of padding, and of those of its kinds. The topic is a sum that nothing but a page of a
-- user asks for: by its column the server could as well go through the primary key and drop what others
-- have, which it takes for cheaper where it has no statistics.
CREATE INDEX events_by_user
    ON nodecast.events (user_address, (topic_id + 0::smallint), position, seq)
    WHERE user_address IS NOT NULL;

CREATE INDEX events_by_kind ON nodecast.events (user_address, kind, position, seq)
    WHERE kind <> '' AND user_address IS NOT NULL;

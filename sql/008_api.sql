-- Changes of sites by several people and programs at once, and what the daemons tell of themselves.

-- Counts the changes of a row: who sends the number that was read changes nothing that somebody
-- else has changed since. A constant default rewrites no row.
ALTER TABLE website ADD COLUMN revision bigint NOT NULL DEFAULT 1;
COMMENT ON COLUMN website.revision IS 'Changes of this row so far; the API''s ETag';

CREATE OR REPLACE FUNCTION website_touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    NEW.revision := OLD.revision + 1;
    RETURN NEW;
END $$;

-- The URL without user and password, however it is written: what may be searched by those who may
-- not see a password. A function and no column, which the trigger above would not see.
CREATE FUNCTION website_public_url(url text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT regexp_replace(url, '^([^:]*:[/\\\t\n\r]*)[^/?#\\]*@', '\1')
$$;
DROP INDEX website_url_trgm;
CREATE INDEX website_url_trgm ON website USING gin (website_public_url(url) gin_trgm_ops);

-- Checks are asked for by URL. A hash, since a tree takes no keys of more than some 2,700 bytes.
CREATE INDEX website_url ON website USING hash (website_public_url(url));

-- Answers to requests that carried an Idempotency-Key, for repeating them. A key is one client's.
CREATE TABLE idempotency_key (
    client      text NOT NULL,
    key         text NOT NULL,
    -- SHA-256 of method, path and body: the same key with another request is refused.
    request     bytea NOT NULL,
    -- NULL while the first request is under way.
    status      integer,
    headers     jsonb,
    body        bytea,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (client, key)
);
CREATE INDEX idempotency_key_created_at ON idempotency_key (created_at);
COMMENT ON TABLE idempotency_key IS 'Answers of the API by Idempotency-Key; kept for a day';

-- A row per running daemon, renewed every few seconds, for `webmon status`.
CREATE TABLE daemon (
    daemon_id   uuid PRIMARY KEY,
    -- producer, consumer, run or api.
    role        text NOT NULL,
    host        text NOT NULL,
    pid         integer NOT NULL,
    version     text NOT NULL,
    region      text,
    started_at  timestamptz NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT now(),
    -- What differs by role, such as {"sites": 120, "spool_records": 0, "unwell": {"broker": "…"}}.
    facts       jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(facts) = 'object')
);
COMMENT ON TABLE daemon IS 'Running daemons as they were when last seen; rows of a day ago are removed';

-- Sites, and a counter that tells whoever watches them that something changed.

-- Trusted since PostgreSQL 13: the database's owner may create it, if the server has it.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

CREATE TABLE website (
    website_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name             text NOT NULL UNIQUE,
    url              text NOT NULL,
    regex            text,
    status           text NOT NULL DEFAULT 'active'
                     CHECK (status IN ('active', 'paused', 'deleted')),
    "timestamp"      timestamptz NOT NULL DEFAULT now(),
    -- Absent values take the configuration's defaults.
    interval_seconds integer,
    timeout_seconds  integer,
    method           text,
    -- An object {"name": "value"}, or an array of [name, value] where order or repetition counts.
    headers          jsonb CHECK (jsonb_typeof(headers) IN ('object', 'array')),
    body             text,
    expected_status  text,
    updated_at       timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE website IS 'What webmon watches';
COMMENT ON COLUMN website.status IS 'active: checked; paused, deleted: not checked';
COMMENT ON COLUMN website."timestamp" IS 'When the site was added';

-- Search by any part of name or url.
CREATE INDEX website_name_trgm ON website USING gin (name gin_trgm_ops);
CREATE INDEX website_url_trgm ON website USING gin (url gin_trgm_ops);

CREATE FUNCTION website_touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;

CREATE TRIGGER website_touch BEFORE UPDATE ON website
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION website_touch();

-- One row. A counter, since the newest updated_at says nothing about deleted rows; a row and no
-- sequence, since a sequence shows its new value before the change itself can be seen.
CREATE TABLE website_change (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    counter  bigint NOT NULL
);
INSERT INTO website_change (counter) VALUES (0);

CREATE FUNCTION website_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE website_change SET counter = counter + 1;
    -- Equal payloads of one transaction arrive as one notification, at its commit.
    PERFORM pg_notify('webmon_website', '');
    RETURN NULL;
END $$;

CREATE TRIGGER website_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON website
    FOR EACH STATEMENT EXECUTE FUNCTION website_changed();

-- Hours and days of checks, per site and region: what is left when the checks themselves are gone.
--
-- A transaction that inserts checks marks their hours in rollup_dirty. One process at a time, under
-- an advisory lock, takes the marks of an hour and counts that hour anew; days are counted from
-- hours. docs/storage.md says how to ask, src/store/rollup.rs why nothing is left out.

-- Response times are counted in buckets, each 2^(1/8) wide: bucket k holds the times above
-- 2^((k-1)/8) µs and up to 2^(k/8) µs, bucket 0 all below. The middle of a bucket is less than
-- 4.5 % from anything in it.
CREATE FUNCTION response_time_bucket(seconds double precision) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN seconds <= 1e-6 THEN 0
                ELSE ceil(ln(seconds * 1e6) * 11.541560327111707) END::smallint
$$;
CREATE FUNCTION response_time_of_bucket(bucket smallint) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT 1e-6 * 2.0::double precision ^ ((bucket - 0.5::double precision) / 8)
$$;
COMMENT ON FUNCTION response_time_of_bucket IS 'The middle of a bucket, in seconds';

-- Columns in the order of their alignment. A kind of failure that did not occur is NULL, which
-- takes no room and which sum() leaves out.
CREATE TABLE check_hour (
    website_id        bigint NOT NULL,
    hour              timestamptz NOT NULL,
    response_time_sum double precision,
    response_time_min double precision,
    response_time_max double precision,
    up                integer NOT NULL,
    down              integer NOT NULL,
    missed            integer NOT NULL,
    unreachable_self  integer NOT NULL,
    response_times    integer NOT NULL,
    down_dns          integer,
    down_blocked      integer,
    down_connect      integer,
    down_tls          integer,
    down_timeout      integer,
    down_redirect     integer,
    down_http         integer,
    down_status       integer,
    down_regex        integer,
    down_internal     integer,
    region            text NOT NULL,
    buckets           smallint[],
    counts            integer[],
    PRIMARY KEY (website_id, hour, region)
) PARTITION BY RANGE (hour);

-- For counting a day: hours are written in their order, so a few kilobytes find them.
CREATE INDEX check_hour_hour ON check_hour USING brin (hour) WITH (autosummarize = on);

CREATE TABLE check_day (
    website_id        bigint NOT NULL,
    day               timestamptz NOT NULL,
    response_time_sum double precision,
    response_time_min double precision,
    response_time_max double precision,
    up                integer NOT NULL,
    down              integer NOT NULL,
    missed            integer NOT NULL,
    unreachable_self  integer NOT NULL,
    response_times    integer NOT NULL,
    down_dns          integer,
    down_blocked      integer,
    down_connect      integer,
    down_tls          integer,
    down_timeout      integer,
    down_redirect     integer,
    down_http         integer,
    down_status       integer,
    down_regex        integer,
    down_internal     integer,
    hours             integer NOT NULL,
    region            text NOT NULL,
    buckets           smallint[],
    counts            integer[],
    PRIMARY KEY (website_id, day, region)
) PARTITION BY RANGE (day);

COMMENT ON TABLE check_hour IS 'Checks counted per site, UTC hour and region; a partition per month';
COMMENT ON TABLE check_day IS 'The same per UTC day; a partition per year';
COMMENT ON COLUMN check_hour.unreachable_self IS
    'Those of down that came while webmon itself had no network: leave them out of the uptime';
COMMENT ON COLUMN check_hour.response_times IS
    'Checks that are up and have a response time; sum, min and max (seconds) and buckets are of these';
COMMENT ON COLUMN check_hour.buckets IS 'Buckets that are not empty; counts has as many elements';
COMMENT ON COLUMN check_day.hours IS 'Hours of the day with at least one check';

-- Append only, no key: no writer waits for another. A mark set by hand in the middle of an hour would
-- have the counts of that hour replaced by those of parts of two.
CREATE TABLE rollup_dirty (
    hour timestamptz NOT NULL CHECK (isfinite(hour) AND hour = date_bin('1 hour', hour, 'epoch'))
);
CREATE TABLE rollup_dirty_day (
    day timestamptz PRIMARY KEY CHECK (isfinite(day) AND day = date_bin('1 day', day, 'epoch'))
);
COMMENT ON TABLE rollup_dirty IS 'Hours with checks that check_hour does not have yet';
COMMENT ON TABLE rollup_dirty_day IS 'Days with hours that check_day does not have yet';

CREATE TABLE rollup_state (
    only_one   boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    raw_from   timestamptz,
    hours_from timestamptz
);
INSERT INTO rollup_state DEFAULT VALUES;
COMMENT ON COLUMN rollup_state.raw_from IS
    'Hours before this had their checks removed: they are never counted again';
COMMENT ON COLUMN rollup_state.hours_from IS 'Hours before this were removed; their days may be there';

-- What is there already: every hour of the days that have a table, up to a day from now, since a
-- consumer of the release before goes on without marks until it is replaced.
INSERT INTO rollup_dirty
SELECT hour
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
CROSS JOIN LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid),
    'FROM \(''([^'']+)''\) TO \(''([^'']+)''\)') AS bounds
CROSS JOIN LATERAL generate_series(date_bin('1 hour', bounds[1]::timestamptz, 'epoch'),
    least(bounds[2]::timestamptz - interval '1 us', now() + interval '1 day'),
    interval '1 hour') AS hour
WHERE i.inhparent = 'check_entry'::regclass;

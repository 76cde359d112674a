-- Something to look at after the first start, if no site is there, and the configuration names
-- none (webmon.sample_sites is then off). That this file was applied is remembered, so that sites
-- somebody removed never come back.

INSERT INTO website (name, url, regex, interval_seconds, timeout_seconds)
SELECT name, url, regex, interval_seconds, timeout_seconds
FROM (VALUES
    -- Up without any internet, as long as a producer runs with its default listen address.
    ('webmon producer', 'http://127.0.0.1:9464/livez', NULL, 10, 5),
    ('Example', 'https://example.org/', 'Example\s+Domain', 60, 10),
    ('PostgreSQL', 'https://www.postgresql.org/', NULL, 60, 10),
    ('Apache Kafka', 'https://kafka.apache.org/', NULL, 60, 10),
    ('Rust', 'https://www.rust-lang.org/', NULL, 60, 10),
    ('Wikipedia', 'https://en.wikipedia.org/wiki/Main_Page', 'Welcome to', 60, 10)
) AS sample (name, url, regex, interval_seconds, timeout_seconds)
WHERE NOT EXISTS (SELECT FROM website)
  AND coalesce(current_setting('webmon.sample_sites', true), 'on') = 'on';

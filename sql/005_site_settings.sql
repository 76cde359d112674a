-- What few sites have, and what their checks tell.

-- A long reader of the checks, such as a backup, makes this wait, and everybody else behind it: so
-- not for long. It is tried again.
SET LOCAL lock_timeout = '2s';

-- None of these rewrites a row: an absent value needs no room, and a constant default is kept with
-- the column. They stand behind the texts, in the order of their alignment; most rows take 8 more
-- bytes.
ALTER TABLE check_entry
    ADD COLUMN tries            smallint,
    ADD COLUMN last_hop         real[],
    ADD COLUMN unreachable_self boolean NOT NULL DEFAULT false;

-- The names and kinds of docs/sites.md; one that is not known there is a fault of that site alone.
ALTER TABLE website ADD COLUMN settings jsonb CHECK (jsonb_typeof(settings) = 'object');

COMMENT ON COLUMN website.settings IS
    'Further settings by name, such as {"retries": 2, "tls_verify": false}';

COMMENT ON COLUMN check_entry.tries IS 'Tries it took, the first included; NULL when missed';
COMMENT ON COLUMN check_entry.last_hop IS
    'Where redirects were followed, the last request''s seconds: resolve, connect, tls, processing, transfer';
COMMENT ON COLUMN check_entry.unreachable_self IS
    'The failure came while webmon itself had no network: it says nothing about the site';

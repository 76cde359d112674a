-- Removes everything the numbered files made, and all data. Each new file adds its things here.
-- The extension pg_trgm stays: it may serve others.

DROP TABLE IF EXISTS rejected_message, check_entry, website, website_change, schema_migration;
DROP FUNCTION IF EXISTS website_changed, website_touch;

-- Days that were detached from check_entry and not dropped yet.
DO $$
DECLARE
    day text;
BEGIN
    FOR day IN
        SELECT format('%I.%I', n.nspname, c.relname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND n.nspname = current_schema()
          AND c.relname ~ '^check_entry_y\d{4}m\d{2}d\d{2}$'
    LOOP
        EXECUTE 'DROP TABLE ' || day;
    END LOOP;
END $$;

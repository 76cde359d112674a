-- The role of Grafana's data source: reads counts, checks and the names of sites. It sees no URL, no
-- header and no body of a site, since secrets may stand in them.
--
--   psql -v ON_ERROR_STOP=1 -v reader=webmon_reader -v password=… -f scripts/compose/grafana/reader.sql

\set QUIET on
SELECT format('CREATE ROLE %I', :'reader')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'reader') \gexec

ALTER ROLE :"reader" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT 10 PASSWORD :'password';
-- A dashboard that asks for years must not hold the database for long.
ALTER ROLE :"reader" SET statement_timeout = '15s';
ALTER ROLE :"reader" SET default_transaction_read_only = on;

GRANT SELECT ON check_entry, check_hour, check_day TO :"reader";
GRANT SELECT (website_id, name, status, interval_seconds) ON website TO :"reader";

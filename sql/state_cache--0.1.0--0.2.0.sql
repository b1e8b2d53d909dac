\echo Use "ALTER EXTENSION state_cache UPDATE TO '0.2.0'" to load this file. \quit

-- The server must have been restarted with the library of 0.2.0: that of 0.1.0 has no such function, and the step
-- ends here with an error.
CREATE FUNCTION state_cache_version() RETURNS text
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'state_cache_version';
COMMENT ON FUNCTION state_cache_version()
	IS 'the release of the library that this session runs; that of the tables and functions is extversion in '
	   'pg_extension';

-- Makes every session look its tables up anew once this is committed, and with them the version.
ALTER TABLE @extschema@.state_class ALTER COLUMN changed SET STATISTICS -1;

-- What else 0.2.0 has and 0.1.0 has not, in the order of sql/parts. Names are qualified as they are there. After this
-- script an installation is as CREATE EXTENSION makes a new one: a test compares them.

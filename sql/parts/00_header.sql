\echo Use "CREATE EXTENSION state_cache" to load this file. \quit

-- Put together by scripts/build from the files in sql/parts, in the order of their names: change those.
--
-- The authority (L3), the triggers that watch it, and the SQL surface. Everything is reached by
-- qualified names: the schema is chosen at CREATE EXTENSION, and nothing trusts search_path.
--
-- A superuser runs this script, and others may have made functions and operators in the schema that they chose. There
-- one wins over PostgreSQL's own that matches an argument better. So each function, operator and cast of PostgreSQL's
-- that an expression uses is named with pg_catalog, also behind BETWEEN and IN, which have no such form; and our own
-- functions are called with the very types that they take. A type or collation in a declaration matches by its name
-- alone, and the server has pg_catalog searched first for it.

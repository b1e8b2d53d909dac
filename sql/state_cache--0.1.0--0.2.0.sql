\echo Use "ALTER EXTENSION state_cache UPDATE TO '0.2.0'" to load this file. \quit

-- What 0.2.0 has and 0.1.0 has not, in the order of sql/parts. Names are qualified here as they are there. After this
-- script an installation is as CREATE EXTENSION makes a new one: a test compares them.

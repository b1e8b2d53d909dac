-- What a character is depends on the database's encoding: in patterns, and where a message shows the front of a text.
\a \t \pset null (null)
SELECT current_database() AS home \gset
SET client_min_messages = error;
-- How many entries each pattern evicts of L1, which holds what was just written.
SELECT $define$
	CREATE FUNCTION pg_temp.evicted(VARIADIC patterns text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
	DECLARE
		pattern text;
	BEGIN
		FOREACH pattern IN ARRAY patterns LOOP
			PERFORM state_get_many((SELECT array_agg(key) FROM state_head));
			RETURN NEXT state_invalidate(pattern);
		END LOOP;
	END
	$$;
$define$ AS define_evicted \gset

-- Two bytes for most, three for some, two for half a column.
CREATE DATABASE regress_state_characters TEMPLATE template0 ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_state_characters
SET client_encoding = 'UTF8';
CREATE EXTENSION state_cache;
:define_evicted
SELECT state_set(key, '1') FROM unnest('{k漢,kあい,k丂,kｱ,abc}'::text[]) key;
SELECT octet_length(key) FROM state_head ORDER BY key;
SELECT pg_temp.evicted('k?', 'k??', 'k???', '?', '*あ*', '*い', 'k漢', 'k*?', '??*', '*');
-- あ is A4A2 and い A4A4: what A2A4 is does not occur in between.
SELECT pg_temp.evicted('*' || convert_from('\xa2a4', 'EUC_JP') || '*', '*あ?');
-- The front of a key that is too long, the value of a field that has another, and a cursor that is none.
SELECT state_set('k' || repeat('漢', 500), '1');
\echo :SQLSTATE
SELECT state_set(repeat('漢', 501), '1');
\echo :SQLSTATE
SELECT state_set('run', jsonb_build_object('漢', '丂'));
SELECT state_context_get('run');
\echo :SQLSTATE
SELECT state_context_create('good');
SELECT state_update('good', jsonb_build_object('variables', jsonb_build_object(repeat('漢', 70), jsonb_build_object('value', 1, 'sensitivity', '秘密'))));
SELECT state_context_get('good');
\echo :SQLSTATE
SELECT state_changes('k' || repeat('漢', 60));
\echo :SQLSTATE
\c :home
DROP DATABASE regress_state_characters;

-- Four bytes for some.
CREATE DATABASE regress_state_characters TEMPLATE template0 ENCODING 'EUC_TW' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_state_characters
SET client_encoding = 'UTF8';
CREATE EXTENSION state_cache;
:define_evicted
SELECT state_set(key, '1') FROM unnest('{k漢,k乂,k漢字,abc}'::text[]) key;
SELECT octet_length(key) FROM state_head ORDER BY 1;
SELECT pg_temp.evicted('k?', 'k??', 'k???', '?', 'k*?', '*');
\c :home
DROP DATABASE regress_state_characters;

-- One that Unicode does not cover: the first byte says what the next are.
CREATE DATABASE regress_state_characters TEMPLATE template0 ENCODING 'MULE_INTERNAL' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_state_characters
CREATE EXTENSION state_cache;
:define_evicted
SELECT state_set(key, '1') IS NOT NULL FROM unnest(ARRAY[E'k\x81\xe9', E'k\x92\xb4\xc1', 'abc']) key;
SELECT pg_temp.evicted('k?', 'k??', 'k???', '*?', '?*');
-- Messages are in Unicode: a key that it cannot write is told as a pattern.
-- With the commit, so that the next statement shows what was told.
SET state_cache.notify = commit;
LISTEN state_updated;
LISTEN cache_invalidate;
\o '|sed -E -e \'/^$/d\' -e \'s/,"seq":[^}]*//; s/ received from server process with PID [0-9]+//\''
SELECT state_set(E'k\x81\xe9\x81\xe9y*', '1');
SELECT state_invalidate(E'\x92\xb4\xc1', 'run');
SELECT state_invalidate('k?', 'run');
\o
UNLISTEN *;
\c :home
DROP DATABASE regress_state_characters;

-- One byte for each.
CREATE DATABASE regress_state_characters TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_state_characters
SET client_encoding = 'UTF8';
CREATE EXTENSION state_cache;
:define_evicted
-- Ã© are the bytes of é in UTF-8.
SELECT state_set(key, '1') FROM unnest('{ké,kÃ©,abc}'::text[]) key;
SELECT pg_temp.evicted('k?', 'k??', '*?');
\c :home
DROP DATABASE regress_state_characters;

-- Where nobody says what a character is: UTF-8 where the bytes are that, else a byte, as messages have it.
CREATE DATABASE regress_state_characters TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_state_characters
CREATE EXTENSION state_cache;
:define_evicted
SELECT state_set(key, '1') FROM unnest(ARRAY[E'k\xc3\xa9', E'k\xe9', E'k\xe9\xe9', 'abc']) key;
SELECT pg_temp.evicted('k?', 'k??', 'k???', '*?');
SELECT state_set(repeat(E'\xe2\x82\xac', 334), '1');
\echo :SQLSTATE
\c :home
DROP DATABASE regress_state_characters;
-- UTF8, cut in front of what does not fit.
SELECT state_set('k' || repeat('€', 334), '1');
\echo :SQLSTATE
SELECT state_changes('kk' || repeat('€', 60));
\echo :SQLSTATE

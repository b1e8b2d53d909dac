-- Databases in other encodings than UTF8. Keys, classes, sections and documents are text in the database's encoding;
-- an error message shows bytes beyond ASCII escaped, and so names the value at fault in every encoding.
\a \t \pset null (null)
SELECT current_database() AS home \gset
SET client_min_messages = error;

-- LATIN1, in a schema whose name is not ASCII either.
CREATE DATABASE regress_state_latin1 TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_state_latin1
SET client_encoding = 'UTF8';
SHOW server_encoding;
CREATE SCHEMA "schön";
CREATE EXTENSION state_cache SCHEMA "schön";
SET search_path = "schön", public;
SELECT state_set('kéy', '{"é": {"ü": 1}, "list": []}');
SELECT state_get('kéy'), state_get_text('kéy'), state_get_path('kéy', '{é,ü}'), state_get_section('kéy', 'é'), state_version('kéy');
SELECT state_update_section('kéy', 'é', '{"ß": "ÿ"}');
SELECT state_append('kéy', '{list}', '"ø"');
SELECT key, state FROM state_get_many('{kéy}');
SELECT class, key, version, state FROM state_current;
-- A key has 1000 bytes; in LATIN1 a letter is one.
SELECT state_set(repeat('é', 1000), '1'), state_exists(repeat('é', 1000));
-- A class and its channel.
SELECT state_class_define('clàss', channel => 'chän');
-- With the commit, so that the next statement shows what was told.
SET state_cache.notify = commit;
LISTEN "chän";
\o '|sed -E -e \'/^$/d\' -e \'s/,"seq":[^}]*//; s/ received from server process with PID [0-9]+//\''
SELECT state_set('é', '1', class => 'clàss');
\o
UNLISTEN *;
SELECT state_get('é', 'clàss');
-- By hand.
UPDATE state_head SET deleted = true WHERE class = 'clàss';
SELECT state_get('é', 'clàss');
-- A pattern's ? is one letter, whatever its bytes.
SELECT state_invalidate('k?y', 'run') = (SELECT count(*) FROM pg_settings WHERE name = 'shared_preload_libraries' AND setting <> '');
-- Each error with the value at fault.
SELECT state_get_section('kéy', 'à');
\echo :SQLSTATE
SELECT state_set('kéy', '1', expected_version => 7);
\echo :SQLSTATE
SELECT state_get('x', 'clüss');
\echo :SQLSTATE
SELECT state_append('kéy', '{é,ü}', '1');
\echo :SQLSTATE
SELECT state_set(repeat('é', 1001), '1');
\echo :SQLSTATE
UPDATE state_snapshot SET state = '{"ð": 1}' WHERE key = 'kéy';
SELECT state_get('kéy');
\echo :SQLSTATE
\c :home
DROP DATABASE regress_state_latin1;
-- In UTF8 nothing needs to be escaped.
SELECT state_set('kéy', '{}', expected_version => 7);
\echo :SQLSTATE

-- EUC_JP, whose bytes a client's UTF8 must be made from for every message.
CREATE DATABASE regress_state_euc_jp TEMPLATE template0 ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_state_euc_jp
SET client_encoding = 'UTF8';
CREATE EXTENSION state_cache;
SELECT state_set('kあy', '{"あ": "い"}');
SELECT state_get('kあy'), state_get_text('kあy'), state_get_path('kあy', '{あ}');
SELECT state_get_section('kあy', 'あ');
\echo :SQLSTATE
SELECT state_set('kあy', '1', expected_version => 7);
\echo :SQLSTATE
SELECT state_get('x', 'あ');
\echo :SQLSTATE
SELECT state_set(repeat('あ', 501), '1');
\echo :SQLSTATE
\c :home
DROP DATABASE regress_state_euc_jp;

-- SQL_ASCII: whatever bytes come are text.
CREATE DATABASE regress_state_sql_ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_state_sql_ascii
CREATE EXTENSION state_cache;
SELECT state_set(E'k\xff\xfey', '{"a": 1}');
SELECT state_get(E'k\xff\xfey'), state_version(E'k\xff\xfey');
SELECT state_set(E'k\xff\xfey', '1', expected_version => 7);
\echo :SQLSTATE
SELECT state_get('x', E'\xff');
\echo :SQLSTATE
SELECT state_set(repeat(E'\xff', 1001), '1');
\echo :SQLSTATE
\c :home
DROP DATABASE regress_state_sql_ascii;

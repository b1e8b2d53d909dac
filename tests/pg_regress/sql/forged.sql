-- Stored forms made by hand, with the right checksum and the right hash, that decode to what is no jsonb. The server's own
-- functions believe jsonb: they would read, and show, memory behind the document, or not survive it. Whoever may write
-- the tables may store such rows; nobody gets what they hold. A test of crates/delta makes them (forged.rs).
\a \t \pset null (null)
SELECT state_class_define('forged', keep => 0);
CREATE TABLE forged (key text, form bytea, hash bytea);
INSERT INTO forged VALUES
	('count', '\x51d00f00087d00004000c2eb4b000000400100c5ff3b2ebb713417', '\x3f9e85796cb97c56734abdf2b45befc3'),
	('length', '\x51d80f00088500004801000040ffff0080200100ccffe008777acda7', '\x0111c5b61392e4ba62659461992121f8'),
	('number', '\x51e40f0008e50000a80200004008000090d0070000000080000080010020010099ff0113cbeb5863', '\x2a5b93cce45bdb1cd41b1aebfa3a25c1'),
	('text', '\x51d80f00088d00005001000040d007008020a40100cbffe0083b7db633', '\x45f22846f83cfce953914ef0942b6a01'),
	('order', '\x52eb0f0101eb0f0000106500001062610200d2831fdda7731034ebef58', '\xf27ea76a6adf9e5e03f2c4ab1d5b5ffe');

-- As a role that may change the tables, and no more.
CREATE ROLE regress_state_forger;
GRANT SELECT, INSERT, UPDATE, DELETE ON state_head, state_snapshot TO regress_state_forger;
GRANT SELECT ON state_class, state_current, forged TO regress_state_forger;
SET ROLE regress_state_forger;
-- Version 1 is a document, also the one that the delta builds upon; version 2 is not.
\set document '{"a": "first", "b": "' `printf '%02000d' 0 | tr 0 x` '"}'
INSERT INTO state_snapshot (class, key, version, state, hash) SELECT 'forged', key, 1, :'document', state_hash(:'document') FROM forged;
INSERT INTO state_snapshot (class, key, version, parent_version, delta, hash) SELECT 'forged', key, 2, 1, form, hash FROM forged;
INSERT INTO state_head (class, key, version, hash, size) SELECT 'forged', key, 2, hash, 2000 FROM forged;
SELECT key, version, encoding FROM forged, state_history(key, class => 'forged') ORDER BY 1, 2;

-- By every way to a document, and each twice: nothing of it comes to L1.
CREATE TEMP TABLE ways (statement text);
INSERT INTO ways VALUES
	('SELECT state_at(%L, 2, class => ''forged'')'),
	('SELECT state_get(%L, class => ''forged'')'),
	('SELECT state_get_text(%L, class => ''forged'')'),
	('SELECT state_get_path(%L, ''{a}'', class => ''forged'')'),
	('SELECT state_get_section(%L, ''a'', class => ''forged'')'),
	('SELECT * FROM state_get_many(ARRAY[%L], class => ''forged'')'),
	('SELECT * FROM state_get_if_newer(%L, 1, class => ''forged'')'),
	('SELECT state FROM state_current WHERE class = ''forged'' AND key = %L'),
	('SELECT state_diff(%L, 1, 2, class => ''forged'')'),
	('SELECT state_diff(%L, 2, 1, class => ''forged'')'),
	('SELECT state_restore(%L, 2, class => ''forged'')'),
	('SELECT state_update(%L, ''{}'', class => ''forged'')'),
	('SELECT state_merge(%L, ''{}'', class => ''forged'')'),
	('SELECT state_append(%L, ''{}'', ''1'', class => ''forged'')');
SELECT count(*) FROM ways;
SELECT outcome(format(statement, key)), count(*) FROM forged, ways, generate_series(1, 2) GROUP BY 1 ORDER BY 1;
SELECT * FROM state_verify('forged') ORDER BY key;
RESET ROLE;

-- The server lives, the versions below are sound, and recovery goes back to them.
SELECT key, state_at(key, 1, class => 'forged') = :'document' FROM forged ORDER BY key;
SELECT r.* FROM forged f, state_recover(f.key, class => 'forged') r ORDER BY f.key;
SELECT key, state_get(key, class => 'forged') = :'document' FROM forged ORDER BY key;


-- Text is text in the database's encoding, and what is text in it is read as it was saved.
SELECT form, hash FROM forged WHERE key = 'text' \gset
SELECT current_database() AS home \gset
SET client_min_messages = error;
CREATE DATABASE regress_state_euc_jp TEMPLATE template0 ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_state_euc_jp
SET client_encoding = 'UTF8';
CREATE EXTENSION state_cache;
SELECT state_class_define('forged', keep => 0);
INSERT INTO state_snapshot (class, key, version, delta, hash) VALUES ('forged', 'text', 1, :'form', :'hash');
SELECT state_at('text', 1, class => 'forged');
SELECT version FROM generate_series(1, 2) n, state_save('sound', jsonb_build_object('日本語', repeat('テキスト', 200) || n), class => 'forged');
SELECT version, encoding, state_at('sound', version, class => 'forged') = jsonb_build_object('日本語', repeat('テキスト', 200) || version)
	FROM state_history('sound', class => 'forged') ORDER BY version;
\c :home
DROP DATABASE regress_state_euc_jp;

DELETE FROM state_head WHERE class = 'forged';
DELETE FROM state_snapshot WHERE class = 'forged';
DROP TABLE forged;
DROP OWNED BY regress_state_forger;
DROP ROLE regress_state_forger;

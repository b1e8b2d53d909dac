-- state_get_text says what state_get()::text says, from every place a state can come from.
\a \t \pset null (null)
SELECT state_class_define('text');
CREATE TABLE text_case (key text PRIMARY KEY, doc jsonb);
INSERT INTO text_case VALUES
	('empty object', '{}'), ('empty array', '[]'), ('null', 'null'), ('true', 'true'), ('string', '"s"'), ('number', '-0.0'),
	('numbers', '[0, -0, 1.0, 1.00, 1e3, 1e-7, 123456789012345678901234567890.123456789, -5]'),
	('escapes', '"quote \" backslash \\ slash \/ newline \n tab \t bell \u0007 del \u007f"'),
	('unicode', '"é ☃ 😀 \u00e9 \ud83d\ude00"'), ('keys', '{"": 1, " ": 2, "a\"b": 3, "é": 4, "aa": 5, "b": 6}'),
	('nested', '{"a": [[], {}, [[1, {"b": [null, true]}]]], "z": {"y": {"x": {}}}}'),
	('long', to_jsonb(repeat('lorem ipsum ', 2000))), ('wide', (SELECT jsonb_object_agg('key ' || i, i) FROM generate_series(1, 2000) i)),
	('array', (SELECT jsonb_agg(jsonb_build_object('i', i, 'half', i / 2.0)) FROM generate_series(1, 500) i));

-- Staged, flushed, then committed and read from L1, then from the tables.
BEGIN;
SELECT count(state_set(key, doc, class => 'text')) FROM text_case;
SELECT key FROM text_case WHERE state_get_text(key, class => 'text') IS DISTINCT FROM doc::text;
SELECT action, count(*) FROM state_batch_commit() GROUP BY action;
SELECT key FROM text_case WHERE state_get_text(key, class => 'text') IS DISTINCT FROM doc::text;
COMMIT;
SELECT key FROM text_case WHERE state_get_text(key, class => 'text') IS DISTINCT FROM doc::text;
-- The second time too, when the text itself may be kept.
SELECT key FROM text_case WHERE state_get_text(key, class => 'text') IS DISTINCT FROM doc::text;
SELECT key FROM text_case WHERE state_get(key, class => 'text') IS DISTINCT FROM doc;
SET state_cache.enabled = off;
SELECT key FROM text_case WHERE state_get_text(key, class => 'text') IS DISTINCT FROM doc::text;
RESET state_cache.enabled;
SELECT state_cache_clear('text') >= 0;
SELECT key FROM text_case WHERE state_get_text(key, class => 'text') IS DISTINCT FROM doc::text;
SELECT count(*) FROM text_case WHERE state_get_text(key, class => 'text') = doc::text;

-- A kept text belongs to its version.
SELECT state_set('string', '"another"', class => 'text');
SELECT state_get_text('string', class => 'text');
SELECT state_delete('string', class => 'text');
SELECT state_get_text('string', class => 'text');
SELECT state_get_text('escapes', class => 'text'), state_get_text('unicode', class => 'text');

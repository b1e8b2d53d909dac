-- Derived classes over the application's own tables: teams with members, bots, chats, routines with versions, settings.
\a \t \pset null (null)
CREATE SCHEMA derived_app;
SET search_path = derived_app, public;
CREATE TABLE settings (name text PRIMARY KEY, value jsonb NOT NULL);
CREATE TABLE teams (id uuid PRIMARY KEY, name text NOT NULL, config jsonb NOT NULL DEFAULT '{}');
CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL, is_bot boolean NOT NULL DEFAULT false, config jsonb NOT NULL DEFAULT '{}');
CREATE TABLE team_members (team_id uuid REFERENCES teams ON DELETE CASCADE, user_id bigint REFERENCES users ON DELETE CASCADE, role text NOT NULL, PRIMARY KEY (team_id, user_id));
CREATE TABLE chats (id bigint PRIMARY KEY, team_id uuid REFERENCES teams, title text NOT NULL, options jsonb NOT NULL DEFAULT '{}');
CREATE TABLE routines (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE routine_versions (routine_id bigint REFERENCES routines ON DELETE CASCADE, version integer, body jsonb NOT NULL, PRIMARY KEY (routine_id, version));
INSERT INTO settings VALUES ('model', '"small"');
INSERT INTO teams (id, name) VALUES ('00000000-0000-0000-0000-00000000000a', 'Red'), ('00000000-0000-0000-0000-00000000000b', 'Blue');
INSERT INTO users (id, name, is_bot) VALUES (1, 'Ann', false), (2, 'Bot', true), (3, 'Cy', false);
INSERT INTO team_members VALUES ('00000000-0000-0000-0000-00000000000a', 1, 'lead'), ('00000000-0000-0000-0000-00000000000a', 2, 'bot'), ('00000000-0000-0000-0000-00000000000b', 3, 'lead');
INSERT INTO chats (id, team_id, title) VALUES (10, '00000000-0000-0000-0000-00000000000a', 'Launch');
INSERT INTO routines VALUES (100, 'Summary');
INSERT INTO routine_versions VALUES (100, 1, '{"steps": 1}'), (100, 2, '{"steps": 2}');

-- A class begins with an age, unless everything it reads is watched.
SELECT complaint($$SELECT state_class_define('bot', source => 'SELECT to_jsonb(u) FROM users u WHERE u.id = $1::bigint AND u.is_bot')$$);
SELECT state_class_define('bot', cache_ttl => '15 min', channel => 'config_changed', source => 'SELECT to_jsonb(u) FROM users u WHERE u.id = $1::bigint AND u.is_bot');
SELECT state_class_define('team', cache_ttl => '15 min', source => $$
	SELECT jsonb_build_object('name', t.name, 'config', t.config, 'members',
		(SELECT jsonb_agg(jsonb_build_object('name', u.name, 'role', m.role) ORDER BY u.id) FROM team_members m JOIN users u ON u.id = m.user_id WHERE m.team_id = t.id))
	FROM teams t WHERE t.id = $1::uuid $$);
SELECT state_class_define('chat', cache_ttl => '15 min', source => $$
	SELECT jsonb_build_object('title', c.title, 'options', c.options, 'team', t.name, 'model', (SELECT value FROM settings WHERE name = 'model'))
	FROM chats c LEFT JOIN teams t ON t.id = c.team_id WHERE c.id = $1::bigint $$);
SELECT state_class_define('routine', cache_ttl => '15 min', source => $$
	SELECT jsonb_build_object('name', r.name, 'version', v.version, 'body', v.body, 'model', (SELECT value FROM settings WHERE name = 'model'))
	FROM routines r, LATERAL (SELECT * FROM routine_versions v WHERE v.routine_id = r.id ORDER BY v.version DESC LIMIT 1) v WHERE r.id = $1::bigint $$);
SELECT class, exact, reason, relations FROM state_sources ORDER BY class;
SELECT state_watch('bot', 'users', 'id');
SELECT state_watch('team', 'teams', 'id'), state_watch('team', 'team_members', 'team_id'), state_watch('team', 'users');
SELECT state_watch('chat', 'chats', 'id'), state_watch('chat', 'teams'), state_watch('chat', 'settings');
SELECT state_watch('routine', 'routines', 'id'), state_watch('routine', 'routine_versions', 'routine_id'), state_watch('routine', 'settings');
SELECT class, exact, reason, relations FROM state_sources ORDER BY class;
SELECT state_class_define(class, cache_ttl => '0') FROM state_sources;

-- answer() reads a document, and says which counter that moved, and whether the document is what the source gives.
CREATE FUNCTION public.answer(key text, class text) RETURNS text LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
	before jsonb; after jsonb; document jsonb; computed jsonb; how text; source record;
BEGIN
	SELECT to_jsonb(s) INTO before FROM state_cache_stats s WHERE s.class = answer.class;
	document := state_get(answer.key, answer.class);
	SELECT to_jsonb(s) INTO after FROM state_cache_stats s WHERE s.class = answer.class;
	SELECT * INTO source FROM state_source s WHERE s.class = answer.class;
	PERFORM set_config('search_path', source.search_path, true);
	EXECUTE source.query INTO computed USING answer.key;
	SELECT string_agg(a.key, ', ' ORDER BY a.key) INTO how FROM jsonb_each(after) a
		WHERE (a.key IN ('hits', 'misses') OR a.key LIKE 'bypass%') AND a.value <> coalesce(before->a.key, '0');
	RETURN how || CASE WHEN document IS DISTINCT FROM computed THEN ' WRONG ' ELSE ' ' END || coalesce(document::text, 'absent');
END
$$;
SELECT answer('2', 'bot');
SELECT answer('2', 'bot');
-- What is absent is an answer too.
SELECT answer('1', 'bot'), answer('1', 'bot');
UPDATE users SET is_bot = true WHERE id = 1;
SELECT answer('1', 'bot'), answer('1', 'bot'), answer('2', 'bot');
SELECT answer('00000000-0000-0000-0000-00000000000a', 'team'), answer('00000000-0000-0000-0000-00000000000b', 'team');
UPDATE team_members SET team_id = '00000000-0000-0000-0000-00000000000b' WHERE user_id = 2;
SELECT answer('00000000-0000-0000-0000-00000000000a', 'team'), answer('00000000-0000-0000-0000-00000000000b', 'team');
SELECT answer('00000000-0000-0000-0000-00000000000a', 'team'), answer('00000000-0000-0000-0000-00000000000b', 'team');
UPDATE users SET name = 'Cyd' WHERE id = 3;
SELECT answer('00000000-0000-0000-0000-00000000000b', 'team');
SELECT answer('10', 'chat'), answer('100', 'routine'), answer('10', 'chat'), answer('100', 'routine');
UPDATE settings SET value = '"large"' WHERE name = 'model';
SELECT answer('10', 'chat'), answer('100', 'routine'), answer('10', 'chat'), answer('100', 'routine');
INSERT INTO routine_versions VALUES (100, 3, '{"steps": 3}');
SELECT answer('10', 'chat'), answer('100', 'routine');

-- All ways of reading.
SELECT state_get_text('100', 'routine'), state_get_path('100', '{body,steps}', 'routine'), state_get_section('100', 'body', 'routine'), state_exists('100', 'routine'), state_exists('101', 'routine');
SELECT complaint($$SELECT state_get_section('100', 'nothing', 'routine')$$);
SELECT state_get_section('101', 'nothing', 'routine');
SELECT * FROM state_get_many('{100,101,100}', 'routine');
SELECT complaint($$SELECT state_version('100', 'routine')$$);
SELECT complaint($$SELECT state_get_if_newer('100', 1, 'routine')$$);
SELECT class, key, version, text_bytes FROM state_cache_entries WHERE class = 'routine' ORDER BY key;
-- They cannot be changed.
SELECT outcome(format('SELECT %s', f)) FROM unnest(ARRAY[$$state_set('100', '1', class => 'routine')$$, $$state_update('100', '{}', 'routine')$$,
	$$state_update_section('100', 'body', '{}', 'routine')$$, $$state_merge('100', '{}', 'routine')$$, $$state_append('100', '{a}', '1', 'routine')$$,
	$$state_delete('100', class => 'routine')$$, $$state_touch('100', '1 day', 'routine')$$, $$state_save('100', '{}', class => 'routine')$$,
	$$state_restore('100', 1, class => 'routine')$$, $$state_recover('100', class => 'routine')$$, $$state_set_text('100', '1', class => 'routine')$$]) f;
SELECT count(*) FROM state_history('100', 'routine');

-- This transaction's own changes, and those that a savepoint takes back.
BEGIN;
SELECT answer('100', 'routine');
UPDATE routines SET name = 'Mine' WHERE id = 100;
SELECT answer('100', 'routine');
SAVEPOINT s;
UPDATE routines SET name = 'Never' WHERE id = 100;
SELECT answer('100', 'routine');
ROLLBACK TO s;
SELECT answer('100', 'routine'), answer('10', 'chat');
ROLLBACK;
SELECT answer('100', 'routine'), answer('100', 'routine');
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT answer('100', 'routine');
COMMIT;
-- A transaction that changes something else has its hits.
BEGIN;
CREATE TEMP TABLE derived_else AS SELECT 1;
INSERT INTO derived_else VALUES (2);
SELECT answer('100', 'routine');
COMMIT;

-- By hand: evicted and told.
SELECT answer('10', 'chat'), state_invalidate('1*', class => 'chat'), answer('10', 'chat'), state_cache_clear('chat'), answer('10', 'chat');
SELECT state_unwatch('routine', 'settings');
SELECT state_class_define('routine', cache_ttl => '1 h'), state_unwatch('routine', 'settings'), state_unwatch('routine', 'settings');
SELECT class, exact, reason FROM state_sources WHERE class = 'routine';
SELECT complaint($$SELECT state_class_define('routine', cache_ttl => '0')$$);
SELECT state_class_define('routine', source => '');
SELECT state_get('100', 'routine'), state_version('100', 'routine');
SELECT count(*) FROM state_sources;
DROP SCHEMA derived_app CASCADE;
SELECT class, exact, reason FROM state_sources ORDER BY class;
SELECT complaint($$SELECT state_get('10', 'chat')$$);
SELECT state_class_define(class, source => '') FROM state_sources;

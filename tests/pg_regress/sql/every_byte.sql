-- Every byte of every stored form of a small history, changed in turn: whoever reads a version, old or current, gets
-- the right document or XX001.
\a \t \pset null (null)
SELECT state_class_define('every byte', keep => 0);
CREATE FUNCTION small_document(steps integer) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
	SELECT jsonb_build_object('steps', steps, 'log', jsonb_agg(format('step %s of the history is done', i) ORDER BY i)) FROM generate_series(1, 15 + steps) i
$$;
SELECT action, version FROM generate_series(1, 4) i, state_save('doc', small_document(i), recovery_point => i = 3, class => 'every byte');
SELECT version, encoding, recovery_point FROM state_history('doc', class => 'every byte');

-- What a read of each version says: right, XX001, or what else it was.
CREATE FUNCTION read_each() RETURNS text[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	answers text[] := '{}'; found jsonb; answer text;
BEGIN
	FOR n IN 1..5 LOOP
		BEGIN
			-- The fifth is the current one, by the name of its key.
			found := CASE n WHEN 5 THEN state_get('doc', class => 'every byte') ELSE state_at('doc', n, class => 'every byte') END;
			answer := CASE WHEN found IS NOT DISTINCT FROM small_document(least(n, 4)) THEN 'right' ELSE 'WRONG' END;
		EXCEPTION WHEN OTHERS THEN
			answer := SQLSTATE;
		END;
		answers := answers || answer;
	END LOOP;
	RETURN answers;
END
$$;
SELECT read_each();
CREATE TABLE outcomes (version bigint, changed text, reads text[], times integer, PRIMARY KEY (version, changed, reads));
CREATE PROCEDURE try(n bigint, changed text, form bytea, hash bytea) LANGUAGE plpgsql AS $$
BEGIN
	UPDATE state_snapshot s SET delta = form, hash = try.hash WHERE s.class = 'every byte' AND s.key = 'doc' AND s.version = n;
	INSERT INTO outcomes VALUES (n, changed, read_each(), 1) ON CONFLICT ON CONSTRAINT outcomes_pkey DO UPDATE SET times = outcomes.times + 1;
	COMMIT;
END
$$;
CREATE PROCEDURE try_all(n bigint) LANGUAGE plpgsql AS $$
DECLARE
	form bytea; hash bytea;
BEGIN
	SELECT s.delta, s.hash INTO form, hash FROM state_snapshot s WHERE s.class = 'every byte' AND s.key = 'doc' AND s.version = n;
	FOR at IN 0..length(form) - 1 LOOP
		-- One bit, the high bit, all bits.
		CALL try(n, 'byte', set_byte(form, at, get_byte(form, at) # 1), hash);
		CALL try(n, 'byte', set_byte(form, at, get_byte(form, at) # 128), hash);
		CALL try(n, 'byte', set_byte(form, at, get_byte(form, at) # 255), hash);
		CALL try(n, 'cut off', substr(form, 1, at), hash);
		CALL try(n, 'byte gone', substr(form, 1, at) || substr(form, at + 2), hash);
		CALL try(n, 'byte more', substr(form, 1, at) || '\x00' || substr(form, at + 1), hash);
	END LOOP;
	CALL try(n, 'byte more', form || '\x00', hash);
	FOR at IN 0..15 LOOP
		CALL try(n, 'hash', form, set_byte(hash, at, get_byte(hash, at) # 1));
	END LOOP;
	-- As it was.
	CALL try(n, 'nothing', form, hash);
END
$$;
-- As replication would apply it: without asking whether others build upon it.
SET session_replication_role = replica;
CALL try_all(1);
CALL try_all(2);
CALL try_all(3);
CALL try_all(4);
RESET session_replication_role;
-- What was tried was tried as often as there are bytes.
SELECT o.version, changed, sum(times) = CASE changed WHEN 'nothing' THEN 1 WHEN 'hash' THEN 16 WHEN 'byte' THEN 3 * max(bytes) WHEN 'byte more' THEN max(bytes) + 1 ELSE max(bytes) END
	FROM outcomes o JOIN (SELECT version, length(delta) AS bytes FROM state_snapshot WHERE class = 'every byte') s USING (version) GROUP BY o.version, changed ORDER BY 1, 2;
-- Only what is changed and what builds upon it is damaged; a hash is the version's own.
SELECT version, changed, reads FROM outcomes ORDER BY version, changed, reads;
SELECT read_each();
SELECT * FROM state_verify('every byte');

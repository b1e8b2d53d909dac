-- What every other file stands on: the extension, and a few helpers that the tests share.
\a \t \pset null (null)

CREATE EXTENSION state_cache;

-- Four classes come with it.
SELECT class, write_mode, keep, dedup, ttl, cache_ttl, max_entries, channel FROM state_class ORDER BY class;

-- seen() is what the functions say of a state, stored() what the tables say under the same snapshot.
CREATE FUNCTION seen(key text, class text) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT coalesce('v' || state_version(key, class) || ' ' || state_get(key, class), 'absent')
$$;
CREATE FUNCTION stored(key text, class text) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT coalesce((SELECT 'v' || c.version || ' ' || c.state FROM state_current c
		WHERE c.class = stored.class AND c.key = stored.key), 'absent')
$$;

-- complaint() runs a statement in a subtransaction and says what the server said to it.
CREATE FUNCTION complaint(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text; detail text; hint text;
BEGIN
	EXECUTE statement;
	RETURN 'no complaint';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN SQLSTATE || ' ' || message
		|| CASE WHEN detail <> '' THEN E'\n    DETAIL: ' || detail ELSE '' END
		|| CASE WHEN hint <> '' THEN E'\n    HINT: ' || hint ELSE '' END;
END
$$;
-- outcome() leaves detail and hint out.
CREATE FUNCTION outcome(statement text) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT split_part(complaint(statement), E'\n', 1) $$;

-- document() is as large as the state of an agent after so many steps: it is stored as the difference from the one before.
CREATE FUNCTION document(steps integer) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
	SELECT jsonb_build_object('steps', steps, 'log', jsonb_agg(md5(i::text) ORDER BY i)) FROM generate_series(1, 40 + steps) i
$$;
-- keep_steps() saves the first so many of them, a version each, and commits after each.
CREATE PROCEDURE keep_steps(key text, class text, steps integer) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..steps LOOP
		PERFORM state_save(key, document(i), class => class);
		COMMIT;
	END LOOP;
END
$$;
-- kept_steps() says which versions are kept and how, * for a recovery point, and of each that is not that document: WRONG.
CREATE FUNCTION kept_steps(key text, class text) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT string_agg(format('%s %s%s%s', h.version, h.encoding, CASE WHEN h.recovery_point THEN '*' END,
			CASE WHEN state_at(kept_steps.key, h.version, kept_steps.class) IS DISTINCT FROM document(h.version::integer) THEN ' WRONG' END), ', ' ORDER BY h.version)
		FROM state_history(kept_steps.key, kept_steps.class) h
$$;
-- damage() changes snapshots behind the back of the triggers, as bad storage would: L1 keeps what it holds.
CREATE PROCEDURE damage(statement text) LANGUAGE plpgsql AS $$
BEGIN
	ALTER TABLE state_snapshot DISABLE TRIGGER state_cache_changing;
	ALTER TABLE state_snapshot DISABLE TRIGGER state_cache_changed;
	EXECUTE statement;
	ALTER TABLE state_snapshot ENABLE ALWAYS TRIGGER state_cache_changing;
	ALTER TABLE state_snapshot ENABLE ALWAYS TRIGGER state_cache_changed;
END
$$;
-- damage_byte() does that to a byte of a stored delta, counted from its end.
CREATE PROCEDURE damage_byte(key text, class text, version bigint, from_end integer) LANGUAGE sql AS $$
	CALL damage(format('UPDATE state_snapshot SET delta = set_byte(delta, length(delta) - %s, get_byte(delta, length(delta) - %1$s) # 85)
		WHERE class = %L AND key = %L AND version = %s', from_end, class, key, version))
$$;

-- variables() is what a run knows, without the times; accounts() what it may use up, has used, and has allotted to children.
CREATE FUNCTION variables(run text) RETURNS TABLE (name text, value jsonb, sensitivity text, source text, mutable boolean) LANGUAGE sql VOLATILE AS $$
	SELECT v.key, v.value->'value', v.value->>'sensitivity', v.value->>'source', (v.value->>'mutable')::boolean
		FROM jsonb_each(state_context_get(run)->'variables') v ORDER BY v.key COLLATE "C"
$$;
CREATE FUNCTION accounts(run text) RETURNS TABLE (counter text, at_most numeric, used numeric, reserved numeric, shared boolean) LANGUAGE sql VOLATILE AS $$
	SELECT c.counter, (r->'resourceLimits'->>c.field)::numeric, (r->'usage'->>c.counter)::numeric,
			(SELECT sum((a.value->>c.counter)::numeric) FROM jsonb_each(coalesce(r->'reservations', '{}')) a), coalesce(r->'sharedLimits' ? c.counter, false)
		FROM state_context_get(run) r, (VALUES ('credits', 'maxCredits'), ('toolCalls', 'maxToolCalls'), ('durationMs', 'maxDurationMs'),
			('branches', 'maxConcurrentBranches')) c (counter, field)
		WHERE r->'resourceLimits' ? c.field OR r->'usage' ? c.counter
$$;

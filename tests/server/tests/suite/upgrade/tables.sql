-- A query for each table that pg_dump carries, column by column as the tables are now. What the worker notes of users'
-- indexes and the like comes when it comes.
SELECT format('SELECT concat(%L, row(%s)) FROM %s ORDER BY 1', relation || ' ', columns, relation)
	FROM (SELECT a.attrelid::regclass AS relation, string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS columns
		FROM pg_extension e, unnest(extconfig) o
			JOIN pg_attribute a ON attrelid = o
			JOIN pg_class c ON c.oid = o AND NOT relispartition AND relname <> 'state_protection'
		WHERE extname = 'state_cache' AND attnum > 0 AND NOT attisdropped AND attname <> 'log_cnt'
		GROUP BY attrelid) t
	ORDER BY 1

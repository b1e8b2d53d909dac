-- ---------------------------------------------------------------------------------------------------
-- Derived classes: documents that a query computes
-- ---------------------------------------------------------------------------------------------------

CREATE TABLE state_source (
	class       text COLLATE "C" PRIMARY KEY,
	query       text NOT NULL,
	search_path text NOT NULL,
	serve_stale interval CHECK (serve_stale OPERATOR(pg_catalog.>) '0'::pg_catalog.interval
		AND serve_stale OPERATOR(pg_catalog.<=) '5000 years'::pg_catalog.interval)
);
COMMENT ON TABLE state_source IS 'the queries that compute the documents of derived classes';
COMMENT ON COLUMN state_source.class IS 'class of the documents';
COMMENT ON COLUMN state_source.query IS 'a SELECT that gives one jsonb for the key, which is $1, a text';
COMMENT ON COLUMN state_source.search_path IS 'where the names in the query are looked up, whoever reads';
COMMENT ON COLUMN state_source.serve_stale
	IS 'for how long after the end of its cache_ttl an entry may serve readers while another session computes the '
	   'next one; NULL: they wait';
SELECT pg_catalog.pg_extension_config_dump('state_source', '');

CREATE TRIGGER state_class_changed AFTER INSERT OR UPDATE OR DELETE ON state_source
	FOR EACH ROW EXECUTE FUNCTION state_class_watch();
CREATE TRIGGER state_class_truncated AFTER TRUNCATE ON state_source
	FOR EACH STATEMENT EXECUTE FUNCTION state_class_watch();
COMMENT ON TRIGGER state_class_changed ON state_source IS 'tells every session that a class was redefined';
COMMENT ON TRIGGER state_class_truncated ON state_source IS 'tells every session that a class was redefined';
ALTER TABLE state_source ENABLE ALWAYS TRIGGER state_class_changed;
ALTER TABLE state_source ENABLE ALWAYS TRIGGER state_class_truncated;

CREATE FUNCTION state_source_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'state_source_changed';
COMMENT ON FUNCTION state_source_changed()
	IS 'the trigger function of watches: says which documents of a derived class a changed row concerns';

CREATE FUNCTION state_watch(class text, relation regclass, keys text DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_watch';
COMMENT ON FUNCTION state_watch(text, regclass, text)
	IS 'has changes of a table evict documents of a derived class: those that an expression over the changed row '
	   'names, or all of the class';

CREATE FUNCTION state_unwatch(class text, relation regclass) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_unwatch';
COMMENT ON FUNCTION state_unwatch(text, regclass)
	IS 'ends all watches of a class on a table; whether there were any';

CREATE FUNCTION state_sources(OUT class text, OUT query text, OUT relations text, OUT exact boolean,
		OUT reason text) RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_sources';
COMMENT ON FUNCTION state_sources() IS 'what the view state_sources shows';

CREATE VIEW state_sources AS SELECT * FROM state_sources();
COMMENT ON VIEW state_sources
	IS 'the derived classes; exact: an entry of L1 is what the query would give; if not, the reason, and an entry is '
	   'as old as the cache_ttl of its class';

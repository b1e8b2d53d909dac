-- A trigger fires without this privilege; without it nobody can put the functions on other tables.
REVOKE EXECUTE ON FUNCTION state_cache_watch(), state_class_watch(), state_class_restore(), state_floor_merge(),
	state_claim_merge(), state_task_watch(), state_budget_watch() FROM PUBLIC;

-- What the server does is for those who watch over it; names of states show there to none who may not read them.
REVOKE EXECUTE ON FUNCTION state_cache_stats(), state_cache_workers(), state_progress(), state_sources() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION state_cache_stats(), state_cache_workers(), state_progress(), state_sources() TO pg_monitor;
GRANT SELECT ON state_cache_stats, state_cache_workers, state_progress, state_sources TO pg_monitor;

-- ---------------------------------------------------------------------------------------------------
-- Budgets. The functions write these tables as their caller, who needs the privileges for it. Amounts are decimal
-- numbers with at most 9 decimals.
-- ---------------------------------------------------------------------------------------------------

-- Functions in C, one CHECK for each of the tables that each call writes: the server reads the text of every CHECK of
-- a table anew for each statement that writes to the table, and the body of a function in SQL with it.
CREATE FUNCTION state_money(amount numeric) RETURNS boolean
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'state_money';
COMMENT ON FUNCTION state_money(numeric) IS 'whether a number is an amount: finite, of at most 9 decimals';

CREATE FUNCTION state_counters(spent numeric, held numeric) RETURNS boolean
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'state_counters';
COMMENT ON FUNCTION state_counters(numeric, numeric) IS 'whether two numbers can be counters of an account';

CREATE FUNCTION state_hold_is_sound(hold_id text, amount numeric, actual numeric, status text,
		expired_at timestamptz, resolved_at timestamptz, scopes text[], periods timestamptz[], shards integer[])
	RETURNS boolean
	LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'state_hold_is_sound';
COMMENT ON FUNCTION state_hold_is_sound(text, numeric, numeric, text, timestamptz, timestamptz, text[], timestamptz[],
	integer[]) IS 'whether these columns can be those of a hold';

CREATE TABLE state_budget (
	budget     text COLLATE "C" PRIMARY KEY
		CHECK (pg_catalog.octet_length(budget) OPERATOR(pg_catalog.>=) 1
			AND pg_catalog.octet_length(budget) OPERATOR(pg_catalog.<=) 255),
	total      numeric NOT NULL CHECK (total OPERATOR(pg_catalog.>=) 0 AND state_money(total)),
	currency   text COLLATE "C" NOT NULL
		CHECK (pg_catalog.octet_length(currency) OPERATOR(pg_catalog.>=) 1
			AND pg_catalog.octet_length(currency) OPERATOR(pg_catalog.<=) 63),
	parent     text COLLATE "C" CHECK (parent OPERATOR(pg_catalog.<>) budget),
	period     interval,
	soft_limit numeric CHECK (soft_limit OPERATOR(pg_catalog.>=) 0 AND state_money(soft_limit)),
	shards     integer NOT NULL DEFAULT 1
		CHECK (shards OPERATOR(pg_catalog.>=) 1 AND shards OPERATOR(pg_catalog.<=) 64),
	revision   bigint NOT NULL DEFAULT 1,
	defined_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	retention  interval CHECK (retention OPERATOR(pg_catalog.>=) '1 day')
);
CREATE INDEX state_budget_children ON state_budget (parent) WHERE parent IS NOT NULL;
COMMENT ON TABLE state_budget IS 'budgets: a row per budget that state_budget_define() has made';
COMMENT ON COLUMN state_budget.budget IS 'name of the budget, 1 to 255 bytes';
COMMENT ON COLUMN state_budget.total IS 'what may be spent in a period';
COMMENT ON COLUMN state_budget.currency IS 'what amounts are counted in';
COMMENT ON COLUMN state_budget.parent IS 'the budget above, in which each hold needs room too; NULL for a root';
COMMENT ON COLUMN state_budget.period IS 'how long counters count, in UTC; NULL: for ever';
COMMENT ON COLUMN state_budget.soft_limit IS 'from which spending on somebody is told; NULL: never';
COMMENT ON COLUMN state_budget.shards IS 'among how many rows the counters are distributed';
COMMENT ON COLUMN state_budget.revision IS 'counts what was redefined beside limits';
COMMENT ON COLUMN state_budget.defined_at IS 'when the budget was defined first';
COMMENT ON COLUMN state_budget.retention IS 'how long ended holds and costs stay; NULL: for ever';
COMMENT ON INDEX state_budget_children IS 'the budgets below each budget';

CREATE TABLE state_budget_agent (
	budget         text COLLATE "C" NOT NULL,
	agent          text COLLATE "C" NOT NULL
		CHECK (pg_catalog.octet_length(agent) OPERATOR(pg_catalog.>=) 1
			AND pg_catalog.octet_length(agent) OPERATOR(pg_catalog.<=) 255),
	spending_limit numeric CHECK (spending_limit OPERATOR(pg_catalog.>=) 0 AND state_money(spending_limit)),
	price          numeric CHECK (price OPERATOR(pg_catalog.>) 0 AND state_money(price)),
	defined_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (budget, agent)
);
COMMENT ON TABLE state_budget_agent IS 'the agents of each budget';
COMMENT ON COLUMN state_budget_agent.budget IS 'the budget';
COMMENT ON COLUMN state_budget_agent.agent IS 'name of the agent, 1 to 255 bytes';
COMMENT ON COLUMN state_budget_agent.spending_limit IS 'what it may spend in a period; NULL: as much as the budget';
COMMENT ON COLUMN state_budget_agent.price IS 'what it reserves by default, as it was defined; NULL: nothing';
COMMENT ON COLUMN state_budget_agent.defined_at IS 'when it was put into the budget';

CREATE TABLE state_budget_price (
	budget     text COLLATE "C" NOT NULL,
	agent      text COLLATE "C" NOT NULL,
	shard      integer NOT NULL,
	price      numeric NOT NULL CHECK (price OPERATOR(pg_catalog.>=) 0 AND state_money(price)),
	learned_at timestamptz NOT NULL,
	PRIMARY KEY (budget, agent, shard)
) WITH (fillfactor = 50);
COMMENT ON TABLE state_budget_price IS 'prices learned from costs; of an agent the last one counts';
COMMENT ON COLUMN state_budget_price.budget IS 'the budget';
COMMENT ON COLUMN state_budget_price.agent IS 'the agent';
COMMENT ON COLUMN state_budget_price.shard IS 'the shard that has learned it';
COMMENT ON COLUMN state_budget_price.price IS 'mean of the last costs';
COMMENT ON COLUMN state_budget_price.learned_at IS 'when it was learned';

CREATE TABLE state_budget_account (
	budget    text COLLATE "C" NOT NULL,
	agent     text COLLATE "C" NOT NULL,
	period    timestamptz NOT NULL,
	shard     integer NOT NULL,
	allotted  numeric,
	spent     numeric NOT NULL DEFAULT 0,
	held      numeric NOT NULL DEFAULT 0,
	expected  numeric NOT NULL DEFAULT 0,
	actual    numeric NOT NULL DEFAULT 0,
	compared  bigint NOT NULL DEFAULT 0,
	revision  bigint NOT NULL,
	judged_at timestamptz,
	quiet     numeric DEFAULT 0,
	PRIMARY KEY (budget, agent, period, shard),
	CONSTRAINT state_budget_account_counters CHECK (state_counters(spent, held))
) WITH (fillfactor = 50);
COMMENT ON TABLE state_budget_account
	IS 'counters: a row for each budget, each of its agents that has reserved or spent, period and shard';
COMMENT ON COLUMN state_budget_account.budget IS 'the budget';
COMMENT ON COLUMN state_budget_account.agent IS 'the agent; empty: the budget as a whole';
COMMENT ON COLUMN state_budget_account.period IS 'when the period began; -infinity without periods';
COMMENT ON COLUMN state_budget_account.shard IS 'number of the shard, from 0';
COMMENT ON COLUMN state_budget_account.allotted
	IS 'what this row may spend and hold without a look at the others; NULL: there is no limit';
COMMENT ON COLUMN state_budget_account.spent IS 'what was charged';
COMMENT ON COLUMN state_budget_account.held IS 'what is held, expired holds included until they are taken out';
COMMENT ON COLUMN state_budget_account.expected IS 'of the costs of which both are known: what was expected';
COMMENT ON COLUMN state_budget_account.actual IS 'of the same costs: what they were';
COMMENT ON COLUMN state_budget_account.compared IS 'how many of these there are';
COMMENT ON COLUMN state_budget_account.revision IS 'revision of the budget that allotted was made under';
COMMENT ON COLUMN state_budget_account.judged_at
	IS 'holds that end up to here have expired, and what they held may have been given to others';
COMMENT ON COLUMN state_budget_account.quiet
	IS 'as long as this row has spent less, nothing is reached that somebody is told of; NULL: nothing can be';

CREATE TABLE state_budget_hold (
	hold_id     text COLLATE "C" PRIMARY KEY,
	budget      text COLLATE "C" NOT NULL,
	agent       text COLLATE "C",
	amount      numeric NOT NULL,
	asked       numeric,
	ttl         interval NOT NULL,
	owner       text,
	remaining   numeric NOT NULL,
	scopes      text[] NOT NULL,
	periods     timestamptz[] NOT NULL,
	shards      integer[] NOT NULL,
	status      text NOT NULL DEFAULT 'held',
	made_at     timestamptz NOT NULL,
	expires_at  timestamptz NOT NULL,
	expired_at  timestamptz,
	actual      numeric,
	resolved_at timestamptz,
	metadata    jsonb,
	CONSTRAINT state_budget_hold_sound
		CHECK (state_hold_is_sound(hold_id, amount, actual, status, expired_at, resolved_at, scopes, periods, shards))
) WITH (fillfactor = 80);
CREATE INDEX state_budget_hold_open ON state_budget_hold (expires_at) WHERE status OPERATOR(pg_catalog.=) 'held';
CREATE INDEX state_budget_hold_costs ON state_budget_hold (budget, agent, resolved_at)
	WHERE status OPERATOR(pg_catalog.=) 'settled';
CREATE INDEX state_budget_hold_free
	ON state_budget_hold (budget, (COALESCE(resolved_at, expired_at)))
	WHERE status OPERATOR(pg_catalog.=) ANY (ARRAY['voided', 'expired']);
COMMENT ON TABLE state_budget_hold IS 'holds: money reserved until it is settled, voided or expires';
COMMENT ON COLUMN state_budget_hold.hold_id IS 'name of the hold, 1 to 255 bytes';
COMMENT ON COLUMN state_budget_hold.budget IS 'the budget that it was asked of';
COMMENT ON COLUMN state_budget_hold.agent IS 'the agent; NULL: nobody in particular';
COMMENT ON COLUMN state_budget_hold.amount IS 'what is held, and what the cost is expected to be';
COMMENT ON COLUMN state_budget_hold.asked IS 'what was asked for; NULL: the price of the agent';
COMMENT ON COLUMN state_budget_hold.ttl IS 'how long it was to be held';
COMMENT ON COLUMN state_budget_hold.owner IS 'who holds it, as the caller said';
COMMENT ON COLUMN state_budget_hold.remaining IS 'what was left after it, as the caller was told';
COMMENT ON COLUMN state_budget_hold.scopes IS 'the budgets that it is counted in, from its own up to the root';
COMMENT ON COLUMN state_budget_hold.periods IS 'in which period of each';
COMMENT ON COLUMN state_budget_hold.shards IS 'in which shard of each';
COMMENT ON COLUMN state_budget_hold.status
	IS 'held, settled, voided or expired; one that is held may be over its time';
COMMENT ON COLUMN state_budget_hold.made_at IS 'when it was reserved';
COMMENT ON COLUMN state_budget_hold.expires_at IS 'from when on it counts no longer';
COMMENT ON COLUMN state_budget_hold.expired_at IS 'when it was taken out of the counters after its time';
COMMENT ON COLUMN state_budget_hold.actual IS 'what it cost';
COMMENT ON COLUMN state_budget_hold.resolved_at IS 'when it was settled or voided';
COMMENT ON COLUMN state_budget_hold.metadata IS 'whatever the caller wants to keep beside the cost';
COMMENT ON INDEX state_budget_hold_open IS 'what expires next';
COMMENT ON INDEX state_budget_hold_costs IS 'the last costs of each agent';
COMMENT ON INDEX state_budget_hold_free IS 'holds that have ended at no cost';

CREATE TABLE state_budget_cost (
	budget      text COLLATE "C" NOT NULL,
	id          text COLLATE "C" NOT NULL
		CHECK (pg_catalog.octet_length(id) OPERATOR(pg_catalog.>=) 1
			AND pg_catalog.octet_length(id) OPERATOR(pg_catalog.<=) 255),
	agent       text COLLATE "C",
	expected    numeric CHECK (expected OPERATOR(pg_catalog.>) 0 AND state_money(expected)),
	actual      numeric NOT NULL CHECK (actual OPERATOR(pg_catalog.>=) 0 AND state_money(actual)),
	scopes      text[] NOT NULL,
	periods     timestamptz[] NOT NULL,
	recorded_at timestamptz NOT NULL,
	metadata    jsonb,
	PRIMARY KEY (budget, id),
	CHECK (pg_catalog.cardinality(scopes) OPERATOR(pg_catalog.=) pg_catalog.cardinality(periods))
);
CREATE INDEX state_budget_cost_recent ON state_budget_cost (budget, agent, recorded_at);
COMMENT ON TABLE state_budget_cost IS 'costs that nothing was held for';
COMMENT ON COLUMN state_budget_cost.budget IS 'the budget that was charged';
COMMENT ON COLUMN state_budget_cost.id IS 'name of the cost within its budget';
COMMENT ON COLUMN state_budget_cost.agent IS 'the agent; NULL: nobody in particular';
COMMENT ON COLUMN state_budget_cost.expected IS 'what was expected; NULL: nothing was';
COMMENT ON COLUMN state_budget_cost.actual IS 'what it was';
COMMENT ON COLUMN state_budget_cost.scopes IS 'the budgets that were charged, from its own up to the root';
COMMENT ON COLUMN state_budget_cost.periods IS 'in which period of each';
COMMENT ON COLUMN state_budget_cost.recorded_at IS 'when it was recorded';
COMMENT ON COLUMN state_budget_cost.metadata IS 'whatever the caller wants to keep beside it';
COMMENT ON INDEX state_budget_cost_recent IS 'the last costs of each agent';

CREATE TABLE state_budget_pruned (
	budget   text COLLATE "C" NOT NULL,
	agent    text COLLATE "C" NOT NULL,
	period   timestamptz NOT NULL,
	shard    integer NOT NULL,
	spent    numeric NOT NULL,
	expected numeric NOT NULL,
	actual   numeric NOT NULL,
	compared bigint NOT NULL,
	PRIMARY KEY (budget, agent, period, shard)
);
COMMENT ON TABLE state_budget_pruned
	IS 'what holds and costs add up to that were deleted after their retention: counters count it still';
COMMENT ON COLUMN state_budget_pruned.budget IS 'the budget';
COMMENT ON COLUMN state_budget_pruned.agent IS 'the agent; empty: the budget as a whole';
COMMENT ON COLUMN state_budget_pruned.period IS 'when the period began; -infinity without periods';
COMMENT ON COLUMN state_budget_pruned.shard IS 'number of the shard that counts it';
COMMENT ON COLUMN state_budget_pruned.spent IS 'what they have cost';
COMMENT ON COLUMN state_budget_pruned.expected IS 'of those of which both are known: what was expected';
COMMENT ON COLUMN state_budget_pruned.actual IS 'of the same: what it was';
COMMENT ON COLUMN state_budget_pruned.compared IS 'how many of these there were';

CREATE TABLE state_budget_reached (
	budget     text COLLATE "C" NOT NULL,
	agent      text COLLATE "C" NOT NULL,
	period     timestamptz NOT NULL,
	level      text NOT NULL
		CHECK (level OPERATOR(pg_catalog.=) ANY (ARRAY['soft_limit', 'limit', 'overrun'])),
	reached_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (budget, agent, period, level)
);
COMMENT ON TABLE state_budget_reached IS 'what was told on channel budget_reached: each level once in a period';
COMMENT ON COLUMN state_budget_reached.budget IS 'the budget';
COMMENT ON COLUMN state_budget_reached.agent IS 'the agent whose limit it is; empty: that of the budget';
COMMENT ON COLUMN state_budget_reached.period IS 'when the period began; -infinity without periods';
COMMENT ON COLUMN state_budget_reached.level IS 'soft_limit, limit (all is spent) or overrun (more than all)';
COMMENT ON COLUMN state_budget_reached.reached_at IS 'when it was reached';

CREATE VIEW state_budget_holds WITH (security_invoker = true) AS
	SELECT hold_id, budget, agent, amount, owner,
		CASE WHEN status OPERATOR(pg_catalog.=) 'held' AND expires_at OPERATOR(pg_catalog.<=)
			pg_catalog.clock_timestamp() THEN 'expired' ELSE status END AS status,
		made_at, expires_at, actual, actual OPERATOR(pg_catalog.>) amount AS overrun, resolved_at, metadata
	FROM state_budget_hold;
COMMENT ON VIEW state_budget_holds IS 'holds with the status that they have by the clock';
COMMENT ON COLUMN state_budget_holds.hold_id IS 'name of the hold';
COMMENT ON COLUMN state_budget_holds.budget IS 'the budget that it was asked of';
COMMENT ON COLUMN state_budget_holds.agent IS 'the agent; NULL: nobody in particular';
COMMENT ON COLUMN state_budget_holds.amount IS 'what is or was held';
COMMENT ON COLUMN state_budget_holds.owner IS 'who holds it, as the caller said';
COMMENT ON COLUMN state_budget_holds.status IS 'held, settled, voided or expired';
COMMENT ON COLUMN state_budget_holds.made_at IS 'when it was reserved';
COMMENT ON COLUMN state_budget_holds.expires_at IS 'from when on it counts no longer';
COMMENT ON COLUMN state_budget_holds.actual IS 'what it cost';
COMMENT ON COLUMN state_budget_holds.overrun IS 'whether that was more than was held; NULL until it is settled';
COMMENT ON COLUMN state_budget_holds.resolved_at IS 'when it was settled or voided';
COMMENT ON COLUMN state_budget_holds.metadata IS 'whatever the caller wants to keep beside the cost';

CREATE FUNCTION state_budget_watch() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'state_budget_watch';
COMMENT ON FUNCTION state_budget_watch() IS 'after a change of budgets by hand no summary in L1 is used any more';

DO $$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY ARRAY['', '_agent', '_price', '_account', '_hold', '_cost', '_pruned', '_reached'] LOOP
		EXECUTE pg_catalog.format('CREATE TRIGGER state_cache_changed AFTER INSERT OR UPDATE OR DELETE
			ON state_budget%s FOR EACH ROW WHEN (state_cache_by_hand()) EXECUTE FUNCTION state_budget_watch()', name);
		EXECUTE pg_catalog.format('CREATE TRIGGER state_cache_truncating BEFORE TRUNCATE
			ON state_budget%s FOR EACH STATEMENT EXECUTE FUNCTION state_budget_watch()', name);
		EXECUTE pg_catalog.format('COMMENT ON TRIGGER state_cache_changed ON state_budget%s
			IS ''summaries in L1 are not used any more after a change by hand''', name);
		EXECUTE pg_catalog.format('COMMENT ON TRIGGER state_cache_truncating ON state_budget%s
			IS ''summaries in L1 are not used any more''', name);
		EXECUTE pg_catalog.format('ALTER TABLE state_budget%s ENABLE ALWAYS TRIGGER state_cache_changed', name);
		EXECUTE pg_catalog.format('ALTER TABLE state_budget%s ENABLE ALWAYS TRIGGER state_cache_truncating', name);
		PERFORM pg_catalog.pg_extension_config_dump(
			('state_budget' OPERATOR(pg_catalog.||) name)::pg_catalog.regclass, '');
	END LOOP;
END
$$;

CREATE FUNCTION state_budget_define(budget text, total numeric, currency text, parent text DEFAULT NULL,
		agents jsonb DEFAULT NULL, period text DEFAULT NULL, soft_limit numeric DEFAULT NULL,
		shards integer DEFAULT NULL, retention text DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_budget_define';
COMMENT ON FUNCTION state_budget_define(text, numeric, text, text, jsonb, text, numeric, integer, text)
	IS 'defines a budget, or defines it anew: what was spent and is held stays; what is NULL stays as it was';

CREATE FUNCTION state_budget_drop(budget text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_budget_drop';
COMMENT ON FUNCTION state_budget_drop(text)
	IS 'removes a budget with its counters, holds and costs; refused while anything is held or another is below it';

CREATE FUNCTION state_budget_reserve(budget text, agent text, amount numeric DEFAULT NULL, hold_id text DEFAULT NULL,
		ttl interval DEFAULT '15 minutes', owner text DEFAULT NULL, currency text DEFAULT NULL,
		OUT hold_id text, OUT amount numeric, OUT remaining numeric)
	RETURNS record
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_budget_reserve';
COMMENT ON FUNCTION state_budget_reserve(text, text, numeric, text, interval, text, text)
	IS 'holds money in a budget and all above it; what is held, and what is left after it. 53400 without room';

CREATE FUNCTION state_budget_settle(hold_id text, actual numeric, metadata jsonb DEFAULT NULL,
		currency text DEFAULT NULL, OUT hold_id text, OUT amount numeric, OUT actual numeric, OUT overrun boolean,
		OUT late boolean)
	RETURNS record
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_budget_settle';
COMMENT ON FUNCTION state_budget_settle(text, numeric, jsonb, text)
	IS 'charges what a hold has cost, once, also more than was held and after its time';

CREATE FUNCTION state_budget_void(hold_id text) RETURNS numeric
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_budget_void';
COMMENT ON FUNCTION state_budget_void(text) IS 'gives a hold back, at no cost: what it held';

CREATE FUNCTION state_budget_extend(hold_id text, ttl interval DEFAULT '15 minutes') RETURNS timestamptz
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_budget_extend';
COMMENT ON FUNCTION state_budget_extend(text, interval)
	IS 'holds for so long from now; until when. 55000 for a hold whose time is over';

CREATE FUNCTION state_budget_summary(budget text) RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_budget_summary';
COMMENT ON FUNCTION state_budget_summary(text)
	IS 'what was spent, is held and remains, in all and by agent, and the last costs';

CREATE FUNCTION state_budget_record_costs(budget text, records jsonb) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'state_budget_record_costs';
COMMENT ON FUNCTION state_budget_record_costs(text, jsonb)
	IS 'charges costs that nothing was held for, all or none, each id once; how many were new';

CREATE FUNCTION state_budget_accuracy(budget text,
		OUT agent text, OUT costs bigint, OUT expected numeric, OUT actual numeric, OUT accuracy numeric)
	RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 10 AS 'MODULE_PATHNAME', 'state_budget_accuracy';
COMMENT ON FUNCTION state_budget_accuracy(text)
	IS 'how far costs were from what was expected, in all (agent NULL) and by agent';

CREATE FUNCTION state_budget_project(budget text, planned jsonb) RETURNS jsonb
	LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'state_budget_project';
COMMENT ON FUNCTION state_budget_project(text, jsonb)
	IS 'what planned work will cost, with a low and a high, and whether it fits';

CREATE FUNCTION state_budget_recommend(budget text, planned jsonb DEFAULT NULL,
		OUT severity text, OUT agent text, OUT recommendation text, OUT amount numeric, OUT reason text)
	RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 5 AS 'MODULE_PATHNAME', 'state_budget_recommend';
COMMENT ON FUNCTION state_budget_recommend(text, jsonb)
	IS 'what somebody should look at in a budget, what matters most first';

CREATE FUNCTION state_budget_verify(budget text DEFAULT NULL, repair boolean DEFAULT false,
		OUT budget text, OUT agent text, OUT period timestamptz, OUT spent numeric, OUT spent_found numeric,
		OUT held numeric, OUT held_found numeric)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 5 AS 'MODULE_PATHNAME', 'state_budget_verify';
COMMENT ON FUNCTION state_budget_verify(text, boolean)
	IS 'accounts whose counters are not what holds and costs add up to; with repair they are counted anew';

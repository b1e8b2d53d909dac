//! Counters compared with the holds and costs that they count, and old ones of these, which are counted still.

use super::records::Account;
use super::{
    Seen, amount_at, interval_at, long, name, nothing, optional_name, run, statements, time,
};
use crate::catalog::Catalog;
use crate::error::Result;
use pgrx::pg_sys;
use state_cache_budget::Amount;
use state_cache_memory::{collect, try_collect};

/// An account whose counters are wrong: what they say, and what holds and costs add up to.
#[derive(Debug, Clone)]
pub struct Counted {
    /// The budget.
    pub budget: Box<[u8]>,
    /// The agent; empty: the budget as a whole.
    pub agent: Box<[u8]>,
    /// When the period began.
    pub period: i64,
    /// Spent: as counted, as found.
    pub spent: (Amount, Amount),
    /// Held: as counted, as found.
    pub held: (Amount, Amount),
}

/// What holds, or costs, of a relation are to each account that counts them: budget, agent, period, shard, spent,
/// held, and of those of which both are known, what was expected, what it was, and how many they are.
fn entries(holds: &str, costs: &str) -> String {
    const COLUMNS: &str = "COALESCE(h.actual, 0) AS spent, \
         CASE WHEN h.status OPERATOR(pg_catalog.=) 'held' THEN h.amount ELSE 0 END AS held, \
         CASE WHEN h.actual IS NOT NULL THEN h.amount END AS expected, h.actual, \
         (h.actual IS NOT NULL)::pg_catalog.int4::pg_catalog.int8 AS compared";
    const OF_COST: &str = "c.actual, 0, c.expected, CASE WHEN c.expected IS NOT NULL THEN c.actual END, \
         (c.expected IS NOT NULL)::pg_catalog.int4::pg_catalog.int8";
    format!(
        "SELECT s.budget, ''::pg_catalog.text AS agent, s.period, s.shard, {COLUMNS} FROM {holds} h, \
         ROWS FROM (pg_catalog.unnest(h.scopes), pg_catalog.unnest(h.periods), pg_catalog.unnest(h.shards)) \
         s (budget, period, shard) \
         UNION ALL SELECT h.budget, h.agent, h.periods[1], h.shards[1], {COLUMNS} FROM {holds} h \
         WHERE h.agent IS NOT NULL \
         UNION ALL SELECT s.budget, '', s.period, 0, {OF_COST} FROM {costs} c, \
         ROWS FROM (pg_catalog.unnest(c.scopes), pg_catalog.unnest(c.periods)) s (budget, period) \
         UNION ALL SELECT c.budget, c.agent, c.periods[1], 0, {OF_COST} FROM {costs} c WHERE c.agent IS NOT NULL"
    )
}

/// The same of all holds and costs, those that were pruned included.
fn all_entries() -> String {
    let kept = entries(
        "@extschema@.state_budget_hold",
        "@extschema@.state_budget_cost",
    );
    format!(
        "{kept} UNION ALL SELECT budget, agent, period, shard, spent, 0, expected, actual, compared \
         FROM @extschema@.state_budget_pruned"
    )
}

/// How many of the newest costs of an agent stay, however old they are: what projections look at
/// (`state_cache_budget::project`), and more than summaries and learned prices do.
const KEPT: i64 = 50;

/// Deletes some of the holds and costs of an agent of a budget (empty: of nobody in particular) that have cost
/// something and are older than a time, and adds what they add up to to what was pruned; how many. What somebody has
/// locked stays.
pub fn prune_costs(
    catalog: &Catalog,
    budget: &[u8],
    agent: &[u8],
    before: i64,
    most: i64,
) -> Result<i64> {
    let (slot, is_agents) = match agent {
        [] => (0, "agent IS NULL AND $2 OPERATOR(pg_catalog.=) ''"),
        _ => (1, "agent OPERATOR(pg_catalog.=) $2"),
    };
    let settled = format!(
        "budget OPERATOR(pg_catalog.=) $1 AND {is_agents} AND status OPERATOR(pg_catalog.=) 'settled'"
    );
    let recorded = format!("budget OPERATOR(pg_catalog.=) $1 AND {is_agents}");
    let entries = entries("old_holds", "old_costs");
    let sql = format!(
        "WITH kept AS (SELECT at FROM ((SELECT resolved_at AS at FROM @extschema@.state_budget_hold WHERE {settled} \
         ORDER BY resolved_at DESC LIMIT {KEPT}) UNION ALL (SELECT recorded_at FROM @extschema@.state_budget_cost \
         WHERE {recorded} ORDER BY recorded_at DESC LIMIT {KEPT})) c ORDER BY at DESC OFFSET {KEPT} - 1 LIMIT 1), \
         old_holds AS (DELETE FROM @extschema@.state_budget_hold WHERE hold_id OPERATOR(pg_catalog.=) ANY (ARRAY( \
         SELECT hold_id FROM @extschema@.state_budget_hold WHERE {settled} \
         AND resolved_at OPERATOR(pg_catalog.<) $3 AND resolved_at OPERATOR(pg_catalog.<) (SELECT at FROM kept) \
         ORDER BY resolved_at LIMIT $4 FOR UPDATE SKIP LOCKED)) RETURNING *), \
         old_costs AS (DELETE FROM @extschema@.state_budget_cost WHERE budget OPERATOR(pg_catalog.=) $1 \
         AND id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT id FROM @extschema@.state_budget_cost WHERE {recorded} \
         AND recorded_at OPERATOR(pg_catalog.<) $3 AND recorded_at OPERATOR(pg_catalog.<) (SELECT at FROM kept) \
         ORDER BY recorded_at LIMIT $4 FOR UPDATE SKIP LOCKED)) RETURNING *), \
         carried AS (INSERT INTO @extschema@.state_budget_pruned AS p \
         (budget, agent, period, shard, spent, expected, actual, compared) SELECT budget, agent, period, shard, \
         pg_catalog.sum(spent), COALESCE(pg_catalog.sum(expected), 0), COALESCE(pg_catalog.sum(actual), 0), \
         pg_catalog.sum(compared) FROM ({entries}) e GROUP BY budget, agent, period, shard \
         ORDER BY budget, agent, period, shard ON CONFLICT (budget, agent, period, shard) DO UPDATE SET \
         spent = p.spent OPERATOR(pg_catalog.+) excluded.spent, \
         expected = p.expected OPERATOR(pg_catalog.+) excluded.expected, \
         actual = p.actual OPERATOR(pg_catalog.+) excluded.actual, \
         compared = p.compared OPERATOR(pg_catalog.+) excluded.compared) \
         SELECT (SELECT pg_catalog.count(*) FROM old_holds) OPERATOR(pg_catalog.+) \
         (SELECT pg_catalog.count(*) FROM old_costs)"
    );
    run(
        catalog,
        &statements(catalog).prune_costs[slot],
        &sql,
        Seen::Now,
        || [name(budget), name(agent), time(before), long(most)],
        |rows| Ok(rows.first().map_or(0, |row| row.bigint(1))),
    )
}

/// Deletes some of the holds of a budget that have ended at no cost before a time; how many.
pub fn prune_free(catalog: &Catalog, budget: &[u8], before: i64, most: i64) -> Result<i64> {
    run(
        catalog,
        &statements(catalog).prune_free,
        "WITH gone AS (DELETE FROM @extschema@.state_budget_hold WHERE hold_id OPERATOR(pg_catalog.=) ANY (ARRAY( \
         SELECT hold_id FROM @extschema@.state_budget_hold WHERE budget OPERATOR(pg_catalog.=) $1 \
         AND status OPERATOR(pg_catalog.=) ANY (ARRAY['voided', 'expired']) \
         AND COALESCE(resolved_at, expired_at) OPERATOR(pg_catalog.<) $2 \
         ORDER BY COALESCE(resolved_at, expired_at) LIMIT $3 FOR UPDATE SKIP LOCKED)) RETURNING true) \
         SELECT pg_catalog.count(*) FROM gone",
        Seen::Now,
        || [name(budget), time(before), long(most)],
        |rows| Ok(rows.first().map_or(0, |row| row.bigint(1))),
    )
}

/// The next budget in the order of names that keeps holds and costs for some time only, and for how long.
pub fn next_retention(
    catalog: &Catalog,
    after: Option<&[u8]>,
) -> Result<Option<(Box<[u8]>, pg_sys::Interval)>> {
    run(
        catalog,
        &statements(catalog).next_retention,
        "SELECT budget, retention FROM @extschema@.state_budget WHERE retention IS NOT NULL \
         AND ($1 IS NULL OR budget OPERATOR(pg_catalog.>) $1) ORDER BY budget LIMIT 1",
        Seen::Now,
        || [optional_name(after)],
        |rows| {
            let row = rows.first();
            Ok(row.and_then(|row| Some((row.text(1), interval_at(&row, 2)?))))
        },
    )
}

/// The next agents that a budget has accounts of, in the order of names; empty: the budget as a whole.
pub fn agents_counted(
    catalog: &Catalog,
    budget: &[u8],
    after: Option<&[u8]>,
    most: i64,
) -> Result<Vec<Box<[u8]>>> {
    run(
        catalog,
        &statements(catalog).agents_counted,
        "SELECT agent FROM @extschema@.state_budget_account WHERE budget OPERATOR(pg_catalog.=) $1 \
         AND ($2 IS NULL OR agent OPERATOR(pg_catalog.>) $2) GROUP BY agent ORDER BY agent LIMIT $3",
        Seen::Now,
        || [name(budget), optional_name(after), long(most)],
        |rows| Ok(collect(rows.iter().map(|row| row.text(1)))?),
    )
}

/// The accounts of a budget, or of all, whose counters are not what holds and costs add up to.
pub fn miscounted(catalog: &Catalog, budget: Option<&[u8]>) -> Result<Vec<Counted>> {
    let entries = all_entries();
    let sql = format!(
        "WITH found AS (SELECT budget, agent, period, pg_catalog.sum(spent) AS spent, pg_catalog.sum(held) AS held \
         FROM ({entries}) e WHERE $1 IS NULL OR budget OPERATOR(pg_catalog.=) $1 GROUP BY budget, agent, period), \
         counted AS (SELECT budget, agent, period, pg_catalog.sum(spent) AS spent, pg_catalog.sum(held) AS held \
         FROM @extschema@.state_budget_account WHERE $1 IS NULL OR budget OPERATOR(pg_catalog.=) $1 \
         GROUP BY budget, agent, period) \
         SELECT COALESCE(f.budget, c.budget), COALESCE(f.agent, c.agent), COALESCE(f.period, c.period), \
         COALESCE(c.spent, 0), COALESCE(f.spent, 0), COALESCE(c.held, 0), COALESCE(f.held, 0) \
         FROM found f FULL JOIN counted c ON c.budget OPERATOR(pg_catalog.=) f.budget \
         AND c.agent OPERATOR(pg_catalog.=) f.agent AND c.period OPERATOR(pg_catalog.=) f.period \
         WHERE COALESCE(c.spent, 0) OPERATOR(pg_catalog.<>) COALESCE(f.spent, 0) \
         OR COALESCE(c.held, 0) OPERATOR(pg_catalog.<>) COALESCE(f.held, 0) ORDER BY 1, 2, 3"
    );
    run(
        catalog,
        &statements(catalog).miscounted,
        &sql,
        Seen::Now,
        || [optional_name(budget)],
        |rows| {
            try_collect(rows.iter().map(|row| {
                Ok(Counted {
                    budget: row.text(1),
                    agent: row.text(2),
                    period: row.bigint(3),
                    spent: (amount_at(&row, 4)?, amount_at(&row, 5)?),
                    held: (amount_at(&row, 6)?, amount_at(&row, 7)?),
                })
            }))
        },
    )
}

/// Writes the counters of an account anew, whose rows are locked, from holds and costs. Allotments are made anew
/// after it.
pub fn count_again(catalog: &Catalog, account: &Account<'_>, revision: i64) -> Result<()> {
    let entries = all_entries();
    let sql = format!(
        "WITH found AS (SELECT shard, pg_catalog.sum(spent) AS spent, pg_catalog.sum(held) AS held, \
         pg_catalog.sum(expected) AS expected, pg_catalog.sum(actual) AS actual, \
         pg_catalog.sum(compared) AS compared FROM ({entries}) e WHERE budget OPERATOR(pg_catalog.=) $1 \
         AND agent OPERATOR(pg_catalog.=) $2 AND period OPERATOR(pg_catalog.=) $3 GROUP BY shard), \
         emptied AS (UPDATE @extschema@.state_budget_account SET spent = 0, held = 0, expected = 0, actual = 0, \
         compared = 0, quiet = 0 WHERE budget OPERATOR(pg_catalog.=) $1 AND agent OPERATOR(pg_catalog.=) $2 \
         AND period OPERATOR(pg_catalog.=) $3 AND shard OPERATOR(pg_catalog.<>) ALL (SELECT shard FROM found)) \
         INSERT INTO @extschema@.state_budget_account \
         (budget, agent, period, shard, allotted, spent, held, expected, actual, compared, revision) \
         SELECT $1, $2, $3, shard, 0, spent, held, COALESCE(expected, 0), COALESCE(actual, 0), compared, $4 \
         FROM found ON CONFLICT (budget, agent, period, shard) DO UPDATE SET \
         spent = excluded.spent, held = excluded.held, expected = excluded.expected, actual = excluded.actual, \
         compared = excluded.compared, quiet = 0"
    );
    run(
        catalog,
        &statements(catalog).count_again,
        &sql,
        Seen::Now,
        || {
            [
                name(account.budget),
                name(account.agent),
                time(account.period),
                long(revision),
            ]
        },
        nothing,
    )
}

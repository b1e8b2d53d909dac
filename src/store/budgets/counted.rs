//! Counters compared with the holds and costs that they count.

use super::accounts::Account;
use super::{Seen, amount_at, long, name, nothing, optional_name, run, statements, time};
use crate::catalog::Catalog;
use crate::error::Result;
use state_cache_budget::Amount;
use state_cache_memory::try_collect;

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

/// What each hold and cost is to each account that counts it: budget, agent, period, shard, spent, held, expected.
const ENTRIES: &str = "SELECT s.budget, ''::pg_catalog.text AS agent, s.period, s.shard, \
     COALESCE(h.actual, 0) AS spent, \
     CASE WHEN h.status OPERATOR(pg_catalog.=) 'held' THEN h.amount ELSE 0 END AS held, \
     CASE WHEN h.actual IS NOT NULL THEN h.amount END AS expected \
     FROM @extschema@.state_budget_hold h, ROWS FROM (pg_catalog.unnest(h.scopes), pg_catalog.unnest(h.periods), \
     pg_catalog.unnest(h.shards)) s (budget, period, shard) \
     UNION ALL SELECT h.budget, h.agent, h.periods[1], h.shards[1], COALESCE(h.actual, 0), \
     CASE WHEN h.status OPERATOR(pg_catalog.=) 'held' THEN h.amount ELSE 0 END, \
     CASE WHEN h.actual IS NOT NULL THEN h.amount END \
     FROM @extschema@.state_budget_hold h WHERE h.agent IS NOT NULL \
     UNION ALL SELECT s.budget, '', s.period, 0, c.actual, 0, c.expected FROM @extschema@.state_budget_cost c, \
     ROWS FROM (pg_catalog.unnest(c.scopes), pg_catalog.unnest(c.periods)) s (budget, period) \
     UNION ALL SELECT c.budget, c.agent, c.periods[1], 0, c.actual, 0, c.expected \
     FROM @extschema@.state_budget_cost c WHERE c.agent IS NOT NULL";

/// The accounts of a budget, or of all, whose counters are not what holds and costs add up to.
pub fn miscounted(catalog: &Catalog, budget: Option<&[u8]>) -> Result<Vec<Counted>> {
    let sql = format!(
        "WITH found AS (SELECT budget, agent, period, pg_catalog.sum(spent) AS spent, pg_catalog.sum(held) AS held \
         FROM ({ENTRIES}) e WHERE $1 IS NULL OR budget OPERATOR(pg_catalog.=) $1 GROUP BY budget, agent, period), \
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
    let sql = format!(
        "WITH found AS (SELECT shard, pg_catalog.sum(spent) AS spent, pg_catalog.sum(held) AS held, \
         pg_catalog.sum(expected) AS expected, pg_catalog.sum(spent) FILTER (WHERE expected IS NOT NULL) AS actual, \
         pg_catalog.count(expected) AS compared FROM ({ENTRIES}) e WHERE budget OPERATOR(pg_catalog.=) $1 \
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

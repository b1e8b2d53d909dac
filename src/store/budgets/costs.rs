//! Costs that nothing was held for, the last costs, and learned prices.

use super::records::Scope;
use super::{
    Seen, amount, amount_at, is_there, jsonb, long, money_of, name, names, nothing, number,
    optional_amount, optional_name, run, statements, text_at, time, times,
};
use crate::catalog::Catalog;
use crate::error::Result;
use state_cache_budget::Amount;
use state_cache_memory::try_collect;

/// Keeps a price that was learned.
pub fn learn(
    catalog: &Catalog,
    budget: &[u8],
    agent: &[u8],
    shard: i32,
    price: Amount,
    at: i64,
) -> Result<()> {
    run(
        catalog,
        &statements(catalog).learn,
        "INSERT INTO @extschema@.state_budget_price (budget, agent, shard, price, learned_at) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (budget, agent, shard) DO UPDATE SET price = excluded.price, \
         learned_at = excluded.learned_at",
        Seen::Now,
        || {
            [
                name(budget),
                name(agent),
                number(shard),
                amount(price),
                time(at),
            ]
        },
        nothing,
    )
}

/// One cost.
#[derive(Debug, Clone)]
pub struct Cost {
    /// The hold, or the record.
    pub id: Box<[u8]>,
    /// Whose it is.
    pub agent: Option<Box<[u8]>>,
    /// What was expected.
    pub expected: Option<Amount>,
    /// What it was.
    pub actual: Amount,
    /// When it was charged.
    pub at: i64,
}

/// The last costs of a budget, or of one agent of it, the newest first.
pub fn recent_costs(
    catalog: &Catalog,
    budget: &[u8],
    agent: Option<&[u8]>,
    most: i64,
    seen: Seen,
) -> Result<Vec<Cost>> {
    run(
        catalog,
        &statements(catalog).recent[seen as usize],
        "(SELECT hold_id, agent, amount, actual, resolved_at AS at FROM @extschema@.state_budget_hold \
         WHERE budget OPERATOR(pg_catalog.=) $1 AND ($2 IS NULL OR agent OPERATOR(pg_catalog.=) $2) \
         AND status OPERATOR(pg_catalog.=) 'settled' ORDER BY resolved_at DESC, hold_id DESC LIMIT $3) \
         UNION ALL \
         (SELECT id, agent, expected, actual, recorded_at FROM @extschema@.state_budget_cost \
         WHERE budget OPERATOR(pg_catalog.=) $1 AND ($2 IS NULL OR agent OPERATOR(pg_catalog.=) $2) \
         ORDER BY recorded_at DESC, id DESC LIMIT $3) \
         ORDER BY at DESC, hold_id DESC LIMIT $3",
        seen,
        || [name(budget), optional_name(agent), long(most)],
        |rows| {
            try_collect(rows.iter().map(|row| {
                Ok(Cost {
                    id: row.text(1),
                    agent: text_at(&row, 2),
                    expected: money_of(&row, 3)?,
                    actual: amount_at(&row, 4)?,
                    at: row.bigint(5),
                })
            }))
        },
    )
}

/// A cost that nothing was held for.
#[derive(Debug, Clone)]
pub struct NewCost {
    /// Its name.
    pub id: Box<[u8]>,
    /// Whose it is.
    pub agent: Option<Box<[u8]>>,
    /// What was expected.
    pub expected: Option<Amount>,
    /// What it was.
    pub actual: Amount,
    /// When it was recorded.
    pub at: i64,
    /// Whatever the caller wants to keep beside it.
    pub metadata: Option<Vec<u8>>,
}

/// Writes a cost; whether there was none of its name.
pub fn insert_cost(catalog: &Catalog, scopes: &[Scope], cost: &NewCost) -> Result<bool> {
    run(
        catalog,
        &statements(catalog).insert_cost,
        "INSERT INTO @extschema@.state_budget_cost (budget, id, agent, expected, actual, scopes, periods, \
         recorded_at, metadata) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (budget, id) DO NOTHING \
         RETURNING true",
        Seen::Now,
        || {
            [
                optional_name(scopes.first().map(|it| &*it.budget)),
                name(&cost.id),
                optional_name(cost.agent.as_deref()),
                optional_amount(cost.expected),
                amount(cost.actual),
                names(scopes.iter().map(|it| &*it.budget)),
                times(scopes.iter().map(|it| it.period)),
                time(cost.at),
                jsonb(cost.metadata.as_deref()),
            ]
        },
        is_there,
    )
}

/// A cost that nothing was held for.
pub fn cost(catalog: &Catalog, budget: &[u8], id: &[u8]) -> Result<Option<Cost>> {
    run(
        catalog,
        &statements(catalog).cost,
        "SELECT id, agent, expected, actual, recorded_at FROM @extschema@.state_budget_cost \
         WHERE budget OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.=) $2",
        Seen::Now,
        || [name(budget), name(id)],
        |rows| {
            let Some(row) = rows.first() else {
                return Ok(None);
            };
            Ok(Some(Cost {
                id: row.text(1),
                agent: text_at(&row, 2),
                expected: money_of(&row, 3)?,
                actual: amount_at(&row, 4)?,
                at: row.bigint(5),
            }))
        },
    )
}

/// What was charged to a budget itself since a time, under the active snapshot.
pub fn spent_since(catalog: &Catalog, budget: &[u8], since: i64) -> Result<Amount> {
    run(
        catalog,
        &statements(catalog).spent_since,
        "SELECT pg_catalog.sum(actual) FROM (SELECT actual FROM @extschema@.state_budget_hold \
         WHERE status OPERATOR(pg_catalog.=) 'settled' AND resolved_at OPERATOR(pg_catalog.>) $2 \
         AND $1 OPERATOR(pg_catalog.=) ANY (scopes) UNION ALL SELECT actual FROM @extschema@.state_budget_cost \
         WHERE recorded_at OPERATOR(pg_catalog.>) $2 AND $1 OPERATOR(pg_catalog.=) ANY (scopes)) c",
        Seen::BySnapshot,
        || [name(budget), time(since)],
        |rows| {
            rows.first()
                .map_or(Ok(Amount::ZERO), |row| amount_at(&row, 1))
        },
    )
}

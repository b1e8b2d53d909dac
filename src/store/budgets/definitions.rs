//! What is defined: budgets, their agents, and how budgets stand below each other.

use super::{
    Seen, amount, amount_at, interval, interval_at, is_there, long, money_of, name, names, nothing,
    number, optional_amount, optional_name, rows, run, statements, text_at,
};
use crate::catalog::Catalog;
use crate::error::{Error, Result, text};
use crate::sys;
use pgrx::pg_sys;
use state_cache_budget::Amount;
use state_cache_memory::{collect, try_collect};

/// What is defined of a budget.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Its name.
    pub name: Box<[u8]>,
    /// What may be spent.
    pub total: Amount,
    /// What amounts are counted in.
    pub currency: Box<[u8]>,
    /// The budget above.
    pub parent: Option<Box<[u8]>>,
    /// How long counters count.
    pub period: Option<pg_sys::Interval>,
    /// From which on spending is told.
    pub soft_limit: Option<Amount>,
    /// Among how many rows counters are distributed.
    pub shards: i32,
    /// Counts what was redefined beside limits.
    pub revision: i64,
    /// How long ended holds and costs stay; `None`: for ever.
    pub retention: Option<pg_sys::Interval>,
    /// Whether there are holds, of any budget, whose time is over and that the counters still count.
    pub has_expired: bool,
    /// What its newest row of counters has left; `None` if it has several rows, or none. Nobody has locked the row: a
    /// guess that a reservation compares with what it finds.
    pub guess: Option<Amount>,
}

/// A budget as a statement of now would see it, row by row; `None` where a statement must look.
fn budget_by_rows(catalog: &Catalog, name: &[u8]) -> Option<Option<Budget>> {
    let Some(defined) = rows::definition(catalog, name)? else {
        return Some(None);
    };
    Some(Some(Budget {
        name: name.into(),
        has_expired: rows::has_expired(catalog, sys::now())?,
        guess: match defined.shards {
            1 => rows::left_of_newest(catalog, name)?,
            _ => None,
        },
        total: defined.total,
        currency: defined.currency,
        parent: defined.parent,
        period: defined.period,
        soft_limit: defined.soft_limit,
        shards: defined.shards,
        revision: defined.revision,
        retention: defined.retention,
    }))
}

/// A budget.
pub fn budget(catalog: &Catalog, budget: &[u8], seen: Seen) -> Result<Option<Budget>> {
    if seen == Seen::Now
        && let Some(found) = budget_by_rows(catalog, budget)
    {
        return Ok(found);
    }
    run(
        catalog,
        &statements(catalog).budget[seen as usize],
        "SELECT total, currency, parent, period, soft_limit, shards::pg_catalog.int8, revision, EXISTS (SELECT FROM \
         @extschema@.state_budget_hold h WHERE h.status OPERATOR(pg_catalog.=) 'held' AND h.expires_at \
         OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()), (SELECT \
         a.allotted OPERATOR(pg_catalog.-) a.spent OPERATOR(pg_catalog.-) a.held FROM \
         @extschema@.state_budget_account a WHERE a.budget OPERATOR(pg_catalog.=) $1 \
         AND a.agent OPERATOR(pg_catalog.=) '' AND shards OPERATOR(pg_catalog.=) 1 ORDER BY a.period DESC LIMIT 1), \
         retention FROM @extschema@.state_budget WHERE budget OPERATOR(pg_catalog.=) $1",
        seen,
        || [name(budget)],
        |rows| {
            let Some(row) = rows.first() else {
                return Ok(None);
            };
            Ok(Some(Budget {
                name: budget.into(),
                total: amount_at(&row, 1)?,
                currency: row.text(2),
                parent: text_at(&row, 3),
                period: interval_at(&row, 4),
                soft_limit: money_of(&row, 5)?,
                shards: row.bigint(6) as i32,
                revision: row.bigint(7),
                has_expired: row.boolean(8),
                guess: money_of(&row, 9)?,
                retention: interval_at(&row, 10),
            }))
        },
    )
}

/// What is defined of an agent, and what was learned.
#[derive(Debug, Clone, Copy)]
pub struct Agent {
    /// What it may spend.
    pub limit: Option<Amount>,
    /// What one of its calls is expected to cost.
    pub price: Option<Amount>,
    /// What its newest row of counters has left, as [`Budget::guess`].
    pub guess: Option<Amount>,
}

/// An agent of a budget.
pub fn agent(catalog: &Catalog, budget: &[u8], agent: &[u8], seen: Seen) -> Result<Option<Agent>> {
    run(
        catalog,
        &statements(catalog).agent[seen as usize],
        "SELECT a.spending_limit, COALESCE((SELECT p.price FROM @extschema@.state_budget_price p \
         WHERE p.budget OPERATOR(pg_catalog.=) $1 AND p.agent OPERATOR(pg_catalog.=) $2 \
         ORDER BY p.learned_at DESC, p.shard LIMIT 1), a.price), (SELECT c.allotted OPERATOR(pg_catalog.-) c.spent \
         OPERATOR(pg_catalog.-) c.held FROM @extschema@.state_budget_account c \
         WHERE c.budget OPERATOR(pg_catalog.=) $1 AND c.agent OPERATOR(pg_catalog.=) $2 \
         ORDER BY c.period DESC LIMIT 1) FROM @extschema@.state_budget_agent a \
         WHERE a.budget OPERATOR(pg_catalog.=) $1 AND a.agent OPERATOR(pg_catalog.=) $2",
        seen,
        || [name(budget), name(agent)],
        |rows| {
            let Some(row) = rows.first() else {
                return Ok(None);
            };
            Ok(Some(Agent {
                limit: money_of(&row, 1)?,
                price: money_of(&row, 2)?,
                guess: money_of(&row, 3)?,
            }))
        },
    )
}

/// Writes the definition of a budget.
pub fn put_budget(catalog: &Catalog, budget: &Budget) -> Result<()> {
    run(
        catalog,
        &statements(catalog).put_budget,
        "INSERT INTO @extschema@.state_budget \
         (budget, total, currency, parent, period, soft_limit, shards, revision, retention) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (budget) DO UPDATE SET total = excluded.total, \
         currency = excluded.currency, parent = excluded.parent, period = excluded.period, \
         soft_limit = excluded.soft_limit, shards = excluded.shards, revision = excluded.revision, \
         retention = excluded.retention",
        Seen::Now,
        || {
            [
                name(&budget.name),
                amount(budget.total),
                name(&budget.currency),
                optional_name(budget.parent.as_deref()),
                interval(budget.period.as_ref()),
                optional_amount(budget.soft_limit),
                number(budget.shards),
                long(budget.revision),
                interval(budget.retention.as_ref()),
            ]
        },
        nothing,
    )
}

/// Writes the definition of an agent, whose price was named or not.
pub fn put_agent(catalog: &Catalog, budget: &[u8], agent: &[u8], terms: Agent) -> Result<()> {
    run(
        catalog,
        &statements(catalog).put_agent,
        "INSERT INTO @extschema@.state_budget_agent AS a (budget, agent, spending_limit, price) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (budget, agent) DO UPDATE SET spending_limit = excluded.spending_limit, \
         price = COALESCE(excluded.price, a.price)",
        Seen::Now,
        || {
            [
                name(budget),
                name(agent),
                optional_amount(terms.limit),
                optional_amount(terms.price),
            ]
        },
        nothing,
    )
}

/// Takes the agents out of a budget that are not among these.
pub fn retire_agents(catalog: &Catalog, budget: &[u8], kept: &[Box<[u8]>]) -> Result<()> {
    run(
        catalog,
        &statements(catalog).retire_agents,
        "DELETE FROM @extschema@.state_budget_agent WHERE budget OPERATOR(pg_catalog.=) $1 \
         AND agent OPERATOR(pg_catalog.<>) ALL ($2)",
        Seen::Now,
        || [name(budget), names(kept.iter().map(|it| &**it))],
        nothing,
    )
}

/// Forgets what was learned of the prices of these agents.
pub fn forget_prices(catalog: &Catalog, budget: &[u8], agents: &[Box<[u8]>]) -> Result<()> {
    run(
        catalog,
        &statements(catalog).forget_prices,
        "DELETE FROM @extschema@.state_budget_price WHERE budget OPERATOR(pg_catalog.=) $1 \
         AND agent OPERATOR(pg_catalog.=) ANY ($2)",
        Seen::Now,
        || [name(budget), names(agents.iter().map(|it| &**it))],
        nothing,
    )
}

/// The budgets right below one.
pub fn budgets_below(catalog: &Catalog, budget: &[u8]) -> Result<Vec<Box<[u8]>>> {
    run(
        catalog,
        &statements(catalog).children,
        "SELECT budget FROM @extschema@.state_budget WHERE parent OPERATOR(pg_catalog.=) $1 ORDER BY budget",
        Seen::Now,
        || [name(budget)],
        |rows| Ok(collect(rows.iter().map(|row| row.text(1)))?),
    )
}

/// Keeps a budget from being redefined until the transaction ends. To be called as the owner of the table: reserving
/// needs no privilege to redefine.
pub fn lock_definition(catalog: &Catalog, budget: &[u8]) -> Result<()> {
    run(
        catalog,
        &statements(catalog).lock_definition[0],
        "SELECT FROM @extschema@.state_budget WHERE budget OPERATOR(pg_catalog.=) $1 FOR KEY SHARE",
        Seen::Now,
        || [name(budget)],
        nothing,
    )
}

/// Keeps others from adding rows to the accounts of a budget until the transaction ends.
pub fn lock_to_redefine(catalog: &Catalog, budget: &[u8]) -> Result<()> {
    run(
        catalog,
        &statements(catalog).lock_definition[1],
        "SELECT FROM @extschema@.state_budget WHERE budget OPERATOR(pg_catalog.=) $1 FOR UPDATE",
        Seen::Now,
        || [name(budget)],
        nothing,
    )
}

/// An agent of a budget: its name, its limit, and when it was put there.
pub type Defined = (Box<[u8]>, Option<Amount>, i64);

/// The agents of a budget, under the active snapshot.
pub fn agents(catalog: &Catalog, budget: &[u8]) -> Result<Vec<Defined>> {
    run(
        catalog,
        &statements(catalog).summary_agents,
        "SELECT agent, spending_limit, defined_at FROM @extschema@.state_budget_agent \
         WHERE budget OPERATOR(pg_catalog.=) $1 ORDER BY agent",
        Seen::BySnapshot,
        || [name(budget)],
        |rows| {
            try_collect(
                rows.iter()
                    .map(|row| Ok((row.text(1), money_of(&row, 2)?, row.bigint(3)))),
            )
        },
    )
}

/// Deletes all rows about a budget; raises `42704` where there is none.
pub fn drop_budget(catalog: &Catalog, budget: &[u8]) -> Result<()> {
    const TABLES: [&str; 8] = [
        "state_budget_reached",
        "state_budget_price",
        "state_budget_agent",
        "state_budget_cost",
        "state_budget_hold",
        "state_budget_pruned",
        "state_budget_account",
        "state_budget",
    ];
    for (slot, table) in statements(catalog).drop.iter().zip(TABLES) {
        let is_gone = run(
            catalog,
            slot,
            &format!(
                "DELETE FROM @extschema@.{table} WHERE budget OPERATOR(pg_catalog.=) $1 RETURNING true"
            ),
            Seen::Now,
            || [name(budget)],
            is_there,
        )?;
        if table == "state_budget" && !is_gone {
            return Err(Error::Internal {
                message: format!("budget \"{}\" could not be deleted", text(budget)),
            });
        }
    }
    Ok(())
}

/// What a budget that is dropped has spent stays in those above as costs of its parent, one for each period.
pub fn hand_up(catalog: &Catalog, budget: &[u8], parent: &[u8]) -> Result<()> {
    run(
        catalog,
        &statements(catalog).hand_up,
        "INSERT INTO @extschema@.state_budget_cost (budget, id, actual, scopes, periods, recorded_at, metadata) \
         SELECT $2, 'dropped-' OPERATOR(pg_catalog.||) pg_catalog.gen_random_uuid()::pg_catalog.text, \
         pg_catalog.sum(c.actual), c.scopes[2:], c.periods[2:], pg_catalog.max(c.at), \
         pg_catalog.jsonb_build_object('dropped', $1) FROM ( \
         SELECT actual, scopes, periods, resolved_at AS at FROM @extschema@.state_budget_hold \
         WHERE budget OPERATOR(pg_catalog.=) $1 AND status OPERATOR(pg_catalog.=) 'settled' \
         UNION ALL SELECT actual, scopes, periods, recorded_at FROM @extschema@.state_budget_cost \
         WHERE budget OPERATOR(pg_catalog.=) $1) c WHERE pg_catalog.cardinality(c.scopes) OPERATOR(pg_catalog.>) 1 \
         AND c.scopes[2] OPERATOR(pg_catalog.=) $2 GROUP BY c.scopes[2:], c.periods[2:]",
        Seen::Now,
        || [name(budget), name(parent)],
        nothing,
    )
}

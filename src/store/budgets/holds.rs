//! The rows of holds.

use super::records::{Account, Hold, hold_of};
use super::{
    Seen, amount, amount_at, interval, is_there, jsonb, long, name, names, nothing, numbers,
    optional_amount, optional_name, rows, run, statements, text_at, time, times,
};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::store::spi::{Row, Rows};
use state_cache_budget::Amount;
use state_cache_memory::try_collect;

/// The columns of the table that a [`Hold`] has, in their order.
const HOLD: &str = "hold_id, budget, agent, amount, asked, ttl, owner, remaining, scopes, periods, shards, status, \
     made_at, expires_at, expired_at, actual, resolved_at";

fn hold_in(row: &Row<'_>) -> Result<Hold> {
    hold_of(|n| row.column(n as i32 + 1))
}

fn first_hold(rows: &Rows) -> Result<Option<Hold>> {
    rows.first().map(|row| hold_in(&row)).transpose()
}

/// Writes a new hold; whether there was none of its name.
pub fn insert_hold(catalog: &Catalog, hold: &Hold) -> Result<bool> {
    if let Some(is_new) = rows::insert_hold(catalog, hold) {
        return Ok(is_new);
    }
    run(
        catalog,
        &statements(catalog).insert_hold,
        "INSERT INTO @extschema@.state_budget_hold (hold_id, budget, agent, amount, asked, ttl, owner, remaining, \
         scopes, periods, shards, made_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT (hold_id) DO NOTHING \
         RETURNING true",
        Seen::Now,
        || {
            [
                name(&hold.id),
                optional_name(hold.scopes.first().map(|it| &*it.budget)),
                optional_name(hold.agent.as_deref()),
                amount(hold.amount),
                optional_amount(hold.asked),
                interval(Some(&hold.ttl)),
                optional_name(hold.owner.as_deref()),
                amount(hold.remaining),
                names(hold.scopes.iter().map(|it| &*it.budget)),
                times(hold.scopes.iter().map(|it| it.period)),
                numbers(hold.scopes.iter().map(|it| it.shard)),
                time(hold.made_at),
                time(hold.expires_at),
            ]
        },
        is_there,
    )
}

/// Writes what was left after a hold.
pub fn finish_hold(catalog: &Catalog, id: &[u8], remaining: Amount) -> Result<()> {
    run(
        catalog,
        &statements(catalog).finish_hold,
        "UPDATE @extschema@.state_budget_hold SET remaining = $2 WHERE hold_id OPERATOR(pg_catalog.=) $1",
        Seen::Now,
        || [name(id), amount(remaining)],
        nothing,
    )
}

/// A hold.
pub fn hold(catalog: &Catalog, id: &[u8]) -> Result<Option<Hold>> {
    run(
        catalog,
        &statements(catalog).hold,
        &format!(
            "SELECT {HOLD} FROM @extschema@.state_budget_hold WHERE hold_id OPERATOR(pg_catalog.=) $1"
        ),
        Seen::Now,
        || [name(id)],
        first_hold,
    )
}

/// A hold, locked until the transaction ends.
pub fn lock_hold(catalog: &Catalog, id: &[u8]) -> Result<Option<Hold>> {
    run(
        catalog,
        &statements(catalog).lock_hold,
        &format!(
            "SELECT {HOLD} FROM @extschema@.state_budget_hold WHERE hold_id OPERATOR(pg_catalog.=) $1 \
             FOR NO KEY UPDATE"
        ),
        Seen::Now,
        || [name(id)],
        first_hold,
    )
}

/// Settles a hold that is neither settled nor voided; what it was, with what it is now.
pub fn settle_hold(
    catalog: &Catalog,
    id: &[u8],
    actual: Amount,
    metadata: Option<&[u8]>,
    at: i64,
) -> Result<Option<Hold>> {
    if let Some(settled) = rows::settle_hold(catalog, id, actual, metadata, at) {
        return settled;
    }
    run(
        catalog,
        &statements(catalog).settle_hold,
        &format!(
            "UPDATE @extschema@.state_budget_hold SET status = 'settled', actual = $2, metadata = $3, \
             resolved_at = $4 WHERE hold_id OPERATOR(pg_catalog.=) $1 \
             AND status OPERATOR(pg_catalog.=) ANY (ARRAY['held', 'expired']) RETURNING {HOLD}"
        ),
        Seen::Now,
        || [name(id), amount(actual), jsonb(metadata), time(at)],
        first_hold,
    )
}

/// Voids a hold that is neither settled nor voided.
pub fn void_hold(catalog: &Catalog, id: &[u8], at: i64) -> Result<Option<Hold>> {
    run(
        catalog,
        &statements(catalog).void_hold,
        &format!(
            "UPDATE @extschema@.state_budget_hold SET status = 'voided', resolved_at = $2 \
             WHERE hold_id OPERATOR(pg_catalog.=) $1 \
             AND status OPERATOR(pg_catalog.=) ANY (ARRAY['held', 'expired']) RETURNING {HOLD}"
        ),
        Seen::Now,
        || [name(id), time(at)],
        first_hold,
    )
}

/// Gives a hold that is locked another end.
pub fn extend_hold(catalog: &Catalog, id: &[u8], expires_at: i64) -> Result<()> {
    run(
        catalog,
        &statements(catalog).extend_hold,
        "UPDATE @extschema@.state_budget_hold SET expires_at = $2 WHERE hold_id OPERATOR(pg_catalog.=) $1",
        Seen::Now,
        || [name(id), time(expires_at)],
        nothing,
    )
}

/// What the holds of an account hold whose time is over by then and that the counters still count.
pub fn expired(catalog: &Catalog, account: &Account<'_>, at: i64, seen: Seen) -> Result<Amount> {
    run(
        catalog,
        &statements(catalog).expired[seen as usize],
        "SELECT pg_catalog.sum(amount) FROM @extschema@.state_budget_hold \
         WHERE status OPERATOR(pg_catalog.=) 'held' AND expires_at OPERATOR(pg_catalog.<=) $4 \
         AND $3 OPERATOR(pg_catalog.=) periods[pg_catalog.array_position(scopes, $1)] \
         AND ($2 OPERATOR(pg_catalog.=) '' OR (agent OPERATOR(pg_catalog.=) $2 \
         AND budget OPERATOR(pg_catalog.=) $1))",
        seen,
        || {
            [
                name(account.budget),
                name(account.agent),
                time(account.period),
                time(at),
            ]
        },
        |rows| {
            rows.first()
                .map_or(Ok(Amount::ZERO), |row| amount_at(&row, 1))
        },
    )
}

/// How many holds of a budget are open by then, and when the next of those that any budget counts in it ends; under
/// the active snapshot.
pub fn open_holds(catalog: &Catalog, budget: &[u8], at: i64) -> Result<(i64, Option<i64>)> {
    run(
        catalog,
        &statements(catalog).open_holds,
        "SELECT pg_catalog.count(*) FILTER (WHERE budget OPERATOR(pg_catalog.=) $1), pg_catalog.min(expires_at) \
         FROM @extschema@.state_budget_hold WHERE status OPERATOR(pg_catalog.=) 'held' \
         AND expires_at OPERATOR(pg_catalog.>) $2 AND $1 OPERATOR(pg_catalog.=) ANY (scopes)",
        Seen::BySnapshot,
        || [name(budget), time(at)],
        |rows| {
            Ok(rows.first().map_or((0, None), |row| {
                (row.bigint(1), row.column(2).map(|at| at.value() as i64))
            }))
        },
    )
}

/// Locks holds that are over by then, of one budget or of any, all counted in the same accounts as the first of them;
/// what somebody else has locked is passed over.
pub fn lock_expired_holds(
    catalog: &Catalog,
    of: Option<&[u8]>,
    at: i64,
    most: i64,
) -> Result<Vec<Hold>> {
    let sql = format!(
        "WITH first AS (SELECT budget, agent, scopes, periods, shards FROM @extschema@.state_budget_hold \
         WHERE status OPERATOR(pg_catalog.=) 'held' AND expires_at OPERATOR(pg_catalog.<=) $2 \
         AND ($1 IS NULL OR budget OPERATOR(pg_catalog.=) $1) ORDER BY expires_at LIMIT 1 \
         FOR NO KEY UPDATE SKIP LOCKED) \
         SELECT {HOLD} FROM @extschema@.state_budget_hold h WHERE h.status OPERATOR(pg_catalog.=) 'held' \
         AND h.expires_at OPERATOR(pg_catalog.<=) $2 AND EXISTS (SELECT FROM first f \
         WHERE f.budget OPERATOR(pg_catalog.=) h.budget AND f.agent IS NOT DISTINCT FROM h.agent \
         AND f.scopes OPERATOR(pg_catalog.=) h.scopes AND f.periods OPERATOR(pg_catalog.=) h.periods \
         AND f.shards OPERATOR(pg_catalog.=) h.shards) ORDER BY h.expires_at LIMIT $3 \
         FOR NO KEY UPDATE OF h SKIP LOCKED"
    );
    run(
        catalog,
        &statements(catalog).lock_expired_holds,
        &sql,
        Seen::Now,
        || [optional_name(of), time(at), long(most)],
        |rows| try_collect(rows.iter().map(|row| hold_in(&row))),
    )
}

/// Notes that a hold, which is locked, was taken out of the counters.
pub fn expire_hold(catalog: &Catalog, id: &[u8], at: i64) -> Result<()> {
    run(
        catalog,
        &statements(catalog).expire_hold,
        "UPDATE @extschema@.state_budget_hold SET status = 'expired', expired_at = $2 \
         WHERE hold_id OPERATOR(pg_catalog.=) $1",
        Seen::Now,
        || [name(id), time(at)],
        nothing,
    )
}

/// When the next hold ends.
pub fn next_end(catalog: &Catalog) -> Result<Option<i64>> {
    run(
        catalog,
        &statements(catalog).next_end,
        "SELECT expires_at FROM @extschema@.state_budget_hold WHERE status OPERATOR(pg_catalog.=) 'held' \
         ORDER BY expires_at LIMIT 1",
        Seen::Now,
        || [],
        |rows| Ok(rows.first().map(|row| row.bigint(1))),
    )
}

/// Whether anything is held in a budget by a hold that is not over by then.
pub fn is_held(catalog: &Catalog, budget: &[u8], at: i64) -> Result<bool> {
    run(
        catalog,
        &statements(catalog).is_held,
        "SELECT FROM @extschema@.state_budget_hold WHERE status OPERATOR(pg_catalog.=) 'held' \
         AND expires_at OPERATOR(pg_catalog.>) $2 AND $1 OPERATOR(pg_catalog.=) ANY (scopes) LIMIT 1",
        Seen::Now,
        || [name(budget), time(at)],
        is_there,
    )
}

/// Open holds of an agent.
#[derive(Debug, Clone)]
pub struct Held {
    /// The agent.
    pub agent: Option<Box<[u8]>>,
    /// How many.
    pub count: i64,
    /// What they hold.
    pub amount: Amount,
    /// When the oldest was made.
    pub oldest: i64,
}

/// Holds of a budget that were made before a time and are open at another, by agent, under the active snapshot.
pub fn old_holds(catalog: &Catalog, budget: &[u8], before: i64, at: i64) -> Result<Vec<Held>> {
    run(
        catalog,
        &statements(catalog).old_holds,
        "SELECT agent, pg_catalog.count(*), pg_catalog.sum(amount), pg_catalog.min(made_at) \
         FROM @extschema@.state_budget_hold WHERE status OPERATOR(pg_catalog.=) 'held' \
         AND budget OPERATOR(pg_catalog.=) $1 AND made_at OPERATOR(pg_catalog.<) $2 \
         AND expires_at OPERATOR(pg_catalog.>) $3 GROUP BY agent ORDER BY agent",
        Seen::BySnapshot,
        || [name(budget), time(before), time(at)],
        |rows| {
            try_collect(rows.iter().map(|row| {
                Ok(Held {
                    agent: text_at(&row, 1),
                    count: row.bigint(2),
                    amount: amount_at(&row, 3)?,
                    oldest: row.bigint(4),
                })
            }))
        },
    )
}

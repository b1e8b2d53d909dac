//! Pruning with a write: what falls out of `keep` goes in the statement that makes the next version.

use super::parameters::{bigint, run, text};
use super::spi::Statement;
use super::storage::{Base, Holder};
use super::texts::{IS_KEYFRAME, OF_STATE};
use crate::catalog::{self, Catalog, Class};
use crate::error::Result;

use once_cell::unsync::OnceCell;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    prune_state: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// Whether the statement prunes that makes a version. Snapshots go in groups, a keyframe with the deltas that
/// build upon it, so none goes before a new keyframe begins the next group. The versions of a `behind` class have
/// gaps, so its snapshots are counted instead ([`prune_gaps`]).
pub(super) fn prunes(catalog: &Catalog, class: &Class, is_keyframe: bool) -> bool {
    let sees_all = !catalog.access().row_security;
    class.keep.is_some() && !class.behind && is_keyframe && sees_all
}

/// Prunes a state of a `behind` class after a version was made. Where the head row holds that, it is one of those to
/// be kept beside the snapshot rows.
pub(super) fn prune_gaps(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    made: Option<i64>,
    holder: Holder,
) -> Result<()> {
    if made.is_none() || !class.behind || catalog.access().row_security {
        return Ok(());
    }
    // The write may have waited, and the class may keep more by now.
    let now = catalog::class_now(catalog, &class.name);
    match now.as_deref().unwrap_or(class).keep {
        Some(keep) => {
            let in_head = i64::from(holder == Holder::Head);
            prune_state(catalog, class, key, keep - in_head)
        }
        None => Ok(()),
    }
}

/// The part of a statement that prunes once the CTE `head` has made version `made`: what comes before the
/// keyframe of `oldest`, the oldest version to be kept. `reach` bounds how far below that is looked, since the
/// search visits every version since the last VACUUM; what is further down is upkeep's.
pub(super) fn pruning_sql(made: &str, oldest: &str, reach: &str) -> String {
    format!(
        ", pruned AS (DELETE FROM @extschema@.state_snapshot s USING head \
         WHERE s.class OPERATOR(pg_catalog.=) $1 AND s.key OPERATOR(pg_catalog.=) $2 \
         AND s.version OPERATOR(pg_catalog.<) \
         CASE WHEN {oldest} OPERATOR(pg_catalog.>=) {made} THEN {made} ELSE \
         (SELECT k.version FROM @extschema@.state_snapshot k \
         WHERE k.class OPERATOR(pg_catalog.=) $1 AND k.key OPERATOR(pg_catalog.=) $2 \
         AND k.version OPERATOR(pg_catalog.<=) {oldest} \
         AND k.version OPERATOR(pg_catalog.>=) ({oldest} OPERATOR(pg_catalog.-) {reach}) AND {IS_KEYFRAME} \
         ORDER BY k.version USING OPERATOR(pg_catalog.>) LIMIT 1) END \
         AND s.version OPERATOR(pg_catalog.>=) ({oldest} OPERATOR(pg_catalog.-) {reach}) \
         AND NOT s.recovery_point)"
    )
}

/// How far below the oldest version to be kept the groups end that may go when a version with this base is made.
pub(super) fn reach(base: Option<Base<'_>>) -> i64 {
    match base.map_or(0, |base| base.storage.depth()) {
        // Documents that are stored whole make groups of one.
        0 => 1,
        depth => i64::from(depth) + i64::from(crate::settings::max_delta_chain()) + 1,
    }
}

/// The same when no version is made to go by.
pub(super) fn reach_of_any(class: &Class) -> i64 {
    match class.packs() {
        true => 2 * i64::from(crate::settings::max_delta_chain()) + 1,
        false => 1,
    }
}

/// The snapshots that a state no longer keeps, found by counting: versions written behind leave gaps.
fn prune_state_sql() -> String {
    format!(
        "DELETE FROM @extschema@.state_snapshot WHERE {OF_STATE} AND NOT recovery_point \
         AND version OPERATOR(pg_catalog.<) \
         CASE WHEN $3 OPERATOR(pg_catalog.<=) 0 THEN 9223372036854775807 ELSE \
         (SELECT k.version FROM @extschema@.state_snapshot k \
         WHERE k.class OPERATOR(pg_catalog.=) $1 AND k.key OPERATOR(pg_catalog.=) $2 AND {IS_KEYFRAME} \
         AND k.version OPERATOR(pg_catalog.<=) (SELECT version FROM @extschema@.state_snapshot WHERE {OF_STATE} \
         ORDER BY version USING OPERATOR(pg_catalog.>) \
         OFFSET GREATEST($3 OPERATOR(pg_catalog.-) 1, 0) LIMIT 1) \
         ORDER BY k.version USING OPERATOR(pg_catalog.>) LIMIT 1) END"
    )
}

/// Deletes all but the newest `keep` snapshots of a state.
fn prune_state(catalog: &Catalog, class: &Class, key: &[u8], keep: i64) -> Result<()> {
    run(
        catalog,
        &statements(catalog).prune_state,
        prune_state_sql,
        || [text(&class.name), text(key), bigint(Some(keep))],
    )?;
    Ok(())
}

//! Snapshot rows that somebody changes by hand: the rules of this room hold for them too.
//!
//! Asked by the row trigger on `state_snapshot`, for changes made by hand and not for replicated ones: the server
//! where they were made has kept the rules, if not with every row.

use super::prune::store_as_keyframe;
use crate::catalog::Catalog;
use crate::error::{Error, Result, Shown};
use crate::identity::Impersonation;
use crate::snapshot::PushedSnapshot;
use crate::store;
use pgrx::pg_sys;

/// Whether the rules are to be kept for this session's changes.
pub fn apply() -> bool {
    // SAFETY: a plain global of this process.
    unsafe { pg_sys::SessionReplicationRole != pg_sys::SESSION_REPLICATION_ROLE_REPLICA as i32 }
}

/// `23503` if the row of a version is gone, or holds something else now, that the next version builds upon.
pub fn check_not_needed(catalog: &Catalog, class: &[u8], key: &[u8], version: i64) -> Result<()> {
    // Nobody builds upon it meanwhile.
    store::lock(catalog, class, key)?;
    let _snapshot = after_the_statement();
    // The caller may not see the version that needs it.
    let _owner = Impersonation::owner_of(catalog.snapshot);
    match store::built_upon(catalog, class, key, version)? {
        Some(by) => Err(Error::Needed {
            state: Shown::new(class, key),
            version,
            by,
        }),
        None => Ok(()),
    }
}

/// Stores a version as a keyframe that was made a recovery point: others may go that it builds upon.
pub fn make_recovery_point_whole(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
    version: i64,
) -> Result<()> {
    store::lock(catalog, class, key)?;
    let _snapshot = after_the_statement();
    let class = catalog.class_or_default(class)?;
    let _owner = Impersonation::owner_of(catalog.snapshot);
    store_as_keyframe(catalog, &class, key, version)?;
    Ok(())
}

/// A snapshot that sees what the statement has done.
fn after_the_statement() -> PushedSnapshot {
    // SAFETY: a trigger function runs inside a transaction, not in parallel mode.
    unsafe { pg_sys::CommandCounterIncrement() };
    PushedSnapshot::transaction()
}

//! Erasing versions at once, whatever the class keeps.
//!
//! # Contract
//!
//! Whoever purges holds the head row's lock from before it looks until the transaction ends, as all do who delete
//! snapshots, so nobody makes a version meanwhile. A writer that has decided before and waits for the lock finds the
//! head row moved and decides again, or finds what it builds upon gone and stores its version whole
//! (`store::second_look`).
//!
//! - **The whole state**: the state is deleted by the door through which every delete goes, so L1, listeners and
//!   catch-up agree. Then every row goes that holds something of the state, also what verification has put aside.
//!   The tombstone stays, and with the tombstone the number: a state created again goes on above that.
//! - **Some versions**: what stays and builds upon what goes is stored as a keyframe first. Where the current version
//!   goes, the newest that stays is made current before that, as `state_restore` does it: under the next number.
//!
//! On an error the transaction takes all of it back: nothing is kept in this backend's memory.

use super::damage::{self, AnyFault, first_intact};
use super::prune::{orphans, store_as_keyframe};
use super::{lives, recover};
use crate::cache::StateRef;
use crate::catalog;
use crate::context;
use crate::error::{Error, Result};
use crate::identity::Impersonation;
use crate::memory;
use crate::snapshot::PushedSnapshot;
use crate::store::{self, Contexts, KeptVersion, Target};
use crate::sys;
use crate::transaction;
use pgrx::pg_sys;
use std::collections::BTreeSet;
use std::ffi::CStr;

const FUNCTION: &CStr = c"state_purge()";

/// Which versions of a state go.
#[derive(Debug, Clone, Copy)]
pub enum Purged<'a> {
    /// These.
    Versions(&'a [i64]),
    /// All but so many of the newest.
    AllBut(i64),
}

/// What this transaction has written is seen by the snapshot.
pub fn snapshot_of_now() -> PushedSnapshot {
    // SAFETY: we are inside a transaction, not in parallel mode: whoever purges may change states.
    unsafe { pg_sys::CommandCounterIncrement() };
    PushedSnapshot::transaction()
}

/// Locks the head row, with all that is staged or unwritten of the state in the tables.
pub fn lock_written(state: &StateRef<'_>, function: &CStr) -> Result<()> {
    transaction::write_before_recovery(state, function)?;
    store::lock(&state.catalog, &state.class.name, state.key)?;
    // Whoever held the lock may have dropped the extension.
    catalog::require_same(&state.catalog)
}

/// The head row of a state that is locked.
fn head(state: &StateRef<'_>) -> Result<Option<Target>> {
    let _snapshot = snapshot_of_now();
    store::target(&state.catalog, &state.class.name, state.key)
}

/// Makes a tombstone of a state that has expired and is locked; a reader finds none as it is.
fn end_expired(state: &StateRef<'_>, head: &Target) -> Result<()> {
    match head.expires_at <= sys::statement_timestamp() {
        true => transaction::expire(state, sys::statement_timestamp(), FUNCTION),
        false => Ok(()),
    }
}

/// `42501` where row-level security hides rows of a state from the caller: nothing may be left of what is erased,
/// and what is hidden may build upon that.
pub fn check_sees_all(state: &StateRef<'_>) -> Result<()> {
    let catalog = &state.catalog;
    if !catalog.access().row_security {
        return Ok(());
    }
    let name = (&*state.class.name, state.key);
    let count = || damage::versions(catalog, name, Contexts::LeftOut).map(|it| it.len());
    let seen = count()?;
    let _owner = Impersonation::owner_of(catalog.snapshot);
    match count()? == seen {
        true => Ok(()),
        false => Err(Error::HiddenVersions {
            state: state.shown(),
        }),
    }
}

/// Erases a state; whether there was anything of it.
pub fn purge_state(state: &StateRef<'_>) -> Result<bool> {
    let (catalog, class) = (&state.catalog, &*state.class.name);
    // Not after the lock: where a run is deleted, its claim and its place are locked before its head row.
    let mut was_there = transaction::delete(state, None, FUNCTION)?;
    lock_written(state, FUNCTION)?;
    if let Some(found) = head(state)?.filter(|head| !head.deleted) {
        // It has expired, or somebody has made it meanwhile, whom the snapshot of the statement does not show.
        was_there = true;
        end_expired(state, &found)?;
        let is_deleted = {
            let _snapshot = snapshot_of_now();
            transaction::delete(state, None, FUNCTION)?
        };
        if is_deleted {
            lock_written(state, FUNCTION)?;
        }
        // Whoever reads a state that is there finds its document.
        if head(state)?.is_some_and(|head| !head.deleted) {
            return Err(Error::Raced {
                state: state.shown(),
            });
        }
    }
    let _snapshot = snapshot_of_now();
    check_sees_all(state)?;
    let erased = store::erase_snapshots(catalog, class, state.key)?;
    // A policy may let nobody delete what it lets everybody see.
    let left = {
        let _snapshot = snapshot_of_now();
        store::newest_kept(catalog, class, state.key)?
    };
    if left > 0 {
        return Err(not_erased(state));
    }
    let put_aside = erase_put_aside(state, None)?;
    Ok(was_there || erased > 0 || put_aside)
}

/// What keeps rows from being deleted.
fn not_erased(state: &StateRef<'_>) -> Error {
    match state.catalog.access().row_security {
        true => Error::HiddenVersions {
            state: state.shown(),
        },
        false => Error::Swallowed {
            state: state.shown(),
        },
    }
}

/// Erases what verification has put aside of a state, or of one version; whether there was any. The table is no
/// business of callers.
fn erase_put_aside(state: &StateRef<'_>, version: Option<i64>) -> Result<bool> {
    let _owner = Impersonation::owner_of(state.catalog.head);
    store::erase_put_aside(&state.catalog, &state.class.name, state.key, version)
}

/// Erases versions of a state; whether there were any of those.
///
/// # Errors
/// `55000` for the version that the next merge of a run compares with; `XX001` where what stays is damaged and builds
/// upon what goes.
pub fn purge_versions(state: &StateRef<'_>, purged: Purged<'_>) -> Result<bool> {
    let (catalog, class) = (&state.catalog, &*state.class.name);
    lock_written(state, FUNCTION)?;
    let mut current = head(state)?.filter(|head| !head.deleted);
    if let Some(expired) = &current {
        end_expired(state, expired)?;
        current = head(state)?.filter(|head| !head.deleted);
    }
    let dropped = {
        let _snapshot = snapshot_of_now();
        check_sees_all(state)?;
        choose(state, purged)?
    };
    if let Some(head) = current.filter(|head| dropped.contains(&head.version))
        && !make_another_current(state, &head, &dropped)?
    {
        return purge_state(state);
    }
    let _snapshot = snapshot_of_now();
    let versions = damage::versions(catalog, (class, state.key), Contexts::LeftOut)?;
    for version in orphans(&versions, &dropped)? {
        if let Some(fault) = store_as_keyframe(catalog, &state.class, state.key, version)? {
            return Err(damaged(state, version, fault));
        }
    }
    for version in versions.iter().map(|version| version.number) {
        if dropped.contains(&version)
            && !store::delete_snapshot(catalog, class, state.key, version)?
        {
            return Err(not_erased(state));
        }
    }
    let mut put_aside = false;
    if let Purged::Versions(named) = purged {
        for &version in named {
            put_aside |= erase_put_aside(state, Some(version))?;
        }
    }
    Ok(put_aside || !dropped.is_empty())
}

/// The kept versions that go, under the active snapshot.
fn choose(state: &StateRef<'_>, purged: Purged<'_>) -> Result<BTreeSet<i64>> {
    let (catalog, class) = (&state.catalog, &*state.class.name);
    let base = match *class == *context::RUN {
        true => context::base_version(catalog, state.key)?,
        false => None,
    };
    let versions = damage::versions(catalog, (class, state.key), Contexts::LeftOut)?;
    let mut dropped = BTreeSet::new();
    for (newer, version) in (0..).zip(&versions) {
        let number = version.number;
        let goes = match purged {
            Purged::Versions(named) if named.contains(&number) => match Some(number) == base {
                true => {
                    return Err(Error::VersionMerged {
                        state: state.shown(),
                        version: number,
                    });
                }
                false => true,
            },
            Purged::Versions(_) => false,
            Purged::AllBut(keep) => newer >= keep && Some(number) != base,
        };
        if goes {
            memory::check()?;
            dropped.insert(number);
        }
    }
    Ok(dropped)
}

/// Makes the newest intact version that stays current again, under the next number; false if none stays.
fn make_another_current(
    state: &StateRef<'_>,
    head: &Target,
    dropped: &BTreeSet<i64>,
) -> Result<bool> {
    let (catalog, class) = (&state.catalog, &*state.class.name);
    let snapshot = snapshot_of_now();
    let versions = damage::versions(catalog, (class, state.key), Contexts::LeftOut)?;
    let own = lives::of_current(class, &versions, head.version)?;
    let stays = |version: &&KeptVersion| !dropped.contains(&version.number);
    let Some((found, kept)) = first_intact(
        catalog,
        (class, state.key),
        own.iter().copied().filter(stays),
    )?
    else {
        return match versions.iter().find(stays) {
            None => Ok(false),
            Some(version) => Err(damaged(state, version.number, "it is not intact".into())),
        };
    };
    let label = recover::label(state, found.number)?;
    let number = found.number;
    drop(snapshot);
    recover::reinstate(state, &kept.document, (number, label), None, FUNCTION)?;
    Ok(true)
}

fn damaged(state: &StateRef<'_>, version: i64, fault: AnyFault) -> Error {
    Error::Damaged {
        state: state.shown(),
        version,
        fault: match fault {
            AnyFault::Borrowed(fault) => fault,
            AnyFault::Owned(_) => "PostgreSQL cannot read its row",
        },
    }
}

//! Damaged versions: which ones are intact, and what is said about the others.

use super::lives;
use crate::cache::StateRef;
use crate::catalog::Catalog;
use crate::error::Result;
use crate::identity::Impersonation;
use crate::store::{self, Contexts, Fault, Kept, KeptVersion, LogEntry, LogId};
use crate::subtransaction::survive_damage;
use crate::transaction::Capability;
use std::borrow::Cow;

/// What is wrong with a stored version: in our words, or in PostgreSQL's.
pub type AnyFault = Cow<'static, str>;

/// The kept versions of a state under the active snapshot, newest first. One whose row PostgreSQL cannot read is
/// among them, without its execution context, as [`store::Encoding::Unreadable`].
pub fn versions(
    catalog: &Catalog,
    (class, key): (&[u8], &[u8]),
    contexts: Contexts,
) -> Result<Vec<KeptVersion>> {
    if let Ok(versions) = survive_damage(|| store::versions(catalog, class, key, contexts))? {
        return Ok(versions);
    }
    let mut versions = store::versions_unread(catalog, class, key)?;
    for version in &mut versions {
        let number = version.number;
        let read = survive_damage(|| store::version(catalog, class, key, number, contexts))?;
        if let Ok(Some(read)) = read {
            *version = read;
        }
    }
    Ok(versions)
}

/// Reads a version under the active snapshot: `None` if it is not kept, and what is wrong with it if it is not what
/// its hash says or PostgreSQL cannot read its row.
pub fn kept(
    catalog: &Catalog,
    (class, key): (&[u8], &[u8]),
    version: i64,
) -> Result<Option<std::result::Result<Kept, AnyFault>>> {
    let read = survive_damage(|| store::kept(catalog, class, key, version))?;
    Ok(match read {
        Ok(kept) => kept.map(|kept| kept.map_err(|fault: Fault| fault.into())),
        Err(damage) => Some(Err(damage.into())),
    })
}

/// The payload of a version under the active snapshot: `None` if it has none, and what is wrong with it if it is not
/// what its hash says or PostgreSQL cannot read its row.
pub fn payload(
    catalog: &Catalog,
    (class, key): (&[u8], &[u8]),
    version: i64,
) -> Result<Option<std::result::Result<Vec<u8>, AnyFault>>> {
    let read = survive_damage(|| store::payload(catalog, class, key, version))?;
    Ok(match read {
        Ok(payload) => payload.map(|payload| payload.map_err(|fault: Fault| fault.into())),
        Err(damage) => Some(Err(damage.into())),
    })
}

/// Moves a damaged version to `state_damaged`, as far as PostgreSQL can read its row.
pub fn put_aside(
    catalog: &Catalog,
    (class, key): (&[u8], &[u8]),
    version: i64,
    log_id: &LogId,
) -> Result<()> {
    let moved = survive_damage(|| store::put_aside(catalog, class, key, version, log_id))?;
    match moved {
        Ok(()) => Ok(()),
        Err(_) => store::put_aside_unread(catalog, class, key, version, log_id),
    }
}

/// The first of these versions that is intact, with its document.
pub fn first_intact<'v>(
    catalog: &Catalog,
    name: (&[u8], &[u8]),
    versions: impl IntoIterator<Item = &'v KeptVersion>,
) -> Result<Option<(&'v KeptVersion, Kept)>> {
    for version in versions {
        if let Some(Ok(kept)) = kept(catalog, name, version.number)? {
            return Ok(Some((version, kept)));
        }
    }
    Ok(None)
}

/// Answers reads of damaged versions.
pub struct Recovery;

impl Capability for Recovery {
    fn newest_intact(&self, state: &StateRef<'_>, damaged: i64) -> Result<Option<(i64, Kept)>> {
        let name = (&*state.class.name, state.key);
        let versions = versions(&state.catalog, name, Contexts::LeftOut)?;
        let own = lives::of_current(name.0, &versions, damaged)?.into_iter();
        let older = own.filter(|version| version.number < damaged);
        let found = first_intact(&state.catalog, name, older)?;
        Ok(found.map(|(version, kept)| (version.number, kept)))
    }
}

/// What a damaged state is called: a run's is its context.
pub fn error_type(class: &[u8]) -> &'static str {
    match class {
        b"run" => "context_corruption",
        _ => "state_corruption",
    }
}

/// How bad damage to the current version is.
pub fn severity(class: &[u8]) -> &'static str {
    match class {
        b"run" => "critical",
        _ => "error",
    }
}

/// Notes what was found or done, whoever may write the log: whoever may recover a state need not.
pub fn log(catalog: &Catalog, entry: &LogEntry<'_>) -> Result<Option<LogId>> {
    let _owner = Impersonation::owner_of(catalog.head);
    store::log(catalog, entry)
}

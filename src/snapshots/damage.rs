//! Damaged versions: which ones are intact, and what is said about the others.

use crate::catalog::Catalog;
use crate::error::Result;
use crate::identity::Impersonation;
use crate::store::{self, Contexts, Kept, KeptVersion, LogEntry, LogId};

/// The first of these versions that is intact, with its document.
pub fn first_intact<'v>(
    catalog: &Catalog,
    (class, key): (&[u8], &[u8]),
    versions: impl IntoIterator<Item = &'v KeptVersion>,
) -> Result<Option<(&'v KeptVersion, Kept)>> {
    for version in versions {
        if let Some(Ok(kept)) = store::kept(catalog, class, key, version.number)? {
            return Ok(Some((version, kept)));
        }
    }
    Ok(None)
}

/// The newest intact version of a state below another one, under the active snapshot.
pub fn newest_intact(
    catalog: &Catalog,
    (class, key): (&[u8], &[u8]),
    below: i64,
) -> Result<Option<(i64, Kept)>> {
    let versions = store::versions(catalog, class, key, Contexts::LeftOut)?;
    let older = versions.iter().filter(|version| version.number < below);
    let found = first_intact(catalog, (class, key), older)?;
    Ok(found.map(|(version, kept)| (version.number, kept)))
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

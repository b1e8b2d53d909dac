//! Going back: what of a run stays as it is while its document becomes an earlier one.

use super::error::ContextError;
use super::run::{self, malformed};
use crate::cache::StateRef;
use crate::cache::forms::IfIntact;
use crate::error::{Result, text};
use crate::transaction;
use state_cache_context::{Label, Run, Status};
use state_cache_document as document;
use state_cache_memory::copy;

/// What a run was given by others, and would not give itself.
const GIVEN: [&str; 5] = [
    "budget",
    "parentRunId",
    "permissions",
    "resourceLimits",
    "sharedLimits",
];

/// What was counted and decided since.
const BOOKS: [&str; 5] = [
    "usage",
    "reservations",
    "conflicts",
    "status",
    "completedAt",
];

/// A document to which a run comes back that is gone. A child has lost its place, and its parent has settled what it
/// was allotted: it has been cancelled. A document that is not that of a run is taken as it is.
pub fn with_place_lost(run: &[u8], earlier: &[u8]) -> Result<Vec<u8>> {
    let Ok(context) = Run::open(earlier, run) else {
        return Ok(copy(earlier)?);
    };
    let runs = context.status() == Status::Running;
    if !runs || run::text_of(run, &context, "parentRunId")?.is_none() {
        return Ok(copy(earlier)?);
    }
    document::string(Status::Cancelled.name().as_bytes())
        .and_then(|cancelled| document::object(&[("status", cancelled)]))
        .and_then(|updates| document::update(Some(earlier), &updates))
        .map_err(malformed(run))
}

/// A document to which a run goes back, with the books of the one that it has now: what was used stays used, what
/// children were allotted stays theirs, what was decided is not asked again, a run that has ended does not run again,
/// and what it was given stays what it is. A document that is not that of a run is taken as it is.
pub fn with_books_of(run: &[u8], earlier: &[u8], now: &[u8]) -> Result<Vec<u8>> {
    let (Ok(now), Ok(context)) = (Run::open(now, run), Run::open(earlier, run)) else {
        return Ok(copy(earlier)?);
    };
    let field =
        |document, name: &str| document::member(document, name.as_bytes()).map_err(malformed(run));
    let mut document = copy(earlier)?;
    for name in GIVEN.into_iter().chain(BOOKS) {
        let kept = field(now.document(), name)?;
        if field(context.document(), name)? == kept {
            continue;
        }
        let changed = match kept {
            Some(kept) => document::object(&[(name, kept)])
                .and_then(|updates| document::update(Some(&document), &updates)),
            None if GIVEN.contains(&name) => document::without(&document, &[name.as_bytes()]),
            // What is not there takes none of them away: a document may leave out what is empty, or a status of
            // running.
            None => continue,
        };
        document = changed.map_err(malformed(run))?;
    }
    Ok(document)
}

/// Raises `55000` for the document of a former run of this id, where there is one now.
pub fn check_may_return(state: &StateRef<'_>, version: i64, former: &[u8]) -> Result<()> {
    let now = transaction::read_latest(state, &mut IfIntact)?.state();
    let Some((_, Some(now))) = now else {
        return Ok(());
    };
    match (Run::open(&now, state.key), Run::open(former, state.key)) {
        (Ok(_), Ok(_)) => Err(ContextError::FormerRun {
            run: text(state.key),
            version,
        }
        .into()),
        _ => Ok(()),
    }
}

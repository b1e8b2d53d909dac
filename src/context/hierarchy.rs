//! The places of runs in their hierarchy, and the rules between parents and children.

use super::error::ContextError;
use super::run::{self, RUN};
use crate::cache::StateRef;
use crate::cache::forms::Document;
use crate::call::{self, sql_functions};
use crate::catalog::Catalog;
use crate::error::{Error, Result, text};
use crate::identity::Impersonation;
use crate::memory;
use crate::snapshot::PushedSnapshot;
use crate::store::{self, ClaimLock, Place, PlaceLock};
use crate::sys;
use crate::transaction;
use state_cache_context::{Label, Run, Status};
use state_cache_memory::Grow;

/// Locks the place of a run. One that no function of this room has created gets a place at the root, unless its
/// document says that it has a parent: that one must have been created there.
pub fn lock_place(state: &StateRef<'_>, context: &Run<'_>, lock: PlaceLock) -> Result<Place> {
    let (catalog, key) = (&*state.catalog, state.key);
    let parent = run::text_of(key, context, "parentRunId")?;
    let owner = Impersonation::owner_of(catalog.context);
    // The second look sees the place of a run that was deleted and created again while the first one waited.
    let found = match store::lock_place(catalog, key, lock)? {
        None => store::lock_place(catalog, key, lock)?,
        found => found,
    };
    let found = match found {
        Some(place) => place,
        None if base_version_now(catalog, key)?.is_some() => {
            return Err(Error::Raced {
                state: state.shown(),
            });
        }
        None if parent.is_some() => {
            return Err(ContextError::NoPlace { run: text(key) }.into());
        }
        None => {
            let place = Place::default();
            store::put_place(catalog, key, &place)?;
            place
        }
    };
    drop(owner);
    if parent.as_deref() == found.parent.as_deref() || parent_now(state)? == found.parent {
        return Ok(found);
    }
    Err(ContextError::OtherParent {
        run: text(key),
        parent: found.parent.as_deref().map(text),
    }
    .into())
}

/// The parent that the document of a run names now: while its place was waited for it may have been created again.
fn parent_now(state: &StateRef<'_>) -> Result<Option<Box<[u8]>>> {
    let document = run::require(state)?;
    let parent = run::text_of(state.key, &run::open(state, &document)?, "parentRunId")?;
    Ok(parent.map(Into::into))
}

/// Works on the tables of runs as their owner; what is read is what there is now, whatever the isolation level.
pub fn as_owner<T>(state: &StateRef<'_>, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let _owner = Impersonation::owner_of(state.catalog.context);
    let _snapshot = PushedSnapshot::latest();
    f()
}

/// The children of a run that have not ended. With the run's place locked no other can come.
pub fn running_children(state: &StateRef<'_>) -> Result<Vec<Box<[u8]>>> {
    let children = as_owner(state, || store::children(&state.catalog, state.key))?;
    let mut running = Vec::new();
    // One that is hidden from this role runs all the same.
    let _owner = Impersonation::owner_of(state.catalog.snapshot);
    for child in children {
        let document = document_of(state, &child)?;
        let status = match &document {
            Some(document) => Run::open(document, &child)
                .map_err(|error| run::shape(&child, error))?
                .status(),
            None => continue,
        };
        if status == Status::Running {
            running.try_push(child)?;
        }
    }
    Ok(running)
}

/// The document of another run as it is now.
fn document_of(state: &StateRef<'_>, other: &[u8]) -> Result<Option<Vec<u8>>> {
    let found = transaction::read_latest(&state.sibling(other), &mut Document)?;
    Ok(found.state().map(|(_, document)| document))
}

/// Raises `55006` if children run under a run.
pub fn check_no_children(state: &StateRef<'_>) -> Result<()> {
    let running = running_children(state)?;
    if running.is_empty() {
        return Ok(());
    }
    let mut children = Vec::new();
    for child in &running {
        if !state.catalog.access().row_security || document_of(state, child)?.is_some() {
            memory::check()?;
            children.try_push(text(child))?;
        }
    }
    Err(ContextError::ChildrenRunning {
        run: text(state.key),
        hidden: running.len() - children.len(),
        children,
    }
    .into())
}

/// Raises `55006` if a run that is to be deleted has children that run, and keeps new ones away until the transaction
/// ends. A child that runs is not deleted either: its parent would never get back what it was allotted.
pub fn check_may_delete(state: &StateRef<'_>) -> Result<()> {
    let place = {
        let _owner = Impersonation::owner_of(state.catalog.context);
        // Claims come before places, and the claim goes too.
        store::lock_claim(&state.catalog, state.key, ClaimLock::Alone)?;
        store::lock_place(&state.catalog, state.key, PlaceLock::Ends)?
    };
    let Some(place) = place else {
        return Ok(());
    };
    check_no_children(state)?;
    let found = transaction::read_latest(state, &mut Document)?.state();
    // A document that is not that of a run any more must not keep anybody from deleting it.
    let runs = found.is_some_and(|(_, document)| {
        Run::open(&document, state.key).is_ok_and(|context| context.status() == Status::Running)
    });
    if runs && place.parent.is_some() {
        return Err(ContextError::ChildRuns {
            run: text(state.key),
        }
        .into());
    }
    Ok(())
}

/// Whether there is such a run, whoever may see it.
pub fn is_there(state: &StateRef<'_>) -> Result<bool> {
    let (catalog, class) = (&state.catalog, &state.class.name);
    let _owner = Impersonation::owner_of(catalog.head);
    let _snapshot = PushedSnapshot::latest();
    let head = store::target(catalog, class, state.key)?;
    Ok(head.is_some_and(|head| !head.deleted && head.expires_at > sys::statement_timestamp()))
}

/// Makes room for the place of a new run. There may be one of a run of the same name that has expired, or whose rows
/// were deleted by hand: it must have no children that run.
pub fn clear_place(state: &StateRef<'_>) -> Result<()> {
    let catalog = &state.catalog;
    if is_there(state)? {
        // Hidden from this role, which is told so when it writes.
        return Ok(());
    }
    let former = {
        let _owner = Impersonation::owner_of(catalog.context);
        store::lock_place(catalog, state.key, PlaceLock::Ends)?
    };
    check_no_children(state)?;
    let _owner = Impersonation::owner_of(catalog.context);
    if former.is_some() {
        store::delete_place(catalog, state.key)?;
    }
    store::delete_children(catalog, state.key)
}

/// Gives a new run its place.
pub fn put_place(state: &StateRef<'_>, place: &Place) -> Result<()> {
    let _owner = Impersonation::owner_of(state.catalog.context);
    store::put_place(&state.catalog, state.key, place)
}

/// The version that the next merge of a run compares with, as of now, whatever the isolation level.
fn base_version_now(catalog: &Catalog, run: &[u8]) -> Result<Option<i64>> {
    let _snapshot = PushedSnapshot::latest();
    store::base_version(catalog, run)
}

/// The same under the active snapshot: pruning spares it.
pub fn base_version(catalog: &Catalog, run: &[u8]) -> Result<Option<i64>> {
    let _owner = Impersonation::owner_of(catalog.context);
    store::base_version(catalog, run)
}

/// Deletes the place and the claim of a run that was deleted.
pub fn delete_place(catalog: &Catalog, run: &[u8]) -> Result<()> {
    let _owner = Impersonation::owner_of(catalog.context);
    store::delete_place(catalog, run)
}

sql_functions! {
    /// `state_context_tree(run_id)`
    fn state_context_tree(call) {
        let root = run::named(call, 0)?;
        let nodes = {
            let _owner = Impersonation::owner_of(root.catalog.context);
            store::subtree(&root.catalog, root.key)?
        };
        let mut rows = call.rows()?;
        for node in nodes {
            let state = StateRef::new(&root.catalog, RUN, &node.run)?;
            let Some((version, document)) = transaction::read(&state, &mut Document)?.state() else {
                if node.depth == 0 {
                    return Err(run::unknown(root.key));
                }
                // Hidden from this role, or expired.
                continue;
            };
            let context = Run::open(&document, &node.run).map_err(|error| run::shape(&node.run, error))?;
            let routine = run::text_of(&node.run, &context, "routineId")?;
            let step = run::text_of(&node.run, &context, "step")?;
            let text = |bytes: &[u8]| call::varlena_datum(bytes);
            rows.push([
                Some(text(&node.run)),
                node.parent.as_deref().map(text),
                Some(call::integer_datum(node.depth)),
                Some(text(context.status().name().as_bytes())),
                Some(call::bigint_datum(version.number)),
                routine.as_deref().map(text),
                node.owner.as_deref().map(text),
                node.created_at.map(call::bigint_datum),
                step.as_deref().map(text),
            ]);
        }
        Ok(call::void_datum())
    }
}

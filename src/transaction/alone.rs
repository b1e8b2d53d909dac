//! The flush of one state.

use super::batch::with;
use super::capability;
use super::current::Look;
use super::deferred;
use super::effect::{Action, Effect, Outcome};
use super::known::Intent;
use super::overrule::overrule_deferred;
use super::plan::{Way, conflict, plan};
use super::record::Taken;
use super::row_change::Plan;
use crate::behind;
use crate::cache::StateRef;
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::identity::{Impersonation, SearchPath};
use crate::snapshot::PushedSnapshot;
use crate::store::{self, Writer};
use pgrx::pg_sys;
use std::rc::Rc;

/// Attempts at one state before giving up; each lost one means that somebody else's commit succeeded.
const MAX_ATTEMPTS: u32 = 1000;

/// Bytes of documents that a transaction defers: it holds them until it ends. What it changes beyond that is written
/// through.
const MAX_DEFERRED: usize = 16 << 20;

/// Flushes one state: writes the staged change, or defers it.
pub fn flush_state(
    catalog: &Rc<Catalog>,
    taken: Taken,
    writer: &mut Writer<'_>,
) -> Result<Outcome> {
    let (id, known, pending) = (taken.id, &taken.known, &taken.pending);
    let key = Rc::clone(&known.key);
    let class = behind::lock(catalog, catalog.class(&known.class.name)?, &key)?;
    crate::fault::stop_at!(ClassKnown);
    let locked = class.behind;
    let state = StateRef::of(catalog, class, &key);
    overrule_deferred(&state)?;
    check_rules(&state, &taken)?;
    let runs_user_code = catalog.runs_user_code();
    // Either may have waited for somebody who dropped the tables.
    catalog::require_same(catalog)?;
    let _stager =
        Impersonation::begin(&pending.stager, SearchPath::where_user_code(runs_user_code));
    let is_behind = locked && crate::shared::l1().is_some();
    let is_urgent = pending.is_urgent() || known.has_told_items();
    let way = match is_behind && catalog.access().l1 && !is_urgent {
        true => Way::Defer,
        false => Way::WriteThrough,
    };
    if is_behind && way == Way::WriteThrough {
        deferred::write_back(&state, id)?;
    }
    let effect = write(&state, &taken, way, writer)?;
    // What follows rows of this transaction goes with them, or a crash could keep the rows alone: a version
    // that was never committed.
    let follows_own_rows = known.is_in_tables();
    let outcome = finish(taken, effect, locked)?;
    if way == Way::Defer && (follows_own_rows || !may_defer(&state)?) {
        deferred::write_deferred(catalog, id)?;
    }
    Ok(outcome)
}

/// Asks the capabilities whether what is staged of a state may be written.
fn check_rules(state: &StateRef<'_>, taken: &Taken) -> Result<()> {
    if let Some(token) = taken.known.fence {
        for capability in capability::all() {
            capability.check_fence(state, token)?;
        }
    }
    if matches!(taken.pending.intent, Intent::Delete) {
        capability::check_may_delete(state)?;
    }
    Ok(())
}

/// Writes one state, looking again until it is written. The first attempt takes no lock of its own.
fn write(state: &StateRef<'_>, taken: &Taken, way: Way, writer: &mut Writer<'_>) -> Result<Effect> {
    let catalog = &state.catalog;
    let (mut class, mut look) = (Rc::clone(&state.class), Look::Quick);
    let (mut attempt, mut locked) = (0, None);
    loop {
        if attempt > 0 {
            check_may_retry(state, attempt)?;
            store::lock(catalog, &state.class.name, state.key)?;
            catalog::require_same(catalog)?;
            locked = check_has_moved(state, attempt, locked)?;
            // Whoever held the row until now may have redefined the class.
            class = catalog::class_now(catalog, &state.class.name).unwrap_or(class);
            if class.behind && !state.class.behind {
                // What is newest only the locks of such a class tell, and they have not been taken.
                return Err(Error::ClassRedefined {
                    class: crate::error::text(&class.name),
                });
            }
            look = Look::Close;
        }
        let state = state.of_class(Rc::clone(&class));
        let _snapshot = PushedSnapshot::transaction();
        let effect = match plan(&state, taken, way, look)? {
            Plan::Done(effect) => Some(effect),
            Plan::Write(_) if crate::fault::leaves_out!(RowWrite) => None,
            Plan::Write(change) => change.write(&state, writer)?,
        };
        match effect {
            Some(effect) => return Ok(effect),
            None => attempt += 1,
        }
    }
}

/// Raises where another attempt would not help, after so many.
fn check_may_retry(state: &StateRef<'_>, attempts: u32) -> Result<()> {
    let catalog = &state.catalog;
    if !catalog.is_installed() {
        return Err(Error::Reinstalled);
    }
    if attempts > 1 && catalog.access().row_security {
        return Err(Error::Hidden {
            state: state.shown(),
        });
    }
    if attempts > 2 && catalog.rows_may_be_rewritten() {
        return Err(Error::Swallowed {
            state: state.shown(),
        });
    }
    if attempts == MAX_ATTEMPTS {
        // Its row was there each time when it was written, and gone when it was to be locked.
        return Err(Error::LostTooOften {
            state: state.shown(),
            attempts,
        });
    }
    Ok(())
}

/// The version and the writer of a head row that is locked, if there is one.
type Locked = Option<(i64, pg_sys::TransactionId)>;

/// The head row that is locked now. An attempt that found it locked must have written it, unless the transaction's
/// one snapshot is older than the row: nobody else can have changed it since.
fn check_has_moved(state: &StateRef<'_>, attempt: u32, before: Locked) -> Result<Locked> {
    let head = state.catalog.head_row(&state.class.name, state.key);
    let now = head.map(|head| (head.version, head.xid));
    let Some((version, _)) = now.filter(|_| attempt > 3 && now == before) else {
        return Ok(now);
    };
    // Of a `behind` class, a change may be of a version that the snapshot does not show.
    let seen = {
        let _snapshot = PushedSnapshot::transaction();
        store::target(&state.catalog, &state.class.name, state.key)?
    };
    let seen = seen.map_or(0, |head| head.version);
    Err(match seen == version {
        true => Error::Stuck {
            state: state.shown(),
            version,
        },
        false => conflict(state, seen, version),
    })
}

/// Puts the effect on a state into the batch. `locked` says that the locks of a `behind` class are held.
fn finish(taken: Taken, effect: Effect, locked: bool) -> Result<Outcome> {
    let (action, version, bytes) = match &effect {
        Effect::Document { made, document, .. } => (Action::Written, made.version, document.len()),
        Effect::Deleted { version } => (Action::Deleted, *version, 0),
        Effect::Deferred {
            version,
            document,
            is_new: true,
            ..
        } => (Action::Written, *version, document.len()),
        Effect::Touched { version, .. }
        | Effect::Deferred { version, .. }
        | Effect::Nothing { version } => (Action::Unchanged, *version, 0),
    };
    with(|batch| batch.record(&taken, effect, locked))?;
    Ok(Outcome {
        class: taken.known.class,
        key: taken.known.key,
        was_document: taken.pending.is_document(),
        action,
        version,
        bytes,
    })
}

/// Whether a version that was decided upon may be deferred, rather than be written now.
fn may_defer(state: &StateRef<'_>) -> Result<bool> {
    let (by_hand, deferred) = with(|batch| (batch.by_hand.any(), batch.deferred_bytes));
    // Rows made by hand in this transaction are in the tables only.
    Ok(!by_hand
        && deferred <= MAX_DEFERRED
        && !behind::is_parked(state)
        && behind::may_defer(&state.catalog))
}

//! The flush of one state by a statement of its own.

use super::batch::with;
use super::capability;
use super::deferred;
use super::known::{Intent, OnConflict, Pending, State};
use super::overrule::heed_changes_by_hand;
use super::plan::{Look, plan};
use super::step::Plan;
use super::written::{Action, Outcome, Written};
use crate::behind;
use crate::cache::StateRef;
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::identity::Impersonation;
use crate::snapshot::PushedSnapshot;
use crate::store;
use pgrx::pg_sys;
use std::rc::Rc;

/// Attempts at one state before giving up; each lost one means that somebody else's commit succeeded.
const MAX_ATTEMPTS: u32 = 1000;

/// Bytes of documents that a transaction leaves to the worker: it holds them until it ends. What it changes
/// beyond that is written through.
const MAX_LEFT: usize = 16 << 20;

pub fn flush_state(
    catalog: &Rc<Catalog>,
    id: u128,
    known: State,
    pending: &Pending,
    on_conflict: Option<OnConflict>,
) -> Result<Outcome> {
    let key = Rc::clone(&known.key);
    let class = behind::lock(catalog, catalog.class(&known.class.name)?, &key)?;
    crate::fault::stop_at!(ClassKnown);
    let locked = class.behind;
    let state = StateRef {
        catalog: Rc::clone(catalog),
        class,
        key: &key,
    };
    heed_changes_by_hand(&state)?;
    check_rules(&state, &known, pending)?;
    let runs_user_code = catalog.runs_user_code();
    // Either may have waited for somebody who dropped the tables.
    catalog::require_same(catalog)?;
    let _stager = Impersonation::begin(&pending.stager, runs_user_code);
    let is_behind = locked && crate::shared::l1().is_some();
    let is_urgent = pending.is_urgent() || known.has_told_items();
    let decide = is_behind && catalog.access().l1 && !is_urgent;
    if is_behind && !decide {
        deferred::bring_down(&state, id)?;
    }
    let written = write_alone(&state, &known, pending, on_conflict, decide, 0)?;
    // What follows rows of this transaction goes with them, or a crash could keep the rows alone: a version
    // that was never committed.
    let follows_own_rows = known.is_in_tables();
    let outcome = finish(id, known, pending, written, locked)?;
    if decide && (follows_own_rows || !may_leave(&state)?) {
        deferred::write_left(catalog, id)?;
    }
    Ok(outcome)
}

/// Asks the capabilities whether what is staged of a state may be written.
pub fn check_rules(state: &StateRef<'_>, known: &State, pending: &Pending) -> Result<()> {
    if let Some(token) = known.fence {
        for capability in capability::all() {
            capability.check_fence(state, token)?;
        }
    }
    if matches!(pending.intent, Intent::Delete) {
        capability::check_may_delete(state)?;
    }
    Ok(())
}

/// Writes one state by a statement of its own, looking again until it is written. `attempt` counts from 0; the
/// first takes no lock of its own.
pub fn write_alone(
    state: &StateRef<'_>,
    known: &State,
    pending: &Pending,
    on_conflict: Option<OnConflict>,
    decide: bool,
    mut attempt: u32,
) -> Result<Written> {
    let catalog = &state.catalog;
    let (mut class, mut look) = (Rc::clone(&state.class), Look::Quick);
    let mut locked = None;
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
        let state = StateRef {
            catalog: Rc::clone(catalog),
            class: Rc::clone(&class),
            key: state.key,
        };
        let _snapshot = PushedSnapshot::transaction();
        let written = match plan(&state, known, pending, on_conflict, decide, look)? {
            Plan::Done(written) => Some(written),
            Plan::Write(_) if crate::fault::leaves_out!(RowWrite) => None,
            Plan::Write(step) => step.write(&state)?,
        };
        match written {
            Some(written) => return Ok(written),
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

/// The head row that is locked now. An attempt that found it locked must have written it: nobody else can have changed
/// it since.
fn check_has_moved(state: &StateRef<'_>, attempt: u32, before: Locked) -> Result<Locked> {
    let head = state.catalog.head_row(&state.class.name, state.key);
    let now = head.map(|head| (head.version, head.xid));
    match now {
        Some((version, _)) if attempt > 3 && now == before => Err(Error::Stuck {
            state: state.shown(),
            version,
        }),
        _ => Ok(now),
    }
}

/// Remembers what was made of a state.
pub fn finish(
    id: u128,
    known: State,
    pending: &Pending,
    written: Written,
    locked: bool,
) -> Result<Outcome> {
    let (action, version, bytes) = match &written {
        Written::Document { made, document, .. } => (Action::Written, made.version, document.len()),
        Written::Deleted { version } => (Action::Deleted, *version, 0),
        Written::Left {
            version,
            document,
            is_new: true,
            ..
        } => (Action::Written, *version, document.len()),
        Written::Touched { version, .. }
        | Written::Left { version, .. }
        | Written::Nothing { version } => (Action::Unchanged, *version, 0),
    };
    with(|batch| batch.flushed(id, written, &pending.stager, &pending.touched, locked))?;
    Ok(Outcome {
        state: known,
        action,
        version,
        bytes,
    })
}

/// Whether what was decided upon may be left to the worker, rather than be written now.
fn may_leave(state: &StateRef<'_>) -> Result<bool> {
    let (by_hand, left) = with(|batch| (batch.by_hand.any(), batch.left));
    // Rows made by hand in this transaction are in the tables only.
    Ok(!by_hand
        && left <= MAX_LEFT
        && !behind::is_parked(state)
        && behind::may_leave(&state.catalog))
}

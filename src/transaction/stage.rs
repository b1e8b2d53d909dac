//! Staging: what is pending on a state, once a change has been added to it.

use super::batch::{MAX_HELD, with};
use super::beneath::{committed_ground, read_beneath};
use super::explicit::Whose;
use super::flush;
use super::known::{Bytes, Expiry, Folded, Intent, OlderViews, OnConflict, Pending, State, View};
use super::operation::{Operation, apply_all, are_many, have_edits};
use crate::cache::StateRef;
use crate::cache::forms::Document;
use crate::cache::found::{Found, Ground};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::interval::Ttl;
use crate::notify::Touched;
use crate::snapshot::PushedSnapshot;
use crate::{behind, settings, store, sys};
use pgrx::pg_sys;
use state_cache_memory::{Grow, collect};
use std::rc::Rc;

/// Replaces what is pending on a state, and what the transaction sees of it. `touched` is what of the state the
/// change touches.
pub fn stage(
    state: &StateRef<'_>,
    touched: &Touched,
    change: impl FnOnce(&mut State, Option<Pending>) -> Result<(Pending, View)>,
) -> Result<()> {
    // SAFETY: marks the running command as one that changes something, as a table's change does.
    let command = unsafe { pg_sys::GetCurrentCommandId(true) };
    with(|batch| {
        let only_flushed = !batch.by_hand.any();
        let known = batch.changing(state)?;
        if only_flushed
            && let (None, None, Some(flushed)) = (&known.pending, known.beneath, &known.flushed)
        {
            known.beneath = Some(flushed.number());
        }
        let before = known.pending.take();
        let touched = match &before {
            Some(before) if before.has_ended() => Touched::document().and(touched),
            Some(before) => before.touched.clone().and(touched),
            None => touched.clone(),
        };
        let belongs_to_written = before.as_ref().is_some_and(|it| it.belongs_to_written);
        let (mut pending, view) = change(known, before)?;
        pending.touched = touched;
        pending.belongs_to_written = belongs_to_written;
        known.pending = Some(pending);
        known.push_view(command, view);
        let staged = known.staged_bytes();
        batch.holds_too_much(staged)
    })
    .and_then(|too_much| if too_much { make_room(state) } else { Ok(()) })
}

/// Keeps a transaction that changes very many states within bounds.
fn make_room(state: &StateRef<'_>) -> Result<()> {
    if with(|batch| batch.scope.explicit.own_rule().is_some()) {
        return Err(Error::BatchTooLarge {
            state: state.shown(),
            limit: MAX_HELD,
        });
    }
    let _snapshot = PushedSnapshot::transaction();
    flush::flush(Whose::NoBatch)?;
    with(|batch| batch.spill(OlderViews::GiveUp))
}

pub fn new_pending(
    state: &StateRef<'_>,
    intent: Intent,
    expiry: Expiry,
    expected: Option<i64>,
) -> Pending {
    let dedup = state.class.dedup && settings::dedup();
    Pending {
        intent,
        expiry,
        ttl: Ttl::Keep,
        stager: Identity::current(),
        dedup,
        expected,
        folded: None,
        checkpoint: None,
        touched: Touched::default(),
        belongs_to_written: false,
    }
}

/// What is pending once an operation has been added to it.
pub fn with_operation(
    state: &StateRef<'_>,
    pending: Option<Pending>,
    operation: Operation,
    result: Bytes,
    found: &Found<Vec<u8>>,
    expiry: Expiry,
) -> Result<Pending> {
    let first = |operation, result| Intent::Apply {
        operations: Rc::new(vec![Rc::new(operation)]),
        base: ground_of(found),
        result,
    };
    let Some(pending) = pending else {
        return Ok(new_pending(state, first(operation, result), expiry, None));
    };
    // Staged and gone again, deleted or expired: what comes now starts from nothing.
    let starts_anew =
        pending.has_ended() || matches!(pending.intent, Intent::Delete | Intent::Expire(_));
    let expiry = match starts_anew {
        true => Expiry::At(expiry.after(None)),
        false => pending.expiry.followed_by(expiry),
    };
    let is_edit = operation.is_edit();
    let folded = pending.folded.map(|folded| Folded {
        has_edits: folded.has_edits || is_edit,
        ..folded
    });
    let intent = match pending.intent {
        _ if starts_anew => Intent::Replace(result),
        Intent::Replace(_) | Intent::Delete | Intent::Expire(_) => Intent::Replace(result),
        Intent::Touch => first(operation, result),
        Intent::Apply {
            operations, base, ..
        } => Intent::Apply {
            operations: with_one_more(operations, operation)?,
            base,
            result,
        },
    };
    Ok(Pending {
        intent,
        expiry,
        // Where the state has ended, nothing is remembered of the time to live that it had.
        ttl: match starts_anew {
            true => Ttl::Is(None),
            false => pending.ttl,
        },
        expected: pending.expected,
        folded,
        ..new_pending(state, Intent::Touch, expiry, None)
    })
}

/// Operations with one more at the end: in a copy, where a subtransaction would go back to those before.
fn with_one_more(
    mut operations: Rc<Vec<Rc<Operation>>>,
    operation: Operation,
) -> Result<Rc<Vec<Rc<Operation>>>> {
    if Rc::get_mut(&mut operations).is_none() {
        operations = Rc::new(collect(operations.iter().map(Rc::clone))?);
    }
    Rc::make_mut(&mut operations).try_push(Rc::new(operation))?;
    Ok(operations)
}

impl Expiry {
    /// What both come to, if an operation with the second follows.
    fn followed_by(self, next: Self) -> Self {
        match (self, next) {
            (Self::At(at), Self::AtLeast(least)) => Self::At(at.max(least)),
            (before, Self::Keep) => before,
            (_, after) => after,
        }
    }
}

impl Pending {
    /// Whether the staged change has given the state an expiry that has passed.
    fn has_ended(&self) -> bool {
        matches!(self.expiry, Expiry::At(at) if at != i64::MAX && at <= sys::statement_timestamp())
    }
}

/// What an operation builds upon, also where the transaction's own view of the state knows no hash.
fn ground_of(found: &Found<Vec<u8>>) -> Ground {
    match (found.ground(), found) {
        (Ground { number, hash: 0 }, Found::State(_, document)) => Ground {
            number,
            hash: state_cache_document::hash(document),
        },
        (ground, _) => ground,
    }
}

/// The version that a change will make, as far as it is known: that of the changes staged before, since
/// all of them make one. Where those are a duplicate they show the stored version, which this change may
/// not keep.
pub fn next_version(known: &State, pending: Option<&Pending>) -> Option<i64> {
    match (&pending?.intent, known.newest()?) {
        (Intent::Replace(_) | Intent::Apply { .. }, View::Document { version, .. }) => {
            version.filter(|version| known.beneath.is_none_or(|beneath| *version > beneath))
        }
        _ => None,
    }
}

/// In an explicit batch that fails on conflicts: remembers what is being built upon.
pub fn note_base(state: &StateRef<'_>) -> Result<()> {
    let wanted =
        with(|batch| -> Result<bool> {
            let on_conflict = batch.scope.explicit.own_rule();
            let role = sys::current_user();
            Ok(on_conflict == Some(OnConflict::Error)
                && batch.changing(state)?.base_of(role).is_none())
        })?;
    if wanted {
        let ground = committed_ground(state)?;
        with(|batch| batch.changing(state).map(|known| known.note_base(ground)))?;
    }
    Ok(())
}

/// Bounds what a transaction keeps of one state: past the limit the row is locked, the operations are
/// applied to what is there then, and only their result is kept.
pub fn fold_if_many(state: &StateRef<'_>) -> Result<()> {
    let many = with(|batch| -> Result<_> {
        Ok(match &batch.changing(state)?.pending {
            Some(Pending {
                intent:
                    Intent::Apply {
                        operations,
                        base,
                        result,
                    },
                ..
            }) if are_many(operations) => Some((Rc::clone(operations), *base, Rc::clone(result))),
            _ => None,
        })
    })?;
    let Some((operations, base, result)) = many else {
        return Ok(());
    };
    behind::lock(&state.catalog, Rc::clone(&state.class), state.key)?;
    store::lock(&state.catalog, &state.class.name, state.key)?;
    let current = {
        let _snapshot = PushedSnapshot::transaction();
        read_beneath(state, &mut Document)?
    };
    let ground = current.ground();
    let result = if ground == base {
        Some(result)
    } else {
        let document = current.state().map(|(_, document)| document);
        apply_all(state, &operations, document)?.map(|result| Rc::new(result.into()))
    };
    with(|batch| {
        let known = batch.changing(state)?;
        known.beneath = Some(ground.number);
        if let Some(pending) = &mut known.pending {
            pending.intent = match &result {
                Some(result) => Intent::Replace(Rc::clone(result)),
                None => Intent::Delete,
            };
            pending.folded = Some(Folded {
                ground,
                has_edits: have_edits(&operations),
            });
        }
        match (known.newest_mut(), result) {
            (Some(View::Document { document, .. }), Some(result)) => *document = result,
            (Some(view), None) => *view = View::Absent,
            _ => {}
        }
        Ok(())
    })
}

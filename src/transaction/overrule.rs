//! What a change by hand does: to what the transaction knows, and to dirty versions of L1.
//!
//! The row triggers say which states changed; their entries are evicted when the transaction commits. From the first
//! such statement on the transaction reads the tables only: a change becomes known here when its statement ends, and
//! a function that is called within the statement may read before.

use super::batch::{Batch, Phase, with};
use super::known::{Flushed, Place};
use crate::behind::Subject;
use crate::cache::StateRef;
use crate::cache::publish::{Changed, New};
use crate::catalog::{Catalog, Class};
use crate::error::Result;
use crate::name::StateName;
use crate::notify;
use std::rc::Rc;

/// What a trigger on the tables has seen of a statement by hand.
pub struct ChangeByHand {
    /// Whether the statement empties the tables.
    pub truncates: bool,
    /// Whether no head row will show the change.
    pub is_untraced: bool,
    /// Version of the head row before, if that row is gone.
    pub gone: Option<i64>,
    /// The states of the row before and of the row after.
    pub names: [Option<StateName>; 2],
}

/// Notes a change by hand. Once the last flush is done the change joins what the commit publishes.
pub fn note_change_by_hand(catalog: &Rc<Catalog>, change: ChangeByHand) -> Result<()> {
    let committing = with(|batch| -> Result<bool> {
        batch
            .scope
            .catalog
            .get_or_insert_with(|| Rc::clone(catalog));
        batch.by_hand.note(change.truncates)?;
        if change.is_untraced {
            let gone = change.names[0].as_ref().zip(change.gone);
            batch.by_hand.note_untraced(gone)?;
        }
        let committing = batch.phase == Phase::Committing;
        if committing && change.truncates {
            batch.publication.truncate(catalog);
        }
        for (class, key) in change.names.into_iter().flatten() {
            if committing {
                let changed = Changed {
                    class: &class,
                    key: &key,
                    new: New::NothingClean,
                };
                batch.publication.add(catalog, &changed)?;
            }
            batch.by_hand.add((class, key))?;
        }
        Ok(committing)
    })?;
    match committing {
        true => notify::tell_late(catalog),
        false => Ok(()),
    }
}

/// Notes that a state was changed in the tables past what is staged: for all that follows, a change by hand.
pub fn note_by_hand(catalog: &Rc<Catalog>, class: &Class, key: &[u8]) -> Result<()> {
    with(|batch| {
        batch
            .scope
            .catalog
            .get_or_insert_with(|| Rc::clone(catalog));
        batch.by_hand.note_state((class.name.clone(), key.into()))
    })
}

/// Notes a version that only L1 held of a state whose head row this transaction deletes by hand.
pub fn raise_floor(class: &Class, key: &[u8], version: i64) -> Result<()> {
    with(|batch| batch.by_hand.raise_floor(&class.name, key, version))
}

/// The highest version of a state's bucket whose head row this transaction has deleted by hand, 0 for none.
pub fn own_floor(class: &[u8], key: &[u8]) -> i64 {
    with(|batch| batch.by_hand.floor(class, key))
}

/// A state that this transaction writes.
pub fn subject<'a>(catalog: &'a Catalog, class: &'a Class, key: &'a [u8]) -> Subject<'a> {
    Subject {
        catalog,
        class,
        key,
        own_floor,
    }
}

/// Before a state is read or changed: a deferred version that a change by hand of this transaction has overruled
/// since is discarded (see `behind`).
pub fn overrule_deferred(state: &StateRef<'_>) -> Result<()> {
    let may_be = with(|batch| -> Result<_> {
        let by_hand = &batch.by_hand;
        let touched = by_hand.all() || by_hand.has(&state.class.name, state.key);
        Ok(touched && batch.deferred(state)?.is_some())
    })?;
    let id = state.id();
    if may_be && is_overruled(&state.catalog, id)? {
        with(|batch| batch.overrule(id))?;
    }
    Ok(())
}

/// Whether a change by hand in this transaction overrules its deferred version of a state.
pub fn is_overruled(catalog: &Catalog, id: u128) -> Result<bool> {
    let Some(known) = with(|batch| batch.states.get(&id).cloned()) else {
        return Ok(false);
    };
    let Some(Flushed {
        version,
        place: Place::Deferred { base, .. },
        ..
    }) = known.flushed
    else {
        return Ok(false);
    };
    match catalog.head_row(&known.class.name, &known.key) {
        Some(head) => Ok(head.version > version),
        None => with(|batch| {
            let truncated = batch.by_hand.truncated();
            if base > 0 && !truncated {
                // The caller has been told of that version: it is not used again.
                batch
                    .by_hand
                    .raise_floor(&known.class.name, &known.key, version)?;
            }
            Ok(base > 0 || truncated)
        }),
    }
}

impl Batch {
    /// A change by hand has overruled the deferred version: the tables count.
    pub fn overrule(&mut self, id: u128) -> Result<()> {
        self.frames.save(id, self.states.get(&id), &self.scope)?;
        if let Some(state) = self.states.get_mut(&id) {
            self.deferred_bytes = self.deferred_bytes.saturating_sub(state.deferred_bytes());
            state.flushed = None;
            if !state.is_staged() {
                state.forget_views();
            }
        }
        Ok(())
    }
}

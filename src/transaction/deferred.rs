//! Versions that a flush has deferred, at COMMIT; and dirty versions that must be written before a state is written
//! through.

use super::batch::{Batch, in_order, with};
use super::known::{Content, Flushed, Place, State};
use super::overrule::{is_overruled, subject};
use super::write_back::write_above_lost;
use crate::behind::{self, Found, Unwritten, Wrote};
use crate::cache::StateRef;
use crate::cache::found::Version;
use crate::cache::publish::{DeferredBy, NewValue};
use crate::catalog::{Catalog, Class};
use crate::counters::Counter;
use crate::error::{Error, Result, Shown};
use crate::identity::{Impersonation, SearchPath};
use state_cache_memory::{Grow, collect, copy};
use std::rc::Rc;

/// Hands deferred versions to L1, and writes those that L1 does not take; whether something was written.
pub fn hand_over(catalog: &Rc<Catalog>) -> Result<bool> {
    let deferred = with(|batch| batch.all_deferred(catalog))?;
    if deferred.is_empty() {
        return Ok(false);
    }
    let by_hand = with(|batch| batch.by_hand.any());
    // A state that was changed by hand as well has that change in the tables, where the two are put in order.
    let accepted =
        !by_hand && !catalog.runs_user_code() && with(|batch| batch.publication.begin_deferring());
    let mut wrote = false;
    for id in deferred {
        if by_hand && is_overruled(catalog, id)? {
            with(|batch| batch.overrule(id))?;
            continue;
        }
        // A class that this transaction has redefined since is not the worker's business any more.
        let may_be_deferred = accepted && is_behind(catalog, id)?;
        if !may_be_deferred || !with(|batch| batch.defer_to_l1(catalog, id))? {
            write_deferred(catalog, id)?;
            wrote = true;
        }
    }
    Ok(wrote)
}

/// Whether the class of a deferred version is a `behind` class now. Only this transaction can have changed the class:
/// it holds the class lock.
fn is_behind(catalog: &Catalog, id: u128) -> Result<bool> {
    let class = with(|batch| Some(Rc::clone(&batch.states.get(&id)?.class)));
    match class {
        Some(class) => Ok(catalog.class_or_default(&class.name)?.behind),
        None => Ok(false),
    }
}

/// Writes the deferred versions of a class, or of all; how many.
pub fn write_all_deferred(catalog: &Rc<Catalog>, class: Option<&[u8]>) -> Result<u64> {
    let deferred = with(|batch| {
        let all = batch.all_deferred(catalog)?.into_iter();
        let wanted = all.filter(|id| {
            let state = batch.states.get(id);
            state.is_some_and(|state| class.is_none_or(|class| *state.class.name == *class))
        });
        Ok::<_, Error>(collect(wanted)?)
    })?;
    for &id in &deferred {
        write_deferred(catalog, id)?;
    }
    Ok(deferred.len() as u64)
}

/// `40001` if a state was written through without the locks of a `behind` class, and its class has become
/// one since: somebody may have acknowledged a change of it that the tables do not hold.
pub fn check_classes(catalog: &Catalog) -> Result<()> {
    let unlocked = with(|batch| {
        let in_tables = batch.states.values().filter(|state| {
            state.belongs_to(catalog)
                && state
                    .flushed
                    .as_ref()
                    .is_some_and(|flushed| matches!(flushed.place, Place::Tables { locked: false }))
        });
        // A transaction changes states of few classes.
        let mut classes: Vec<Rc<Class>> = Vec::new();
        for state in in_tables {
            if !classes.iter().any(|known| known.name == state.class.name) {
                classes.try_push(Rc::clone(&state.class))?;
            }
        }
        Ok::<_, Error>(classes)
    })?;
    for class in unlocked {
        match catalog.class(&class.name) {
            Ok(now) if now.behind => {
                return Err(Error::ClassRedefined {
                    class: crate::error::text(&class.name),
                });
            }
            Ok(_) | Err(Error::UnknownClass { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Before a state of a `behind` class is written through: writes the version that only L1 or this
/// transaction holds. From then on the change builds upon the tables.
pub fn write_back(state: &StateRef<'_>, id: u128) -> Result<()> {
    let (catalog, class) = (&state.catalog, &state.class);
    if with(|batch| batch.deferred(state))?.is_some() {
        return write_deferred(catalog, id);
    }
    if with(|batch| batch.states.get(&id).is_some_and(State::is_in_tables)) {
        return Ok(());
    }
    let (info, dirty, version) = match behind::unwritten(catalog, class, state.key)? {
        Found::Nothing => return Ok(()),
        Found::Version(info, dirty, version) => (info, dirty, version),
        Found::Damaged(info, dirty) => {
            return write_above_lost(catalog, class, state.key, &info, dirty.owner);
        }
    };
    let wrote = {
        let _writer = behind::become_writer(catalog, dirty.owner);
        behind::write(subject(catalog, class, state.key), &version)?
    };
    match wrote {
        Wrote::Version(made) => with(|batch| batch.record_written_back(id, made, version))?,
        // The change by hand may be this transaction's own, and fail with it.
        Wrote::Overruled if with(|batch| batch.by_hand.any()) => {}
        Wrote::Overruled => behind::overrule(catalog, class, state.key, &info),
    }
    Ok(())
}

/// Writes the deferred version of a state, if there is one.
pub fn write_deferred(catalog: &Rc<Catalog>, id: u128) -> Result<()> {
    let Some(known) = with(|batch| batch.states.get(&id).cloned()) else {
        return Ok(());
    };
    let Some(Flushed {
        version,
        expires_at,
        content: Content::Document { document, hash, .. },
        place: Place::Deferred {
            stager, ttl, base, ..
        },
        ..
    }) = known.flushed
    else {
        return Ok(());
    };
    let unwritten = Unwritten {
        version,
        document: copy(&document)?,
        hash,
        expires_at,
        ttl,
        base,
    };
    // The row of its class may be gone, with this transaction.
    let class = catalog.class_or_default(&known.class.name)?;
    let wrote = {
        let _stager = Impersonation::begin(
            &stager,
            SearchPath::where_user_code(catalog.runs_user_code()),
        );
        behind::write(subject(catalog, &class, &known.key), &unwritten)?
    };
    class.counters.count(Counter::WrittenThrough);
    match wrote {
        Wrote::Version(made) => with(|batch| batch.record_written_back(id, made, unwritten)),
        Wrote::Overruled => {
            // A change by hand has the last word; without the dirty version a retry builds upon it.
            if !with(|batch| batch.by_hand.any())
                && let Some((info, _)) = behind::dirty_entry(catalog, &class, &known.key)
            {
                behind::overrule(catalog, &class, &known.key, &info);
            }
            let found = catalog.head_row(&class.name, &known.key);
            Err(Error::Conflict {
                state: Shown::new(&class.name, &known.key),
                expected: base,
                found: found.map_or(0, |head| head.version),
            })
        }
    }
}

impl Batch {
    /// The states with deferred versions, in the order in which states are locked.
    fn all_deferred(&self, catalog: &Catalog) -> Result<Vec<u128>> {
        in_order(self.states.iter().filter(|(_, state)| {
            state.belongs_to(catalog) && state.flushed.as_ref().is_some_and(Flushed::is_deferred)
        }))
    }

    /// Hands a deferred version to L1; whether L1 takes it.
    fn defer_to_l1(&mut self, catalog: &Catalog, id: u128) -> Result<bool> {
        let Some(state) = self.states.get(&id) else {
            return Ok(false);
        };
        let Some(Flushed {
            version,
            expires_at,
            content:
                Content::Document {
                    document,
                    hash,
                    storage,
                },
            place:
                Place::Deferred {
                    stager,
                    ttl,
                    base,
                    over_own_rows,
                    ..
                },
            ..
        }) = &state.flushed
        else {
            return Ok(false);
        };
        // A change of another one is not deferred.
        let Some(ttl) = ttl.packed() else {
            return Ok(false);
        };
        let new = NewValue {
            class: &state.class,
            version: Version {
                number: *version,
                expires_at: *expires_at,
                hash: *hash,
                storage: *storage,
            },
            document,
        };
        let deferred_by = DeferredBy {
            owner: stager.user,
            base: *base,
            over_own_rows: *over_own_rows,
            ttl,
        };
        let name = (&*state.class.name, &*state.key);
        let taken = self.publication.defer(catalog, name, &new, deferred_by)?;
        if taken {
            state.class.counters.count(Counter::Deferred);
        }
        Ok(taken)
    }
}

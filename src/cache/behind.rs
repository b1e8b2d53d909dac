//! Reading a state of a `behind` class: the newest version, whatever the caller's snapshot is.
//!
//! A dirty entry is the newest version by definition, so it is looked for first, also where L1 is switched
//! off; only rows that this transaction itself has made may have the last word (`behind`). A clean one is what L3
//! holds if the stripe is quiet. Else L3 is asked under a snapshot taken now.
//!
//! **A class that becomes `through`** is read like that under every snapshot that sees it as a `behind` class, and by
//! every transaction that has read it as one, until they end: what it acknowledged before it changed may have been
//! read, and is too new for such a snapshot.

use super::StateRef;
use super::damage;
use super::fill::{Route, offer, route};
use super::found::{Form, Found, Reader, Taken, Version};
use super::tables::{from_l3, from_table, newest};
use super::visibility::is_seen;
use crate::catalog::Class;
use crate::counters::Counter;
use crate::error::{Error, Result, warn_unwritten};
use crate::shared;
use crate::store::{self, Storage, Stored};
use crate::sys;
use state_cache_l1::EntryInfo;
use std::cell::RefCell;
use std::rc::Rc;

thread_local! {
    /// The `behind` classes that this transaction has read.
    static READ: RefCell<Vec<Rc<Class>>> = const { RefCell::new(Vec::new()) };
}

/// The transaction has ended. Frees memory and allocates none.
pub fn forget_read() {
    READ.with(|read| {
        if let Ok(mut read) = read.try_borrow_mut()
            && !read.is_empty()
        {
            *read = Vec::new();
        }
    });
}

/// Whether the newest version of a state is to be read, whatever the snapshot.
pub fn reads_newest(state: &StateRef<'_>) -> bool {
    if shared::l1().is_none() {
        return false;
    }
    let class = &state.class;
    if class.behind {
        READ.with_borrow_mut(|read| {
            if !read.iter().any(|known| Rc::ptr_eq(known, class)) {
                read.push(Rc::clone(class));
            }
        });
        return true;
    }
    let snapshot = sys::active_snapshot();
    // SAFETY: the active snapshot is an MVCC snapshot.
    if unsafe { is_seen(class.written_by, snapshot) } {
        return false;
    }
    READ.with_borrow(|read| read.iter().any(|known| known.name == class.name))
        // SAFETY: the snapshot is active.
        || unsafe { state.catalog.is_behind(&class.name, snapshot) }
}

/// The counter of the read, that of its time, and the state.
type Answer<T> = Result<(Counter, Counter, Found<T>)>;

/// Reads a state of which this transaction holds no unflushed change. `own_rows` says that it has rows of
/// its own in the tables.
pub fn read<F: Form>(
    state: &StateRef<'_>,
    reader: Reader,
    own_rows: bool,
    form: &mut F,
) -> Answer<F::Output> {
    let from_tables = |form: &mut F, reason| {
        let found = from_table(state, form)?;
        Ok((reason, Counter::L3ReadTime, found))
    };
    let (Some(l1), true) = (shared::l1(), state.catalog.access().l1) else {
        return from_tables(form, Counter::BypassPrivileges);
    };
    let key = state.catalog.l1_key(&state.class, state.key);
    let token = l1.fill_token(&key);
    let taken = form.take(l1, &key);
    if let Taken::Entry(info, value) = taken {
        if let Some(dirty) = info.dirty {
            if own_rows {
                let stored = newest(state)?.stored;
                let has_last_word = match &stored {
                    Some(stored) => stored.version > info.version,
                    None => dirty.base > 0,
                };
                if has_last_word {
                    let found = from_l3(state, stored, form)?;
                    return Ok((Counter::BypassOwn, Counter::L3ReadTime, found));
                }
            }
            if sys::isolation_is_serializable() {
                // For its predicate locks: SERIALIZABLE transactions write these classes through, so two of
                // them meet in L3.
                store::read(&state.catalog, &state.class, state.key)?;
            }
            if dirty.parked && reader == Reader::Caller {
                warn_unwritten(&state.shown(), info.version);
            }
            return Ok((Counter::Hits, Counter::L1ReadTime, found(&info, value?)));
        }
        if matches!(route(state, own_rows), Route::L1(_))
            && token.is_some()
            && is_fresh(state, &info)
        {
            return Ok((Counter::Hits, Counter::L1ReadTime, found(&info, value?)));
        }
    } else if let Taken::Damaged = taken {
        damage::found(state, l1, &key)?;
    }
    match (route(state, own_rows), token) {
        (Route::L3(reason), _) if sys::isolation_is_serializable() && !own_rows => {
            check_snapshot_is_newest(state)?;
            from_tables(form, reason)
        }
        // A parallel query takes no snapshot of its own.
        _ if sys::is_in_parallel_mode() => from_tables(form, Counter::Misses),
        (Route::L3(reason), _) => {
            let found = from_l3(state, newest(state)?.stored, form)?;
            Ok((reason, Counter::L3ReadTime, found))
        }
        (Route::L1(_), None) => {
            let found = from_l3(state, newest(state)?.stored, form)?;
            Ok((Counter::BypassWriters, Counter::L3ReadTime, found))
        }
        (Route::L1(l1), Some(token)) => {
            let stored = newest(state)?.stored;
            crate::fault::stop_at!(BeforeFill);
            offer(state, l1, &key, token, stored.as_ref());
            let found = from_l3(state, stored, form)?;
            Ok((Counter::Misses, Counter::L3ReadTime, found))
        }
    }
}

/// `40001` if the snapshot of a SERIALIZABLE transaction does not see the newest version: it may have been read
/// already, while it was dirty.
fn check_snapshot_is_newest(state: &StateRef<'_>) -> Result<()> {
    let version = |stored: Option<Stored>| stored.map_or(0, |stored| stored.version);
    let seen = version(store::read(&state.catalog, &state.class, state.key)?);
    let newest = version(newest(state)?.stored);
    if seen == newest {
        return Ok(());
    }
    Err(Error::Conflict {
        state: state.shown(),
        expected: seen,
        found: newest,
    })
}

fn found<T>(info: &EntryInfo, value: T) -> Found<T> {
    let version = Version {
        number: info.version,
        expires_at: info.expires_at,
        hash: info.hash,
        storage: Storage::from_bits(info.stored),
    };
    version.unless_expired(value)
}

/// Whether a clean entry may still serve reads, by the class's `cache_ttl`.
fn is_fresh(state: &StateRef<'_>, info: &EntryInfo) -> bool {
    state
        .class
        .cache_ttl
        .is_none_or(|ttl| info.loaded_at.saturating_add(ttl) > sys::statement_timestamp())
}

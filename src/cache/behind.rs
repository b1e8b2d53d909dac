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
use super::fill::{Origin, Route, offer, route};
use super::found::{Form, Found, Reader, Taken, Version};
use super::tables::{from_l3, from_table, newest};
use super::visibility::{UNPROVEN, is_seen};
use crate::catalog::Class;
use crate::counters::Counter;
use crate::error::{Error, Result, warn_unwritten};
use crate::shared::{self, Key};
use crate::store::{self, Storage, Stored};
use crate::sys;
use state_cache_l1::{Dirty, EntryInfo, FillToken};
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
    // Replay has what the worker has written, and nobody here writes behind.
    if sys::recovery_in_progress() {
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
    let (Some(l1), true) = (shared::l1(), state.catalog.access().l1) else {
        let found = from_table(state, form)?;
        return Ok((Counter::BypassPrivileges, Counter::L3ReadTime, found));
    };
    let key = state.l1_key();
    let token = l1.fill_token(&key);
    match form.take(l1, &key) {
        Taken::Entry(info, value) => {
            if let Some(dirty) = info.dirty {
                return from_dirty(state, reader, own_rows, (&info, dirty, value), form);
            }
            let may_answer = matches!(route(state, own_rows), Route::L1(_)) && token.is_some();
            if may_answer && is_fresh(state, &info) {
                return Ok((Counter::Hits, Counter::L1ReadTime, found(&info, value?)));
            }
        }
        Taken::Damaged => damage::found(state, l1, &key)?,
        Taken::Miss | Taken::Failed(_) => {}
    }
    from_tables(state, own_rows, (&key, token), form)
}

/// Answers from a dirty entry, which is the newest version unless rows of this transaction are newer.
fn from_dirty<F: Form>(
    state: &StateRef<'_>,
    reader: Reader,
    own_rows: bool,
    (info, dirty, value): (&EntryInfo, Dirty, Result<F::Output>),
    form: &mut F,
) -> Answer<F::Output> {
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
    Ok((Counter::Hits, Counter::L1ReadTime, found(info, value?)))
}

/// Answers from L3, where L1 has no entry that may answer, and fills L1 if that may be. The token was taken before L1
/// was asked.
fn from_tables<F: Form>(
    state: &StateRef<'_>,
    own_rows: bool,
    (key, token): (&Key<'_>, Option<FillToken>),
    form: &mut F,
) -> Answer<F::Output> {
    let (counter, found) = match (route(state, own_rows), token) {
        (Route::L3(reason) | Route::Validated(_, reason), _)
            if sys::isolation_is_serializable() && !own_rows =>
        {
            check_snapshot_is_newest(state)?;
            (reason, from_table(state, form)?)
        }
        // A parallel query takes no snapshot of its own.
        _ if sys::is_in_parallel_mode() => (Counter::Misses, from_table(state, form)?),
        (Route::L3(reason) | Route::Validated(_, reason), _) => {
            (reason, from_l3(state, newest(state)?.stored, form)?)
        }
        // In recovery the state was not read here, see `reads_newest`.
        (Route::Recovery(_), _) | (Route::L1(_), None) => {
            let found = from_l3(state, newest(state)?.stored, form)?;
            (Counter::BypassWriters, found)
        }
        (Route::L1(l1), Some(token)) => {
            let stored = newest(state)?.stored;
            crate::fault::stop_at!(BeforeFill);
            offer(state, l1, key, token, stored.as_ref(), Origin::Primary);
            (Counter::Misses, from_l3(state, stored, form)?)
        }
    };
    Ok((counter, Counter::L3ReadTime, found))
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

/// Whether a clean entry may serve reads: it is known to be the newest version, and not too old by the class's
/// `cache_ttl`.
fn is_fresh(state: &StateRef<'_>, info: &EntryInfo) -> bool {
    let ttl = state.class.cache_ttl;
    info.head_xid != UNPROVEN
        && ttl.is_none_or(|ttl| info.loaded_at.saturating_add(ttl) > sys::statement_timestamp())
}

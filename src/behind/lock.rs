//! The class lock and the state lock: PostgreSQL's own locks, so that waiting for them is seen in `pg_locks`
//! and deadlocks are found.
//!
//! A transaction that changes very many states would fill the server's lock table: from [`MAX_STATES`] on the class
//! lock alone stands for all states of the class. Two transactions of different keys must not wait for each other
//! because of that, so whoever shares the class lock never *waits* for having it alone:
//! - a flush of so many states takes it alone at once ([`lock_for_many`]), when it comes to the first of them, and if
//!   this transaction does not share it already. Until then it holds locks of classes before this one only.
//! - a transaction that has come to so many states little by little takes it alone if nobody else has it just then,
//!   and else goes on with one lock for each state.

use crate::catalog::{self, Catalog, Class};
use crate::error::Result;
use crate::shared;
use crate::user_lock::{self, Kind, Mode, acquire, acquire_if_free, holds};
use pgrx::pg_sys;
use std::cell::Cell;
use std::rc::Rc;

/// States that one transaction locks one by one. The lock table has room for 64 locks per connection, if
/// `max_locks_per_transaction` is at its default, and lends unused room.
const MAX_STATES: usize = 256;

thread_local! {
    /// State locks that this transaction has taken, those released since by a rollback included.
    static STATES: Cell<usize> = const { Cell::new(0) };
}

/// Takes the locks under which a flush decides what becomes of a state, if its class is a `behind` class;
/// the class as it is then.
pub fn lock(catalog: &Rc<Catalog>, class: Rc<Class>, key: &[u8]) -> Result<Rc<Class>> {
    // Without L1 nothing is ever deferred.
    if !class.behind || shared::l1().is_none() {
        return Ok(class);
    }
    let of_class = tag(catalog, &class.name, &[], Kind::Class);
    if !holds(&of_class, Mode::Alone) {
        acquire(&of_class, Mode::Shared);
    }
    // Whoever has redefined the class meanwhile did so under the exclusive lock. That this transaction has the lock
    // alone says nothing about the class: it may have waited for it, after `class` was read.
    catalog::require_same(catalog)?;
    let class = catalog.class(&class.name)?;
    if class.behind && !holds(&of_class, Mode::Alone) {
        lock_state(catalog, &class.name, key);
    }
    Ok(class)
}

/// Takes the lock of a state, or the class lock alone if that is to be had and the states are many.
fn lock_state(catalog: &Catalog, class: &[u8], key: &[u8]) {
    let of_state = tag(catalog, class, key, Kind::State);
    if holds(&of_state, Mode::Alone) || crate::fault::leaves_out!(StateLock) {
        return;
    }
    let is_many = STATES.get() >= MAX_STATES;
    if is_many && acquire_if_free(&tag(catalog, class, &[], Kind::Class), Mode::Alone) {
        return;
    }
    STATES.set(STATES.get() + 1);
    acquire(&of_state, Mode::Alone);
}

/// Before a flush or a commit locks the first of `states` states of a class: takes the class lock alone if they are
/// many. Not while this transaction shares it: two that do would wait for each other.
pub fn lock_for_many(catalog: &Catalog, class: &[u8], states: usize) -> Result<()> {
    let of_class = tag(catalog, class, &[], Kind::Class);
    let holds = |mode| holds(&of_class, mode);
    if states <= MAX_STATES || holds(Mode::Shared) || holds(Mode::Alone) {
        return Ok(());
    }
    if catalog::renewed(catalog)?.class_or_default(class)?.behind {
        acquire(&of_class, Mode::Alone);
    }
    Ok(())
}

/// Whether so many states of a class call for the class lock alone.
pub fn is_many(states: usize) -> bool {
    states > MAX_STATES
}

/// Waits until nobody changes a state of the class, and keeps others from beginning.
pub fn lock_class(catalog: &Catalog, class: &[u8]) {
    acquire(&tag(catalog, class, &[], Kind::Class), Mode::Alone);
}

/// The transaction has ended.
pub fn forget() {
    STATES.set(0);
}

/// The tag of a lock.
fn tag(catalog: &Catalog, class: &[u8], key: &[u8], kind: Kind) -> pg_sys::LOCKTAG {
    let key = shared::key(catalog.database, catalog.incarnation, class, key);
    user_lock::tag(catalog.database, key.id.0, kind)
}

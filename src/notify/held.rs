//! The worker that a transaction counts on: it stays until the transaction's changes are in the ring.

use crate::shared::Database;
use std::cell::Cell;

thread_local! {
    static HELD: Cell<Option<&'static Database>> = const { Cell::new(None) };
}

/// Has the worker of the database take what this transaction tells, if a worker is there that does; whether it does.
pub fn take(database: &'static Database) -> bool {
    let may = database.begin_handing_over();
    if may && let Some(before) = HELD.replace(Some(database)) {
        before.end_handing_over();
    }
    may
}

/// Holds the worker to which the transaction has left changes before.
pub fn hold(database: &'static Database) {
    if HELD.get().is_none() {
        database.hold_worker();
        HELD.set(Some(database));
    }
}

/// The transaction has ended: lets the worker go. Allocates nothing.
pub fn release() {
    if let Some(database) = HELD.take() {
        database.end_handing_over();
    }
}

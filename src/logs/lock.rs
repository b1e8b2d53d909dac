//! The lock of a log, held until the transaction has ended: it puts numbers into the order of commits.
//!
//! As with the locks of states (`behind`), a transaction that appends to very many logs would fill the server's lock
//! table. So whoever appends shares the lock of all logs of the class. From [`MAX_LOGS`] on a transaction takes that
//! lock alone if nobody else has it just then, and else goes on with one lock for each log. Nobody who shares it
//! *waits* for having it alone, so no two appenders wait for each other because of it.

use crate::cache::StateRef;
use crate::catalog::Catalog;
use crate::shared;
use crate::user_lock::{self, Kind, Mode};
use pgrx::pg_sys;
use std::cell::Cell;

/// Logs that one transaction locks one by one: as many as states.
const MAX_LOGS: usize = 256;

thread_local! {
    /// When the transaction began that counts, and how many logs it has locked, those released since by a rollback
    /// included. Two transactions of one backend do not begin in the same microsecond.
    static LOGS: Cell<(i64, usize)> = const { Cell::new((0, 0)) };
}

/// Locks the log of a state for the rest of the transaction, and waits for whoever has it.
pub fn lock(state: &StateRef<'_>) {
    let (catalog, class) = (&state.catalog, &state.class.name);
    let of_class = tag(catalog, class, &[], Kind::ClassLogs);
    if user_lock::holds(&of_class, Mode::Alone) {
        return;
    }
    user_lock::acquire(&of_class, Mode::Shared);
    let of_log = tag(catalog, class, state.key, Kind::Log);
    if user_lock::holds(&of_log, Mode::Alone) {
        return;
    }
    // SAFETY: reads what this transaction has noted at its start.
    let now = unsafe { pg_sys::GetCurrentTransactionStartTimestamp() };
    let locked = match LOGS.get() {
        (began, locked) if began == now => locked,
        _ => 0,
    };
    if locked >= MAX_LOGS && user_lock::acquire_if_free(&of_class, Mode::Alone) {
        return;
    }
    LOGS.set((now, locked + 1));
    user_lock::acquire(&of_log, Mode::Alone);
}

/// Locks the log of a state for the rest of the transaction if nobody has it; whether that was so. For the worker,
/// which waits for nobody, and locks a bounded number at a time.
pub fn lock_if_free(catalog: &Catalog, class: &[u8], key: &[u8]) -> bool {
    user_lock::acquire_if_free(&tag(catalog, class, &[], Kind::ClassLogs), Mode::Shared)
        && user_lock::acquire_if_free(&tag(catalog, class, key, Kind::Log), Mode::Alone)
}

fn tag(catalog: &Catalog, class: &[u8], key: &[u8], kind: Kind) -> pg_sys::LOCKTAG {
    let key = shared::key(catalog.database, catalog.incarnation, class, key);
    user_lock::tag(catalog.database, key.id.0, kind)
}

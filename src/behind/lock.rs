//! The class lock and the state lock: PostgreSQL's own locks, so that waiting for them is seen in `pg_locks`
//! and deadlocks are found.
//!
//! A transaction that changes very many states would fill the server's lock table: from [`MAX_STATES`] on it
//! takes the class lock alone, which stands for all states of the class.

use crate::catalog::{self, Catalog, Class};
use crate::error::Result;
use crate::shared;
use pgrx::pg_sys;
use std::cell::Cell;
use std::rc::Rc;

/// Third part of the tags, beside 1 and 2 of the advisory locks that users take.
const CLASS: u16 = 3;
const STATE: u16 = 4;

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
    // Without L1 nothing is ever left to a worker.
    if !class.behind || shared::l1().is_none() || is_class_locked(catalog, &class.name) {
        return Ok(class);
    }
    acquire(&tag(catalog, &class.name, &[], CLASS), pg_sys::ShareLock);
    // Whoever has redefined the class meanwhile did so under the exclusive lock.
    let class = catalog::renewed(catalog)?.class(&class.name)?;
    if class.behind {
        if STATES.get() >= MAX_STATES {
            lock_class(catalog, &class.name);
        } else {
            STATES.set(STATES.get() + 1);
            if !crate::fault::leaves_out!(StateLock) {
                acquire(
                    &tag(catalog, &class.name, key, STATE),
                    pg_sys::ExclusiveLock,
                );
            }
        }
    }
    Ok(class)
}

/// Before a flush locks `states` states of a class: takes the class lock at once if they are many, since
/// two transactions that share it cannot both have it alone later.
pub fn lock_for_many(catalog: &Catalog, class: &[u8], states: usize) {
    if states > MAX_STATES {
        lock_class(catalog, class);
    }
}

/// Waits until nobody changes a state of the class, and keeps others from beginning.
pub fn lock_class(catalog: &Catalog, class: &[u8]) {
    acquire(&tag(catalog, class, &[], CLASS), pg_sys::ExclusiveLock);
}

/// The transaction has ended.
pub fn forget() {
    STATES.set(0);
}

fn is_class_locked(catalog: &Catalog, class: &[u8]) -> bool {
    let tag = tag(catalog, class, &[], CLASS);
    let mode = pg_sys::ExclusiveLock as i32;
    // SAFETY: looks at the locks of this process.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        return pg_sys::LockHeldByMe(&tag, mode);
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        pg_sys::LockHeldByMe(&tag, mode, false)
    }
}

/// Two states whose hashes share 64 bits share a lock, which costs no more than a wait.
fn tag(catalog: &Catalog, class: &[u8], key: &[u8], kind: u16) -> pg_sys::LOCKTAG {
    let id = shared::key(catalog.database, catalog.incarnation, class, key)
        .id
        .0;
    pg_sys::LOCKTAG {
        locktag_field1: catalog.database,
        locktag_field2: id as u32,
        locktag_field3: (id >> 32) as u32,
        locktag_field4: kind,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

fn acquire(tag: &pg_sys::LOCKTAG, mode: u32) {
    // SAFETY: a lock of this transaction, released when it ends or its subtransaction aborts.
    unsafe { pg_sys::LockAcquire(tag, mode as i32, false, false) };
}

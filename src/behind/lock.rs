//! The class lock and the state lock: PostgreSQL's own locks, so that waiting for them is seen in `pg_locks`
//! and deadlocks are found.

use crate::catalog::{self, Catalog, Class};
use crate::error::Result;
use crate::shared;
use pgrx::pg_sys;
use std::rc::Rc;

/// Third part of the tags, beside 1 and 2 of the advisory locks that users take.
const CLASS: u16 = 3;
const STATE: u16 = 4;

/// Takes the locks under which a flush decides what becomes of a state, if its class is a `behind` class;
/// the class as it is then.
pub fn lock(catalog: &Rc<Catalog>, class: Rc<Class>, key: &[u8]) -> Result<Rc<Class>> {
    if !class.behind {
        return Ok(class);
    }
    acquire(tag(catalog, &class.name, &[], CLASS), pg_sys::ShareLock);
    // Whoever has redefined the class meanwhile did so under the exclusive lock.
    let class = catalog::renewed(catalog)?.class(&class.name)?;
    if class.behind {
        acquire(tag(catalog, &class.name, key, STATE), pg_sys::ExclusiveLock);
    }
    Ok(class)
}

/// Waits until nobody changes a state of the class, and keeps others from beginning.
pub fn lock_class(catalog: &Catalog, class: &[u8]) {
    acquire(tag(catalog, class, &[], CLASS), pg_sys::ExclusiveLock);
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

fn acquire(tag: pg_sys::LOCKTAG, mode: u32) {
    // SAFETY: a lock of this transaction, released when it ends or its subtransaction aborts.
    unsafe { pg_sys::LockAcquire(&tag, mode as i32, false, false) };
}

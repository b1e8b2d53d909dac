//! What goes when the transaction that drops it has committed: L1's entries and the slot of a
//! database, and the worker of an extension.
//!
//! Not before: what a database's classes in `behind` mode hold is in L1 only, and the drop may fail. And not
//! later: a dropped database's number may come back (CREATE DATABASE … OID).

use super::block::{databases, free_slot, l1};
use crate::callback::shielded;
use crate::sys;
use pgrx::pg_sys::{self, XactEvent};
use std::cell::Cell;

/// What the running transaction drops.
#[derive(Clone, Copy, Default)]
struct Dropped {
    /// A database, 0 for none. DROP DATABASE cannot run in a transaction block, so there is only one.
    database: u32,
    /// Some extension of this database.
    extension: bool,
}

thread_local! {
    static DROPPED: Cell<Dropped> = const {
        Cell::new(Dropped {
            database: 0,
            extension: false,
        })
    };
}

static mut PREVIOUS: pg_sys::object_access_hook_type = None;

/// Installs the hook and the callback, if the library is being preloaded.
pub fn init() {
    // SAFETY: `_PG_init` runs alone; the hook is chained as every extension does.
    unsafe {
        if pg_sys::process_shared_preload_libraries_in_progress {
            PREVIOUS = pg_sys::object_access_hook;
            pg_sys::object_access_hook = Some(object_access);
            pg_sys::RegisterXactCallback(Some(transaction), std::ptr::null_mut());
        }
    }
}

unsafe extern "C-unwind" fn object_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    sub_object: i32,
    arg: *mut std::ffi::c_void,
) {
    // SAFETY: passes on what it was given.
    unsafe {
        if let Some(previous) = PREVIOUS {
            previous(access, class, object, sub_object, arg);
        }
    }
    if access != pg_sys::ObjectAccessType::OAT_DROP {
        return;
    }
    let mut dropped = DROPPED.get();
    if class == pg_sys::DatabaseRelationId {
        dropped.database = object.to_u32();
    } else if class == pg_sys::ExtensionRelationId {
        dropped.extension = true;
    }
    DROPPED.set(dropped);
}

unsafe extern "C-unwind" fn transaction(event: XactEvent::Type, _: *mut std::ffi::c_void) {
    match event {
        XactEvent::XACT_EVENT_COMMIT => {
            shielded(|| give_back(DROPPED.take()));
        }
        XactEvent::XACT_EVENT_ABORT | XactEvent::XACT_EVENT_PREPARE => drop(DROPPED.take()),
        _ => {}
    }
}

fn give_back(dropped: Dropped) {
    if dropped.database != 0
        && let Some(l1) = l1()
    {
        l1.remove_database(dropped.database);
        free_slot(dropped.database);
    }
    if dropped.extension
        && let Some(mine) = databases().and_then(|all| all.find(sys::my_database()))
    {
        mine.recheck();
    }
}

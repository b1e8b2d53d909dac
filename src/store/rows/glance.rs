//! A look at a head row under one guard.
//!
//! A validated read is little else than this look, which is some fifteen calls of the server. The bindings put a
//! guard around each call, which catches the jump of an error; many of these functions take less time than their
//! guard.
//!
//! # Contract
//!
//! - The row is read as [`super::table::Table`] reads it: under the same locks, through the same index, under the
//!   active snapshot, and with the predicate locks of SERIALIZABLE, which the access methods take. Where a session
//!   has found the row before, the session looks there first ([`super::places`]).
//! - Within the guard nothing has a destructor, nothing panics, and Rust allocates nothing, so an error of the server
//!   may jump over all of it. The server closes what is open then when it aborts the (sub)transaction.
//! - The caller has seen that the current role may read rows without a statement. Whoever held a lock until now may
//!   have changed that: if anything has arrived with the locks that the session does not know, nothing is read, and
//!   the caller looks in another way.

use super::access::Slot;
use super::columns::head;
use super::places::{self, Place};
use super::table::FORWARD;
use crate::sys::{self, unguarded};
use crate::{catalog, varlena};
use pgrx::pg_sys;
use pgrx::pg_sys::submodules::ffi::pg_guard_ffi_boundary as guarded;

/// A head row, but for the document that it may hold.
pub struct StoredHead {
    /// The current version.
    pub version: i64,
    /// Whether that is a tombstone.
    pub deleted: bool,
    /// When it expires, `i64::MAX` for never.
    pub expires_at: i64,
    /// The transaction that wrote the row.
    pub xid: pg_sys::TransactionId,
    /// Hash of the document, `None` where there is none.
    pub hash: Option<u128>,
}

/// As a statement that reads.
const LOCK: i32 = pg_sys::AccessShareLock as i32;
/// For a relation that is locked already; who closes it so leaves the lock to the transaction.
const NO_LOCK: i32 = pg_sys::NoLock as i32;

/// What a look has shown.
struct Look {
    /// The row, `Some(None)` without one; `None` where it must be looked for otherwise.
    head: Option<Option<StoredHead>>,
    /// Where the index has led to it.
    place: Option<Place>,
}

/// Nothing was read.
const NOTHING: Look = Look {
    head: None,
    place: None,
};

/// The head row of a state with this hash in this table, `Some(None)` without one; `None` where it must be looked for
/// otherwise. Raises the server's errors.
pub fn at_head(
    table: pg_sys::Oid,
    state: u64,
    class: &[u8],
    key: &[u8],
) -> Option<Option<StoredHead>> {
    let place = places::known(state);
    // SAFETY: the header of this file.
    let look = unsafe { guarded(|| look(table, place, [class, key])) };
    if let Some(place) = look.place {
        places::remember(state, place);
    }
    look.head
}

/// # Safety
/// A guard stands around the call.
unsafe fn look(table: pg_sys::Oid, place: Option<Place>, names: [&[u8]; 2]) -> Look {
    // SAFETY: opened and closed in pairs.
    unsafe {
        // A table that is gone by now has made the session's knowledge stale: the server need not be asked.
        unguarded::LockRelationOid(table, LOCK);
        if catalog::is_stale() {
            return NOTHING;
        }
        let table = unguarded::table_open(table, NO_LOCK);
        let found = match place {
            Some(place) => place.look(table, names, head_of),
            None => None,
        };
        let look = match found {
            Some(head) => Look {
                head: Some(Some(head)),
                place: None,
            },
            None => by_index(table, names),
        };
        unguarded::table_close(table, NO_LOCK);
        look
    }
}

/// # Safety
/// The table is open, and a guard stands around the call.
unsafe fn by_index(table: pg_sys::Relation, names: [&[u8]; 2]) -> Look {
    // SAFETY: the caller's promise; the index is opened and closed.
    unsafe {
        let index = primary_key(table);
        if index == pg_sys::InvalidOid {
            return NOTHING;
        }
        let index = unguarded::index_open(index, LOCK);
        let look = match catalog::is_stale() {
            true => NOTHING,
            false => first_row(table, index, names),
        };
        unguarded::index_close(index, NO_LOCK);
        look
    }
}

/// # Safety
/// The table is open, and a guard stands around the call.
unsafe fn primary_key(table: pg_sys::Relation) -> pg_sys::Oid {
    #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
    // SAFETY: the caller's promise.
    unsafe {
        unguarded::RelationGetPrimaryKeyIndex(table)
    }
    #[cfg(not(any(feature = "pg15", feature = "pg16", feature = "pg17")))]
    // SAFETY: the caller's promise. A deferrable key may hold duplicates, so it is no key to scan by.
    unsafe {
        unguarded::RelationGetPrimaryKeyIndex(table, false)
    }
}

/// The row of these names; nothing if its hash is not stored as it is.
///
/// # Safety
/// Both are open, the index is that of class and key, and a guard stands around the call.
unsafe fn first_row(table: pg_sys::Relation, index: pg_sys::Relation, names: [&[u8]; 2]) -> Look {
    let mut keys = [
        pg_sys::ScanKeyData::default(),
        pg_sys::ScanKeyData::default(),
    ];
    let no_keys = std::ptr::null_mut();
    // SAFETY: the caller's promise; the names outlive the scan, and the active snapshot does.
    unsafe {
        let mut column = 0;
        for (scan_key, name) in keys.iter_mut().zip(names) {
            column += 1;
            let equal = pg_sys::BTEqualStrategyNumber as u16;
            let function = pg_sys::F_TEXTEQ.into();
            unguarded::ScanKeyInit(scan_key, column, equal, function, text(name));
            scan_key.sk_collation = *(*index).rd_indcollation.add(column as usize - 1);
        }
        let scan = begin_scan(table, index);
        let slot = unguarded::table_slot_create(table, std::ptr::null_mut());
        unguarded::index_rescan(scan, keys.as_mut_ptr(), 2, no_keys, 0);
        // As `index_getnext_slot` goes on, which does not say where the index led to.
        let look = loop {
            let line = unguarded::index_getnext_tid(scan, FORWARD);
            if line.is_null() {
                break Look {
                    head: Some(None),
                    place: None,
                };
            }
            let line = *line;
            if unguarded::index_fetch_heap(scan, slot) {
                break Look {
                    head: head_of(slot).map(Some),
                    place: Place::of(table, line, slot),
                };
            }
        };
        unguarded::ExecDropSingleTupleTableSlot(slot);
        unguarded::index_endscan(scan);
        for scan_key in keys {
            unguarded::pfree(scan_key.sk_argument.cast_mut_ptr());
        }
        look
    }
}

/// # Safety
/// Both are open, and a guard stands around the call.
unsafe fn begin_scan(table: pg_sys::Relation, index: pg_sys::Relation) -> pg_sys::IndexScanDesc {
    let snapshot = sys::active_snapshot();
    #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
    // SAFETY: the caller's promise.
    unsafe {
        unguarded::index_beginscan(table, index, snapshot, 2, 0)
    }
    #[cfg(not(any(feature = "pg15", feature = "pg16", feature = "pg17")))]
    // SAFETY: the caller's promise.
    unsafe {
        unguarded::index_beginscan(table, index, snapshot, std::ptr::null_mut(), 2, 0)
    }
}

/// A `text` value, to be freed.
///
/// # Safety
/// A guard stands around the call.
unsafe fn text(bytes: &[u8]) -> pg_sys::Datum {
    let total = varlena::VARHDRSZ + bytes.len();
    // SAFETY: palloc gives so many bytes, aligned for the header. Names of classes and keys are far shorter than a
    // header can say.
    unsafe {
        let value = unguarded::palloc(total).cast::<u8>();
        value
            .cast::<u32>()
            .write(varlena::varsize_header(total as u32));
        let room = value.add(varlena::VARHDRSZ);
        room.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        pg_sys::Datum::from(value)
    }
}

/// What the row in the slot says; `None` if its hash is not stored as it is. Columns behind the last one that is
/// wanted are not looked at, the document among them.
///
/// # Safety
/// The slot holds a row of `state_head`, and a guard stands around the call.
unsafe fn head_of(slot: Slot) -> Option<StoredHead> {
    const LAST: usize = head::EXPIRES_AT;
    const _: () = assert!(head::VERSION < LAST && head::HASH < LAST && head::DELETED < LAST);
    let mut is_null = false;
    // SAFETY: the caller's promise; once they are looked at, the slot has values of so many columns.
    unsafe {
        unguarded::slot_getsomeattrs_int(slot, LAST as i32 + 1);
        let (values, nulls) = ((*slot).tts_values, (*slot).tts_isnull);
        let value = |column: usize| (!*nulls.add(column)).then(|| *values.add(column));
        let hash = match value(head::HASH) {
            Some(value) => varlena::plain_bytes(value.cast_mut_ptr())?.try_into().ok(),
            None => None,
        };
        let writer = (*(*slot).tts_ops).getsysattr?;
        let writer = writer(slot, pg_sys::MinTransactionIdAttributeNumber, &mut is_null);
        Some(StoredHead {
            version: value(head::VERSION).map_or(0, |value| value.value() as i64),
            deleted: value(head::DELETED).is_some_and(|value| value.value() & 0xff != 0),
            expires_at: value(head::EXPIRES_AT).map_or(i64::MAX, |value| value.value() as i64),
            xid: pg_sys::TransactionId::from(writer.value() as u32),
            hash: hash.map(u128::from_be_bytes),
        })
    }
}

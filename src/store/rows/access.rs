//! What the server's headers define as inline functions over the access method of a table and the kind of a slot.
//!
//! Each calls what the server has put there, behind a guard, as the bindings call the server's functions: an error
//! becomes a panic, which the border turns into the error again.

use pgrx::pg_sys;
use pgrx::pg_sys::submodules::ffi::pg_guard_ffi_boundary as guarded;

/// Calls what a table's access method has for this.
macro_rules! method {
    ($relation:expr, $name:ident, $($argument:expr),*) => {{
        let relation: pg_sys::Relation = $relation;
        match (*(*relation).rd_tableam).$name {
            Some(method) => guarded(|| method(relation, $($argument),*)),
            // The server itself takes no access method that lacks one of these.
            None => missing(stringify!($name)),
        }
    }};
}

fn missing(name: &str) -> ! {
    crate::error::Error::Internal {
        message: format!("the access method of the table has no {name}"),
    }
    .raise()
}

/// Calls what a slot of this kind has for this.
macro_rules! slot_method {
    ($slot:expr, $name:ident $(, $argument:expr)*) => {{
        let slot: *mut pg_sys::TupleTableSlot = $slot;
        match (*(*slot).tts_ops).$name {
            Some(method) => guarded(|| method(slot $(, $argument)*)),
            None => missing(stringify!($name)),
        }
    }};
}

/// A slot, see `executor/tuptable.h`.
pub type Slot = *mut pg_sys::TupleTableSlot;
/// The place of a row.
pub type Place = pg_sys::ItemPointerData;

/// `ExecClearTuple()`.
///
/// # Safety
/// The slot is one.
pub unsafe fn clear(slot: Slot) {
    // SAFETY: the caller's promise.
    unsafe { slot_method!(slot, clear) }
}

/// `slot_getallattrs()`.
///
/// # Safety
/// The slot holds a row.
pub unsafe fn get_all_columns(slot: Slot) {
    // SAFETY: the caller's promise.
    unsafe {
        let count = (*(*slot).tts_tupleDescriptor).natts;
        if i32::from((*slot).tts_nvalid) < count {
            pg_sys::slot_getsomeattrs_int(slot, count);
        }
    }
}

/// `slot_getsysattr()`, of the transaction that wrote the row.
///
/// # Safety
/// The slot holds a row of a table.
pub unsafe fn writer_of(slot: Slot) -> pg_sys::TransactionId {
    let mut is_null = false;
    let column = pg_sys::MinTransactionIdAttributeNumber;
    // SAFETY: the caller's promise.
    let writer = unsafe { slot_method!(slot, getsysattr, column, &mut is_null) };
    pg_sys::TransactionId::from(writer.value() as u32)
}

/// `table_tuple_insert()`.
///
/// # Safety
/// The table is open and locked, the slot holds a row of it.
pub unsafe fn insert(table: pg_sys::Relation, row: Slot, command: pg_sys::CommandId) {
    // SAFETY: the caller's promise.
    unsafe { method!(table, tuple_insert, row, command, 0, std::ptr::null_mut()) }
}

/// `table_tuple_insert_speculative()`.
///
/// # Safety
/// As for [`insert`]; this transaction holds the lock of the token.
pub unsafe fn insert_speculatively(
    table: pg_sys::Relation,
    row: Slot,
    command: pg_sys::CommandId,
    token: u32,
) {
    let bulk = std::ptr::null_mut();
    // SAFETY: the caller's promise.
    unsafe {
        method!(
            table,
            tuple_insert_speculative,
            row,
            command,
            0,
            bulk,
            token
        )
    }
}

/// `table_tuple_complete_speculative()`.
///
/// # Safety
/// The row was inserted so, with this token.
pub unsafe fn complete(table: pg_sys::Relation, row: Slot, token: u32, stays: bool) {
    // SAFETY: the caller's promise.
    unsafe { method!(table, tuple_complete_speculative, row, token, stays) }
}

/// `table_tuple_update()`: what came of it, how the row is locked, and which indexes want an entry.
///
/// # Safety
/// The table is open and locked, the slot holds a row of it, the snapshot is active.
pub unsafe fn update(
    table: pg_sys::Relation,
    mut place: Place,
    row: Slot,
    command: pg_sys::CommandId,
    snapshot: pg_sys::Snapshot,
) -> (
    pg_sys::TM_Result::Type,
    pg_sys::LockTupleMode::Type,
    Indexed,
) {
    let mut failure = pg_sys::TM_FailureData::default();
    let mut lock = pg_sys::LockTupleMode::LockTupleExclusive;
    let mut indexes = Default::default();
    let no_other = std::ptr::null_mut();
    // SAFETY: the caller's promise.
    let result = unsafe {
        method!(
            table,
            tuple_update,
            &mut place,
            row,
            command,
            snapshot,
            no_other,
            true,
            &mut failure,
            &mut lock,
            &mut indexes
        )
    };
    (result, lock, Indexed::of(indexes))
}

/// Which indexes want an entry of a row that replaces another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indexed {
    None,
    All,
    /// Those that summarize pages.
    #[cfg(not(feature = "pg15"))]
    Summarizing,
}

impl Indexed {
    #[cfg(feature = "pg15")]
    fn of(all: bool) -> Self {
        match all {
            true => Self::All,
            false => Self::None,
        }
    }

    #[cfg(not(feature = "pg15"))]
    fn of(indexes: pg_sys::TU_UpdateIndexes::Type) -> Self {
        match indexes {
            pg_sys::TU_UpdateIndexes::TU_All => Self::All,
            pg_sys::TU_UpdateIndexes::TU_Summarizing => Self::Summarizing,
            _ => Self::None,
        }
    }
}

/// `table_tuple_delete()`.
///
/// # Safety
/// The table is open and locked, the snapshot is active.
pub unsafe fn delete(
    table: pg_sys::Relation,
    mut place: Place,
    command: pg_sys::CommandId,
    snapshot: pg_sys::Snapshot,
) -> pg_sys::TM_Result::Type {
    let mut failure = pg_sys::TM_FailureData::default();
    let no_other = std::ptr::null_mut();
    // SAFETY: the caller's promise.
    unsafe {
        method!(
            table,
            tuple_delete,
            &mut place,
            command,
            snapshot,
            no_other,
            true,
            &mut failure,
            false
        )
    }
}

/// `table_tuple_lock()`, of the newest version of a row, which goes into the slot.
///
/// # Safety
/// The table is open and locked, the slot is one for it, the snapshot is active.
pub unsafe fn lock_newest(
    table: pg_sys::Relation,
    mut place: Place,
    snapshot: pg_sys::Snapshot,
    into: Slot,
    command: pg_sys::CommandId,
    lock: pg_sys::LockTupleMode::Type,
) -> pg_sys::TM_Result::Type {
    let mut failure = pg_sys::TM_FailureData::default();
    let wait = pg_sys::LockWaitPolicy::LockWaitBlock;
    let flags = pg_sys::TUPLE_LOCK_FLAG_FIND_LAST_VERSION as u8;
    // SAFETY: the caller's promise.
    unsafe {
        method!(
            table,
            tuple_lock,
            &mut place,
            snapshot,
            into,
            command,
            lock,
            wait,
            flags,
            &mut failure
        )
    }
}

/// Whether a snapshot sees the row at this place, and who has written it; `None` if there is none.
///
/// # Safety
/// The table is open and locked, the slot is one for it, the snapshot is active.
pub unsafe fn is_seen(
    table: pg_sys::Relation,
    mut place: Place,
    snapshot: pg_sys::Snapshot,
    into: Slot,
) -> Option<(bool, pg_sys::TransactionId)> {
    // SAFETY: the caller's promise.
    unsafe {
        let any = &raw mut pg_sys::SnapshotAnyData;
        if !method!(table, tuple_fetch_row_version, &mut place, any, into) {
            return None;
        }
        let is_seen = method!(table, tuple_satisfies_snapshot, into, snapshot);
        let writer = writer_of(into);
        clear(into);
        Some((is_seen, writer))
    }
}

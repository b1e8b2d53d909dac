//! Where head rows were found last: a look at the same row needs no index.
//!
//! # Contract
//!
//! - A place is a hint. It names a line of a page, where the index led to, and the buffer that held the page. The
//!   row there is taken only if the buffer still holds the page, the row's class and key are those that are asked
//!   for, and the snapshot sees the row: a snapshot sees one row of a state, so that is the row the index would lead
//!   to. Whatever others do to the row, its page, its line or its buffer, the place then shows that row or nothing.
//!   A table that is rewritten has another file, and no buffer holds a page beyond the end of a file that was cut.
//! - Nothing found there says nothing: the index is asked, and says where the row is now. So no place is ever taken
//!   back, and who finds no memory for places does without.
//! - Under SERIALIZABLE the index is asked always, for the predicate lock on its page.
//! - Places are known for tables of the server's own access method, `heap`, alone.

use super::access::Slot;
use super::columns::head;
use crate::sys::{self, unguarded};
use crate::varlena;
use pgrx::pg_sys;
use std::cell::RefCell;

/// How many places a session knows: 32 KB of them, since more would not stay in a processor's cache.
const PLACES: usize = 1024;

/// Where a row was found.
#[derive(Clone, Copy)]
pub struct Place {
    block: u32,
    /// Where the index led to: updates that need no new entry of an index begin there.
    line: u16,
    buffer: pg_sys::Buffer,
}

thread_local! {
    /// Each at the lower bits of its state's hash, with all of the hash.
    static PLACES_KNOWN: RefCell<Vec<(u64, Option<Place>)>> = const { RefCell::new(Vec::new()) };
}

/// Where the head row of the state with this hash was found last.
pub fn known(state: u64) -> Option<Place> {
    if sys::isolation_is_serializable() {
        return None;
    }
    PLACES_KNOWN.with_borrow(|places| match places.get(slot_of(state)) {
        Some(&(of, place)) if of == state => place,
        _ => None,
    })
}

/// The head row of the state with this hash was found there.
pub fn remember(state: u64, place: Place) {
    PLACES_KNOWN.with_borrow_mut(|places| {
        if places.is_empty() && places.try_reserve_exact(PLACES).is_ok() {
            places.resize(PLACES, (0, None));
        }
        if let Some(known) = places.get_mut(slot_of(state)) {
            *known = (state, Some(place));
        }
    });
}

fn slot_of(state: u64) -> usize {
    state as usize % PLACES
}

impl Place {
    /// Where the index led, `line`, for the row in the slot; `None` if the table is not of the server's own access
    /// method.
    ///
    /// # Safety
    /// The table is open, the slot holds a row of it that was fetched from there, and a guard stands around the call.
    pub unsafe fn of(
        table: pg_sys::Relation,
        line: pg_sys::ItemPointerData,
        slot: Slot,
    ) -> Option<Self> {
        // SAFETY: the caller's promise; slots of that access method are of the type that holds a buffer.
        unsafe {
            if (*table).rd_tableam != unguarded::GetHeapamTableAmRoutine() {
                return None;
            }
            let slot = slot.cast::<pg_sys::BufferHeapTupleTableSlot>();
            Some(Self {
                block: u32::from(line.ip_blkid.bi_hi) << 16 | u32::from(line.ip_blkid.bi_lo),
                line: line.ip_posid,
                buffer: (*slot).buffer,
            })
        }
    }

    /// What `of` makes of the row there, if it is that of these names and the active snapshot sees it.
    ///
    /// # Safety
    /// The table is `state_head`, open, and a guard stands around the call.
    pub unsafe fn look<T>(
        self,
        table: pg_sys::Relation,
        names: [&[u8]; 2],
        of: unsafe fn(Slot) -> Option<T>,
    ) -> Option<T> {
        let main = pg_sys::ForkNumber::MAIN_FORKNUM;
        // SAFETY: the caller's promise. The buffer is pinned from the first call to the last one, so the row stays
        // where the slot has it; a row that is visible is not changed in place but for what says who deleted it.
        unsafe {
            if !unguarded::ReadRecentBuffer(file_of(table), main, self.block, self.buffer) {
                return None;
            }
            let mut line = pg_sys::ItemPointerData {
                ip_blkid: pg_sys::BlockIdData {
                    bi_hi: (self.block >> 16) as u16,
                    bi_lo: self.block as u16,
                },
                ip_posid: self.line,
            };
            let mut row = pg_sys::HeapTupleData::default();
            let (snapshot, dead) = (sys::active_snapshot(), std::ptr::null_mut());
            unguarded::LockBuffer(self.buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let is_seen = unguarded::heap_hot_search_buffer(
                &mut line,
                table,
                self.buffer,
                snapshot,
                &mut row,
                dead,
                true,
            );
            unguarded::LockBuffer(self.buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32);
            let mut found = None;
            if is_seen {
                let slot = unguarded::MakeSingleTupleTableSlot(
                    (*table).rd_att,
                    &raw const pg_sys::TTSOpsHeapTuple,
                );
                unguarded::ExecStoreHeapTuple(&mut row, slot, false);
                if is_of(slot, names) {
                    found = of(slot);
                }
                unguarded::ExecDropSingleTupleTableSlot(slot);
            }
            unguarded::ReleaseBuffer(self.buffer);
            found
        }
    }
}

/// Whether the row in the slot is of this class and key.
///
/// # Safety
/// The slot holds a row of `state_head`, and a guard stands around the call.
unsafe fn is_of(slot: Slot, names: [&[u8]; 2]) -> bool {
    const _: () = assert!(head::CLASS == 0 && head::KEY == 1);
    // SAFETY: the caller's promise; both columns are text and never null.
    unsafe {
        unguarded::slot_getsomeattrs_int(slot, names.len() as i32);
        let is_same = |(column, name): (usize, &[u8])| {
            let value = *(*slot).tts_values.add(column);
            !*(*slot).tts_isnull.add(column)
                && varlena::plain_bytes(value.cast_mut_ptr()) == Some(name)
        };
        names.into_iter().enumerate().all(is_same)
    }
}

#[cfg(not(feature = "pg15"))]
use pg_sys::RelFileLocator as File;
#[cfg(feature = "pg15")]
use pg_sys::RelFileNode as File;

/// # Safety
/// The table is open.
unsafe fn file_of(table: pg_sys::Relation) -> File {
    #[cfg(feature = "pg15")]
    // SAFETY: the caller's promise.
    unsafe {
        (*table).rd_node
    }
    #[cfg(not(feature = "pg15"))]
    // SAFETY: the caller's promise.
    unsafe {
        (*table).rd_locator
    }
}

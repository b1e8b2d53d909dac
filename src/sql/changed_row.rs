//! A row that was changed by hand: what of it counts, and what it may not break.

use crate::cache::MAX_KEY;
use crate::name::StateName;
use crate::varlena;
use pgrx::pg_sys;

/// The highest version that a row made by hand may have: there must be versions after it.
const MAX_VERSION: i64 = 1 << 62;

/// Bytes of a hash.
const HASH: usize = 16;

/// A row of either table; the numbers of the columns are those of the installation script.
pub struct Row {
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl Row {
    /// # Safety
    /// The tuple is a row of one of the tables and outlives the value.
    pub unsafe fn new(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Self {
        // SAFETY: there is room for as many columns as the descriptor says.
        unsafe {
            let columns = (*descriptor).natts as usize;
            let mut row = Self {
                values: vec![pg_sys::Datum::from(0usize); columns],
                nulls: vec![true; columns],
            };
            pg_sys::heap_deform_tuple(
                tuple,
                descriptor,
                row.values.as_mut_ptr(),
                row.nulls.as_mut_ptr(),
            );
            row
        }
    }

    /// Whether a column is NULL; one that is not there is.
    pub fn is_null(&self, column: usize) -> bool {
        self.nulls.get(column).copied().unwrap_or(true)
    }

    /// A column of a variable-length type; empty for NULL.
    pub fn bytes(&self, column: usize) -> &[u8] {
        if self.is_null(column) {
            return &[];
        }
        // SAFETY: the caller names a column of such a type.
        unsafe { varlena::detoasted_bytes(self.values[column].cast_mut_ptr()) }
    }

    /// An integer column, 0 for NULL.
    pub fn integer(&self, column: usize) -> i64 {
        if self.is_null(column) {
            0
        } else {
            self.values[column].value() as i64
        }
    }

    /// Class and key, the first two columns of both tables.
    pub fn name(&self) -> StateName {
        (self.bytes(0).into(), self.bytes(1).into())
    }

    /// Whether two snapshots are of the same version and hold the same document and payload in the same form,
    /// whatever the hash is said to be.
    pub fn holds_as(&self, other: &Self) -> bool {
        self.name() == other.name()
            && self.integer(2) == other.integer(2)
            && [11, 12, 14]
                .into_iter()
                .all(|n| self.is_null(n) == other.is_null(n) && self.bytes(n) == other.bytes(n))
    }

    /// Whether a snapshot is stored as the difference from another version.
    pub fn is_dependent(&self) -> bool {
        let is_delta = |column| self.bytes(column).first() == Some(&state_cache_delta::DELTA);
        self.is_null(11) && is_delta(12) || is_delta(14)
    }

    /// Whether a snapshot is a recovery point.
    pub fn is_recovery_point(&self) -> bool {
        !self.is_null(6) && self.values[6].value() & 0xff != 0
    }

    /// What a row of `state_head` (class, key, version, hash, size, …) breaks.
    pub fn head_fault(&self) -> Option<&'static str> {
        let faults = [
            (
                !(1..=MAX_KEY).contains(&self.bytes(1).len()),
                "key of state_head must have 1 to 1000 bytes",
            ),
            (
                !(1..=MAX_VERSION).contains(&self.integer(2)),
                "version of state_head must be above 0 and at most 2^62",
            ),
            (
                !self.is_null(3) && self.bytes(3).len() != HASH,
                "hash of state_head must have 16 bytes",
            ),
            (
                (self.integer(4) as i32) < 0,
                "size of state_head must not be negative",
            ),
        ];
        faults
            .into_iter()
            .find_map(|(broken, fault)| broken.then_some(fault))
    }

    /// What a row of `state_snapshot` (class, key, version, parent_version, hash, …, state, delta) breaks.
    pub fn snapshot_fault(&self) -> Option<&'static str> {
        let faults = [
            (
                !(1..=MAX_KEY).contains(&self.bytes(1).len()),
                "key of state_snapshot must have 1 to 1000 bytes",
            ),
            (
                !(1..=MAX_VERSION).contains(&self.integer(2)),
                "version of state_snapshot must be above 0 and at most 2^62",
            ),
            (
                self.bytes(4).len() != HASH,
                "hash of state_snapshot must have 16 bytes",
            ),
            (
                self.is_null(11) && self.is_null(12),
                "state_snapshot must hold state or delta",
            ),
        ];
        faults
            .into_iter()
            .find_map(|(broken, fault)| broken.then_some(fault))
    }
}

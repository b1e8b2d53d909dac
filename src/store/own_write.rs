//! Tells the extension's own writes from changes made by hand.
//!
//! The row triggers on the tables ask [`is_by_hand`] in their WHEN clause. It is false only while a
//! statement of ours runs, and only for that statement itself: what a user's trigger does to the tables
//! from within our statement runs one trigger level deeper and is by hand.

use pgrx::pg_sys;
use std::cell::Cell;

thread_local! {
    /// Trigger depth at which our statement runs, if one does.
    static OWN: Cell<Option<i32>> = const { Cell::new(None) };
}

/// Whether a statement was not issued by the extension, asked while the statement itself runs (in a WHEN
/// clause).
pub fn is_by_hand() -> bool {
    OWN.get().is_none_or(|depth| trigger_depth() != depth)
}

/// The same, asked by a trigger function that the statement has called.
pub fn is_caller_by_hand() -> bool {
    OWN.get().is_none_or(|depth| trigger_depth() != depth + 1)
}

fn trigger_depth() -> i32 {
    // SAFETY: the function takes no arguments and reads a counter; it does not look at its call frame.
    unsafe { pg_sys::pg_trigger_depth(std::ptr::null_mut()) }.value() as i32
}

/// While it lives, what this backend executes is our own write.
pub struct OwnWrite {
    outer: Option<i32>,
    read_only: bool,
}

impl OwnWrite {
    /// From here on. A transaction may have become read-only after it staged its changes; to the tables
    /// of a database that would not matter either.
    pub fn begin() -> Self {
        // SAFETY: a plain global of this process, put back by `drop`.
        let read_only = unsafe { (&raw mut pg_sys::XactReadOnly).replace(false) };
        Self {
            outer: OWN.replace(Some(trigger_depth())),
            read_only,
        }
    }
}

impl Drop for OwnWrite {
    fn drop(&mut self) {
        OWN.set(self.outer);
        // SAFETY: as in `begin`.
        unsafe { pg_sys::XactReadOnly = self.read_only };
    }
}

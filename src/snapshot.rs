//! Snapshots pushed for a piece of work.

use pgrx::pg_sys;

/// A snapshot pushed as the active one for as long as the value lives.
pub struct PushedSnapshot(());

impl PushedSnapshot {
    /// The snapshot that the next statement of this transaction would run under.
    pub fn transaction() -> Self {
        // SAFETY: we are inside a transaction; the snapshot is copied by the push.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        Self(())
    }

    /// A snapshot taken now, whatever the isolation level.
    pub fn latest() -> Self {
        // SAFETY: as above.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
        Self(())
    }
}

impl Drop for PushedSnapshot {
    fn drop(&mut self) {
        // On an error the server drops its snapshots when it aborts the (sub)transaction.
        if !std::thread::panicking() {
            // SAFETY: pushed by us; values nest like the stack of snapshots.
            unsafe { pg_sys::PopActiveSnapshot() };
        }
    }
}

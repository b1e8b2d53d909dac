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

    /// A snapshot taken now that sees of this transaction only what came before a command. What that command has
    /// deleted or replaced is there yet; what others have deleted and committed is not.
    pub fn latest_before(command: pg_sys::CommandId) -> Self {
        let pushed = Self::latest();
        // SAFETY: the active snapshot is the copy that was pushed just now, which nobody else refers to.
        unsafe { (*crate::sys::active_snapshot()).curcid = command };
        pushed
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

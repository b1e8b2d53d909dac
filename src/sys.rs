//! Every hand-declared extern, and what the server's headers define as macros over its globals.

use pgrx::pg_sys;

/// Functions of the server under their own names.
mod server {
    #![allow(non_snake_case)]
    use pgrx::pg_sys;
    use std::ffi::c_char;

    // Leaf functions that every read calls and that raise no errors. The bindings guard each call against
    // an error's longjmp, which would cost more than the functions do.
    unsafe extern "C-unwind" {
        /// `miscadmin.h`: the role whose privileges count now.
        pub fn GetUserId() -> pg_sys::Oid;
        /// `utils/snapmgr.h`: the top of the stack of active snapshots.
        pub fn GetActiveSnapshot() -> pg_sys::Snapshot;
        /// `access/xact.h`: when the client's statement began.
        pub fn GetCurrentStatementStartTimestamp() -> pg_sys::TimestampTz;
        /// `access/xlog.h`: whether this server is a standby or still recovering.
        pub fn RecoveryInProgress() -> bool;
        /// `storage/lwlock.h`: waits for a lock; fails only for a process that holds 200 already.
        pub fn LWLockAcquire(lock: *mut pg_sys::LWLock, mode: pg_sys::LWLockMode::Type) -> bool;
        /// `storage/lwlock.h`: fails only for a lock that is not held.
        pub fn LWLockRelease(lock: *mut pg_sys::LWLock);
        /// `storage/latch.h`: wakes whoever waits on the latch.
        pub fn SetLatch(latch: *mut pg_sys::Latch);
    }

    #[pgrx::pg_guard]
    unsafe extern "C-unwind" {
        /// `commands/async.h`: queues a notification of the current transaction.
        pub fn Async_Notify(channel: *const c_char, payload: *const c_char);
    }
}

/// Queues a notification that is sent when the transaction commits.
///
/// Raises PostgreSQL's own error for a channel of 64 bytes or a payload of 8,000 bytes and more.
pub fn async_notify(channel: &std::ffi::CStr, payload: &std::ffi::CStr) {
    // SAFETY: both are NUL-terminated and copied by the callee; we are inside a transaction.
    unsafe { server::Async_Notify(channel.as_ptr(), payload.as_ptr()) }
}

/// Whether this server is a standby or still recovering.
pub fn recovery_in_progress() -> bool {
    // SAFETY: reads a flag of this process or of shared memory.
    unsafe { server::RecoveryInProgress() }
}

/// The snapshot that the running statement sees.
pub fn active_snapshot() -> pg_sys::Snapshot {
    // SAFETY: SQL functions run with an active snapshot, and so does the flush.
    unsafe { server::GetActiveSnapshot() }
}

/// Takes an LWLock.
///
/// # Safety
/// The lock is one of ours, and this process does not hold it.
pub unsafe fn lwlock_acquire(lock: *mut pg_sys::LWLock, mode: pg_sys::LWLockMode::Type) {
    // SAFETY: the caller's promise.
    unsafe { server::LWLockAcquire(lock, mode) };
}

/// Gives an LWLock back.
///
/// # Safety
/// This process holds the lock.
pub unsafe fn lwlock_release(lock: *mut pg_sys::LWLock) {
    // SAFETY: the caller's promise.
    unsafe { server::LWLockRelease(lock) };
}

/// Wakes whoever waits on a latch. Takes no lock, cannot fail.
///
/// # Safety
/// The latch is in shared memory, or this process's own.
pub unsafe fn set_latch(latch: *mut pg_sys::Latch) {
    // SAFETY: the caller's promise.
    unsafe { server::SetLatch(latch) };
}

/// Whether a parallel query is running in this process.
pub fn is_in_parallel_mode() -> bool {
    // SAFETY: reads this backend's transaction state.
    unsafe { pg_sys::IsInParallelMode() }
}

/// `IsParallelWorker()`.
pub fn is_parallel_worker() -> bool {
    // SAFETY: a plain global of this process.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

/// `IsolationIsSerializable()`.
pub fn isolation_is_serializable() -> bool {
    // SAFETY: a plain global of this process.
    unsafe { pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32 }
}

/// `IsolationUsesXactSnapshot()`: REPEATABLE READ and above.
pub fn isolation_uses_transaction_snapshot() -> bool {
    // SAFETY: a plain global of this process.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// When the client's statement began; the clock that decides what has expired, so that one statement
/// has one answer.
pub fn statement_timestamp() -> i64 {
    // SAFETY: reads a global of this process.
    unsafe { server::GetCurrentStatementStartTimestamp() }
}

/// The clock, in microseconds since 2000.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// The role whose privileges count now.
pub fn current_user() -> pg_sys::Oid {
    // SAFETY: reads a global of this process.
    unsafe { server::GetUserId() }
}

/// Whether text in this database is UTF-8.
pub fn database_is_utf8() -> bool {
    // SAFETY: reads a global of this process.
    unsafe { pg_sys::GetDatabaseEncoding() == pg_sys::pg_enc::PG_UTF8 as i32 }
}

/// The database of this session.
pub fn my_database() -> u32 {
    // SAFETY: a plain global of this process.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

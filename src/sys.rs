//! Every hand-declared extern, and the few server macros that have no binding.

use pgrx::pg_sys;
use std::ffi::CStr;

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

/// `VARHDRSZ`: bytes of the header of an uncompressed, untoasted value.
pub const VARHDRSZ: usize = 4;

/// The bytes of a varlena value, detoasted only where it is compressed or stored out of line; what that
/// allocates lives in the current memory context.
///
/// # Safety
/// `value` points to a varlena, which outlives `'a`, as does the memory context.
pub unsafe fn detoasted_bytes<'a>(value: *mut pg_sys::varlena) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe {
        let plain = if is_toasted(value) {
            pg_sys::pg_detoast_datum_packed(value)
        } else {
            value
        };
        varlena_bytes(plain)
    }
}

/// `VARATT_IS_EXTERNAL` or `VARATT_IS_COMPRESSED`.
///
/// # Safety
/// `value` points to a varlena.
unsafe fn is_toasted(value: *const pg_sys::varlena) -> bool {
    // SAFETY: a varlena has at least one byte.
    let first = unsafe { *value.cast::<u8>() };
    if cfg!(target_endian = "little") {
        first == 0x01 || first & 0x03 == 0x02
    } else {
        first == 0x80 || first & 0xc0 == 0x40
    }
}

/// The bytes of a varlena value that is neither compressed nor external.
///
/// # Safety
/// `value` points to such a value, which outlives `'a`.
unsafe fn varlena_bytes<'a>(value: *const pg_sys::varlena) -> &'a [u8] {
    let head = value.cast::<u8>();
    // SAFETY: a varlena value has at least one byte, and as many as its header says.
    unsafe {
        let first = *head;
        if is_short(first) {
            let total = usize::from(short_header(first));
            return std::slice::from_raw_parts(head.add(1), total - 1);
        }
        let word = value.cast::<u32>().read_unaligned();
        let total = long_header(word) as usize;
        std::slice::from_raw_parts(head.add(VARHDRSZ), total - VARHDRSZ)
    }
}

#[cfg(target_endian = "little")]
const fn is_short(first: u8) -> bool {
    first & 0x01 == 0x01
}
#[cfg(target_endian = "little")]
const fn short_header(first: u8) -> u8 {
    first >> 1
}
#[cfg(target_endian = "little")]
const fn long_header(word: u32) -> u32 {
    word >> 2
}
/// `SET_VARSIZE`: the header word of an uncompressed value of `total` bytes, header included.
#[cfg(target_endian = "little")]
pub const fn varsize_header(total: u32) -> u32 {
    total << 2
}

#[cfg(target_endian = "big")]
const fn is_short(first: u8) -> bool {
    first & 0x80 == 0x80
}
#[cfg(target_endian = "big")]
const fn short_header(first: u8) -> u8 {
    first & 0x7f
}
#[cfg(target_endian = "big")]
const fn long_header(word: u32) -> u32 {
    word & 0x3fff_ffff
}
/// `SET_VARSIZE`: the header word of an uncompressed value of `total` bytes, header included.
#[cfg(target_endian = "big")]
pub const fn varsize_header(total: u32) -> u32 {
    total & 0x3fff_ffff
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

/// Role and `search_path`, under which the functions are found that a write may call.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The role.
    pub user: pg_sys::Oid,
    /// The setting `search_path`.
    search_path: std::rc::Rc<CStr>,
}

impl Identity {
    /// That of now.
    pub fn current() -> Self {
        // SAFETY: the setting is a NUL-terminated string that lives until it is changed.
        let search_path = unsafe { CStr::from_ptr(pg_sys::namespace_search_path) };
        Self {
            user: current_user(),
            search_path: search_path.into(),
        }
    }
}

/// The current role and `search_path` are others for as long as the value lives.
pub struct Impersonation {
    outer: pg_sys::Oid,
    context: i32,
    /// Level of settings to go back to, if `search_path` was changed.
    settings: Option<i32>,
}

impl Impersonation {
    /// Becomes somebody, who cannot change the session's role meanwhile. `search_path` is changed only if
    /// asked for: statements are parsed anew under another one.
    pub fn begin(identity: &Identity, with_search_path: bool) -> Self {
        let now = Identity::current();
        let (mut outer, mut context) = (pg_sys::InvalidOid, 0);
        // SAFETY: reads and sets this backend's identity and settings; put back by `drop` or by the abort
        // of the (sub)transaction. The strings are NUL-terminated.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut outer, &mut context);
            if outer != identity.user {
                pg_sys::SetUserIdAndSecContext(
                    identity.user,
                    context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32,
                );
            }
            let settings =
                (with_search_path && now.search_path != identity.search_path).then(|| {
                    let level = pg_sys::NewGUCNestLevel();
                    pg_sys::set_config_option(
                        c"search_path".as_ptr(),
                        identity.search_path.as_ptr(),
                        pg_sys::GucContext::PGC_USERSET,
                        pg_sys::GucSource::PGC_S_SESSION,
                        pg_sys::GucAction::GUC_ACTION_SAVE,
                        true,
                        0,
                        false,
                    );
                    level
                });
            Self {
                outer,
                context,
                settings,
            }
        }
    }
}

impl Drop for Impersonation {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: as in `begin`.
            unsafe {
                if let Some(level) = self.settings {
                    pg_sys::AtEOXact_GUC(true, level);
                }
                pg_sys::SetUserIdAndSecContext(self.outer, self.context);
            }
        }
    }
}

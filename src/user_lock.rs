//! Locks of the server beside the advisory locks that users take: waiting for them is seen in `pg_locks`, and
//! deadlocks are found. Each is held until it is released, the transaction ends, or the subtransaction that took it
//! aborts.

use pgrx::pg_sys;

/// What a lock is about: the fourth part of its tag, beside 1 and 2 of the advisory locks that users take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All states of a class.
    Class = 3,
    /// One state.
    State = 4,
    /// A document that is being computed.
    Document = 5,
    /// All logs of a class.
    ClassLogs = 6,
    /// The log of one state.
    Log = 7,
}

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Beside others who share it.
    Shared,
    /// Alone.
    Alone,
}

impl Mode {
    fn number(self) -> i32 {
        let mode = match self {
            Self::Shared => pg_sys::ShareLock,
            Self::Alone => pg_sys::ExclusiveLock,
        };
        mode as i32
    }
}

/// The tag of a lock in a database. Two names whose hashes share 64 bits share a lock, which costs no more than a
/// wait.
pub fn tag(database: u32, id: u128, kind: Kind) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        locktag_field1: database,
        locktag_field2: id as u32,
        locktag_field3: (id >> 32) as u32,
        locktag_field4: kind as u16,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

/// Whether this transaction holds a lock.
pub fn holds(tag: &pg_sys::LOCKTAG, mode: Mode) -> bool {
    let mode = mode.number();
    // SAFETY: looks at the locks of this process.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        return pg_sys::LockHeldByMe(tag, mode);
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        pg_sys::LockHeldByMe(tag, mode, false)
    }
}

/// Takes a lock, and waits for whoever is in the way.
pub fn acquire(tag: &pg_sys::LOCKTAG, mode: Mode) {
    // SAFETY: a lock of this transaction, released when it ends or its subtransaction aborts.
    unsafe { pg_sys::LockAcquire(tag, mode.number(), false, false) };
}

/// Takes a lock if nobody has to be waited for; whether it was to be had.
pub fn acquire_if_free(tag: &pg_sys::LOCKTAG, mode: Mode) -> bool {
    // SAFETY: as in `acquire`.
    let result = unsafe { pg_sys::LockAcquire(tag, mode.number(), false, true) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// Gives a lock back before the transaction ends; it must be held, and once for each time that it is released.
pub fn release(tag: &pg_sys::LOCKTAG, mode: Mode) {
    // SAFETY: of a lock that is not held the server says so in a warning, and releases nothing.
    unsafe { pg_sys::LockRelease(tag, mode.number(), false) };
}

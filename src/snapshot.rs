//! Snapshots pushed for a piece of work.

use pgrx::pg_sys;
use state_cache_document::hash;

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

/// Tells snapshots from each other: two with the same identity see the same, as long as this transaction writes
/// nothing. Of the active snapshot; `None` if it does not go by transactions.
pub fn identity() -> Option<u128> {
    // SAFETY: there is an active snapshot.
    let snapshot = unsafe { crate::sys::active_snapshot().as_ref() }?;
    if snapshot.snapshot_type != pg_sys::SnapshotType::SNAPSHOT_MVCC {
        return None;
    }
    let list = |first: *const pg_sys::TransactionId, count: usize| {
        if first.is_null() {
            return hash(&[]);
        }
        // SAFETY: a list that is there holds as many transactions as the snapshot says, each a plain number.
        hash(unsafe { std::slice::from_raw_parts(first.cast(), count * size_of::<u32>()) })
    };
    let bounds = [snapshot.xmin, snapshot.xmax].map(pg_sys::TransactionId::into_inner);
    let flags = [snapshot.suboverflowed, snapshot.takenDuringRecovery].map(u32::from);
    let numbers = [
        bounds[0],
        bounds[1],
        snapshot.curcid,
        flags[0] << 1 | flags[1],
    ];
    let parts = [
        list(snapshot.xip, snapshot.xcnt as usize),
        list(
            snapshot.subxip,
            usize::try_from(snapshot.subxcnt).unwrap_or(0),
        ),
        numbers
            .into_iter()
            .fold(0, |all, number| all << 32 | u128::from(number)),
    ];
    let mut bytes = [0; 48];
    for (place, part) in bytes.chunks_exact_mut(16).zip(parts) {
        place.copy_from_slice(&part.to_ne_bytes());
    }
    Some(hash(&bytes))
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

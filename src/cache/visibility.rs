//! Which transactions a snapshot sees.

use pgrx::pg_sys;
use state_cache_memory::{OutOfMemory, copy};

/// Transaction ids are compared in a circle; none that is still of interest is further away than half
/// of it.
const HALF_CIRCLE: u64 = 1 << 31;

/// What stands in an entry of L1 for the transactions that wrote it, where nobody has found out whether it is the
/// newest version: no snapshot sees them (see `validated`).
pub const UNPROVEN: u64 = u64::MAX;

/// Whether the effects of a committed transaction, given by its full id, are visible to `snapshot`; never those of
/// [`UNPROVEN`].
///
/// # Safety
/// `snapshot` is a valid MVCC snapshot.
pub unsafe fn is_visible(full_xid: u64, snapshot: pg_sys::Snapshot) -> bool {
    if full_xid == UNPROVEN {
        return false;
    }
    let xid = full_xid as u32;
    // SAFETY: the caller's promise.
    unsafe {
        // What the call below asks first; most entries are older than any running transaction.
        let age = xid.wrapping_sub((*snapshot).xmin.into_inner()) as i32;
        if age < 0 || !pg_sys::XidInMVCCSnapshot(xid.into(), snapshot) {
            return true;
        }
    }
    // The low 32 bits of a transaction more than half a circle ago look like the future. It committed
    // before any snapshot that still exists was taken.
    next_full_xid().saturating_sub(full_xid) > HALF_CIRCLE
}

/// Whether the effects of a committed transaction, given by the id that a row shows, are visible to `snapshot` for
/// sure. No is an answer too where the row is frozen, or the transaction is this one.
///
/// # Safety
/// `snapshot` is a valid MVCC snapshot.
pub unsafe fn is_seen(xid: pg_sys::TransactionId, snapshot: pg_sys::Snapshot) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let age = xid.into_inner().wrapping_sub((*snapshot).xmin.into_inner()) as i32;
        age < 0 || !pg_sys::XidInMVCCSnapshot(xid, snapshot)
    }
}

/// Whether a snapshot was taken while the server was in recovery. It lists all transactions as subtransactions, so it
/// has no [`Moment`]; a transaction of then may go on with it after the promotion.
///
/// # Safety
/// `snapshot` is a valid MVCC snapshot.
pub unsafe fn is_of_recovery(snapshot: pg_sys::Snapshot) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*snapshot).takenDuringRecovery }
}

/// Whether a snapshot has a [`Moment`]: it goes by transactions, and was not taken in recovery.
pub fn has_moment(snapshot: pg_sys::Snapshot) -> bool {
    // SAFETY: an active snapshot, or null.
    unsafe { snapshot.as_ref() }.is_some_and(|it| {
        it.snapshot_type == pg_sys::SnapshotType::SNAPSHOT_MVCC && !it.takenDuringRecovery
    })
}

/// When a snapshot was taken. Of two moments the later one belongs to the snapshot that sees all that the other one
/// sees; why, says the header of `derived`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// One more than the highest id that had ended, as a full id.
    pub ended: u64,
    /// How many transactions below that were in progress.
    pub running: u64,
}

impl Moment {
    /// That of a snapshot. A transaction that is listed twice counts twice: the snapshot may look earlier than it is.
    ///
    /// # Safety
    /// `snapshot` is a valid MVCC snapshot that was not taken in recovery.
    pub unsafe fn of(snapshot: pg_sys::Snapshot) -> Self {
        // SAFETY: the caller's promise; reads this backend's transaction state.
        let (xmax, listed, own) = unsafe {
            let own = pg_sys::GetTopTransactionIdIfAny();
            ((*snapshot).xmax, (*snapshot).xcnt, own)
        };
        let is_running = own != pg_sys::InvalidTransactionId
            && (own.into_inner().wrapping_sub(xmax.into_inner()) as i32) < 0;
        Self {
            ended: state_cache_formats::widen_at_most(xmax.into_inner(), next_full_xid()),
            running: u64::from(listed) + u64::from(is_running),
        }
    }

    /// The same for a snapshot that is to be compared with later ones: each transaction counts once.
    ///
    /// # Safety
    /// As for [`Moment::of`].
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub unsafe fn of_filler(snapshot: pg_sys::Snapshot) -> Result<Self, OutOfMemory> {
        // SAFETY: the caller's promise; `xip` has as many elements as the count says.
        let mut listed = unsafe {
            match (*snapshot).xcnt as usize {
                0 => Vec::new(),
                count => copy(std::slice::from_raw_parts((*snapshot).xip, count))?,
            }
        };
        let all = listed.len();
        listed.sort_unstable_by_key(|xid| xid.into_inner());
        listed.dedup();
        // SAFETY: the caller's promise.
        let moment = unsafe { Self::of(snapshot) };
        let twice = (all - listed.len()) as u64;
        Ok(Self {
            running: moment.running - twice,
            ..moment
        })
    }

    /// Whether a snapshot of this moment was not taken before one of `other`.
    pub fn is_not_before(&self, other: &Self) -> bool {
        self.ended > other.ended || self.ended == other.ended && self.running <= other.running
    }
}

/// Whether two snapshots see the same rows.
///
/// # Safety
/// Both are valid MVCC snapshots.
pub unsafe fn same_visibility(a: pg_sys::Snapshot, b: pg_sys::Snapshot) -> bool {
    // SAFETY: the caller's promise; `xip` and `subxip` have as many elements as the counts say, but for
    // `subxip` of a snapshot that has overflowed: that is looked at by nobody, and a copy has none.
    unsafe {
        let (a, b) = (&*a, &*b);
        let xids = |start: *const pg_sys::TransactionId, count: usize| match count {
            0 => &[][..],
            _ => std::slice::from_raw_parts(start, count),
        };
        let subxcnt = |snapshot: &pg_sys::SnapshotData| {
            let has_list = !snapshot.suboverflowed || snapshot.takenDuringRecovery;
            usize::try_from(snapshot.subxcnt)
                .ok()
                .filter(|_| has_list)
                .unwrap_or(0)
        };
        (a.xmin, a.xmax, a.xcnt, a.subxcnt) == (b.xmin, b.xmax, b.xcnt, b.subxcnt)
            && (a.curcid, a.suboverflowed) == (b.curcid, b.suboverflowed)
            && xids(a.xip, a.xcnt as usize) == xids(b.xip, b.xcnt as usize)
            && xids(a.subxip, subxcnt(a)) == xids(b.subxip, subxcnt(b))
    }
}

/// The full id of a transaction whose low 32 bits a row shows. Rows that are frozen may show an id of an
/// earlier circle; then the result is too high, which hides a row that everybody sees and so only costs
/// a read of L3.
pub fn widen(xid: pg_sys::TransactionId) -> u64 {
    state_cache_formats::widen(xid.into_inner(), next_full_xid())
}

/// Whether the id is of this transaction or one of its live subtransactions.
pub fn is_own(xid: pg_sys::TransactionId) -> bool {
    // SAFETY: looks at this backend's transaction state.
    unsafe { pg_sys::TransactionIdIsCurrentTransactionId(xid) }
}

/// The full id of this transaction, 0 while it has none.
pub fn own_full_xid() -> u64 {
    // SAFETY: reads this backend's transaction state.
    unsafe { pg_sys::GetTopFullTransactionIdIfAny() }.value
}

/// The next full id to be given out.
pub fn next_full_xid() -> u64 {
    // SAFETY: takes an LWLock for a moment; never called with one of ours held.
    unsafe { pg_sys::ReadNextFullTransactionId() }.value
}

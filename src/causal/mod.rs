//! Causal reads: who has written hands on what was written, and who reads waits until this server shows it.
//!
//! # Contract
//!
//! A writer hands on the version of one state (from `state_save`, `state_batch_commit`, or a message), or a cursor
//! (from `state_cursor`), which stands for everything that was committed before it was taken. A reader gives it to
//! any server:
//!
//! - **A standby** waits until replay has brought what is asked for, by looking again and again, first after a
//!   millisecond and in the end every [`LOOK`]`[1]`; there is nothing to be woken by, since replay tells nobody. The
//!   wait holds no lock; it can be interrupted, and ends with `57014` when its time is over. A promotion ends the
//!   standby, and then the next look answers as on a primary.
//! - **A primary** shows a version as soon as its writer has committed. So nothing is waited for: a version that is
//!   not there is `40001`, since its writer has not committed, or was lost with another primary.
//!
//! **What a version is.** The number of the newest version that the server shows, deletions included; a later number
//! does. The state may have been changed, deleted and expired meanwhile. Where a tombstone has been dropped, the
//! number is forgotten, and the version counts as one that is not there.
//!
//! **Snapshots.** At READ COMMITTED each look takes a new snapshot, and the answer is read under the one that showed
//! what was asked for. At REPEATABLE READ and above the transaction has one only: if that does not show it, the
//! answer is `40001` at once, since waiting does not change the snapshot.
//!
//! **Cursors across a promotion.** A cursor names its timeline and a place in the WAL before which all lies that it
//! has seen. A server that has left that timeline at or behind the place has all of it; see `changes`.

mod cursors;
mod error;
mod versions;

use crate::error::Result;
use crate::interval;
use crate::latch::Backoff;
use pgrx::pg_sys;
use std::time::{Duration, Instant};

pub use versions::Least;

/// From when on and until when a waiting reader doubles the time between two looks.
const LOOK: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(20)];

/// How long a reader waits, and since when.
struct Patience {
    since: Instant,
    time: Duration,
    backoff: Backoff,
}

impl Patience {
    /// From now on; `22023` for less than no time.
    fn new(timeout: &pg_sys::Interval) -> Result<Self> {
        interval::check_not_negative("timeout", timeout, "0 looks once.")?;
        let microseconds = u64::try_from(interval::microseconds(timeout)).unwrap_or(0);
        Ok(Self::of(Duration::from_micros(microseconds)))
    }

    fn of(time: Duration) -> Self {
        Self {
            since: Instant::now(),
            time,
            backoff: Backoff::between(LOOK),
        }
    }

    /// Waits for a moment; false once the time is over. Can be interrupted.
    fn on(&mut self) -> bool {
        let left = self.time.saturating_sub(self.since.elapsed());
        if left.is_zero() {
            return false;
        }
        self.backoff.wait_at_most(left);
        true
    }
}

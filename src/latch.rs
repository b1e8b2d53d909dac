//! Waiting on this process's own latch.

use pgrx::pg_sys;
use std::time::Duration;

/// Waits until this process is woken, at most for a time; ends the process if the server is gone.
pub fn wait(time: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // Rounded up, so that what is due then is due when it returns.
    let milliseconds = time.as_micros().div_ceil(1000).min(3_600_000);
    // SAFETY: this process's own latch.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as i32,
            milliseconds as std::ffi::c_long,
            pg_sys::PG_WAIT_EXTENSION,
        );
    }
}

/// Waits that get longer: who looks again and again looks soon at first, and costs little in the end.
pub struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// From the first of the times up to the second, doubled each time.
    pub fn between([first, most]: [Duration; 2]) -> Self {
        Self { next: first, most }
    }

    /// Waits for a moment, and for no longer than this; can be interrupted.
    pub fn wait_at_most(&mut self, most: Duration) {
        wait(self.next.min(most));
        // SAFETY: this process's own latch; whoever else waits on it looks before waiting.
        unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
        pgrx::check_for_interrupts!();
        self.next = (2 * self.next).min(self.most);
    }
}

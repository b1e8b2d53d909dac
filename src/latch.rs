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

//! What the server's callbacks at the end of a transaction or subtransaction run in.
//!
//! # Contract
//!
//! After the commit record nothing can be taken back, so an error there stops the whole server. Two things
//! could get in the way of a callback that itself cannot fail, and neither may be passed over in silence:
//!
//! - **A panic**, from a defect in our code. It must not unwind into the server's C functions
//!   ([`shielded`]). The caller then does the least that leaves others exact answers.
//! - **A value of this backend that is in use** ([`Kept`]). Our functions use such a value for the length of
//!   a closure that calls nothing which runs callbacks, so whoever uses it was left by an error that jumped
//!   over the closure, and never goes on. The callback uses the value all the same ([`Kept::reach`]).
//!   Skipping the callback instead would leave marks of this transaction in shared memory, and its changes
//!   in the next transaction.
//!
//! Both say so on the server's standard error, which is its log: a message by `ereport` could itself fail.

use std::cell::{Cell, UnsafeCell};
use std::io::Write;
use std::panic::AssertUnwindSafe;

/// Runs `f`, which is not meant to panic; whether it came to its end.
pub fn shielded(f: impl FnOnce()) -> bool {
    let ended = std::panic::catch_unwind(AssertUnwindSafe(f)).is_ok();
    if !ended {
        complain(b"state_cache: caught a panic at the end of a transaction; please report it\n");
    }
    ended
}

/// A value of this backend, used by one closure at a time, and by callbacks in any case.
#[derive(Default)]
pub struct Kept<T> {
    in_use: Cell<bool>,
    value: UnsafeCell<T>,
}

/// Says that the value is no longer in use, also when a panic ends the closure.
struct Use<'a>(&'a Cell<bool>);

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl<T> Kept<T> {
    /// Runs `f` with the value. `f` must not call into the server where that may raise an error, or run SQL.
    ///
    /// # Panics
    /// If the value is in use, which is a defect of the caller.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        assert!(!self.in_use.replace(true), "the value is in use");
        let _use = Use(&self.in_use);
        // SAFETY: nobody else uses the value, as `in_use` was false, and nobody will while it is true but a
        // callback, which does not run within `f`.
        f(unsafe { &mut *self.value.get() })
    }

    /// Leaves the value in use, as an error would that jumped over the end of its use.
    #[cfg(feature = "fault_injection")]
    pub fn leak(&self) {
        self.in_use.set(true);
    }

    /// Runs `f` with the value, for a callback: also where its use was never ended.
    pub fn reach(&self, f: impl FnOnce(&mut T)) {
        if self.in_use.replace(true) {
            complain(b"state_cache: an error has left a value in use; please report it\n");
        }
        let _use = Use(&self.in_use);
        // SAFETY: a closure that used the value is not on the stack any more (see the module), so nobody
        // else uses it.
        f(unsafe { &mut *self.value.get() });
    }
}

/// Allocates nothing, and does not fail: there is nobody to tell.
fn complain(message: &[u8]) {
    drop(std::io::stderr().write_all(message));
}

//! Memory that runs out must end in an error, `53200`, and never in the end of the process: that would take the
//! whole server down.
//!
//! # Contract
//!
//! - **What is sized by data** (a document, a text, a list as long as somebody's array or as the rows that were
//!   read) is asked for fallibly, with `state_cache_memory`, or with PostgreSQL's allocator, which raises its own
//!   error. The same holds in the crates.
//! - **What is small and of a fixed size** (a name, a node of a tree, a reference count, a message) may be asked for
//!   as usual. Where there is no memory for it, the allocator (`reserve`) gives back the *reserve* that every process
//!   which runs our code holds, and takes it from there.
//! - **Nothing begins without the reserve.** [`guarded`], in which every function of ours and the work before a
//!   commit runs, takes it before and asks for it again afterwards; [`check`] does within loops as long as data.
//!   So the small things of one step never add up to more than it holds.
//! - **An error on its way out has the reserve's memory.** PostgreSQL and pgrx allocate to build a message, and die
//!   where they cannot: a second error while one is reported ends in a PANIC. So the reserve is given back as soon
//!   as an error is raised, by us ([`crate::error::Error::raise`]) or by PostgreSQL for want of memory (a callback
//!   of its error context), and before a panic passes [`guarded`].
//!
//! After the commit record nothing is allocated, see `transaction`.

use crate::error::{Error, Result};
use crate::reserve;
use crate::{error_context, sys};
use pgrx::pg_sys;
use state_cache_memory::try_collect;
use std::ptr::null_mut;

/// Takes the reserve if it is not held.
///
/// # Errors
/// `53200` if it is not to be had.
#[inline]
pub fn check() -> Result<()> {
    Ok(reserve::hold()?)
}

/// What was asked for, where there is no way to say that it was refused but PostgreSQL's own: an error that is
/// raised.
pub fn or_raise<T, E: Into<Error>>(asked: std::result::Result<T, E>) -> T {
    asked.unwrap_or_else(|refused| refused.into().raise())
}

/// All values of an iterator, each of which takes some small memory of its own.
///
/// # Errors
/// `53200`.
pub fn checked<T>(values: impl Iterator<Item = T>) -> Result<Vec<T>> {
    try_collect(values.map(|value| check().map(|()| value)))
}

/// Runs something with the reserve held, which is there for whatever goes wrong.
///
/// # Errors
/// Its own, and `53200` if the reserve is not to be had, before or afterwards.
pub fn guarded<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    check()?;
    crate::fault::begin_refusing!();
    let mut callback = pg_sys::ErrorContextCallback {
        // SAFETY: a plain global of this process.
        previous: unsafe { pg_sys::error_context_stack },
        callback: Some(on_error),
        arg: null_mut(),
    };
    let _outer = Outer(callback.previous);
    // SAFETY: the callback lives until `_outer` takes it off the stack again, which every way out of here does.
    unsafe { pg_sys::error_context_stack = &raw mut callback };
    let value = f()?;
    check()?;
    Ok(value)
}

/// What PostgreSQL calls for an error that is raised in what [`guarded`] runs, before it is reported or caught.
unsafe extern "C-unwind" fn on_error(_: *mut std::ffi::c_void) {
    if sys::is_out_of_memory() {
        reserve::give_back();
    }
}

/// Puts the stack of error contexts back to what it was.
struct Outer(*mut pg_sys::ErrorContextCallback);

impl Drop for Outer {
    fn drop(&mut self) {
        // SAFETY: whoever is on the stack above us has left, and those below live longer than we do.
        unsafe { pg_sys::error_context_stack = self.0 };
        if std::thread::panicking() {
            reserve::give_back();
            // SAFETY: the guard around us makes an error of the panic.
            unsafe { pg_sys::error_context_stack = error_context::on_top_of(self.0) };
        }
    }
}

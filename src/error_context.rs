//! The CONTEXT of the server's own errors.
//!
//! An error of the server that passes through Rust becomes a panic, and an error again where our function ends. pgrx
//! carries message, detail and hint over, and not the context. Most functions of the server give none; `jsonb_in`
//! says there where in the text the fault is.
//!
//! # How
//!
//! The server calls what stands on `error_context_stack` while an error is made ([`Keeper::report`]). The first time
//! this is the server's own error, whose context is copied. `memory::guarded`, which every function of ours runs in,
//! puts the keeper back on the stack when a panic leaves the function ([`on_top_of`]). The second time it is the
//! error that pgrx makes of the panic, which gets the copy. A keeper lives in the memory context that was current,
//! which lasts longer than the function.
//!
//! A copy takes memory, and is made once only: where the memory is refused, that is an error too, for which the
//! server calls the keeper again, and so on without end.

use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::null_mut;

/// The longest context that is kept, in bytes; `jsonb_in` quotes 50 characters.
const LONGEST: usize = 1000;

thread_local! {
    /// The keeper that has copied a context, while the panic is on its way.
    static FILLED: Cell<*mut Keeper> = const { Cell::new(null_mut()) };
}

/// What the server calls for the error that comes.
struct Keeper {
    callback: pg_sys::ErrorContextCallback,
    memory: pg_sys::MemoryContext,
    /// Whether a copy was begun.
    began: bool,
    /// A copy of the context, in that memory; null until there is one.
    text: *mut c_char,
}

impl Keeper {
    /// # Safety
    /// The server calls this while it makes an error; `keeper` is alive.
    #[pgrx::pg_guard]
    unsafe extern "C-unwind" fn report(keeper: *mut c_void) {
        // SAFETY: the caller's promise; the copy of the error is our own, and is made outside the memory context in
        // which the server keeps errors, as it demands.
        unsafe {
            let keeper = keeper.cast::<Keeper>();
            if !(*keeper).text.is_null() {
                crate::sys::add_error_context(CStr::from_ptr((*keeper).text));
            }
            if (*keeper).began {
                return;
            }
            (*keeper).began = true;
            let before = pg_sys::MemoryContextSwitchTo((*keeper).memory);
            let error = pg_sys::CopyErrorData();
            if !(*error).context.is_null() {
                let context = CStr::from_ptr((*error).context).to_bytes();
                let shown = crate::encoding::front(context, LONGEST);
                (*keeper).text = pg_sys::pnstrdup(shown.as_ptr().cast(), shown.len());
                FILLED.set(keeper);
            }
            pg_sys::FreeErrorData(error);
            pg_sys::MemoryContextSwitchTo(before);
        }
    }
}

impl Keeper {
    /// # Safety
    /// As for [`Keeper::report`].
    #[pgrx::pg_guard]
    unsafe extern "C-unwind" fn name(keeper: *mut c_void) {
        // SAFETY: the caller's promise.
        unsafe {
            let keeper = keeper.cast::<Keeper>();
            crate::sys::add_error_context(CStr::from_ptr((*keeper).text));
            // The second time this is the error that pgrx has made, after which nobody takes the keeper off.
            if !(*keeper).began {
                (*keeper).began = true;
                FILLED.set(keeper);
            }
        }
    }
}

/// The stack of error contexts for a panic that leaves our function: what stood there before the function, and on top
/// the keeper that has copied a context, if one has.
///
/// # Safety
/// The panic is on its way, and ends in an error of the server.
pub unsafe fn on_top_of(
    before: *mut pg_sys::ErrorContextCallback,
) -> *mut pg_sys::ErrorContextCallback {
    let keeper = FILLED.get();
    if keeper.is_null() {
        return before;
    }
    // One of a function further out, which this one was called by, is on the stack already, and that function's to
    // put back.
    let mut below = before;
    while !below.is_null() {
        if std::ptr::eq(below.cast::<Keeper>(), keeper) {
            return before;
        }
        // SAFETY: what is on the stack is alive.
        below = unsafe { (*below).previous };
    }
    FILLED.set(null_mut());
    // SAFETY: the keeper's memory lasts until the error is handled.
    unsafe {
        (*keeper).callback.previous = before;
        &raw mut (*keeper).callback
    }
}

/// Runs `f`, which calls one function of the server; an error that it raises keeps its context. `f` neither catches
/// errors nor calls functions of users.
pub fn kept<T>(f: impl FnOnce() -> T) -> T {
    FILLED.set(null_mut());
    // SAFETY: the keeper is on the stack of the server while `f` runs. Where `f` does not return, our function does
    // not either, and `guarded` takes the keeper off.
    unsafe {
        let keeper = pg_sys::palloc0(size_of::<Keeper>()).cast::<Keeper>();
        (*keeper).callback = pg_sys::ErrorContextCallback {
            previous: pg_sys::error_context_stack,
            callback: Some(Keeper::report),
            arg: keeper.cast(),
        };
        (*keeper).memory = pg_sys::CurrentMemoryContext;
        (*keeper).began = false;
        (*keeper).text = null_mut();
        pg_sys::error_context_stack = &raw mut (*keeper).callback;
        let result = f();
        pg_sys::error_context_stack = (*keeper).callback.previous;
        pg_sys::pfree(keeper.cast());
        result
    }
}

/// Runs `f`; an error of the server that ends it says `line` in its context. Where errors nest, the outermost line is
/// the one that is shown.
pub fn named<T>(line: &[u8], f: impl FnOnce() -> T) -> T {
    // SAFETY: as in `kept`; the line is copied first, so no error of the server calls the keeper before it is there.
    unsafe {
        let keeper = pg_sys::palloc0(size_of::<Keeper>()).cast::<Keeper>();
        (*keeper).text = pg_sys::pnstrdup(line.as_ptr().cast(), line.len());
        (*keeper).callback = pg_sys::ErrorContextCallback {
            previous: pg_sys::error_context_stack,
            callback: Some(Keeper::name),
            arg: keeper.cast(),
        };
        pg_sys::error_context_stack = &raw mut (*keeper).callback;
        let result = f();
        pg_sys::error_context_stack = (*keeper).callback.previous;
        // Of an error that somebody has caught meanwhile nothing is to be said any more.
        FILLED.set(null_mut());
        pg_sys::pfree((*keeper).text.cast());
        pg_sys::pfree(keeper.cast());
        result
    }
}

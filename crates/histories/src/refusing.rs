//! An allocator that refuses one request, for tests that what is sized by data ends in an error and not in the end
//! of the process. A binary of tests that uses it has one test: the counters are of the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// The allocator, to be declared as the binary's.
pub struct Refusing;

/// Requests for more bytes than this are counted: as many as the extension keeps back for what is small.
pub const SMALL: usize = 64 << 10;

/// Which request is refused, counted down; 0 for none.
static NEXT: AtomicUsize = AtomicUsize::new(0);
static REFUSED: AtomicBool = AtomicBool::new(false);

fn refuses(size: usize) -> bool {
    if size <= SMALL {
        return false;
    }
    let count_down = NEXT.fetch_update(SeqCst, SeqCst, |next| next.checked_sub(1));
    let refuses = count_down == Ok(1);
    if refuses {
        REFUSED.store(true, SeqCst);
    }
    refuses
}

// SAFETY: every call is refused or passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if refuses(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps to the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if refuses(size) {
            return std::ptr::null_mut();
        }
        // SAFETY: as above.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the memory came from the system.
        unsafe { System.dealloc(old, layout) }
    }
}

/// Runs something again and again, each time with another of its large requests for memory refused, until it makes
/// no more of them; how many there were. What follows a refusal must be what `is_refusal` says.
///
/// # Panics
/// If it is not, or if what nothing was refused of fails.
pub fn refuse_each<T>(run: impl Fn() -> T, is_refusal: impl Fn(&T) -> bool) -> usize {
    for nth in 1.. {
        REFUSED.store(false, SeqCst);
        NEXT.store(nth, SeqCst);
        let outcome = run();
        NEXT.store(0, SeqCst);
        let was_refused = REFUSED.load(SeqCst);
        assert_eq!(
            is_refusal(&outcome),
            was_refused,
            "request {nth} was refused: {was_refused}"
        );
        if !was_refused {
            return nth - 1;
        }
    }
    unreachable!("no end of requests")
}

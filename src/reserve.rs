//! The allocator of this library, and the reserve that it falls back upon. `memory` has the contract.

use state_cache_memory::OutOfMemory;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// Bytes up to which memory may come from the reserve.
const SMALL: usize = 64 << 10;

/// Bytes of the reserve. PostgreSQL may want a block of 1 MB of it for each of two memory contexts in which an
/// error is copied. It is address space, which takes no memory as long as nobody writes there.
const RESERVE: usize = 4 << 20;

/// The reserve, null while it is given back.
static HELD: AtomicPtr<u8> = AtomicPtr::new(null_mut());

/// How the reserve is asked for.
const LAYOUT: Layout = Layout::new::<[u64; RESERVE / size_of::<u64>()]>();

/// The allocator of this library: the system's, with a reserve for what is small.
pub struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

// SAFETY: the system's allocator does the work; where it has refused, it is asked once more.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        with_reserve(layout.size(), || unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        with_reserve(layout.size(), || unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise; what was refused has left the old memory as it was.
        with_reserve(size, || unsafe { System.realloc(old, layout, size) })
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(old, layout) }
    }
}

/// Asks once more, for what is small, when the reserve is given back.
#[inline]
fn with_reserve(size: usize, ask: impl Fn() -> *mut u8) -> *mut u8 {
    if size > SMALL && crate::fault::refuses_memory!() {
        return null_mut();
    }
    let memory = ask();
    if memory.is_null() && size <= SMALL && give_back() {
        return ask();
    }
    memory
}

/// Gives the reserve back; whether it was held.
pub fn give_back() -> bool {
    let held = HELD.swap(null_mut(), Relaxed);
    if !held.is_null() {
        // SAFETY: it was taken with this layout, and is no longer known.
        unsafe { System.dealloc(held, LAYOUT) };
    }
    !held.is_null()
}

/// Takes the reserve if it is not held.
///
/// # Errors
/// It is not to be had.
#[inline]
pub fn hold() -> Result<(), OutOfMemory> {
    match HELD.load(Relaxed).is_null() {
        true => take(),
        false => Ok(()),
    }
}

#[cold]
fn take() -> Result<(), OutOfMemory> {
    // SAFETY: the layout has a size.
    let memory = unsafe { System.alloc(LAYOUT) };
    if memory.is_null() {
        return Err(OutOfMemory { size: RESERVE });
    }
    HELD.store(memory, Relaxed);
    Ok(())
}

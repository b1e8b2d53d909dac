//! With a lock held nothing is allocated, however large the document is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::NonNull;

use state_cache_l1::{
    ClassId, DirtyBefore, Geometry, Key, KeyId, L1, Locks, Lookup, NewEntry, View, Want,
};

thread_local! {
    static LOCKS: Cell<usize> = const { Cell::new(0) };
    static ALLOCATED_LOCKED: Cell<usize> = const { Cell::new(0) };
}

/// Counts the requests that are made with a lock held.
struct Watching;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends may allocate once more when the cells are gone.
        if LOCKS.try_with(Cell::get).unwrap_or(0) > 0 {
            ALLOCATED_LOCKED.set(ALLOCATED_LOCKED.get() + 1);
        }
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the system's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Locks for one thread.
struct Held;

impl Locks for Held {
    fn lock_shared(&self, _: usize) {
        LOCKS.set(LOCKS.get() + 1);
    }
    fn lock_exclusive(&self, _: usize) {
        LOCKS.set(LOCKS.get() + 1);
    }
    fn unlock(&self, _: usize) {
        LOCKS.set(LOCKS.get() - 1);
    }
}

#[repr(C, align(128))]
#[derive(Clone)]
struct Line([u8; 128]);

#[test]
fn nothing_is_allocated_while_a_large_document_is_filled_read_and_replaced() {
    const LARGE: usize = 1 << 20;
    let geometry = Geometry::for_memory(16 << 20);
    let mut memory = vec![Line([0; 128]); geometry.bytes().div_ceil(128)];
    let base = NonNull::new(memory.as_mut_ptr().cast::<u8>()).unwrap();
    // SAFETY: zeroed, aligned, large enough, and used by this cache alone, in this thread.
    let l1 = unsafe { L1::init(base, geometry, Held) };
    let key = Key {
        id: KeyId(7),
        db: 1,
        incarnation: 1,
        class: b"run",
        key: b"k",
    };
    let value = vec![7; LARGE];
    let mut into = vec![0; LARGE];
    for version in 1..=3 {
        let block = l1.reserve(&NewEntry {
            key,
            class: ClassId::OTHER,
            max_entries: None,
            version,
            head_xid: 0,
            doc_xid: 0,
            hash: 0,
            expires_at: i64::MAX,
            loaded_at: 0,
            dirty: None,
            stored: 0,
            value: &value,
        });
        l1.link(block.unwrap(), l1.note(&key), DirtyBefore::TakenOver);
        assert_eq!(
            l1.read(&key, Want::Value, &mut []),
            Lookup::TooSmall { len: LARGE }
        );
        let Lookup::Hit(info) = l1.read(&key, Want::Value, &mut into) else {
            panic!("version {version} is not there");
        };
        assert_eq!((info.version, &into), (version, &value));
        assert!(l1.attach_text(&key, info.serial, &value).is_ok());
        assert_eq!(
            l1.with_value(&key, |_, it| it.equals(&value)),
            View::Hit(true)
        );
    }
    assert_eq!(ALLOCATED_LOCKED.get(), 0);
    // The test can fail.
    l1.with_value(&key, |_, it| vec![0; it.len()]);
    assert_eq!(ALLOCATED_LOCKED.get(), 1);
}

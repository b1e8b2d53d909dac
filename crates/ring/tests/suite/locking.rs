//! What another process does just before the lock is granted and just after it is given back.

use crate::support::{bytes, record};
use state_cache_ring::{Change, Lapped, Locks, Ring};
use std::cell::UnsafeCell;
use std::ptr::NonNull;

const CAPACITY: usize = 1000;
const HEADER: usize = Ring::<Intruder>::bytes(0);

/// A ring's memory.
#[repr(C, align(128))]
struct Memory(UnsafeCell<[u8; HEADER + CAPACITY]>);

/// A lock that overwrites the memory.
struct Intruder {
    memory: NonNull<u8>,
    /// Moves the head that far before a shared lock is granted.
    before: u64,
}

impl Intruder {
    fn overwrite(&self) {
        // SAFETY: inside the memory; the ring uses it only while it holds the lock, so not now.
        unsafe { self.memory.add(HEADER).write_bytes(0xff, CAPACITY) };
    }
}

impl Locks for Intruder {
    fn lock_shared(&self, _: usize) {
        let head = self.memory.cast::<u64>();
        // SAFETY: as above.
        unsafe { head.write(head.read() + self.before) };
    }

    fn lock_exclusive(&self, _: usize) {}

    fn unlock(&self, _: usize) {
        self.overwrite();
    }
}

/// What a reader at the start gets of a ring that holds a record.
fn read_despite(before: u64) -> Result<Vec<u8>, Lapped> {
    let memory = Memory(UnsafeCell::new([0; HEADER + CAPACITY]));
    let base = NonNull::new(memory.0.get().cast::<u8>()).unwrap();
    let written = bytes(&[record("run", "k", Change::Set(1))]);
    // SAFETY: the head, aligned, and the bytes of a record.
    unsafe {
        base.cast::<u64>().write(written.len() as u64);
        base.add(HEADER)
            .copy_from_nonoverlapping(NonNull::from(&written[..]).cast(), written.len());
    }
    let intruder = Intruder {
        memory: base,
        before,
    };
    // SAFETY: zeroed memory of the right size and alignment that outlives the ring.
    let ring = unsafe { Ring::attach(base, CAPACITY, intruder, 0) };
    let mut buffer = Vec::new();
    ring.read(0, CAPACITY, &mut buffer)?;
    assert_eq!(buffer, written);
    Ok(buffer)
}

#[test]
fn the_copy_is_made_while_the_lock_is_held() {
    assert!(read_despite(0).is_ok());
}

#[test]
fn the_head_is_looked_at_while_the_lock_is_held() {
    assert_eq!(read_despite(CAPACITY as u64), Err(Lapped));
}

//! What a stored form claims takes no memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use state_cache_delta::{Base, Decoder, Encoder, Fault, Form, MAX_DOCUMENT};

/// Keeps the largest request of this thread.
struct Largest;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Largest {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends may allocate once more when the cell is gone.
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size())));
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the system's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Largest = Largest;

fn largest(work: impl FnOnce()) -> usize {
    LARGEST.set(0);
    work();
    LARGEST.get()
}

/// A form with its checksum put right.
fn sealed(content: &[u8]) -> Vec<u8> {
    let checksum = state_cache_document::hash(content).to_le_bytes();
    [content, &checksum[..4]].concat()
}

fn leb(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}

#[test]
fn claims_are_checked_before_memory_is_taken() {
    let mut decoder = Decoder::new().unwrap();
    let most = MAX_DOCUMENT as u64;
    for (what, content, fault) in [
        (
            "over jsonb's limit",
            [vec![0x51], leb(most + 1), vec![0; 40]].concat(),
            Fault::Size,
        ),
        (
            "u64::MAX",
            [vec![0x51], leb(u64::MAX), vec![0; 40]].concat(),
            Fault::Size,
        ),
        (
            "more than so few bytes hold",
            [vec![0x51], leb(most), vec![0; 40]].concat(),
            Fault::Size,
        ),
        (
            "a byte without a block",
            [vec![0x51], leb(1), vec![0; 3]].concat(),
            Fault::Size,
        ),
        (
            "a deep chain",
            [vec![0x52], leb(9), leb(1), leb(u64::MAX), leb(9), leb(9)].concat(),
            Fault::Header,
        ),
        (
            "a large keyframe",
            [vec![0x52], leb(9), leb(1), leb(1), leb(1 << 60), leb(9)].concat(),
            Fault::Header,
        ),
    ] {
        let packed = sealed(&content);
        let taken =
            largest(|| assert_eq!(decoder.decode(&packed, Some(b"base")), Err(fault), "{what}"));
        assert!(taken < 1_024, "{what}: {taken} bytes");
    }
}

#[test]
fn a_form_with_a_wrong_checksum_takes_no_memory() {
    let mut decoder = Decoder::new().unwrap();
    let content = [vec![0x51], leb(100_000_000), vec![0; 8_000]].concat();
    let mut packed = sealed(&content);
    let taken = largest(|| assert_eq!(decoder.decode(&packed, None), Err(Fault::Corrupt)));
    assert_eq!(taken, 100_000_000);
    packed[4_000] ^= 1;
    let taken = largest(|| assert_eq!(decoder.decode(&packed, None), Err(Fault::Checksum)));
    assert!(taken < 1_024, "{taken} bytes");
}

#[test]
fn decoding_takes_the_document_and_no_more() {
    let mut encoder = Encoder::new(3).unwrap();
    let mut decoder = Decoder::new().unwrap();
    let held = decoder.memory();
    let base = vec![b'a'; 3_000_000];
    let layout = state_cache_delta::Layout::keyframe(base.len());
    let upon = Base {
        version: 1,
        document: &base,
        layout,
    };
    for encoded in [
        encoder.encode_keyframe(&base[1..]).unwrap(),
        encoder.encode(&base[1..], 2, Some(upon), 16).unwrap(),
    ] {
        let Form::Packed(packed) = encoded.form else {
            panic!("stored whole");
        };
        let taken = largest(|| assert!(decoder.decode(&packed, Some(&base)).unwrap() == base[1..]));
        assert_eq!(taken, base.len() - 1);
    }
    assert_eq!(decoder.memory(), held);
    assert!(held < 200_000, "{held}");
}

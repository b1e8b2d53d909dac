//! What `diff` asks of memory stays a small multiple of its inputs, also for documents made to need more:
//! long paths to many places, deep and wide nesting.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use state_cache_document::diff;
use state_cache_histories::{Json, encode};

/// Counts what is held, and the most that was.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::SeqCst) + layout.size();
        MOST.fetch_max(held, Ordering::SeqCst);
        // SAFETY: the caller keeps to the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: the pointer came from `alloc` above with this layout, hence from the system.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn number(n: usize) -> Json {
    Json::Number(n.to_string())
}

fn under(key: &str, value: Json) -> Json {
    Json::object([(key.to_owned(), value)])
}

/// An array of `count` elements that `element` makes.
fn many(count: usize, element: impl FnMut(usize) -> Json) -> Json {
    Json::Array((0..count).map(element).collect())
}

/// An object of `count` pairs; `Json::object` would look for each key among those before.
fn pairs(count: usize, value: impl Fn(usize) -> Json) -> Json {
    Json::Object((0..count).map(|n| (n.to_string(), value(n))).collect())
}

// One test, since the counters are of the process.
#[test]
fn memory_is_a_small_multiple_of_the_inputs() {
    // The deep documents take more stack than a test has, not least in the hands of the encoder.
    let thread = std::thread::Builder::new().stack_size(64 << 20);
    thread.spawn(measure).unwrap().join().unwrap();
}

fn measure() {
    let long = "~".repeat(50_000);
    let version = |n: usize| -> [(&'static str, Json); 11] {
        [
            ("numbers", many(60_000, |at| number(at + n))),
            (
                "flags",
                many(100_000, |at| Json::Bool((at + n).is_multiple_of(2))),
            ),
            (
                "pairs",
                pairs(20_000, |at| Json::Bool((at + n).is_multiple_of(2))),
            ),
            (
                "other keys",
                many(1, |_| pairs(20_000 * (1 - n) + 1, number)),
            ),
            (
                "a long path",
                under(&long, many(20_000, |at| number(at + n))),
            ),
            (
                "long paths",
                many(40, |at| {
                    under(&long[..1_000 * at], many(1_000, |at| number(at + n)))
                }),
            ),
            (
                "depth",
                (0..1_500).fold(number(n), |inner, at| {
                    Json::Array(vec![inner, number(at + n), Json::Bool(n == 0)])
                }),
            ),
            (
                "small objects",
                pairs(20_000, |at| pairs(3, |_| number(at + n))),
            ),
            (
                "small objects that get empty",
                many(5_000, |_| pairs(20 * n, number)),
            ),
            (
                "depth of small objects",
                (0..1_500).fold(number(n), |inner, at| {
                    Json::object([
                        ("a".to_owned(), inner),
                        ("b".to_owned(), number(at + n)),
                        (format!("c{n}"), Json::Bool(n == 0)),
                    ])
                }),
            ),
            (
                "long keys all the way",
                (0..200).fold(number(n), |inner, at| {
                    Json::object([
                        (long[..300].to_owned(), inner),
                        ("n".to_owned(), number(at + n)),
                    ])
                }),
            ),
        ]
    };
    for ((name, old), (_, new)) in version(0).iter().zip(&version(1)) {
        let (old, new) = (encode(old).unwrap(), encode(new).unwrap());
        for (from, to) in [(&old, &new), (&new, &old)] {
            let before = HELD.load(Ordering::SeqCst);
            MOST.store(before, Ordering::SeqCst);
            let patch = diff(from, to, || {}).unwrap();
            let taken = MOST.load(Ordering::SeqCst) - before;
            let inputs = from.len() + to.len();
            assert!(!patch.is_empty());
            println!(
                "{name}: {inputs} bytes in, {} out, {taken} held",
                patch.len()
            );
            // An element of 4 bytes is held as 24, a pair of 8 as 56; vectors grow by doubling.
            assert!(taken <= 10 * inputs + 4_096, "{name}: {taken} for {inputs}");
        }
    }
}

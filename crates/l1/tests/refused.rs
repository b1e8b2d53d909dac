//! Where there is no memory for a list of entries, whoever asks for it is told so, and no process ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, unused_imports)]
#[path = "suite/support.rs"]
mod support;

use state_cache_histories::{Refusing, refuse_each};
use support::{Cache, DB, INCARNATION, key};

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

// One test, since the counters are of the process.
#[test]
fn each_large_request_that_is_refused_ends_in_an_error() {
    const ENTRIES: usize = 60_000;
    let cache = Cache::new(64 << 20);
    for n in 0..ENTRIES {
        let _ = cache.put(&key(&format!("key {n}")), 1, b"value");
    }
    let listed = || {
        let mut listed = 0;
        let outcome = cache.for_each(DB, INCARNATION, |_, _, _| listed += 1);
        outcome.map(|()| listed)
    };
    assert_eq!(listed(), Ok(ENTRIES));
    assert!(refuse_each(listed, Result::is_err) > 0);
    let resident = || cache.for_each_resident(|_, _, _, _| ());
    assert!(refuse_each(resident, Result::is_err) > 0);
    for n in 0..2_000 {
        cache.class_record(DB, format!("class {n}").as_bytes());
    }
    let classes = || cache.for_each_class(DB, |_, _| ());
    assert!(refuse_each(classes, Result::is_err) > 0);
}

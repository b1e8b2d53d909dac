//! Where there is no memory for very many changes, the ring's functions say so and none ends the process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use state_cache_histories::{Refusing, refuse_each};
use state_cache_ring::{Change, Digest, Record, decode, encode};

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

// One test, since the counters are of the process.
#[test]
fn each_large_request_that_is_refused_ends_in_an_error() {
    let names: Vec<String> = (0..10_000).map(|n| format!("state {n:08}")).collect();
    let record = |name| Record {
        database: 5,
        class: b"run",
        key: name,
        change: Change::Set(1),
    };
    let records: Vec<_> = names.iter().map(|name| record(name.as_bytes())).collect();
    for room in [usize::MAX, 100_000, 0] {
        let count = refuse_each(|| encode(5, &records, room), Result::is_err);
        assert!(count > 0, "nothing large is asked for with room for {room}");
    }
    let bytes = encode(5, &records, usize::MAX).unwrap();
    let digest = || {
        let mut digest = Digest::default();
        for record in decode(&bytes) {
            digest.add(&record.unwrap());
        }
        digest
    };
    let count = refuse_each(|| digest().rounds(), Result::is_err);
    assert!(count > 0);
}

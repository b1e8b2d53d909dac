//! Where there is no memory for a list of states or of transactions, it is none, and no process ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use state_cache_formats::resident::{List, decode};
use state_cache_formats::{Cursor, Home, Unread};
use state_cache_histories::{Refusing, refuse_each};

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

// One test, since the counters are of the process.
#[test]
fn each_large_request_that_is_refused_leaves_out_what_it_was_for() {
    let fill = || {
        let mut list = List::default();
        let mut left_out = 0;
        for n in 0..20_000 {
            let key = format!("key {n}");
            left_out += u32::from(!list.push(1, b"run", key.as_bytes()));
        }
        (left_out, list)
    };
    let count = refuse_each(fill, |(left_out, _)| *left_out > 0);
    assert!(count > 0);
    let list = fill().1.encode();
    assert!(refuse_each(|| decode(&list), Option::is_none) > 0);

    let home = Home {
        system: 1,
        timeline: 1,
        database: 5,
        incarnation: 1,
        run: 0,
        start: 0,
    };
    let text = Cursor::new(home, 1, 1, 40_000, (1..40_000).collect()).to_string();
    let refused = |read: &Result<_, Unread>| matches!(read, Err(Unread::OutOfMemory(_)));
    assert!(refuse_each(|| Cursor::parse(text.as_bytes()), refused) > 0);
}

//! Where there is no memory for what a subtransaction hands to its parent, that is said before the subtransaction
//! commits; the commit itself asks for none.

#![allow(clippy::unwrap_used)]

use state_cache_histories::{Refusing, refuse_each};
use state_cache_memory::{Grow, OutOfMemory};
use state_cache_nested::{Nested, TOP};

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

// One test, since the counters are of the process. A request that a commit made would end the process when it is
// refused.
#[test]
fn each_large_request_that_is_refused_ends_in_an_error_before_the_commit() {
    let commit = || -> Result<usize, OutOfMemory> {
        let mut nested = Nested::default();
        for level in [TOP, TOP + 1] {
            let layer: &mut Vec<u64> = nested.at(level, Vec::new)?;
            layer.try_room(20_000)?;
            layer.extend(0..20_000);
        }
        nested.prepare_commit(TOP + 1)?;
        nested.commit(TOP + 1);
        Ok(nested.layers().map(|(_, layer)| layer.len()).sum())
    };
    let count = refuse_each(commit, Result::is_err);
    assert!(count >= 3, "{count} large requests");
    assert_eq!(commit(), Ok(40_000));
}

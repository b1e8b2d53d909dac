//! Prints the hit rate of the cache beside that of an exact LRU of the same capacity.
//!
//! `cargo run --release -p state_cache_l1 --example hit_rate`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/suite/support.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod support;
#[path = "../tests/suite/trace.rs"]
mod trace;

use trace::{KEYS, compare, skewed, skewed_with_scans};

fn main() {
    const REQUESTS: usize = 2_000_000;
    println!(
        "{:<34} {:>10} {:>9} {:>8} {:>8} {:>6}",
        "trace", "partitions", "capacity", "L1", "LRU", "ratio"
    );
    for (name, trace) in [
        ("Zipf 0.99", skewed(REQUESTS, 1)),
        ("Zipf 0.99 with scans", skewed_with_scans(REQUESTS, 2)),
    ] {
        for (part, value_len) in [(10, 600), (10, 6_500), (100, 6_500)] {
            let rates = compare(&trace, KEYS / part, value_len);
            let label = format!("{name}, {} % of keys", 100 / part);
            println!(
                "{label:<34} {:>10} {:>9} {:>8.4} {:>8.4} {:>6.3}",
                rates.partitions,
                rates.capacity,
                rates.l1,
                rates.lru,
                rates.l1 / rates.lru
            );
        }
    }
}

//! Prints what a hit costs, beside a copy of as many bytes from a plain buffer.
//!
//! `cargo run --release -p state_cache_l1 --example latency`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/suite/support.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod support;

use std::hint::black_box;
use std::time::Instant;

use state_cache_l1::{Lookup, View, Want};
use support::{Cache, Random, key, pattern};

const ROUNDS: usize = 9;

/// Median over rounds of the nanoseconds that one call takes.
fn time(calls: u32, mut call: impl FnMut()) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..calls {
                call();
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

/// A cache that has been in use: entries of many sizes written and replaced until chunks lie scattered.
fn used() -> Cache {
    let cache = Cache::new(64 << 20);
    let mut random = Random(3);
    for i in 0..60_000 {
        let len = random.below(if i % 20 == 0 { 60_000 } else { 6_000 }) as usize;
        let name = format!("other {}", random.below(40_000));
        cache.put(&key(&name), i, &pattern(1, 1, len)).unwrap();
    }
    cache
}

fn main() {
    println!(
        "{:<46} {:>10} {:>10} {:>7}",
        "what", "ns", "memcpy ns", "ratio"
    );
    for (state, cache) in [("fresh", Cache::new(64 << 20)), ("scattered", used())] {
        for (size, len) in [("3 KB", 3_000), ("58 KB", 58_000)] {
            let value = pattern(2, 2, len);
            cache.put(&key("k"), 1, &value).unwrap();
            let name = key("k");
            let mut buffer = vec![0; len];
            let calls = (20_000_000 / len) as u32;
            let copy = time(calls, || {
                black_box(&mut buffer).copy_from_slice(black_box(&value))
            });
            let hit = time(calls, || {
                let found = cache.read(black_box(&name), Want::Value, black_box(&mut buffer));
                assert!(matches!(found, Lookup::Hit(_)));
            });
            println!(
                "{:<46} {hit:>10.0} {copy:>10.0} {:>7.2}",
                format!("read {size}, {state}"),
                hit / copy
            );
            let last = time(5_000, || {
                let mut four = [0; 4];
                let seen = cache.with_value(black_box(&name), |_, v| {
                    v.read(v.len() - 4, black_box(&mut four))
                });
                assert_eq!(seen, View::Hit(Some(())));
            });
            println!(
                "{:<46} {last:>10.0}",
                format!("last 4 bytes of {size}, {state}")
            );
            let write = time(calls.min(20_000), || {
                cache.put(&name, 1, black_box(&value)).unwrap()
            });
            println!(
                "{:<46} {write:>10.0} {copy:>10.0} {:>7.2}",
                format!("reserve and link {size}, {state}"),
                write / copy
            );
        }
    }
}

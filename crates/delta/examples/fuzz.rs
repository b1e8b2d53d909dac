//! Decodes millions of mutated stored forms and prints what it saw.
//!
//! `cargo run --release -p state_cache_delta --example fuzz -- [COUNT [SEED]]`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/delta/fuzz.rs"]
mod fuzz;
#[path = "../tests/delta/history.rs"]
mod history;
#[path = "../../document/tests/document/encoder.rs"]
mod jsonb;
#[path = "../../document/tests/document/random.rs"]
#[allow(dead_code, reason = "the tests of documents use more of it")]
mod random;
#[path = "../tests/delta/store.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod store;

use std::time::Instant;

/// Far more than the seeds and their documents take, far less than the sizes that mutated headers state.
const MOST_KIB: u64 = 64 << 10;

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<u64>().unwrap());
    let count = arguments.next().unwrap_or(10_000_000);
    let seed = arguments.next().unwrap_or(1);
    let start = Instant::now();
    let seen = fuzz::run(seed, count);
    println!("{seen:?} in {:.1} s", start.elapsed().as_secs_f64());
    // Linux's word for the most memory the process ever held, zstd's own included.
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.unwrap().trim().trim_end_matches(" kB");
        println!("at most {peak} KiB of memory");
        assert!(peak.parse::<u64>().unwrap() < MOST_KIB);
    }
}

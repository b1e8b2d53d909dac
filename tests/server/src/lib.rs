//! What the tests in `tests/suite` share: servers of their own ([`Server`]), a connection pooler ([`Proxy`]), wrong
//! clocks ([`Clock`]), short
//! ways to speak to them ([`Sql`]), and a check of the tables as a whole ([`inconsistencies`]).
//!
//! `STATE_CACHE_BIN` names the directory of the server's programs, the extension installed beside them
//! with the feature `fault_injection` (`make crash` sees to it). As root, the servers run as the user
//! `postgres`. They listen on a socket in a temporary directory only, and leave nothing behind, however
//! the tests end.
//!
//! What goes wrong here is a failed test, so everything panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clock;
mod consistency;
mod home;
mod proxy;
mod server;
mod sql;

pub use clock::Clock;
pub use consistency::inconsistencies;
pub use proxy::Proxy;
pub use server::{Server, Stopped, kill, limit_memory};
pub use sql::{Sql, code};

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take that happens by itself in the end. Generous: it is only ever waited for in
/// full when a test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `happened`, or panics after [`PATIENCE`].
pub fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Raises a flag when dropped, so that threads that wait for it end also when their test fails.
pub struct RaiseOnDrop<'a>(pub &'a AtomicBool);

impl Drop for RaiseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Numbers that look random and are the same in every run (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// A sequence of its own for each `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// The next number, below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    /// `len` hexadecimal digits, which compress to no less than half.
    pub fn digits(&mut self, len: usize) -> String {
        let mut text = String::with_capacity(len + 16);
        while text.len() < len {
            text.push_str(&format!("{:015x}", self.roll(1 << 60)));
        }
        text.truncate(len);
        text
    }
}

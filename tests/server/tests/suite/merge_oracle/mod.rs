//! An oracle of merges, which keeps its own base for every child: what parent and child had of each
//! variable when the child was created, and whenever it was merged or exported since. After every merge,
//! every completion with exports and every decision upon a conflict it says what all runs of the family
//! must have, and what was answered.
//!
//! What sets, appends and patches do is read from the server; only what merges make of it is said here.
//! The same seed makes the same history; `STATE_CACHE_ORACLE_SEED` repeats one, and
//! `STATE_CACHE_ORACLE_SECONDS` sets how long it plays.

mod family;
mod oracle;
mod turns;
mod values;

use family::Family;
use state_cache_server_tests::{Server, inconsistencies};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How many seconds the suite plays.
const SUITE: u64 = 12;
/// How many seconds the soak plays.
const SOAK: u64 = 300;
/// Whatever the time, so many families are played, in which all that can happen has happened.
const AT_LEAST: u64 = 30;

fn merges_are_as_the_oracle_says(first: u64, seconds: u64) {
    let limit = std::env::var("STATE_CACHE_ORACLE_SECONDS");
    let limit = limit.map_or(seconds, |text| text.parse().unwrap());
    let limit = Duration::from_secs(limit);
    let server = Server::new(&["synchronous_commit = off"]);
    let mut client = server.connect();
    let one = std::env::var("STATE_CACHE_ORACLE_SEED").ok();
    let one: Option<u64> = one.map(|text| text.parse().unwrap());
    let (start, mut counts) = (Instant::now(), BTreeMap::<String, u64>::new());
    let mut families = 0;
    while families < AT_LEAST || start.elapsed() < limit {
        let seed = one.unwrap_or(first + families);
        let played = Family::new(&mut client, seed).play();
        let played = played.unwrap_or_else(|what| panic!("STATE_CACHE_ORACLE_SEED={seed}: {what}"));
        for (what, count) in played {
            *counts.entry(what).or_default() += count;
        }
        families += 1;
        if one.is_some() {
            return;
        }
    }
    println!("{families} families: {counts:?}");
    for what in [
        "histories",
        "merge",
        "export",
        "transformed",
        "resolved",
        "resolved to the child's",
        "changed after the resolution",
        "superseded",
        "set back by the parent",
        "removed from the parent",
        "appended by both",
        "merged after the end",
        "not changed by the child",
        "only the child changed it",
        "both made the same change",
        "it is immutable in the parent",
        "it is blocked by an open conflict",
        "both changed it, the parent wins",
        "both changed it, the child wins",
        "both changed it, the parent's value is later",
        "both changed it, the parent's value is not later",
        "both changed it, the objects were merged",
        "both changed it, the arrays were concatenated",
        "both changed it, a person decides",
    ] {
        assert!(counts.contains_key(what), "never seen: {what}: {counts:?}");
    }
    assert_eq!(inconsistencies(&mut client), Vec::<Vec<String>>::new());
}

#[test]
fn merges_exports_and_resolutions_are_as_an_oracle_says() {
    merges_are_as_the_oracle_says(0, SUITE);
}

#[test]
#[ignore = "soak"]
fn many_merges_exports_and_resolutions_are_as_an_oracle_says() {
    merges_are_as_the_oracle_says(1_000_000, SOAK);
}

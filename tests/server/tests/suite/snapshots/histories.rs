//! Generated histories of all kinds beside a model: documents are saved, set and updated, versions pruned,
//! restored and recovered, classes redefined, with L1 warm and cold.
//!
//! A difference is shown with its seed and all statements; `STATE_CACHE_HISTORY_SEED` repeats one seed.

use super::case::{Case, TRUTH};
use state_cache_server_tests::{Server, Sql, eventually};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Histories of the suite, and of the soak test.
const HISTORIES: (u64, u64) = (220, 5500);
/// Sessions that run cases at the same time.
const WORKERS: usize = 2;

/// What must have happened in some case, or the test is not what it claims to be.
const WAYS: [&str; 16] = [
    "saved",
    "unchanged",
    "deferred",
    "skipped",
    "update",
    "restored",
    "recovered",
    "deleted",
    "undone",
    "pruned",
    "through",
    "behind",
    "whole",
    "compressed",
    "delta",
    "nothing to prune",
];

/// Waits until the worker has looked for snapshots that are too many. It does so once an hour; from then on only
/// the cases prune.
fn await_upkeep(server: &Server) {
    let mut client = server.connect();
    client.run(
        "BEGIN; SELECT state_set('two', '1', class => 'swarm'); COMMIT;
         BEGIN; SELECT state_set('two', '2', class => 'swarm'); COMMIT;
         INSERT INTO state_snapshot (class, key, version, hash, state) VALUES ('swarm', 'two', 1, state_hash('1'), \
         '1')",
    );
    drop(client);
    server.stop();
    server.start();
    let mut client = server.connect();
    eventually("the worker to prune", || {
        client.number("SELECT count(*) FROM state_snapshot WHERE class = 'swarm'") == 0
    });
}

fn histories(count: u64) {
    let server = Server::new(&["state_cache.memory = '4MB'", "synchronous_commit = off"]);
    await_upkeep(&server);
    server.connect().run(TRUTH);
    let one = std::env::var("STATE_CACHE_HISTORY_SEED").ok();
    let seeds = one.map_or(0..count, |text| {
        let seed = text.parse().unwrap();
        seed..seed + 1
    });
    let next = AtomicU64::new(seeds.start);
    let differences: Mutex<Vec<String>> = Mutex::default();
    let seen: Mutex<BTreeMap<String, usize>> = Mutex::default();
    std::thread::scope(|threads| {
        for worker in 0..WORKERS {
            let (server, seeds, next, differences, seen) =
                (&server, &seeds, &next, &differences, &seen);
            threads.spawn(move || {
                let class = format!("histories {worker}");
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if !seeds.contains(&seed) || !differences.lock().unwrap().is_empty() {
                        return;
                    }
                    let mut case = Case::new(server, seed, &class);
                    if let Err(difference) = case.run() {
                        differences.lock().unwrap().push(difference);
                    }
                    let mut seen = seen.lock().unwrap();
                    for (way, times) in &case.seen {
                        *seen.entry(way.clone()).or_default() += times;
                    }
                }
            });
        }
    });
    let seen = seen.into_inner().unwrap();
    println!("{} histories: {seen:?}", seeds.end - seeds.start);
    if let Some(difference) = differences.into_inner().unwrap().first() {
        panic!("{difference}");
    }
    if seeds.end - seeds.start > 1 {
        for way in WAYS {
            assert!(seen.contains_key(way), "{way} never happened");
        }
    }
}

#[test]
fn every_kept_version_of_generated_histories_reads_back() {
    histories(HISTORIES.0);
}

#[test]
#[ignore = "soak"]
fn every_kept_version_of_thousands_of_generated_histories_reads_back() {
    histories(HISTORIES.1);
}

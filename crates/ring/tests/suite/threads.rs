//! Writers and readers at the same time.

use crate::support::{Memory, bytes};
use state_cache_ring::{Change, Record, decode};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const WRITERS: u32 = 3;
const READERS: usize = 2;
const RECORDS: i64 = 50_000;

/// A key whose every byte follows from the version, of a length that does so too.
fn key(version: i64) -> Vec<u8> {
    vec![version as u8; 1 + version as usize % 37]
}

/// Reads until the writers are done and all is read; how often it was lapped, and how many records it read.
/// `late`: every other time it waits until the writers are about to overwrite what it reads. Counts itself in
/// `satisfied` when it has been lapped and has read something.
fn follow(ring: &Memory, done: &AtomicBool, satisfied: &AtomicUsize, late: bool) -> (u64, u64) {
    let (mut from, mut buffer) = (0, Vec::new());
    let (mut lapped, mut count) = (0, 0);
    let mut last = [None::<i64>; WRITERS as usize];
    let (mut waits, mut counted) = (late, false);
    loop {
        if !counted && lapped > 0 && count > 0 {
            counted = true;
            satisfied.fetch_add(1, Ordering::SeqCst);
        }
        let finished = done.load(Ordering::SeqCst);
        let wanted = match (late, waits) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => ring.capacity() as u64 - 200,
        };
        if !finished && ring.head() - from < wanted {
            std::hint::spin_loop();
            continue;
        }
        waits = !waits;
        let Ok(next) = ring.read(from, ring.capacity(), &mut buffer) else {
            lapped += 1;
            last = Default::default();
            from = ring.head();
            continue;
        };
        for record in decode(&buffer) {
            let record = record.unwrap();
            let Change::Set(version) = record.change else {
                panic!("{record:?}");
            };
            assert_eq!(record.key, key(version), "a torn record");
            let last = &mut last[record.database as usize];
            // From one record of a writer to the next nothing is missing, unless the reader was told so.
            assert!(last.is_none_or(|last| version == last + 1), "a gap");
            *last = Some(version);
            count += 1;
        }
        if finished && from == next {
            return (lapped, count);
        }
        from = next;
    }
}

fn run(capacity: usize, late: bool) -> Vec<(u64, u64)> {
    let ring = Memory::new(capacity);
    let (done, satisfied, ring) = (AtomicBool::new(false), AtomicUsize::new(0), &ring);
    std::thread::scope(|threads| {
        let (done, satisfied) = (&done, &satisfied);
        let readers: Vec<_> = (0..READERS)
            .map(|_| threads.spawn(move || follow(ring, done, satisfied, late)))
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|database| {
                threads.spawn(move || {
                    for version in 0.. {
                        // Late readers see what they are to see only when the scheduler lets them.
                        let waits = late && satisfied.load(Ordering::SeqCst) < READERS;
                        if version >= RECORDS && !waits {
                            break;
                        }
                        let key = key(version);
                        let record = Record {
                            database,
                            class: b"run",
                            key: &key,
                            change: Change::Set(version),
                        };
                        ring.append(&bytes(&[record]), drop);
                    }
                })
            })
            .collect();
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::SeqCst);
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect()
    })
}

#[test]
fn readers_of_a_large_ring_get_everything() {
    for (lapped, count) in run(8 << 20, false) {
        assert_eq!((lapped, count), (0, u64::from(WRITERS) * RECORDS as u64));
    }
}

#[test]
fn readers_of_a_small_ring_get_whole_records_and_are_told_of_gaps() {
    for (lapped, count) in run(32 << 10, true) {
        assert!(lapped > 0 && count > 0, "{lapped} {count}");
    }
}

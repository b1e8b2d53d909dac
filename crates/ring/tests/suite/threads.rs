//! Writers and readers at the same time.

use crate::support::{Memory, bytes};
use state_cache_ring::{Change, Record, decode};
use std::sync::atomic::{AtomicBool, Ordering};

const WRITERS: u32 = 3;
const RECORDS: i64 = 50_000;

/// A key whose every byte follows from the version, of a length that does so too.
fn key(version: i64) -> Vec<u8> {
    vec![version as u8; 1 + version as usize % 37]
}

/// Reads until the writers are done and all is read; how often it was lapped, and how many records it read.
/// `late`: waits until the writers are about to overwrite what it reads.
fn follow(ring: &Memory, done: &AtomicBool, late: bool) -> (u64, u64) {
    let (mut from, mut buffer) = (0, Vec::new());
    let (mut lapped, mut count) = (0, 0);
    let mut last = [None::<i64>; WRITERS as usize];
    loop {
        let finished = done.load(Ordering::SeqCst);
        let near = ring.capacity() as u64 - 200;
        if late && !finished && ring.head() - from < near {
            std::hint::spin_loop();
            continue;
        }
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
    let (done, ring) = (AtomicBool::new(false), &ring);
    std::thread::scope(|threads| {
        let done = &done;
        let readers: Vec<_> = (0..2)
            .map(|_| threads.spawn(move || follow(ring, done, late)))
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|database| {
                threads.spawn(move || {
                    for version in 0..RECORDS {
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

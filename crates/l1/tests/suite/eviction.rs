//! Who goes when there is no room.

use std::sync::atomic::Ordering::Relaxed;

use state_cache_l1::{
    CHUNK, COUNTER_EVICTIONS, COUNTER_EXPIRATIONS, ClassId, MIN_MEMORY, NewEntry, Refused,
};

use crate::support::{Cache, DB, key, new_entry};

/// A cache of one partition, full of entries of one chunk with names from 0 up; the first evicted is
/// the next that is put.
fn full() -> (Cache, u64) {
    let cache = Cache::new(MIN_MEMORY);
    assert_eq!(cache.geometry().partitions(), 1);
    let mut n = 0;
    while cache.memory().free > 0 {
        cache.put(&key(&n.to_string()), 1, b"v").unwrap();
        n += 1;
    }
    assert_eq!(evictions(&cache), 0);
    (cache, n)
}

fn evictions(cache: &Cache) -> u64 {
    cache.counters(ClassId::OTHER)[COUNTER_EVICTIONS].load(Relaxed)
}

#[test]
fn the_oldest_entry_without_a_hit_goes_first() {
    let (cache, _) = full();
    for name in ["0", "1", "3"] {
        assert!(cache.has(&key(name)));
    }
    cache.put(&key("new 1"), 1, b"v").unwrap();
    cache.put(&key("new 2"), 1, b"v").unwrap();
    let gone: Vec<_> = (0..6)
        .filter(|i| !cache.has(&key(&i.to_string())))
        .collect();
    assert_eq!(gone, [2, 4]);
}

#[test]
fn the_hand_goes_on_where_it_stopped() {
    let (cache, _) = full();
    assert!(cache.has(&key("0")));
    cache.put(&key("new 1"), 1, b"v").unwrap();
    // 0 lost its bit when the hand passed; still 2 is next, not 0.
    cache.put(&key("new 2"), 1, b"v").unwrap();
    let gone: Vec<_> = (0..6)
        .filter(|i| !cache.has(&key(&i.to_string())))
        .collect();
    assert_eq!(gone, [1, 2]);
}

#[test]
fn a_cache_where_everything_was_hit_still_evicts() {
    let (cache, n) = full();
    for i in 0..n {
        assert!(cache.has(&key(&i.to_string())));
    }
    cache.put(&key("new"), 1, b"v").unwrap();
    assert!(cache.has(&key("new")) && !cache.has(&key("0")));
    assert_eq!(evictions(&cache), 1);
}

#[test]
fn a_new_version_keeps_the_place_of_the_old_one_and_counts_as_a_hit() {
    let (cache, _) = full();
    cache.put(&key("0"), 2, b"w").unwrap();
    // Room for it came from 0 itself or from 1, never from a third.
    cache.put(&key("new"), 1, b"v").unwrap();
    assert_eq!(cache.get(&key("0")), Some((2, b"w".to_vec())));
    assert!(cache.has(&key("3")));
    assert_eq!(cache.verify().unwrap().elsewhere, 0);
}

#[test]
fn expired_entries_go_at_once_and_are_counted_as_such() {
    let cache = Cache::new(MIN_MEMORY);
    let class = cache.class_record(DB, b"run");
    let mut n: i64 = 0;
    while cache.memory().free > 0 {
        let name = n.to_string();
        let entry = NewEntry {
            expires_at: if n % 2 == 0 { 100 } else { i64::MAX },
            loaded_at: 0,
            ..new_entry(key(&name), class, 1, b"v")
        };
        let block = cache.reserve(&entry).unwrap();
        cache.link_now(&key(&name), block);
        assert!(cache.has(&key(&name)));
        n += 1;
    }
    for i in 0..10 {
        let entry = NewEntry {
            loaded_at: 100,
            ..new_entry(key("new"), class, i, b"v")
        };
        let block = cache.reserve(&entry).unwrap();
        cache.discard(block);
    }
    // One is enough: the block discarded makes room for the next.
    assert_eq!(cache.counters(class)[COUNTER_EXPIRATIONS].load(Relaxed), 1);
    assert_eq!(cache.counters(class)[COUNTER_EVICTIONS].load(Relaxed), 0);
    assert!(!cache.has(&key("0")));
}

#[test]
fn stale_entries_go_although_they_were_hit() {
    let (cache, _) = full();
    for i in 0..3 {
        assert!(cache.has(&key(&i.to_string())));
    }
    cache.domain(DB).publish();
    cache.put(&key("new"), 1, b"v").unwrap();
    assert_eq!((evictions(&cache), cache.has(&key("new"))), (1, true));
}

#[test]
fn a_large_value_is_admitted_to_a_cache_full_of_small_ones() {
    let (cache, n) = full();
    let len = 1000 * CHUNK - 1000;
    cache
        .put(&key("large"), 1, &vec![1; len - len / 60])
        .unwrap();
    assert!(cache.has(&key("large")));
    let kept = cache.memory().entries - 1;
    assert!(kept >= n - 1000, "{kept} of {n}");
    assert_eq!(cache.verify().unwrap().elsewhere, 0);
}

#[test]
fn a_cache_whose_chunks_are_all_reserved_is_full_and_recovers() {
    let cache = Cache::new(MIN_MEMORY);
    let large = vec![0; 200_000];
    let mut blocks = Vec::new();
    let refused = loop {
        match cache.reserve(&new_entry(key("k"), ClassId::OTHER, 1, &large)) {
            Ok(block) => blocks.push(block),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, Refused::Full);
    // All that could be reserved was, and the failed attempt gave its part back.
    let report = cache.verify().unwrap();
    assert!(
        blocks.len() >= 4 && report.free < report.elsewhere / blocks.len() as u64,
        "{report:?}"
    );
    for block in blocks {
        cache.discard(block);
    }
    assert_eq!(cache.put(&key("k"), 1, &large), Ok(()));
    assert_eq!(cache.verify().unwrap().elsewhere, 0);
}

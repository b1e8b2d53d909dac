//! Class records, their limits, and databases that go away.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use state_cache_l1::{
    COUNTER_EVICTIONS, COUNTERS, ClassId, DirtyBefore, L1, Locks, MIN_MEMORY, NewEntry, Refused,
};

use crate::support::{Cache, DB, INCARNATION, key, key_in, new_entry};

fn limited<'a>(name: &'a str, class: ClassId, max: u32) -> NewEntry<'a> {
    NewEntry {
        max_entries: Some(max),
        ..new_entry(key(name), class, 1, b"v")
    }
}

fn link(cache: &L1<impl Locks>, entry: &NewEntry<'_>) {
    let block = cache.reserve(entry).unwrap();
    cache.link(block, cache.note(&entry.key), DirtyBefore::TakenOver);
}

fn classes_of(cache: &Cache, db: u32) -> HashSet<(Vec<u8>, ClassId)> {
    let mut found = HashSet::new();
    cache
        .for_each_class(db, |name, id| assert!(found.insert((name.to_vec(), id))))
        .unwrap();
    found
}

#[test]
fn a_class_has_one_record_per_database() {
    let cache = Cache::new(MIN_MEMORY);
    let run = cache.class_record(DB, b"run");
    let swarm = cache.class_record(DB, b"swarm");
    let elsewhere = cache.class_record(DB + 1, b"run");
    assert_eq!(cache.class_record(DB, b"run"), run);
    assert_eq!(
        HashSet::from([run, swarm, elsewhere, ClassId::OTHER]).len(),
        4
    );
    cache.counters(run)[COUNTERS - 1].fetch_add(3, Relaxed);
    assert_eq!(cache.counters(run)[COUNTERS - 1].load(Relaxed), 3);
    assert_eq!(cache.counters(swarm)[COUNTERS - 1].load(Relaxed), 0);
    assert_eq!(
        classes_of(&cache, DB),
        HashSet::from([(b"run".to_vec(), run), (b"swarm".to_vec(), swarm)])
    );
    assert_eq!(cache.verify().unwrap().in_classes, 8);
}

#[test]
fn ten_thousand_classes_in_the_smallest_cache_share_a_record_in_the_end() {
    let cache = Cache::new(MIN_MEMORY);
    let ids: Vec<_> = (0..10_000)
        .map(|i| cache.class_record(DB, format!("c{i}").as_bytes()))
        .collect();
    assert_eq!(ids[9_999], ClassId::OTHER);
    let own = ids.iter().filter(|id| **id != ClassId::OTHER).count();
    let chunks = u64::from(cache.geometry().chunks());
    let report = cache.verify().unwrap();
    assert_eq!(report.in_classes, 2 * own as u64 + 2);
    assert!(report.in_classes <= chunks / 8 && report.in_classes + 2 > chunks / 8);
    // Those that have one keep it.
    assert_eq!(cache.class_record(DB, b"c0"), ids[0]);
    assert_eq!(cache.class_record(DB, &[b'x'; 64]), ClassId::OTHER);
}

#[test]
fn class_records_are_made_in_a_cache_that_is_full() {
    let cache = Cache::new(MIN_MEMORY);
    for i in 0..5_000 {
        cache.put(&key(&format!("{i}")), 1, b"small").unwrap();
    }
    assert_eq!(cache.memory().free, 0);
    assert_ne!(cache.class_record(DB, b"late"), ClassId::OTHER);
    assert_eq!(cache.verify().unwrap().elsewhere, 0);
}

#[test]
fn a_class_never_has_more_entries_than_its_limit() {
    let cache = Cache::new(8 << 20);
    assert!(cache.geometry().partitions() > 1);
    let class = cache.class_record(DB, b"run");
    let other = cache.class_record(DB, b"other");
    for i in 0..200 {
        link(
            &cache,
            &new_entry(
                key_in(DB, INCARNATION, b"other", format!("{i}").as_bytes()),
                other,
                1,
                b"",
            ),
        );
    }
    for i in 0..500 {
        link(&cache, &limited(&format!("{i}"), class, 100));
        assert_eq!(cache.gauges(class).0, (i + 1).min(100));
    }
    assert!(cache.has(&key("499")));
    assert_eq!(cache.counters(class)[COUNTER_EVICTIONS].load(Relaxed), 400);
    assert_eq!(cache.gauges(other).0, 200);
    assert_eq!(cache.counters(other)[COUNTER_EVICTIONS].load(Relaxed), 0);
    assert_eq!(cache.verify().unwrap().elsewhere, 0);
}

#[test]
fn a_new_version_at_the_limit_evicts_nothing() {
    let cache = Cache::new(MIN_MEMORY);
    let class = cache.class_record(DB, b"run");
    for name in ["a", "b", "c", "a", "b", "c", "c"] {
        link(&cache, &limited(name, class, 3));
    }
    assert!(["a", "b", "c"].iter().all(|name| cache.has(&key(name))));
    assert_eq!(cache.counters(class)[COUNTER_EVICTIONS].load(Relaxed), 0);
}

#[test]
fn a_new_version_of_what_was_evicted_meanwhile_does_not_exceed_the_limit() {
    for fill in [false, true] {
        let cache = Cache::new(MIN_MEMORY);
        let class = cache.class_record(DB, b"run");
        link(&cache, &limited("a", class, 2));
        link(&cache, &limited("b", class, 2));
        let token = cache.fill_token(&key("a")).unwrap();
        let block = cache.reserve(&limited("a", class, 2)).unwrap();
        cache.remove(&key("a"));
        let other = cache.reserve(&limited("c", class, 2)).unwrap();
        cache.link_now(&key("c"), other);
        match fill {
            true => assert!(!cache.link_if_unchanged(block, token)),
            false => cache.link_now(&key("a"), block),
        }
        assert!(!cache.has(&key("a")));
        assert_eq!(cache.gauges(class).0, 2);
        assert_eq!(cache.verify().unwrap().elsewhere, 0);
    }
}

#[test]
fn blocks_reserved_together_count_towards_the_limit() {
    let cache = Cache::new(MIN_MEMORY);
    let class = cache.class_record(DB, b"run");
    let a = cache.reserve(&limited("a", class, 2)).unwrap();
    let b = cache.reserve(&limited("b", class, 2)).unwrap();
    assert_eq!(
        cache.reserve(&limited("c", class, 2)).unwrap_err(),
        Refused::Full
    );
    cache.discard(a);
    let c = cache.reserve(&limited("c", class, 2)).unwrap();
    cache.link_now(&key("b"), b);
    cache.link_now(&key("c"), c);
    assert_eq!(cache.gauges(class).0, 2);
    // Linked ones can make room.
    link(&cache, &limited("d", class, 2));
    assert_eq!((cache.gauges(class).0, cache.has(&key("d"))), (2, true));
    assert_eq!(
        cache.reserve(&limited("e", class, 0)).unwrap_err(),
        Refused::Full
    );
}

#[test]
fn removing_by_predicate_sees_every_entry_of_the_incarnation() {
    let cache = Cache::new(4 << 20);
    let class = cache.class_record(DB, b"run");
    for i in 0..300 {
        link(&cache, &new_entry(key(&format!("{i}")), class, i, b"v"));
    }
    cache
        .put(&key_in(DB, INCARNATION + 1, b"run", b"7"), 7, b"")
        .unwrap();
    cache
        .put(&key_in(DB + 1, INCARNATION, b"run", b"7"), 7, b"")
        .unwrap();
    let mut asked = 0;
    let removed = cache.remove_if(DB, INCARNATION, |class, key, info| {
        asked += 1;
        assert_eq!(
            (class, key),
            (b"run".as_slice(), info.version.to_string().as_bytes())
        );
        info.version % 3 == 0
    });
    assert_eq!((asked, removed, cache.gauges(class).0), (300, 100, 200));
    assert!(!cache.has(&key("3")) && cache.has(&key("4")));
    assert_eq!(cache.counters(class)[COUNTER_EVICTIONS].load(Relaxed), 100);
    let mut listed = HashSet::new();
    cache
        .for_each(DB, INCARNATION, |_, key, info| {
            assert!(listed.insert((key.to_vec(), info.version)));
        })
        .unwrap();
    assert_eq!(listed.len(), 200);
    assert_eq!(cache.verify().unwrap().entries, 202);
}

#[test]
fn a_removed_database_leaves_nothing_and_its_records_are_used_again() {
    let cache = Cache::new(MIN_MEMORY);
    let mut ids = HashSet::new();
    for name in [b"run".as_slice(), b"swarm", b"config"] {
        let class = cache.class_record(DB, name);
        cache.counters(class)[5].fetch_add(9, Relaxed);
        link(
            &cache,
            &new_entry(key_in(DB, INCARNATION, name, b"k"), class, 1, b"v"),
        );
        ids.insert(class);
    }
    let elsewhere = key_in(DB + 1, INCARNATION, b"run", b"k");
    let kept = cache.class_record(DB + 1, b"run");
    link(&cache, &new_entry(elsewhere, kept, 1, b"v"));
    cache.remove_database(DB);
    assert_eq!(classes_of(&cache, DB), HashSet::new());
    assert_eq!((cache.memory().entries, cache.has(&elsewhere)), (1, true));
    let chunks = cache.verify().unwrap().in_classes;
    for name in [b"a", b"b", b"c"] {
        let class = cache.class_record(DB + 2, name);
        assert!(ids.remove(&class));
        assert_eq!(
            (cache.gauges(class), cache.counters(class)[5].load(Relaxed)),
            ((0, 0), 0)
        );
    }
    assert_eq!(cache.verify().unwrap().in_classes, chunks);
    assert_eq!(cache.class_record(DB + 1, b"run"), kept);
}

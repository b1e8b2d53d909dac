//! What the worker that writes dirty entries calls: list, park, mark clean; and what drops them.

use std::sync::atomic::Ordering::Relaxed;

use state_cache_l1::{COUNTER_EVICTIONS, ClassId, Cleaned, EntryInfo, MIN_MEMORY, NewEntry};

use crate::dirty::{behind, dirty_chunks, dirty_entry, dirty_of, info, link, put_dirty};
use crate::support::{Cache, DB, INCARNATION, key, key_in};

#[test]
fn an_entry_marked_clean_is_a_victim_like_any() {
    let cache = Cache::new(MIN_MEMORY);
    let before = put_dirty(&cache, "k", 4);
    put_dirty(&cache, "other", 4);
    cache
        .attach_text(&key("k"), before.serial, b"text")
        .unwrap();
    let cleaned = cache.mark_clean(&key("k"), before.serial, 6, 99, 4);
    assert_eq!(cleaned, Cleaned::Clean);
    let after = info(&cache, &key("k")).unwrap();
    let expected = EntryInfo {
        version: 6,
        head_xid: 99,
        doc_xid: 99,
        text_len: Some(4),
        bytes: 512,
        dirty: None,
        ..before
    };
    assert_eq!(after, expected);
    assert_eq!(cache.get(&key("k")), Some((6, b"v".to_vec())));
    let report = cache.verify().unwrap();
    assert_eq!((report.entries, report.dirty, report.in_dirty), (2, 1, 1));
    // All of them hit, so that the hand comes round again.
    for i in 0..10_000 {
        cache.put(&key(&i.to_string()), 1, b"v").unwrap();
        assert!(cache.has(&key(&i.to_string())));
    }
    assert!(!cache.has(&key("k")) && cache.has(&key("other")));
}

#[test]
fn marking_an_older_version_leaves_the_newer_one_dirty() {
    let cache = Cache::new(MIN_MEMORY);
    let old = link(&cache, &dirty_entry("k", 5, b"a", behind(100, 4)));
    let new = link(&cache, &dirty_entry("k", 8, b"b", behind(300, 4)));
    assert_eq!(new.dirty, Some(behind(100, 4)));
    let mark_clean = |read_at| cache.mark_clean(&key("k"), old.serial, 6, 99, read_at);
    assert_eq!(mark_clean(200), Cleaned::Newer);
    assert_eq!(dirty_of(&cache, "k"), Some(behind(200, 6)));
    // A clock that stepped back makes nothing older.
    assert_eq!(mark_clean(150), Cleaned::Newer);
    let after = info(&cache, &key("k")).unwrap();
    assert_eq!(after.dirty, Some(behind(200, 6)));
    assert_eq!((after.version, after.head_xid), (8, new.head_xid));
    assert_eq!(dirty_chunks(&cache), 1);
}

#[test]
fn there_is_nothing_to_mark_clean_without_a_dirty_entry() {
    let cache = Cache::new(MIN_MEMORY);
    let old = put_dirty(&cache, "k", 4);
    let mark_clean = || cache.mark_clean(&key("k"), old.serial, 9, 99, 4);
    assert_eq!(mark_clean(), Cleaned::Clean);
    assert_eq!(mark_clean(), Cleaned::Gone);
    cache.put(&key("k"), 20, b"v").unwrap();
    assert_eq!(mark_clean(), Cleaned::Gone);
    assert_eq!(info(&cache, &key("k")).unwrap().version, 20);
    cache.remove(&key("k"));
    assert_eq!(mark_clean(), Cleaned::Gone);
    assert_eq!(cache.verify().unwrap().entries, 0);
}

#[test]
fn only_the_dirty_entry_with_the_serial_is_parked() {
    let cache = Cache::new(MIN_MEMORY);
    let old = put_dirty(&cache, "k", 4);
    let new = put_dirty(&cache, "k", 5);
    assert!(!cache.set_parked(&key("k"), old.serial, true));
    assert!(!cache.set_parked(&key("absent"), new.serial, true));
    assert!(!dirty_of(&cache, "k").unwrap().parked);
    assert!(cache.set_parked(&key("k"), new.serial, true));
    assert!(dirty_of(&cache, "k").unwrap().parked);
    cache.verify().unwrap();
    assert!(cache.set_parked(&key("k"), new.serial, false));
    assert!(!dirty_of(&cache, "k").unwrap().parked);
    assert!(cache.set_parked(&key("k"), new.serial, true));
    cache.mark_clean(&key("k"), new.serial, 5, 7, 5);
    assert_eq!(dirty_of(&cache, "k"), None);
    assert!(!cache.set_parked(&key("k"), new.serial, true));
    cache.verify().unwrap();
}

#[test]
fn dropping_takes_the_dirty_entries_asked_for() {
    let cache = Cache::new(4 << 20);
    let elsewhere = |db, incarnation| NewEntry {
        key: key_in(db, incarnation, b"run", b"1"),
        ..dirty_entry("1", 1, b"v", behind(1, 0))
    };
    link(&cache, &elsewhere(DB, INCARNATION + 1));
    link(&cache, &elsewhere(DB + 1, INCARNATION));
    for i in 0..40 {
        put_dirty(&cache, &format!("d{i}"), 1);
        cache.put(&key(&i.to_string()), 1, b"v").unwrap();
    }
    let mut asked = 0;
    let dropped = cache.drop_dirty(DB, |incarnation, class, key| {
        asked += 1;
        assert_eq!(class, b"run");
        assert_eq!(incarnation == INCARNATION, key.starts_with(b"d"));
        key.ends_with(b"1")
    });
    // d1, d11, d21, d31 and that of the other incarnation.
    assert_eq!((asked, dropped), (41, 5));
    let report = cache.verify().unwrap();
    assert_eq!((report.entries, report.dirty), (77, 37));
    assert!(cache.has(&key("11")) && !cache.has(&key("d11")) && cache.has(&key("d12")));
    assert!(cache.has(&elsewhere(DB + 1, INCARNATION).key));
    assert_eq!(
        cache.counters(ClassId::OTHER)[COUNTER_EVICTIONS].load(Relaxed),
        0
    );
}

#[test]
fn dirty_entries_are_listed_by_incarnation_the_oldest_first() {
    let cache = Cache::new(MIN_MEMORY);
    assert_eq!(cache.geometry().partitions(), 1);
    for (name, since) in [("c", 30), ("a", 10), ("d", 40), ("b", 20)] {
        link(&cache, &dirty_entry(name, since, b"v", behind(since, 3)));
        cache.put(&key(&format!("clean {name}")), 1, b"v").unwrap();
    }
    let other = NewEntry {
        key: key_in(DB, INCARNATION + 1, b"run", b"x"),
        ..dirty_entry("x", 1, b"v", behind(1, 0))
    };
    link(&cache, &other);
    let list = |incarnation| {
        let mut found = Vec::new();
        cache
            .for_each_dirty(DB, incarnation, |class, key, info| {
                assert_eq!(class, b"run");
                // No lock is held: the worker may mark it clean right here.
                assert_eq!(
                    cache.mark_clean(
                        &key_in(DB, incarnation, class, key),
                        info.serial,
                        info.version,
                        7,
                        1
                    ),
                    Cleaned::Clean
                );
                found.push((key.to_vec(), info.dirty.unwrap()));
            })
            .unwrap();
        found
    };
    let expected = [("a", 10), ("b", 20), ("c", 30), ("d", 40)]
        .map(|(name, since)| (name.as_bytes().to_vec(), behind(since, 3)));
    assert_eq!(list(INCARNATION), expected);
    assert_eq!(list(INCARNATION), []);
    assert_eq!(list(INCARNATION + 1), [(b"x".to_vec(), behind(1, 0))]);
}

#[test]
fn a_removed_database_leaves_no_dirty_entries() {
    let cache = Cache::new(4 << 20);
    let class = cache.class_record(DB, b"run");
    for i in 0..20 {
        let name = format!("d{i}");
        let entry = NewEntry {
            class,
            ..dirty_entry(&name, 1, b"v", behind(1, 0))
        };
        link(&cache, &entry);
    }
    let elsewhere = NewEntry {
        key: key_in(DB + 1, INCARNATION, b"run", b"k"),
        ..dirty_entry("k", 1, b"v", behind(1, 0))
    };
    link(&cache, &elsewhere);
    assert_eq!(cache.dirty(class), 20);
    cache.remove_database(DB);
    assert_eq!(cache.class_record(DB + 2, b"again"), class);
    assert_eq!(cache.dirty(class), 0);
    let report = cache.verify().unwrap();
    assert_eq!((report.entries, report.dirty), (1, 1));
    assert_eq!(dirty_chunks(&cache), 1);
}

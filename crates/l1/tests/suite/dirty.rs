//! Dirty entries: what they survive, what replaces them, and what they cost.

use std::sync::atomic::Ordering::Relaxed;

use state_cache_l1::{
    COUNTER_EVICTIONS, COUNTER_EXPIRATIONS, ClassId, Cleaned, DIRTY_SHARE, Dirty, EntryInfo, Key,
    Lookup, MIN_MEMORY, NewEntry, Refused, Want,
};

use crate::support::{Cache, DB, INCARNATION, key, new_entry};

pub fn behind(since: i64, base: i64) -> Dirty {
    Dirty {
        since,
        base,
        owner: 10,
        beside: 0,
        parked: false,
    }
}

pub fn dirty_entry<'a>(name: &'a str, version: i64, value: &'a [u8], dirty: Dirty) -> NewEntry<'a> {
    NewEntry {
        dirty: Some(dirty),
        ..new_entry(key(name), ClassId::OTHER, version, value)
    }
}

pub fn link(cache: &Cache, entry: &NewEntry<'_>) -> EntryInfo {
    let block = cache.reserve(entry).unwrap();
    cache.link_now(&entry.key, block);
    info(cache, &entry.key).unwrap()
}

pub fn put_dirty(cache: &Cache, name: &str, version: i64) -> EntryInfo {
    link(
        cache,
        &dirty_entry(name, version, b"v", behind(version, version - 1)),
    )
}

pub fn info(cache: &Cache, key: &Key<'_>) -> Option<EntryInfo> {
    match cache.read(key, Want::Info, &mut []) {
        Lookup::Hit(info) => Some(info),
        _ => None,
    }
}

pub fn dirty_of(cache: &Cache, name: &str) -> Option<Dirty> {
    info(cache, &key(name)).and_then(|info| info.dirty)
}

/// As many dirty entries `d0`, `d1`, ... as are admitted.
fn fill_dirty(cache: &Cache) -> i64 {
    let mut n = 0;
    loop {
        let name = format!("d{n}");
        match cache.reserve(&dirty_entry(&name, 1, b"v", behind(1, 0))) {
            Ok(block) => cache.link_now(&key(&name), block),
            Err(refused) => {
                assert_eq!(refused, Refused::Full);
                return n;
            }
        }
        n += 1;
    }
}

fn all_dirty(cache: &Cache, n: i64) -> bool {
    (0..n).all(|i| dirty_of(cache, &format!("d{i}")).is_some())
}

pub fn dirty_chunks(cache: &Cache) -> u64 {
    let report = cache.verify().unwrap();
    if report.elsewhere == 0 {
        assert_eq!(cache.memory().dirty, report.in_dirty * 256);
    }
    cache.memory().dirty / 256
}

#[test]
fn dirty_entries_get_half_of_the_chunks_and_no_more() {
    let cache = Cache::new(MIN_MEMORY);
    let n = fill_dirty(&cache);
    let chunks = cache.geometry().chunks();
    assert_eq!(n, i64::from(chunks / DIRTY_SHARE));
    assert_eq!(dirty_chunks(&cache), n as u64);
    assert_eq!(cache.dirty(ClassId::OTHER), n as u64);
    // A refusal costs nothing, evicts nothing, and goes for a new version too.
    cache.put(&key("clean"), 1, b"v").unwrap();
    let again = dirty_entry("d0", 2, b"v", behind(2, 1));
    assert_eq!(cache.reserve(&again).unwrap_err(), Refused::Full);
    assert_eq!(dirty_chunks(&cache), n as u64);
    assert!(cache.has(&key("clean")));
}

#[test]
fn a_reserved_dirty_block_counts_until_it_is_discarded() {
    let cache = Cache::new(MIN_MEMORY);
    let block = cache
        .reserve(&dirty_entry("k", 1, &[0; 2_000], behind(1, 0)))
        .unwrap();
    let reserved = cache.memory().dirty / 256;
    assert!(reserved >= 8, "{reserved}");
    cache.verify().unwrap();
    cache.discard(block);
    assert_eq!(dirty_chunks(&cache), 0);
}

#[test]
fn a_dirty_block_that_finds_no_chunks_is_not_counted() {
    let cache = Cache::new(MIN_MEMORY);
    let mut blocks = Vec::new();
    while let Ok(block) = cache.reserve(&new_entry(key("k"), ClassId::OTHER, 1, &[0; 50_000])) {
        blocks.push(block);
    }
    let entry = dirty_entry("d", 1, &[0; 60_000], behind(1, 0));
    assert_eq!(cache.reserve(&entry).unwrap_err(), Refused::Full);
    assert_eq!(cache.memory().dirty, 0);
    blocks.into_iter().for_each(|block| cache.discard(block));
    assert!(cache.reserve(&entry).is_ok());
}

/// Bytes of an entry before its value: the header, class `run` and key `k`.
const HEADER_AND_NAMES: u64 = 168 + 4;

#[test]
fn chunks_count_as_dirty_until_the_entry_is_clean_replaced_or_removed() {
    type End = fn(&Cache, &EntryInfo);
    let ends: [(&str, End); 5] = [
        ("cleaned", |cache, info| {
            let cleaned = cache.mark_clean(&key("k"), info.serial, 1, 7, 1);
            assert_eq!(cleaned, Cleaned::Clean);
        }),
        ("replaced", |cache, _| {
            cache.put(&key("k"), 2, b"newer").unwrap();
        }),
        ("removed", |cache, _| assert!(cache.remove(&key("k")))),
        ("dropped", |cache, _| {
            assert_eq!(cache.drop_dirty(DB, |_, _, _| true), 1);
        }),
        ("forgotten", |cache, _| cache.remove_database(DB)),
    ];
    for (end, does) in ends {
        let cache = Cache::new(MIN_MEMORY);
        let info = link(&cache, &dirty_entry("k", 1, &[0; 20_000], behind(1, 0)));
        let value = (HEADER_AND_NAMES + 20_000_u64).div_ceil(256) + 1;
        assert_eq!(dirty_chunks(&cache), value);
        cache
            .attach_text(&key("k"), info.serial, &[1; 1_000])
            .unwrap();
        assert_eq!(dirty_chunks(&cache), value + 4);
        assert_eq!(cache.dirty(ClassId::OTHER), 1);
        does(&cache, &info);
        assert_eq!(dirty_chunks(&cache), 0, "{end}");
        assert_eq!(cache.dirty(ClassId::OTHER), 0, "{end}");
        assert_eq!(cache.verify().unwrap().dirty, 0, "{end}");
    }
}

#[test]
fn text_forms_of_dirty_entries_are_part_of_their_share() {
    let cache = Cache::new(MIN_MEMORY);
    let first = put_dirty(&cache, "first", 1);
    fill_dirty(&cache);
    let before = cache.memory();
    assert_eq!(
        cache.attach_text(&key("first"), first.serial, b"text"),
        Err(Refused::Full)
    );
    assert_eq!(cache.memory(), before);
    assert!(cache.remove(&key("d0")));
    cache
        .attach_text(&key("first"), first.serial, b"text")
        .unwrap();
    assert_eq!(dirty_chunks(&cache), before.dirty / 256);
}

#[test]
fn a_newer_dirty_version_takes_over_since_and_base_and_is_not_parked() {
    let cache = Cache::new(MIN_MEMORY);
    let old = link(&cache, &dirty_entry("k", 5, b"a", behind(100, 4)));
    assert!(cache.set_parked(&key("k"), old.serial, true));
    assert!(dirty_of(&cache, "k").unwrap().parked);
    let newer = Dirty {
        owner: 11,
        ..behind(200, 0)
    };
    link(&cache, &dirty_entry("k", 6, b"b", newer));
    let expected = Dirty {
        owner: 11,
        ..behind(100, 4)
    };
    assert_eq!(dirty_of(&cache, "k"), Some(expected));
    // The clock stepped back: still the older of both. The tables have got a version meanwhile.
    let info = link(&cache, &dirty_entry("k", 7, b"c", behind(50, 6)));
    assert_eq!(info.dirty, Some(behind(50, 6)));
    assert_eq!((cache.dirty(ClassId::OTHER), info.version), (1, 7));
    assert_eq!(dirty_chunks(&cache), 1);
}

#[test]
fn a_dirty_version_over_a_clean_one_is_based_on_that() {
    let cache = Cache::new(MIN_MEMORY);
    cache.put(&key("k"), 3, b"clean").unwrap();
    cache.put(&key("other"), 3, b"clean").unwrap();
    let parked = Dirty {
        parked: true,
        ..behind(100, 2)
    };
    let info = link(&cache, &dirty_entry("k", 4, b"dirty", parked));
    assert_eq!(info.dirty, Some(Dirty { base: 3, ..parked }));
    assert_eq!(cache.get(&key("k")), Some((4, b"dirty".to_vec())));
    let report = cache.verify().unwrap();
    assert_eq!((report.entries, report.dirty), (2, 1));
}

#[test]
fn a_commit_to_the_tables_replaces_a_dirty_entry() {
    let cache = Cache::new(MIN_MEMORY);
    put_dirty(&cache, "k", 4);
    cache.put(&key("k"), 5, b"written").unwrap();
    assert_eq!(dirty_of(&cache, "k"), None);
    assert_eq!(cache.get(&key("k")), Some((5, b"written".to_vec())));
    assert_eq!(cache.verify().unwrap().entries, 1);
}

#[test]
fn a_fill_does_not_replace_a_dirty_entry() {
    let cache = Cache::new(MIN_MEMORY);
    put_dirty(&cache, "k", 4);
    for dirty in [None, Some(behind(9, 9))] {
        let token = cache.fill_token(&key("k")).unwrap();
        let fill = NewEntry {
            dirty,
            ..new_entry(key("k"), ClassId::OTHER, 3, b"from the tables")
        };
        let block = cache.reserve(&fill).unwrap();
        assert!(!cache.link_if_unchanged(block, token));
    }
    assert_eq!(cache.get(&key("k")), Some((4, b"v".to_vec())));
    assert_eq!(dirty_of(&cache, "k"), Some(behind(4, 3)));
    assert_eq!(dirty_chunks(&cache), 1);
    assert_eq!(cache.verify().unwrap().elsewhere, 0);
}

#[test]
fn dirty_entries_are_not_evicted_and_the_rest_of_the_memory_works() {
    for bytes in [MIN_MEMORY, 4 << 20] {
        let cache = Cache::new(bytes);
        let n = fill_dirty(&cache);
        for i in 0..2 * n {
            let name = i.to_string();
            cache.put(&key(&name), 1, b"small").unwrap();
            assert!(cache.has(&key(&name)));
        }
        // The largest that is admitted at all, as often as one likes.
        let large = vec![1; cache.geometry().chunks() as usize * 256 / 4 - 1_000];
        for version in 1..5 {
            cache.put(&key("large"), version, &large).unwrap();
        }
        assert!(all_dirty(&cache, n));
        assert_eq!(dirty_chunks(&cache), n as u64);
        assert!(cache.counters(ClassId::OTHER)[COUNTER_EVICTIONS].load(Relaxed) > n as u64);
    }
}

#[test]
fn a_cache_without_clean_entries_refuses_instead_of_searching_forever() {
    let cache = Cache::new(MIN_MEMORY);
    let n = fill_dirty(&cache);
    let mut blocks = Vec::new();
    let refused = loop {
        match cache.reserve(&new_entry(key("k"), ClassId::OTHER, 1, &[0; 10_000])) {
            Ok(block) => blocks.push(block),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, Refused::Full);
    assert!(blocks.len() * 40 > cache.geometry().chunks() as usize / 2 - 80);
    assert!(all_dirty(&cache, n));
}

#[test]
fn an_expired_dirty_entry_stays() {
    let cache = Cache::new(MIN_MEMORY);
    let entry = NewEntry {
        expires_at: 5,
        ..dirty_entry("k", 1, b"v", behind(1, 0))
    };
    let info = link(&cache, &entry);
    let late = |i: i64| NewEntry {
        loaded_at: 1_000,
        ..new_entry(key("late"), ClassId::OTHER, i, &[0; 100_000])
    };
    for i in 0..100 {
        link(&cache, &late(i));
        cache.put(&key(&i.to_string()), 1, &[0; 50_000]).unwrap();
    }
    let counters = cache.counters(ClassId::OTHER);
    assert!(counters[COUNTER_EVICTIONS].load(Relaxed) > 50);
    assert_eq!(counters[COUNTER_EXPIRATIONS].load(Relaxed), 0);
    assert!(dirty_of(&cache, "k").is_some());
    // Once the tables hold it, it is a victim like any.
    cache.mark_clean(&key("k"), info.serial, 1, 7, 1);
    for i in 0..100 {
        link(&cache, &late(i));
        cache.put(&key(&i.to_string()), 1, &[0; 50_000]).unwrap();
    }
    assert!(!cache.has(&key("k")));
}

#[test]
fn the_limit_of_a_class_evicts_its_clean_entries_only() {
    for bytes in [MIN_MEMORY, 8 << 20] {
        let cache = Cache::new(bytes);
        let class = cache.class_record(DB, b"run");
        let limited = |name, dirty| NewEntry {
            class,
            max_entries: Some(10),
            expires_at: 1,
            loaded_at: 1_000,
            dirty,
            ..new_entry(key(name), class, 1, b"v")
        };
        let names: Vec<String> = (0..100).map(|i| format!("d{i}")).collect();
        for name in &names[..6] {
            link(&cache, &limited(name, Some(behind(1, 0))));
        }
        for name in &names[50..] {
            link(&cache, &limited(name, None));
            assert!(cache.gauges(class).0 <= 10);
        }
        assert!(all_dirty(&cache, 6));
        // Dirty entries may take all of it; then more are refused, and cost nothing.
        for name in &names[6..10] {
            link(&cache, &limited(name, Some(behind(1, 0))));
        }
        assert_eq!((cache.gauges(class).0, cache.dirty(class)), (10, 10));
        for dirty in [Some(behind(1, 0)), None] {
            let refused = cache.reserve(&limited(&names[10], dirty)).unwrap_err();
            assert_eq!(refused, Refused::Full);
        }
        // A new version of one of them only takes its place.
        link(&cache, &limited(&names[3], Some(behind(2, 1))));
        assert!(all_dirty(&cache, 10));
        assert_eq!(dirty_chunks(&cache), 10);
    }
}

#[test]
fn removing_by_predicate_does_not_ask_about_dirty_entries() {
    let cache = Cache::new(4 << 20);
    for i in 0..50 {
        put_dirty(&cache, &format!("d{i}"), 1);
        cache.put(&key(&i.to_string()), 1, b"v").unwrap();
    }
    let mut asked = 0;
    let removed = cache.remove_if(DB, INCARNATION, |_, key, info| {
        assert!(info.dirty.is_none() && !key.starts_with(b"d"));
        asked += 1;
        true
    });
    assert_eq!((asked, removed), (50, 50));
    assert!(all_dirty(&cache, 50));
    assert_eq!(cache.memory().entries, 50);
    // Nor after its domain has changed, when clean ones go unasked.
    cache.domain(DB).publish();
    assert_eq!(cache.remove_if(DB, INCARNATION, |_, _, _| true), 0);
    assert!(all_dirty(&cache, 50));
}

#[test]
fn a_dirty_entry_is_readable_whatever_its_domain_does() {
    let cache = Cache::new(MIN_MEMORY);
    let info = put_dirty(&cache, "k", 4);
    cache.put(&key("clean"), 1, b"v").unwrap();
    cache.domain(DB).publish();
    assert_eq!(cache.get(&key("k")), Some((4, b"v".to_vec())));
    assert!(!cache.has(&key("clean")));
    let mut listed = Vec::new();
    cache
        .for_each(DB, INCARNATION, |_, key, info| {
            listed.push((key.to_vec(), info.dirty));
        })
        .unwrap();
    assert_eq!(listed, [(b"k".to_vec(), Some(behind(4, 3)))]);
    // Once it is written it goes: the change of the domain may have come after that.
    assert_eq!(
        cache.mark_clean(&key("k"), info.serial, 4, 7, 4),
        Cleaned::Gone
    );
    assert!(!cache.has(&key("k")));
    assert_eq!(cache.verify().unwrap().dirty, 0);
}

#[test]
fn a_removal_takes_dirty_entries_and_a_removal_of_clean_ones_does_not() {
    let cache = Cache::new(MIN_MEMORY);
    put_dirty(&cache, "k", 4);
    cache.put(&key("clean"), 1, b"v").unwrap();
    assert!(!cache.remove_clean(&key("k")));
    assert!(dirty_of(&cache, "k").is_some());
    assert!(cache.remove_clean(&key("clean")) && !cache.remove_clean(&key("clean")));
    assert!(cache.remove(&key("k")) && !cache.remove(&key("k")));
    assert_eq!(cache.verify().unwrap().entries, 0);
}

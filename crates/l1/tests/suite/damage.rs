//! Stray writes into the memory: wrong answers are possible then, hangs and crashes are not.

use state_cache_l1::{ClassId, Dirty, Lookup, MIN_MEMORY, View, Want};

use crate::support::{Cache, DB, INCARNATION, Random, key, new_entry, pattern};

#[test]
fn a_broken_chain_is_damage_and_can_be_removed() {
    let mut cache = Cache::new(MIN_MEMORY);
    cache.put(&key("k"), 1, &pattern(1, 1, 10_000)).unwrap();
    cache.put(&key("other"), 1, b"fine").unwrap();
    // In a fresh cache chunk n leads to n + 1; k lies in 2 to 42. Cut it after its third.
    let leads_on = |at: &usize| (0..8).all(|i| cache.peek(at + 4 * i) == 4 + i as u32);
    let after_third = (0..cache.geometry().bytes() - 32)
        .step_by(4)
        .find(leads_on)
        .unwrap()
        + 4;
    cache.poke(after_third, 0xdead_beef);
    let mut buffer = vec![0; 10_000];
    assert_eq!(
        cache.read(&key("k"), Want::Value, &mut buffer),
        Lookup::Damaged
    );
    let seen = cache.with_value(&key("k"), |_, view| {
        assert_eq!(view.read(100, &mut [0; 4]), Some(()));
        assert_eq!(view.read(9_000, &mut [0; 4]), None);
    });
    assert_eq!(seen, View::Damaged);
    assert!(cache.remove(&key("k")));
    assert_eq!(
        cache.read(&key("k"), Want::Value, &mut buffer),
        Lookup::Miss
    );
    cache.put(&key("k"), 2, &pattern(1, 2, 10_000)).unwrap();
    assert_eq!(cache.get(&key("k")), Some((2, pattern(1, 2, 10_000))));
    assert_eq!(cache.get(&key("other")), Some((1, b"fine".to_vec())));
    // The old chunks stay out of use.
    assert_eq!(cache.verify().unwrap().elsewhere, 40);
}

#[test]
fn stray_writes_neither_hang_nor_crash_any_call() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut cache = Cache::new(MIN_MEMORY);
        let class = cache.class_record(DB, b"run");
        let names: Vec<String> = (0..80).map(|i| format!("key {i}")).collect();
        let mut buffer = vec![0; 40_000];
        for round in 0..40 {
            for _ in 0..20 {
                let name = &names[random.below(80) as usize];
                let len = random.below(30_000) as usize;
                let mut entry = new_entry(key(name), class, round, &buffer[..len]);
                entry.max_entries = (random.below(4) == 0).then_some(40);
                entry.dirty = (random.below(3) == 0).then_some(Dirty {
                    since: round,
                    base: 0,
                    owner: 10,
                    beside: 0,
                    parked: false,
                });
                if let Ok(block) = cache.reserve(&entry) {
                    cache.link_now(&entry.key, block);
                }
                let name = &names[random.below(80) as usize];
                match cache.read(&key(name), Want::Value, &mut buffer) {
                    Lookup::Hit(info) => {
                        let _ = cache.attach_text(&key(name), info.serial, b"text form");
                        cache.set_parked(&key(name), info.serial, round % 2 == 0);
                        if random.below(3) == 0 {
                            cache.mark_clean(&key(name), info.serial, round, 1, round);
                        }
                    }
                    Lookup::Damaged => drop(cache.remove(&key(name))),
                    Lookup::Miss | Lookup::TooSmall { .. } => {}
                }
                cache.with_value(&key(name), |_, view| view.read(view.len() / 2, &mut [0; 9]));
            }
            cache.for_each(DB, INCARNATION, |_, _, _| ()).unwrap();
            cache.remove_if(DB, INCARNATION, |_, _, info| info.version < round - 3);
            cache.for_each_dirty(DB, INCARNATION, |_, _, _| ()).unwrap();
            if round % 8 == 7 {
                cache.drop_dirty(DB, |_, _, key| key.ends_with(b"1"));
            }
            cache
                .for_each_class(DB, |_, id| assert!(cache.gauges(id) != (7, 7)))
                .unwrap();
            cache.class_record(DB, names[round as usize].as_bytes());
            if round % 10 == 9 {
                cache.remove_database(DB);
            }
            // Past the header and the marks, which are counters: indices and entries.
            let from = 256 + 1024 * 16;
            let words = (cache.geometry().bytes() - from) / 4;
            for _ in 0..random.below(400) {
                let value = match random.below(3) {
                    0 => random.word() as u32,
                    1 => random.below(4_000) as u32,
                    _ => u32::MAX,
                };
                cache.poke(from + random.below(words as u64) as usize * 4, value);
            }
            // And the lists themselves, which chance would seldom hit.
            for _ in 0..3 {
                let at = from + random.below(2_000) as usize * 4;
                cache.poke(at, random.below(4_000) as u32);
            }
        }
        let _ = cache.verify();
        assert!(cache.memory().used <= cache.memory().chunk_bytes);
        assert!(cache.counters(ClassId::OTHER).len() == 32);
    }
}

#[test]
fn a_damaged_entry_is_removed_and_not_the_one_that_has_taken_its_place() {
    let cache = Cache::new(MIN_MEMORY);
    let serial = |key| match cache.read(&key, Want::Info, &mut []) {
        Lookup::Hit(info) => info.serial,
        _ => 0,
    };
    let dirty = Dirty {
        since: 1,
        base: 1,
        owner: 10,
        beside: 0,
        parked: false,
    };
    let k = key("k");
    cache.put(&k, 1, b"found damaged").unwrap();
    let found = serial(k);
    // Another one is linked before it is removed: a clean one, then a dirty one.
    cache.put(&k, 2, b"newer").unwrap();
    assert!(!cache.remove_clean_entry(&k, found));
    assert_eq!(cache.get(&k), Some((2, b"newer".to_vec())));
    let mut entry = new_entry(k, ClassId::OTHER, 3, b"acknowledged");
    entry.dirty = Some(dirty);
    cache.link_now(&k, cache.reserve(&entry).unwrap());
    assert!(!cache.remove_clean_entry(&k, found));
    // Nor is a dirty one removed as if nothing were lost with it, nor a sound one as damaged.
    assert!(!cache.remove_clean_entry(&k, serial(k)));
    assert_eq!(cache.remove_unsound(&k), None);
    assert_eq!(cache.get(&k), Some((3, b"acknowledged".to_vec())));
    let other = key("other");
    cache.put(&other, 1, b"clean").unwrap();
    assert!(cache.remove_clean_entry(&other, serial(other)));
    assert_eq!(cache.get(&other), None);
    assert!(cache.verify().is_ok());
}

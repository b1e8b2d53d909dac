//! What goes in comes out: sizes, names, random access, text forms.

use state_cache_l1::{CHUNK, ClassId, Lookup, MAX_CLASS, MAX_KEY, MIN_MEMORY, Refused, View, Want};
use std::cmp::Ordering;

use crate::support::{Cache, DB, INCARNATION, Random, key, key_in, new_entry, pattern};

#[test]
fn values_of_all_sizes_come_back_as_they_were() {
    let cache = Cache::new(8 << 20);
    let sizes = (0..600).step_by(7).chain([
        3000,
        16383,
        16384,
        16385,
        58_000,
        100_000,
        1 << 20,
        1_500_000,
    ]);
    for (version, len) in (1..).zip(sizes) {
        let value = pattern(1, version, len);
        cache.put(&key("k"), version as i64, &value).unwrap();
        assert_eq!(
            cache.get(&key("k")),
            Some((version as i64, value)),
            "{len} bytes"
        );
    }
    let report = cache.verify().unwrap();
    assert_eq!((report.entries, report.elsewhere), (1, 0));
}

#[test]
fn everything_stored_with_an_entry_is_returned() {
    let cache = Cache::new(MIN_MEMORY);
    let class = cache.class_record(DB, b"run");
    let mut entry = new_entry(key("k"), class, 7, b"value");
    entry.expires_at = -3;
    entry.loaded_at = i64::MIN;
    entry.hash = u128::MAX - 5;
    let block = cache.reserve(&entry).unwrap();
    cache.link_now(&key("k"), block);
    let Lookup::Hit(info) = cache.read(&key("k"), Want::Info, &mut []) else {
        panic!("no hit")
    };
    assert_eq!((info.version, info.head_xid, info.doc_xid), (7, 1007, 2007));
    assert_eq!(
        (info.expires_at, info.loaded_at, info.hash),
        (-3, i64::MIN, u128::MAX - 5)
    );
    assert_eq!(
        (info.value_len, info.text_len, info.class),
        (5, None, class)
    );
    assert_eq!(info.bytes, CHUNK as u64);
}

#[test]
fn names_of_the_longest_kind_are_told_apart() {
    let cache = Cache::new(MIN_MEMORY);
    let class = [b'c'; MAX_CLASS];
    let mut other_class = class;
    other_class[MAX_CLASS - 1] = b'd';
    let name = [b'k'; MAX_KEY];
    let mut other_name = name;
    other_name[MAX_KEY - 1] = b'l';
    // The same id for all: only the bytes differ.
    let first = key_in(DB, INCARNATION, &class, &name);
    let mut keys = [
        first,
        key_in(DB, INCARNATION, &other_class, &name),
        key_in(DB, INCARNATION, &class, &other_name),
        key_in(DB, INCARNATION + 1, &class, &name),
        key_in(DB + 1, INCARNATION, &class, &name),
        key_in(DB, INCARNATION, &class, &name[1..]),
    ];
    for (version, key) in (1..).zip(&mut keys) {
        key.id = first.id;
        assert!(!cache.has(key));
        cache.put(key, version, &[version as u8; 300]).unwrap();
    }
    for (version, key) in (1..).zip(&keys) {
        assert_eq!(cache.get(key), Some((version, vec![version as u8; 300])));
    }
    assert!(cache.remove(&keys[2]));
    assert!(!cache.has(&keys[2]) && cache.has(&keys[0]) && cache.has(&keys[5]));
    assert_eq!(cache.verify().unwrap().entries, 5);
}

#[test]
fn names_too_long_and_values_over_a_quarter_are_refused() {
    let cache = Cache::new(MIN_MEMORY);
    assert_eq!(
        cache.put(&key_in(DB, 1, &[b'c'; MAX_CLASS + 1], b"k"), 1, b""),
        Err(Refused::TooLarge)
    );
    assert_eq!(
        cache.put(&key_in(DB, 1, b"c", &[b'k'; MAX_KEY + 1]), 1, b""),
        Err(Refused::TooLarge)
    );
    let quarter = cache.geometry().chunks() as usize / 4 * CHUNK;
    assert_eq!(
        cache.put(&key("k"), 1, &vec![0; quarter]),
        Err(Refused::TooLarge)
    );
    assert_eq!(cache.put(&key("k"), 1, &vec![0; quarter - 1024]), Ok(()));
}

#[test]
fn a_buffer_too_small_is_left_alone() {
    let cache = Cache::new(MIN_MEMORY);
    cache.put(&key("k"), 1, &[7; 1000]).unwrap();
    let mut buffer = [1; 999];
    assert_eq!(
        cache.read(&key("k"), Want::Value, &mut buffer),
        Lookup::TooSmall { len: 1000 }
    );
    assert_eq!(buffer, [1; 999]);
}

#[test]
fn random_access_reads_what_a_copy_reads() {
    let cache = Cache::new(32 << 20);
    let mut random = Random(11);
    // Fill and free in an order that scatters the chunks.
    for i in 0..3000 {
        cache
            .put(&key(&format!("filler {i}")), 1, &[0; 2000])
            .unwrap();
    }
    for i in (0..3000).step_by(2) {
        cache.remove(&key(&format!("filler {i}")));
    }
    for len in [0, 1, 104, 105, 3000, 16 * 1024, 58_000, 2_200_000] {
        let value = pattern(9, 9, len);
        cache.put(&key("k"), 1, &value).unwrap();
        let seen = cache.with_value(&key("k"), |info, view| {
            assert_eq!(
                (info.value_len as usize, view.len(), view.is_empty()),
                (len, len, len == 0)
            );
            let mut buffer = vec![0; 1000];
            for _ in 0..300 {
                let at = random.below(len as u64 + 1) as usize;
                let n = (random.below(1000) as usize).min(len - at);
                assert_eq!(view.read(at, &mut buffer[..n]), Some(()));
                assert_eq!(buffer[..n], value[at..at + n]);
                assert_eq!(view.compare(at, &value[at..at + n]), Some(Ordering::Equal));
                if n > 0 {
                    let mut other = value[at..at + n].to_vec();
                    let place = random.below(n as u64) as usize;
                    other[place] = other[place].wrapping_add(1);
                    assert_eq!(
                        view.compare(at, &other),
                        Some(value[at..at + n].cmp(&other))
                    );
                }
            }
            assert_eq!(view.read(len, &mut [0]), None);
            assert_eq!(view.read(usize::MAX, &mut [0]), None);
            assert!(view.equals(&value));
            assert!(!view.equals(&[value.as_slice(), b"x"].concat()));
        });
        assert_eq!(seen, View::Hit(()));
    }
    assert_eq!(cache.with_value(&key("none"), |_, _| ()), View::Miss);
}

#[test]
fn a_text_form_is_returned_and_freed_with_its_entry() {
    let cache = Cache::new(MIN_MEMORY);
    let class = cache.class_record(DB, b"run");
    let block = cache.reserve(&new_entry(key("k"), class, 1, b"v")).unwrap();
    cache.link_now(&key("k"), block);
    let Lookup::Hit(info) = cache.read(&key("k"), Want::Text, &mut []) else {
        panic!("no hit")
    };
    assert_eq!(info.text_len, None);
    let text = pattern(3, 3, 5000);
    cache.attach_text(&key("k"), info.serial, &text).unwrap();
    let mut buffer = vec![0; 5000];
    let Lookup::Hit(info) = cache.read(&key("k"), Want::Text, &mut buffer) else {
        panic!("no hit")
    };
    assert_eq!((info.text_len, buffer == text), (Some(5000), true));
    assert_eq!(cache.gauges(class), (1, info.bytes));
    assert_eq!(cache.verify().unwrap().in_texts, 20);
    // A second text form for the same entry is not needed.
    assert_eq!(
        cache.attach_text(&key("k"), info.serial, &text),
        Err(Refused::Gone)
    );
    cache.remove(&key("k"));
    let report = cache.verify().unwrap();
    assert_eq!(
        (report.in_texts, report.elsewhere, cache.gauges(class)),
        (0, 0, (0, 0))
    );
}

#[test]
fn a_text_form_is_refused_for_another_serial() {
    let cache = Cache::new(MIN_MEMORY);
    cache.put(&key("k"), 1, b"old").unwrap();
    let Lookup::Hit(old) = cache.read(&key("k"), Want::Info, &mut []) else {
        panic!("no hit")
    };
    cache.put(&key("k"), 2, b"new").unwrap();
    assert_eq!(
        cache.attach_text(&key("k"), old.serial, b"old text"),
        Err(Refused::Gone)
    );
    let Lookup::Hit(new) = cache.read(&key("k"), Want::Info, &mut []) else {
        panic!("no hit")
    };
    assert_ne!(new.serial, old.serial);
    assert_eq!(new.text_len, None);
    assert_eq!(cache.verify().unwrap().elsewhere, 0);
}

#[test]
fn a_discarded_block_leaves_no_trace() {
    let cache = Cache::new(MIN_MEMORY);
    let before = cache.memory();
    let block = cache
        .reserve(&new_entry(key("k"), ClassId::OTHER, 1, &[0; 50_000]))
        .unwrap();
    assert!(cache.memory().used > before.used && !cache.has(&key("k")));
    cache.discard(block);
    assert_eq!(cache.memory(), before);
}

#[test]
fn values_of_3_kb_fill_four_fifths_of_the_memory_given() {
    let given = 64 << 20;
    let cache = Cache::new(given);
    let evicted = || cache.counters(ClassId::OTHER)[0].load(std::sync::atomic::Ordering::Relaxed);
    let value = [1; 3000];
    let mut linked = 0;
    while evicted() == 0 {
        cache
            .put(&key(&format!("run-{linked:016}")), 1, &value)
            .unwrap();
        linked += 1;
    }
    let share = (cache.memory().entries * 3000) as f64 / given as f64;
    assert!(share >= 0.80, "{share}");
}

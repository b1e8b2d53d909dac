//! Random operations against a map: a hit is always the last value linked.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;

use state_cache_l1::{COUNTER_EVICTIONS, ClassId, Lookup, MIN_MEMORY, Refused, View, Want};

use crate::support::{Cache, DB, INCARNATION, Random, key, new_entry, pattern};

struct Run {
    cache: Cache,
    class: ClassId,
    random: Random,
    /// Version and length of what was linked last, by key number.
    linked: HashMap<u64, (u64, usize)>,
    /// Text forms attached, by key number.
    texts: HashSet<u64>,
    /// Keys that may be in the cache.
    resident: HashSet<u64>,
    evictions: u64,
    keys: u64,
    largest: u64,
    version: u64,
}

fn text_of(number: u64, version: u64, len: usize) -> Vec<u8> {
    pattern(number + 1_000_000, version, len / 2 + 1)
}

impl Run {
    fn new(bytes: usize, keys: u64, largest: u64, seed: u64) -> Run {
        let cache = Cache::new(bytes);
        let class = cache.class_record(DB, b"run");
        Run {
            cache,
            class,
            random: Random(seed),
            linked: HashMap::new(),
            texts: HashSet::new(),
            resident: HashSet::new(),
            evictions: 0,
            keys,
            largest,
            version: 0,
        }
    }

    /// Mostly small values, some up to the largest.
    fn length(&mut self) -> usize {
        let top = [200, 4_000, 20_000, self.largest][self.random.below(4) as usize];
        self.random.below(top.min(self.largest) + 1) as usize
    }

    fn step(&mut self) {
        let number = self.random.below(self.keys);
        let name = format!("key {number}");
        let key = key(&name);
        match self.random.below(16) {
            0..5 => self.write(number, &name),
            5..11 => self.check(number, &name),
            11..13 => self.attach(number, &name),
            13..15 => {
                let found = self.cache.remove(&key);
                assert!(!found || self.resident.contains(&number));
                self.forget(number);
            }
            _ => {
                let digit = self.random.below(100).to_string();
                let cache = &self.cache;
                let mut gone = Vec::new();
                let removed = cache.remove_if(DB, INCARNATION, |_, key, _| {
                    let hit = key.ends_with(digit.as_bytes());
                    if hit {
                        gone.push(String::from_utf8_lossy(&key[4..]).parse().unwrap());
                    }
                    hit
                });
                assert_eq!(removed, gone.len() as u64);
                self.evictions += removed;
                for number in gone {
                    assert!(self.resident.contains(&number));
                    self.forget(number);
                }
            }
        }
    }

    fn forget(&mut self, number: u64) {
        self.linked.remove(&number);
        self.texts.remove(&number);
        self.resident.remove(&number);
    }

    fn write(&mut self, number: u64, name: &str) {
        self.version += 1;
        let (version, len) = (self.version, self.length());
        let value = pattern(number, version, len);
        let token = self.cache.fill_token(&key(name)).unwrap();
        let entry = new_entry(key(name), self.class, version as i64, &value);
        match self.cache.reserve(&entry) {
            Ok(block) => {
                let linked = match self.random.below(8) {
                    0 => {
                        self.cache.discard(block);
                        false
                    }
                    1 => {
                        self.cache.stripe(key(name).id).publish();
                        self.cache.link_if_unchanged(block, token)
                    }
                    2 => {
                        assert!(self.cache.link_if_unchanged(block, token));
                        true
                    }
                    _ => {
                        self.cache.link_now(&key(name), block);
                        true
                    }
                };
                if linked {
                    self.linked.insert(number, (version, len));
                    self.texts.remove(&number);
                    self.resident.insert(number);
                }
            }
            Err(Refused::TooLarge) => {
                assert!(len + 1024 > self.cache.geometry().chunks() as usize * 64);
            }
            Err(refused) => panic!("{refused:?} for {len} bytes with nothing else reserved"),
        }
    }

    fn check(&mut self, number: u64, name: &str) {
        let Some((version, value)) = self.cache.get(&key(name)) else {
            return;
        };
        assert!(self.resident.contains(&number));
        let (expected, len) = self.linked[&number];
        assert_eq!(version, expected as i64);
        assert_eq!(value, pattern(number, expected, len));
        let at = self.random.below(len as u64 + 1) as usize;
        let part = &value[at..(at + 50).min(len)];
        let same = self.cache.with_value(&key(name), |info, view| {
            assert_eq!(info.version, version);
            view.compare(at, part).is_some_and(|o| o.is_eq()) && view.equals(&value)
        });
        assert_eq!(same, View::Hit(true));
    }

    fn attach(&mut self, number: u64, name: &str) {
        let mut buffer = vec![0; 100_000];
        let Lookup::Hit(info) = self.cache.read(&key(name), Want::Text, &mut buffer) else {
            return;
        };
        let (version, len) = self.linked[&number];
        let text = text_of(number, version, len);
        match info.text_len {
            Some(n) => {
                assert!(self.texts.contains(&number));
                assert_eq!(buffer[..n as usize], text);
            }
            None => match self.cache.attach_text(&key(name), info.serial, &text) {
                Ok(()) => {
                    self.texts.insert(number);
                }
                // Making room for the text form evicted the entry.
                Err(refused) => assert_eq!(refused, Refused::Gone),
            },
        }
    }

    /// What has gone without being removed was evicted and counted.
    fn count_evicted(&mut self) {
        let report = self.cache.verify().unwrap();
        assert_eq!(report.elsewhere, 0);
        let mut found = HashSet::new();
        self.cache
            .for_each(DB, INCARNATION, |class, key, _| {
                assert_eq!(class, b"run");
                assert!(found.insert(String::from_utf8_lossy(&key[4..]).parse().unwrap()));
            })
            .unwrap();
        assert_eq!(report.entries, found.len() as u64);
        assert!(found.is_subset(&self.resident));
        let evictions = self.cache.counters(self.class)[COUNTER_EVICTIONS].load(Relaxed);
        let missing = (self.resident.len() - found.len()) as u64;
        assert!(missing <= evictions - self.evictions, "{missing} missing");
        self.evictions = evictions;
        self.resident = found;
        let memory = self.cache.memory();
        assert_eq!(
            memory.used,
            (report.in_entries + report.in_texts + report.in_classes) * 256
        );
        assert_eq!(memory.used + memory.free, memory.chunk_bytes);
    }

    fn go(mut self, batches: u32, steps: u32) -> u64 {
        for _ in 0..batches {
            for _ in 0..steps {
                self.step();
            }
            self.count_evicted();
        }
        self.cache.counters(self.class)[COUNTER_EVICTIONS].load(Relaxed)
    }
}

#[test]
fn the_smallest_cache_agrees_with_a_map_under_constant_eviction() {
    for seed in 1..=3 {
        let evictions = Run::new(MIN_MEMORY, 300, 100_000, seed).go(40, 300);
        assert!(evictions > 1_000, "only {evictions} evictions");
    }
}

#[test]
fn a_cache_of_several_partitions_agrees_with_a_map() {
    let evictions = Run::new(4 << 20, 2_000, 100_000, 77).go(20, 1_000);
    assert!(evictions > 1_000, "only {evictions} evictions");
}

#[test]
fn a_cache_with_room_for_all_loses_nothing() {
    let mut run = Run::new(64 << 20, 200, 100_000, 5);
    for _ in 0..10_000 {
        run.step();
        let name = format!("key {}", run.random.below(200));
        let number: u64 = name[4..].parse().unwrap();
        assert_eq!(
            run.cache.has(&key(&name)),
            run.linked.contains_key(&number),
            "{name}"
        );
    }
    run.count_evicted();
}

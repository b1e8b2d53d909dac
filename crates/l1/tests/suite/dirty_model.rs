//! Random operations with dirty entries against a map: none is ever lost, none is invented.

use std::collections::{HashMap, HashSet};

use state_cache_l1::{
    ClassId, Cleaned, DIRTY_SHARE, Dirty, Lookup, MIN_MEMORY, NewEntry, Refused, Want,
};

use crate::support::{Cache, DB, INCARNATION, Random, key, new_entry, pattern};

/// What was linked last under a key. Clean ones may be evicted.
#[derive(Clone, Copy, Debug)]
struct Entry {
    version: i64,
    /// The version that its bytes were made from; settling may give another number.
    pattern: u64,
    len: usize,
    serial: u64,
    dirty: Option<Dirty>,
    /// The state has changed in the tables since the dirty entry was linked.
    overtaken: bool,
}

struct Run {
    cache: Cache,
    classes: [ClassId; 2],
    random: Random,
    entries: HashMap<u64, Entry>,
    /// Keys whose entries nobody can read, but may still be removed.
    stale: HashSet<u64>,
    /// A serial that each key had some time ago.
    serials: HashMap<u64, u64>,
    keys: u64,
    clock: i64,
    refused: u64,
    cleaned: [u64; 3],
}

fn name_of(number: u64) -> String {
    format!("key {number}")
}

fn number_of(key: &[u8]) -> u64 {
    String::from_utf8_lossy(&key[4..]).parse().unwrap()
}

impl Run {
    fn new(bytes: usize, keys: u64, seed: u64) -> Run {
        let cache = Cache::new(bytes);
        let classes = [cache.class_record(DB, b"run"), ClassId::OTHER];
        Run {
            cache,
            classes,
            random: Random(seed),
            entries: HashMap::new(),
            stale: HashSet::new(),
            serials: HashMap::new(),
            keys,
            clock: 0,
            refused: 0,
            cleaned: [0; 3],
        }
    }

    fn step(&mut self) {
        self.clock += 1;
        let number = self.random.below(self.keys);
        let name = name_of(number);
        match self.random.below(40) {
            0..16 => self.write(number, &name),
            16..24 => self.check(number, &name),
            24..27 => self.attach(number, &name),
            27..34 => self.mark_clean(number, &name),
            34 => self.park(number, &name),
            35 => {
                let found = self.cache.remove(&key(&name));
                let was = self.entries.remove(&number);
                assert!(was.is_some() || self.stale.remove(&number) || !found);
                assert!(found || was.is_none_or(|e| e.dirty.is_none()));
            }
            36 => {
                let found = self.cache.remove_clean(&key(&name));
                if found {
                    let was = self.entries.remove(&number);
                    assert!(was.is_some() || self.stale.remove(&number));
                    assert_eq!(was.and_then(|e| e.dirty), None);
                } else if let Some(entry) = self.entries.get_mut(&number) {
                    entry.overtaken = true;
                }
            }
            37 => self.remove_some(),
            38 => self.drop_some(),
            _ => {
                // Clean entries are unreadable from now on.
                if self.random.below(8) == 0 {
                    self.cache.domain(DB).publish();
                    let stale = self.entries.extract_if(|_, e| e.dirty.is_none());
                    self.stale.extend(stale.map(|(number, _)| number));
                    // And these are not made clean any more.
                    self.entries.values_mut().for_each(|e| e.overtaken = true);
                }
            }
        }
    }

    /// A tenth of the keys, by their last digit.
    fn digit(&mut self) -> u64 {
        self.random.below(10)
    }

    fn remove_some(&mut self) {
        let digit = self.digit();
        let entries = &mut self.entries;
        self.cache.remove_if(DB, INCARNATION, |_, key, info| {
            assert_eq!(info.dirty, None);
            let number = number_of(key);
            number % 10 == digit && entries.remove(&number).is_some()
        });
        // What has not been removed had been evicted.
        entries.retain(|number, e| number % 10 != digit || e.dirty.is_some());
    }

    fn drop_some(&mut self) {
        let digit = self.digit();
        let dropped = self.cache.drop_dirty(DB, |incarnation, class, key| {
            assert_eq!((incarnation, class), (INCARNATION, b"run".as_slice()));
            number_of(key) % 10 == digit
        });
        let before = self.entries.len();
        self.entries
            .retain(|number, e| number % 10 != digit || e.dirty.is_none());
        assert_eq!(dropped, (before - self.entries.len()) as u64);
    }

    fn write(&mut self, number: u64, name: &str) {
        let top = [200, 2_000, 30_000][self.random.below(3) as usize];
        let len = self.random.below(top) as usize;
        let version = self.clock;
        let value = pattern(number, version as u64, len);
        let dirty = (self.random.below(3) > 0).then(|| Dirty {
            since: version - self.random.below(20) as i64,
            base: self.random.below(100) as i64,
            owner: self.random.below(9) as u32,
            beside: self.random.below(9),
            parked: false,
        });
        let entry = NewEntry {
            dirty,
            max_entries: (self.random.below(4) == 0).then_some(60),
            expires_at: version + self.random.below(200) as i64,
            ..new_entry(
                key(name),
                self.classes[self.random.below(2) as usize],
                version,
                &value,
            )
        };
        let token = self.cache.fill_token(&key(name)).unwrap();
        let dirty_before = self.cache.memory().dirty;
        let block = match self.cache.reserve(&entry) {
            Ok(block) => block,
            Err(refused) => {
                assert_eq!(refused, Refused::Full);
                assert!(dirty.is_some() || entry.max_entries.is_some());
                assert_eq!(self.cache.memory().dirty, dirty_before);
                self.refused += 1;
                return;
            }
        };
        // What is clean may have been evicted for the block.
        let cached = match self.cache.read(&key(name), Want::Info, &mut []) {
            Lookup::Hit(info) => Some(info.version),
            _ => None,
        };
        let old = self.entries.get(&number).and_then(|e| e.dirty);
        match self.random.below(8) {
            0 => return self.cache.discard(block),
            1 | 2 => {
                let linked = self.cache.link_if_unchanged(block, token);
                assert_eq!(linked, old.is_none());
                if !linked {
                    return;
                }
            }
            _ => self.cache.link_now(&key(name), block),
        }
        let dirty = dirty.map(|new| match (old, cached) {
            (Some(old), _) => Dirty {
                since: new.since.min(old.since),
                base: new.base.max(old.base),
                ..new
            },
            (None, Some(clean)) => Dirty {
                base: new.base.max(clean),
                ..new
            },
            (None, None) => new,
        });
        let Lookup::Hit(info) = self.cache.read(&key(name), Want::Info, &mut []) else {
            panic!("just linked");
        };
        let entry = Entry {
            version,
            pattern: version as u64,
            len,
            serial: info.serial,
            dirty,
            overtaken: false,
        };
        self.entries.insert(number, entry);
        self.stale.remove(&number);
        if self.random.below(2) == 0 {
            self.serials.insert(number, info.serial);
        }
    }

    fn check(&mut self, number: u64, name: &str) {
        let entry = self.entries.get(&number).copied();
        let Lookup::Hit(info) = self.cache.read(&key(name), Want::Info, &mut []) else {
            assert!(entry.is_none_or(|e| e.dirty.is_none()), "{name} is lost");
            return;
        };
        let entry = entry.unwrap();
        assert_eq!(
            (info.serial, info.version, info.dirty),
            (entry.serial, entry.version, entry.dirty)
        );
        let (_, value) = self.cache.get(&key(name)).unwrap();
        assert!(value == pattern(number, entry.pattern, entry.len));
    }

    fn attach(&mut self, number: u64, name: &str) {
        if let Some(entry) = self.entries.get(&number) {
            let len = self.random.below(3_000) as usize;
            let _ = self
                .cache
                .attach_text(&key(name), entry.serial, &vec![7; len]);
        }
    }

    fn mark_clean(&mut self, number: u64, name: &str) {
        let mut entry = self.entries.get_mut(&number);
        let serial = match (&entry, self.random.below(3)) {
            (Some(e), 0 | 1) => e.serial,
            _ => self.serials.get(&number).copied().unwrap_or(0),
        };
        let (version, read_at) = (self.clock, self.clock - self.random.below(30) as i64);
        let cleaned = self
            .cache
            .mark_clean(&key(name), serial, version, 5, read_at);
        let overtaken = entry.as_ref().is_some_and(|e| e.overtaken);
        let expected = match entry.as_mut().map(|e| (e.serial == serial, &mut e.dirty)) {
            None | Some((_, None)) => Cleaned::Gone,
            Some((false, Some(dirty))) => {
                dirty.base = dirty.base.max(version);
                dirty.since = dirty.since.max(read_at);
                Cleaned::Newer
            }
            Some((true, _)) if overtaken => Cleaned::Gone,
            Some((true, dirty)) => {
                *dirty = None;
                Cleaned::Clean
            }
        };
        let gone = entry
            .as_ref()
            .is_some_and(|e| e.serial == serial && e.dirty.is_some())
            && overtaken;
        assert_eq!(cleaned, expected);
        self.cleaned[cleaned as usize] += 1;
        if let (Cleaned::Clean, Some(entry)) = (cleaned, entry) {
            entry.version = version;
        }
        if gone {
            self.entries.remove(&number);
        }
    }

    fn park(&mut self, number: u64, name: &str) {
        let parked = self.random.below(2) == 0;
        if let Some(entry) = self.entries.get_mut(&number) {
            let done = self.cache.set_parked(&key(name), entry.serial, parked);
            assert_eq!(done, entry.dirty.is_some());
            if let Some(dirty) = &mut entry.dirty {
                dirty.parked = parked;
            }
        }
    }

    /// The dirty entries listed are exactly those of the map.
    fn survey(&mut self) {
        let report = self.cache.verify().unwrap();
        assert_eq!(report.elsewhere, 0);
        assert_eq!(self.cache.memory().dirty, report.in_dirty * 256);
        let chunks = u64::from(self.cache.geometry().chunks());
        assert!(report.in_dirty <= chunks / u64::from(DIRTY_SHARE));
        let mut found = HashMap::new();
        self.cache
            .for_each_dirty(DB, INCARNATION, |_, key, info| {
                assert_eq!(
                    found.insert(number_of(key), (info.serial, info.dirty)),
                    None
                );
            })
            .unwrap();
        let dirty = self.entries.iter().filter(|(_, e)| e.dirty.is_some());
        let expected: HashMap<_, _> = dirty.map(|(n, e)| (*n, (e.serial, e.dirty))).collect();
        assert_eq!(found, expected);
        assert_eq!(report.dirty, found.len() as u64);
        let gauge: u64 = self.classes.iter().map(|c| self.cache.dirty(*c)).sum();
        assert_eq!(gauge, report.dirty);
    }

    fn go(mut self, batches: u32, steps: u32) {
        for _ in 0..batches {
            for _ in 0..steps {
                self.step();
            }
            self.survey();
        }
        // The test has tested something.
        assert!(self.refused > 0, "nothing was refused");
        assert!(self.cleaned.iter().all(|n| *n > 20), "{:?}", self.cleaned);
    }
}

#[test]
fn dirty_entries_agree_with_a_map_under_constant_eviction() {
    for seed in 1..=4 {
        Run::new(MIN_MEMORY, 300, seed).go(40, 300);
    }
}

#[test]
fn dirty_entries_of_several_partitions_agree_with_a_map() {
    Run::new(4 << 20, 1_500, 9).go(20, 1_000);
}

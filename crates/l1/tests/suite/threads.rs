//! Many threads on few keys, following the protocol of commits, reads and fills.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use state_cache_l1::{ClassId, DirtyBefore, Lookup, MIN_MEMORY, NewEntry, Removes, View, Want};

use crate::support::{Cache, DB, INCARNATION, Random, key, key_in, mix, new_entry, pattern};

const KEYS: u64 = 12;
const THREADS: u64 = 8;
const STEPS: u64 = 4_000;

/// The tables: one row lock per key, and the version that everybody sees.
struct Tables {
    row: Vec<Mutex<()>>,
    visible: Vec<AtomicU64>,
}

fn length(number: u64, version: u64) -> usize {
    let word = mix(number << 40 ^ version);
    (word % [100, 3_000, 60_000][(word >> 60) as usize % 3]) as usize
}

fn value(number: u64, version: u64) -> Vec<u8> {
    pattern(number, version, length(number, version))
}

struct Worker<'a> {
    cache: &'a Cache,
    tables: &'a Tables,
    class: ClassId,
    random: Random,
    buffer: Vec<u8>,
    hits: u64,
    fills: u64,
}

impl Worker<'_> {
    fn entry<'a>(&self, name: &'a str, version: u64, value: &'a [u8]) -> NewEntry<'a> {
        NewEntry {
            max_entries: Some(10),
            ..new_entry(key(name), self.class, version as i64, value)
        }
    }

    /// Writes the next version as a transaction does; one in four aborts.
    fn commit(&mut self, number: u64, name: &str) {
        let row = self.tables.row[number as usize].lock().unwrap();
        let version = self.tables.visible[number as usize].load(SeqCst) + 1;
        let value = value(number, version);
        let block = self.cache.reserve(&self.entry(name, version, &value)).ok();
        let stripe = self.cache.stripe(key(name).id);
        stripe.raise();
        let noted = self.cache.note(&key(name));
        if self.random.below(4) == 0 {
            if let Some(block) = block {
                self.cache.discard(block);
            }
            stripe.lower();
            return;
        }
        self.tables.visible[number as usize].store(version, SeqCst);
        // From here on nobody waits for the row: others may change it and publish first.
        drop(row);
        if self.random.below(8) == 0 {
            std::thread::yield_now();
        }
        match block {
            Some(block) => self.cache.link(block, noted, DirtyBefore::TakenOver),
            None => drop(self.cache.unlink(&key(name), noted, Removes::Any)),
        }
        stripe.lower();
    }

    /// Reads what a snapshot taken now must see.
    fn read(&mut self, number: u64, name: &str) {
        let floor = self.tables.visible[number as usize].load(SeqCst);
        if self.cache.stripe(key(name).id).has_writers() {
            return;
        }
        match self.cache.read(&key(name), Want::Value, &mut self.buffer) {
            Lookup::Hit(info) => {
                let version = info.version as u64;
                assert!(
                    version >= floor,
                    "{name}: read version {version} after {floor}"
                );
                assert!(version <= self.tables.visible[number as usize].load(SeqCst));
                let expected = value(number, version);
                assert_eq!(info.value_len as usize, expected.len());
                assert!(
                    self.buffer[..expected.len()] == expected,
                    "{name}: torn copy"
                );
                self.hits += 1;
                self.attach(number, name, info.serial, version);
            }
            Lookup::Miss => self.fill(number, name),
            other => panic!("{other:?}"),
        }
    }

    fn attach(&mut self, number: u64, name: &str, serial: u64, version: u64) {
        let text = pattern(number + 99, version, 2_000);
        if self.random.below(4) == 0 {
            let _ = self.cache.attach_text(&key(name), serial, &text);
        }
        if let Lookup::Hit(info) = self.cache.read(&key(name), Want::Text, &mut self.buffer)
            && info.serial == serial
            && info.text_len.is_some()
        {
            assert!(self.buffer[..2_000] == text, "{name}: torn text form");
        }
    }

    fn fill(&mut self, number: u64, name: &str) {
        let Some(token) = self.cache.fill_token(&key(name)) else {
            return;
        };
        let version = self.tables.visible[number as usize].load(SeqCst);
        if version == 0 {
            return;
        }
        if self.random.below(2) == 0 {
            std::thread::yield_now();
        }
        let value = value(number, version);
        if let Ok(block) = self.cache.reserve(&self.entry(name, version, &value)) {
            self.fills += u64::from(self.cache.link_if_unchanged(block, token));
        }
    }

    fn look(&mut self, number: u64, name: &str) {
        let at = self.random.below(60_000) as usize;
        let seen = self.cache.with_value(&key(name), |info, view| {
            let value = value(number, info.version as u64);
            let part = value.get(at..(at + 100).min(value.len())).unwrap_or(&value);
            let at = if part.len() == value.len() { 0 } else { at };
            view.compare(at, part) == Some(std::cmp::Ordering::Equal)
        });
        assert_ne!(seen, View::Hit(false), "{name}: torn view");
        assert_ne!(seen, View::Damaged);
    }

    fn step(&mut self) {
        let number = self.random.below(KEYS);
        let name = format!("key {number}");
        match self.random.below(100) {
            0..20 => self.commit(number, &name),
            20..85 => self.read(number, &name),
            85..95 => self.look(number, &name),
            95..97 => drop(self.cache.remove(&key(&name))),
            97 => drop(
                self.cache
                    .remove_if(DB, INCARNATION, |_, _, info| info.version % 5 == 0),
            ),
            98 => self
                .cache
                .for_each(DB, INCARNATION, |_, key, info| {
                    let number = String::from_utf8_lossy(&key[4..]).parse().unwrap();
                    assert_eq!(info.value_len as usize, length(number, info.version as u64));
                })
                .unwrap(),
            _ => {
                // Another incarnation fills the cache, so that entries are evicted.
                let other = format!("other {}", self.random.below(50));
                let key = key_in(DB, INCARNATION + 1, b"run", other.as_bytes());
                let _ = self.cache.put(&key, 1, &pattern(1, 1, 100_000));
                self.cache.class_record(DB, other.as_bytes());
            }
        }
    }
}

#[test]
fn readers_see_no_torn_and_no_old_value() {
    let cache = Cache::new(MIN_MEMORY);
    let class = cache.class_record(DB, b"run");
    let tables = Tables {
        row: (0..KEYS).map(|_| Mutex::new(())).collect(),
        visible: (0..KEYS).map(|_| AtomicU64::new(0)).collect(),
    };
    let (hits, fills) = std::thread::scope(|scope| {
        let (cache, tables) = (&cache, &tables);
        let run = |seed| {
            let (random, buffer) = (Random(seed), vec![0; 64_000]);
            let mut worker = Worker {
                cache,
                tables,
                class,
                random,
                buffer,
                hits: 0,
                fills: 0,
            };
            for _ in 0..STEPS {
                worker.step();
            }
            (worker.hits, worker.fills)
        };
        let threads: Vec<_> = (1..=THREADS)
            .map(|seed| scope.spawn(move || run(seed)))
            .collect();
        let sums = threads.into_iter().map(|t| t.join().unwrap());
        sums.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    });
    // The test has tested something.
    assert!(
        hits > THREADS * STEPS / 20 && fills > 100,
        "{hits} hits, {fills} fills"
    );
    assert!(cache.gauges(class).0 <= 10);
    let report = cache.verify().unwrap();
    assert_eq!(report.elsewhere, 0);
}

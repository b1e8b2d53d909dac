//! Writers, a worker that marks entries clean, and evictors: no acknowledged version is lost or taken back.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use state_cache_l1::{
    ClassId, Cleaned, Dirty, DirtyBefore, Lookup, MIN_MEMORY, NewEntry, Removes, Want,
};

use crate::support::{Cache, DB, INCARNATION, Random, key, key_in, mix, new_entry, pattern};

const KEYS: u64 = 120;
const WRITERS: u64 = 3;
/// Steps of each writer; more where the worker gets so little of the processor that it has not yet met what it is
/// tested for.
const STEPS: u64 = 6_000;
const MOST_STEPS: u64 = 100 * STEPS;
/// Entries made clean, and filled, that say so.
const CLEANED: u64 = 100;
const FILLED: u64 = 50;

#[derive(Default)]
struct Tables {
    /// Writers of a key wait for one another.
    row: Vec<Mutex<()>>,
    /// The version in the tables.
    held: Vec<AtomicU64>,
    /// The version that some writer was told is saved.
    acknowledged: Vec<AtomicU64>,
    done: AtomicBool,
    /// Entries that the worker has made clean, and that readers have filled.
    cleaned: AtomicU64,
    filled: AtomicU64,
}

struct Test {
    cache: Cache,
    class: ClassId,
    tables: Tables,
}

fn value(number: u64, version: u64) -> Vec<u8> {
    let len = mix(number << 40 ^ version) % [50, 3_000, 12_000][version as usize % 3];
    pattern(number, version, len as usize)
}

#[derive(Default, Debug)]
struct Tally {
    behind: u64,
    through: u64,
    hits: u64,
    fills: u64,
}

impl Test {
    fn entry<'a>(&self, name: &'a str, version: u64, value: &'a [u8]) -> NewEntry<'a> {
        // Expired at once: that must not matter to dirty entries.
        NewEntry {
            expires_at: 0,
            loaded_at: 1,
            ..new_entry(key(name), self.class, version as i64, value)
        }
    }

    /// Saves the next version, dirty if the cache takes it, else in the tables.
    fn save(&self, number: u64, name: &str, through: bool, tally: &mut Tally) {
        let row = number as usize;
        let _row = self.tables.row[row].lock().unwrap();
        let version = self.tables.acknowledged[row].load(SeqCst) + 1;
        let value = value(number, version);
        let dirty = Dirty {
            since: version as i64,
            base: self.tables.held[row].load(SeqCst) as i64,
            owner: 1,
            beside: 0,
            parked: false,
        };
        let stripe = self.cache.stripe(key(name).id);
        stripe.raise();
        let noted = self.cache.note(&key(name));
        let entry = NewEntry {
            dirty: (!through).then_some(dirty),
            ..self.entry(name, version, &value)
        };
        match self.cache.reserve(&entry) {
            Ok(block) if !through => {
                self.cache.link(block, noted, DirtyBefore::TakenOver);
                tally.behind += 1;
            }
            reserved => {
                self.tables.held[row].fetch_max(version, SeqCst);
                match reserved {
                    Ok(block) => self.cache.link(block, noted, DirtyBefore::TakenOver),
                    Err(_) => drop(self.cache.unlink(&key(name), noted, Removes::Any)),
                }
                tally.through += 1;
            }
        }
        stripe.lower();
        self.tables.acknowledged[row].store(version, SeqCst);
    }

    /// Reads at least what was acknowledged before, from the cache or else the tables.
    fn read(&self, number: u64, name: &str, buffer: &mut [u8], tally: &mut Tally) {
        let row = number as usize;
        let floor = self.tables.acknowledged[row].load(SeqCst);
        let token = self.cache.fill_token(&key(name));
        match self.cache.read(&key(name), Want::Value, buffer) {
            Lookup::Hit(info) => {
                let version = info.version as u64;
                assert!(version >= floor, "{name}: {version} after {floor}");
                let expected = value(number, version);
                assert!(
                    buffer[..info.value_len as usize] == expected,
                    "{name}: torn"
                );
                tally.hits += 1;
            }
            Lookup::Miss => {
                let version = self.tables.held[row].load(SeqCst);
                assert!(
                    version >= floor,
                    "{name}: lost {floor}, tables have {version}"
                );
                let value = value(number, version);
                if let Some(token) = token
                    && let Ok(block) = self.cache.reserve(&self.entry(name, version, &value))
                {
                    let filled = u64::from(self.cache.link_if_unchanged(block, token));
                    tally.fills += filled;
                    self.tables.filled.fetch_add(filled, SeqCst);
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// Whether the worker and the readers have done enough to be tested by.
    fn is_enough(&self) -> bool {
        self.tables.cleaned.load(SeqCst) > CLEANED && self.tables.filled.load(SeqCst) > FILLED
    }

    fn client(&self, seed: u64, with_worker: bool) -> Tally {
        let mut random = Random(seed);
        let (mut tally, mut buffer) = (Tally::default(), vec![0; 12_000]);
        for step in 0..MOST_STEPS {
            if step >= STEPS && (!with_worker || self.is_enough()) {
                break;
            }
            let number = random.below(KEYS);
            let name = format!("key {number}");
            match random.below(16) {
                0..6 => self.save(number, &name, false, &mut tally),
                6 => self.save(number, &name, true, &mut tally),
                7 => drop(self.cache.remove_clean(&key(&name))),
                8 => {
                    let predicate = |_: &[u8], _: &[u8], _: &_| true;
                    self.cache.remove_if(DB, INCARNATION, predicate);
                }
                9 => {
                    if let Lookup::Hit(info) = self.cache.read(&key(&name), Want::Info, &mut []) {
                        let text = [3; 700];
                        let _ = self.cache.attach_text(&key(&name), info.serial, &text);
                    }
                }
                _ => self.read(number, &name, &mut buffer, &mut tally),
            }
        }
        tally
    }

    /// Writes what is dirty to the tables, round after round; the last round after the writers' end.
    fn worker(&self) -> [u64; 3] {
        let mut cleaned = [0; 3];
        loop {
            let done = self.tables.done.load(SeqCst);
            self.cache
                .for_each_dirty(DB, INCARNATION, |_, name, info| {
                    let number: usize = String::from_utf8_lossy(&name[4..]).parse().unwrap();
                    let dirty = info.dirty.unwrap();
                    assert!(dirty.base < info.version && dirty.since <= info.version);
                    let version = info.version as u64;
                    self.tables.held[number].fetch_max(version, SeqCst);
                    if version.is_multiple_of(4) {
                        std::thread::yield_now();
                    }
                    let key = key_in(DB, INCARNATION, b"run", name);
                    let found =
                        self.cache
                            .mark_clean(&key, info.serial, info.version, 9, dirty.since);
                    cleaned[found as usize] += 1;
                    let cleaned = u64::from(found == Cleaned::Clean);
                    self.tables.cleaned.fetch_add(cleaned, SeqCst);
                })
                .unwrap();
            if done {
                return cleaned;
            }
            std::thread::yield_now();
        }
    }

    /// Fills the cache with entries of another incarnation, so that others are evicted; returns how many
    /// found room.
    fn evictor(&self) -> u64 {
        let (mut random, mut linked) = (Random(99), 0);
        while !self.tables.done.load(SeqCst) {
            let name = format!("other {}", random.below(60));
            let key = key_in(DB, INCARNATION + 1, b"run", name.as_bytes());
            let len = random.below(120_000) as usize;
            linked += u64::from(self.cache.put(&key, 1, &pattern(1, 1, len)).is_ok());
        }
        linked
    }
}

/// What the clients did, what the worker cleaned, and how many entries the evictors linked.
fn stress(bytes: usize, with_worker: bool) -> (Test, Vec<Tally>, [u64; 3], u64) {
    let cache = Cache::new(bytes);
    let class = cache.class_record(DB, b"run");
    let numbers = || (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let tables = Tables {
        row: (0..KEYS).map(|_| Mutex::new(())).collect(),
        held: numbers(),
        acknowledged: numbers(),
        done: AtomicBool::new(false),
        cleaned: AtomicU64::new(0),
        filled: AtomicU64::new(0),
    };
    let test = Test {
        cache,
        class,
        tables,
    };
    let (tallies, cleaned, linked) = std::thread::scope(|scope| {
        let test = &test;
        let worker = with_worker.then(|| scope.spawn(|| test.worker()));
        let evictors = [0, 1].map(|_| scope.spawn(|| test.evictor()));
        let clients: Vec<_> = (1..=WRITERS)
            .map(|seed| scope.spawn(move || test.client(seed, with_worker)))
            .collect();
        let tallies = clients.into_iter().map(|c| c.join());
        let tallies: Result<Vec<_>, _> = tallies.collect();
        // Even if one of them has failed: the others wait for it.
        test.tables.done.store(true, SeqCst);
        let linked = evictors.map(|e| e.join().unwrap()).iter().sum();
        let cleaned = worker.map_or([0; 3], |w| w.join().unwrap());
        (tallies.unwrap(), cleaned, linked)
    });
    (test, tallies, cleaned, linked)
}

/// Every key's last acknowledged version is in the cache, dirty, or in the tables.
fn nothing_is_lost(test: &Test) -> u64 {
    let mut dirty = 0;
    for number in 0..KEYS {
        let name = format!("key {number}");
        let row = number as usize;
        let last = test.tables.acknowledged[row].load(SeqCst);
        let held = test.tables.held[row].load(SeqCst);
        match test.cache.read(&key(&name), Want::Info, &mut []) {
            Lookup::Hit(info) => {
                assert_eq!(info.version as u64, last, "{name}");
                assert!(info.dirty.is_some() || held == last, "{name}");
                dirty += u64::from(info.dirty.is_some());
            }
            Lookup::Miss => assert_eq!(held, last, "{name} is lost"),
            other => panic!("{other:?}"),
        }
    }
    let report = test.cache.verify().unwrap();
    assert_eq!((report.elsewhere, report.dirty), (0, dirty));
    assert_eq!(test.cache.memory().dirty, report.in_dirty * 256);
    assert_eq!(test.cache.dirty(test.class), dirty);
    dirty
}

#[test]
fn a_worker_marks_clean_what_writers_leave_while_others_evict() {
    for bytes in [MIN_MEMORY, 4 << 20] {
        let (test, tallies, cleaned, _) = stress(bytes, true);
        assert_eq!(nothing_is_lost(&test), 0, "the last round marks all clean");
        for tally in &tallies {
            assert!(tally.behind > 300 && tally.hits > 300, "{tally:?}");
        }
        let fills: u64 = tallies.iter().map(|t| t.fills).sum();
        assert!(cleaned[Cleaned::Clean as usize] > CLEANED && fills > FILLED);
    }
}

#[test]
fn without_a_worker_all_stays_dirty_while_others_evict() {
    let (test, tallies, _, linked) = stress(MIN_MEMORY, false);
    assert!(nothing_is_lost(&test) > 10);
    // The share was used up, and clean entries still found room.
    assert!(tallies.iter().all(|t| t.through > 0), "{tallies:?}");
    assert!(linked > 100, "{linked}");
}

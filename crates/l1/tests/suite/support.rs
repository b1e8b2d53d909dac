//! What tests and examples share: memory, locks, names, a random generator.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use state_cache_l1::{
    Block, ClassId, DirtyBefore, Geometry, Key, KeyId, L1, Locks, Lookup, NewEntry, Refused,
    Removes, Want,
};

/// The database and incarnation that most tests use.
pub const DB: u32 = 5;
pub const INCARNATION: u64 = 1;

const ALONE: u32 = u32::MAX;

/// Readers-writer locks of one word: the number of readers, or `ALONE`.
pub struct SpinLocks(Vec<AtomicU32>);

impl SpinLocks {
    fn spin_until(&self, n: usize, mut step: impl FnMut(&AtomicU32) -> bool) {
        let mut spins = 0;
        while !step(&self.0[n]) {
            spins += 1;
            if spins % 64 == 0 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

impl Locks for SpinLocks {
    fn lock_shared(&self, n: usize) {
        self.spin_until(n, |lock| {
            let now = lock.load(Ordering::Relaxed);
            now < ALONE - 1
                && lock
                    .compare_exchange_weak(now, now + 1, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
        });
    }

    fn lock_exclusive(&self, n: usize) {
        self.spin_until(n, |lock| {
            lock.compare_exchange_weak(0, ALONE, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
        });
    }

    fn unlock(&self, n: usize) {
        if self.0[n].load(Ordering::Relaxed) == ALONE {
            self.0[n].store(0, Ordering::Release);
        } else {
            self.0[n].fetch_sub(1, Ordering::Release);
        }
    }
}

/// A cache over memory of its own.
pub struct Cache {
    l1: L1<SpinLocks>,
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: `base` is used by `poke`, which takes the cache alone, and when it is dropped.
unsafe impl Sync for Cache {}

impl Cache {
    pub fn new(bytes: usize) -> Cache {
        let geometry = Geometry::for_memory(bytes);
        let layout = Layout::from_size_align(geometry.bytes(), 128).unwrap();
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout));
        let locks = SpinLocks((0..geometry.locks()).map(|_| AtomicU32::new(0)).collect());
        // SAFETY: fresh zeroed memory of the size and alignment asked for, freed after the cache.
        let l1 = unsafe { L1::init(base, geometry, locks) };
        Cache { l1, base, layout }
    }

    /// Overwrites four bytes, as a stray write of somebody else would. `&mut`: nobody is in the cache.
    pub fn poke(&mut self, at: usize, value: u32) {
        assert!(at + 4 <= self.layout.size());
        // SAFETY: inside the memory, which nobody else uses during the call.
        unsafe { self.base.add(at).cast::<u32>().write_unaligned(value) };
    }

    /// Four bytes as they lie in memory.
    pub fn peek(&self, at: usize) -> u32 {
        assert!(at + 4 <= self.layout.size());
        // SAFETY: inside the memory, which only the test's own thread uses.
        unsafe { self.base.add(at).cast::<u32>().read_unaligned() }
    }

    /// Publishes a block as the only committer there is.
    pub fn link_now(&self, key: &Key<'_>, block: Block) {
        self.link(block, self.note(key), DirtyBefore::TakenOver);
    }

    /// Removes the entry of a key unless it is dirty, as the only committer there is.
    pub fn remove_clean(&self, key: &Key<'_>) -> bool {
        self.unlink(key, self.note(key), Removes::Clean)
    }

    /// Links a value under `key`.
    pub fn put(&self, key: &Key<'_>, version: i64, value: &[u8]) -> Result<(), Refused> {
        let block = self.reserve(&new_entry(*key, ClassId::OTHER, version, value))?;
        self.link_now(key, block);
        Ok(())
    }

    /// The version and value under `key`.
    pub fn get(&self, key: &Key<'_>) -> Option<(i64, Vec<u8>)> {
        let mut buffer = Vec::new();
        loop {
            match self.read(key, Want::Value, &mut buffer) {
                Lookup::Miss => return None,
                Lookup::TooSmall { len } => buffer.resize(len, 0),
                Lookup::Hit(info) => {
                    buffer.truncate(info.value_len as usize);
                    return Some((info.version, buffer));
                }
                Lookup::Damaged => panic!("damaged"),
            }
        }
    }

    /// Is there an entry? Counts as a hit.
    pub fn has(&self, key: &Key<'_>) -> bool {
        matches!(self.read(key, Want::Info, &mut []), Lookup::Hit(_))
    }
}

impl Deref for Cache {
    type Target = L1<SpinLocks>;
    fn deref(&self) -> &L1<SpinLocks> {
        &self.l1
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; the cache is not used any more.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

/// Mixes a word well (the finaliser of splitmix64).
pub fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A key's name with its hash.
pub fn key_in<'a>(db: u32, incarnation: u64, class: &'a [u8], key: &'a [u8]) -> Key<'a> {
    let mut words = [mix(u64::from(db)), mix(incarnation ^ 0x5555)];
    for (i, byte) in class.iter().chain(b"\0").chain(key).enumerate() {
        let word = &mut words[i % 2];
        *word = mix(*word ^ u64::from(*byte) ^ (i as u64) << 8);
    }
    let high = mix(words[0].wrapping_add(words[1].rotate_left(17)));
    let low = mix(words[1] ^ high);
    Key {
        id: KeyId(u128::from(high) << 64 | u128::from(low)),
        db,
        incarnation,
        class,
        key,
    }
}

/// A key of class `run` in the usual database.
pub fn key(name: &str) -> Key<'_> {
    key_in(DB, INCARNATION, b"run", name.as_bytes())
}

/// An entry without expiry and limit.
pub fn new_entry<'a>(key: Key<'a>, class: ClassId, version: i64, value: &'a [u8]) -> NewEntry<'a> {
    NewEntry {
        key,
        class,
        max_entries: None,
        version,
        head_xid: version as u64 + 1000,
        doc_xid: version as u64 + 2000,
        hash: u128::from(mix(value.len() as u64)),
        expires_at: i64::MAX,
        loaded_at: version,
        dirty: None,
        stored: 0,
        value,
    }
}

/// A seeded generator (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.word() % n
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Bytes that tell which key, version and place they belong to, so that a torn copy shows.
pub fn pattern(key: u64, version: u64, len: usize) -> Vec<u8> {
    let seed = mix(key << 32 ^ version);
    let words = (0..len.div_ceil(8) as u64).flat_map(|i| seed.wrapping_add(i).to_le_bytes());
    let mut bytes: Vec<u8> = words.collect();
    bytes.truncate(len);
    bytes
}

//! Key sequences, and what fraction of them this cache and an exact LRU hit.

use lru::LruCache;
use state_cache_l1::{CHUNK, Geometry, Key, MIN_MEMORY};
use std::num::NonZeroUsize;

use crate::support::{Cache, DB, INCARNATION, Random, key_in};

/// Keys of the skewed traces.
pub const KEYS: usize = 100_000;

/// Ranks with the frequencies of Zipf's law.
pub struct Zipf(Vec<f64>);

impl Zipf {
    pub fn new(n: usize, exponent: f64) -> Zipf {
        let mut sum = 0.0;
        let mut sums: Vec<f64> = (1..=n)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        sums.iter_mut().for_each(|s| *s /= sum);
        Zipf(sums)
    }

    pub fn sample(&self, random: &mut Random) -> u64 {
        let at = random.unit();
        self.0.partition_point(|sum| *sum <= at) as u64
    }
}

/// Requests by Zipf's law with exponent 0.99.
pub fn skewed(requests: usize, seed: u64) -> Vec<u64> {
    let (zipf, mut random) = (Zipf::new(KEYS, 0.99), Random(seed));
    (0..requests).map(|_| zipf.sample(&mut random)).collect()
}

/// The same, interrupted every 20,000 requests by a scan of 5,000 keys of which most are never asked
/// for otherwise.
pub fn skewed_with_scans(requests: usize, seed: u64) -> Vec<u64> {
    let mut trace = Vec::with_capacity(requests + requests / 4);
    let mut scanned = 0;
    for part in skewed(requests, seed).chunks(20_000) {
        trace.extend_from_slice(part);
        trace.extend((0..5_000).map(|i| KEYS as u64 / 2 + (scanned + i) % 200_000));
        scanned += 5_000;
    }
    trace
}

/// Hit rates on one trace.
pub struct Rates {
    pub l1: f64,
    pub lru: f64,
    pub partitions: usize,
    pub capacity: usize,
}

fn key_of(name: &[u8]) -> Key<'_> {
    key_in(DB, INCARNATION, b"run", name)
}

/// Runs a trace through a cache with room for `capacity` values of `value_len` bytes, and through an
/// exact LRU of that many keys.
pub fn compare(trace: &[u64], capacity: usize, value_len: usize) -> Rates {
    let value = vec![7; value_len];
    // One entry tells how many chunks each takes; the class record takes two.
    let probe = Cache::new(1 << 20);
    let name = 0u64.to_le_bytes();
    probe.put(&key_of(&name), 1, &value).expect("fits");
    let each = probe.verify().expect("sound").in_entries as usize;
    let chunks = capacity * each + 2;
    // The largest memory that has at most so many chunks: its capacity is what the LRU gets.
    let mut bytes = (chunks * (CHUNK + 4)).max(MIN_MEMORY);
    while Geometry::for_memory(bytes).chunks() as usize <= chunks {
        bytes += 4096;
    }
    while Geometry::for_memory(bytes).chunks() as usize > chunks && bytes >= MIN_MEMORY {
        bytes -= 512;
    }
    assert!(
        bytes >= MIN_MEMORY,
        "{capacity} such values need less than the least memory"
    );
    let cache = Cache::new(bytes);
    let room = (cache.geometry().chunks() as usize - 2) / each;
    let mut lru = LruCache::new(NonZeroUsize::new(room).expect("some room"));
    let (mut l1_hits, mut lru_hits) = (0, 0);
    for number in trace {
        let name = number.to_le_bytes();
        let key = key_of(&name);
        if cache.has(&key) {
            l1_hits += 1;
        } else {
            cache.put(&key, 1, &value).expect("fits");
        }
        if lru.get(number).is_some() {
            lru_hits += 1;
        } else {
            lru.put(*number, ());
        }
    }
    assert!(cache.memory().entries as usize <= room);
    let rate = |hits: usize| hits as f64 / trace.len() as f64;
    Rates {
        l1: rate(l1_hits),
        lru: rate(lru_hits),
        partitions: cache.geometry().partitions(),
        capacity: room,
    }
}

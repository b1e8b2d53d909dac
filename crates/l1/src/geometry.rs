//! How a block of memory is divided: one computation, used for the request and for the layout.

use std::mem::size_of;
use std::sync::atomic::AtomicU32;

use crate::arena::Header;
use crate::mark::Mark;
use crate::partition::Partition;

/// Bytes of one chunk. Derived: half a chunk is lost per entry, 4 % of a 3 KB one, and the link of 4
/// bytes per chunk costs 1.6 %; 512 would lose more to the first, 128 more to the second.
pub const CHUNK: usize = 256;

/// The least memory a cache works in, in bytes (1 MB).
pub const MIN_MEMORY: usize = 1 << 20;

/// How many domains there are: marks for what is not one key, chosen by database.
pub const DOMAINS: usize = 64;

/// "No chunk": the end of a chain or list.
pub(crate) const NO_CHUNK: u32 = u32::MAX;

const MEGABYTE: usize = 1 << 20;

/// Sizes and offsets of the parts of one block of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    bytes: usize,
    partitions: usize,
    stripes: usize,
    class_buckets: usize,
    buckets: usize,
    chunks: u32,
    pub(crate) stripes_at: usize,
    pub(crate) domains_at: usize,
    pub(crate) partitions_at: usize,
    pub(crate) class_buckets_at: usize,
    pub(crate) buckets_at: usize,
    pub(crate) next_at: usize,
    pub(crate) chunks_at: usize,
}

fn power_of_two_at_most(n: usize) -> usize {
    match n.checked_ilog2() {
        Some(bits) => 1 << bits,
        None => 1,
    }
}

impl Geometry {
    /// Divides `bytes` bytes of memory; less than [`MIN_MEMORY`] is taken as that much.
    pub fn for_memory(bytes: usize) -> Geometry {
        let bytes = bytes.max(MIN_MEMORY);
        let partitions = power_of_two_at_most(bytes / MEGABYTE).clamp(1, 64);
        // Two writers meet on a stripe by chance; a reader that meets a writer goes to the tables.
        let stripes = power_of_two_at_most(bytes / MEGABYTE * 256).clamp(1024, 16384);
        // Between a quarter and half as many buckets as chunks: even where every entry is one chunk,
        // a bucket's chain holds four at most on average, and normal entries are ten chunks.
        let estimate = bytes / (CHUNK + 2 * size_of::<u32>());
        let buckets = power_of_two_at_most(estimate / 2).max(partitions);
        let class_buckets = power_of_two_at_most(estimate / 64).clamp(16, 4096);

        let stripes_at = size_of::<Header>().next_multiple_of(128);
        let domains_at = stripes_at + stripes * size_of::<Mark>();
        let partitions_at = domains_at + DOMAINS * size_of::<Mark>();
        let class_buckets_at = partitions_at + partitions * size_of::<Partition>();
        let buckets_at = class_buckets_at + class_buckets * size_of::<AtomicU32>();
        let next_at = buckets_at + buckets * size_of::<AtomicU32>();

        // One chunk is given up for the alignment of the first.
        let room = bytes - next_at - CHUNK;
        let chunks = (room / (CHUNK + size_of::<AtomicU32>())).min(NO_CHUNK as usize - 1);
        let chunks_at = (next_at + chunks * size_of::<AtomicU32>()).next_multiple_of(CHUNK);
        Geometry {
            bytes: chunks_at + chunks * CHUNK,
            partitions,
            stripes,
            class_buckets,
            buckets,
            chunks: u32::try_from(chunks).unwrap_or(NO_CHUNK - 1),
            stripes_at,
            domains_at,
            partitions_at,
            class_buckets_at,
            buckets_at,
            next_at,
            chunks_at,
        }
    }

    /// Bytes the cache really uses: at most what [`Geometry::for_memory`] was given, or
    /// [`MIN_MEMORY`] where that is more.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of partitions, a power of two.
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    /// Number of locks the cache needs: one per partition and one for the class registry.
    pub fn locks(&self) -> usize {
        self.partitions + 1
    }

    /// Number of stripes, a power of two.
    pub fn stripes(&self) -> usize {
        self.stripes
    }

    /// Number of hash buckets over all partitions, a power of two.
    pub fn buckets(&self) -> usize {
        self.buckets
    }

    /// Number of chunks of [`CHUNK`] bytes.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    pub(crate) fn class_buckets(&self) -> usize {
        self.class_buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_into_the_memory_given() {
        for bytes in [
            1,
            MIN_MEMORY,
            1_500_000,
            7 << 20,
            64 << 20,
            (1 << 30) + 12345,
        ] {
            let g = Geometry::for_memory(bytes);
            assert!(g.bytes() <= bytes.max(MIN_MEMORY), "{bytes}: {g:?}");
            assert!(g.chunks_at >= g.next_at + 4 * g.chunks() as usize);
            assert!(g.chunks() as usize * CHUNK * 100 >= g.bytes() * 93, "{g:?}");
        }
    }

    #[test]
    fn scales_partitions_and_stripes() {
        let small = Geometry::for_memory(MIN_MEMORY);
        assert_eq!(
            (small.partitions(), small.stripes(), small.locks()),
            (1, 1024, 2)
        );
        let large = Geometry::for_memory(64 << 20);
        assert_eq!(
            (large.partitions(), large.stripes(), large.locks()),
            (64, 16384, 65)
        );
    }
}

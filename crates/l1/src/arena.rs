//! The block of memory: its sections, the free list, and chains of chunks.

use std::ptr::NonNull;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use crate::entry::EntryHeader;
use crate::geometry::{CHUNK, DOMAINS, Geometry, NO_CHUNK};
use crate::mark::Mark;
use crate::partition::Partition;

/// Most chunks taken from the free list by one compare-and-swap: a longer walk would more often be
/// overtaken by another process and begin again.
const RUN: u32 = 256;

/// The start of the block. All fields are atomics; `class_*` change under the registry lock.
#[repr(C, align(128))]
pub(crate) struct Header {
    /// Head of the free list: a tag that every change raises in the upper half, an index in the lower.
    free: AtomicU64,
    /// Chunks on the free list. Raised before a push and lowered after a pop, so never too low.
    free_chunks: AtomicU64,
    /// The last serial given to an entry.
    pub serial: AtomicU64,
    /// Chooses the partition that the next eviction begins with.
    pub rotor: AtomicU32,
    /// Chunks of dirty entries, linked or reserved, and of their text forms.
    pub dirty_chunks: AtomicU64,
    /// Dirty entries that went with partitions whose lists were broken, and that nobody was told of yet.
    pub lost_dirty: AtomicU64,
    /// Chunks that class records have taken, for good.
    pub class_chunks: AtomicU32,
    /// First of the class records that await reuse.
    pub class_free: AtomicU32,
}

/// Chunks linked through `next[]`; the last one's link is NO_CHUNK unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub head: u32,
    pub tail: u32,
    pub chunks: u32,
}

/// The block as this process maps it.
pub(crate) struct Arena {
    base: NonNull<u8>,
    geometry: Geometry,
}

// SAFETY: the block outlives the arena (promised to `Arena::new`) and is meant to be used by many
// threads and processes; what protects each part of it is in the table at the crate root.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// # Safety
    ///
    /// `base` points to `geometry.bytes()` bytes, aligned to 128, initialised or zeroed, that stay mapped
    /// as long as the arena exists and are used through arenas of the same geometry only.
    pub unsafe fn new(base: NonNull<u8>, geometry: Geometry) -> Arena {
        Arena { base, geometry }
    }

    /// Fills zeroed memory: all lists empty, all chunks free in ascending order.
    pub fn format(&self) {
        for p in self.partitions() {
            p.clear();
        }
        for b in self.buckets().iter().chain(self.class_buckets()) {
            b.store(NO_CHUNK, Relaxed);
        }
        let chunks = self.chunks();
        for (i, next) in (1..).zip(self.next()) {
            next.store(if i < chunks { i } else { NO_CHUNK }, Relaxed);
        }
        let header = self.header();
        header.class_free.store(NO_CHUNK, Relaxed);
        header.free_chunks.store(u64::from(chunks), Relaxed);
        header.free.store(0, Release);
    }

    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub fn chunks(&self) -> u32 {
        self.geometry.chunks()
    }

    /// # Safety
    ///
    /// The geometry has `count` values of `T` at `at`, and `T` is made of atomics only.
    unsafe fn section<T>(&self, at: usize, count: usize) -> &[T] {
        // SAFETY: inside the block by the caller's word, aligned because the geometry places every
        // section at a multiple of its element's alignment; atomics may be shared, and every bit
        // pattern is valid for them.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(at).cast::<T>(), count) }
    }

    pub fn header(&self) -> &Header {
        // SAFETY: the block begins with a Header, which is made of atomics.
        unsafe { self.base.cast::<Header>().as_ref() }
    }

    pub fn stripes(&self) -> &[Mark] {
        // SAFETY: the geometry's section of marks.
        unsafe { self.section(self.geometry.stripes_at, self.geometry.stripes()) }
    }

    pub fn domains(&self) -> &[Mark] {
        // SAFETY: the geometry's section of domains.
        unsafe { self.section(self.geometry.domains_at, DOMAINS) }
    }

    pub fn partitions(&self) -> &[Partition] {
        // SAFETY: the geometry's section of partitions.
        unsafe { self.section(self.geometry.partitions_at, self.geometry.partitions()) }
    }

    pub fn class_buckets(&self) -> &[AtomicU32] {
        let g = &self.geometry;
        // SAFETY: the geometry's section of class buckets.
        unsafe { self.section(g.class_buckets_at, g.class_buckets()) }
    }

    pub fn buckets(&self) -> &[AtomicU32] {
        // SAFETY: the geometry's section of buckets.
        unsafe { self.section(self.geometry.buckets_at, self.geometry.buckets()) }
    }

    fn next(&self) -> &[AtomicU32] {
        // SAFETY: the geometry's section of links, one per chunk.
        unsafe { self.section(self.geometry.next_at, self.chunks() as usize) }
    }

    /// The chunk after `chunk` in its chain; NO_CHUNK at the end and for what is no chunk.
    pub fn after(&self, chunk: u32) -> u32 {
        self.next()
            .get(chunk as usize)
            .map_or(NO_CHUNK, |n| n.load(Relaxed))
    }

    /// Links `chunk`, which the caller owns, to `to`.
    pub fn join(&self, chunk: u32, to: u32) {
        if let Some(next) = self.next().get(chunk as usize) {
            next.store(to, Relaxed);
        }
    }

    /// Where `chunk` begins, if it exists.
    pub fn chunk(&self, chunk: u32) -> Option<NonNull<u8>> {
        if chunk >= self.chunks() {
            return None;
        }
        // SAFETY: inside the block, since the index is below the number of chunks.
        Some(unsafe {
            self.base
                .add(self.geometry.chunks_at + chunk as usize * CHUNK)
        })
    }

    /// # Safety
    ///
    /// `chunk` is the first of an entry that the caller owns, or whose partition lock it holds for as
    /// long as it uses the reference.
    pub unsafe fn entry(&self, chunk: u32) -> Option<&EntryHeader> {
        let start = self.chunk(chunk)?;
        // SAFETY: chunks are aligned and large enough, every bit pattern is a valid header, and by the
        // caller's word nobody changes its plain fields.
        Some(unsafe { start.cast::<EntryHeader>().as_ref() })
    }

    pub fn free_chunks(&self) -> u64 {
        self.header()
            .free_chunks
            .load(Relaxed)
            .min(u64::from(self.chunks()))
    }

    /// Takes up to `most` chunks (at most 256) from the free list; `None` when it is empty.
    ///
    /// The walk along the links is not protected, so it may follow links of chunks that others have
    /// taken meanwhile; then the head has moved on, its tag has changed, and the swap fails.
    pub fn pop(&self, most: u32) -> Option<Chain> {
        let most = most.min(RUN);
        let header = self.header();
        let mut seen = header.free.load(Acquire);
        loop {
            let head = seen as u32;
            if head >= self.chunks() || most == 0 {
                return None;
            }
            let (mut tail, mut count) = (head, 1);
            let mut rest = self.after(tail);
            while count < most && rest < self.chunks() {
                tail = rest;
                count += 1;
                rest = self.after(tail);
            }
            match header
                .free
                .compare_exchange_weak(seen, retag(seen, rest), AcqRel, Acquire)
            {
                Ok(_) => {
                    header.free_chunks.fetch_sub(u64::from(count), Relaxed);
                    self.join(tail, NO_CHUNK);
                    return Some(Chain {
                        head,
                        tail,
                        chunks: count,
                    });
                }
                Err(current) => seen = current,
            }
        }
    }

    /// Gives a chain back whose links the caller has made or checked.
    pub fn push(&self, chain: Chain) {
        let header = self.header();
        header
            .free_chunks
            .fetch_add(u64::from(chain.chunks), Relaxed);
        let mut seen = header.free.load(Relaxed);
        loop {
            self.join(chain.tail, seen as u32);
            match header
                .free
                .compare_exchange_weak(seen, retag(seen, chain.head), Release, Relaxed)
            {
                Ok(_) => return,
                Err(current) => seen = current,
            }
        }
    }

    /// Gives back the chain of `count` chunks that begins at `head`. A chain of another length is
    /// damaged and stays out of use: on the free list it could be handed out twice.
    pub fn release(&self, head: u32, count: u32) {
        if let Some(tail) = self.chain_end(head, count) {
            self.push(Chain {
                head,
                tail,
                chunks: count,
            });
        }
    }

    /// The last chunk of the chain at `head`, if it has exactly `count` chunks.
    pub fn chain_end(&self, head: u32, count: u32) -> Option<u32> {
        if count > self.chunks() {
            return None;
        }
        let mut tail = head;
        for _ in 1..count {
            tail = self.after(tail);
        }
        (count > 0 && tail < self.chunks() && self.after(tail) == NO_CHUNK).then_some(tail)
    }

    /// The first free chunk, for the survey of a cache at rest.
    pub fn first_free(&self) -> u32 {
        self.header().free.load(Acquire) as u32
    }

    /// The `len` bytes that begin `offset` bytes into `chunk`.
    pub fn runs(&self, chunk: u32, offset: usize, len: usize) -> Runs<'_> {
        let (mut chunk, mut offset) = (chunk, offset);
        while offset >= CHUNK {
            chunk = self.after(chunk);
            offset -= CHUNK;
        }
        Runs {
            arena: self,
            chunk,
            offset,
            left: len,
        }
    }

    /// # Safety
    ///
    /// The caller owns the chain or holds a lock under which nobody writes its bytes.
    ///
    /// Copies bytes out of a chain; false when it ends too early.
    pub unsafe fn copy_out(&self, chunk: u32, offset: usize, into: &mut [u8]) -> bool {
        let mut runs = self.runs(chunk, offset, into.len());
        let mut done = 0;
        while let Some((from, n)) = runs.take() {
            // SAFETY: `take` returns runs inside the block, in sum at most `into.len()` bytes;
            // `into` is not part of the block, which nobody else borrows mutably.
            unsafe { from.copy_to_nonoverlapping(NonNull::from(&mut into[done..]).cast(), n) };
            done += n;
        }
        runs.is_done()
    }

    /// # Safety
    ///
    /// As for [`Arena::copy_out`].
    ///
    /// Does the chain hold exactly these bytes there?
    pub unsafe fn holds(&self, chunk: u32, offset: usize, bytes: &[u8]) -> bool {
        let mut runs = self.runs(chunk, offset, bytes.len());
        let mut done = 0;
        while let Some((from, n)) = runs.take() {
            // SAFETY: a run lies inside the block, and by the caller's word nobody writes it now.
            let part = unsafe { std::slice::from_raw_parts(from.as_ptr(), n) };
            if part != &bytes[done..done + n] {
                return false;
            }
            done += n;
        }
        runs.is_done()
    }
}

fn retag(seen: u64, index: u32) -> u64 {
    ((seen >> 32).wrapping_add(1) << 32) | u64::from(index)
}

/// A stretch of a chain, delivered in pieces that are as long as neighbouring chunks allow.
pub(crate) struct Runs<'a> {
    arena: &'a Arena,
    chunk: u32,
    offset: usize,
    left: usize,
}

impl Runs<'_> {
    /// The next piece. `None` at the end, and where the chain is broken (then not `is_done`).
    pub fn take(&mut self) -> Option<(NonNull<u8>, usize)> {
        if self.left == 0 {
            return None;
        }
        let start = self.arena.chunk(self.chunk)?;
        let links = self.arena.next().get(self.chunk as usize..)?;
        let first = CHUNK - self.offset;
        let wanted = self
            .left
            .saturating_sub(first)
            .div_ceil(CHUNK)
            .min(links.len() - 1);
        // Compared with a count instead of following each link to the next: so the loads need not wait
        // for one another. On 58 KB the walk took three times as long the other way, measured beside
        // the copy itself.
        let more = links[..wanted]
            .iter()
            .zip(self.chunk + 1..)
            .take_while(|(link, index)| link.load(Relaxed) == *index)
            .count();
        let n = (first + more * CHUNK).min(self.left);
        // SAFETY: the offset is below the chunk's size.
        let from = unsafe { start.add(self.offset) };
        self.left -= n;
        self.chunk = links[more].load(Relaxed);
        self.offset = 0;
        Some((from, n))
    }

    /// Were all bytes delivered?
    pub fn is_done(&self) -> bool {
        self.left == 0
    }
}

/// Writes a stretch of a chain, part after part.
pub(crate) struct Writer<'a> {
    runs: Runs<'a>,
    to: NonNull<u8>,
    room: usize,
}

impl<'a> Writer<'a> {
    /// # Safety
    ///
    /// The caller owns the chain at `head` alone. The stretch is `len` bytes from `offset` on.
    pub unsafe fn new(arena: &'a Arena, head: u32, offset: usize, len: usize) -> Self {
        Writer {
            runs: arena.runs(head, offset, len),
            to: NonNull::dangling(),
            room: 0,
        }
    }

    /// Appends bytes; what would go past the end is dropped.
    pub fn write(&mut self, bytes: &[u8]) {
        let mut left = bytes;
        while !left.is_empty() {
            if self.room == 0 {
                let Some((to, room)) = self.runs.take() else {
                    return;
                };
                (self.to, self.room) = (to, room);
            }
            let (part, rest) = left.split_at(left.len().min(self.room));
            // SAFETY: `to` has `room` bytes in a run of chunks that this writer alone uses.
            unsafe {
                self.to
                    .copy_from_nonoverlapping(NonNull::from(part).cast(), part.len());
                self.to = self.to.add(part.len());
            }
            self.room -= part.len();
            left = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[repr(C, align(128))]
    struct Line([u8; 128]);

    /// Threads take and return a few chunks at a time, from a list so short that heads come back often:
    /// a swap that took a returned head for an unchanged list would hand a chunk out twice.
    #[test]
    fn no_chunk_is_handed_out_twice() {
        let geometry = Geometry::for_memory(crate::MIN_MEMORY);
        let mut memory: Vec<Line> = (0..geometry.bytes().div_ceil(128))
            .map(|_| Line([0; 128]))
            .collect();
        let base = NonNull::new(memory.as_mut_ptr().cast::<u8>()).unwrap();
        // SAFETY: zeroed, aligned, large enough, and used by this arena alone until the test ends.
        let arena = unsafe { Arena::new(base, geometry) };
        arena.format();
        let mut held = 0;
        while arena.free_chunks() > 12 {
            held += arena
                .pop((arena.free_chunks() - 12).min(200) as u32)
                .unwrap()
                .chunks;
        }
        let taken: Vec<AtomicBool> = (0..arena.chunks())
            .map(|_| AtomicBool::new(false))
            .collect();
        std::thread::scope(|scope| {
            for seed in 1..=4_u32 {
                let (arena, taken) = (&arena, &taken);
                scope.spawn(move || {
                    let mut word = seed;
                    for _ in 0..500_000 {
                        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let Some(chain) = arena.pop(1 + (word >> 16) % 4) else {
                            continue;
                        };
                        let mut chunk = chain.head;
                        for _ in 0..chain.chunks {
                            assert!(
                                !taken[chunk as usize].swap(true, Acquire),
                                "chunk {chunk} twice"
                            );
                            chunk = arena.after(chunk);
                        }
                        assert_eq!(chunk, NO_CHUNK);
                        if word >> 30 == 0 {
                            std::thread::yield_now();
                        }
                        let mut chunk = chain.head;
                        for _ in 0..chain.chunks {
                            taken[chunk as usize].store(false, Release);
                            chunk = arena.after(chunk);
                        }
                        arena.release(chain.head, chain.chunks);
                    }
                });
            }
        });
        assert_eq!(arena.free_chunks(), u64::from(arena.chunks() - held));
        let mut free = std::iter::successors(Some(arena.first_free()), |c| Some(arena.after(*c)));
        assert_eq!(free.position(|c| c == NO_CHUNK), Some(12));
    }
}

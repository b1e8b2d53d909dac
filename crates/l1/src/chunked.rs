//! A value as it lies in its chain: random access without a copy of the whole.

use std::cell::Cell;
use std::cmp::Ordering;
use std::ptr::NonNull;

use crate::arena::Arena;
use crate::entry::{EntryHeader, SKIP, SLOTS};
use crate::geometry::{CHUNK, NO_CHUNK};

/// Places remembered; a power of two. Binary jsonb is read in two or three regions at a time: offsets
/// and names at the start of a container, and the member they lead to.
const PLACES: usize = 8;

/// A place in the chain: the chunk's number within it, and its index.
type Place = (u32, u32);

/// The bytes of a value, in shared memory, while the partition's shared lock is held.
///
/// Reading near the last place read, or near a place read shortly before, costs a few loads; anywhere
/// else at most 63 links from the nearest slot of the skip table.
pub struct Chunked<'a> {
    arena: &'a Arena,
    head: u32,
    skip: u32,
    start: usize,
    len: usize,
    places: [Cell<Place>; PLACES],
    cursor: Cell<Place>,
    broken: Cell<bool>,
}

impl<'a> Chunked<'a> {
    /// # Safety
    ///
    /// The entry at `head` stays linked and its partition locked for as long as the view exists.
    pub(crate) unsafe fn new(arena: &'a Arena, head: u32, entry: &EntryHeader) -> Chunked<'a> {
        Chunked {
            arena,
            head,
            skip: entry.skip,
            start: entry.value_at(),
            len: entry.value_len as usize,
            places: [const { Cell::new((0, NO_CHUNK)) }; PLACES],
            cursor: Cell::new((0, head)),
            broken: Cell::new(false),
        }
    }

    /// Bytes of the value.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Is the value empty?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Has the chain turned out to be broken?
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Copies the bytes from `at` on; `None` when they are not all there.
    pub fn read(&self, at: usize, into: &mut [u8]) -> Option<()> {
        let mut done = 0;
        self.pieces(at, into.len(), |piece| {
            into[done..done + piece.len()].copy_from_slice(piece);
            done += piece.len();
            true
        })
    }

    /// Compares as many bytes from `at` on as `with` has; `None` when they are not all there.
    pub fn compare(&self, at: usize, with: &[u8]) -> Option<Ordering> {
        let mut done = 0;
        let mut result = Ordering::Equal;
        self.pieces(at, with.len(), |piece| {
            result = piece.cmp(&with[done..done + piece.len()]);
            done += piece.len();
            result.is_eq()
        })?;
        Some(result)
    }

    /// Is this the whole value?
    pub fn equals(&self, with: &[u8]) -> bool {
        self.len == with.len() && self.compare(0, with) == Some(Ordering::Equal)
    }

    /// Calls `f` with the `len` bytes from `at` on, piece by piece, until it returns false.
    fn pieces(&self, at: usize, len: usize, mut f: impl FnMut(&[u8]) -> bool) -> Option<()> {
        if at.checked_add(len)? > self.len {
            return None;
        }
        if len == 0 {
            return Some(());
        }
        let position = self.start + at;
        let number = (position / CHUNK) as u32;
        let Some(chunk) = self.locate(number) else {
            self.broken.set(true);
            return None;
        };
        let mut runs = self.arena.runs(chunk, position % CHUNK, len);
        while let Some((from, n)) = runs.take() {
            // SAFETY: the run lies inside the block, and under the lock that this view stands for
            // nobody writes it.
            if !f(unsafe { std::slice::from_raw_parts(from.as_ptr(), n) }) {
                return Some(());
            }
        }
        if !runs.is_done() {
            self.broken.set(true);
            return None;
        }
        Some(())
    }

    /// The index of the chain's chunk number `number`.
    fn locate(&self, number: u32) -> Option<u32> {
        let slot = &self.places[number as usize % PLACES];
        let remembered = slot.get();
        if remembered.0 == number && remembered.1 != NO_CHUNK {
            return Some(remembered.1);
        }
        let (mut at, mut chunk) = self.nearest_before(number)?;
        while at < number {
            chunk = self.arena.after(chunk);
            at += 1;
        }
        if chunk >= self.arena.chunks() {
            return None;
        }
        slot.set((number, chunk));
        self.cursor.set((number, chunk));
        Some(chunk)
    }

    /// A known place at or before chunk `number`, fewer than 64 links away where there is a skip table.
    fn nearest_before(&self, number: u32) -> Option<Place> {
        let cursor = self.cursor.get();
        if cursor.0 <= number && number - cursor.0 < SKIP as u32 {
            return Some(cursor);
        }
        let slots = number as usize / SKIP;
        if slots == 0 {
            return Some((0, self.head));
        }
        let slot = slots - 1;
        let mut table = self.skip;
        for _ in 0..slot / SLOTS {
            table = self.arena.after(table);
        }
        let table: NonNull<u32> = self.arena.chunk(table)?.cast();
        // SAFETY: the slot lies inside the chunk, is aligned, and under the lock nobody writes it.
        let chunk = unsafe { table.add(slot % SLOTS).read() };
        Some(((slots * SKIP) as u32, chunk))
    }
}

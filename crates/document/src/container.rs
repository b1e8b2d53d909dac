//! Reading a container: entries, keys and elements, each checked before it is used.

use core::cmp::Ordering;

use crate::error::DocumentError::{self, Damaged};
use crate::format::{
    ARRAY, CONTAINER, COUNT_MASK, HAS_OFFSET, KIND_MASK, LENGTH_MASK, OBJECT, SCALAR, STRIDE,
    STRING, WORD, first_word, is_aligned, padding,
};
use crate::item::{Item, key_order};
use crate::source::Source;
use state_cache_memory::with_capacity;

/// What a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Object,
    Array,
    /// The one-element array that stands for a scalar; only ever the root.
    Scalar,
}

/// One element: its kind, and where its data (padding included) lies in the source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) kind: u32,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Entry {
    /// Where the data begins behind its padding.
    pub(crate) fn content(&self) -> Result<usize, DocumentError> {
        let skip = if is_aligned(self.kind) {
            padding(self.start)
        } else {
            0
        };
        let content = self.start + skip;
        if content <= self.end {
            Ok(content)
        } else {
            Err(Damaged)
        }
    }
}

/// A container within a source. It keeps the last block of entries that it read: one stride of them,
/// so that a search in a small object costs one read and in a large one a read per block visited.
pub(crate) struct Container<'a, S: ?Sized> {
    source: &'a S,
    shape: Shape,
    /// Elements of an array, pairs of an object.
    count: usize,
    /// Position of the header; a multiple of four.
    at: usize,
    /// Position of the data, behind the entries.
    data: usize,
    /// Position behind the data.
    end: usize,
    /// Number of the block of entries in `words`.
    block: usize,
    words: [u32; STRIDE],
}

impl<'a, S: Source + ?Sized> Container<'a, S> {
    /// The root of the document.
    pub(crate) fn root(source: &'a S) -> Result<Self, DocumentError> {
        Self::open(source, 0, source.len())
    }

    /// A container that is an element of another.
    pub(crate) fn nested(source: &'a S, entry: &Entry) -> Result<Self, DocumentError> {
        let container = Self::open(source, entry.content()?, entry.end)?;
        if container.shape == Shape::Scalar {
            Err(Damaged)
        } else {
            Ok(container)
        }
    }

    fn open(source: &'a S, at: usize, end: usize) -> Result<Self, DocumentError> {
        // The header and the first block in one read.
        let mut bytes = [0; WORD * (1 + STRIDE)];
        let length = end.checked_sub(at).ok_or(Damaged)?;
        let ahead = bytes.len().min(length);
        let (front, _) = bytes.split_at_mut(ahead);
        source.read(at, front).ok_or(Damaged)?;
        let header = first_word(front).ok_or(Damaged)?;
        let count = (header & COUNT_MASK) as usize;
        let (shape, entries) = match header & !COUNT_MASK {
            OBJECT => (Shape::Object, 2 * count),
            ARRAY => (Shape::Array, count),
            flags if flags == ARRAY | SCALAR && count == 1 => (Shape::Scalar, 1),
            _ => return Err(Damaged),
        };
        if entries > length / WORD - 1 {
            return Err(Damaged);
        }
        let mut container = Container {
            source,
            shape,
            count,
            at,
            data: at + WORD * (1 + entries),
            end,
            block: 0,
            words: [0; STRIDE],
        };
        container.keep(0, &bytes[WORD..WORD + WORD * entries.min(STRIDE)])?;
        Ok(container)
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Number of entries: two for each pair of an object.
    pub(crate) fn entries(&self) -> usize {
        (self.data - self.at) / WORD - 1
    }

    /// Keeps the entries of one block; ends must stand where the stride wants them and nowhere else.
    fn keep(&mut self, block: usize, bytes: &[u8]) -> Result<(), DocumentError> {
        let (words, _) = bytes.as_chunks();
        for (place, (kept, word)) in self.words.iter_mut().zip(words).enumerate() {
            *kept = u32::from_ne_bytes(*word);
            if (*kept & HAS_OFFSET != 0) != (place == 0) {
                return Err(Damaged);
            }
        }
        self.block = block;
        Ok(())
    }

    /// Makes `words` hold the block; it must exist.
    fn load(&mut self, block: usize) -> Result<(), DocumentError> {
        if self.block == block {
            return Ok(());
        }
        let first = block * STRIDE;
        let held = self.entries().saturating_sub(first).min(STRIDE);
        let mut bytes = [0; WORD * STRIDE];
        let (front, _) = bytes.split_at_mut(WORD * held);
        self.source
            .read(self.at + WORD * (1 + first), front)
            .ok_or(Damaged)?;
        self.keep(block, front)
    }

    /// The entry with this number, which must be less than [`Self::entries`].
    pub(crate) fn entry(&mut self, index: usize) -> Result<Entry, DocumentError> {
        let (block, place) = (index / STRIDE, index % STRIDE);
        // The first entry of a block holds its end; its start is the end of the block before.
        let before = if place == 0 && block > 0 {
            self.load(block - 1)?;
            sum(&self.words)
        } else {
            0
        };
        self.load(block)?;
        let word = self.words[place];
        let (start, end) = if place == 0 {
            (before, length(word))
        } else {
            let start = sum(&self.words[..place]);
            (start, start + length(word))
        };
        self.bounded(word, start, end)
    }

    /// An entry from offsets into the data, once they are known to lie within it.
    fn bounded(&self, word: u32, start: usize, end: usize) -> Result<Entry, DocumentError> {
        if start > end || end > self.end - self.data {
            return Err(Damaged);
        }
        Ok(Entry {
            kind: word & KIND_MASK,
            start: self.data + start,
            end: self.data + end,
        })
    }

    /// Number of the pair with this key, by binary search. Lengths decide before bytes, so most
    /// probes read no key.
    pub(crate) fn find_key(&mut self, key: &[u8]) -> Result<Option<usize>, DocumentError> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry(middle)?;
            if entry.kind != STRING {
                return Err(Damaged);
            }
            let order = match (entry.end - entry.start).cmp(&key.len()) {
                Ordering::Equal => self.source.compare(entry.start, key).ok_or(Damaged)?,
                unequal => unequal,
            };
            match order {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(Some(middle)),
            }
        }
        Ok(None)
    }

    /// Walks all entries in order.
    pub(crate) fn walk(&mut self) -> Walk<'_, 'a, S> {
        Walk {
            next: 0,
            position: self.data,
            container: self,
        }
    }
}

/// One pair of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: Item<'a>,
}

impl<'a> Container<'a, [u8]> {
    /// The container that an element holds.
    pub(crate) fn of_item(item: &Item<'a>) -> Result<Self, DocumentError> {
        let end = item.bytes.len();
        Self::nested(
            item.bytes,
            &Entry {
                kind: item.kind,
                start: 0,
                end,
            },
        )
    }

    /// The pairs of an object, whose keys are found to be in order.
    pub(crate) fn pairs(&mut self) -> Result<Vec<Pair<'a>>, DocumentError> {
        let count = self.count;
        let mut walk = self.walk();
        let mut keys: Vec<&'a [u8]> = with_capacity(count)?;
        for _ in 0..count {
            let key = walk.next_item()?;
            let ascends = keys
                .last()
                .is_none_or(|last| key_order(last, key.bytes).is_lt());
            if key.kind != STRING || !ascends {
                return Err(Damaged);
            }
            keys.push(key.bytes);
        }
        let mut pairs = with_capacity(count)?;
        for key in keys {
            pairs.push(Pair {
                key,
                value: walk.next_item()?,
            });
        }
        walk.finish()?;
        Ok(pairs)
    }

    /// The whole document as an element of another: the scalar that the root stands for, or the root.
    pub(crate) fn root_item(document: &'a [u8]) -> Result<Item<'a>, DocumentError> {
        let mut root = Self::root(document)?;
        let (shape, entries) = (root.shape, root.entries());
        let mut walk = root.walk();
        if shape == Shape::Scalar {
            let item = walk.next_item()?;
            walk.finish()?;
            return if item.kind == CONTAINER {
                Err(Damaged)
            } else {
                Ok(item)
            };
        }
        for _ in 0..entries {
            walk.next_entry()?;
        }
        walk.finish()?;
        Ok(Item {
            kind: CONTAINER,
            bytes: document,
        })
    }
}

/// A walk over the entries of a container from the first on.
pub(crate) struct Walk<'c, 'a, S: ?Sized> {
    container: &'c mut Container<'a, S>,
    next: usize,
    /// Where the data of the next element begins.
    position: usize,
}

impl<'a, S: Source + ?Sized> Walk<'_, 'a, S> {
    /// Where the data of the next element begins.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// The next entry; [`Damaged`] when there is none.
    pub(crate) fn next_entry(&mut self) -> Result<Entry, DocumentError> {
        let container = &mut *self.container;
        if self.next >= container.entries() {
            return Err(Damaged);
        }
        let place = self.next % STRIDE;
        container.load(self.next / STRIDE)?;
        let word = container.words[place];
        let start = self.position - container.data;
        let end = if place == 0 {
            length(word)
        } else {
            start + length(word)
        };
        let entry = container.bounded(word, start, end)?;
        self.next += 1;
        self.position = entry.end;
        Ok(entry)
    }

    /// Says that the walk came to the last entry and its data to the end of the container.
    pub(crate) fn finish(self) -> Result<(), DocumentError> {
        let whole = self.next == self.container.entries() && self.position == self.container.end;
        if whole { Ok(()) } else { Err(Damaged) }
    }
}

impl<'a> Walk<'_, 'a, [u8]> {
    /// The next element; [`Damaged`] when there is none.
    pub(crate) fn next_item(&mut self) -> Result<Item<'a>, DocumentError> {
        let entry = self.next_entry()?;
        let bytes = self
            .container
            .source
            .get(entry.content()?..entry.end)
            .ok_or(Damaged)?;
        Item::checked(entry.kind, bytes)
    }

    /// The bytes of the source between two positions.
    pub(crate) fn bytes(&self, from: usize, to: usize) -> Result<&'a [u8], DocumentError> {
        self.container.source.get(from..to).ok_or(Damaged)
    }
}

/// Whether the root is an object.
#[must_use]
pub fn is_object(document: &[u8]) -> bool {
    Container::root(document).is_ok_and(|root| root.shape == Shape::Object)
}

fn length(word: u32) -> usize {
    (word & LENGTH_MASK) as usize
}

/// Where the data behind these entries of one block begins: the end that the first holds, and the
/// lengths of the others. At most 32 × 2^28, which a `usize` of 64 bits holds.
fn sum(words: &[u32]) -> usize {
    words.iter().map(|word| length(*word)).sum()
}

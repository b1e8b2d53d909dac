//! Writing containers, byte for byte as the server does.

use crate::container::Walk;
use crate::error::DocumentError::{self, TooLarge};
use crate::format::{
    ARRAY, CONTAINER, HAS_OFFSET, MAX_LENGTH, OBJECT, SCALAR, STRIDE, WORD, is_aligned, padding,
};
use crate::item::Item;
use state_cache_memory::Grow;

/// A container that is being written at the end of a payload. Header and entries are in place from
/// the start; entries are filled in while the data is appended.
pub(crate) struct Builder {
    /// Length of the payload before this container and its padding.
    start: usize,
    /// Position of the next entry to fill in.
    entry: usize,
    /// Number of that entry.
    index: usize,
    /// Length of the data so far.
    offset: usize,
}

impl Builder {
    /// An object of `count` pairs: all keys are put first, then all values.
    pub(crate) fn object(out: &mut Vec<u8>, count: usize) -> Result<Self, DocumentError> {
        Self::begin(out, OBJECT, count, 2 * count)
    }

    /// An array of `count` elements.
    pub(crate) fn array(out: &mut Vec<u8>, count: usize) -> Result<Self, DocumentError> {
        Self::begin(out, ARRAY, count, count)
    }

    fn begin(
        out: &mut Vec<u8>,
        flags: u32,
        count: usize,
        entries: usize,
    ) -> Result<Self, DocumentError> {
        if entries > MAX_LENGTH / WORD {
            return Err(TooLarge);
        }
        let start = out.len();
        let count = field(count)?;
        out.try_room(padding(start) + WORD * (1 + entries))?;
        pad(out);
        out.extend_from_slice(&(flags | count).to_ne_bytes());
        let entry = out.len();
        out.resize(entry + WORD * entries, 0);
        Ok(Builder {
            start,
            entry,
            index: 0,
            offset: 0,
        })
    }

    /// Appends one element.
    pub(crate) fn put(&mut self, out: &mut Vec<u8>, item: &Item<'_>) -> Result<(), DocumentError> {
        let start = out.len();
        out.try_room(padding(start) + item.bytes.len())?;
        if is_aligned(item.kind) {
            pad(out);
        }
        let length = out.len() - start + item.bytes.len();
        self.fill(out, item.kind, length)?;
        out.extend_from_slice(item.bytes);
        Ok(())
    }

    /// Appends `count` elements of another container as they are.
    pub(crate) fn copy(
        &mut self,
        out: &mut Vec<u8>,
        walk: &mut Walk<'_, '_, [u8]>,
        count: usize,
    ) -> Result<(), DocumentError> {
        let from = walk.position();
        if padding(from) != padding(out.len()) {
            for _ in 0..count {
                self.put(out, &walk.next_item()?)?;
            }
            return Ok(());
        }
        // Same alignment, same padding: the data moves in one piece.
        for _ in 0..count {
            let entry = walk.next_entry()?;
            self.fill(out, entry.kind, entry.end - entry.start)?;
        }
        out.try_extend(walk.bytes(from, walk.position())?)?;
        Ok(())
    }

    /// Takes a container that was written behind the data so far as the next element.
    pub(crate) fn adopt(&mut self, out: &mut [u8], child: Builder) -> Result<(), DocumentError> {
        let length = child.finish(out)?;
        self.fill(out, CONTAINER, length)
    }

    /// Makes what is appended next begin where data that is aligned begins.
    pub(crate) fn align(&self, out: &mut Vec<u8>) -> Result<(), DocumentError> {
        out.try_room(padding(out.len()))?;
        pad(out);
        Ok(())
    }

    /// Takes what was appended since the payload had the length `start`, padding included, as the next element.
    pub(crate) fn take(
        &mut self,
        out: &mut [u8],
        kind: u32,
        start: usize,
    ) -> Result<(), DocumentError> {
        self.fill(out, kind, out.len() - start)
    }

    /// Ends the container; its length in bytes, padding included.
    pub(crate) fn finish(self, out: &[u8]) -> Result<usize, DocumentError> {
        let length = out.len() - self.start;
        if length > MAX_LENGTH {
            Err(TooLarge)
        } else {
            Ok(length)
        }
    }

    fn fill(&mut self, out: &mut [u8], kind: u32, length: usize) -> Result<(), DocumentError> {
        self.offset += length;
        let offset = field(self.offset)?;
        let word = if self.index.is_multiple_of(STRIDE) {
            kind | offset | HAS_OFFSET
        } else {
            kind | field(length)?
        };
        out[self.entry..self.entry + WORD].copy_from_slice(&word.to_ne_bytes());
        self.entry += WORD;
        self.index += 1;
        Ok(())
    }
}

/// Makes `document`, whose first two words are free and whose rest is the data of one scalar, the
/// payload of that scalar as a root.
pub(crate) fn wrap_scalar(kind: u32, document: &mut [u8]) -> Result<(), DocumentError> {
    let length = field(document.len() - SCALAR_FRONT)?;
    document[..WORD].copy_from_slice(&(ARRAY | SCALAR | 1).to_ne_bytes());
    document[WORD..SCALAR_FRONT].copy_from_slice(&(kind | length | HAS_OFFSET).to_ne_bytes());
    Ok(())
}

/// Bytes before the data of a scalar at the root: header and one entry, so that it needs no padding.
pub(crate) const SCALAR_FRONT: usize = 2 * WORD;

/// There is room for the padding.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len() + padding(out.len()), 0);
}

/// A count, length or offset as the 28 bits of a word.
fn field(value: usize) -> Result<u32, DocumentError> {
    match u32::try_from(value) {
        Ok(word) if value <= MAX_LENGTH => Ok(word),
        _ => Err(TooLarge),
    }
}

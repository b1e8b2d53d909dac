//! Whether bytes are a document as the server itself would have built it.
//!
//! The server believes its jsonb: a count, a length or a digit out of bounds has it read, or write, memory that
//! is not the document's. What did not come through its input functions is checked here first.

use crate::error::DocumentError::{self, Damaged};
use crate::format::{
    ARRAY, CONTAINER, COUNT_MASK, FALSE, HAS_OFFSET, KIND_MASK, LENGTH_MASK, MAX_LENGTH, NULL,
    NUMERIC, OBJECT, SCALAR, STRIDE, STRING, TRUE, WORD, first_word, padding,
};
use crate::item::key_order;
use crate::merge::StackGuard;
use crate::numeric;

/// Finds whether `document` is, byte for byte, a form that the server builds: nothing that it relies on is taken
/// for granted, and nothing is accepted that it would have written otherwise.
///
/// `is_text` says whether bytes are characters of the server's encoding. It is not asked about ASCII, which is
/// part of every encoding that a server can have. The time is linear in the size; no memory is taken but the
/// stack. `guard` is called when the recursion comes to a depth where it has not been before.
///
/// # Errors
/// [`Damaged`], and what `guard` raises.
pub fn check(
    document: &[u8],
    is_text: impl Fn(&[u8]) -> bool,
    guard: StackGuard,
) -> Result<(), DocumentError> {
    let mut checker = Checker {
        document,
        is_text,
        guard,
        deepest: 0,
    };
    if document.len() <= MAX_LENGTH && checker.container(0, document.len(), 1) {
        Ok(())
    } else {
        Err(Damaged)
    }
}

/// What a walk over the elements of a container found.
struct Elements {
    /// Where their data begins.
    data: usize,
    /// How many of them are containers.
    containers: usize,
}

/// Where the data ends of the element whose entry this is, and whose data begins at `position`.
fn next(word: u32, data: usize, position: usize) -> usize {
    let from = if word & HAS_OFFSET != 0 {
        data
    } else {
        position
    };
    from + (word & LENGTH_MASK) as usize
}

struct Checker<'a, T> {
    document: &'a [u8],
    is_text: T,
    guard: StackGuard,
    /// The depth of the deepest container so far.
    deepest: usize,
}

impl<'a, T: Fn(&[u8]) -> bool> Checker<'a, T> {
    /// Whether exactly one container lies between two positions, of which the first is a multiple of four. The
    /// root is at depth 1. What this keeps on the stack is there at every level of the recursion, and what the
    /// server could nest has to be checked within the same stack.
    fn container(&mut self, at: usize, end: usize, depth: usize) -> bool {
        if depth > self.deepest {
            self.deepest = depth;
            (self.guard)();
        }
        let Some(Elements {
            data,
            mut containers,
        }) = self.elements(at, end, depth == 1)
        else {
            return false;
        };
        let (mut entry, mut position) = (at, data);
        while containers > 0 {
            entry += WORD;
            let Some(word) = self.word(entry) else {
                return false;
            };
            let next = next(word, data, position);
            if word & KIND_MASK == CONTAINER {
                containers -= 1;
                if !self.container(position + padding(position), next, depth + 1) {
                    return false;
                }
            }
            position = next;
        }
        true
    }

    /// The elements of the container between two positions, if all of them are sound but for what the containers
    /// among them hold. Not inlined, to keep what it needs off the stack of the recursion.
    #[inline(never)]
    fn elements(&self, at: usize, end: usize, is_root: bool) -> Option<Elements> {
        let (header, rest) = self.document.get(at..end)?.split_first_chunk()?;
        let header = u32::from_ne_bytes(*header);
        let count = (header & COUNT_MASK) as usize;
        let (keys, entries) = match header & !COUNT_MASK {
            OBJECT => (count, 2 * count),
            ARRAY => (0, count),
            flags if flags == ARRAY | SCALAR && count == 1 && is_root => (0, 1),
            _ => return None,
        };
        let (entries, data) = rest.split_at_checked(WORD * entries)?;
        let data = end - data.len();
        let mut containers = 0;
        let mut position = data;
        let mut last_key: &'a [u8] = &[];
        for (index, word) in entries.as_chunks().0.iter().enumerate() {
            let word = u32::from_ne_bytes(*word);
            if (word & HAS_OFFSET != 0) != index.is_multiple_of(STRIDE) {
                return None;
            }
            let next = next(word, data, position);
            if next < position || next > end {
                return None;
            }
            let kind = word & KIND_MASK;
            if index < keys {
                let key = self.string(position, next).filter(|_| kind == STRING)?;
                if index > 0 && key_order(last_key, key).is_ge() {
                    return None;
                }
                last_key = key;
            } else if kind == CONTAINER {
                // A scalar that stands for a document is none.
                if header & SCALAR != 0 {
                    return None;
                }
                self.behind_padding(position, next)?;
                containers += 1;
            } else if !self.is_plain(kind, position, next) {
                return None;
            }
            position = next;
        }
        (position == end).then_some(Elements { data, containers })
    }

    fn word(&self, at: usize) -> Option<u32> {
        self.document.get(at..).and_then(first_word)
    }

    /// Whether one element that is no container lies between two positions.
    fn is_plain(&self, kind: u32, start: usize, end: usize) -> bool {
        match kind {
            STRING => self.string(start, end).is_some(),
            NUMERIC => self
                .behind_padding(start, end)
                .and_then(|start| self.document.get(start..end))
                .is_some_and(numeric::is_canonical),
            FALSE | TRUE | NULL => start == end,
            _ => false,
        }
    }

    /// What lies between two positions, if that is text as a text value holds it: without NUL.
    fn string(&self, start: usize, end: usize) -> Option<&'a [u8]> {
        let bytes = self.document.get(start..end)?;
        // Most strings are. No branch for each byte: many are looked at at once.
        let is_ascii = bytes
            .iter()
            .fold(true, |so_far, byte| so_far & (byte.cast_signed() > 0));
        (is_ascii || (!bytes.contains(&0) && (self.is_text)(bytes))).then_some(bytes)
    }

    /// Where data begins that is aligned, if the padding before it is the server's: as short as can be, and zero.
    fn behind_padding(&self, start: usize, end: usize) -> Option<usize> {
        let content = start + padding(start);
        let padding = self.document.get(start..content)?;
        (content <= end && padding.iter().all(|byte| *byte == 0)).then_some(content)
    }
}

//! One element as raw bytes, ready to be copied elsewhere.

use core::cmp::Ordering;

use crate::error::DocumentError::{self, Damaged};
use crate::format::{CONTAINER, FALSE, NULL, NUMERIC, OBJECT, STRING, TRUE, WORD, first_word};
use crate::numeric::varlena_length;

/// One element: its kind, and its data without the padding at the front.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item<'a> {
    pub(crate) kind: u32,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Item<'a> {
    /// An element whose data has a shape that its kind can have.
    pub(crate) fn checked(kind: u32, bytes: &'a [u8]) -> Result<Self, DocumentError> {
        let sound = match kind {
            STRING => true,
            NUMERIC => is_numeric(bytes),
            FALSE | TRUE | NULL => bytes.is_empty(),
            CONTAINER => bytes.len() >= WORD,
            _ => false,
        };
        if sound {
            Ok(Item { kind, bytes })
        } else {
            Err(Damaged)
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.kind == NULL
    }

    pub(crate) fn is_object(&self) -> bool {
        self.kind == CONTAINER && first_word(self.bytes).is_some_and(|header| header & OBJECT != 0)
    }
}

/// Whether `bytes` are one varlena of exactly their own length. A numeric that claims more would make
/// the server read past the end of the document.
fn is_numeric(bytes: &[u8]) -> bool {
    let Some(&first) = bytes.first() else {
        return false;
    };
    // The server writes the four-byte header; its reader also takes the one-byte one.
    let (short, short_length) = if cfg!(target_endian = "little") {
        (first & 0x01 != 0, usize::from(first >> 1))
    } else {
        (first & 0x80 != 0, usize::from(first & 0x7F))
    };
    if short {
        return short_length == bytes.len() && bytes.len() > 2;
    }
    varlena_length(bytes) == Some(bytes.len()) && bytes.len() > 5
}

/// The order of keys in an object: the shorter first, then memcmp.
pub(crate) fn key_order(left: &[u8], right: &[u8]) -> Ordering {
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

//! The layout of jsonb, the same in PostgreSQL 9.4 to 18 (`utils/jsonb.h`). Words are in the byte
//! order of the machine.
//!
//! A container is a header word, one entry word per element (an object: all keys, then all values),
//! then the data of the elements in the same order. Numerics and containers begin at a multiple of
//! four from the start of the payload; the padding counts as the front of their data.

/// Size of the header and of each entry, in bytes.
pub const WORD: usize = 4;

/// Number of elements (pairs of an object) in a container's header.
pub const COUNT_MASK: u32 = 0x0FFF_FFFF;
/// Marks the one-element array that stands for a scalar at the root.
pub const SCALAR: u32 = 0x1000_0000;
/// Marks an object.
pub const OBJECT: u32 = 0x2000_0000;
/// Marks an array.
pub const ARRAY: u32 = 0x4000_0000;

/// Length of an element's data, or the end of it counted from the start of the container's data.
pub const LENGTH_MASK: u32 = 0x0FFF_FFFF;
/// Type of an element.
pub const KIND_MASK: u32 = 0x7000_0000;
/// Says that an entry holds an end and not a length.
pub const HAS_OFFSET: u32 = 0x8000_0000;
/// Every so many entries, from the first, one holds an end (`JB_OFFSET_STRIDE`).
pub const STRIDE: usize = 32;

/// Kind of an element: a string.
pub const STRING: u32 = 0x0000_0000;
/// Kind of an element: a number.
pub const NUMERIC: u32 = 0x1000_0000;
/// Kind of an element: `false`.
pub const FALSE: u32 = 0x2000_0000;
/// Kind of an element: `true`.
pub const TRUE: u32 = 0x3000_0000;
/// Kind of an element: `null`.
pub const NULL: u32 = 0x4000_0000;
/// Kind of an element: an object or an array.
pub const CONTAINER: u32 = 0x5000_0000;

/// Longest data of a container, and longest container, in bytes: what a length field holds.
pub(crate) const MAX_LENGTH: usize = LENGTH_MASK as usize;

/// Bytes from `at` to the next multiple of four.
pub(crate) const fn padding(at: usize) -> usize {
    at.wrapping_neg() & (WORD - 1)
}

/// Whether data of this kind begins at a multiple of four.
pub(crate) const fn is_aligned(kind: u32) -> bool {
    matches!(kind, NUMERIC | CONTAINER)
}

/// The word at the front of `bytes`.
pub(crate) fn first_word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

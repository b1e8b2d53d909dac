//! The hash that says whether two documents may be equal.

/// xxh3-128 of the payload. Equal documents have equal bytes, hence equal hashes; the converse is for
/// the caller to confirm by the bytes.
#[must_use]
pub fn hash(document: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(document)
}

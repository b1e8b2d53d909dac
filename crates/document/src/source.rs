//! Where the bytes of a document lie.

use core::cmp::Ordering;

/// The payload of one document, wherever it lies: in one slice, or in the chunks of the shared cache.
///
/// The readers of this crate ask for up to 132 bytes of headers and entries at a time, since each call
/// on a chunked source has a cost of its own.
pub trait Source {
    /// Length of the payload in bytes.
    fn len(&self) -> usize;

    /// Whether the payload has no bytes at all; no valid document has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `into.len()` bytes from position `at`; `None`, with `into` in any state, when they are
    /// not all within the payload.
    fn read(&self, at: usize, into: &mut [u8]) -> Option<()>;

    /// How the `bytes.len()` bytes at `at` compare with `bytes`, in memcmp order (`Less`: the stored
    /// ones come first); `None` when they are not all within the payload.
    fn compare(&self, at: usize, bytes: &[u8]) -> Option<Ordering>;
}

impl Source for [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn read(&self, at: usize, into: &mut [u8]) -> Option<()> {
        let end = at.checked_add(into.len())?;
        into.copy_from_slice(self.get(at..end)?);
        Some(())
    }

    fn compare(&self, at: usize, bytes: &[u8]) -> Option<Ordering> {
        let end = at.checked_add(bytes.len())?;
        Some(self.get(at..end)?.cmp(bytes))
    }
}

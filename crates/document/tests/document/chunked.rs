//! A source in pieces, as the shared cache holds documents, that counts what is asked of it.

use core::cell::Cell;
use core::cmp::Ordering;

use state_cache_document::Source;

pub struct Chunked {
    chunks: Vec<Vec<u8>>,
    size: usize,
    length: usize,
    pub calls: Cell<usize>,
    pub bytes: Cell<usize>,
}

impl Chunked {
    pub fn new(document: &[u8], size: usize) -> Self {
        Chunked {
            chunks: document.chunks(size).map(<[u8]>::to_vec).collect(),
            size,
            length: document.len(),
            calls: Cell::new(0),
            bytes: Cell::new(0),
        }
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.chunks
            .get(at / self.size)?
            .get(at % self.size)
            .copied()
    }
}

impl Source for Chunked {
    fn len(&self) -> usize {
        self.length
    }

    fn read(&self, at: usize, into: &mut [u8]) -> Option<()> {
        self.calls.set(self.calls.get() + 1);
        self.bytes.set(self.bytes.get() + into.len());
        for (place, byte) in into.iter_mut().enumerate() {
            *byte = self.byte(at.checked_add(place)?)?;
        }
        Some(())
    }

    fn compare(&self, at: usize, bytes: &[u8]) -> Option<Ordering> {
        let mut stored = vec![0; bytes.len()];
        self.read(at, &mut stored)?;
        Some(stored.as_slice().cmp(bytes))
    }
}

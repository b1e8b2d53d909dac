//! Marks: which commits are in progress, and how many there have been.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

/// What committers tell readers and fillers about the keys of one stripe, or about a whole domain.
///
/// A committer calls [`raise`](Mark::raise) before its transaction can become visible; after it has
/// become visible it links or removes its entries, then calls [`publish`](Mark::publish), then
/// [`lower`](Mark::lower). A transaction that aborts only lowers the mark.
///
/// All accesses are sequentially consistent. A reader takes its snapshot and then looks at `writers`; a
/// committer raises `writers` and then becomes visible: two locations, written and read in opposite
/// order by two processes, which is exactly what weaker orderings do not promise. On x86-64 the loads
/// are plain ones and the additions are locked anyway, so the promise costs nothing.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Mark {
    writers: AtomicU32,
    generation: AtomicU64,
}

impl Mark {
    /// Announces a commit that may become visible from now on.
    pub fn raise(&self) {
        self.writers.fetch_add(1, SeqCst);
    }

    /// Says that something has changed: fills begun before this are refused.
    pub fn publish(&self) {
        self.generation.fetch_add(1, SeqCst);
    }

    /// Takes back one [`raise`](Mark::raise).
    pub fn lower(&self) {
        self.writers.fetch_sub(1, SeqCst);
    }

    /// Is a commit in progress?
    pub fn has_writers(&self) -> bool {
        self.writers.load(SeqCst) != 0
    }

    /// How many changes have been published.
    pub fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    /// The generation, if no commit is in progress.
    ///
    /// `writers` must be read first. A committer publishes before it lowers the mark, so whoever finds no
    /// writers then reads a generation that counts all who have lowered it. In the other order a commit
    /// could publish and lower the mark between the two reads, unseen by both.
    pub fn quiet_generation(&self) -> Option<u64> {
        if self.has_writers() {
            return None;
        }
        Some(self.generation())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mark_with_a_writer_is_not_quiet() {
        let mark = Mark::default();
        let before = mark.quiet_generation().unwrap();
        mark.raise();
        assert_eq!(mark.quiet_generation(), None);
        mark.publish();
        mark.lower();
        assert_eq!(mark.quiet_generation(), Some(before + 1));
    }
}

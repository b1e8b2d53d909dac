//! Versions as they were decoded, for walks through the history of a state.
//!
//! A version that is stored as a delta is made from the versions below it, down to a keyframe. Who reads one version
//! after the other would have the same rows read and decoded again for each: with deltas 24 deep, a dozen for every
//! version. A walk decodes each of them once.
//!
//! # Contract
//!
//! - **An answer is what the rows would give.** What was decoded holds for one snapshot, in a transaction that has
//!   written nothing: all that such a snapshot sees stays as it is, whoever changes, repairs or prunes meanwhile.
//!   Another snapshot begins anew.
//! - **The row of the version is read all the same**, with the privileges and the policies of the caller; its bytes
//!   must be those that were decoded, and the document is compared with the hash in the row. Where anything differs,
//!   the rows decide.
//! - **A call that lists versions** ([`OneCall`]) remembers also in a transaction that has written: while the call
//!   runs, it only reads. What a policy's function writes meanwhile is beyond its snapshot.
//! - **Who looks for damage** (verification, repair, recovery) does not come here.
//! - **Bounded** in entries and in bytes. Memory is asked for fallibly; where it is refused, nothing is remembered.
//! - **Dropped when the transaction ends**; the callback only frees.

use crate::callback::Kept;
use crate::snapshot;
use lru::LruCache;
use pgrx::pg_sys;
use state_cache_document::hash;
use state_cache_memory::{copy, with_capacity};
use std::cell::Cell;
use std::num::NonZeroUsize;

/// The most versions that are remembered: several chains as deep as they may be.
const ENTRIES: NonZeroUsize = NonZeroUsize::new(512).unwrap();

/// The most bytes of their documents, and the most of one.
const BYTES: usize = 8 << 20;
const ONE: usize = 1 << 20;

/// What of a version is packed in a chain of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its document.
    Document,
    /// The bytes beside it.
    Payload,
}

/// A version: the hash of the names of its class and state, and its number.
type Name = (u128, i64);

/// One version.
struct Decoded {
    /// Hash of the bytes in its row.
    row: u128,
    document: Vec<u8>,
}

/// What was decoded under one snapshot.
struct Walk {
    snapshot: u128,
    bytes: usize,
    versions: LruCache<Name, Decoded>,
}

thread_local! {
    static WALK: Kept<Option<Walk>> = Kept::default();
    /// How many calls run that write nothing.
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

/// A walk through the history of one state, under the active snapshot.
#[derive(Clone, Copy)]
pub struct Walker {
    snapshot: u128,
    state: u128,
}

impl Walker {
    /// `None` where nothing may be remembered: what this transaction has written, a savepoint may take back without a
    /// change of the snapshot.
    pub fn of(class: &[u8], key: &[u8], part: Part) -> Option<Self> {
        // SAFETY: looks at this backend's transaction state.
        let written_as = unsafe { pg_sys::GetTopTransactionIdIfAny() };
        if written_as != pg_sys::InvalidTransactionId && CALLS.get() == 0 {
            return None;
        }
        let mut state = with_capacity(1 + size_of::<usize>() + class.len() + key.len()).ok()?;
        state.push(u8::from(part == Part::Payload));
        state.extend(class.len().to_ne_bytes());
        state.extend_from_slice(class);
        state.extend_from_slice(key);
        Some(Self {
            snapshot: snapshot::identity()?,
            state: hash(&state),
        })
    }

    /// A copy of the document of a version whose row holds these bytes.
    pub fn document(self, version: i64, row: &[u8]) -> Option<Vec<u8>> {
        self.with(|walk| {
            let decoded = walk.versions.get(&(self.state, version))?;
            let is_same = decoded.row == hash(row);
            is_same.then(|| copy(&decoded.document).ok()).flatten()
        })
    }

    /// What `f` makes of the document of a version.
    pub fn upon<T>(self, version: i64, f: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        self.with(|walk| {
            let decoded = walk.versions.get(&(self.state, version))?;
            f(&decoded.document)
        })
    }

    /// Remembers a version.
    pub fn remember(self, version: i64, row: &[u8], document: Vec<u8>) {
        if document.len() > ONE {
            return;
        }
        let row = hash(row);
        WALK.with(|kept| {
            kept.with(|walk| {
                if walk
                    .as_ref()
                    .is_none_or(|walk| walk.snapshot != self.snapshot)
                {
                    *walk = Some(Walk {
                        snapshot: self.snapshot,
                        bytes: 0,
                        versions: LruCache::new(ENTRIES),
                    });
                }
                if let Some(walk) = walk {
                    walk.put((self.state, version), Decoded { row, document });
                }
            });
        });
    }

    fn with<T>(self, f: impl FnOnce(&mut Walk) -> Option<T>) -> Option<T> {
        WALK.with(|kept| {
            kept.with(|walk| {
                let walk = walk.as_mut();
                walk.filter(|walk| walk.snapshot == self.snapshot)
                    .and_then(f)
            })
        })
    }
}

impl Walk {
    fn put(&mut self, name: Name, decoded: Decoded) {
        self.bytes += decoded.document.len();
        let replaced = self.versions.push(name, decoded);
        self.bytes -= replaced.map_or(0, |(_, old)| old.document.len());
        while self.bytes > BYTES
            && let Some((_, oldest)) = self.versions.pop_lru()
        {
            self.bytes -= oldest.document.len();
        }
    }
}

/// A call that reads many versions and writes none: within it, what was decoded is remembered in a transaction that
/// has written too. Nothing decoded before the call counts, and nothing of the call counts after it.
pub struct OneCall(());

impl OneCall {
    /// Begins one.
    pub fn begin() -> Self {
        forget();
        CALLS.set(CALLS.get() + 1);
        Self(())
    }
}

impl Drop for OneCall {
    // Runs while an error unwinds, too.
    fn drop(&mut self) {
        CALLS.set(CALLS.get().saturating_sub(1));
        forget();
    }
}

/// The transaction has ended. Called by its callback.
pub fn forget() {
    WALK.with(|kept| kept.reach(|walk| *walk = None));
}

//! What is reported about the worker of a database, for `state_cache_workers`: atomics, and two short texts
//! that are read and written under the lock of the slots.

use std::cell::UnsafeCell;
use std::sync::atomic::{
    AtomicI64, AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use strum::FromRepr;

/// How things stand with the worker of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRepr)]
#[repr(u32)]
pub enum Stage {
    /// There is none, and none is wanted.
    None,
    /// The launcher has asked for a process.
    Starting,
    /// It is there.
    Running,
    /// It finishes what cannot wait.
    Leaving,
    /// The last one found no extension in the database.
    NoExtension,
    /// `state_cache.max_workers` are busy.
    Queued,
    /// The server has no free place for a background process.
    NoProcess,
    /// The last one died, or never came up; the launcher waits before it tries again.
    BackingOff,
    /// It died just now; the launcher has not seen it yet.
    Died,
}

/// Bytes of an error that are kept.
const ERROR: usize = 320;
/// Bytes of an activity that are kept.
const ACTIVITY: usize = 96;

/// A short text.
pub(super) struct Text<const N: usize> {
    len: AtomicU32,
    bytes: UnsafeCell<[u8; N]>,
}

// SAFETY: the bytes are read and written under the lock of the slots only.
unsafe impl<const N: usize> Sync for Text<N> {}

impl<const N: usize> Text<N> {
    /// Keeps what fits of a text in UTF-8. The lock of the slots is held exclusively.
    fn set(&self, text: &str) {
        self.set_bytes(&text.as_bytes()[..text.floor_char_boundary(N)]);
    }

    /// Keeps what fits of a text in the encoding of a database. The lock of the slots is held exclusively.
    pub(super) fn set_bytes(&self, text: &[u8]) {
        let text = &text[..text.len().min(N)];
        // SAFETY: nobody else reads or writes, by the caller's promise.
        unsafe { (&mut *self.bytes.get())[..text.len()].copy_from_slice(text) };
        self.len.store(text.len() as u32, Relaxed);
    }

    /// A copy, without allocating. The lock of the slots is held.
    pub(super) fn copy(&self) -> Copied<N> {
        Copied {
            len: (self.len.load(Relaxed) as usize).min(N),
            // SAFETY: nobody writes, by the caller's promise.
            bytes: unsafe { *self.bytes.get() },
        }
    }
}

/// A text that was copied out.
pub struct Copied<const N: usize> {
    len: usize,
    bytes: [u8; N],
}

impl<const N: usize> Copied<N> {
    /// The text in the encoding of its database; `None` for an empty one.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.bytes.get(..self.len).filter(|bytes| !bytes.is_empty())
    }

    /// The text in UTF-8; `None` for an empty one.
    pub fn get(&self) -> Option<&str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

/// What a worker is doing.
pub type Activity = Copied<ACTIVITY>;
/// Its last error.
pub type ErrorText = Copied<ERROR>;

/// What is reported about one database. Times are in microseconds since 2000, 0 for never.
#[repr(C)]
pub struct Report {
    stage: AtomicU32,
    /// When the worker began.
    pub started_at: AtomicI64,
    /// Since when it has had nothing to do; 0 while it has.
    pub idle_since: AtomicI64,
    /// When changes were last written behind.
    pub last_flush: AtomicI64,
    /// When the last error happened.
    pub last_error_at: AtomicI64,
    /// Errors of tasks and deaths of workers since the server started.
    pub failures: AtomicU64,
    /// States that the warm start has loaded.
    pub warm_done: AtomicU64,
    /// States that it will look at.
    pub warm_total: AtomicU64,
    /// Entries of L1 that audits have compared since the server started.
    pub audited: AtomicU64,
    /// Those that were not what they should be.
    pub differing: AtomicU64,
    error: Text<ERROR>,
    activity: Text<ACTIVITY>,
}

impl Report {
    /// As in a slot that was just taken.
    pub(super) fn reset(&self) {
        self.set_stage(Stage::None);
        for time in [
            &self.started_at,
            &self.idle_since,
            &self.last_flush,
            &self.last_error_at,
        ] {
            time.store(0, SeqCst);
        }
        for count in [
            &self.failures,
            &self.warm_done,
            &self.warm_total,
            &self.audited,
            &self.differing,
        ] {
            count.store(0, SeqCst);
        }
        self.error.len.store(0, SeqCst);
        self.activity.len.store(0, SeqCst);
    }

    /// How things stand.
    pub fn stage(&self) -> Stage {
        Stage::from_repr(self.stage.load(SeqCst)).unwrap_or(Stage::None)
    }

    /// Says how things stand.
    pub(super) fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u32, SeqCst);
    }

    /// Says what the worker is doing; an empty text for nothing. The lock of the slots is held exclusively.
    pub(super) fn set_activity(&self, activity: &str) {
        self.activity.set(activity);
    }

    /// Counts an error and keeps its text. The lock of the slots is held exclusively.
    pub(super) fn set_error(&self, error: &str, now: i64) {
        self.error.set(error);
        self.last_error_at.store(now, SeqCst);
        self.failures.fetch_add(1, SeqCst);
    }

    /// Copies of activity and error. The lock of the slots is held.
    pub(super) fn texts(&self) -> (Activity, ErrorText) {
        (self.activity.copy(), self.error.copy())
    }
}

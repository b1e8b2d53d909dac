//! What the processes of a server share about each database: the numbers of its messages, its worker, and
//! what the worker reports.
//!
//! Contract. A slot is taken when a session of a database first needs one and given back when the database
//! is dropped; both under the lock of the slots, everything else through atomics. `seq` and `epoch` change
//! only while the lock that NOTIFY takes is held, so that they change in the order in which commits become
//! visible; see `notify`.
//!
//! Write-behind: a committer that leaves a change to the worker calls [`Database::enter_behind`] before its
//! commit record and [`Database::leave_behind`] after its change is in L1 (or given up). The worker stops
//! accepting before it leaves and then waits until nobody is in between, so nothing is left behind it.

use super::LwLocks;
use pgrx::pg_sys;
use state_cache_l1::Locks;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

/// Databases that can have messages numbered and a worker. With more, the others are served as without
/// preloading: messages carry no number, every class is written through.
pub const MAX_DATABASES: usize = 128;

/// One database.
#[repr(C, align(128))]
pub struct Database {
    /// Its OID, 0 for a free slot.
    oid: AtomicU32,
    /// Process of its worker, 0 for none.
    worker: AtomicU32,
    /// The worker's latch while `worker` is set. It lives in the server's array of processes, so a stale one
    /// wakes somebody else, which is harmless.
    latch: AtomicPtr<pg_sys::Latch>,
    /// Whether commits may leave changes to the worker.
    accepting: AtomicBool,
    /// Whether a session wants a worker.
    wanted: AtomicBool,
    /// Whether the worker is asked to leave at once.
    leaving: AtomicBool,
    /// Committers between [`Database::enter_behind`] and [`Database::leave_behind`].
    committing: AtomicU32,
    /// Which run of numbers the messages belong to; microseconds since 2000 at its beginning.
    epoch: AtomicU64,
    /// Number of the last message of that run.
    seq: AtomicU64,
    /// Position in the ring of changes up to which subscribers were told of this database's changes. Only grows.
    told: AtomicU64,
    /// Position behind this database's last change in the ring. Changed under the ring's lock.
    appended: AtomicU64,
}

/// All slots, as they lie in shared memory.
#[repr(C, align(128))]
pub struct Databases {
    slots: [Database; MAX_DATABASES],
    /// Latch of the launcher, null while there is none.
    launcher: AtomicPtr<pg_sys::Latch>,
}

impl Databases {
    /// The slot of a database, if it has one.
    pub fn find(&self, oid: u32) -> Option<&Database> {
        self.slots
            .iter()
            .find(|slot| slot.oid.load(SeqCst) == oid && oid != 0)
    }

    /// The slot of a database, taken now if it has none; `None` when all are taken. `ring_head` is where its
    /// worker will begin to read.
    pub fn find_or_take(
        &self,
        oid: u32,
        locks: &LwLocks,
        n: usize,
        ring_head: u64,
    ) -> Option<&Database> {
        if let Some(known) = self.find(oid) {
            return Some(known);
        }
        locks.lock_exclusive(n);
        let slot = self.find(oid).or_else(|| {
            let free = self.slots.iter().find(|slot| slot.oid.load(SeqCst) == 0)?;
            free.reset(ring_head);
            free.oid.store(oid, SeqCst);
            Some(free)
        });
        locks.unlock(n);
        slot
    }

    /// Gives back the slot of a database that no longer exists.
    pub fn forget(&self, oid: u32, locks: &LwLocks, n: usize) {
        locks.lock_exclusive(n);
        if let Some(slot) = self.find(oid) {
            slot.oid.store(0, SeqCst);
        }
        locks.unlock(n);
    }

    /// The slots in use, with their databases.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Database)> {
        self.slots
            .iter()
            .map(|slot| (slot.oid.load(SeqCst), slot))
            .filter(|(oid, _)| *oid != 0)
    }

    /// Says whose latch is the launcher's; null when it leaves.
    pub fn set_launcher(&self, latch: *mut pg_sys::Latch) {
        self.launcher.store(latch, SeqCst);
    }

    /// Wakes the launcher, if there is one.
    pub fn wake_launcher(&self) {
        wake(&self.launcher);
    }
}

impl Database {
    fn reset(&self, ring_head: u64) {
        self.worker.store(0, SeqCst);
        self.latch.store(std::ptr::null_mut(), SeqCst);
        self.accepting.store(false, SeqCst);
        self.wanted.store(false, SeqCst);
        self.leaving.store(false, SeqCst);
        self.committing.store(0, SeqCst);
        self.seq.store(0, SeqCst);
        self.told.store(ring_head, SeqCst);
        self.appended.store(ring_head, SeqCst);
        // SAFETY: reads the clock.
        self.epoch
            .store(unsafe { pg_sys::GetCurrentTimestamp() } as u64, SeqCst);
    }

    /// Epoch and number of the last message.
    pub fn last_message(&self) -> (u64, u64) {
        loop {
            let epoch = self.epoch.load(SeqCst);
            let seq = self.seq.load(SeqCst);
            // Epochs never come back: the number is one of this epoch.
            if epoch != 0 && self.epoch.load(SeqCst) == epoch {
                return (epoch, seq);
            }
            std::hint::spin_loop();
        }
    }

    /// Sets the number of the last message; NOTIFY's lock is held. For callbacks too.
    pub fn set_last_message(&self, epoch: u64, seq: u64) {
        if self.epoch.load(SeqCst) != epoch {
            // Nobody may take a number of one epoch for one of the other.
            self.epoch.store(0, SeqCst);
        }
        self.seq.store(seq, SeqCst);
        self.epoch.store(epoch, SeqCst);
    }

    /// Changes of this database were appended to the ring at `at`; its lock is held. Whether subscribers had been
    /// told of all earlier ones. For callbacks too.
    pub fn add_untold(&self, at: std::ops::Range<u64>) -> bool {
        let before = self.appended.swap(at.end, SeqCst);
        // After the store: either the worker sees it when it has told what was before, or this sees that it has.
        let all_told = self.told.load(SeqCst) >= before;
        if all_told {
            // What lies between is of other databases; that it is overwritten is no loss.
            self.told.fetch_max(at.start, SeqCst);
        }
        all_told
    }

    /// Whether the ring holds changes that subscribers were not told of.
    pub fn has_untold(&self) -> bool {
        self.untold() > 0
    }

    /// Bytes of the ring from the first change that subscribers were not told of to the last.
    pub fn untold(&self) -> u64 {
        let told = self.told.load(SeqCst);
        self.appended.load(SeqCst).saturating_sub(told)
    }

    /// Up to where in the ring subscribers were told.
    pub fn told(&self) -> u64 {
        self.told.load(SeqCst)
    }

    /// Subscribers were told of all changes before that position.
    pub fn tell(&self, position: u64) {
        self.told.fetch_max(position, SeqCst);
    }

    /// Whether there is a worker.
    pub fn has_worker(&self) -> bool {
        self.worker.load(SeqCst) != 0
    }

    /// The worker's process id, 0 for none.
    pub fn worker(&self) -> u32 {
        self.worker.load(SeqCst)
    }

    /// This process is the worker from here on, or (0, null) there is none.
    pub fn set_worker(&self, pid: u32, latch: *mut pg_sys::Latch) {
        self.latch.store(latch, SeqCst);
        self.worker.store(pid, SeqCst);
    }

    /// Wakes the worker, if there is one. For callbacks too: it only sets a latch.
    pub fn wake_worker(&self) {
        wake(&self.latch);
    }

    /// Notes that a worker is wanted; whether that is news.
    pub fn want_worker(&self) -> bool {
        !self.wanted.swap(true, SeqCst)
    }

    /// Whether a worker is wanted.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(SeqCst)
    }

    /// Takes the wish back: a worker has looked at what there is to do since.
    pub fn unwant(&self) {
        self.wanted.store(false, SeqCst);
    }

    /// Asks the worker to leave, or takes that back.
    pub fn set_leaving(&self, leaving: bool) {
        self.leaving.store(leaving, SeqCst);
        if leaving {
            self.wake_worker();
        }
    }

    /// Whether the worker is asked to leave.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(SeqCst)
    }

    /// Whether commits may leave changes to the worker from here on.
    pub fn set_accepting(&self, accepting: bool) {
        self.accepting.store(accepting, SeqCst);
    }

    /// A commit wants to leave changes to the worker; whether it may. If so it calls
    /// [`Database::leave_behind`] once.
    pub fn enter_behind(&self) -> bool {
        self.committing.fetch_add(1, SeqCst);
        let may = self.accepting.load(SeqCst);
        if !may {
            self.leave_behind();
        }
        may
    }

    /// The changes are in L1, or given up.
    pub fn leave_behind(&self) {
        self.committing.fetch_sub(1, SeqCst);
    }

    /// Whether a commit is leaving changes to the worker right now.
    pub fn has_committing(&self) -> bool {
        self.committing.load(Relaxed) != 0
    }
}

fn wake(latch: &AtomicPtr<pg_sys::Latch>) {
    let latch = latch.load(SeqCst);
    if !latch.is_null() {
        // SAFETY: latches in shared memory outlive the process; setting one takes no lock and cannot fail.
        unsafe { crate::sys::set_latch(latch) };
    }
}

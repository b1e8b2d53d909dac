//! What the processes of a server share about each database: the numbers of its messages, its worker, and
//! what the worker reports.
//!
//! Contract. A slot is taken when a session of a database first needs one and given back when the database
//! is dropped; both under the lock of the slots, as is becoming the worker, so that there is never more than
//! one. What the worker tells in words ([`Report`]) is under that lock too, everything else atomic. `seq`
//! and `epoch` change only while the lock that NOTIFY takes is held, so that they change in the order in
//! which commits become visible; see `notify`.
//!
//! Calling the worker: [`Database::wake_worker`] notes the wish before it looks for somebody to wake, and a
//! worker that leaves gives up its place before it wakes the launcher, which looks at the wishes. So a wish
//! is seen by the worker or by the launcher, whenever it comes.
//!
//! Write-behind: a committer that defers a change calls [`Database::begin_deferring`] before its
//! commit record and [`Database::end_deferring`] after its change is in L1 (or given up). The worker stops
//! accepting before it leaves and then waits until nobody is in between, so nothing is left behind it.
//!
//! Messages: a committer that leaves its messages to the worker calls [`Database::begin_handing_over`] before its
//! commit record and [`Database::end_handing_over`] when they are in the ring. The worker that leaves waits for both
//! kinds of committers in the same way. Its flusher may refuse changes while the worker still tells, so each has its
//! own flag.
//!
//! Memory order. Both sides store and then load what the other one stores: a committer raises `committing` and then
//! looks at `accepting` (or `telling`); a leaving worker lowers both and then looks at `committing`. Only where all
//! four are sequentially consistent does at least one of them see the other (on x86-64 a plain load may pass an
//! earlier store as well). The worker's load is also what makes it see in L1 what a committer that has left put
//! there. The same goes for `flush_wanted`: a committer links its entry and then raises it, the worker lowers it
//! and then looks for entries. L1 counts those without order, so the worker lowers it by an exchange, which takes
//! in what came before the committer's; a store would overwrite it unseen. `is_accepting` is a hint, asked before
//! there is anything to lose: `begin_deferring` asks again.

use super::locks::OtherLock;
use super::report::{Report, Stage};
use pgrx::pg_sys;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

/// A time that does not come, in microseconds since 2000.
pub const NEVER: i64 = i64::MAX;

/// One database.
#[repr(C, align(128))]
pub struct Database {
    /// Its OID, 0 for a free slot.
    oid: AtomicU32,
    /// Process of its worker, 0 for none. Set under the lock of the slots.
    worker: AtomicU32,
    /// The worker's latch while `worker` is set. It lives in the server's array of processes, so a stale one
    /// wakes somebody else, which is harmless.
    latch: AtomicPtr<pg_sys::Latch>,
    /// Whether commits may defer changes.
    accepting: AtomicBool,
    /// Whether commits may leave messages to the worker.
    telling: AtomicBool,
    /// Whether a session wants a worker.
    wanted: AtomicBool,
    /// When a worker is needed without being called; [`NEVER`] for not at all. The departed one left it.
    due: AtomicI64,
    /// Until when no worker may be here, for a statement that needs the database to itself; 0 for none.
    barred: AtomicI64,
    /// Whether the launcher asks the worker to leave.
    dismissed: AtomicBool,
    /// Whether the worker is to look whether the extension is still installed.
    recheck: AtomicBool,
    /// What the worker and the launcher report.
    pub report: Report,
    /// Whether the worker knows that L1 holds dirty entries, or has been told.
    flush_wanted: AtomicBool,
    /// Committers between [`Database::begin_deferring`] and [`Database::end_deferring`], and between
    /// [`Database::begin_handing_over`] and [`Database::end_handing_over`].
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

/// Where the launcher's latch is noted in shared memory; null while there is none.
pub type Launcher = AtomicPtr<pg_sys::Latch>;

/// Where [`Launcher`] is mapped; null without shared memory.
static LAUNCHER: AtomicPtr<Launcher> = AtomicPtr::new(std::ptr::null_mut());

/// All slots, and the launcher. There are as many as `state_cache.max_databases` says; with more databases, the
/// others are served as without preloading: messages carry no number, every class is written through.
pub struct Databases {
    slots: &'static [Database],
    launcher: &'static Launcher,
}

impl Databases {
    /// What lies in shared memory.
    pub(super) fn new(slots: &'static [Database], launcher: &'static Launcher) -> Self {
        LAUNCHER.store(std::ptr::from_ref(launcher).cast_mut(), SeqCst);
        Self { slots, launcher }
    }

    /// The slot of a database, if it has one.
    pub fn find(&self, oid: u32) -> Option<&Database> {
        self.slots
            .iter()
            .find(|slot| slot.oid.load(SeqCst) == oid && oid != 0)
    }

    /// The slot of a database, taken now if it has none; `None` when all are taken. `ring_head` is where its
    /// worker will begin to read.
    pub fn find_or_take(&self, oid: u32, lock: &OtherLock, ring_head: u64) -> Option<&Database> {
        if let Some(known) = self.find(oid) {
            return Some(known);
        }
        let _alone = lock.exclusive();
        self.find(oid).or_else(|| {
            let free = self.slots.iter().find(|slot| slot.oid.load(SeqCst) == 0)?;
            free.reset(ring_head);
            free.oid.store(oid, SeqCst);
            Some(free)
        })
    }

    /// Gives back the slot of a database that no longer exists.
    pub fn free(&self, oid: u32, lock: &OtherLock) {
        let _alone = lock.exclusive();
        if let Some(slot) = self.find(oid) {
            slot.oid.store(0, SeqCst);
        }
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
        wake(self.launcher);
    }
}

impl Database {
    fn reset(&self, ring_head: u64) {
        self.worker.store(0, SeqCst);
        self.latch.store(std::ptr::null_mut(), SeqCst);
        self.accepting.store(false, SeqCst);
        self.telling.store(false, SeqCst);
        self.wanted.store(false, SeqCst);
        self.due.store(NEVER, SeqCst);
        self.barred.store(0, SeqCst);
        self.dismissed.store(false, SeqCst);
        self.recheck.store(false, SeqCst);
        self.report.reset();
        self.flush_wanted.store(false, SeqCst);
        self.committing.store(0, SeqCst);
        self.seq.store(0, SeqCst);
        self.told.store(ring_head, SeqCst);
        self.appended.store(ring_head, SeqCst);
        self.epoch.store(crate::sys::now() as u64, SeqCst);
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
        // Under the ring's lock nobody else changes it.
        let before = self.appended.load(SeqCst);
        if self.told.load(SeqCst) >= before {
            // Said before a worker can see the new end: it must not read what others have overwritten.
            self.told.fetch_max(at.start, SeqCst);
        }
        self.appended.store(at.end, SeqCst);
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

    /// This process becomes the worker, unless there is one or none may be here now. The lock of the slots is
    /// held.
    pub(super) fn claim(&self, pid: u32, latch: *mut pg_sys::Latch, now: i64) -> bool {
        if self.has_worker() || self.is_barred(now) {
            return false;
        }
        self.dismissed.store(false, SeqCst);
        // Before there is a latch to be woken by: whoever wishes later finds it.
        self.wanted.store(false, SeqCst);
        self.due.store(NEVER, SeqCst);
        self.latch.store(latch, SeqCst);
        self.worker.store(pid, SeqCst);
        true
    }

    /// The worker is gone; the caller wakes the launcher next.
    pub fn release(&self) {
        self.accepting.store(false, SeqCst);
        self.telling.store(false, SeqCst);
        self.latch.store(std::ptr::null_mut(), SeqCst);
        self.worker.store(0, SeqCst);
        self.dismissed.store(false, SeqCst);
    }

    /// Calls the worker: wakes it, or has one started. For callbacks too: it sets latches and nothing else.
    pub fn wake_worker(&self) {
        let known = self.is_wanted() || self.wanted.swap(true, SeqCst);
        if !wake(&self.latch) && !known {
            wake_launcher();
        }
    }

    /// Notes that a worker is wanted; whether that is news.
    pub fn want_worker(&self) -> bool {
        !self.wanted.swap(true, SeqCst)
    }

    /// Whether a worker is wanted.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(SeqCst)
    }

    /// Takes the wish back, before looking at what there is to do; whether there was one.
    pub fn take_wish(&self) -> bool {
        self.is_wanted() && self.wanted.swap(false, SeqCst)
    }

    /// A worker is needed at that time at the latest, in microseconds since 2000, also if there is none then.
    pub fn need_worker_by(&self, time: i64) {
        if self.due.fetch_min(time, SeqCst) > time {
            self.wake_worker();
        }
    }

    /// The worker itself knows what is due at that time; who asks for it by a later one need not wake it.
    pub fn knows_of(&self, time: i64) {
        self.due.fetch_min(time, SeqCst);
    }

    /// When a worker is needed without being called; [`NEVER`] if it is not.
    pub fn due(&self) -> i64 {
        self.due.load(SeqCst)
    }

    /// Says when a worker is needed next.
    pub fn set_due(&self, time: i64) {
        self.due.store(time, SeqCst);
    }

    /// A statement needs the database to itself until `until`; the worker is asked to leave, and no other
    /// comes.
    pub fn bar(&self, until: i64) {
        self.barred.store(until, SeqCst);
        wake(&self.latch);
    }

    /// The statement that has called [`Database::bar`] with that time is over.
    pub fn unbar(&self, until: i64) {
        let _ = self.barred.compare_exchange(until, 0, SeqCst, SeqCst);
    }

    /// Whether no worker may be here at that time.
    pub fn is_barred(&self, now: i64) -> bool {
        now < self.barred.load(SeqCst)
    }

    /// When that will be over.
    pub fn barred_until(&self) -> i64 {
        self.barred.load(SeqCst)
    }

    /// The launcher asks the worker to leave.
    pub fn dismiss(&self) {
        if !self.dismissed.swap(true, SeqCst) {
            wake(&self.latch);
        }
    }

    /// Whether it has.
    pub fn is_dismissed(&self) -> bool {
        self.dismissed.load(SeqCst)
    }

    /// Has the worker look whether the extension is still installed. For commit callbacks.
    pub fn recheck(&self) {
        self.recheck.store(true, SeqCst);
        wake(&self.latch);
    }

    /// Whether it is to look; it does so next.
    pub fn take_recheck(&self) -> bool {
        self.recheck.swap(false, SeqCst)
    }

    /// Says how things stand, as the view shows them.
    pub fn set_stage(&self, stage: Stage) {
        self.report.set_stage(stage);
    }

    /// Whether commits may defer changes from here on.
    pub fn set_accepting(&self, accepting: bool) {
        self.accepting.store(accepting, SeqCst);
    }

    /// Whether commits may defer changes, as it seems: [`Database::begin_deferring`] knows.
    pub fn is_accepting(&self) -> bool {
        self.accepting.load(Relaxed)
    }

    /// A commit wants to defer changes; whether it may. If so it calls
    /// [`Database::end_deferring`] once.
    pub fn begin_deferring(&self) -> bool {
        self.committing.fetch_add(1, SeqCst);
        let may = self.accepting.load(SeqCst);
        if !may {
            self.end_deferring();
        }
        may
    }

    /// Whether commits may leave messages to the worker from here on.
    pub fn set_telling(&self, telling: bool) {
        self.telling.store(telling, SeqCst);
    }

    /// A commit wants to leave its messages to the worker; whether it may. If so it calls
    /// [`Database::end_handing_over`] once.
    pub fn begin_handing_over(&self) -> bool {
        self.hold_worker();
        let may = self.telling.load(SeqCst);
        if !may {
            self.end_handing_over();
        }
        may
    }

    /// A commit must leave messages to the worker, which is there until [`Database::end_deferring`] and now stays
    /// until [`Database::end_handing_over`].
    pub fn hold_worker(&self) {
        self.committing.fetch_add(1, SeqCst);
    }

    /// The messages are in the ring, or given up.
    pub fn end_handing_over(&self) {
        self.committing.fetch_sub(1, SeqCst);
    }

    /// L1 holds a new dirty entry: wakes the worker unless it knows of others, which it will look at soon
    /// enough for this one.
    pub fn want_flush(&self) {
        if !self.flush_wanted.swap(true, SeqCst) {
            self.wake_worker();
        }
    }

    /// Whether the worker has been told of dirty entries.
    pub fn wants_flush(&self) -> bool {
        self.flush_wanted.load(SeqCst)
    }

    /// Says whether the worker knows of dirty entries. It says no before it looks for them, so that what
    /// comes while it looks wakes it again.
    pub fn set_flush_wanted(&self, wanted: bool) {
        // An exchange: see the contract.
        self.flush_wanted.swap(wanted, SeqCst);
    }

    /// The changes are in L1, or given up.
    pub fn end_deferring(&self) {
        self.committing.fetch_sub(1, SeqCst);
    }

    /// Whether a commit is leaving something to the worker right now.
    pub fn has_committing(&self) -> bool {
        // Not before the stores of `accepting` and `telling` that came before it: see the contract.
        self.committing.load(SeqCst) != 0
    }
}

/// Wakes the launcher, if there is one, for who knows only one database.
fn wake_launcher() {
    let launcher = LAUNCHER.load(SeqCst);
    // SAFETY: set once, in the postmaster, to what stays mapped as long as the process lives.
    if let Some(launcher) = unsafe { launcher.as_ref() } {
        wake(launcher);
    }
}

/// Whether there was somebody to wake.
fn wake(latch: &AtomicPtr<pg_sys::Latch>) -> bool {
    let latch = latch.load(SeqCst);
    if latch.is_null() {
        return false;
    }
    // SAFETY: latches in shared memory outlive the process; setting one takes no lock and cannot fail.
    unsafe { crate::sys::set_latch(latch) };
    true
}

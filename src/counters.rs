//! What is counted, per class: reads, writes, and what became of entries of L1.
//!
//! A backend counts in its own memory and adds to the shared counters when its transaction ends, so
//! that a hit costs no shared cache line. What happens inside L1 itself (evictions) is counted there.
//! Without shared memory a backend sees its own counts only.

use crate::callback::Kept;
use crate::error::Result;
use crate::settings;
use crate::shared;
use crate::sys;
use state_cache_l1::{COUNTER_EVICTIONS, COUNTER_EXPIRATIONS, COUNTERS, ClassId};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What is counted; the numbers are places in L1's class records. Times are in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Entries evicted to make room, or by request. Counted by L1.
    Evictions = COUNTER_EVICTIONS,
    /// Entries evicted because they had expired. Counted by L1.
    Expirations = COUNTER_EXPIRATIONS,
    /// Reads answered by L1.
    Hits,
    /// Reads answered by L1 because the head row agreed.
    Validated,
    /// Reads that found no entry.
    Misses,
    /// Reads of what this transaction has changed itself.
    BypassOwn,
    /// Reads sent to L3 because a commit was in progress.
    BypassWriters,
    /// Reads sent to L3 because their snapshot is older than the entry.
    BypassSnapshot,
    /// Reads sent to L3 because the transaction is SERIALIZABLE.
    BypassSerializable,
    /// Reads sent to L3 because L1 cannot check what the role may see.
    BypassPrivileges,
    /// Reads sent to L3 because L1 is off.
    BypassOff,
    /// Entries that failed their check.
    Damaged,
    /// States too large for L1.
    TooLarge,
    /// Entries made by readers.
    Fills,
    /// Fills given up because the state changed meanwhile, or for want of room.
    FillsRefused,
    /// Flushes that wrote something.
    Flushes,
    /// States written by flushes.
    StatesWritten,
    /// States deleted by flushes.
    StatesDeleted,
    /// Changes skipped because the state was stored like that already.
    DuplicatesSkipped,
    /// Changes refused because the state had moved.
    Conflicts,
    /// Messages queued for subscribers.
    Notifications,
    /// Changes in `behind` classes that were deferred: the worker writes them back.
    Deferred,
    /// Changes in `behind` classes that were written through.
    WrittenThrough,
    /// Dirty states that the worker has written.
    BehindFlushed,
    /// Times that a source was run.
    Evaluations,
    /// Reads that waited for another session to run a source.
    Waits,
    /// Misses of derived documents, because a change has taken the entry out or made it void.
    MissesChanged,
    /// The same, because the entry had to make room, or was evicted by request.
    MissesEvicted,
    /// Time of reads that L1 answered, when `state_cache.track_timing` is on.
    L1ReadTime,
    /// Time of reads that L3 answered, likewise.
    L3ReadTime,
    /// Time of flushes, likewise.
    FlushTime,
    /// Time that sources took, likewise.
    EvaluationTime,
}

/// One class's counts of this backend, and where the shared ones are.
pub struct CounterSet {
    shared: Option<ClassId>,
    pending: [Cell<u64>; COUNTERS],
    dirty: Cell<bool>,
}

#[derive(Default)]
struct Registry {
    sets: HashMap<Box<[u8]>, Rc<CounterSet>>,
    /// Sets with pending counts.
    dirty: Vec<Rc<CounterSet>>,
}

thread_local! {
    static REGISTRY: Kept<Registry> = Kept::default();
}

/// The sets of this backend, for a moment.
fn registry<T>(f: impl FnOnce(&mut Registry) -> T) -> T {
    REGISTRY.with(|kept| kept.with(f))
}

impl CounterSet {
    /// The counters of a class of this database.
    pub fn of_class(name: &[u8]) -> Rc<Self> {
        registry(|registry| {
            if let Some(set) = registry.sets.get(name) {
                return Rc::clone(set);
            }
            let set = Rc::new(Self {
                shared: shared::l1().map(|l1| l1.class_record(sys::my_database(), name)),
                pending: [const { Cell::new(0) }; COUNTERS],
                dirty: Cell::new(false),
            });
            registry.sets.insert(name.into(), Rc::clone(&set));
            set
        })
    }

    /// The class's record in L1.
    pub fn class_id(&self) -> ClassId {
        self.shared.unwrap_or(ClassId::OTHER)
    }

    /// Adds one.
    pub fn count(self: &Rc<Self>, counter: Counter) {
        self.add(counter, 1);
    }

    /// Adds `n`. May allocate, so not for commit and abort callbacks.
    pub fn add(self: &Rc<Self>, counter: Counter, n: u64) {
        let cell = &self.pending[counter as usize];
        cell.set(cell.get().wrapping_add(n));
        if !self.dirty.get() && self.shared.is_some() {
            self.dirty.set(true);
            registry(|registry| registry.dirty.push(Rc::clone(self)));
        }
    }
}

/// Adds what this backend has counted to the shared counters. Allocates nothing, waits for nothing:
/// called at the end of every transaction.
pub fn flush() {
    REGISTRY.with(|kept| {
        kept.reach(|registry| {
            if registry.dirty.is_empty() {
                return;
            }
            let l1 = shared::l1();
            for set in registry.dirty.drain(..) {
                set.dirty.set(false);
                if let (Some(l1), Some(class)) = (l1, set.shared) {
                    for (pending, shared) in set.pending.iter().zip(l1.counters(class)) {
                        match pending.take() {
                            0 => {}
                            n => drop(shared.fetch_add(n, Ordering::Relaxed)),
                        }
                    }
                }
            }
        })
    });
}

/// Times something when `state_cache.track_timing` is on.
pub struct Timer(Option<Instant>);

impl Timer {
    /// Starts.
    pub fn start() -> Self {
        Self(settings::track_timing().then(Instant::now))
    }

    /// Adds the time since the start to a counter.
    pub fn stop(&self, counters: &Rc<CounterSet>, counter: Counter) {
        if let Some(start) = self.0 {
            counters.add(
                counter,
                u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
            );
        }
    }
}

/// The gauges and counts of a class.
#[derive(Clone, Copy)]
pub struct Totals {
    /// Entries in L1.
    pub entries: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Dirty ones among them.
    pub dirty: u64,
    counts: [u64; COUNTERS],
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            entries: 0,
            bytes: 0,
            dirty: 0,
            counts: [0; COUNTERS],
        }
    }
}

impl Totals {
    /// Adds those of another class.
    pub fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.dirty += other.dirty;
        for (sum, n) in self.counts.iter_mut().zip(other.counts) {
            *sum = sum.wrapping_add(n);
        }
    }

    /// One count.
    pub fn of(&self, counter: Counter) -> u64 {
        self.counts[counter as usize]
    }
}

/// The totals of each class of this database, with what this backend has counted so far.
///
/// # Errors
/// `53200`.
pub fn collect() -> Result<BTreeMap<Vec<u8>, Totals>> {
    flush();
    let mut rows = BTreeMap::new();
    match shared::l1() {
        Some(l1) => l1.for_each_class(sys::my_database(), |name, class| {
            let (entries, bytes) = l1.gauges(class);
            let mut row = Totals {
                entries,
                bytes,
                dirty: l1.dirty(class),
                ..Totals::default()
            };
            for (count, shared) in row.counts.iter_mut().zip(l1.counters(class)) {
                *count = shared.load(Ordering::Relaxed);
            }
            rows.insert(name.to_vec(), row);
        })?,
        None => registry(|registry| {
            for (name, set) in &registry.sets {
                let mut row = Totals::default();
                for (count, own) in row.counts.iter_mut().zip(&set.pending) {
                    *count = own.get();
                }
                rows.insert(name.to_vec(), row);
            }
        }),
    }
    Ok(rows)
}

//! What the cache counts, per class.
//!
//! A backend counts in its own memory and adds to the shared counters when its transaction ends, so
//! that a hit costs no shared cache line. What happens inside L1 itself (evictions) is counted there.
//! Without shared memory a backend sees its own counts only.

use crate::call::{self, sql_functions};
use crate::callback::Kept;
use crate::catalog;
use crate::settings;
use crate::shared;
use crate::sys;
use pgrx::pg_sys;
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
    /// Changes in `behind` classes that were left to the worker.
    LeftBehind,
    /// Changes in `behind` classes that were written through.
    WrittenThrough,
    /// Dirty states that the worker has written.
    BehindFlushed,
    /// Time of reads that L1 answered, when `state_cache.track_timing` is on.
    L1ReadTime,
    /// Time of reads that L3 answered, likewise.
    L3ReadTime,
    /// Time of flushes, likewise.
    FlushTime,
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

/// Why L1 does not answer this session, or `on`.
fn l1_status() -> &'static str {
    match shared::l1() {
        None => "off (not preloaded)",
        Some(_) if sys::recovery_in_progress() => "off (recovery)",
        Some(_) if !settings::enabled() => "off (disabled)",
        Some(_) => "on",
    }
}

/// One row of the view: gauges and counts of a class.
#[derive(Clone, Copy)]
struct Row {
    entries: u64,
    bytes: u64,
    dirty: u64,
    counts: [u64; COUNTERS],
}

impl Default for Row {
    fn default() -> Self {
        Self {
            entries: 0,
            bytes: 0,
            dirty: 0,
            counts: [0; COUNTERS],
        }
    }
}

impl Row {
    fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.dirty += other.dirty;
        for (sum, n) in self.counts.iter_mut().zip(other.counts) {
            *sum = sum.wrapping_add(n);
        }
    }

    fn datum(&self, counter: Counter) -> Option<pg_sys::Datum> {
        Some(call::count_datum(self.counts[counter as usize]))
    }

    /// Nanoseconds as the milliseconds that PostgreSQL's own views show.
    fn milliseconds(&self, counter: Counter) -> Option<pg_sys::Datum> {
        Some(call::double_datum(
            self.counts[counter as usize] as f64 / 1e6,
        ))
    }
}

fn collect() -> crate::error::Result<BTreeMap<Vec<u8>, Row>> {
    flush();
    let mut rows = BTreeMap::new();
    match shared::l1() {
        Some(l1) => l1.for_each_class(sys::my_database(), |name, class| {
            let (entries, bytes) = l1.gauges(class);
            let mut row = Row {
                entries,
                bytes,
                dirty: l1.dirty(class),
                ..Row::default()
            };
            for (count, shared) in row.counts.iter_mut().zip(l1.counters(class)) {
                *count = shared.load(Ordering::Relaxed);
            }
            rows.insert(name.to_vec(), row);
        })?,
        None => registry(|registry| {
            for (name, set) in &registry.sets {
                let mut row = Row::default();
                for (count, own) in row.counts.iter_mut().zip(&set.pending) {
                    *count = own.get();
                }
                rows.insert(name.to_vec(), row);
            }
        }),
    }
    Ok(rows)
}

sql_functions! {
    /// `state_cache_stats()`: a row per class, then one for the database.
    fn state_cache_stats(call) {
        let _ = catalog::current(call.function())?;
        let rows = collect()?;
        let mut total = Row::default();
        for row in rows.values() {
            total.add(row);
        }
        let memory = shared::l1().map(|l1| l1.memory());
        let mut out = call.rows()?;
        let named = rows.iter().map(|(name, row)| (Some(name), row));
        for (name, row) in named.chain([(None, &total)]) {
            let memory = if name.is_none() { memory.as_ref() } else { None };
            out.push([
                name.map(|name| call::varlena_datum(name)),
                Some(call::varlena_datum(l1_status().as_bytes())),
                Some(call::count_datum(row.entries)),
                Some(call::count_datum(row.bytes)),
                row.datum(Counter::Hits),
                row.datum(Counter::Misses),
                row.datum(Counter::BypassOwn),
                row.datum(Counter::BypassWriters),
                row.datum(Counter::BypassSnapshot),
                row.datum(Counter::BypassSerializable),
                row.datum(Counter::BypassPrivileges),
                row.datum(Counter::BypassOff),
                row.datum(Counter::Damaged),
                row.datum(Counter::TooLarge),
                row.datum(Counter::Fills),
                row.datum(Counter::FillsRefused),
                row.datum(Counter::Evictions),
                row.datum(Counter::Expirations),
                row.datum(Counter::Flushes),
                row.datum(Counter::StatesWritten),
                row.datum(Counter::StatesDeleted),
                row.datum(Counter::DuplicatesSkipped),
                row.datum(Counter::Conflicts),
                row.datum(Counter::Notifications),
                row.datum(Counter::LeftBehind),
                row.datum(Counter::WrittenThrough),
                row.datum(Counter::BehindFlushed),
                Some(call::count_datum(row.dirty)),
                row.milliseconds(Counter::L1ReadTime),
                row.milliseconds(Counter::L3ReadTime),
                row.milliseconds(Counter::FlushTime),
                memory.map(|memory| call::count_datum(memory.total)),
                memory.map(|memory| call::count_datum(memory.used)),
                memory.map(|memory| call::count_datum(memory.free)),
            ]);
        }
        Ok(call::void_datum())
    }
}

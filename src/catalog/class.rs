//! Classes as `state_class` defines them, read once per session and again after a change.

use super::attached::Attached;
use super::scan::{Row, Wanted, scan, scan_rows};
use super::source::{self, Source};
use super::text::c_string;
use crate::counters::CounterSet;
use crate::error::{Error, Result, text};
use crate::{memory, varlena};
use pgrx::pg_sys;
use state_cache_memory::{Grow, boxed};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;
use std::rc::Rc;

/// One class.
pub struct Class {
    /// Its name, in server encoding.
    pub name: Box<[u8]>,
    /// Whether its changes may be left to the worker (write mode `behind`).
    pub behind: bool,
    /// Snapshots to keep, the current one included; `None` keeps all.
    pub keep: Option<i64>,
    /// Whether duplicates are skipped.
    pub dedup: bool,
    /// Time to live of its states.
    pub ttl: Option<pg_sys::Interval>,
    /// How long an entry may serve reads from L1, in microseconds.
    pub cache_ttl: Option<i64>,
    /// How many of its states L1 may hold.
    pub max_entries: Option<u32>,
    /// Channel that hears of its changes.
    pub channel: CString,
    /// How long snapshots are kept that are neither current nor recovery points, in microseconds.
    pub keep_for: Option<i64>,
    /// Whether snapshots may be packed.
    pub compression: bool,
    /// Checkpoint types that it takes beside `auto`; `None` for the usual ones.
    pub checkpoint_types: Option<Vec<Box<[u8]>>>,
    /// Agent phases that it takes; `None` for the usual ones.
    pub agent_phases: Option<Vec<Box<[u8]>>>,
    /// Whether subscribers hear of its changes.
    pub notifies: bool,
    /// Whether its states are to be in Redis.
    pub in_l2: bool,
    /// Whether a state may have a label once only.
    pub unique_labels: bool,
    /// Who wrote its row.
    pub written_by: pg_sys::TransactionId,
    /// What is counted of it.
    pub counters: Rc<CounterSet>,
    /// The query that computes its documents, if it is a derived class.
    pub source: Option<Source>,
    attached: Attached,
}

/// The classes read so far.
#[derive(Default)]
pub struct Classes {
    known: RefCell<HashMap<Box<[u8]>, Rc<Class>>>,
    /// The class asked for last: most sessions use one.
    last: RefCell<Option<Rc<Class>>>,
}

impl Classes {
    /// Forgets everything.
    pub fn forget(&self) {
        self.known.borrow_mut().clear();
        self.last.replace(None);
    }

    /// The class of that name, from memory or from `state_class` (`relation`) and `state_source` (`sources`).
    pub fn get(
        &self,
        name: &[u8],
        relation: pg_sys::Oid,
        sources: pg_sys::Oid,
    ) -> Result<Rc<Class>> {
        if let Some(last) = self.last.borrow().as_ref()
            && *last.name == *name
        {
            return Ok(Rc::clone(last));
        }
        let known = self.known.borrow().get(name).map(Rc::clone);
        let class = match known {
            Some(class) => class,
            None => {
                let class = Rc::new(Class {
                    source: source::read(name, sources)?,
                    ..read(name, relation)?
                });
                self.known
                    .borrow_mut()
                    .insert(name.into(), Rc::clone(&class));
                class
            }
        };
        self.last.replace(Some(Rc::clone(&class)));
        Ok(class)
    }
}

/// Columns of `state_class` in their order.
const COLUMNS: usize = 18;
/// The column with the channel.
const CHANNEL: usize = 7;
/// The column that says whether a class which comes with the extension was changed.
const CHANGED: usize = 13;
/// The column that says how long Redis holds its states.
const L2_TTL: usize = 14;
/// The column that says whether labels are unique.
const UNIQUE_LABELS: usize = 17;

/// Reads a row of `state_class`.
fn read(name: &[u8], relation: pg_sys::Oid) -> Result<Class> {
    let mut class = None;
    // SAFETY: the relation is `state_class`, whose first column is the name.
    unsafe {
        let wanted = [Wanted::Text(name)];
        scan_rows(relation, &wanted, COLUMNS, std::ptr::null_mut(), |row| {
            // Of two rows the changed one counts.
            if class.is_none() || row.values[CHANGED].value() & 0xff != 0 {
                class = Some(Class::from_row(name, &row));
            }
        });
    }
    class
        .transpose()?
        .ok_or_else(|| Error::UnknownClass { class: text(name) })
}

/// Whether the write mode of a class is `behind`, as a snapshot sees it.
///
/// # Safety
/// The snapshot is active or registered.
pub unsafe fn is_behind(name: &[u8], relation: pg_sys::Oid, snapshot: pg_sys::Snapshot) -> bool {
    let mut is_behind = false;
    // SAFETY: the relation is `state_class`, whose first two columns are name and write mode, both NOT NULL; the
    // caller's promise.
    unsafe {
        scan_rows(relation, &[Wanted::Text(name)], COLUMNS, snapshot, |row| {
            // Of two rows the one that CREATE EXTENSION made is not.
            is_behind |= varlena::detoasted_bytes(row.values[1].cast_mut_ptr()) == b"behind";
        });
    }
    is_behind
}

/// The names of the classes whose write mode is `behind`.
pub fn behind(relation: pg_sys::Oid) -> Result<Vec<Box<[u8]>>> {
    let (mut names, mut outcome) = (Vec::new(), Ok(()));
    // SAFETY: the relation is `state_class`, whose first two columns are name and write mode, both NOT NULL.
    unsafe {
        scan(relation, &[], COLUMNS, |values, _| {
            if varlena::detoasted_bytes(values[1].cast_mut_ptr()) == b"behind" && outcome.is_ok() {
                let name = varlena::detoasted_bytes(values[0].cast_mut_ptr());
                outcome = boxed(name).and_then(|name| names.try_push(name));
            }
        });
    }
    outcome?;
    names.sort_unstable();
    Ok(names)
}

/// The channels of all classes, each as often as it is named.
pub fn channels(relation: pg_sys::Oid) -> Result<Vec<CString>> {
    let (mut channels, mut outcome) = (Vec::new(), Ok(()));
    // SAFETY: the relation is `state_class`, whose eighth column is its channel.
    unsafe {
        scan(relation, &[], COLUMNS, |values, _| {
            if outcome.is_ok() {
                outcome = memory::check().and_then(|()| {
                    channels.try_push(channel(values))?;
                    Ok(())
                });
            }
        })
    };
    outcome?;
    Ok(channels)
}

/// # Safety
/// The columns are those of a row of `state_class`.
unsafe fn channel(values: &[pg_sys::Datum]) -> CString {
    // SAFETY: a text column that is NOT NULL.
    c_string(unsafe { varlena::detoasted_bytes(values[CHANNEL].cast_mut_ptr()) })
}

impl Class {
    /// Whether nothing is kept of a version when the next one comes, unless it is a recovery point.
    pub fn keeps_one(&self) -> bool {
        self.keep == Some(1)
    }

    /// What a higher room keeps about the class as it is defined now: one value of each type, as new when it is first
    /// asked for. It lives as long as this does.
    pub fn attached<T: Default + 'static>(&self) -> &T {
        self.attached.get()
    }

    /// Whether snapshots are packed, as deltas or compressed.
    pub fn packs(&self) -> bool {
        self.compression && !self.keeps_one() && crate::settings::compression()
    }

    /// A class without a row in `state_class`, with that table's defaults.
    pub fn undefined(name: &[u8]) -> Self {
        Self {
            name: name.into(),
            behind: false,
            keep: Some(1),
            dedup: true,
            ttl: None,
            cache_ttl: None,
            max_entries: None,
            channel: c"state_updated".to_owned(),
            keep_for: None,
            compression: true,
            checkpoint_types: None,
            agent_phases: None,
            notifies: true,
            in_l2: false,
            unique_labels: false,
            written_by: pg_sys::TransactionId::INVALID,
            counters: CounterSet::of_class(name),
            source: None,
            attached: Attached::default(),
        }
    }

    /// # Safety
    /// The row is one of `state_class`.
    unsafe fn from_row(name: &[u8], row: &Row<'_>) -> Result<Self> {
        let (values, nulls) = (row.values, row.nulls);
        let integer = |n: usize| {
            if nulls[n] {
                None
            } else {
                Some(values[n].value() as i32)
            }
        };
        let interval = |n: usize| {
            if nulls[n] {
                None
            } else {
                // SAFETY: an interval column is passed by pointer.
                Some(unsafe { *values[n].cast_mut_ptr::<pg_sys::Interval>() })
            }
        };
        let names = |n: usize| {
            // SAFETY: a text[] column, read before the scan goes on.
            let names = (!nulls[n]).then(|| unsafe { varlena::text_array(values[n]) });
            names.transpose()
        };
        Ok(Self {
            name: name.into(),
            // SAFETY: a text column that is NOT NULL.
            behind: unsafe { varlena::detoasted_bytes(values[1].cast_mut_ptr()) } == b"behind",
            keep: integer(2).map(i64::from),
            dedup: nulls[3] || values[3].value() & 0xff != 0,
            ttl: interval(4),
            cache_ttl: interval(5).map(|i| crate::interval::microseconds(&i)),
            max_entries: integer(6).and_then(|n| u32::try_from(n).ok()),
            // SAFETY: the caller's promise.
            channel: unsafe { channel(values) },
            keep_for: interval(8).map(|i| crate::interval::microseconds(&i)),
            compression: nulls[9] || values[9].value() & 0xff != 0,
            checkpoint_types: names(10)?,
            agent_phases: names(11)?,
            // SAFETY: a text column that is NOT NULL.
            notifies: unsafe { varlena::detoasted_bytes(values[12].cast_mut_ptr()) } != b"off",
            in_l2: !nulls[L2_TTL],
            unique_labels: !nulls[UNIQUE_LABELS] && values[UNIQUE_LABELS].value() & 0xff != 0,
            written_by: row.xmin,
            counters: CounterSet::of_class(name),
            source: None,
            attached: Attached::default(),
        })
    }
}

//! Changes that others make to the tables: statements by hand, COPY, logical replication.
//!
//! The row triggers say which states changed; these leave L1 when the transaction commits. From the
//! first such statement on the transaction reads the tables only, because what is changed becomes known
//! here when the statement ends, and a function called from within it may read before.

use super::changed_row::Row;
use super::{Phase, with};
use crate::behind;
use crate::cache::publish::{Changed, New};
use crate::call::{self, sql_functions};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::memory;
use crate::name::StateName;
use crate::notify;
use crate::snapshots;
use crate::store;
use crate::sys;
use pgrx::pg_sys;
use state_cache_memory::room_in_map;
use std::collections::HashMap;

/// More states than this, and the whole database leaves L1: walking its entries is then cheaper than
/// keeping the list.
const MAX_KEYS: usize = 1000;

/// Nesting level of the top transaction.
const TOP: i32 = 1;

/// A class's name, and the bucket of a key (`catalog::bucket`).
pub type Bucket = (Box<[u8]>, i16);

/// What was changed by hand in this transaction. Each with the nesting level of the outermost
/// subtransaction that did it, since what that rolls back was not done.
#[derive(Default)]
pub struct ByHand {
    /// Something was, or may have been.
    any: Option<i32>,
    /// Everything may have been.
    all: Option<i32>,
    /// The tables were emptied.
    truncated: Option<i32>,
    keys: HashMap<StateName, i32>,
    /// Something was that no head row shows.
    untraced: Option<i32>,
    /// The versions of head rows that are gone, by class and bucket. What is rolled back stays: a floor that
    /// is too high does no harm.
    floors: HashMap<Bucket, i64>,
}

/// What `state_changes` could not tell from the head rows.
pub enum Untraced {
    /// Nothing.
    Nothing,
    /// Some of these states.
    Among(Vec<StateName>),
    /// More than is remembered.
    Everything,
}

impl ByHand {
    /// Whether anything was, or may have been.
    pub fn any(&self) -> bool {
        self.any.is_some()
    }

    /// Whether everything may have been.
    pub fn all(&self) -> bool {
        self.all.is_some()
    }

    /// Whether the tables were emptied.
    pub fn truncated(&self) -> bool {
        self.truncated.is_some()
    }

    /// A statement by hand is running.
    fn note(&mut self, truncates: bool) {
        let level = nest_level();
        let lower = |known: Option<i32>| Some(known.map_or(level, |known| known.min(level)));
        self.any = lower(self.any);
        if truncates {
            (self.all, self.truncated) = (lower(self.all), lower(self.truncated));
        }
    }

    /// A state is changed.
    pub fn note_state(&mut self, name: StateName) -> Result<()> {
        self.note(false);
        self.add(name)
    }

    /// Whether this state was.
    pub fn has(&self, class: &[u8], key: &[u8]) -> bool {
        !self.keys.is_empty() && self.keys.contains_key(&(class.into(), key.into()))
    }

    /// The states that were, in order.
    pub fn keys(&self) -> Result<Vec<StateName>> {
        let mut keys = memory::checked(self.keys.keys().cloned())?;
        keys.sort_unstable();
        Ok(keys)
    }

    /// What was that no head row shows.
    pub fn untraced(&self) -> Result<Untraced> {
        Ok(match (self.untraced, self.all) {
            (None, _) => Untraced::Nothing,
            (_, None) => Untraced::Among(self.keys()?),
            (_, Some(_)) => Untraced::Everything,
        })
    }

    /// The highest versions of head rows that are gone, by class and bucket, in order.
    pub fn floors(&self) -> Result<Vec<(Bucket, i64)>> {
        let floors = self.floors.iter();
        let floors = floors.map(|(bucket, version)| (bucket.clone(), *version));
        let mut floors = memory::checked(floors)?;
        floors.sort_unstable();
        Ok(floors)
    }

    /// Notes a version that a state had whose head row is gone: none is used again.
    pub fn raise_floor(&mut self, class: &[u8], key: &[u8], version: i64) -> Result<()> {
        room_in_map(&mut self.floors, 1)?;
        let floor = self
            .floors
            .entry((class.into(), catalog::bucket(key)))
            .or_insert(version);
        *floor = version.max(*floor);
        Ok(())
    }

    /// That of a state's bucket, 0 for none.
    pub fn floor(&self, class: &[u8], key: &[u8]) -> i64 {
        if self.floors.is_empty() {
            return 0;
        }
        let bucket = (class.into(), catalog::bucket(key));
        self.floors.get(&bucket).copied().unwrap_or(0)
    }

    /// A row is changed in a way that no head row will show; `gone` is the head row that it was, if any.
    fn note_untraced(&mut self, gone: Option<(&StateName, i64)>) -> Result<()> {
        let level = nest_level();
        self.untraced = Some(self.untraced.map_or(level, |known| known.min(level)));
        if let Some(((class, key), version)) = gone {
            self.raise_floor(class, key, version)?;
        }
        Ok(())
    }

    /// Forgets everything. Frees memory and allocates none.
    pub fn clear(&mut self) {
        (self.any, self.all) = (None, None);
        (self.truncated, self.untraced) = (None, None);
        if !self.floors.is_empty() {
            self.floors = HashMap::new();
        }
        if !self.keys.is_empty() {
            self.keys = HashMap::new();
        }
    }

    fn add(&mut self, name: StateName) -> Result<()> {
        let level = nest_level();
        if self.all == Some(TOP) {
            return Ok(());
        }
        room_in_map(&mut self.keys, 1)?;
        self.keys
            .entry(name)
            .and_modify(|known| *known = level.min(*known))
            .or_insert(level);
        if self.keys.len() > MAX_KEYS {
            // Whatever is rolled back from here on: the list is gone.
            self.all = Some(TOP);
            self.keys.clear();
        }
        Ok(())
    }

    /// The running subtransaction commits: its changes are its parent's.
    pub fn subtransaction_committed(&mut self) {
        let parent = nest_level().saturating_sub(1).max(TOP);
        for known in self
            .keys
            .values_mut()
            .chain(&mut self.any)
            .chain(&mut self.all)
            .chain(&mut self.truncated)
            .chain(&mut self.untraced)
        {
            *known = parent.min(*known);
        }
    }

    /// The running subtransaction aborts: its changes are gone.
    pub fn subtransaction_aborted(&mut self) {
        let level = nest_level();
        self.any.take_if(|known| *known >= level);
        self.all.take_if(|known| *known >= level);
        self.truncated.take_if(|known| *known >= level);
        self.untraced.take_if(|known| *known >= level);
        self.keys.retain(|_, known| *known < level);
    }
}

fn nest_level() -> i32 {
    // SAFETY: reads this backend's transaction state.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() }
}

sql_functions! {
    /// `state_cache_by_hand()`: asked by the triggers' WHEN clauses.
    fn state_cache_by_hand(_call) {
        Ok(call::boolean_datum(store::is_by_hand()))
    }

    /// `state_cache_watch()`: the trigger function on `state_head` and `state_snapshot`.
    fn state_cache_watch(call) {
        let trigger = trigger_data(call)?;
        // The result of an AFTER or statement trigger is ignored.
        let done = pg_sys::Datum::from(0usize);
        // SAFETY: the server passes a complete TriggerData.
        let event = unsafe { (*trigger).tg_event };
        let for_each_row = event & pg_sys::TRIGGER_EVENT_ROW != 0;
        let truncate = event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_TRUNCATE;
        if !for_each_row && !truncate && !store::is_caller_by_hand() {
            return Ok(done);
        }
        let catalog = catalog::current(call.function())?;
        // SAFETY: as above.
        let table = sys::root_of_partition(unsafe { (*(*trigger).tg_relation).rd_id });
        if ![catalog.head, catalog.snapshot].contains(&table) {
            return Err(Error::argument("this trigger belongs on state_head and state_snapshot only"));
        }
        // SAFETY: as above; the rows live as long as the call.
        let changed = if for_each_row { unsafe { changed_rows(&catalog, trigger)? } } else { ChangedRows::default() };
        if snapshots::by_hand::apply() {
            changed.keep_chains(&catalog)?;
        }
        let committing = with(|batch| -> Result<bool> {
            batch.scope.catalog.get_or_insert_with(|| catalog.clone());
            batch.by_hand.note(truncate);
            if truncate || changed.untraced {
                let gone = changed.names[0].as_ref().zip(changed.gone);
                batch.by_hand.note_untraced(gone)?;
            }
            let committing = batch.phase == Phase::Committing;
            if committing && truncate {
                batch.publication.truncate(&catalog);
            }
            for (class, key) in changed.names.into_iter().flatten() {
                if committing {
                    let changed = Changed { class: &class, key: &key, new: New::NothingClean };
                    batch.publication.add(&catalog, &changed)?;
                }
                batch.by_hand.add((class, key))?;
            }
            Ok(committing)
        })?;
        if committing {
            notify::tell_late(&catalog)?;
        }
        Ok(done)
    }

    /// `state_class_watch()`: the trigger function on `state_class`.
    fn state_class_watch(call) {
        let trigger = trigger_data(call)?;
        // SAFETY: the server passes a complete TriggerData.
        let event = unsafe { (*trigger).tg_event };
        if event & pg_sys::TRIGGER_EVENT_TIMINGMASK != pg_sys::TRIGGER_EVENT_BEFORE {
            // SAFETY: as above.
            unsafe { pg_sys::CacheInvalidateRelcache((*trigger).tg_relation) };
            return Ok(pg_sys::Datum::from(0usize));
        }
        let catalog = catalog::current(call.function())?;
        if event & pg_sys::TRIGGER_EVENT_ROW == 0 {
            behind::before_all_classes_go(&catalog)?;
            return Ok(pg_sys::Datum::from(0usize));
        }
        // SAFETY: as above; the rows live as long as the call.
        unsafe {
            let descriptor = (*(*trigger).tg_relation).rd_att;
            let row = |tuple: pg_sys::HeapTuple| (!tuple.is_null()).then(|| Row::new(tuple, descriptor));
            let (first, second) = (row((*trigger).tg_trigtuple), row((*trigger).tg_newtuple));
            let (before, after) = match event & pg_sys::TRIGGER_EVENT_OPMASK {
                pg_sys::TRIGGER_EVENT_INSERT => (None, first),
                pg_sys::TRIGGER_EVENT_DELETE => (first, None),
                _ => (first, second),
            };
            let mode = |row: &Row| (row.bytes(0).into(), row.bytes(1) == b"behind");
            behind::before_class_changes(
                &catalog,
                before.as_ref().map(mode),
                after.as_ref().map(mode),
            )?;
            let result = match (*trigger).tg_newtuple {
                tuple if tuple.is_null() => (*trigger).tg_trigtuple,
                tuple => tuple,
            };
            Ok(pg_sys::Datum::from(result))
        }
    }
}

fn trigger_data(call: &call::Call<'_>) -> Result<*mut pg_sys::TriggerData> {
    let context = call.context();
    // SAFETY: context is NULL or a node.
    if context.is_null() || unsafe { (*context).type_ } != pg_sys::NodeTag::T_TriggerData {
        return Err(Error::argument(
            "this function can only be called by a trigger",
        ));
    }
    Ok(context.cast())
}

/// What a row trigger is called for.
#[derive(Default)]
struct ChangedRows {
    /// The states of the row before and of the row after, or of the only row.
    names: [Option<StateName>; 2],
    /// Whether no head row will show it.
    untraced: bool,
    /// Version of the first state's head row, if that is gone.
    gone: Option<i64>,
    /// Version of the first state's snapshot, if that is gone or holds another document now.
    lost: Option<i64>,
    /// Version of the last state's snapshot, if that depends on other rows.
    dependent: Option<i64>,
    /// Whether that is a recovery point.
    is_recovery_point: bool,
}

impl ChangedRows {
    /// Sees to it that no version is left without what it builds upon.
    fn keep_chains(&self, catalog: &Catalog) -> Result<()> {
        if let (Some((class, key)), Some(version)) = (&self.names[0], self.lost) {
            snapshots::by_hand::check_not_needed(catalog, class, key, version)?;
        }
        let last = self.names.iter().flatten().next_back();
        if let (Some((class, key)), Some(version)) = (last, self.dependent) {
            if catalog.access().row_security {
                // What a difference builds upon is read for whoever sees it: it could be made to guess what that is.
                return Err(Error::PartialView);
            }
            if self.is_recovery_point {
                snapshots::by_hand::settle_recovery_point(catalog, class, key, version)?;
            }
        }
        Ok(())
    }
}

/// What a row trigger is called for. `23514` if the row after is none that the extension could have written.
///
/// # Safety
/// `trigger` is a row trigger's, on one of the two tables.
unsafe fn changed_rows(
    catalog: &Catalog,
    trigger: *const pg_sys::TriggerData,
) -> Result<ChangedRows> {
    // SAFETY: the caller's promise; a trigger for UPDATE has two rows, the others have one.
    unsafe {
        let relation = (*trigger).tg_relation;
        let row = |tuple: pg_sys::HeapTuple| {
            (!tuple.is_null()).then(|| Row::new(tuple, (*relation).rd_att))
        };
        let (first, second) = (row((*trigger).tg_trigtuple), row((*trigger).tg_newtuple));
        let deleted =
            (*trigger).tg_event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_DELETE;
        let after = if deleted {
            None
        } else {
            second.as_ref().or(first.as_ref())
        };
        let on_head = (*relation).rd_id == catalog.head;
        if let Some(after) = after {
            let fault = if on_head {
                after.head_fault()
            } else {
                after.snapshot_fault()
            };
            if let Some(fault) = fault {
                return Err(Error::Check { fault });
            }
        }
        let version = first.as_ref().map(|row| row.integer(2));
        let inserted =
            (*trigger).tg_event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_INSERT;
        let is_lost = !on_head
            && !inserted
            && !first
                .iter()
                .zip(&second)
                .any(|(before, after)| before.holds_as(after));
        let dependent = after.filter(|row| !on_head && row.is_dependent());
        let is_recovery_point = dependent.is_some_and(Row::is_recovery_point);
        let dependent = dependent.map(|row| row.integer(2));
        let names = [first.map(|row| row.name()), second.map(|row| row.name())];
        let gone = on_head && (deleted || names[1].is_some() && names[0] != names[1]);
        Ok(ChangedRows {
            names,
            untraced: gone || !on_head,
            gone: version.filter(|_| gone),
            lost: version.filter(|_| is_lost),
            dependent,
            is_recovery_point,
        })
    }
}

//! Changes that others make to the tables: statements by hand, COPY, logical replication.
//!
//! The row triggers say which states changed; these leave L1 when the transaction commits. From the
//! first such statement on the transaction reads the tables only, because what is changed becomes known
//! here when the statement ends, and a function called from within it may read before.

use super::{Phase, with};
use crate::cache::publish::Changed;
use crate::call::{self, sql_functions};
use crate::catalog;
use crate::error::{Error, Result};
use crate::store;
use crate::sys;
use pgrx::pg_sys;
use std::collections::HashMap;

/// More states than this, and the whole database leaves L1: walking its entries is then cheaper than
/// keeping the list.
const MAX_KEYS: usize = 1000;

/// A class's name and a key.
type Name = (Box<[u8]>, Box<[u8]>);

/// What was changed by hand in this transaction.
#[derive(Default)]
pub struct ByHand {
    any: bool,
    all: bool,
    /// With the nesting level of the outermost subtransaction that changed it.
    keys: HashMap<Name, i32>,
}

impl ByHand {
    /// Whether anything was, or may have been.
    pub fn any(&self) -> bool {
        self.any
    }

    /// Whether everything may have been.
    pub fn all(&self) -> bool {
        self.all
    }

    /// Whether this state was.
    pub fn has(&self, class: &[u8], key: &[u8]) -> bool {
        !self.keys.is_empty() && self.keys.contains_key(&(class.into(), key.into()))
    }

    /// The states that were, in order.
    pub fn keys(&self) -> Vec<Name> {
        let mut keys: Vec<_> = self.keys.keys().cloned().collect();
        keys.sort();
        keys
    }

    /// Forgets everything. Frees memory and allocates none.
    pub fn clear(&mut self) {
        self.any = false;
        self.all = false;
        if !self.keys.is_empty() {
            self.keys = HashMap::new();
        }
    }

    fn add(&mut self, name: Name) {
        let level = nest_level();
        if self.all {
            return;
        }
        self.keys
            .entry(name)
            .and_modify(|known| *known = level.min(*known))
            .or_insert(level);
        if self.keys.len() > MAX_KEYS {
            self.all = true;
            self.keys.clear();
        }
    }

    /// The running subtransaction commits: its changes are its parent's.
    pub fn subtransaction_committed(&mut self) {
        let level = nest_level();
        for known in self.keys.values_mut() {
            *known = level.saturating_sub(1).min(*known);
        }
    }

    /// The running subtransaction aborts: its changes are gone.
    pub fn subtransaction_aborted(&mut self) {
        let level = nest_level();
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
        let catalog = catalog::current(call.function())?;
        // SAFETY: the server passes a complete TriggerData, whose tuples live as long as the call.
        let (event, names) = unsafe {
            let event = (*trigger).tg_event;
            let descriptor = (*(*trigger).tg_relation).rd_att;
            let names = match event & pg_sys::TRIGGER_EVENT_ROW {
                0 => [None, None],
                _ => [
                    name((*trigger).tg_trigtuple, descriptor),
                    name((*trigger).tg_newtuple, descriptor),
                ],
            };
            (event, names)
        };
        let truncate = event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_TRUNCATE;
        with(|batch| {
            batch.catalog.get_or_insert_with(|| catalog.clone());
            batch.by_hand.any = true;
            batch.by_hand.all |= truncate;
            let committing = batch.phase == Phase::Committing;
            if committing && truncate {
                batch.publication.add_all(&catalog);
            }
            for (class, key) in names.into_iter().flatten() {
                if committing {
                    let changed = Changed { class: &class, key: &key, new: None };
                    batch.publication.add(&catalog, &changed);
                }
                batch.by_hand.add((class, key));
            }
        });
        // The result of an AFTER or statement trigger is ignored, but it must not be NULL's isnull.
        Ok(pg_sys::Datum::from(0usize))
    }

    /// `state_class_watch()`: the trigger function on `state_class`.
    fn state_class_watch(call) {
        let trigger = trigger_data(call)?;
        // SAFETY: the server passes a complete TriggerData.
        unsafe { pg_sys::CacheInvalidateRelcache((*trigger).tg_relation) };
        Ok(pg_sys::Datum::from(0usize))
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

/// Class and key of a row of either table: their first two columns. `None` without a row.
unsafe fn name(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Option<Name> {
    if tuple.is_null() {
        return None;
    }
    // SAFETY: the caller passes a row of the tables; both columns are text and NOT NULL.
    unsafe {
        let natts = (*descriptor).natts as usize;
        let mut values = vec![pg_sys::Datum::from(0usize); natts];
        let mut nulls = vec![true; natts];
        pg_sys::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        if natts < 2 || nulls[0] || nulls[1] {
            return None;
        }
        let text =
            |n: usize| -> Box<[u8]> { sys::detoasted_bytes(values[n].cast_mut_ptr()).into() };
        Some((text(0), text(1)))
    }
}

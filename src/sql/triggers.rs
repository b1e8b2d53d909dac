//! The triggers of the core: what statements by hand, COPY and logical replication do to the tables.

use super::changed_row::Row;
use crate::call::{self, Call, sql_functions};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::name::StateName;
use crate::snapshots;
use crate::store;
use crate::sys;
use crate::transaction::{self, ChangeByHand};
use pgrx::pg_sys;

sql_functions! {
    /// `state_cache_by_hand()`: asked by the triggers' WHEN clauses.
    fn state_cache_by_hand(_call) {
        Ok(call::boolean_datum(store::is_by_hand()))
    }

    /// `state_cache_watch()`: the trigger function on `state_head` and `state_snapshot`.
    fn state_cache_watch(call) {
        let trigger = Trigger::of(call)?;
        // The server ignores the result of an AFTER trigger and of a statement trigger.
        let done = pg_sys::Datum::from(0usize);
        let truncates = trigger.operation() == pg_sys::TRIGGER_EVENT_TRUNCATE;
        if !trigger.is_for_row() && !truncates && !store::is_caller_by_hand() {
            return Ok(done);
        }
        let catalog = catalog::current(call.function())?;
        let table = sys::root_of_partition(trigger.relation());
        if ![catalog.head, catalog.snapshot].contains(&table) {
            return Err(Error::argument("this trigger belongs on state_head and state_snapshot only"));
        }
        let changed = match trigger.is_for_row() {
            true => ChangedRows::of(&trigger, &catalog)?,
            false => ChangedRows::default(),
        };
        if snapshots::by_hand::apply() {
            changed.keep_chains(&catalog)?;
        }
        transaction::note_change_by_hand(&catalog, ChangeByHand {
            truncates,
            is_untraced: truncates || changed.is_untraced,
            gone: changed.gone,
            names: changed.names,
        })?;
        Ok(done)
    }

    /// `state_class_watch()`: the trigger function on `state_class`.
    fn state_class_watch(call) {
        let trigger = Trigger::of(call)?;
        if !trigger.is_before() {
            trigger.invalidate_relation();
            transaction::definitions::note();
            return Ok(pg_sys::Datum::from(0usize));
        }
        let catalog = catalog::current(call.function())?;
        if !trigger.is_for_row() {
            transaction::before_all_classes_go(&catalog)?;
            return Ok(pg_sys::Datum::from(0usize));
        }
        let (before, after) = trigger.rows();
        let mode = |row: &Row| (row.bytes(0).into(), row.bytes(1) == b"behind");
        transaction::before_class_changes(&catalog, before.as_ref().map(mode), after.as_ref().map(mode))?;
        Ok(trigger.unchanged())
    }
}

/// The call of a trigger function.
struct Trigger<'a>(&'a pg_sys::TriggerData);

impl<'a> Trigger<'a> {
    /// The trigger that calls; `22023` if none does.
    fn of(call: &Call<'a>) -> Result<Self> {
        let context = call.context();
        // SAFETY: context is NULL or a node.
        if context.is_null() || unsafe { (*context).type_ } != pg_sys::NodeTag::T_TriggerData {
            return Err(Error::argument(
                "this function can only be called by a trigger",
            ));
        }
        // SAFETY: the node is of this type, and the server passes a complete one that outlives the call.
        Ok(Self(unsafe { &*context.cast() }))
    }

    fn is_before(&self) -> bool {
        self.0.tg_event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_BEFORE
    }

    fn is_for_row(&self) -> bool {
        self.0.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0
    }

    /// One of `TRIGGER_EVENT_INSERT`, `_UPDATE`, `_DELETE`, `_TRUNCATE`.
    fn operation(&self) -> u32 {
        self.0.tg_event & pg_sys::TRIGGER_EVENT_OPMASK
    }

    /// The table, or the partition, that is changed.
    fn relation(&self) -> pg_sys::Oid {
        // SAFETY: the server has opened the relation for the trigger.
        unsafe { (*self.0.tg_relation).rd_id }
    }

    /// Makes all sessions look at the table anew once the transaction has committed.
    fn invalidate_relation(&self) {
        // SAFETY: as above.
        unsafe { pg_sys::CacheInvalidateRelcache(self.0.tg_relation) };
    }

    /// The row before and the row after, of a trigger for each row.
    fn rows(&self) -> (Option<Row>, Option<Row>) {
        // SAFETY: the rows are rows of the relation and outlive the call; where there is none the pointer is NULL.
        let row = |tuple: pg_sys::HeapTuple| unsafe {
            (!tuple.is_null()).then(|| Row::new(tuple, (*self.0.tg_relation).rd_att))
        };
        let (first, second) = (row(self.0.tg_trigtuple), row(self.0.tg_newtuple));
        match self.operation() {
            pg_sys::TRIGGER_EVENT_INSERT => (None, first),
            pg_sys::TRIGGER_EVENT_DELETE => (first, None),
            _ => (first, second),
        }
    }

    /// The result of a BEFORE trigger that lets the statement go on with the row as it is.
    fn unchanged(&self) -> pg_sys::Datum {
        pg_sys::Datum::from(match self.0.tg_newtuple {
            tuple if tuple.is_null() => self.0.tg_trigtuple,
            tuple => tuple,
        })
    }
}

/// What a trigger for each row on `state_head` or `state_snapshot` is called for.
#[derive(Default)]
struct ChangedRows {
    /// The states of the row before and of the row after.
    names: [Option<StateName>; 2],
    /// Whether no head row will show the change.
    is_untraced: bool,
    /// Version of the head row before, if that row is gone.
    gone: Option<i64>,
    /// Version of the snapshot before, if its row is gone or holds another document now.
    lost: Option<i64>,
    /// Version of the snapshot after, if its row depends on other rows.
    dependent: Option<i64>,
    /// Whether the snapshot after depends on other rows and is a recovery point.
    is_recovery_point: bool,
}

impl ChangedRows {
    /// `23514` if the row after is none that the extension could have written.
    fn of(trigger: &Trigger<'_>, catalog: &Catalog) -> Result<Self> {
        let (before, after) = trigger.rows();
        let on_head = trigger.relation() == catalog.head;
        let fault = after.as_ref().and_then(|after| match on_head {
            true => after.head_fault(),
            false => after.snapshot_fault(),
        });
        if let Some(fault) = fault {
            return Err(Error::Check { fault });
        }
        let names = [&before, &after].map(|row| row.as_ref().map(Row::name));
        let before = before.as_ref();
        let is_gone = on_head && names[0].is_some() && names[0] != names[1];
        let is_kept = |before: &Row| (after.as_ref()).is_some_and(|after| before.holds_as(after));
        let lost = before.filter(|before| !on_head && !is_kept(before));
        let dependent = after.as_ref();
        let dependent = dependent.filter(|after| !on_head && after.is_dependent());
        let version = |row: &Row| row.integer(2);
        Ok(Self {
            is_untraced: is_gone || !on_head,
            gone: before.filter(|_| is_gone).map(version),
            lost: lost.map(version),
            dependent: dependent.map(version),
            is_recovery_point: dependent.is_some_and(Row::is_recovery_point),
            names,
        })
    }

    /// Sees to it that no version is left without the rows that it builds upon.
    fn keep_chains(&self, catalog: &Catalog) -> Result<()> {
        if let ([Some((class, key)), _], Some(version)) = (&self.names, self.lost) {
            snapshots::by_hand::check_not_needed(catalog, class, key, version)?;
        }
        if let ([_, Some((class, key))], Some(version)) = (&self.names, self.dependent) {
            if catalog.access().row_security {
                // The rows beneath are read for whoever sees the version: a forged difference could be used to guess
                // what they hold.
                return Err(Error::PartialView);
            }
            if self.is_recovery_point {
                snapshots::by_hand::make_recovery_point_whole(catalog, class, key, version)?;
            }
        }
        Ok(())
    }
}

//! Watches: the triggers that turn changed rows into keys of a class.
//!
//! A watch is two triggers of the same name, but for its end: one for each row, which notes keys, and one before each
//! statement, which has the transaction read derived documents by their queries from then on, and on TRUNCATE notes
//! all of the class. Both say the class, and the keys, as their arguments. They are ENABLE ALWAYS, so that they fire
//! in a replication worker, and DEPEND ON the EXTENSION, so that it takes them along when it is dropped; pg_dump
//! knows both. The server copies the first one to the partitions of a table.

use super::keys;
use super::relations::relation_name;
use crate::cache::check_key;
use crate::call::Call;
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result, text};
use crate::transaction::{self, Concerned};
use pgrx::pg_sys::{self, Oid};
use std::ffi::CStr;

/// The trigger function.
const FUNCTION: &CStr = c"state_source_changed";

/// What is to be done for each row or statement that fires the trigger.
///
/// # Errors
/// `22023` if no trigger calls, or one that `state_watch` has not made.
pub fn fired(call: &Call<'_>) -> Result<()> {
    let context = call.context();
    // SAFETY: context is NULL or a node.
    if context.is_null() || unsafe { (*context).type_ } != pg_sys::NodeTag::T_TriggerData {
        return Err(Error::argument(
            "this function can only be called by a trigger",
        ));
    }
    // SAFETY: the node is of this type, and the server passes a complete one that outlives the call.
    let (data, trigger) = unsafe {
        let data = &*context.cast::<pg_sys::TriggerData>();
        (data, &*data.tg_trigger)
    };
    let Some(class) = argument(trigger, 0) else {
        return Err(Error::argument(
            "the trigger does not say the class: state_watch() makes it",
        ));
    };
    let class = class.to_bytes();
    let is_for_row = data.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0;
    let operation = data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK;
    transaction::note_touched();
    if !is_for_row && operation != pg_sys::TRIGGER_EVENT_TRUNCATE {
        return Ok(());
    }
    let catalog = catalog::current(call.function())?;
    let is_derived = matches!(catalog.class(class), Ok(known) if known.source.is_some());
    if !is_derived || transaction::is_class_noted(class) {
        return Ok(());
    }
    let all = || transaction::note_dependents(&catalog, class, &Concerned::Class);
    let (true, Some(expression)) = (is_for_row, argument(trigger, 1)) else {
        return all();
    };
    // SAFETY: the server has opened the relation for the trigger.
    let relation = unsafe { (*data.tg_relation).rd_id };
    let Some(keys) = keys::of_trigger(trigger.tgoid, relation, expression) else {
        return all();
    };
    let slots = match operation {
        pg_sys::TRIGGER_EVENT_UPDATE => [data.tg_trigslot, data.tg_newslot],
        _ => [data.tg_trigslot, std::ptr::null_mut()],
    };
    for slot in slots.into_iter().filter(|slot| !slot.is_null()) {
        // SAFETY: an AFTER trigger for each row has its rows in these slots.
        unsafe {
            keys.each(slot, |key| match key {
                None => all(),
                // What can be no key nobody has read.
                Some(key) if check_key(key).is_err() => Ok(()),
                Some(key) => transaction::note_dependents(&catalog, class, &Concerned::Key(key)),
            })?;
        }
    }
    Ok(())
}

/// An argument of a trigger.
fn argument(trigger: &pg_sys::Trigger, n: usize) -> Option<&CStr> {
    let count = usize::try_from(trigger.tgnargs).unwrap_or(0);
    // SAFETY: there are as many arguments as the trigger says, each NUL-terminated.
    (n < count).then(|| unsafe { CStr::from_ptr(*trigger.tgargs.add(n)) })
}

/// Whether changes of a relation are turned into keys of a class.
pub enum Watching {
    /// They are.
    Whole,
    /// They are not.
    Nothing,
    /// Somebody has seen to that, but not all of them are.
    Broken(String),
}

/// Whether changes of a relation (the first one) and of all that inherit from it are turned into keys of a class.
pub fn watching(catalog: &Catalog, class: &[u8], relations: &[Oid]) -> Watching {
    for (n, relation) in relations.iter().copied().enumerate() {
        // SAFETY: a look-up in the system cache.
        let is_partition = n > 0 && unsafe { pg_sys::get_rel_relispartition(relation) };
        match watching_one(catalog, class, relation, is_partition) {
            Watching::Whole => {}
            Watching::Nothing if n > 0 => {
                let name = relation_name(relation);
                return Watching::Broken(format!("{name}, which inherits, is not watched"));
            }
            other => return other,
        }
    }
    Watching::Whole
}

/// The same for one relation. The statements on a partition fire no trigger of the table.
fn watching_one(catalog: &Catalog, class: &[u8], relation: Oid, is_partition: bool) -> Watching {
    let name = || relation_name(relation);
    let (mut rows, mut statements) = (false, is_partition);
    // SAFETY: opened and closed in pairs; there are as many triggers as the relation says.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let opened = pg_sys::try_relation_open(relation, lock);
        if opened.is_null() {
            return Watching::Broken(format!("relation {} is gone", relation.to_u32()));
        }
        let mut fault = None;
        if let Some(all) = (*opened).trigdesc.as_ref() {
            let count = usize::try_from(all.numtriggers).unwrap_or(0);
            for trigger in std::slice::from_raw_parts(all.triggers, count) {
                let is_meant = is_ours(catalog, trigger.tgfoid)
                    && argument(trigger, 0).is_some_and(|of| of.to_bytes() == class);
                if !is_meant {
                    continue;
                }
                if trigger.tgenabled as u8 != pg_sys::TRIGGER_FIRES_ALWAYS {
                    let trigger = text(CStr::from_ptr(trigger.tgname).to_bytes());
                    fault = Some(format!(
                        "trigger {trigger} on {} is not ENABLE ALWAYS",
                        name()
                    ));
                }
                if trigger.tgtype as u32 & pg_sys::TRIGGER_TYPE_ROW == 0 {
                    statements = true;
                    continue;
                }
                rows = true;
                if let Some(expression) = argument(trigger, 1)
                    && let Err(error) = keys::try_compile(relation, expression)
                {
                    let expression = text(expression.to_bytes());
                    fault = Some(format!(
                        "the keys ({expression}) of {} cannot be read: {error}",
                        name()
                    ));
                }
            }
        }
        pg_sys::relation_close(opened, lock);
        if let Some(fault) = fault {
            return Watching::Broken(fault);
        }
    }
    match (rows, statements) {
        (true, true) => Watching::Whole,
        (false, _) => Watching::Nothing,
        (true, false) => {
            Watching::Broken(format!("a trigger of the watch on {} is missing", name()))
        }
    }
}

fn is_ours(catalog: &Catalog, function: Oid) -> bool {
    // SAFETY: look-ups in the system cache; the name is NUL-terminated.
    unsafe {
        let name = pg_sys::get_func_name(function);
        !name.is_null()
            && CStr::from_ptr(name) == FUNCTION
            && pg_sys::get_func_namespace(function) == catalog.namespace()
    }
}

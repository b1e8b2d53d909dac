//! `state_copy`.

use super::error::KeysError;
use super::names::with_prefix;
use crate::cache::StateRef;
use crate::call::{self, Call, Scratch, sql_functions};
use crate::catalog::{self, Catalog, Class};
use crate::error::{Error, Result, text};
use crate::identity::Impersonation;
use crate::snapshot::PushedSnapshot;
use crate::snapshots::{check_sees_all, lock_written, snapshot_of_now};
use crate::store::{self, Copied};
use crate::{behind, context, logs, sys, transaction};
use state_cache_memory::{Grow, try_collect, with_capacity};
use std::ffi::CStr;
use std::rc::Rc;

const FUNCTION: &CStr = c"state_copy()";

/// A key, and what its copy is called.
struct Pair {
    from: Box<[u8]>,
    to: Box<[u8]>,
}

/// The keys with a prefix, each with the key of its copy, in their order.
fn pairs(catalog: &Rc<Catalog>, class: &Class, (from, to): (&[u8], &[u8])) -> Result<Vec<Pair>> {
    let mut keys = with_prefix((catalog, class), from, true)?;
    keys.sort_unstable();
    keys.dedup();
    let pair = |key: Box<[u8]>| {
        let rest = &key[from.len()..];
        let mut copy = with_capacity(to.len() + rest.len())?;
        copy.extend_from_slice(to);
        copy.extend_from_slice(rest);
        Ok::<_, Error>(Pair {
            to: copy.into(),
            from: key,
        })
    };
    try_collect(keys.into_iter().map(pair))
}

/// Locks what is copied and what it is copied to, in the order in which a flush locks states.
fn lock(catalog: &Rc<Catalog>, class: &[u8], pairs: &[Pair]) -> Result<()> {
    let mut names = with_capacity(2 * pairs.len())?;
    for pair in pairs {
        names.try_push(&*pair.from)?;
        names.try_push(&*pair.to)?;
    }
    names.sort_unstable();
    names.dedup();
    behind::lock_for_many(catalog, class, names.len())?;
    for name in names {
        pgrx::check_for_interrupts!();
        lock_written(&StateRef::new(catalog, class, name)?, FUNCTION)?;
    }
    Ok(())
}

/// The number above which the versions of a copy begin: the state of its name had none above. `None` if there is a
/// state of that name.
fn offset(state: &StateRef<'_>) -> Result<Option<i64>> {
    let (catalog, class) = (&state.catalog, &*state.class.name);
    // Whether or not the caller sees what is there.
    let _owner = Impersonation::owner_of(catalog.head);
    let _snapshot = PushedSnapshot::latest();
    let head = store::target(catalog, class, state.key)?;
    if head.as_ref().is_some_and(|head| !head.deleted) {
        return Ok(None);
    }
    let newest = store::newest_kept(catalog, class, state.key)?;
    let floor = catalog
        .floor(class, state.key)
        .max(transaction::own_floor(class, state.key));
    Ok(Some(
        head.map_or(0, |head| head.version).max(newest).max(floor),
    ))
}

/// Copies a state whose head row is locked, if it is there; whether it is.
fn copy_state(from: &StateRef<'_>, to: &StateRef<'_>) -> Result<bool> {
    let (catalog, class) = (&from.catalog, &*from.class.name);
    let head = {
        let _snapshot = snapshot_of_now();
        store::target(catalog, class, from.key)?
    };
    let is_there =
        head.is_some_and(|head| !head.deleted && head.expires_at > sys::statement_timestamp());
    if !is_there {
        return Ok(false);
    }
    if *class == *context::RUN && context::base_version(catalog, from.key)?.is_some() {
        return Err(KeysError::run(from).into());
    }
    transaction::check_may_replace(to)?;
    let offset = offset(to)?.ok_or_else(|| KeysError::exists(to))?;
    let _snapshot = snapshot_of_now();
    check_sees_all(from)?;
    // As for a row that somebody writes by hand: until it has committed, this transaction reads the tables.
    transaction::note_by_hand(catalog, &to.class, to.key)?;
    let copied = Copied {
        class,
        from: from.key,
        to: to.key,
    };
    if !store::copy_state(catalog, &copied, offset)? {
        return Err(KeysError::exists(to).into());
    }
    if to.class.unique_labels {
        // What is kept of a former state of the name may have the same.
        let _snapshot = snapshot_of_now();
        if let Some(label) = store::label_twice(catalog, class, to.key, None)? {
            return Err(Error::LabelTaken {
                state: to.shown(),
                label: text(&label),
            });
        }
    }
    // While the row was written, somebody may have deleted a head row by hand that had a higher number.
    match catalog.floor(class, to.key) > offset {
        true => Err(Error::Raced { state: to.shown() }),
        false => Ok(true),
    }
}

/// Copies a log, if there is one; whether there is.
fn copy_log(from: &StateRef<'_>, to: &StateRef<'_>) -> Result<bool> {
    let (catalog, class) = (&from.catalog, &*from.class.name);
    let has_log = |state: &StateRef<'_>| {
        let _snapshot = snapshot_of_now();
        store::has_log(catalog, class, state.key)
    };
    if !has_log(from)? {
        return Ok(false);
    }
    logs::lock(to);
    catalog::require_same(catalog)?;
    if has_log(to)? {
        return Err(KeysError::exists(to).into());
    }
    let copied = Copied {
        class,
        from: from.key,
        to: to.key,
    };
    let _snapshot = snapshot_of_now();
    Ok(store::copy_log(catalog, &copied)? > 0)
}

/// The prefixes of a call, which are not the same.
fn prefixes<'a>(call: &Call<'a>) -> Result<(&'a [u8], &'a [u8])> {
    let from = call.required_text(0, "from_prefix")?;
    let to = call.required_text(1, "to_prefix")?;
    match from == to {
        true => Err(Error::argument("from_prefix and to_prefix must differ")),
        false => Ok((from, to)),
    }
}

sql_functions! {
    /// `state_copy(from_prefix, to_prefix, class)`
    fn state_copy(call) {
        let catalog = catalog::current(call.function())?;
        let class = catalog.class(call.required_text(2, "class")?)?;
        transaction::check_may_write(&catalog, FUNCTION)?;
        let prefixes = prefixes(call)?;
        let pairs = pairs(&catalog, &class, prefixes)?;
        lock(&catalog, &class.name, &pairs)?;
        // Who held a lock may have redefined the class.
        let catalog = catalog::renewed(&catalog)?;
        let scratch = Scratch::new();
        let mut copied = 0;
        for pair in &pairs {
            pgrx::check_for_interrupts!();
            copied += u64::from(scratch.with(|| {
                let from = StateRef::new(&catalog, &class.name, &pair.from)?;
                let to = StateRef::new(&catalog, &class.name, &pair.to)?;
                let state = copy_state(&from, &to)?;
                Ok::<_, Error>(copy_log(&from, &to)? || state)
            })?);
        }
        Ok(call::count_datum(copied))
    }
}

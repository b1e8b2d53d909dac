//! Comparing entries of L1 with what they are copies of: whether the protocols keep what they promise.
//!
//! An entry is compared under one snapshot with what the tables, or the source, give under the same. It takes part
//! only if a reader with that snapshot would be answered by it. What goes by age is left out, and so is what only L1
//! holds.

use super::definition;
use super::read::{Reader, Seen, document_key};
use crate::cache::StateRef;
use crate::cache::forms::{Document, Nothing};
use crate::cache::found::Reader as Asking;
use crate::cache::{self, read, tables};
use crate::call::{self, sql_functions};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::snapshot::PushedSnapshot;
use crate::{memory, shared};
use pgrx::pg_sys;
use state_cache_memory::Grow;
use std::rc::Rc;

/// Entries that are looked at where nobody says how many.
const SAMPLE: i32 = 100;

/// An entry by its name; whether it is one of a derived class.
type Name = (Vec<u8>, Vec<u8>, bool);

/// A number from 0 to below `sides`, drawn by the server.
fn drawn_below(sides: u64) -> u64 {
    // SAFETY: a plain global of this process, which the server has seeded.
    unsafe { pg_sys::pg_prng_uint64_range(&raw mut pg_sys::pg_global_prng_state, 0, sides - 1) }
}

/// So many entries at random, each as likely as any other; all if there are no more.
fn sample(catalog: &Catalog, class: Option<&[u8]>, most: usize) -> Result<Vec<Name>> {
    let Some(l1) = shared::l1() else {
        return Ok(Vec::new());
    };
    let (mut chosen, mut seen, mut outcome) = (Vec::new(), 0_u64, Ok(()));
    for incarnation in shared::incarnations(catalog.incarnation) {
        let is_derived = incarnation != catalog.incarnation;
        l1.for_each(catalog.database, incarnation, |of, key, info| {
            let is_meant = class.is_none_or(|class| class == of) && info.dirty.is_none();
            if !is_meant || most == 0 || outcome.is_err() {
                return;
            }
            seen += 1;
            outcome = memory::check().and_then(|()| {
                let name = (of.to_vec(), key.to_vec(), is_derived);
                if chosen.len() < most {
                    chosen.try_push(name)?;
                } else if let Some(place) = chosen.get_mut(drawn_below(seen) as usize) {
                    *place = name;
                }
                Ok(())
            });
        })?;
    }
    outcome.map(|()| chosen)
}

/// What an entry says and what is so, where the two differ.
type Difference = (Option<Vec<u8>>, Option<Vec<u8>>);

/// A state, whose class keeps no versions in L1 alone.
fn audit_state(state: &StateRef<'_>) -> Result<Option<Difference>> {
    if state.class.behind {
        return Ok(None);
    }
    let document = |found: crate::cache::found::Found<Vec<u8>>| found.state().map(|(_, it)| it);
    let cached = document(read::read(state, Asking::Change, false, &mut Document)?);
    let computed = document(tables::from_table(state, &mut Document)?);
    Ok((cached != computed).then_some((cached, computed)))
}

/// A document of a derived class.
fn audit_document(state: &StateRef<'_>) -> Result<Option<Difference>> {
    let (catalog, class) = (&state.catalog, &state.class);
    let key = document_key(state);
    let Some(seen) = Seen::now(&key, state) else {
        return Ok(None);
    };
    let definition = definition::of(catalog, class, Some(seen.definitions()))?;
    let reader = Reader::new(state, &definition, key);
    let Some(cached) = reader.peek(&seen)? else {
        return Ok(None);
    };
    let computed = reader.compute()?;
    Ok((cached != computed).then_some((cached, computed)))
}

/// Fills L1 with a state or document that is not there; whether it was.
fn warm(state: &StateRef<'_>) -> Result<bool> {
    if state.class.source.is_none() {
        return Ok(matches!(
            cache::warm::warm(state)?,
            cache::warm::Warmed::Filled
        ));
    }
    let key = document_key(state);
    let Some(seen) = Seen::now(&key, state) else {
        return Ok(false);
    };
    let definition = definition::of(&state.catalog, &state.class, Some(seen.definitions()))?;
    let reader = Reader::new(state, &definition, key);
    if reader.peek(&seen)?.is_some() {
        return Ok(false);
    }
    super::read::read(state, &mut Nothing)?;
    Ok(reader.peek(&seen)?.is_some())
}

sql_functions! {
    /// `state_audit(class, sample)`
    fn state_audit(call) {
        let catalog = catalog::current(call.function())?;
        let class = call.text(0);
        if let Some(class) = class {
            catalog.class(class)?;
        }
        let most = call.integer(1).unwrap_or(SAMPLE);
        let most = usize::try_from(most)
            .map_err(|_| Error::argument(format!("sample must not be negative: {most}")))?;
        catalog.check_may_see_all()?;
        let mut rows = call.rows()?;
        if crate::transaction::has_changes() || crate::transaction::has_touched() {
            return Ok(call::void_datum());
        }
        for (class, key, is_derived) in sample(&catalog, class, most)? {
            pgrx::check_for_interrupts!();
            let Ok(class) = catalog.class(&class) else { continue };
            if class.source.is_some() != is_derived {
                continue;
            }
            let state = StateRef::of(&catalog, Rc::clone(&class), &key);
            let _snapshot = PushedSnapshot::latest();
            let difference = match is_derived {
                true => audit_document(&state)?,
                false => audit_state(&state)?,
            };
            if let Some((cached, computed)) = difference {
                rows.push([
                    Some(call::varlena_datum(&class.name)),
                    Some(call::varlena_datum(&key)),
                    cached.map(|cached| call::varlena_datum(&cached)),
                    computed.map(|computed| call::varlena_datum(&computed)),
                ]);
            }
        }
        Ok(call::void_datum())
    }

    /// `state_warm(class, keys)`
    fn state_warm_keys(call) {
        let catalog = catalog::current(call.function())?;
        let class = catalog.class(call.required_text(0, "class")?)?;
        let keys = call.text_array(1)?.ok_or_else(|| Error::null_argument("keys"))?;
        let memory = call::Scratch::new();
        let mut filled = 0;
        for key in keys.into_iter().flatten() {
            let state = StateRef::new(&catalog, &class.name, key)?;
            filled += u64::from(memory.with(|| warm(&state))?);
        }
        Ok(call::count_datum(filled))
    }
}

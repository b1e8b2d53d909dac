//! Comparing entries of L1 with what they are copies of: whether the protocols keep what they promise.
//!
//! An entry is compared under one snapshot with what the tables, or the source, give under the same. It takes part
//! only if a reader with that snapshot would be answered by it. What goes by age is left out, and so is what only L1
//! holds. In recovery an entry takes part if the head row lets it answer; it is not replaced where the row does not.

use super::definition;
use super::read::{Reader, Seen, document_key};
use super::unattended;
use crate::cache::StateRef;
use crate::cache::forms::{Document, Nothing};
use crate::cache::found::Reader as Asking;
use crate::cache::warm::Warmed;
use crate::cache::{self, read, tables, validated};
use crate::call::{self, sql_functions};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::snapshot::PushedSnapshot;
use crate::{memory, shared, sys};
use pgrx::pg_sys;
use state_cache_memory::Grow;
use std::rc::Rc;

/// Entries that are looked at where nobody says how many.
const SAMPLE: i32 = 100;

/// Free room that a document filled for nobody must leave: this part of L1.
const ROOM: u64 = 16;

/// An entry by its name; whether it is one of a derived class.
pub type Name = (Vec<u8>, Vec<u8>, bool);

/// A number from 0 to below `sides`, drawn by the server.
fn drawn_below(sides: u64) -> u64 {
    // SAFETY: a plain global of this process, which the server has seeded.
    unsafe { pg_sys::pg_prng_uint64_range(&raw mut pg_sys::pg_global_prng_state, 0, sides - 1) }
}

/// So many entries at random, each as likely as any other; all if there are no more.
///
/// # Errors
/// `53200`.
pub fn sample(catalog: &Catalog, class: Option<&[u8]>, most: usize) -> Result<Vec<Name>> {
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

/// What comparing an entry has come to.
pub enum Compared {
    /// It is what it should be.
    Same,
    /// It is not.
    Differs(Difference),
    /// It was not compared: no reader would be answered by it now, it goes by age, or its source is not to be run.
    PassedOver,
}

impl Compared {
    fn of(cached: Option<Vec<u8>>, computed: Option<Vec<u8>>) -> Self {
        match cached == computed {
            true => Self::Same,
            false => Self::Differs((cached, computed)),
        }
    }
}

/// Compares an entry with what it is a copy of, under the active snapshot.
///
/// # Errors
/// Those of the source, and of reading the tables.
pub fn compare(
    catalog: &Rc<Catalog>,
    class: &[u8],
    key: &[u8],
    is_derived: bool,
) -> Result<Compared> {
    let class = match catalog.class(class) {
        Ok(class) if class.source.is_some() == is_derived => class,
        Ok(_) | Err(Error::UnknownClass { .. }) => return Ok(Compared::PassedOver),
        Err(error) => return Err(error),
    };
    let state = StateRef::of(catalog, class, key);
    match is_derived {
        true => audit_document(&state),
        false => audit_state(&state),
    }
}

/// A state, whose class keeps no versions in L1 alone.
fn audit_state(state: &StateRef<'_>) -> Result<Compared> {
    if state.class.behind {
        return Ok(Compared::PassedOver);
    }
    let document = |found: crate::cache::found::Found<Vec<u8>>| found.state().map(|(_, it)| it);
    let cached = match shared::l1().filter(|_| sys::recovery_in_progress()) {
        None => read::read(state, Asking::Change, false, &mut Document)?,
        Some(l1) => match validated::peek(state, l1, &mut Document)? {
            Some(found) => found,
            None => return Ok(Compared::PassedOver),
        },
    };
    let computed = tables::from_table(state, &mut Document)?;
    Ok(Compared::of(document(cached), document(computed)))
}

/// A document of a derived class.
fn audit_document(state: &StateRef<'_>) -> Result<Compared> {
    let (catalog, class) = (&state.catalog, &state.class);
    let key = document_key(state);
    let Some(seen) = Seen::now(&key, state) else {
        return Ok(Compared::PassedOver);
    };
    let definition = definition::of(catalog, class, Some(seen.definitions()))?;
    if !definition.is_to_be_run() {
        return Ok(Compared::PassedOver);
    }
    let reader = Reader::new(state, &definition, key);
    let Some(cached) = reader.peek(&seen)? else {
        return Ok(Compared::PassedOver);
    };
    Ok(Compared::of(cached, reader.compute()?))
}

/// Fills L1 with a document of before the server's start, for nobody, if there is room.
///
/// # Errors
/// What ends a whole statement is raised; a source that fails is passed over.
pub fn warm_unattended(catalog: &Rc<Catalog>, class: &[u8], key: &[u8]) -> Result<Warmed> {
    let Some(l1) = shared::l1() else {
        return Ok(Warmed::Off);
    };
    let memory = l1.memory();
    if memory.free < memory.total / ROOM {
        return Ok(Warmed::Full);
    }
    let class = match catalog.class(class) {
        Ok(class) if class.source.is_some() => class,
        Ok(_) | Err(Error::UnknownClass { .. }) => return Ok(Warmed::Passed),
        Err(error) => return Err(error),
    };
    let filled = unattended::run(|| {
        let _snapshot = PushedSnapshot::latest();
        warm(&StateRef::of(catalog, class, key))
    });
    Ok(match filled {
        Ok(true) => Warmed::Filled,
        Ok(false) | Err(_) => Warmed::Passed,
    })
}

/// Fills L1 with a state or document that is not there; whether it was.
fn warm(state: &StateRef<'_>) -> Result<bool> {
    if state.class.source.is_none() {
        return Ok(matches!(cache::warm::warm(state)?, Warmed::Filled));
    }
    let key = document_key(state);
    let Some(seen) = Seen::now(&key, state) else {
        return Ok(false);
    };
    let definition = definition::of(&state.catalog, &state.class, Some(seen.definitions()))?;
    // What goes by age nobody has asked for before its time.
    if !definition.is_to_be_run() || unattended::is_unattended() && !definition.is_exact() {
        return Ok(false);
    }
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
            let _snapshot = PushedSnapshot::latest();
            if let Compared::Differs((cached, computed)) = compare(&catalog, &class, &key, is_derived)? {
                rows.push([
                    Some(call::varlena_datum(&class)),
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

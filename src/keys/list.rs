//! Lists of versions and of keys.

use super::error::KeysError;
use crate::cache::StateRef;
use crate::cache::forms::Document;
use crate::cache::found::Found;
use crate::call::{self, Call, Scratch, sql_functions};
use crate::catalog::{self, Catalog, Class};
use crate::error::{Error, Result};
use crate::snapshots::required_document;
use crate::store::{self, ListedVersion, ListedWhat, Listing, OneCall};
use crate::transaction;
use std::rc::Rc;

/// Rows of a page, unless the caller says.
const DEFAULT_LIMIT: i32 = 100;
/// The most rows of a page.
const MAX_LIMIT: i32 = 10_000;

/// How many rows the caller wants at most.
fn limit(call: &Call<'_>, n: usize, default: i32) -> Result<i64> {
    let limit = call.integer(n).unwrap_or(default);
    match (1..=MAX_LIMIT).contains(&limit) {
        true => Ok(limit.into()),
        false => Err(Error::argument(format!(
            "limit must be between 1 and {MAX_LIMIT}: {limit}"
        ))),
    }
}

/// The states that a call names: by a key or by a prefix.
fn what<'a>(call: &Call<'a>, key: usize, prefix: usize) -> Result<ListedWhat<'a>> {
    match (call.text(key), call.text(prefix)) {
        (Some(key), None) => Ok(ListedWhat::Key(key)),
        (None, Some(prefix)) => Ok(ListedWhat::Prefix(prefix)),
        _ => Err(KeysError::KeyOrPrefix.into()),
    }
}

/// The version below which versions are listed, from `before` or `before_label`.
fn before(
    call: &Call<'_>,
    state: Option<&StateRef<'_>>,
    (before, label): (usize, usize),
) -> Result<Option<i64>> {
    let Some(state) = state else {
        return match (call.bigint(before), call.text(label)) {
            (None, None) => Ok(None),
            _ => Err(KeysError::BeforeOfMany.into()),
        };
    };
    let Some(label) = call.text(label) else {
        return Ok(call.bigint(before));
    };
    let (catalog, class) = (&*state.catalog, &*state.class.name);
    let found = store::labelled_version(catalog, class, state.key, label)?;
    let found = found.ok_or_else(|| KeysError::no_label(state, label))?;
    Ok(Some(
        call.bigint(before)
            .map_or(found, |before| before.min(found)),
    ))
}

/// The document of a listed version: that of L1 where it is the current one and nothing is staged upon it.
fn document(state: &StateRef<'_>, version: i64, is_first: bool) -> Result<Vec<u8>> {
    if is_first
        && !transaction::is_staged(state)?
        && let Found::State(found, document) = transaction::read(state, &mut Document)?
        && found.number == version
    {
        return Ok(document);
    }
    required_document(state, version)
}

/// The payload of a listed version.
fn payload(state: &StateRef<'_>, version: i64) -> Result<Option<Vec<u8>>> {
    let (catalog, class) = (&*state.catalog, &*state.class.name);
    match store::payload_in_walk(catalog, class, state.key, version)? {
        None => Ok(None),
        Some(Ok(payload)) => Ok(Some(payload)),
        Some(Err(fault)) => Err(Error::Damaged {
            state: state.shown(),
            version,
            fault,
        }),
    }
}

/// Adds a row for a version. `is_first`: nothing newer of the state is listed.
fn push(
    (catalog, class): (&Rc<Catalog>, &Rc<Class>),
    rows: &mut call::Rows,
    listed: &ListedVersion,
    (with_states, is_first): (bool, bool),
) -> Result<()> {
    let state = StateRef::of(catalog, Rc::clone(class), &listed.key);
    let (mut held, mut beside) = (None, None);
    if with_states {
        held = Some(document(&state, listed.version, is_first)?);
        if listed.has_payload {
            beside = payload(&state, listed.version)?;
        }
    }
    rows.push([
        Some(call::varlena_datum(&listed.key)),
        Some(call::bigint_datum(listed.version)),
        listed.parent.map(call::bigint_datum),
        listed.label.as_deref().map(call::varlena_datum),
        listed.execution_context.as_deref().map(call::varlena_datum),
        held.as_deref().map(call::varlena_datum),
        beside.as_deref().map(call::varlena_datum),
        Some(call::bigint_datum(listed.created_at)),
    ]);
    Ok(())
}

sql_functions! {
    /// `state_list(key, prefix, before, before_label, label, filter, limit, states, class)`
    fn state_list(call) {
        let catalog = catalog::current(call.function())?;
        let class = catalog.class(call.required_text(8, "class")?)?;
        let what = what(call, 0, 1)?;
        let state = match what {
            ListedWhat::Key(key) => Some(StateRef::new(&catalog, &class.name, key)?),
            ListedWhat::Prefix(_) => None,
        };
        let listing = Listing {
            what,
            before: before(call, state.as_ref(), (2, 3))?,
            label: call.text(4),
            filter: call.jsonb(5),
            limit: limit(call, 6, DEFAULT_LIMIT)?,
        };
        let with_states = call.boolean(7).unwrap_or(true);
        let versions = store::list(&catalog, &class.name, &listing)?;
        let mut rows = call.rows()?;
        let _call = OneCall::begin();
        let scratch = Scratch::new();
        let mut newer: Option<&[u8]> = None;
        for listed in &versions {
            pgrx::check_for_interrupts!();
            // The current version of a state is the first that is listed of it, if it is listed.
            let is_first = newer != Some(&*listed.key);
            newer = Some(&*listed.key);
            let class = (&catalog, &class);
            scratch.with(|| push(class, &mut rows, listed, (with_states, is_first)))?;
        }
        Ok(call::void_datum())
    }

    /// `state_keys(prefix, after, limit, class)`
    fn state_keys(call) {
        let catalog = catalog::current(call.function())?;
        let class = catalog.class(call.required_text(3, "class")?)?;
        let prefix = call.text(0).unwrap_or_default();
        let limit = limit(call, 2, MAX_LIMIT)?;
        let mut rows = call.rows()?;
        store::live_keys(&catalog, &class.name, (prefix, call.text(1)), limit, |key, version, at| {
            rows.push([
                Some(call::varlena_datum(key)),
                Some(call::bigint_datum(version)),
                Some(call::bigint_datum(at)),
            ]);
        })?;
        Ok(call::void_datum())
    }
}

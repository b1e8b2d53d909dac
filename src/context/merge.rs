//! Merging a child back into its parent.

use super::base;
use super::claim::{fence_now, under};
use super::error::ContextError;
use super::hierarchy::lock_place;
use super::limits::lock_runs;
use super::outcome::Outcome;
use super::run::{self, RUN, malformed, open, server_time};
use super::variables::{label, members};
use crate::cache::StateRef;
use crate::cache::forms::Document;
use crate::call::{self, Call, sql_functions};
use crate::error::{Error, Result, text};
use crate::identity::Impersonation;
use crate::memory;
use crate::store::{self, NewConflict, PlaceLock};
use crate::sys;
use crate::transaction::{self, Operation};
use pgrx::pg_sys;
use state_cache_context::{Base, Conflict, Label, Merged, Only, Strategy, Variable, merge};
use state_cache_document::{self as document, DocumentError};
use state_cache_memory::{Grow, try_collect, with_capacity};
use std::collections::BTreeMap;
use std::ffi::CStr;

/// What is merged.
pub struct Sides<'a> {
    /// The child's document that both have started from.
    pub base: &'a [u8],
    /// What the parent had then where it was not the same.
    pub parent_base: Option<&'a [u8]>,
    /// The child's document as it is to be merged.
    pub child: &'a [u8],
}

/// Merges a child into its parent, which is locked, has this document and runs.
pub fn merge_into<'a>(
    (parent, parent_document): (&StateRef<'_>, &'a [u8]),
    child: &StateRef<'_>,
    sides: &Sides<'a>,
    strategy: &dyn Fn(&[u8]) -> Strategy,
    only: Only<'_>,
    function: &CStr,
) -> Result<Vec<Outcome<'a>>> {
    let parent_run = open(parent, parent_document)?;
    let child_run = open(child, sides.child)?;
    let bases = Base {
        child: open(child, sides.base)?,
        parent: sides.parent_base,
    };
    let merged = merge(
        &bases,
        &parent_run,
        &child_run,
        strategy,
        only,
        sys::check_stack,
    )
    .map_err(|error| run::shape(child.key, error))?;
    let mut outcomes = with_capacity(merged.len())?;
    let (mut variables, mut blocked) = (Vec::new(), Vec::new());
    for merged in merged {
        if let Some(variable) = &merged.becomes {
            let before = parent_run.variable(merged.name);
            let before = before.map_err(|error| run::shape(parent.key, error))?;
            let record = record_after(merged.name, before.as_ref(), variable);
            variables.try_push((merged.name, record.map_err(malformed(parent.key))?))?;
        }
        let conflict = match &merged.conflict {
            Some(found) => {
                let id = open_conflict(parent, child, &merged, found)?;
                let mut ids = run::conflicts_of(parent.key, &parent_run, merged.name)?;
                ids.try_push(id)?;
                blocked.try_push((merged.name, conflict_ids(parent.key, &ids)?))?;
                Some(id)
            }
            None => None,
        };
        outcomes.push(Outcome { merged, conflict });
    }
    if !variables.is_empty() {
        let operation = Operation::UpdateSection {
            section: b"variables".to_vec(),
            updates: document::object(&variables).map_err(malformed(parent.key))?,
        };
        transaction::apply_locked(parent, operation, function)?;
    }
    if !blocked.is_empty() {
        let before = run::section_of(parent.key, &parent_run, "conflicts")?;
        let updates = document::object(&blocked)
            .and_then(|added| document::update(before, &added))
            .and_then(|conflicts| document::object(&[("conflicts", conflicts)]))
            .map_err(malformed(parent.key))?;
        transaction::apply_locked(parent, Operation::Update(updates), function)?;
    }
    transaction::keep_staged(parent)?;
    Ok(outcomes)
}

/// Leaves a variable that both sides have changed to a person; the name of the conflict.
fn open_conflict(
    parent: &StateRef<'_>,
    child: &StateRef<'_>,
    merged: &Merged<'_>,
    found: &Conflict<'_>,
) -> Result<i64> {
    let _owner = Impersonation::owner_of(parent.catalog.context);
    store::open_conflict(
        &parent.catalog,
        &NewConflict {
            run: parent.key,
            child: child.key,
            variable: merged.name,
            base: found.base.as_deref(),
            parent: found.parent.as_deref(),
            value: &found.child,
            parent_timestamp: found.parent_timestamp.map(server_time),
            child_timestamp: found.child_timestamp.map(server_time),
            sensitivity: merged.sensitivity.name(),
        },
    )
}

/// The record of a parent's variable after a merge. What the parent's has beyond the known fields stays, unless the
/// side whose value was taken has the same.
fn record_after(
    name: &[u8],
    before: Option<&Variable<'_>>,
    becomes: &Variable<'_>,
) -> std::result::Result<Vec<u8>, DocumentError> {
    let record = becomes.document(name)?;
    match before {
        // The only field that a record need not have is not the one of another value.
        Some(before) => document::without(before.raw, &[b"timestamp"])
            .and_then(|before| document::update(Some(&before), &record)),
        None => Ok(record),
    }
}

/// Ids of conflicts as a document holds them.
pub fn conflict_ids(run: &[u8], ids: &[i64]) -> Result<Vec<u8>> {
    let ids = ids.iter();
    let ids = try_collect(ids.map(|id| super::number::Number::from(*id).document()))?;
    document::array(&ids).map_err(malformed(run))
}

/// The strategies that a call names: one for all variables, and others for some.
struct Strategies<'a> {
    default: Strategy,
    per_variable: BTreeMap<&'a [u8], Strategy>,
}

/// The strategy that an argument names.
pub fn strategy(call: &Call<'_>, n: usize) -> Result<Strategy> {
    label::<Strategy>(call, n, "strategy")?.ok_or_else(|| Error::null_argument("strategy"))
}

impl<'a> Strategies<'a> {
    fn of(call: &Call<'a>, n: usize) -> Result<Self> {
        let mut per_variable = BTreeMap::new();
        if let Some(given) = call.jsonb(n + 1) {
            for (name, value) in members("per_variable", given)? {
                let word = document::as_string(&value).ok_or_else(|| {
                    Error::argument(format!(
                        "the strategy of variable \"{}\" must be a string",
                        text(name)
                    ))
                })?;
                let strategy = Strategy::parse(word).ok_or_else(|| Error::UnknownLabel {
                    what: "strategy",
                    name: format!("{}\" of variable \"{}", text(word), text(name)),
                    known: Strategy::known(),
                })?;
                memory::check()?;
                per_variable.insert(name, strategy);
            }
        }
        Ok(Self {
            default: strategy(call, n)?,
            per_variable,
        })
    }

    fn of_variable(&self, name: &[u8]) -> Strategy {
        *self.per_variable.get(name).unwrap_or(&self.default)
    }
}

/// Merges a child into its parent, as `state_context_merge` does; `known` is the child's document as it was found.
fn merge_child(
    call: &mut Call<'_>,
    (parent, child): (&StateRef<'_>, &StateRef<'_>),
    known: &[u8],
    strategies: &Strategies<'_>,
    function: &CStr,
) -> Result<pg_sys::Datum> {
    fence_now(parent, call.bigint(3))?;
    let place = lock_place(child, &open(child, known)?, PlaceLock::Ends)?;
    if place.parent.as_deref() != Some(parent.key) {
        // Created again below another parent while this waited.
        return Err(Error::Raced {
            state: child.shown(),
        });
    }
    lock_runs(
        child,
        vec![child.key.to_vec(), parent.key.to_vec()],
        function,
    )?;
    // What this transaction has staged of the child is part of what is merged, and has a version from here on.
    transaction::write_staged(child)?;
    let (version, document) = run::found(child, transaction::read_locked(child, &mut Document)?)?;
    let (_, parent_document) =
        run::found(parent, transaction::read_locked(parent, &mut Document)?)?;
    // Also where there is nothing to merge: a runner need not know what the child did to be told.
    run::check_running(parent.key, &open(parent, &parent_document)?)?;
    let mut rows = call.rows()?;
    if version.number == place.base_version {
        return Ok(call::void_datum());
    }
    let base = base::document(child, &place)?;
    let strategy = |name: &[u8]| strategies.of_variable(name);
    let outcomes = merge_into(
        (parent, &parent_document),
        child,
        &Sides {
            base: &base,
            parent_base: place.parent_base.as_deref(),
            child: &document,
        },
        &strategy,
        None,
        function,
    )?;
    base::move_after_merge(
        child,
        &place,
        (version.number, &document),
        &outcomes,
        function,
    )?;
    for Outcome { merged, conflict } in outcomes {
        let text = |bytes: &[u8]| call::varlena_datum(bytes);
        rows.push([
            Some(text(merged.name)),
            merged.value.as_deref().map(text),
            merged
                .strategy
                .map(|strategy| text(strategy.name().as_bytes())),
            Some(text(merged.reason.text().as_bytes())),
            conflict.map(call::bigint_datum),
        ]);
    }
    Ok(call::void_datum())
}

sql_functions! {
    /// `state_context_merge(child_run_id, strategy, per_variable, token)`
    fn state_context_merge(call) {
        let function = c"state_context_merge()";
        let child = run::named(call, 0)?;
        let strategies = Strategies::of(call, 1)?;
        transaction::check_may_change(&child, function)?;
        let known = run::require(&child)?;
        let parent_key = run::text_of(child.key, &open(&child, &known)?, "parentRunId")?
            .ok_or_else(|| ContextError::NoParent { run: text(child.key) })?;
        let parent = StateRef::new(&child.catalog, RUN, &parent_key)?;
        let sides = (&parent, &child);
        under(&parent, call.bigint(3), || merge_child(call, sides, &known, &strategies, function))
    }
}

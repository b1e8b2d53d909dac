//! Deciding what a merge left to a person.

use super::error::ContextError;
use super::merge::conflict_ids;
use super::run::{self, RUN, malformed, open};
use super::variables::check_value;
use crate::cache::StateRef;
use crate::cache::forms::Document;
use crate::call::{self, sql_functions};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result, text};
use crate::identity::Impersonation;
use crate::store::{self, Conflict};
use crate::sys;
use crate::transaction::{self, Operation};
use state_cache_context::{Label, Run, Sensitivity, Source, Variable};
use state_cache_document::{self as document, DocumentError};
use state_cache_memory::Grow;
use std::borrow::Cow;

/// A conflict; `42704` if there is none.
fn conflict(catalog: &Catalog, id: i64, lock: bool) -> Result<Conflict> {
    let _owner = Impersonation::owner_of(catalog.context);
    store::conflict(catalog, id, lock)?.ok_or_else(|| ContextError::UnknownConflict { id }.into())
}

fn stale(id: i64, reason: String) -> Error {
    ContextError::StaleConflict { id, reason }.into()
}

/// Raises `55000` unless a conflict is still what its run waits for.
fn check_open(id: i64, conflict: &Conflict, context: &Run<'_>) -> Result<()> {
    match &*conflict.status {
        b"open" => {}
        b"superseded" => {
            let reason = format!(
                "Another conflict of the variable was resolved; conflict {} has taken its place.",
                conflict.superseded_by
            );
            return Err(stale(id, reason));
        }
        b"abandoned" => {
            return Err(stale(id, "Its run has ended or was deleted.".to_owned()));
        }
        _ => {
            let reason = format!(
                "It was resolved by {} at {}.",
                text(&conflict.resolved_by),
                sys::timestamp_text(conflict.resolved_at)
            );
            return Err(stale(id, reason));
        }
    }
    let shape = |error| run::shape(&conflict.run, error);
    if !run::conflicts_of(&conflict.run, context, &conflict.variable)?.contains(&id) {
        let reason = "The document of its run does not wait for it: it was put there by state_set(), \
                      state_restore() or the like.";
        return Err(stale(id, reason.to_owned()));
    }
    let current = context.variable(&conflict.variable).map_err(shape)?;
    if current.as_ref().map(|variable| &*variable.value) != conflict.parent.as_deref() {
        let reason = format!(
            "Variable \"{}\" of run \"{}\" has changed since, by state_set() or the like.",
            text(&conflict.variable),
            text(&conflict.run)
        );
        return Err(stale(id, reason));
    }
    Ok(())
}

/// The variable as it is decided.
fn decided<'a>(context: &Run<'a>, conflict: &Conflict, value: &'a [u8]) -> Result<Variable<'a>> {
    let before = context
        .variable(&conflict.variable)
        .map_err(|error| run::shape(&conflict.run, error))?;
    let least = sensitivity_of(conflict);
    Ok(Variable {
        value: Cow::Borrowed(value),
        source: Source::User,
        timestamp: Some(run::now()),
        sensitivity: before
            .as_ref()
            .map_or(least, |before| before.sensitivity.max(least)),
        mutable: before.as_ref().is_none_or(|before| before.mutable),
        raw: before.as_ref().map_or(&[], |before| before.raw),
    })
}

fn sensitivity_of(conflict: &Conflict) -> Sensitivity {
    Sensitivity::parse(&conflict.sensitivity).unwrap_or(Sensitivity::Secret)
}

/// Opens the other conflicts of a variable anew against what was decided; what the variable waits for then.
fn reopen_others(
    catalog: &Catalog,
    others: impl Iterator<Item = i64>,
    variable: &Variable<'_>,
) -> Result<Vec<i64>> {
    let mut waiting = Vec::new();
    for id in others {
        let sensitivity = sensitivity_of(&conflict(catalog, id, true)?).max(variable.sensitivity);
        let anew = store::supersede_conflict(catalog, id, &variable.value, sensitivity.name())?;
        if let Some(anew) = anew {
            waiting.try_push(anew)?;
        }
    }
    Ok(waiting)
}

/// The document's `conflicts` once those of a variable are these.
fn conflicts_after(
    (run, context): (&[u8], &Run<'_>),
    variable: &[u8],
    waiting: &[i64],
) -> Result<Vec<u8>> {
    let before = run::section_of(run, context, "conflicts")?;
    if waiting.is_empty() {
        let before = before.ok_or_else(|| malformed(run)(DocumentError::SectionMissing))?;
        return document::without(before, &[variable]).map_err(malformed(run));
    }
    let ids = conflict_ids(run, waiting)?;
    document::object(&[(variable, ids)])
        .and_then(|one| document::update(before, &one))
        .map_err(malformed(run))
}

sql_functions! {
    /// `state_conflict_resolve(id, value, reason)`
    fn state_conflict_resolve(call) {
        let function = c"state_conflict_resolve()";
        let id = call.bigint(0).ok_or_else(|| Error::null_argument("id"))?;
        let value = call.required_jsonb(1, "value")?;
        let reason = call.required_text(2, "reason")?;
        let by = sys::user_name(sys::current_user());
        let catalog = catalog::current(call.function())?;
        transaction::check_may_write(&catalog, function)?;
        let run_key = conflict(&catalog, id, false)?.run;
        let state = StateRef::new(&catalog, RUN, &run_key)?;
        transaction::lock(&state, function)?;
        let (_, document) = run::found(&state, transaction::read_locked(&state, &mut Document)?)?;
        let context = open(&state, &document)?;
        let found = conflict(&catalog, id, true)?;
        check_open(id, &found, &context)?;
        run::check_running(&run_key, &context)?;
        check_value(&found.variable, value)?;
        let variable = decided(&context, &found, value)?;
        let others = run::conflicts_of(&run_key, &context, &found.variable)?;
        let waiting = {
            let _owner = Impersonation::owner_of(catalog.context);
            store::resolve_conflict(&catalog, id, value, reason, &by)?;
            let others = others.into_iter().filter(|other| *other != id);
            reopen_others(&catalog, others, &variable)?
        };
        let before = run::section_of(&run_key, &context, "variables")?;
        let record = variable.document(&found.variable).map_err(malformed(&run_key))?;
        let variables = document::object(&[(&found.variable, record)])
            .and_then(|one| document::update(before, &one))
            .map_err(malformed(&run_key))?;
        let conflicts = conflicts_after((&run_key, &context), &found.variable, &waiting)?;
        let updates = document::object(&[("variables", variables), ("conflicts", conflicts)]);
        transaction::apply_locked(&state, Operation::Update(updates.map_err(malformed(&run_key))?), function)?;
        transaction::keep_staged(&state)?;
        Ok(call::void_datum())
    }
}

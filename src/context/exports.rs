//! What a run is to hand on when it ends.

use super::blackboard::SWARM;
use super::blackboard::check_item_key;
use super::claim::{fence, under};
use super::error::ContextError;
use super::run::{self, RUN, malformed, open};
use super::variables::{label, members};
use crate::cache::StateRef;
use crate::call::{self, sql_functions, varlena_datum};
use crate::error::{Error, Result, text};
use crate::transaction::{self, Edit, Operation};
use crate::{settings, varlena};
use pgrx::pg_sys;
use state_cache_context::{Destination, Export, Label, Run, Sensitivity};
use state_cache_document as document;
use state_cache_memory::{Grow, boxed, collect, copy, with_capacity};
use std::borrow::Cow;
use std::rc::Rc;

/// Longest name of an external system, in bytes.
const MAX_TARGET: usize = 255;

/// An export to be marked.
struct Mark {
    run: Box<[u8]>,
    key: Box<[u8]>,
    destination: Destination,
    target: Option<Box<[u8]>>,
    target_key: Option<Box<[u8]>>,
    sensitivity: Option<Sensitivity>,
    /// The entry, as the document holds it, but for its sensitivity.
    entry: Vec<u8>,
    /// The token of the claim under which it is made.
    token: Option<i64>,
}

impl Edit for Mark {
    fn apply(&self, base: Option<&[u8]>) -> Result<Vec<u8>> {
        let base = base.ok_or_else(|| run::gone(&self.run, self.token))?;
        let shape = |error| run::shape(&self.run, error);
        let context = Run::open(base, &self.run).map_err(shape)?;
        run::check_running_under(&self.run, &context, self.token)?;
        let sensitivity = check_sensitivity(
            &self.run,
            &context,
            &self.key,
            self.destination,
            self.sensitivity,
        )?;
        let mut entries: Vec<Cow<'_, [u8]>> = Vec::new();
        for export in context.exports().map_err(shape)? {
            // Marked again for the same place, it is marked once.
            let is_same = (&*export.key, export.destination) == (&*self.key, self.destination)
                && export.target.as_deref() == self.target.as_deref()
                && export.target_key.as_deref() == self.target_key.as_deref();
            if !is_same {
                entries.try_push(export.raw.into())?;
            }
        }
        let entry = document::string(sensitivity.name().as_bytes())
            .and_then(|sensitivity| document::object(&[("sensitivity", sensitivity)]))
            .and_then(|sensitivity| document::update(Some(&self.entry), &sensitivity));
        entries.try_push(entry.map_err(malformed(&self.run))?.into())?;
        document::array(&entries)
            .and_then(|exports| document::object(&[("exports", exports)]))
            .and_then(|updates| document::update(Some(base), &updates))
            .map_err(malformed(&self.run))
    }

    fn bytes(&self) -> usize {
        self.entry.len()
    }
}

/// An export whose mark is to be taken back.
struct Unmark {
    run: Box<[u8]>,
    key: Box<[u8]>,
    destination: Option<Destination>,
    /// The token of the claim under which it is made.
    token: Option<i64>,
}

impl Unmark {
    fn is_meant(&self, export: &Export<'_>) -> bool {
        let destination = self.destination.unwrap_or(export.destination);
        *export.key == *self.key && export.destination == destination
    }
}

impl Edit for Unmark {
    fn apply(&self, base: Option<&[u8]>) -> Result<Vec<u8>> {
        let base = base.ok_or_else(|| run::gone(&self.run, self.token))?;
        let shape = |error| run::shape(&self.run, error);
        let context = Run::open(base, &self.run).map_err(shape)?;
        run::check_running_under(&self.run, &context, self.token)?;
        let exports = context.exports().map_err(shape)?;
        let kept = exports.iter().filter(|export| !self.is_meant(export));
        let kept = collect(kept.map(|export| export.raw))?;
        if kept.len() == exports.len() {
            return Ok(copy(base)?);
        }
        document::array(&kept)
            .and_then(|exports| document::object(&[("exports", exports)]))
            .and_then(|updates| document::update(Some(base), &updates))
            .map_err(malformed(&self.run))
    }

    fn bytes(&self) -> usize {
        self.key.len()
    }
}

/// The sensitivity of an export: no less than that of its variable.
pub fn sensitivity_of(
    run: &[u8],
    context: &Run<'_>,
    key: &[u8],
    declared: Option<Sensitivity>,
) -> Result<Sensitivity> {
    let shape = |error| run::shape(run, error);
    let variable = context.variable(key).map_err(shape)?;
    let own = variable.map(|variable| variable.sensitivity).max(declared);
    context
        .effective(key, own.unwrap_or(Sensitivity::Internal))
        .map_err(shape)
}

/// Raises `42501` for an export that is more sensitive than its destination takes.
pub fn check_sensitivity(
    run: &[u8],
    context: &Run<'_>,
    key: &[u8],
    destination: Destination,
    declared: Option<Sensitivity>,
) -> Result<Sensitivity> {
    let sensitivity = sensitivity_of(run, context, key, declared)?;
    let limit = settings::max_sensitivity(destination);
    if sensitivity > limit {
        return Err(ContextError::Sensitive {
            run: text(run),
            key: text(key),
            sensitivity,
            destination,
            limit,
        }
        .into());
    }
    Ok(sensitivity)
}

/// Raises unless an export can go where it is to go.
fn check_place(
    state: &StateRef<'_>,
    key: &[u8],
    destination: Destination,
    target: Option<&[u8]>,
    target_key: Option<&[u8]>,
) -> Result<()> {
    match (destination, target) {
        (Destination::PersistentStore, Some(class)) => {
            check_store_class(class)?;
            let default_key = default_target_key(state.key, key)?;
            let target_key = target_key.unwrap_or(&default_key);
            StateRef::new(&state.catalog, class, target_key).map(|_| ())
        }
        (Destination::PersistentStore, None) => Err(Error::argument(
            "an export to persistent_store needs the class as its target",
        )),
        (Destination::ExternalSystem, Some(system))
            if !(1..=MAX_TARGET).contains(&system.len()) =>
        {
            Err(Error::argument(format!(
                "target must have 1 to {MAX_TARGET} bytes"
            )))
        }
        (Destination::ExternalSystem, None) => Err(Error::argument(
            "an export to external_system needs the system as its target",
        )),
        (Destination::Blackboard, _) => check_item_key(target_key.unwrap_or(key)),
        (Destination::ParentContext | Destination::ExternalSystem, _) => Ok(()),
    }
}

/// Raises `22023` for the classes whose documents have rules of their own.
pub fn check_store_class(class: &[u8]) -> Result<()> {
    if [RUN, SWARM].contains(&class) {
        return Err(Error::Argument {
            message: format!(
                "an export to persistent_store must not go to class \"{}\"",
                text(class)
            ),
            hint: Some(
                "Exports to parent_context and blackboard keep the rules of these documents.",
            ),
        });
    }
    Ok(())
}

/// The name that an export has where it goes, if none is given.
pub fn default_target_key(run: &[u8], key: &[u8]) -> Result<Vec<u8>> {
    let mut name = with_capacity(run.len() + 1 + key.len())?;
    [run, b"/", key]
        .iter()
        .for_each(|part| name.extend_from_slice(part));
    Ok(name)
}

/// An SQL/JSON path; PostgreSQL's own error for what is none.
fn json_path(path: &[u8]) -> Option<pg_sys::Datum> {
    // SAFETY: jsonpath_in takes a NUL-terminated string; the result lives in the current memory context.
    unsafe {
        pgrx::direct_function_call_as_datum(pg_sys::jsonpath_in, &[Some(call::cstring_datum(path))])
    }
}

/// Raises `22023` for a path with variables: nobody gives an export any.
fn check_path(path: &[u8]) -> Result<()> {
    match json_path(path).is_some_and(has_variables) {
        false => Ok(()),
        true => Err(Error::Argument {
            message: "transformation must not use variables".to_owned(),
            hint: Some("$ is the value of the variable that is exported."),
        }),
    }
}

/// Whether an SQL/JSON path uses variables. As the server writes it these are `$"name"`, and `$` before a quote is
/// nothing else outside of quotes.
fn has_variables(path: pg_sys::Datum) -> bool {
    // SAFETY: jsonpath_out takes a jsonpath, and gives a string that lives in the current memory context.
    let text = unsafe {
        pgrx::direct_function_call_as_datum(pg_sys::jsonpath_out, &[Some(path)])
            .map(|text| std::ffi::CStr::from_ptr(text.cast_mut_ptr()).to_bytes())
    };
    let mut is_quoted = false;
    let mut before = 0;
    for byte in text.unwrap_or_default() {
        match (*byte, before) {
            (b'"', b'$') if !is_quoted => return true,
            // What is escaped ends nothing, and escapes nothing.
            (_, b'\\') if is_quoted => {
                before = 0;
                continue;
            }
            (b'"', _) => is_quoted = !is_quoted,
            _ => {}
        }
        before = *byte;
    }
    false
}

/// What an SQL/JSON path finds first in a value; `None` for nothing.
pub fn transformed(run: &[u8], value: &[u8], path: &[u8]) -> Result<Option<Vec<u8>>> {
    let no_variables = document::object::<&[u8], &[u8]>(&[]).map_err(malformed(run))?;
    let arguments = [
        Some(varlena_datum(value)),
        json_path(path),
        Some(varlena_datum(&no_variables)),
        // Silent: an error would show the value.
        Some(call::boolean_datum(true)),
    ];
    // SAFETY: the function takes jsonb, jsonpath, jsonb and boolean, and gives jsonb.
    unsafe {
        let found = pgrx::direct_function_call_as_datum(pg_sys::jsonb_path_query_first, &arguments);
        let found = found.map(|datum| copy(varlena::detoasted_bytes(datum.cast_mut_ptr())));
        Ok(found.transpose()?)
    }
}

sql_functions! {
    /// `state_context_unmark_export(run_id, key, destination, token)`
    fn state_context_unmark_export(call) {
        let function = c"state_context_unmark_export()";
        let state = run::named(call, 0)?;
        let key = call.required_text(1, "key")?;
        let destination = label::<Destination>(call, 2, "destination")?;
        transaction::check_may_change(&state, function)?;
        let document = under(&state, call.bigint(3), || run::require(&state))?;
        fence(&state, call.bigint(3))?;
        let token = transaction::fence_of(&state)?;
        let unmark = Unmark { run: state.key.into(), key: boxed(key)?, destination, token };
        let exports = open(&state, &document)?.exports();
        let exports = exports.map_err(|error| run::shape(state.key, error))?;
        let was_marked = exports.iter().any(|export| unmark.is_meant(export));
        transaction::apply(&state, Operation::Edit(Rc::new(unmark)), function)?;
        Ok(call::boolean_datum(was_marked))
    }

    /// `state_context_mark_export(run_id, key, destination, transformation, target, target_key, item, sensitivity,
    /// token)`
    fn state_context_mark_export(call) {
        let function = c"state_context_mark_export()";
        let state = run::named(call, 0)?;
        let key = call.required_text(1, "key")?;
        let destination = label::<Destination>(call, 2, "destination")?
            .ok_or_else(|| Error::null_argument("destination"))?;
        let (transformation, target, target_key) = (call.text(3), call.text(4), call.text(5));
        let sensitivity = label::<Sensitivity>(call, 7, "sensitivity")?;
        if key.is_empty() {
            return Err(Error::argument("key must not be empty"));
        }
        transformation.map(check_path).transpose()?;
        check_place(&state, key, destination, target, target_key)?;
        let item = call.jsonb(6);
        if let Some(item) = item {
            members("item", item)?;
            super::blackboard::check_attributes(item)?;
        }
        let texts = [
            ("key", Some(key)),
            ("destination", Some(destination.name().as_bytes())),
            ("transformation", transformation),
            ("target", target),
            ("targetKey", target_key),
        ];
        let mut fields: Vec<(&str, Cow<'_, [u8]>)> = Vec::new();
        for (name, text) in texts {
            if let Some(text) = text {
                fields.push((name, document::string(text).map_err(malformed(state.key))?.into()));
            }
        }
        fields.extend(item.map(|item| ("item", item.into())));
        transaction::check_may_change(&state, function)?;
        open(&state, &under(&state, call.bigint(8), || run::require(&state))?)?;
        fence(&state, call.bigint(8))?;
        let mark = Mark {
            run: state.key.into(),
            key: boxed(key)?,
            destination,
            target: target.map(boxed).transpose()?,
            target_key: target_key.map(boxed).transpose()?,
            sensitivity,
            entry: document::object(&fields).map_err(malformed(state.key))?,
            token: transaction::fence_of(&state)?,
        };
        transaction::apply(&state, Operation::Edit(Rc::new(mark)), function)?;
        Ok(call::void_datum())
    }
}

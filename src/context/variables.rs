//! The variables of a run.

use super::claim::{fence, under};
use super::error::ContextError;
use super::run::{self, open};
use crate::call::{self, Call, sql_functions};
use crate::error::{Error, Result, Shown, text};
use crate::sys;
use crate::transaction::{self, Edit, Operation};
use pgrx::pg_sys;
use state_cache_context::{Label, Run, Sensitivity, Source, Variable, put};
use state_cache_document::{self as document, DocumentError};
use state_cache_memory::{Grow, boxed, copy, owned, try_collect, with_capacity};
use std::borrow::Cow;
use std::ffi::CStr;
use std::rc::Rc;

/// What becomes of one variable.
pub enum Action {
    /// It has this value.
    Set(Vec<u8>),
    /// This is appended to the array that it is; without the variable, to an empty one.
    Append(Vec<u8>),
    /// It is patched (RFC 7396); without the variable, as if it were an empty object.
    Patch(Vec<u8>),
}

impl Action {
    fn bytes(&self) -> usize {
        let (Self::Set(carried) | Self::Append(carried) | Self::Patch(carried)) = self;
        carried.len()
    }

    /// The value after it.
    fn apply(&self, before: Option<&[u8]>) -> std::result::Result<Vec<u8>, DocumentError> {
        match self {
            Self::Set(value) => Ok(copy(value)?),
            Self::Append(element) => {
                let mut elements = match before {
                    Some(array) => document::elements(array)?,
                    None => Vec::new(),
                };
                elements.try_push(Cow::Borrowed(element.as_slice()))?;
                document::array(&elements)
            }
            Self::Patch(patch) => document::merge_patch(before, patch, sys::check_stack),
        }
    }
}

/// A change of variables that their rules allow.
struct SetVariables {
    run: Box<[u8]>,
    actions: Vec<(Box<[u8]>, Action)>,
    source: Source,
    sensitivity: Option<Sensitivity>,
    mutable: Option<bool>,
    /// When it was asked for, in microseconds since 1970.
    at: i64,
    /// The token of the claim under which it is made.
    token: Option<i64>,
}

impl Edit for SetVariables {
    fn apply(&self, base: Option<&[u8]>) -> Result<Vec<u8>> {
        let base = base.ok_or_else(|| run::gone(&self.run, self.token))?;
        let context = Run::open(base, &self.run).map_err(|error| run::shape(&self.run, error))?;
        run::check_running_under(&self.run, &context, self.token)?;
        let mut changed = with_capacity(self.actions.len())?;
        for (name, action) in &self.actions {
            changed.extend(
                self.variable(&context, name, action)?
                    .map(|variable| (name, variable)),
            );
        }
        if changed.is_empty() {
            return Ok(copy(base)?);
        }
        put(base, &changed).map_err(|error| run::shape(&self.run, error))
    }

    fn bytes(&self) -> usize {
        self.actions
            .iter()
            .map(|(name, action)| name.len() + action.bytes())
            .sum()
    }
}

impl SetVariables {
    /// What becomes of one variable; `None` if it stays as it is, its timestamp included.
    fn variable<'a>(
        &self,
        context: &Run<'a>,
        name: &[u8],
        action: &Action,
    ) -> Result<Option<Variable<'a>>> {
        let shape = |error| run::shape(&self.run, error);
        check_not_blocked(&self.run, context, name)?;
        let before = context.variable(name).map_err(shape)?;
        if before.as_ref().is_some_and(|before| !before.mutable) {
            return Err(ContextError::Immutable {
                run: text(&self.run),
                variable: text(name),
            }
            .into());
        }
        let value = action
            .apply(before.as_ref().map(|before| &*before.value))
            .map_err(|error| self.document_error(name, error))?;
        check_value(name, &value)?;
        let floor = context.floor(name).map_err(shape)?;
        let asked = self.sensitivity.or(floor);
        let sensitivity = match &before {
            Some(before) => asked.map_or(before.sensitivity, |asked| asked.max(before.sensitivity)),
            None => asked.unwrap_or(Sensitivity::Internal),
        };
        let variable = Variable {
            value: Cow::Owned(value),
            source: self.source,
            timestamp: Some(self.at),
            sensitivity: floor.map_or(sensitivity, |floor| floor.max(sensitivity)),
            mutable: self.mutable.unwrap_or(true),
            raw: before.as_ref().map_or(&[], |before| before.raw),
        };
        let same = before.is_some_and(|before| {
            before.value == variable.value
                && (before.source, before.sensitivity, before.mutable)
                    == (variable.source, variable.sensitivity, variable.mutable)
        });
        Ok((!same).then_some(variable))
    }

    fn document_error(&self, name: &[u8], error: DocumentError) -> Error {
        let error = match error {
            DocumentError::NotAnArray => DocumentError::PathNotArray,
            other => other,
        };
        Error::Document {
            state: Shown::new(run::RUN, &self.run),
            place: format!("{{variables,{},value}}", text(name)),
            error,
        }
    }
}

/// Raises `55006` if a variable waits for a decision.
pub fn check_not_blocked(run: &[u8], context: &Run<'_>, name: &[u8]) -> Result<()> {
    match run::conflicts_of(run, context, name)?.first() {
        None => Ok(()),
        Some(conflict) => Err(ContextError::Blocked {
            run: text(run),
            variable: text(name),
            conflict: *conflict,
        }
        .into()),
    }
}

/// Raises `22023` for a value that is JSON's null: a variable without a value is one that is not there.
pub fn check_value(name: &[u8], value: &[u8]) -> Result<()> {
    if document::is_null(value) {
        return Err(Error::Argument {
            message: format!("the value of variable \"{}\" must not be null", text(name)),
            hint: Some("Within an object or array null is a value like any other."),
        });
    }
    Ok(())
}

/// A word of a list, from an argument that may be NULL.
pub fn label<T: Label>(call: &Call<'_>, n: usize, what: &'static str) -> Result<Option<T>> {
    call.text(n)
        .map(|name| {
            T::parse(name).ok_or_else(|| Error::UnknownLabel {
                what,
                name: text(name),
                known: T::known(),
            })
        })
        .transpose()
}

/// The members of an argument that is an object.
pub fn members<'a>(name: &str, object: &'a [u8]) -> Result<Vec<document::Member<'a>>> {
    document::members(object).map_err(|error| match error {
        DocumentError::NotAnObject => Error::argument(format!("{name} must be an object")),
        DocumentError::OutOfMemory(refused) => refused.into(),
        error => Error::Internal {
            message: format!("{name}: {error}"),
        },
    })
}

/// The arguments of a call that changes variables from the `n`th on: source, sensitivity, mutable.
struct Attributes {
    source: Source,
    sensitivity: Option<Sensitivity>,
    mutable: Option<bool>,
}

impl Attributes {
    fn source(call: &Call<'_>, n: usize) -> Result<Self> {
        let source = label::<Source>(call, n, "source")?;
        Ok(Self {
            source: source.ok_or_else(|| Error::null_argument("source"))?,
            sensitivity: None,
            mutable: None,
        })
    }

    fn all(call: &Call<'_>, n: usize) -> Result<Self> {
        Ok(Self {
            sensitivity: label::<Sensitivity>(call, n + 1, "sensitivity")?,
            mutable: call.boolean(n + 2),
            ..Self::source(call, n)?
        })
    }
}

/// Stages a change of variables.
fn change(
    call: &Call<'_>,
    actions: Vec<(Box<[u8]>, Action)>,
    attributes: &Attributes,
    token: Option<i64>,
    function: &CStr,
) -> Result<pg_sys::Datum> {
    let state = run::named(call, 0)?;
    if token.is_some() {
        transaction::check_may_change(&state, function)?;
        under(&state, token, || run::require(&state))?;
        fence(&state, token)?;
    }
    for (name, action) in &actions {
        if name.is_empty() {
            return Err(Error::argument("the name of a variable must not be empty"));
        }
        if let Action::Set(value) = action {
            check_value(name, value)?;
        }
    }
    let edit = SetVariables {
        run: state.key.into(),
        actions,
        source: attributes.source,
        sensitivity: attributes.sensitivity,
        mutable: attributes.mutable,
        at: run::now(),
        token: transaction::fence_of(&state)?,
    };
    transaction::apply(&state, Operation::Edit(Rc::new(edit)), function)?;
    Ok(call::void_datum())
}

/// A change of the one variable that a call names.
fn change_one(
    call: &Call<'_>,
    action: impl FnOnce(Vec<u8>) -> Action,
    value: &str,
    attributes: &Attributes,
    token: Option<i64>,
    function: &CStr,
) -> Result<pg_sys::Datum> {
    let name = call.required_text(1, "name")?;
    let value = copy(call.required_jsonb(2, value)?)?;
    change(
        call,
        vec![(boxed(name)?, action(value))],
        attributes,
        token,
        function,
    )
}

sql_functions! {
    /// `state_context_set(run_id, name, value, source, sensitivity, mutable, token)`
    fn state_context_set(call) {
        let attributes = Attributes::all(call, 3)?;
        change_one(call, Action::Set, "value", &attributes, call.bigint(6), c"state_context_set()")
    }

    /// `state_context_set_many(run_id, variables, source, sensitivity, mutable, token)`
    fn state_context_set_many(call) {
        let variables = members("variables", call.required_jsonb(1, "variables")?)?;
        let actions = try_collect(variables.into_iter().map(|(name, value)| {
            Ok::<_, Error>((boxed(name)?, Action::Set(owned(value)?)))
        }))?;
        let attributes = Attributes::all(call, 2)?;
        change(call, actions, &attributes, call.bigint(5), c"state_context_set_many()")
    }

    /// `state_context_append(run_id, name, value, source, token)`
    fn state_context_append(call) {
        let attributes = Attributes::source(call, 3)?;
        change_one(call, Action::Append, "value", &attributes, call.bigint(4), c"state_context_append()")
    }

    /// `state_context_patch(run_id, name, patch, source, token)`
    fn state_context_patch(call) {
        let attributes = Attributes::source(call, 3)?;
        change_one(call, Action::Patch, "patch", &attributes, call.bigint(4), c"state_context_patch()")
    }

    /// `state_context_visible(run_id, max_sensitivity)`
    fn state_context_visible(call) {
        let max = label::<Sensitivity>(call, 1, "max_sensitivity")?
            .ok_or_else(|| Error::null_argument("max_sensitivity"))?;
        let state = run::named(call, 0)?;
        let (_, document) = run::read(&state)?;
        open(&state, &document)?;
        let visible = state_cache_context::visible(&document, state.key, max);
        Ok(call::varlena_datum(&visible.map_err(|error| run::shape(state.key, error))?))
    }
}

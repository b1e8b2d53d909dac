//! Creating runs and looking at them.

use super::blackboard;
use super::claim::{fence_now, under};
use super::error::ContextError;
use super::hierarchy::{as_owner, clear_place, lock_place, put_place};
use super::limits;
use super::run::{self, RUN, malformed, open};
use super::variables::{check_value, label, members};
use crate::budgets;
use crate::cache::StateRef;
use crate::cache::forms::{Document, Head};
use crate::cache::found::Found;
use crate::call::{self, Call, sql_functions};
use crate::error::{Error, Result, text};
use crate::settings;
use crate::store::{self, Checkpoint, Place, PlaceLock};
use crate::transaction;
use state_cache_context::{Label, Run, Sensitivity, Source, Status, Variable, rfc3339};
use state_cache_document::{self as document, DocumentError};
use state_cache_memory::{Grow, collect, copy, owned, try_collect};
use std::ffi::CStr;

/// What a new run has beside what it inherits.
#[derive(Default)]
struct New<'a> {
    run: &'a [u8],
    routine: Option<&'a [u8]>,
    parent: Option<&'a [u8]>,
    swarm: Option<&'a [u8]>,
    /// The budget that its credits are charged to.
    budget: Option<&'a [u8]>,
    permissions: Vec<Vec<u8>>,
    limits: Option<Vec<u8>>,
    shared_limits: Option<Vec<u8>>,
    sensitivity_map: Option<Vec<u8>>,
    /// Variables, as the document holds them.
    variables: Vec<(Vec<u8>, Vec<u8>)>,
    /// Inputs of a child, with what the parent has in their place.
    replaced: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl New<'_> {
    /// Adds variables with these values. The input of a child takes the place of a variable of that name that it
    /// inherits, whose sensitivity it does not go below and which must be mutable.
    fn add_inputs(&mut self, inputs: Option<&[u8]>, parent: Option<&Parent<'_>>) -> Result<()> {
        let Some(inputs) = inputs else {
            return Ok(());
        };
        let at = run::now();
        for (name, value) in members("inputs", inputs)? {
            if name.is_empty() {
                return Err(Error::argument("the name of a variable must not be empty"));
            }
            check_value(name, &value)?;
            let mut sensitivity = self.floor(name)?.unwrap_or(Sensitivity::Internal);
            if let Some(parent) = parent {
                let replaced = parent.replaced(name)?;
                sensitivity = replaced
                    .sensitivity
                    .map_or(sensitivity, |it| it.max(sensitivity));
                self.replaced.try_push((copy(name)?, replaced.value))?;
            }
            let variable = Variable {
                value,
                source: if parent.is_some() {
                    Source::Parent
                } else {
                    Source::User
                },
                timestamp: Some(at),
                sensitivity,
                mutable: true,
                raw: &[],
            };
            self.put(name, &variable)?;
        }
        Ok(())
    }

    /// What the parent has where the run's inputs are others: what it changes of that is not its parent's change.
    fn parent_base(&self) -> Result<Option<Vec<u8>>> {
        if self.replaced.is_empty() {
            return Ok(None);
        }
        let null = document::null();
        let values = self.replaced.iter();
        let values = values.map(|(name, value)| (name, value.as_ref().unwrap_or(&null)));
        document::object(&collect(values)?)
            .map(Some)
            .map_err(malformed(self.run))
    }

    fn put(&mut self, name: &[u8], variable: &Variable<'_>) -> Result<()> {
        let record = variable.document(name).map_err(malformed(self.run))?;
        self.variables.try_push((copy(name)?, record))?;
        Ok(())
    }

    /// The sensitivity that a variable of this name has at least.
    fn floor(&self, name: &[u8]) -> Result<Option<Sensitivity>> {
        let Some(map) = &self.sensitivity_map else {
            return Ok(None);
        };
        let declared = document::member(map, name).map_err(malformed(self.run))?;
        Ok(declared.and_then(|value| Sensitivity::parse(document::as_string(&value)?)))
    }

    /// The document of the run.
    fn document(self) -> std::result::Result<Vec<u8>, DocumentError> {
        let string = document::string;
        let empty_object = document::object::<&[u8], &[u8]>(&[])?;
        let permissions = try_collect(self.permissions.iter().map(|it| string(it)))?;
        let mut fields: Vec<(&str, Vec<u8>)> = vec![
            ("runId", string(self.run)?),
            ("status", string(Status::Running.name().as_bytes())?),
            ("permissions", document::array(&permissions)?),
            (
                "resourceLimits",
                self.limits.unwrap_or_else(|| empty_object.clone()),
            ),
            ("usage", empty_object.clone()),
            ("variables", document::object(&self.variables)?),
            ("intermediate", empty_object.clone()),
            ("exports", document::array::<&[u8]>(&[])?),
            (
                "sensitivityMap",
                self.sensitivity_map.unwrap_or(empty_object),
            ),
            ("createdAt", string(rfc3339(run::now()).as_bytes())?),
        ];
        let optional = [
            ("routineId", self.routine.map(string).transpose()?),
            ("parentRunId", self.parent.map(string).transpose()?),
            ("swarmId", self.swarm.map(string).transpose()?),
            ("budget", self.budget.map(string).transpose()?),
            ("sharedLimits", self.shared_limits),
        ];
        fields.extend(
            optional
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        document::object(&fields)
    }
}

/// Raises `42710` if there is such a run.
fn check_absent(state: &StateRef<'_>) -> Result<()> {
    match transaction::read_latest(state, &mut Head)? {
        Found::Absent(_) => Ok(()),
        Found::State(..) => Err(ContextError::Duplicate {
            run: text(state.key),
        }
        .into()),
    }
}

/// Writes a new run, and its place; its version.
fn write_new(state: &StateRef<'_>, new: New<'_>, depth: i32, function: &CStr) -> Result<i64> {
    let parent = new.parent.map(Into::into);
    let parent_base = new.parent_base()?;
    let document = new.document().map_err(malformed(state.key))?;
    let duplicate = || ContextError::Duplicate {
        run: text(state.key),
    };
    let checkpoint = Checkpoint {
        checkpoint_type: b"full".as_slice().into(),
        // What the run starts from is what its merge compares with: pruning spares it.
        recovery_point: true,
        agent_phase: Some(b"initialization".as_slice().into()),
        ..Checkpoint::default()
    };
    check_absent(state)?;
    // A deletion by this transaction takes the place of the former run with it.
    transaction::write_staged(state)?;
    clear_place(state)?;
    let saved = match transaction::save(state, &document, checkpoint, Some(0), None, function) {
        Err(Error::Conflict { .. }) => return Err(duplicate().into()),
        saved => saved?,
    };
    let place = Place {
        parent,
        depth,
        base_version: saved.version,
        parent_base,
        handed_on: None,
    };
    put_place(state, &place)?;
    Ok(saved.version)
}

/// The permissions that an argument names, each once.
fn permissions(call: &Call<'_>, n: usize) -> Result<Option<Vec<Vec<u8>>>> {
    let Some(given) = call.text_array(n)? else {
        return Ok(None);
    };
    let mut given = try_collect(given.into_iter().map(|one| {
        let one = one.ok_or_else(|| Error::argument("permissions must not contain null"))?;
        Ok::<_, Error>(copy(one)?)
    }))?;
    given.sort_unstable();
    given.dedup();
    Ok(Some(given))
}

/// The permissions that a run has.
fn permissions_of(state: &StateRef<'_>, context: &Run<'_>) -> Result<Vec<Vec<u8>>> {
    let Some(held) = run::section_of(state.key, context, "permissions")? else {
        return Ok(Vec::new());
    };
    let held = document::elements(held).map_err(malformed(state.key))?;
    let held = held.iter().filter_map(|one| document::as_string(one));
    Ok(try_collect(held.map(copy))?)
}

/// Limits that an argument gives.
fn limits_given<'a>(call: &Call<'a>, n: usize) -> Result<Option<&'a [u8]>> {
    let given = call.jsonb(n);
    given.map_or(Ok(()), limits::check_given)?;
    Ok(given)
}

/// The floors that an argument declares.
fn sensitivity_map(call: &Call<'_>, n: usize) -> Result<Option<Vec<u8>>> {
    let Some(map) = call.jsonb(n) else {
        return Ok(None);
    };
    for (name, value) in members("sensitivity_map", map)? {
        let word = document::as_string(&value).ok_or_else(|| {
            Error::argument(format!(
                "the sensitivity of variable \"{}\" must be a string",
                text(name)
            ))
        })?;
        if Sensitivity::parse(word).is_none() {
            return Err(Error::UnknownLabel {
                what: "sensitivity",
                name: format!("{}\" of variable \"{}", text(word), text(name)),
                known: Sensitivity::known(),
            });
        }
    }
    Ok(Some(copy(map)?))
}

/// The permission that a child needs to inherit a variable; `None` where it needs none.
fn permission_to_inherit(sensitivity: Sensitivity) -> Option<&'static str> {
    match sensitivity {
        Sensitivity::Public | Sensitivity::Internal | Sensitivity::Confidential => None,
        Sensitivity::Pii => Some("read:pii"),
        Sensitivity::Secret => Some("read:secret"),
    }
}

/// What an input of a child stands in place of.
struct Replaced {
    /// The value that the parent has.
    value: Option<Vec<u8>>,
    /// Its sensitivity, if the child inherits it.
    sensitivity: Option<Sensitivity>,
}

/// The parent that a child is created under.
struct Parent<'a> {
    key: &'a [u8],
    context: Run<'a>,
    /// The most sensitive variable that the child is to inherit, as far as its permissions go.
    max: Option<Sensitivity>,
    /// The permissions of the child.
    permissions: Vec<Vec<u8>>,
}

impl<'a> Parent<'a> {
    /// How sensitive a variable is, if the child inherits it.
    fn hands_on(&self, name: &[u8], variable: &Variable<'_>) -> Result<Option<Sensitivity>> {
        let sensitivity = self
            .context
            .effective(name, variable.sensitivity)
            .map_err(|error| run::shape(self.key, error))?;
        let is_permitted = permission_to_inherit(sensitivity)
            .is_none_or(|needed| self.permissions.iter().any(|it| **it == *needed.as_bytes()));
        let is_wanted = self.max.is_none_or(|max| sensitivity <= max);
        Ok((is_permitted && is_wanted).then_some(sensitivity))
    }

    /// Adds what a child inherits.
    fn hand_on_to(&self, new: &mut New<'_>) -> Result<()> {
        let variables = self.context.variables();
        for (name, variable) in variables.map_err(|error| run::shape(self.key, error))? {
            if let Some(sensitivity) = self.hands_on(name, &variable)? {
                let handed_on = Variable {
                    source: Source::Parent,
                    sensitivity,
                    ..variable
                };
                new.put(name, &handed_on)?;
            }
        }
        Ok(())
    }

    fn replaced(&self, name: &[u8]) -> Result<Replaced> {
        let variable = self.context.variable(name);
        let Some(variable) = variable.map_err(|error| run::shape(self.key, error))? else {
            return Ok(Replaced {
                value: None,
                sensitivity: None,
            });
        };
        let sensitivity = self.hands_on(name, &variable)?;
        if sensitivity.is_some() && !variable.mutable {
            return Err(ContextError::Immutable {
                run: text(self.key),
                variable: text(name),
            }
            .into());
        }
        Ok(Replaced {
            value: Some(owned(variable.value)?),
            sensitivity,
        })
    }
}

/// Raises unless a run may have one more child below it; its place is locked. The depth of the child.
fn check_room(parent: &StateRef<'_>, place: &Place, child: &[u8]) -> Result<i32> {
    let depth = place.depth.saturating_add(1);
    let limit = settings::max_context_depth();
    if depth > limit {
        return Err(ContextError::TooDeep {
            run: text(child),
            limit,
        }
        .into());
    }
    let most = settings::max_context_children();
    if as_owner(parent, || {
        store::count_children(&parent.catalog, parent.key, most)
    })? >= most
    {
        return Err(ContextError::TooManyChildren {
            run: text(parent.key),
            limit: most,
        }
        .into());
    }
    Ok(depth)
}

sql_functions! {
    /// `state_context_create(run_id, routine_id, inputs, permissions, resource_limits, swarm_id, sensitivity_map,
    /// budget)`
    fn state_context_create(call) {
        let state = run::named(call, 0)?;
        if let Some(budget) = call.text(7) {
            budgets::check_exists(&state.catalog, budget)?;
        }
        if let Some(swarm) = call.text(5) {
            StateRef::new(&state.catalog, blackboard::SWARM, swarm)?;
        }
        let mut new = New {
            run: state.key,
            routine: call.text(1),
            swarm: call.text(5),
            budget: call.text(7),
            permissions: permissions(call, 3)?.unwrap_or_default(),
            limits: limits_given(call, 4)?.map(copy).transpose()?,
            sensitivity_map: sensitivity_map(call, 6)?,
            ..New::default()
        };
        new.add_inputs(call.jsonb(2), None)?;
        let version = write_new(&state, new, 0, c"state_context_create()")?;
        Ok(call::bigint_datum(version))
    }

    /// `state_context_child(parent_run_id, child_run_id, inputs, routine_id, permissions, resource_limits,
    /// max_sensitivity, token)`
    fn state_context_child(call) {
        let function = c"state_context_child()";
        let parent_key = call.required_text(0, "parent_run_id")?;
        let child_key = call.required_text(1, "child_run_id")?;
        let catalog = crate::catalog::current(call.function())?;
        let parent = StateRef::new(&catalog, RUN, parent_key)?;
        let child = StateRef::new(&catalog, RUN, child_key)?;
        let max = label::<Sensitivity>(call, 6, "max_sensitivity")?;
        let (asked, given) = (permissions(call, 4)?, limits_given(call, 5)?);
        let token = call.bigint(7);
        let (place, document) = under(&parent, token, || {
            transaction::check_may_change(&parent, function)?;
            let known = run::require(&parent)?;
            fence_now(&parent, token)?;
            let place = lock_place(&parent, &open(&parent, &known)?, PlaceLock::Branches)?;
            run::require_running(&parent)?;
            limits::lock_for_child(&parent, child_key, function)?;
            // All that the child has of its parent is what is there from here on.
            let (_, document) = run::found(&parent, transaction::read_locked(&parent, &mut Document)?)?;
            run::check_running(parent_key, &open(&parent, &document)?)?;
            Ok((place, document))
        })?;
        let context = open(&parent, &document)?;
        // All of it is handed on.
        context.check_all().map_err(|error| run::shape(parent_key, error))?;
        let depth = check_room(&parent, &place, child_key)?;
        let held = permissions_of(&parent, &context)?;
        if let Some(above) = asked.iter().flatten().find(|one| !held.contains(*one)) {
            return Err(ContextError::Permission { parent: text(parent_key), permission: text(above) }.into());
        }
        let swarm = run::text_of(parent_key, &context, "swarmId")?;
        let budget = run::text_of(parent_key, &context, "budget")?;
        let permissions = asked.unwrap_or(held);
        let mut new = New {
            run: child_key,
            routine: call.text(3),
            parent: Some(parent_key),
            swarm: swarm.as_deref(),
            budget: budget.as_deref(),
            permissions: try_collect(permissions.iter().map(|one| copy(one)))?,
            sensitivity_map: run::section_of(parent_key, &context, "sensitivityMap")?.map(copy).transpose()?,
            ..New::default()
        };
        let handing_on = Parent { key: parent_key, context, max, permissions };
        handing_on.hand_on_to(&mut new)?;
        new.add_inputs(call.jsonb(2), Some(&handing_on))?;
        // Before the parent's limits are touched.
        check_absent(&child)?;
        let limits = limits::inherit(&parent, &document, child_key, given, function)?;
        new.limits = Some(limits.limits);
        new.shared_limits = Some(limits.shared);
        let version = write_new(&child, new, depth, function)?;
        Ok(call::bigint_datum(version))
    }

    /// `state_context_get(run_id)`
    fn state_context_get(call) {
        let state = run::named(call, 0)?;
        let (_, document) = run::read(&state)?;
        let context = open(&state, &document)?;
        context.check_all().map_err(|error| run::shape(state.key, error))?;
        Ok(call::varlena_datum(&document))
    }
}

//! Ending a run: its exports travel, what it was allotted goes back, its last state is written and kept.

use super::base;
use super::blackboard;
use super::claim::{fence_now, under};
use super::error::ContextError;
use super::exports::{check_sensitivity, check_store_class, default_target_key, transformed};
use super::hierarchy::{as_owner, check_no_children, lock_place};
use super::limits;
use super::merge::{Sides, merge_into, strategy};
use super::run::{self, RUN, malformed, open};

use crate::cache::StateRef;
use crate::cache::forms::Document;
use crate::call::{self, Call, Rows, sql_functions};
use crate::error::{Error, Result, text};
use crate::memory;
use crate::store::{self, Checkpoint, ClaimLock, Outgoing, Place, PlaceLock};
use crate::subtransaction::{Refused, survive_refusal};
use crate::transaction;
use pgrx::pg_sys;
use state_cache_context::{
    Destination, Export, Label, Run, Sensitivity, Status, Strategy, Variable, put, rfc3339,
};
use state_cache_document as document;
use state_cache_memory::{Grow, collect, copy, try_collect, with_capacity};
use std::borrow::Cow;
use std::ffi::CStr;

const FUNCTION: &CStr = c"state_context_complete()";

/// A run that ends.
struct Ending<'a> {
    state: &'a StateRef<'a>,
    context: Run<'a>,
    document: &'a [u8],
    place: &'a Place,
    strategy: Strategy,
}

/// An export that is on its way.
struct Departure<'a> {
    export: Export<'a>,
    /// Where it goes: that of a root has no parent to go to.
    destination: Destination,
    value: Cow<'a, [u8]>,
    sensitivity: Sensitivity,
}

/// What became of an export.
struct Arrival {
    key: Vec<u8>,
    destination: Destination,
    target: Option<Vec<u8>>,
    strategy: Option<Strategy>,
    reason: &'static str,
}

impl<'a> Ending<'a> {
    fn shape(&self, error: state_cache_context::ShapeError) -> Error {
        run::shape(self.state.key, error)
    }

    fn fault(&self, key: &[u8], problem: &str) -> Error {
        ContextError::Export {
            run: text(self.state.key),
            key: text(key),
            problem: problem.to_owned(),
        }
        .into()
    }

    /// The exports with their values, each checked against what its destination takes.
    fn departures(&self) -> Result<Vec<Departure<'_>>> {
        let exports = self.context.exports().map_err(|error| self.shape(error))?;
        try_collect(exports.into_iter().map(|export| self.departure(export)))
    }

    fn departure<'e>(&self, export: Export<'e>) -> Result<Departure<'e>>
    where
        'a: 'e,
    {
        let destination = match export.destination {
            Destination::ParentContext if self.place.parent.is_none() => Destination::Blackboard,
            destination => destination,
        };
        let sensitivity = check_sensitivity(
            self.state.key,
            &self.context,
            &export.key,
            destination,
            Some(export.sensitivity),
        )?;
        let variable = self
            .context
            .variable(&export.key)
            .map_err(|error| self.shape(error))?
            .ok_or_else(|| self.fault(&export.key, "has no variable of that name"))?;
        let value = match &export.transformation {
            Some(path) => Cow::Owned(
                survive_refusal(|| transformed(self.state.key, &variable.value, path))?
                    .map_err(|Refused| self.fault(&export.key, "cannot be transformed"))?
                    .filter(|value| !document::is_null(value))
                    .ok_or_else(|| self.fault(&export.key, "is nothing once it is transformed"))?,
            ),
            None => variable.value,
        };
        Ok(Departure {
            export,
            destination,
            value,
            sensitivity,
        })
    }

    /// Merges what goes to the parent.
    fn to_parent(&self, departures: &[Departure<'_>]) -> Result<Vec<Arrival>> {
        let Some(parent_key) = self.place.parent.as_deref() else {
            return Ok(Vec::new());
        };
        let going = collect(
            departures
                .iter()
                .filter(|departure| departure.destination == Destination::ParentContext),
        )?;
        let Some(first) = going.first() else {
            return Ok(Vec::new());
        };
        let parent = StateRef::new(&self.state.catalog, RUN, parent_key)?;
        transaction::lock(&parent, FUNCTION)?;
        let (_, parent_document) = transaction::read_locked(&parent, &mut Document)?
            .state()
            .ok_or_else(|| self.fault(&first.export.key, "has no parent to go to any more"))?;
        run::check_running(parent_key, &open(&parent, &parent_document)?)?;
        let mut exported = with_capacity(going.len())?;
        for departure in &going {
            let variable = self
                .context
                .variable(&departure.export.key)
                .map_err(|error| self.shape(error))?;
            if let Some(variable) = variable {
                let variable = Variable {
                    value: Cow::Borrowed(&*departure.value),
                    sensitivity: departure.sensitivity,
                    ..variable
                };
                exported.push((&*departure.export.key, variable));
            }
        }
        let child = put(self.document, &exported).map_err(|error| self.shape(error))?;
        let base = base::document(self.state, self.place)?;
        let is_going = |name: &[u8]| going.iter().any(|departure| *departure.export.key == *name);
        let outcomes = merge_into(
            (&parent, &parent_document),
            self.state,
            &Sides {
                base: &base,
                parent_base: self.place.parent_base.as_deref(),
                child: &child,
            },
            &|_| self.strategy,
            Some(&is_going),
            FUNCTION,
        )?;
        let names = collect(going.iter().map(|departure| &*departure.export.key))?;
        let (state, place) = (self.state, self.place);
        base::move_after_export(state, place, &base, &self.context, &names, &outcomes)?;
        let arrivals = going.iter().map(|departure| {
            let outcome = outcomes
                .iter()
                .find(|outcome| *outcome.merged.name == *departure.export.key);
            Ok(Arrival {
                key: copy(&departure.export.key)?,
                destination: departure.destination,
                target: Some(copy(parent_key)?),
                strategy: outcome.and_then(|outcome| outcome.merged.strategy),
                reason: outcome.map_or("not changed by the child", |outcome| {
                    outcome.merged.reason.text()
                }),
            })
        });
        try_collect(arrivals)
    }

    /// Sends an export to where no parent is needed.
    fn send(&self, departure: &Departure<'_>) -> Result<Arrival> {
        let export = &departure.export;
        let default_key = default_target_key(self.state.key, &export.key)?;
        let target_key = export.target_key.as_deref().unwrap_or(&default_key);
        let (target, reason) = match departure.destination {
            Destination::Blackboard => {
                let swarm =
                    run::text_of(self.state.key, &self.context, "swarmId")?.ok_or_else(|| {
                        self.fault(
                            &export.key,
                            "goes to the blackboard, but the run has no swarm",
                        )
                    })?;
                let board = StateRef::new(&self.state.catalog, blackboard::SWARM, &swarm)?;
                blackboard::put(
                    &board,
                    export.target_key.as_deref().unwrap_or(&export.key),
                    &departure.value,
                    self.state.key,
                    export.item,
                    FUNCTION,
                )?;
                transaction::keep_for_commit(&board)?;
                (Some(copy(&swarm)?), "put on the blackboard")
            }
            Destination::PersistentStore => {
                let class = export.target.as_deref().unwrap_or_default();
                check_store_class(class)?;
                let state = StateRef::new(&self.state.catalog, class, target_key)?;
                transaction::set(&state, (&*departure.value).into(), None, None, FUNCTION)?;
                transaction::keep_staged(&state)?;
                (Some([class, b"/", target_key].concat()), "written")
            }
            Destination::ExternalSystem => {
                let system = export.target.as_deref().unwrap_or_default();
                as_owner(self.state, || {
                    store::send_out(
                        &self.state.catalog,
                        &Outgoing {
                            run: self.state.key,
                            key: &export.key,
                            target: (system, target_key),
                            value: &departure.value,
                            sensitivity: departure.sensitivity.name(),
                        },
                    )
                })?;
                (Some(copy(system)?), "put into the outbox")
            }
            // Merged with the others.
            Destination::ParentContext => (None, ""),
        };
        Ok(Arrival {
            key: copy(&export.key)?,
            destination: departure.destination,
            target,
            strategy: None,
            reason,
        })
    }

    /// Lets the exports travel.
    fn export(&self) -> Result<Vec<Arrival>> {
        let departures = self.departures()?;
        let mut arrivals = self.to_parent(&departures)?;
        for departure in &departures {
            if departure.destination != Destination::ParentContext {
                arrivals.try_push(self.send(departure)?)?;
            }
        }
        Ok(arrivals)
    }

    /// Writes the last state of the run.
    fn write(&self, outcome: Status) -> Result<()> {
        let updates = || {
            document::object(&[
                ("status", document::string(outcome.name().as_bytes())?),
                (
                    "completedAt",
                    document::string(rfc3339(run::now()).as_bytes())?,
                ),
            ])
        };
        let last = updates()
            .and_then(|updates| document::update(Some(self.document), &updates))
            .map_err(malformed(self.state.key))?;
        let checkpoint = Checkpoint {
            checkpoint_type: b"pipeline_complete".as_slice().into(),
            recovery_point: true,
            agent_phase: Some(b"completion".as_slice().into()),
            ..Checkpoint::default()
        };
        transaction::save(self.state, &last, checkpoint, None, None, FUNCTION).map(|_| ())
    }
}

/// Whether a run has anything to hand to its parent. What is wrong with its exports is said later.
fn exports_to_parent(context: &Run<'_>) -> bool {
    context.exports().is_ok_and(|exports| {
        let mut destinations = exports.iter().map(|export| export.destination);
        destinations.any(|destination| destination == Destination::ParentContext)
    })
}

/// Raises `55006` if variables of a run wait for a decision.
fn check_decided(run: &[u8], context: &Run<'_>) -> Result<()> {
    let Some(conflicts) = run::section_of(run, context, "conflicts")? else {
        return Ok(());
    };
    let mut variables = Vec::new();
    for (name, _) in document::members(conflicts).map_err(malformed(run))? {
        if !run::conflicts_of(run, context, name)?.is_empty() {
            memory::check()?;
            variables.try_push(text(name))?;
        }
    }
    if variables.is_empty() {
        return Ok(());
    }
    Err(ContextError::Undecided {
        run: text(run),
        variables,
    }
    .into())
}

fn push(rows: &mut Rows, arrival: &Arrival) {
    let text = |bytes: &[u8]| call::varlena_datum(bytes);
    rows.push([
        Some(text(&arrival.key)),
        Some(text(arrival.destination.name().as_bytes())),
        arrival.target.as_deref().map(text),
        arrival
            .strategy
            .map(|strategy| text(strategy.name().as_bytes())),
        Some(text(arrival.reason.as_bytes())),
    ]);
}

/// Ends a run, as `state_context_complete` does.
fn complete(call: &mut Call<'_>, state: &StateRef<'_>) -> Result<pg_sys::Datum> {
    let given = call.required_text(1, "outcome")?;
    let outcome = Status::parse(given).filter(|outcome| *outcome != Status::Running);
    let outcome = outcome.ok_or_else(|| Error::UnknownLabel {
        what: "outcome",
        name: text(given),
        known: "completed, failed, cancelled".to_owned(),
    })?;
    let strategy = strategy(call, 2)?;
    transaction::check_may_change(state, FUNCTION)?;
    let known = run::require_running(state)?;
    fence_now(state, call.bigint(3))?;
    // The row of the claim says that the run has ended: claims come before places, also where no token is named.
    as_owner(state, || {
        store::lock_claim(&state.catalog, state.key, ClaimLock::Shared)
    })?;
    let place = lock_place(state, &open(state, &known)?, PlaceLock::Ends)?;
    let mut keys = vec![state.key.to_vec()];
    if let Some(parent) = &place.parent {
        // Not a weaker lock: who completes the last child goes on to complete the parent.
        as_owner(state, || {
            store::lock_place(&state.catalog, parent, PlaceLock::Branches)
        })?;
        keys.extend(limits::reserving_runs(state, parent, state.key)?);
        if outcome == Status::Completed && exports_to_parent(&open(state, &known)?) {
            keys.push(parent.to_vec());
        }
    }
    limits::lock_runs(state, keys, FUNCTION)?;
    let read = || run::found(state, transaction::read_locked(state, &mut Document)?);
    let (_, mut document) = read()?;
    let context = open(state, &document)?;
    context
        .check_all()
        .map_err(|error| run::shape(state.key, error))?;
    run::check_running(state.key, &context)?;
    check_no_children(state)?;
    if limits::settle_all_gone(state, &document, FUNCTION)? {
        (_, document) = read()?;
    }
    let context = open(state, &document)?;
    let ending = Ending {
        state,
        context,
        document: &document,
        place: &place,
        strategy,
    };
    let mut rows = call.rows()?;
    if outcome == Status::Completed {
        check_decided(state.key, &context)?;
        ending
            .export()?
            .iter()
            .for_each(|arrival| push(&mut rows, arrival));
    }
    // One that fails or is cancelled decides nothing any more.
    as_owner(state, || {
        store::abandon_conflicts(&state.catalog, state.key)
    })?;
    ending.write(outcome)?;
    limits::settle(state, &ending.context, FUNCTION)?;
    Ok(call::void_datum())
}

sql_functions! {
    /// `state_context_complete(run_id, outcome, strategy, token)`
    fn state_context_complete(call) {
        let state = run::named(call, 0)?;
        under(&state, call.bigint(3), || complete(call, &state))
    }
}

//! Merging a child back into its parent.

use super::claim::fence_now;
use super::error::ContextError;
use super::hierarchy::{as_owner, lock_place};
use super::limits::lock_runs;
use super::run::{self, RUN, malformed, open, server_time};
use super::variables::{label, members};
use crate::batch::{self, Operation};
use crate::cache::StateRef;
use crate::cache::forms::Document;
use crate::call::{self, Call, sql_functions};
use crate::error::{Error, Result, text};
use crate::identity::Impersonation;
use crate::snapshot::PushedSnapshot;
use crate::store::{self, AUTO, Checkpoint, NewConflict, PlaceLock};
use crate::sys;
use state_cache_context::{Base, Merged, Only, Reason, Run, Status, Strategy, merge};
use state_cache_document as document;
use std::collections::BTreeMap;
use std::ffi::CStr;

/// The document of a version that a merge compares with.
pub fn base_document(child: &StateRef<'_>, version: i64) -> Result<Vec<u8>> {
    let _snapshot = PushedSnapshot::latest();
    match store::kept(&child.catalog, &child.class.name, child.key, version)? {
        Some(Ok(kept)) => Ok(kept.document),
        Some(Err(fault)) => Err(Error::Damaged {
            state: child.shown(),
            version,
            fault,
        }),
        None => Err(ContextError::BaseLost {
            run: text(child.key),
            version,
        }
        .into()),
    }
}

/// One variable of a merge, and the conflict that was opened for it.
pub struct Outcome<'a> {
    pub merged: Merged<'a>,
    pub conflict: Option<i64>,
}

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
    let mut outcomes = Vec::with_capacity(merged.len());
    let (mut variables, mut blocked) = (Vec::new(), Vec::new());
    for merged in merged {
        if let Some(variable) = &merged.becomes {
            let record = variable.document(merged.name);
            variables.push((merged.name, record.map_err(malformed(parent.key))?));
        }
        let conflict = match &merged.conflict {
            Some(found) => {
                let _owner = Impersonation::owner_of(parent.catalog.context);
                let id = store::open_conflict(
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
                )?;
                let mut ids = run::conflicts_of(parent.key, &parent_run, merged.name)?;
                ids.push(id);
                blocked.push((merged.name, conflict_ids(parent.key, &ids)?));
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
        batch::apply(parent, operation, function)?;
    }
    if !blocked.is_empty() {
        let before = run::section_of(parent.key, &parent_run, "conflicts")?;
        let updates = document::object(&blocked)
            .and_then(|added| document::update(before, &added))
            .and_then(|conflicts| document::object(&[("conflicts", conflicts)]))
            .map_err(malformed(parent.key))?;
        batch::apply(parent, Operation::Update(updates), function)?;
    }
    batch::keep_staged(parent)?;
    Ok(outcomes)
}

/// Ids of conflicts as a document holds them.
pub fn conflict_ids(run: &[u8], ids: &[i64]) -> Result<Vec<u8>> {
    let ids: Result<Vec<_>> = ids
        .iter()
        .map(|id| super::number::Number::from(*id).document())
        .collect();
    document::array(&ids?).map_err(malformed(run))
}

/// The strategies that a call names: one for all variables, and others for some.
struct Strategies<'a> {
    default: Strategy,
    per_variable: BTreeMap<&'a [u8], Strategy>,
}

/// The strategy that an argument names.
pub fn strategy(call: &Call<'_>, n: usize) -> Result<Strategy> {
    label(call, n, "strategy", Strategy::parse, Strategy::KNOWN)?
        .ok_or_else(|| Error::null_argument("strategy"))
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
                    known: Strategy::KNOWN.to_owned(),
                })?;
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

/// What the parent has of the variables that were merged where the child has others, with what was so before.
fn parent_base_after(
    child: &StateRef<'_>,
    before: Option<&[u8]>,
    context: &Run<'_>,
    outcomes: &[Outcome<'_>],
) -> Result<Option<Vec<u8>>> {
    // Where only its sensitivity rose the child has not changed the value, and nobody has decided on the parent's.
    let decided = outcomes.iter().map(|outcome| &outcome.merged);
    let decided: Vec<_> = decided
        .filter(|merged| merged.reason != Reason::OnlySensitivityRose)
        .collect();
    let names: Vec<_> = decided.iter().map(|merged| merged.name).collect();
    let mut others = Vec::new();
    for merged in decided {
        let of_child = context.variable(merged.name);
        let of_child = of_child.map_err(|error| run::shape(child.key, error))?;
        if merged.value != of_child.map(|variable| variable.value) {
            let value = merged
                .value
                .as_deref()
                .map_or_else(document::null, <[u8]>::to_vec);
            others.push((merged.name, value));
        }
    }
    if before.is_none() && others.is_empty() {
        return Ok(None);
    }
    let kept = before
        .map(|before| document::without(before, &names))
        .transpose();
    kept.and_then(|kept| document::update(kept.as_deref(), &document::object(&others)?))
        .map(Some)
        .map_err(malformed(child.key))
}

/// The version of a child that the next merge compares with. Where the class may drop it with the next write, or never
/// write it, it is made one that is kept; else pruning spares it.
fn keep_merged(
    child: &StateRef<'_>,
    (version, document): (i64, &[u8]),
    function: &CStr,
) -> Result<i64> {
    let has_ended = open(child, document)?.status() != Status::Running;
    let is_kept = child.class.keep.is_none() && !child.class.behind;
    if has_ended || is_kept {
        return Ok(version);
    }
    let checkpoint = Checkpoint {
        checkpoint_type: AUTO.into(),
        recovery_point: true,
        agent_phase: None,
        execution_context: None,
        parent: None,
    };
    Ok(batch::save(child, document, checkpoint, None, None, function)?.version)
}

sql_functions! {
    /// `state_context_merge(child_run_id, strategy, per_variable, token)`
    fn state_context_merge(call) {
        let function = c"state_context_merge()";
        let child = run::named(call, 0)?;
        let strategies = Strategies::of(call, 1)?;
        batch::check_may_change(&child, function)?;
        let known = run::require(&child)?;
        let parent_key = run::text_of(child.key, &open(&child, &known)?, "parentRunId")?
            .ok_or_else(|| ContextError::NoParent { run: text(child.key) })?;
        let parent = StateRef::new(&child.catalog, RUN, &parent_key)?;
        fence_now(&parent, call.bigint(3))?;
        let place = lock_place(&child, &open(&child, &known)?, PlaceLock::Ends)?;
        lock_runs(&child, vec![child.key.to_vec(), parent_key.clone()], function)?;
        // What this transaction has staged of the child is part of what is merged, and has a version from here on.
        batch::write_staged(&child)?;
        let (version, document) = run::found(&child, batch::read_locked(&child, &mut Document)?)?;
        let mut rows = call.rows();
        if version.number == place.base_version {
            return Ok(call::void_datum());
        }
        let (_, parent_document) = run::found(&parent, batch::read_locked(&parent, &mut Document)?)?;
        run::check_running(&parent_key, &open(&parent, &parent_document)?)?;
        let base = base_document(&child, place.base_version)?;
        let strategy = |name: &[u8]| strategies.of_variable(name);
        let outcomes = merge_into(
            (&parent, &parent_document),
            &child,
            &Sides { base: &base, parent_base: place.parent_base.as_deref(), child: &document },
            &strategy,
            None,
            function,
        )?;
        let parent_base =
            parent_base_after(&child, place.parent_base.as_deref(), &open(&child, &document)?, &outcomes)?;
        let merged_version = keep_merged(&child, (version.number, &document), function)?;
        as_owner(&child, || {
            store::set_base(&child.catalog, child.key, merged_version, parent_base.as_deref())
        })?;
        for Outcome { merged, conflict } in outcomes {
            let text = |bytes: &[u8]| call::varlena_datum(bytes);
            rows.push([
                Some(text(merged.name)),
                merged.value.as_deref().map(text),
                merged.strategy.map(|strategy| text(strategy.name().as_bytes())),
                Some(text(merged.reason.text().as_bytes())),
                conflict.map(call::bigint_datum),
            ]);
        }
        Ok(call::void_datum())
    }
}

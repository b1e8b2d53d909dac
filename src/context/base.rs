//! What a merge of a child compares with: its base.
//!
//! # Contract
//!
//! The base is the child's document at the last merge, or when it was created: the version `base_version` of its
//! place. Two things are kept beside that. `parent_base` holds what the parent had then of a variable of which the
//! child had another value. `handed_on` holds the child's records of variables that were exported to the parent
//! since: of these, and of no others, the export was the last merge.

use super::error::ContextError;
use super::hierarchy::as_owner;
use super::outcome::Outcome;
use super::run::{self, malformed, open};
use crate::cache::StateRef;
use crate::error::{Error, Result, text};
use crate::snapshot::PushedSnapshot;
use crate::store::{self, AUTO, Checkpoint, Place};
use crate::transaction;
use state_cache_context::{Reason, Run, Status};
use state_cache_document::{self as jsonb, DocumentError};
use state_cache_memory::{Grow, collect, copy};
use std::borrow::Cow;
use std::ffi::CStr;

/// The child's document that a merge compares with.
pub fn document(child: &StateRef<'_>, place: &Place) -> Result<Vec<u8>> {
    let version = place.base_version;
    let _snapshot = PushedSnapshot::latest();
    let base = match store::kept(&child.catalog, &child.class.name, child.key, version)? {
        Some(Ok(kept)) => kept.document,
        Some(Err(fault)) => {
            return Err(Error::Damaged {
                state: child.shown(),
                version,
                fault,
            });
        }
        None => {
            return Err(ContextError::BaseLost {
                run: text(child.key),
                version,
            }
            .into());
        }
    };
    match &place.handed_on {
        Some(records) => {
            jsonb::update_section(Some(&base), b"variables", records).map_err(malformed(child.key))
        }
        None => Ok(base),
    }
}

/// The base after a merge of this version of the child.
pub fn move_after_merge(
    child: &StateRef<'_>,
    place: &Place,
    (version, document): (i64, &[u8]),
    outcomes: &[Outcome<'_>],
    function: &CStr,
) -> Result<()> {
    let parent_base = parent_base_after(
        child,
        place.parent_base.as_deref(),
        &open(child, document)?,
        outcomes,
    )?;
    let moved = Place {
        base_version: keep_merged(child, (version, document), function)?,
        parent_base,
        handed_on: None,
        parent: place.parent.clone(),
        depth: place.depth,
    };
    as_owner(child, || store::set_base(&child.catalog, child.key, &moved))
}

/// The base after these variables of a child were exported to its parent, compared with the document `base`.
pub fn move_after_export(
    child: &StateRef<'_>,
    place: &Place,
    base: &[u8],
    context: &Run<'_>,
    names: &[&[u8]],
    outcomes: &[Outcome<'_>],
) -> Result<()> {
    let shape = |error| run::shape(child.key, error);
    let base = open(child, base)?;
    let before = place.parent_base.as_deref();
    let (mut records, mut unmoved) = (Vec::new(), Vec::new());
    for name in names.iter().copied() {
        let Some(variable) = context.variable(name).map_err(shape)? else {
            continue;
        };
        records.try_push((name, variable.raw))?;
        let is_decided = outcomes
            .iter()
            .any(|it| it.merged.name == name && decides(it));
        let of_base = base.variable(name).map_err(shape)?.map(|it| it.value);
        let known = before.map(|before| jsonb::member(before, name)).transpose();
        if !is_decided
            && of_base.as_ref() != Some(&variable.value)
            && known.map_err(malformed(child.key))?.flatten().is_none()
        {
            // What was made of its value on the way is what the parent had: that is still what the parent began with.
            unmoved.try_push((name, of_base.unwrap_or_else(|| jsonb::null().into())))?;
        }
    }
    let parent_base = parent_base_after(child, before, context, outcomes)?;
    let parent_base = with(parent_base.as_deref(), &unmoved).map_err(malformed(child.key))?;
    let moved = Place {
        parent_base,
        handed_on: with(place.handed_on.as_deref(), &records).map_err(malformed(child.key))?,
        parent: place.parent.clone(),
        depth: place.depth,
        base_version: place.base_version,
    };
    as_owner(child, || store::set_base(&child.catalog, child.key, &moved))
}

/// An object with these members; nothing stays nothing where there are none.
fn with<V: AsRef<[u8]>>(
    object: Option<&[u8]>,
    members: &[(&[u8], V)],
) -> std::result::Result<Option<Vec<u8>>, DocumentError> {
    if members.is_empty() {
        return Ok(object.map(copy).transpose()?);
    }
    jsonb::update(object, &jsonb::object(members)?).map(Some)
}

/// Whether a merge has decided upon the value of a variable. Where only its sensitivity rose the child has not
/// changed the value, and nobody has decided on the parent's.
fn decides(outcome: &Outcome<'_>) -> bool {
    outcome.merged.reason != Reason::OnlySensitivityRose
}

/// What the parent has of the variables that were merged where the child has others, with what was so before.
fn parent_base_after(
    child: &StateRef<'_>,
    before: Option<&[u8]>,
    context: &Run<'_>,
    outcomes: &[Outcome<'_>],
) -> Result<Option<Vec<u8>>> {
    let decided = outcomes.iter().filter(|outcome| decides(outcome));
    let decided = collect(decided.map(|outcome| &outcome.merged))?;
    let names = collect(decided.iter().map(|merged| merged.name))?;
    let mut others = Vec::new();
    for merged in decided {
        let of_child = context.variable(merged.name);
        let of_child = of_child.map_err(|error| run::shape(child.key, error))?;
        if merged.value != of_child.map(|variable| variable.value) {
            let value = match merged.value.as_deref() {
                Some(value) => Cow::Borrowed(value),
                None => jsonb::null().into(),
            };
            others.try_push((merged.name, value))?;
        }
    }
    if before.is_none() && others.is_empty() {
        return Ok(None);
    }
    let kept = before
        .map(|before| jsonb::without(before, &names))
        .transpose();
    kept.and_then(|kept| jsonb::update(kept.as_deref(), &jsonb::object(&others)?))
        .map(Some)
        .map_err(malformed(child.key))
}

/// The version of a child that the next merge compares with. Where the class may drop it with the next write, or
/// never write it, it is made one that is kept; else pruning spares it.
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
        ..Checkpoint::default()
    };
    Ok(transaction::save(child, document, checkpoint, None, None, function)?.version)
}

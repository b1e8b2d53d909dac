//! Changing the pairs of an object.

use core::cmp::Ordering;

use crate::build::Builder;
use crate::container::{Container, Pair, Shape};
use crate::error::DocumentError::{
    self, NotAnObject, SectionMissing, SectionNotObject, UpdatesNotObject,
};
use crate::format::STRING;
use crate::item::{Item, key_order};
use state_cache_memory::{copy, with_capacity};

/// Called at each level of a recursion. The extension passes the server's own stack check, which
/// raises an error and does not return when the stack is used up.
pub type StackGuard = fn();

/// The top-level shallow merge `base || updates`; no base is `{}`.
///
/// # Errors
/// [`UpdatesNotObject`], [`NotAnObject`], [`DocumentError::Damaged`], [`DocumentError::TooLarge`].
pub fn update(base: Option<&[u8]>, updates: &[u8]) -> Result<Vec<u8>, DocumentError> {
    let updates = updates_pairs(updates)?;
    let base_pairs = match base {
        Some(base) => {
            let mut root = Container::root(base)?;
            if root.shape() != Shape::Object {
                return Err(NotAnObject);
            }
            root.pairs()?
        }
        None => Vec::new(),
    };
    let mut out = with_capacity(capacity(base_pairs.iter().chain(&updates)))?;
    shallow(&mut out, &base_pairs, &updates)?.finish(&out)?;
    Ok(out)
}

/// The shallow merge of `updates` into the object under the top-level key `section`, which must be
/// there.
///
/// # Errors
/// [`UpdatesNotObject`]; [`NotAnObject`] when the root is an array or a scalar; [`SectionMissing`],
/// also for no base; [`SectionNotObject`]; [`DocumentError::Damaged`]; [`DocumentError::TooLarge`].
pub fn update_section(
    base: Option<&[u8]>,
    section: &[u8],
    updates: &[u8],
) -> Result<Vec<u8>, DocumentError> {
    let updates_bytes = updates.len();
    let updates = updates_pairs(updates)?;
    let base = base.ok_or(SectionMissing)?;
    let mut root = Container::root(base)?;
    if root.shape() != Shape::Object {
        return Err(NotAnObject);
    }
    let pairs = root.pairs()?;
    let index = pairs
        .binary_search_by(|pair| key_order(pair.key, section))
        .map_err(|_| SectionMissing)?;
    let value = &pairs[index].value;
    if !value.is_object() {
        return Err(SectionNotObject);
    }
    let section_pairs = Container::of_item(value)?.pairs()?;

    let mut out = with_capacity(base.len() + updates_bytes + SLACK)?;
    let mut object = Builder::object(&mut out, pairs.len())?;
    put_keys(&mut object, &mut out, &pairs)?;
    for (place, pair) in pairs.iter().enumerate() {
        if place == index {
            let child = shallow(&mut out, &section_pairs, &updates)?;
            object.adopt(&mut out, child)?;
        } else {
            object.put(&mut out, &pair.value)?;
        }
    }
    object.finish(&out)?;
    Ok(out)
}

/// The merge patch of RFC 7396; no base is as a base that is not an object. A patch that is not an
/// object is itself the result.
///
/// # Errors
/// [`DocumentError::Damaged`], [`DocumentError::TooLarge`], and what `guard` raises.
pub fn merge_patch(
    base: Option<&[u8]>,
    patch: &[u8],
    guard: StackGuard,
) -> Result<Vec<u8>, DocumentError> {
    let patch_item = Container::root_item(patch)?;
    let base_item = base.map(Container::root_item).transpose()?;
    if !patch_item.is_object() {
        return Ok(copy(patch)?);
    }
    let base_bytes = base.map_or(0, <[u8]>::len);
    let mut out = with_capacity(base_bytes + patch.len() + SLACK)?;
    deep(&mut out, base_item.as_ref(), &patch_item, guard)?.finish(&out)?;
    Ok(out)
}

/// Spare bytes for padding that a merge adds; a larger need only costs a reallocation.
const SLACK: usize = 64;

/// Bytes that suffice for the object of these pairs.
pub(crate) fn capacity<'p>(pairs: impl Iterator<Item = &'p Pair<'p>>) -> usize {
    // Two entries and at most three bytes of padding for each pair, and the header.
    pairs
        .map(|pair| pair.key.len() + pair.value.bytes.len() + 11)
        .sum::<usize>()
        + 4
}

fn updates_pairs(updates: &[u8]) -> Result<Vec<Pair<'_>>, DocumentError> {
    let mut root = Container::root(updates)?;
    if root.shape() == Shape::Object {
        root.pairs()
    } else {
        Err(UpdatesNotObject)
    }
}

/// Visits the keys of two objects in order, each once, with the values that they have.
fn join<'a>(
    left: &[Pair<'a>],
    right: &[Pair<'a>],
    mut visit: impl FnMut(&'a [u8], Option<Item<'a>>, Option<Item<'a>>),
) {
    let (mut left, mut right) = (left, right);
    loop {
        let order = match (left.first(), right.first()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(ours), Some(theirs)) => key_order(ours.key, theirs.key),
        };
        let ours = if order.is_le() {
            left.split_off_first()
        } else {
            None
        };
        let theirs = if order.is_ge() {
            right.split_off_first()
        } else {
            None
        };
        if let Some(pair) = ours.or(theirs) {
            visit(
                pair.key,
                ours.map(|pair| pair.value),
                theirs.map(|pair| pair.value),
            );
        }
    }
}

fn shallow(
    out: &mut Vec<u8>,
    base: &[Pair<'_>],
    updates: &[Pair<'_>],
) -> Result<Builder, DocumentError> {
    let mut merged = with_capacity(base.len() + updates.len())?;
    join(base, updates, |key, old, new| {
        merged.extend(new.or(old).map(|value| Pair { key, value }));
    });
    put_pairs(out, &merged)
}

/// Writes the object of these pairs, which are in order.
pub(crate) fn put_pairs(out: &mut Vec<u8>, pairs: &[Pair<'_>]) -> Result<Builder, DocumentError> {
    let mut object = Builder::object(out, pairs.len())?;
    put_keys(&mut object, out, pairs)?;
    for pair in pairs {
        object.put(out, &pair.value)?;
    }
    Ok(object)
}

fn put_keys(
    object: &mut Builder,
    out: &mut Vec<u8>,
    pairs: &[Pair<'_>],
) -> Result<(), DocumentError> {
    pairs
        .iter()
        .try_for_each(|pair| put_key(object, out, pair.key))
}

fn put_key(object: &mut Builder, out: &mut Vec<u8>, key: &[u8]) -> Result<(), DocumentError> {
    object.put(
        out,
        &Item {
            kind: STRING,
            bytes: key,
        },
    )
}

/// What becomes of one key under a merge patch.
enum Outcome<'a> {
    Copied(Item<'a>),
    Merged {
        base: Option<Item<'a>>,
        patch: Item<'a>,
    },
}

/// Writes the object that `patch` makes of `base`. Recurses even where there is no base, since nulls
/// deep in the patch delete there as well.
fn deep(
    out: &mut Vec<u8>,
    base: Option<&Item<'_>>,
    patch: &Item<'_>,
    guard: StackGuard,
) -> Result<Builder, DocumentError> {
    guard();
    let outcomes = outcomes(base, patch)?;
    let mut object = Builder::object(out, outcomes.len())?;
    for (key, _) in &outcomes {
        put_key(&mut object, out, key)?;
    }
    for (_, outcome) in &outcomes {
        match outcome {
            Outcome::Copied(item) => object.put(out, item)?,
            Outcome::Merged { base, patch } => {
                let child = deep(out, base.as_ref(), patch, guard)?;
                object.adopt(out, child)?;
            }
        }
    }
    Ok(object)
}

/// What becomes of the keys, in order. Not inlined: what it keeps on the stack would be there at every level
/// of the recursion.
#[inline(never)]
fn outcomes<'a>(
    base: Option<&Item<'a>>,
    patch: &Item<'a>,
) -> Result<Vec<(&'a [u8], Outcome<'a>)>, DocumentError> {
    let base = match base {
        Some(item) if item.is_object() => Container::of_item(item)?.pairs()?,
        _ => Vec::new(),
    };
    let patch = Container::of_item(patch)?.pairs()?;
    let mut outcomes = with_capacity(base.len() + patch.len())?;
    join(&base, &patch, |key, old, new| match new {
        None => outcomes.extend(old.map(|item| (key, Outcome::Copied(item)))),
        Some(item) if item.is_null() => {}
        Some(item) if item.is_object() => {
            outcomes.push((
                key,
                Outcome::Merged {
                    base: old,
                    patch: item,
                },
            ));
        }
        Some(item) => outcomes.push((key, Outcome::Copied(item))),
    });
    Ok(outcomes)
}

//! Appending to an array anywhere in a document.

use crate::build::Builder;
use crate::compose::object;
use crate::container::{Container, Shape, is_object};
use crate::error::DocumentError::{self, NotAnArray, PathMissing, PathNotArray};
use crate::format::CONTAINER;
use crate::item::Item;
use crate::merge::{StackGuard, merge_patch};
use crate::path::step;
use crate::take_apart::{as_root, is_array, member};
use state_cache_memory::{Grow, copy, with_capacity};
use std::borrow::Cow;

/// Appends one element to the array at `path`, which is followed as [`crate::get_path`] follows it; no
/// path is the root. A path may be as deep as the document, so nothing here recurses.
///
/// # Errors
/// [`PathMissing`], also for no base; [`PathNotArray`]; [`DocumentError::Damaged`];
/// [`DocumentError::TooLarge`]; [`DocumentError::OutOfMemory`].
pub fn append(base: Option<&[u8]>, path: &[&[u8]], value: &[u8]) -> Result<Vec<u8>, DocumentError> {
    let value = Container::root_item(value)?;
    rebuild(base.ok_or(PathMissing)?, path, Change::Append(&[value])).map(|(document, _)| document)
}

/// Appends the elements of an array, in their order.
///
/// # Errors
/// As [`append`]; [`DocumentError::NotAnArray`] where `values` is none.
pub fn append_all(
    base: Option<&[u8]>,
    path: &[&[u8]],
    values: &[u8],
) -> Result<Vec<u8>, DocumentError> {
    let mut values = Container::root(values)?;
    if values.shape() != Shape::Array {
        return Err(NotAnArray);
    }
    let count = values.count();
    let mut walk = values.walk();
    let mut items = with_capacity(count)?;
    for _ in 0..count {
        items.push(walk.next_item()?);
    }
    walk.finish()?;
    rebuild(base.ok_or(PathMissing)?, path, Change::Append(&items)).map(|(document, _)| document)
}

/// The same where the array may be missing: then it is made, with the objects on the way to it; no base is as an
/// empty object, or as an empty array where the path is empty. What is there and is no object is never replaced.
///
/// # Errors
/// As [`append_all`], and what `guard` raises; [`PathMissing`] where the way leads on from an
/// element that an array has not.
pub fn append_or_create(
    base: Option<&[u8]>,
    path: &[&[u8]],
    values: &[u8],
    guard: StackGuard,
) -> Result<Vec<u8>, DocumentError> {
    if !is_array(values) {
        return Err(NotAnArray);
    }
    // Whether the objects on the way end before the path does: what is missing behind them can be made.
    let is_missing = match base {
        None => true,
        Some(base) => {
            let mut here = Cow::Borrowed(base);
            let mut is_missing = false;
            for element in path {
                if !is_object(&here) {
                    break;
                }
                match member(&here, element)? {
                    // Of what is borrowed from the base, or was copied, only the part is kept that the path leads to.
                    Some(next) => here = Cow::Owned(copy(&next)?),
                    None => {
                        is_missing = true;
                        break;
                    }
                }
            }
            is_missing
        }
    };
    if !is_missing {
        return append_all(base, path, values);
    }
    let mut made = copy(values)?;
    for element in path.iter().rev() {
        made = object(&[(element, &made)])?;
    }
    merge_patch(base, &made, guard)
}

/// What [`pop`] has made of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Popped {
    /// The document without the element.
    pub document: Vec<u8>,
    /// The element.
    pub element: Vec<u8>,
}

/// Takes the last element off the array at `path`; `None` where the array is empty.
///
/// # Errors
/// As [`append`].
pub fn pop(base: Option<&[u8]>, path: &[&[u8]]) -> Result<Option<Popped>, DocumentError> {
    let (document, element) = rebuild(base.ok_or(PathMissing)?, path, Change::Pop)?;
    Ok(element.map(|element| Popped { document, element }))
}

/// What is done to an array.
enum Change<'a> {
    Append(&'a [Item<'a>]),
    Pop,
}

/// The document with the array at the path changed, and the element that was taken off.
fn rebuild(
    base: &[u8],
    path: &[&[u8]],
    change: Change<'_>,
) -> Result<(Vec<u8>, Option<Vec<u8>>), DocumentError> {
    // The containers on the way, each with the entry that leads on.
    let mut way = Vec::new();
    let mut target = Container::root(base)?;
    for element in path {
        let index = step(&mut target, element)?.ok_or(PathMissing)?;
        let entry = target.entry(index)?;
        if entry.kind != CONTAINER {
            // A scalar is there: an end of the path, or nothing to go on from.
            return Err(if way.len() + 1 == path.len() {
                PathNotArray
            } else {
                PathMissing
            });
        }
        let next = Container::nested(base, &entry)?;
        way.try_push((target, index))?;
        target = next;
    }
    if target.shape() != Shape::Array {
        return Err(PathNotArray);
    }

    // Outermost first, each container is written up to the element that changes ...
    let more = match change {
        Change::Append(items) => items.iter().map(|item| item.bytes.len() + SLACK).sum(),
        Change::Pop => SLACK,
    };
    let mut out = with_capacity(base.len() + more)?;
    let mut open = with_capacity(way.len())?;
    for (container, index) in &mut way {
        let count = container.count();
        let mut builder = match container.shape() {
            Shape::Object => Builder::object(&mut out, count)?,
            Shape::Array | Shape::Scalar => Builder::array(&mut out, count)?,
        };
        let rest = container.entries() - *index - 1;
        let mut walk = container.walk();
        builder.copy(&mut out, &mut walk, *index)?;
        walk.next_entry()?;
        open.push((builder, walk, rest));
    }
    let count = target.count();
    let mut walk = target.walk();
    let mut popped = None;
    let mut child = match change {
        Change::Append(items) => {
            let mut child = Builder::array(&mut out, count + items.len())?;
            child.copy(&mut out, &mut walk, count)?;
            for item in items {
                child.put(&mut out, item)?;
            }
            child
        }
        Change::Pop => {
            let rest = count.saturating_sub(1);
            let mut child = Builder::array(&mut out, rest)?;
            child.copy(&mut out, &mut walk, rest)?;
            if count > 0 {
                popped = Some(copy(&as_root(&walk.next_item()?)?)?);
            }
            child
        }
    };
    walk.finish()?;

    // ... and then, innermost first, completed.
    while let Some((mut parent, mut walk, rest)) = open.pop() {
        parent.adopt(&mut out, child)?;
        parent.copy(&mut out, &mut walk, rest)?;
        walk.finish()?;
        child = parent;
    }
    child.finish(&out)?;
    Ok((out, popped))
}

/// Spare bytes for the new entry and for padding; a larger need only costs a reallocation.
const SLACK: usize = 64;

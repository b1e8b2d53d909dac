//! Appending to an array anywhere in a document.

use crate::build::Builder;
use crate::container::{Container, Shape};
use crate::error::DocumentError::{self, PathMissing, PathNotArray};
use crate::format::CONTAINER;
use crate::path::step;
use state_cache_memory::{Grow, with_capacity};

/// Appends one element to the array at `path`, which is followed as [`crate::get_path`] follows it; no
/// path is the root. A path may be as deep as the document, so nothing here recurses.
///
/// # Errors
/// [`PathMissing`], also for no base; [`PathNotArray`]; [`DocumentError::Damaged`];
/// [`DocumentError::TooLarge`]; [`DocumentError::OutOfMemory`].
pub fn append(base: Option<&[u8]>, path: &[&[u8]], value: &[u8]) -> Result<Vec<u8>, DocumentError> {
    let value = Container::root_item(value)?;
    let base = base.ok_or(PathMissing)?;

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
    let mut out = with_capacity(base.len() + value.bytes.len() + SLACK)?;
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
    let mut child = Builder::array(&mut out, count + 1)?;
    let mut walk = target.walk();
    child.copy(&mut out, &mut walk, count)?;
    walk.finish()?;
    child.put(&mut out, &value)?;

    // ... and then, innermost first, completed.
    while let Some((mut parent, mut walk, rest)) = open.pop() {
        parent.adopt(&mut out, child)?;
        parent.copy(&mut out, &mut walk, rest)?;
        walk.finish()?;
        child = parent;
    }
    child.finish(&out)?;
    Ok(out)
}

/// Spare bytes for the new entry and for padding; a larger need only costs a reallocation.
const SLACK: usize = 64;

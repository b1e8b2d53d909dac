//! Finding one value in a document without touching the rest.

use crate::build::{SCALAR_FRONT, wrap_scalar};
use crate::container::{Container, Entry, Shape};
use crate::error::DocumentError::{self, Damaged, SectionMissing, SectionNotObject};
use crate::format::CONTAINER;
use crate::item::Item;
use crate::source::Source;
use state_cache_memory::filled;

/// A part of a document, which has been found and not been copied yet. Where it lies holds for that document only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    kind: u32,
    /// Where its data lies, padding stripped.
    start: usize,
    end: usize,
}

impl Part {
    fn of(entry: &Entry) -> Result<Self, DocumentError> {
        Ok(Self {
            kind: entry.kind,
            start: entry.content()?,
            end: entry.end,
        })
    }

    /// Bytes in front of the data: a scalar gets a wrapper.
    fn front(&self) -> usize {
        if self.kind == CONTAINER {
            0
        } else {
            SCALAR_FRONT
        }
    }

    /// Bytes of the document that it is by itself.
    #[must_use]
    pub fn size(&self) -> usize {
        self.front() + self.end - self.start
    }

    /// Makes a document of its own of it, in a place of exactly [`Part::size`] bytes. Allocates nothing.
    ///
    /// # Errors
    /// [`DocumentError::Damaged`].
    pub fn copy<S: Source + ?Sized>(
        &self,
        source: &S,
        into: &mut [u8],
    ) -> Result<(), DocumentError> {
        let (front, data) = into.split_at_mut_checked(self.front()).ok_or(Damaged)?;
        if data.len() != self.end - self.start {
            return Err(Damaged);
        }
        source.read(self.start, data).ok_or(Damaged)?;
        if front.is_empty() {
            return Ok(());
        }
        Item::checked(self.kind, data)?;
        wrap_scalar(self.kind, into)
    }

    /// The document that it is by itself.
    fn take<S: Source + ?Sized>(&self, source: &S) -> Result<Vec<u8>, DocumentError> {
        let mut document = filled(0, self.size())?;
        self.copy(source, &mut document)?;
        Ok(document)
    }
}

/// What lies at the path, as the operator `#>` finds it: objects by key, arrays by the text of an
/// integer, negative ones from the end. `None` when nothing is there. Allocates nothing.
///
/// # Errors
/// [`DocumentError::Damaged`].
pub fn find_path<S: Source + ?Sized>(
    source: &S,
    path: &[&[u8]],
) -> Result<Option<Part>, DocumentError> {
    let mut container = Container::root(source)?;
    let Some((last, way)) = path.split_last() else {
        return Ok(Some(Part {
            kind: CONTAINER,
            start: 0,
            end: source.len(),
        }));
    };
    for element in way {
        let Some(index) = step(&mut container, element)? else {
            return Ok(None);
        };
        let entry = container.entry(index)?;
        if entry.kind != CONTAINER {
            return Ok(None);
        }
        container = Container::nested(source, &entry)?;
    }
    let Some(index) = step(&mut container, last)? else {
        return Ok(None);
    };
    let entry = container.entry(index)?;
    if entry.kind == CONTAINER {
        Container::nested(source, &entry)?;
    }
    Part::of(&entry).map(Some)
}

/// The object under the top-level key `section`. Allocates nothing.
///
/// # Errors
/// [`DocumentError::NotAnObject`] when the root is none; [`SectionMissing`]; [`SectionNotObject`];
/// [`DocumentError::Damaged`].
pub fn find_section<S: Source + ?Sized>(source: &S, section: &[u8]) -> Result<Part, DocumentError> {
    let mut root = Container::root(source)?;
    if root.shape() != Shape::Object {
        return Err(DocumentError::NotAnObject);
    }
    let index = step(&mut root, section)?.ok_or(SectionMissing)?;
    let entry = root.entry(index)?;
    if entry.kind != CONTAINER || Container::nested(source, &entry)?.shape() != Shape::Object {
        return Err(SectionNotObject);
    }
    Part::of(&entry)
}

/// What lies at the path, see [`find_path`], as the payload of a document, a scalar in its wrapper.
///
/// # Errors
/// As those of [`find_path`], and [`DocumentError::OutOfMemory`].
pub fn get_path<S: Source + ?Sized>(
    source: &S,
    path: &[&[u8]],
) -> Result<Option<Vec<u8>>, DocumentError> {
    let part = find_path(source, path)?;
    part.map(|part| part.take(source)).transpose()
}

/// The object under the top-level key `section`, as the payload of a document.
///
/// # Errors
/// As those of [`find_section`], and [`DocumentError::OutOfMemory`].
pub fn get_section<S: Source + ?Sized>(
    source: &S,
    section: &[u8],
) -> Result<Vec<u8>, DocumentError> {
    find_section(source, section)?.take(source)
}

/// Number of the entry that one path element leads to.
pub(crate) fn step<S: Source + ?Sized>(
    container: &mut Container<'_, S>,
    element: &[u8],
) -> Result<Option<usize>, DocumentError> {
    match container.shape() {
        Shape::Object => Ok(container
            .find_key(element)?
            .map(|index| container.count() + index)),
        Shape::Array => Ok(subscript(element).and_then(|place| within(place, container.count()))),
        Shape::Scalar => Ok(None),
    }
}

/// Index of a possibly negative subscript.
fn within(place: i32, count: usize) -> Option<usize> {
    let distance = usize::try_from(place.unsigned_abs()).ok()?;
    let index = if place < 0 {
        count.checked_sub(distance)?
    } else {
        distance
    };
    (index < count).then_some(index)
}

/// An array subscript as the server reads it with `strtol`: white space may stand before the number
/// and nothing behind it, and it must fit an `int`.
fn subscript(text: &[u8]) -> Option<i32> {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | 0x0B | 0x0C | b'\r');
    let start = text.iter().position(|byte| !space(byte))?;
    let number = core::str::from_utf8(&text[start..]).ok()?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{subscript, within};

    #[test]
    fn a_subscript_reads_like_strtol() {
        assert_eq!(subscript(b"0"), Some(0));
        assert_eq!(subscript(b"-0"), Some(0));
        assert_eq!(subscript(b"+7"), Some(7));
        assert_eq!(subscript(b" \t\n\x0b\x0c\r-12"), Some(-12));
        assert_eq!(subscript(b"00031"), Some(31));
        assert_eq!(subscript(b"2147483647"), Some(i32::MAX));
        assert_eq!(subscript(b"-2147483648"), Some(i32::MIN));
        for text in [
            "",
            " ",
            "-",
            "+",
            "--1",
            "+-1",
            "1 ",
            "1.0",
            "1e3",
            "0x1",
            "2147483648",
            "a",
            "\u{a0}1",
        ] {
            assert_eq!(subscript(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(subscript(b"\xff1"), None);
    }

    #[test]
    fn a_negative_subscript_counts_from_the_end() {
        assert_eq!(within(-1, 3), Some(2));
        assert_eq!(within(-3, 3), Some(0));
        assert_eq!(within(-4, 3), None);
        assert_eq!(within(2, 3), Some(2));
        assert_eq!(within(3, 3), None);
        assert_eq!(within(0, 0), None);
        assert_eq!(within(i32::MIN, 3), None);
    }
}

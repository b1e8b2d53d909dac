//! Taking a document apart: its members or elements, each as a document of its own.
//!
//! A container within a document begins at a multiple of four from the start of the payload, so its bytes are a
//! payload as they are. A scalar needs the wrapper that makes a root of it, and is copied.

use std::borrow::Cow;

use crate::compose::wrapped;
use crate::container::{Container, Shape};
use crate::error::DocumentError::{self, Damaged, NotAnArray, NotAnObject};
use crate::format::{CONTAINER, FALSE, NUMERIC, STRING, TRUE};
use crate::item::Item;
use crate::numeric::{self, varlena_length};
use state_cache_memory::{try_collect, with_capacity};

/// A member of an object: its key, and its value as a document of its own.
pub type Member<'a> = (&'a [u8], Cow<'a, [u8]>);

/// The members of an object, in the order in which they are stored: shorter keys first, then by their bytes.
///
/// # Errors
/// [`NotAnObject`]; [`Damaged`], though what nested containers hold is not looked at.
pub fn members(document: &[u8]) -> Result<Vec<Member<'_>>, DocumentError> {
    let mut root = Container::root(document)?;
    if root.shape() != Shape::Object {
        return Err(NotAnObject);
    }
    let pairs = root.pairs()?.into_iter();
    try_collect(pairs.map(|pair| Ok((pair.key, as_root(&pair.value)?))))
}

/// The elements of an array, each as a document of its own. A scalar is none, although it is stored as one.
///
/// # Errors
/// [`NotAnArray`]; [`Damaged`], though what nested containers hold is not looked at.
pub fn elements(document: &[u8]) -> Result<Vec<Cow<'_, [u8]>>, DocumentError> {
    let mut root = Container::root(document)?;
    if root.shape() != Shape::Array {
        return Err(NotAnArray);
    }
    let count = root.count();
    let mut walk = root.walk();
    let mut elements = with_capacity(count)?;
    for _ in 0..count {
        elements.push(as_root(&walk.next_item()?)?);
    }
    walk.finish()?;
    Ok(elements)
}

/// How many elements an array has; `None` for what is none, a scalar included.
#[must_use]
pub fn array_length(document: &[u8]) -> Option<usize> {
    let root = Container::root(document).ok()?;
    (root.shape() == Shape::Array).then(|| root.count())
}

/// The value of one member of an object as a document of its own; `None` without such a member. The key is found by
/// binary search, and nothing but what that passes is looked at.
///
/// # Errors
/// [`NotAnObject`], [`Damaged`].
pub fn member<'a>(document: &'a [u8], key: &[u8]) -> Result<Option<Cow<'a, [u8]>>, DocumentError> {
    let mut root = Container::root(document)?;
    if root.shape() != Shape::Object {
        return Err(NotAnObject);
    }
    let Some(index) = root.find_key(key)? else {
        return Ok(None);
    };
    let entry = root.entry(root.count() + index)?;
    let bytes = document.get(entry.content()?..entry.end).ok_or(Damaged)?;
    as_root(&Item::checked(entry.kind, bytes)?).map(Some)
}

/// The text of a document that is a string.
#[must_use]
pub fn as_string(document: &[u8]) -> Option<&[u8]> {
    let item = scalar(document)?;
    (item.kind == STRING).then_some(item.bytes)
}

/// The value of a document that is `true` or `false`.
#[must_use]
pub fn as_boolean(document: &[u8]) -> Option<bool> {
    match scalar(document)?.kind {
        FALSE => Some(false),
        TRUE => Some(true),
        _ => None,
    }
}

/// The server's numeric in a document that is a number: a varlena with the four-byte header, as
/// [`number`](crate::number) takes it.
#[must_use]
pub fn as_number(document: &[u8]) -> Option<&[u8]> {
    let item = scalar(document)?;
    let is_plain = item.kind == NUMERIC && varlena_length(item.bytes) == Some(item.bytes.len());
    is_plain.then_some(item.bytes)
}

/// Whether the document is a number below zero.
#[must_use]
pub fn is_negative(document: &[u8]) -> bool {
    as_number(document).is_some_and(numeric::is_negative)
}

/// The value of a document that is a whole number of at most 64 bits, however many zeros it shows behind the point.
#[must_use]
pub fn as_integer(document: &[u8]) -> Option<i64> {
    numeric::as_integer(as_number(document)?)
}

/// Whether the document is `null`.
#[must_use]
pub fn is_null(document: &[u8]) -> bool {
    scalar(document).is_some_and(|item| item.is_null())
}

/// Whether the root is an array; that of a scalar is none.
#[must_use]
pub fn is_array(document: &[u8]) -> bool {
    Container::root(document).is_ok_and(|root| root.shape() == Shape::Array)
}

/// The scalar that the root stands for; `None` for a container, of which nothing but the front is read.
fn scalar(document: &[u8]) -> Option<Item<'_>> {
    let root = Container::root(document).ok()?;
    if root.shape() != Shape::Scalar {
        return None;
    }
    Container::root_item(document).ok()
}

/// An element as a document of its own.
pub(crate) fn as_root<'a>(item: &Item<'a>) -> Result<Cow<'a, [u8]>, DocumentError> {
    if item.kind == CONTAINER {
        // A wrapped scalar in the place of a container would be taken for that scalar.
        Container::of_item(item)?;
        return Ok(Cow::Borrowed(item.bytes));
    }
    wrapped(item.kind, item.bytes).map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use state_cache_histories::{Json, Random, encode};

    #[test]
    fn whole_numbers_of_64_bits_are_read_and_no_others() {
        let read = |number: &str| as_integer(&bytes(&Json::Number(number.to_owned())));
        let whole = [
            0,
            1,
            -1,
            9_999,
            10_000,
            -10_000,
            10_001,
            123_456_789,
            1_000_000_000_000,
            i64::MAX,
            i64::MIN,
        ];
        for number in whole {
            assert_eq!(read(&number.to_string()), Some(number));
        }
        assert_eq!(read("7.000"), Some(7));
        assert_eq!(read("20000.0"), Some(20_000));
        for number in [
            "0.5",
            "7.5",
            "-0.0001",
            "9223372036854775808",
            "-9223372036854775809",
            "1e40",
        ] {
            assert_eq!(read(number), None, "{number}");
        }
        assert_eq!(as_integer(&bytes(&Json::String("7".to_owned()))), None);
    }

    fn bytes(json: &Json) -> Vec<u8> {
        encode(json).unwrap()
    }

    /// What the functions say of a document and of all that it holds.
    fn compare(json: &Json, seen: &mut usize) {
        let document = bytes(json);
        *seen += 1;
        assert_eq!(is_array(&document), matches!(json, Json::Array(_)));
        assert_eq!(is_null(&document), matches!(json, Json::Null));
        // Zero has no sign.
        let below_zero = matches!(&json, Json::Number(text) if text.starts_with('-')
            && text.split(['e', 'E']).next().is_some_and(|it| it.contains(|d| ('1'..='9').contains(&d))));
        assert_eq!(is_negative(&document), below_zero);
        let text = match json {
            Json::String(text) => Some(text.as_bytes()),
            _ => None,
        };
        assert_eq!(as_string(&document), text);
        let truth = match json {
            Json::Bool(value) => Some(*value),
            _ => None,
        };
        assert_eq!(as_boolean(&document), truth);
        assert_eq!(
            as_number(&document).is_some(),
            matches!(json, Json::Number(_))
        );

        if let Json::Object(pairs) = json {
            let mut expected: Vec<_> = pairs.iter().collect();
            expected.sort_by_key(|(key, _)| (key.len(), key.as_bytes()));
            let found = members(&document).unwrap();
            assert_eq!(found.len(), expected.len());
            for ((key, value), (expected_key, expected_value)) in found.iter().zip(&expected) {
                assert_eq!(*key, expected_key.as_bytes());
                assert_eq!(**value, bytes(expected_value));
                let borrowed = matches!(value, Cow::Borrowed(_));
                assert_eq!(borrowed, expected_value.is_container());
                assert_eq!(member(&document, key), Ok(Some(value.clone())));
            }
            assert_eq!(member(&document, b"never a key of these"), Ok(None));
            expected.iter().for_each(|(_, value)| compare(value, seen));
        } else {
            assert_eq!(members(&document), Err(NotAnObject));
            assert_eq!(member(&document, b"a"), Err(NotAnObject));
        }
        if let Json::Array(expected) = json {
            let found = elements(&document).unwrap();
            assert_eq!(found.len(), expected.len());
            for (value, expected) in found.iter().zip(expected) {
                assert_eq!(**value, bytes(expected));
                compare(expected, seen);
            }
        } else {
            assert_eq!(elements(&document), Err(NotAnArray));
        }
    }

    #[test]
    fn every_part_is_what_the_server_makes_of_it_alone() {
        let mut random = Random::new(41);
        let mut seen = 0;
        for _ in 0..300 {
            compare(&random.value(0), &mut seen);
        }
        assert!(seen > 10_000, "only {seen} documents");
    }

    #[test]
    fn damage_gives_an_error_or_parts_and_never_a_panic() {
        let mut random = Random::new(42);
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut document = bytes(&random.value(0));
            document.truncate(1 + random.below(document.len()).min(400));
            for _ in 0..random.below(4) {
                let place = random.below(document.len());
                document[place] ^= 1 << random.below(8);
            }
            let parts = [
                members(&document).map(|parts| parts.len()),
                elements(&document).map(|parts| parts.len()),
                member(&document, random.key().as_bytes()).map(|part| part.map_or(0, |_| 1)),
            ];
            refused += usize::from(parts.contains(&Err(Damaged)));
            let _ = as_string(&document);
            let _ = as_number(&document);
            let _ = as_boolean(&document);
        }
        assert!(refused > 5_000, "only {refused} were refused");
    }

    #[test]
    fn a_wrapped_scalar_is_no_element() {
        let inner = bytes(&Json::Array(vec![Json::Bool(true)]));
        let mut document = bytes(&Json::Array(vec![Json::Array(vec![Json::Bool(true)])]));
        let at = document.len() - inner.len();
        let scalar = bytes(&Json::Bool(true));
        document[at..].copy_from_slice(&scalar);
        assert_eq!(elements(&document), Err(Damaged));
    }
}

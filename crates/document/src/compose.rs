//! Putting documents together, byte for byte as the server does.

use crate::build::{Builder, SCALAR_FRONT, wrap_scalar};
use crate::container::{Container, Pair, Shape};
use crate::error::DocumentError::{self, Damaged, NotAnObject};
use crate::format::{FALSE, NULL, NUMERIC, STRING, TRUE};
use crate::item::key_order;
use crate::merge::{capacity, put_pairs};
use crate::numeric;
use state_cache_memory::{copy, with_capacity};

/// The object of these members, which may come in any order. Of those with the same key the last counts, as in
/// jsonb's input.
///
/// # Errors
/// [`Damaged`] where a value is no document; [`DocumentError::TooLarge`].
pub fn object<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    members: &[(K, V)],
) -> Result<Vec<u8>, DocumentError> {
    let mut pairs = with_capacity(members.len())?;
    for (place, (key, value)) in members.iter().enumerate() {
        let pair = Pair {
            key: key.as_ref(),
            value: Container::root_item(value.as_ref())?,
        };
        pairs.push((pair, place));
    }
    // Of equal keys the last is first, which `dedup_by` keeps. A sort in place: a stable one takes memory.
    pairs.sort_unstable_by(|(left, left_place), (right, right_place)| {
        key_order(left.key, right.key).then(right_place.cmp(left_place))
    });
    pairs.dedup_by(|(later, _), (earlier, _)| later.key == earlier.key);
    let mut sorted = with_capacity(pairs.len())?;
    sorted.extend(pairs.iter().map(|(pair, _)| *pair));
    of_pairs(&sorted)
}

/// The array of these elements.
///
/// # Errors
/// [`Damaged`] where an element is no document; [`DocumentError::TooLarge`].
pub fn array<V: AsRef<[u8]>>(elements: &[V]) -> Result<Vec<u8>, DocumentError> {
    let mut items = with_capacity(elements.len())?;
    for element in elements {
        items.push(Container::root_item(element.as_ref())?);
    }
    let mut out = Vec::new();
    let mut array = Builder::array(&mut out, items.len())?;
    for item in &items {
        array.put(&mut out, item)?;
    }
    array.finish(&out)?;
    Ok(out)
}

/// The object without the members that have one of these keys; keys that it has not do not matter.
///
/// # Errors
/// [`NotAnObject`], [`Damaged`].
pub fn without(document: &[u8], keys: &[&[u8]]) -> Result<Vec<u8>, DocumentError> {
    let mut root = Container::root(document)?;
    if root.shape() != Shape::Object {
        return Err(NotAnObject);
    }
    let mut removed = copy(keys)?;
    removed.sort_unstable();
    let mut pairs = root.pairs()?;
    pairs.retain(|pair| removed.binary_search(&pair.key).is_err());
    of_pairs(&pairs)
}

/// The document that is this string, in the server's encoding and without NUL.
///
/// # Errors
/// [`DocumentError::TooLarge`], [`DocumentError::OutOfMemory`].
pub fn string(text: &[u8]) -> Result<Vec<u8>, DocumentError> {
    wrapped(STRING, text)
}

/// The document that is `true` or `false`.
#[must_use]
pub fn boolean(value: bool) -> Vec<u8> {
    wrapped(if value { TRUE } else { FALSE }, &[]).unwrap_or_default()
}

/// The document that is `null`.
#[must_use]
pub fn null() -> Vec<u8> {
    wrapped(NULL, &[]).unwrap_or_default()
}

/// The document that is this number: the server's numeric, a varlena with the four-byte header.
///
/// # Errors
/// [`Damaged`] for what is no such varlena of its own length, and for what JSON has not: infinities and NaN.
pub fn number(numeric: &[u8]) -> Result<Vec<u8>, DocumentError> {
    if numeric::is_canonical(numeric) {
        wrapped(NUMERIC, numeric)
    } else {
        Err(Damaged)
    }
}

/// The document that is a scalar of this kind and data.
pub(crate) fn wrapped(kind: u32, bytes: &[u8]) -> Result<Vec<u8>, DocumentError> {
    let mut document = with_capacity(SCALAR_FRONT + bytes.len())?;
    document.resize(SCALAR_FRONT, 0);
    document.extend_from_slice(bytes);
    wrap_scalar(kind, &mut document)?;
    Ok(document)
}

/// The object of pairs that are in order.
fn of_pairs(pairs: &[Pair<'_>]) -> Result<Vec<u8>, DocumentError> {
    let mut out = with_capacity(capacity(pairs.iter()))?;
    put_pairs(&mut out, pairs)?.finish(&out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::take_apart::{as_number, elements, members};
    use state_cache_histories::{Json, Random, encode};

    fn bytes(json: &Json) -> Vec<u8> {
        encode(json).unwrap()
    }

    #[test]
    fn what_was_taken_apart_is_put_together_again() {
        let mut random = Random::new(43);
        let (mut objects, mut arrays) = (0, 0);
        for _ in 0..2_000 {
            let document = bytes(&random.value(0));
            if let Ok(mut parts) = members(&document) {
                // The order in which they are given does not matter.
                let by = random.below(parts.len());
                parts.rotate_left(by);
                assert_eq!(object(&parts).unwrap(), document);
                objects += 1;
            }
            if let Ok(parts) = elements(&document) {
                assert_eq!(array(&parts).unwrap(), document);
                arrays += 1;
            }
        }
        assert!(objects > 100 && arrays > 100, "{objects} and {arrays}");
    }

    #[test]
    fn of_equal_keys_the_last_counts() {
        let (one, two, three) = (
            string(b"1").unwrap(),
            string(b"2").unwrap(),
            string(b"3").unwrap(),
        );
        let repeated = object(&[("bb", &one), ("a", &one), ("bb", &two), ("bb", &three)]);
        assert_eq!(repeated, object(&[("a", one), ("bb", three)]));
    }

    #[test]
    fn members_go_and_the_rest_is_as_the_server_would_have_it() {
        let mut random = Random::new(44);
        let (mut some, mut all) = (0, 0);
        for _ in 0..3_000 {
            let json = random.value(0);
            let Json::Object(pairs) = &json else {
                assert_eq!(without(&bytes(&json), &[b"a"]), Err(NotAnObject));
                continue;
            };
            let (gone, left): (Vec<_>, Vec<_>) =
                pairs.iter().cloned().partition(|_| random.below(3) == 0);
            let mut keys: Vec<&[u8]> = gone.iter().map(|(key, _)| key.as_bytes()).collect();
            keys.push(b"never a key of these");
            some += usize::from(!gone.is_empty());
            all += usize::from(left.is_empty());
            assert_eq!(
                without(&bytes(&json), &keys).unwrap(),
                bytes(&Json::Object(left))
            );
        }
        assert!(some > 100 && all > 10, "{some} and {all}");
    }

    #[test]
    fn scalars_are_the_server_s() {
        assert_eq!(
            string("é€".as_bytes()).unwrap(),
            bytes(&Json::String("é€".to_owned()))
        );
        assert_eq!(string(b"").unwrap(), bytes(&Json::String(String::new())));
        assert_eq!(boolean(true), bytes(&Json::Bool(true)));
        assert_eq!(boolean(false), bytes(&Json::Bool(false)));
        for spelling in [
            "0",
            "1",
            "-12.50",
            "1e400",
            "123456789012345678901234567890",
        ] {
            let document = bytes(&Json::Number(spelling.to_owned()));
            let numeric = as_number(&document).unwrap();
            assert_eq!(number(numeric).unwrap(), document, "{spelling}");
            for length in 0..numeric.len() {
                assert_eq!(number(&numeric[..length]), Err(Damaged), "{spelling}");
            }
        }
    }

    #[test]
    fn a_part_that_is_no_document_is_refused() {
        let whole = bytes(&Json::Array(vec![Json::Bool(true), Json::Null]));
        let truncated = &whole[..whole.len() - 1];
        assert_eq!(object(&[("a", truncated)]), Err(Damaged));
        assert_eq!(array(&[&whole[..], truncated]), Err(Damaged));
        assert_eq!(array(&[b""]), Err(Damaged));
    }
}

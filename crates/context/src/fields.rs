//! Reading the fields of an object, each as what it must be. An error names the field from that object on.

use std::borrow::Cow;

use state_cache_document::{as_boolean, as_string, is_array, is_null, is_object, member, members};

use crate::error::{Problem, ShapeError, excerpt};
use crate::labels::Label;
use crate::timestamp::parse_rfc3339;
use state_cache_memory::{copy, try_collect};

/// A member of an object, itself an object: its key, and its value as a document of its own.
pub(crate) type Record<'a> = (&'a [u8], &'a [u8]);

/// The field as it is; `None` if it is not there, an error if it is `null`.
pub(crate) fn any<'a>(object: &'a [u8], name: &str) -> Result<Option<Cow<'a, [u8]>>, ShapeError> {
    let field = member(object, name.as_bytes())?;
    if field.as_deref().is_some_and(is_null) {
        return Err(wrong(name, Problem::Null));
    }
    Ok(field)
}

/// The error for a field that must be there and is not.
pub(crate) fn required<T>(field: Option<T>, name: &str) -> Result<T, ShapeError> {
    field.ok_or_else(|| wrong(name, Problem::Missing))
}

pub(crate) fn text(object: &[u8], name: &str) -> Result<Option<Vec<u8>>, ShapeError> {
    let field = any(object, name)?;
    field
        .map(|field| match as_string(&field) {
            Some(text) => Ok(copy(text)?),
            None => Err(wrong(name, Problem::NotText)),
        })
        .transpose()
}

/// One of a few words.
pub(crate) fn label<T: Label>(object: &[u8], name: &str) -> Result<Option<T>, ShapeError> {
    let field = any(object, name)?;
    field
        .map(|field| as_label(&field).map_err(|problem| wrong(name, problem)))
        .transpose()
}

/// A string that is one of a few words.
pub(crate) fn as_label<T: Label>(document: &[u8]) -> Result<T, Problem> {
    let text = as_string(document).ok_or_else(|| null_or(document, Problem::NotText))?;
    T::parse(text).ok_or_else(|| Problem::UnknownValue {
        found: excerpt(text),
        known: T::known(),
    })
}

pub(crate) fn boolean(object: &[u8], name: &str) -> Result<Option<bool>, ShapeError> {
    let field = any(object, name)?;
    field
        .map(|field| as_boolean(&field).ok_or_else(|| wrong(name, Problem::NotBoolean)))
        .transpose()
}

/// A timestamp, in microseconds since 1970.
pub(crate) fn timestamp(object: &[u8], name: &str) -> Result<Option<i64>, ShapeError> {
    let field = any(object, name)?;
    field
        .map(|field| {
            let text = as_string(&field).ok_or_else(|| wrong(name, Problem::NotText))?;
            parse_rfc3339(text).ok_or_else(|| wrong(name, Problem::NotTimestamp))
        })
        .transpose()
}

pub(crate) fn object<'a>(object: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, ShapeError> {
    let field = any(object, name)?;
    field
        .map(|field| as_object(field).map_err(|problem| wrong(name, problem)))
        .transpose()
}

pub(crate) fn array<'a>(object: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, ShapeError> {
    let field = any(object, name)?;
    field
        .map(|field| as_array(field).map_err(|problem| wrong(name, problem)))
        .transpose()
}

/// The members of an object all of which must be objects.
pub(crate) fn objects(object: &[u8]) -> Result<Vec<Record<'_>>, ShapeError> {
    let members = members(object)?.into_iter();
    try_collect(members.map(|(key, value)| {
        let value = as_object(value).map_err(|problem| ShapeError::new(key, problem))?;
        Ok((key, value))
    }))
}

/// A part of a document that must be an object; containers are never copied when a document is taken apart.
pub(crate) fn as_object(part: Cow<'_, [u8]>) -> Result<&[u8], Problem> {
    match part {
        Cow::Borrowed(container) if is_object(container) => Ok(container),
        other => Err(null_or(&other, Problem::NotObject)),
    }
}

/// A part of a document that must be an array.
pub(crate) fn as_array(part: Cow<'_, [u8]>) -> Result<&[u8], Problem> {
    match part {
        Cow::Borrowed(container) if is_array(container) => Ok(container),
        other => Err(null_or(&other, Problem::NotArray)),
    }
}

/// That a document is null, where that is what is wrong with it, else the problem.
pub(crate) fn null_or(document: &[u8], problem: Problem) -> Problem {
    if is_null(document) {
        Problem::Null
    } else {
        problem
    }
}

fn wrong(name: &str, problem: Problem) -> ShapeError {
    ShapeError::new(name.as_bytes(), problem)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::labels::Sensitivity;
    use crate::support::jsonb;
    use serde_json::json;

    #[test]
    fn a_field_is_what_it_must_be_or_the_error_says_so() {
        let fields = jsonb(&json!({
            "text": "t", "yes": true, "number": 1, "object": {"a": 1}, "array": [1], "null": null,
            "time": "1970-01-01T00:00:01Z", "level": "pii"
        }));
        let level = |name| label::<Sensitivity>(&fields, name);
        assert_eq!(text(&fields, "text"), Ok(Some(b"t".to_vec())));
        assert_eq!(boolean(&fields, "yes"), Ok(Some(true)));
        assert_eq!(timestamp(&fields, "time"), Ok(Some(1_000_000)));
        assert_eq!(level("level"), Ok(Some(Sensitivity::Pii)));
        assert_eq!(
            object(&fields, "object").unwrap(),
            Some(&jsonb(&json!({"a": 1}))[..])
        );
        assert_eq!(
            array(&fields, "array").unwrap(),
            Some(&jsonb(&json!([1]))[..])
        );

        // What is not there is no error, and null is one everywhere.
        assert_eq!(text(&fields, "absent"), Ok(None));
        assert_eq!(object(&fields, "absent"), Ok(None));
        assert_eq!(
            required(None::<u8>, "absent"),
            Err(wrong("absent", Problem::Missing))
        );
        let null = wrong("null", Problem::Null);
        assert_eq!(text(&fields, "null"), Err(null.clone()));
        assert_eq!(boolean(&fields, "null"), Err(null.clone()));
        assert_eq!(timestamp(&fields, "null"), Err(null.clone()));
        assert_eq!(level("null"), Err(null.clone()));
        assert_eq!(object(&fields, "null"), Err(null.clone()));
        assert_eq!(array(&fields, "null"), Err(null));

        assert_eq!(
            text(&fields, "number"),
            Err(wrong("number", Problem::NotText))
        );
        assert_eq!(
            boolean(&fields, "number"),
            Err(wrong("number", Problem::NotBoolean))
        );
        assert_eq!(
            timestamp(&fields, "number"),
            Err(wrong("number", Problem::NotText))
        );
        assert_eq!(
            timestamp(&fields, "text"),
            Err(wrong("text", Problem::NotTimestamp))
        );
        assert_eq!(
            object(&fields, "array"),
            Err(wrong("array", Problem::NotObject))
        );
        assert_eq!(
            array(&fields, "object"),
            Err(wrong("object", Problem::NotArray))
        );
        assert_eq!(level("number"), Err(wrong("number", Problem::NotText)));
        let known = Sensitivity::known();
        assert_eq!(level("text").unwrap_err().known(), Some(&*known));
        assert_eq!(objects(&fields).unwrap_err().field, "yes");
    }
}

//! Variables: what they are, and changing them.

use std::borrow::Cow;

use state_cache_document::{
    DocumentError, boolean, is_object, object, string, update, update_section,
};

use crate::error::{Problem, ShapeError};
use crate::fields;
use crate::labels::{Label, Sensitivity, Source};
use crate::record::must_be_key;
use crate::timestamp::rfc3339;
use state_cache_memory::with_capacity;

/// A variable of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable<'a> {
    /// Its value, a document of its own and never `null`.
    pub value: Cow<'a, [u8]>,
    /// Where the value came from.
    pub source: Source,
    /// When the value was set, in microseconds since 1970-01-01 00:00 UTC; `None`, which is before all others, where
    /// the record does not say.
    pub timestamp: Option<i64>,
    /// Who may see it. The declared floor is not part of it.
    pub sensitivity: Sensitivity,
    /// Whether it may be changed.
    pub mutable: bool,
    /// The record that it was read from. What else that holds is kept when the variable is written. Empty for a
    /// variable that has none yet.
    pub raw: &'a [u8],
}

impl<'a> Variable<'a> {
    /// The variable that the record under this name holds.
    pub(crate) fn read(name: &[u8], raw: &'a [u8]) -> Result<Self, ShapeError> {
        let key = fields::required(fields::text(raw, "key")?, "key")?;
        must_be_key(&key, name, "key")?;
        let source = fields::label::<Source>(raw, "source")?;
        Ok(Variable {
            value: fields::required(fields::any(raw, "value")?, "value")?,
            source: source.unwrap_or(Source::Step),
            timestamp: fields::timestamp(raw, "timestamp")?,
            sensitivity: own_sensitivity(raw)?,
            mutable: fields::boolean(raw, "mutable")?.unwrap_or(true),
            raw,
        })
    }

    /// The record that holds the variable under this name, with every field written out.
    ///
    /// # Errors
    /// [`DocumentError::Damaged`] where the value is no document; [`DocumentError::TooLarge`].
    pub fn document(&self, name: &[u8]) -> Result<Vec<u8>, DocumentError> {
        let mut members: Vec<(&str, Cow<'_, [u8]>)> = vec![
            ("key", string(name)?.into()),
            ("value", Cow::Borrowed(&self.value)),
            ("source", string(self.source.name().as_bytes())?.into()),
            (
                "sensitivity",
                string(self.sensitivity.name().as_bytes())?.into(),
            ),
            ("mutable", boolean(self.mutable).into()),
        ];
        if let Some(micros) = self.timestamp {
            members.push(("timestamp", string(rfc3339(micros).as_bytes())?.into()));
        }
        let record = object(&members)?;
        if self.raw.is_empty() {
            Ok(record)
        } else {
            update(Some(self.raw), &record)
        }
    }

    /// Whether the value is an object.
    pub(crate) fn is_object(&self) -> bool {
        is_object(&self.value)
    }
}

/// The sensitivity that the record of a variable has.
pub(crate) fn own_sensitivity(record: &[u8]) -> Result<Sensitivity, ShapeError> {
    let own = fields::label::<Sensitivity>(record, "sensitivity")?;
    Ok(own.unwrap_or(Sensitivity::Internal))
}

/// The document of a run with these variables, which replace those of the same names. No rule is applied, and nothing
/// but the section is looked at: the document is one that [`crate::Run::open`] took.
///
/// # Errors
/// A [`ShapeError`] without a section of variables, for a value that is no document, and for a result beyond jsonb's
/// size.
pub fn put<N: AsRef<[u8]>>(
    document: &[u8],
    changes: &[(N, Variable<'_>)],
) -> Result<Vec<u8>, ShapeError> {
    let mut records = with_capacity(changes.len())?;
    for (name, variable) in changes {
        records.push((name, variable.document(name.as_ref())?));
    }
    update_section(Some(document), b"variables", &object(&records)?).map_err(|error| match error {
        DocumentError::SectionMissing => ShapeError::new(b"variables", Problem::Missing),
        DocumentError::SectionNotObject => ShapeError::new(b"variables", Problem::NotObject),
        other => other.into(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::record::Run;
    use crate::support::{jsonb, value};
    use serde_json::json;

    fn variable(value: &[u8]) -> Variable<'_> {
        Variable {
            value: value.into(),
            source: Source::User,
            timestamp: Some(0),
            sensitivity: Sensitivity::Public,
            mutable: true,
            raw: &[],
        }
    }

    #[test]
    fn variables_are_added_and_replaced() {
        let other = json!({"key": "other", "value": 1});
        let document = jsonb(&json!({"runId": "r", "usage": {}, "variables": {
            "other": other, "x": {"key": "x", "value": 1, "note": "goes"}
        }}));
        let (one, two) = (jsonb(&json!({"a": 1})), jsonb(&json!("two")));
        let changed = put(&document, &[("x", variable(&one)), ("new", variable(&two))]).unwrap();
        let record = |name, value| {
            json!({"key": name, "value": value, "source": "user", "sensitivity": "public",
                   "timestamp": "1970-01-01T00:00:00.000000Z", "mutable": true})
        };
        assert_eq!(
            changed,
            jsonb(&json!({"runId": "r", "usage": {}, "variables": {
                "other": other, "x": record("x", json!({"a": 1})), "new": record("new", json!("two"))
            }}))
        );
        assert_eq!(put::<&str>(&document, &[]).unwrap(), document);
        assert_eq!(value(&document)["variables"]["x"]["note"], "goes");
    }

    #[test]
    fn a_record_is_written_as_it_is_read() {
        let record = json!({"key": "x", "value": {"a": [1]}, "source": "system",
            "timestamp": "2026-11-21T09:17:05.123456Z", "sensitivity": "secret", "mutable": false, "note": "kept"});
        let document = jsonb(&json!({"runId": "r1", "variables": {"x": record}}));
        let run = Run::open(&document, b"r1").unwrap();
        let mut variable = run.variable(b"x").unwrap().unwrap();
        assert_eq!(variable.document(b"x").unwrap(), jsonb(&record));
        variable.raw = &[];
        variable.timestamp = None;
        assert_eq!(
            value(&variable.document(b"y").unwrap()),
            json!({"key": "y", "value": {"a": [1]}, "source": "system", "sensitivity": "secret", "mutable": false})
        );
    }

    #[test]
    fn there_must_be_a_section() {
        let one = jsonb(&json!(1));
        for (document, message) in [
            (json!({}), "field \"variables\" is missing"),
            (
                json!({"variables": 1}),
                "field \"variables\" is not an object",
            ),
            (json!([]), "the document is not an object"),
        ] {
            let error = put(&jsonb(&document), &[("x", variable(&one))]).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        let document = jsonb(&json!({"variables": {}}));
        let error = put(&document, &[("x", variable(b""))]).unwrap_err();
        assert_eq!(error.to_string(), "the document is damaged");
    }
}

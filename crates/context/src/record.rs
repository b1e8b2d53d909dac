//! The document of a run.

use std::borrow::Cow;

use state_cache_document::{as_number, elements, member};

use crate::error::{Problem, ShapeError, excerpt};
use crate::fields::{self, Record};
use crate::labels::{Sensitivity, Status};
use crate::variables::Variable;
use state_cache_memory::try_collect;

/// Fields of a run that hold an object, where they are there.
const OBJECTS: [&str; 6] = [
    "resourceLimits",
    "usage",
    "reservations",
    "intermediate",
    "sensitivityMap",
    "conflicts",
];

/// Fields of a run that hold an array, where they are there.
const ARRAYS: [&str; 3] = ["permissions", "sharedLimits", "exports"];

/// A view of the document of a run whose outermost shape is found to be sound.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    document: &'a [u8],
    status: Status,
    variables: &'a [u8],
    sensitivity_map: Option<&'a [u8]>,
    conflicts: Option<&'a [u8]>,
}

impl<'a> Run<'a> {
    /// Looks at the fields on the outside of the document of the run `key`: that `runId` is the key, that the status
    /// is known, and that each section is the container that it must be. What the sections hold is looked at when it
    /// is asked for, or by [`Run::check_all`].
    ///
    /// # Errors
    /// A [`ShapeError`] that names the first field that is not as it must be.
    pub fn open(document: &'a [u8], key: &[u8]) -> Result<Run<'a>, ShapeError> {
        let run_id = fields::required(fields::text(document, "runId")?, "runId")?;
        must_be_key(&run_id, key, "runId")?;
        let status = fields::label::<Status>(document, "status")?;
        let variables = fields::object(document, "variables")?;
        let variables = fields::required(variables, "variables")?;
        for name in OBJECTS {
            fields::object(document, name)?;
        }
        for name in ARRAYS {
            fields::array(document, name)?;
        }
        Ok(Run {
            document,
            status: status.unwrap_or(Status::Running),
            variables,
            sensitivity_map: fields::object(document, "sensitivityMap")?,
            conflicts: fields::object(document, "conflicts")?,
        })
    }

    /// The whole document.
    #[must_use]
    pub fn document(&self) -> &'a [u8] {
        self.document
    }

    /// How far the run is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// A field on the outside that holds text, like `parentRunId`; `None` if it is not there.
    ///
    /// # Errors
    /// A [`ShapeError`] if it holds something else.
    pub fn text_field(&self, name: &str) -> Result<Option<Vec<u8>>, ShapeError> {
        fields::text(self.document, name)
    }

    /// A field on the outside that holds an object or an array, like `usage`; `None` if it is not there.
    ///
    /// # Errors
    /// A [`ShapeError`] if it holds something else.
    pub fn section(&self, name: &str) -> Result<Option<&'a [u8]>, ShapeError> {
        match fields::any(self.document, name)? {
            None => Ok(None),
            Some(Cow::Borrowed(container)) => Ok(Some(container)),
            Some(Cow::Owned(_)) => Err(ShapeError::new(name.as_bytes(), Problem::NotObject)),
        }
    }

    /// The variable of this name; `None` if it is not there.
    ///
    /// # Errors
    /// A [`ShapeError`] if its record is not as it must be.
    pub fn variable(&self, name: &[u8]) -> Result<Option<Variable<'a>>, ShapeError> {
        let Some(record) = member(self.variables, name)? else {
            return Ok(None);
        };
        Self::variable_of_part(name, record).map(Some)
    }

    /// All variables with their names, in the order in which they are stored.
    ///
    /// # Errors
    /// A [`ShapeError`] if a record is not as it must be.
    pub fn variables(&self) -> Result<Vec<(&'a [u8], Variable<'a>)>, ShapeError> {
        let records = self.records()?.into_iter();
        try_collect(records.map(|(name, record)| Ok((name, Self::variable_of(name, record)?))))
    }

    /// The records of all variables with their names, unread.
    pub(crate) fn records(&self) -> Result<Vec<Record<'a>>, ShapeError> {
        fields::objects(self.variables).map_err(|error| error.within(b"variables"))
    }

    /// The object that holds the records.
    pub(crate) fn variables_section(&self) -> &'a [u8] {
        self.variables
    }

    /// The variable that a member of the section holds.
    pub(crate) fn variable_of_part(
        name: &[u8],
        record: Cow<'a, [u8]>,
    ) -> Result<Variable<'a>, ShapeError> {
        fields::as_object(record)
            .map_err(|problem| ShapeError::new(name, problem).within(b"variables"))
            .and_then(|record| Self::variable_of(name, record))
    }

    /// The variable that a record of this run holds.
    pub(crate) fn variable_of(name: &[u8], record: &'a [u8]) -> Result<Variable<'a>, ShapeError> {
        Variable::read(name, record).map_err(|error| error.within(name).within(b"variables"))
    }

    /// The declared floors of sensitivity, unread; `None` without the section.
    pub(crate) fn sensitivity_map(&self) -> Option<&'a [u8]> {
        self.sensitivity_map
    }

    /// The conflicts by variable, unread; `None` without the section.
    pub(crate) fn conflicts(&self) -> Option<&'a [u8]> {
        self.conflicts
    }

    /// The least sensitivity that is declared for variables of this name, in `sensitivityMap`.
    ///
    /// # Errors
    /// A [`ShapeError`] if it is none.
    pub fn floor(&self, name: &[u8]) -> Result<Option<Sensitivity>, ShapeError> {
        let declared = self.sensitivity_map.map(|map| member(map, name));
        let Some(floor) = declared.transpose()?.flatten() else {
            return Ok(None);
        };
        sensitivity(&floor)
            .map_err(|problem| ShapeError::new(name, problem).within(b"sensitivityMap"))
            .map(Some)
    }

    /// The sensitivity that counts for a variable that has `own`: no less than the declared floor.
    ///
    /// # Errors
    /// As [`Run::floor`].
    pub fn effective(&self, name: &[u8], own: Sensitivity) -> Result<Sensitivity, ShapeError> {
        Ok(self.floor(name)?.map_or(own, |floor| floor.max(own)))
    }

    /// The ids of the open conflicts about a variable, each a document that is a number. While there is one, the
    /// variable is blocked.
    ///
    /// # Errors
    /// A [`ShapeError`] if they are no array of numbers.
    pub fn conflicts_of(&self, name: &[u8]) -> Result<Vec<Cow<'a, [u8]>>, ShapeError> {
        let listed = self.conflicts.map(|conflicts| member(conflicts, name));
        let Some(ids) = listed.transpose()?.flatten() else {
            return Ok(Vec::new());
        };
        conflict_ids(ids).map_err(|error| error.within(name).within(b"conflicts"))
    }

    /// Whether there is an open conflict about a variable.
    ///
    /// # Errors
    /// As [`Run::conflicts_of`].
    pub fn is_blocked(&self, name: &[u8]) -> Result<bool, ShapeError> {
        self.conflicts_of(name).map(|ids| !ids.is_empty())
    }
}

/// The ids in an array of them.
pub(crate) fn conflict_ids(ids: Cow<'_, [u8]>) -> Result<Vec<Cow<'_, [u8]>>, ShapeError> {
    let ids = fields::as_array(ids).map_err(ShapeError::whole)?;
    let ids = elements(ids)?;
    for (place, id) in ids.iter().enumerate() {
        if as_number(id).is_none() {
            let problem = fields::null_or(id, Problem::NotNumber);
            return Err(ShapeError::whole(problem).within_element(place));
        }
    }
    Ok(ids)
}

/// A document that is the name of a sensitivity.
pub(crate) fn sensitivity(document: &[u8]) -> Result<Sensitivity, Problem> {
    fields::as_label::<Sensitivity>(document)
}

/// The field that repeats the key under which its document is stored.
pub(crate) fn must_be_key(found: &[u8], key: &[u8], name: &str) -> Result<(), ShapeError> {
    if found == key {
        return Ok(());
    }
    let found = excerpt(found);
    Err(ShapeError::new(
        name.as_bytes(),
        Problem::NotTheKey { found },
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::labels::Source;
    use crate::support::{jsonb, value};
    use serde_json::{Value, json};

    fn refused(document: &Value) -> String {
        let document = jsonb(document);
        Run::open(&document, b"r1").unwrap_err().to_string()
    }

    #[test]
    fn the_least_that_a_run_needs() {
        let document = jsonb(&json!({"runId": "r1", "variables": {}}));
        let run = Run::open(&document, b"r1").unwrap();
        assert_eq!(run.status(), Status::Running);
        assert_eq!(run.document(), document);
        assert_eq!(run.text_field("parentRunId"), Ok(None));
        assert_eq!(run.section("usage"), Ok(None));
        assert_eq!(run.variable(b"x"), Ok(None));
        assert_eq!(run.variables(), Ok(Vec::new()));
        assert_eq!(run.floor(b"x"), Ok(None));
        assert_eq!(run.is_blocked(b"x"), Ok(false));
    }

    #[test]
    fn the_outermost_shape_is_checked() {
        let good = json!({"runId": "r1", "variables": {}});
        for other in [json!([]), json!("r1"), json!(null), json!(1)] {
            assert_eq!(refused(&other), "the document is not an object");
        }
        let mut missing = good.clone();
        missing.as_object_mut().unwrap().remove("variables");
        assert_eq!(refused(&missing), "field \"variables\" is missing");
        assert_eq!(
            refused(&json!({"variables": {}})),
            "field \"runId\" is missing"
        );
        for (name, wrong, message) in [
            (
                "runId",
                json!("r2"),
                "is \"r2\", which is not the key that it belongs to",
            ),
            ("runId", json!(1), "is not a string"),
            ("runId", json!(null), "is null"),
            ("variables", json!([]), "is not an object"),
            ("variables", json!(null), "is null"),
            ("status", json!(true), "is not a string"),
            (
                "status",
                json!("done"),
                "is \"done\", which is none of running, completed, failed, cancelled",
            ),
        ] {
            let mut run = good.clone();
            run[name] = wrong;
            assert_eq!(refused(&run), format!("field \"{name}\" {message}"));
        }
        for (names, message) in [
            (&OBJECTS[..], "is not an object"),
            (&ARRAYS[..], "is not an array"),
        ] {
            for name in names {
                let mut run = good.clone();
                run[name] = json!("text");
                assert_eq!(refused(&run), format!("field \"{name}\" {message}"));
                run[name] = json!(null);
                assert_eq!(refused(&run), format!("field \"{name}\" is null"));
            }
        }
    }

    #[test]
    fn fields_and_sections_are_found() {
        let document = jsonb(&json!({
            "runId": "r1", "variables": {}, "parentRunId": "r0", "status": "failed",
            "usage": {"credits": 3}, "swarmId": 7
        }));
        let run = Run::open(&document, b"r1").unwrap();
        assert_eq!(run.status(), Status::Failed);
        assert_eq!(run.text_field("parentRunId"), Ok(Some(b"r0".to_vec())));
        assert_eq!(run.text_field("swarmId").unwrap_err().field, "swarmId");
        let usage = run.section("usage").unwrap().unwrap();
        assert_eq!(usage, jsonb(&json!({"credits": 3})));
        assert_eq!(run.section("swarmId").unwrap_err().field, "swarmId");
    }

    #[test]
    fn a_variable_has_its_fields_or_the_defaults() {
        let document = jsonb(&json!({"runId": "r1", "variables": {
            "plain": {"key": "plain", "value": [1]},
            "whole": {"key": "whole", "value": "v", "source": "user", "timestamp": "1970-01-01T00:00:01.5Z",
                      "sensitivity": "pii", "mutable": false},
        }}));
        let run = Run::open(&document, b"r1").unwrap();
        let plain = run.variable(b"plain").unwrap().unwrap();
        assert!(matches!(plain.value, Cow::Borrowed(_)));
        assert_eq!(value(&plain.value), json!([1]));
        assert_eq!(plain.source, Source::Step);
        assert_eq!(plain.timestamp, None);
        assert_eq!(plain.sensitivity, Sensitivity::Internal);
        assert!(plain.mutable);
        let whole = run.variable(b"whole").unwrap().unwrap();
        assert_eq!(value(&whole.value), json!("v"));
        assert_eq!(whole.source, Source::User);
        assert_eq!(whole.timestamp, Some(1_500_000));
        assert_eq!(whole.sensitivity, Sensitivity::Pii);
        assert!(!whole.mutable);
        assert_eq!(
            run.variables().unwrap(),
            [(&b"plain"[..], plain), (&b"whole"[..], whole)]
        );
    }

    #[test]
    fn a_wrong_record_is_named() {
        for (record, message) in [
            (json!(1), "variables.x\" is not an object"),
            (json!(null), "variables.x\" is null"),
            (json!({"value": 1}), "variables.x.key\" is missing"),
            (
                json!({"key": "y", "value": 1}),
                "variables.x.key\" is \"y\", which is not the key that it belongs to",
            ),
            (json!({"key": "x"}), "variables.x.value\" is missing"),
            (
                json!({"key": "x", "value": null}),
                "variables.x.value\" is null",
            ),
            (
                json!({"key": "x", "value": 1, "mutable": 1}),
                "variables.x.mutable\" is not a boolean",
            ),
            (
                json!({"key": "x", "value": 1, "timestamp": "now"}),
                "variables.x.timestamp\" is not a timestamp of RFC 3339",
            ),
            (
                json!({"key": "x", "value": 1, "source": "me"}),
                "variables.x.source\" is \"me\", which is none of parent, step, user, system",
            ),
            (
                json!({"key": "x", "value": 1, "sensitivity": "top"}),
                "variables.x.sensitivity\" is \"top\", which is none of \
                 public, internal, confidential, pii, secret",
            ),
        ] {
            let document = jsonb(&json!({"runId": "r1", "variables": {"x": record}}));
            let run = Run::open(&document, b"r1").unwrap();
            let error = run.variable(b"x").unwrap_err();
            assert_eq!(error.to_string(), format!("field \"{message}"));
            assert_eq!(run.variables(), Err(error));
        }
    }

    #[test]
    fn floors_and_conflicts_are_read_by_variable() {
        let document = jsonb(&json!({"runId": "r1", "variables": {},
            "sensitivityMap": {"a": "pii", "b": "loud", "c": null},
            "conflicts": {"a": [7, 12345678901_i64], "b": [], "c": ["7"], "d": 7}}));
        let run = Run::open(&document, b"r1").unwrap();
        assert_eq!(run.floor(b"a"), Ok(Some(Sensitivity::Pii)));
        assert_eq!(
            run.effective(b"a", Sensitivity::Secret),
            Ok(Sensitivity::Secret)
        );
        assert_eq!(
            run.effective(b"a", Sensitivity::Public),
            Ok(Sensitivity::Pii)
        );
        assert_eq!(
            run.effective(b"z", Sensitivity::Public),
            Ok(Sensitivity::Public)
        );
        assert_eq!(run.floor(b"b").unwrap_err().field, "sensitivityMap.b");
        assert_eq!(run.floor(b"c").unwrap_err().problem, Problem::Null);
        let ids = run.conflicts_of(b"a").unwrap();
        assert_eq!(ids, [jsonb(&json!(7)), jsonb(&json!(12345678901_i64))]);
        assert_eq!(run.is_blocked(b"a"), Ok(true));
        assert_eq!(run.is_blocked(b"b"), Ok(false));
        assert_eq!(run.is_blocked(b"z"), Ok(false));
        assert_eq!(
            run.is_blocked(b"c").unwrap_err().to_string(),
            "field \"conflicts.c.0\" is not a number"
        );
        assert_eq!(
            run.is_blocked(b"d").unwrap_err().to_string(),
            "field \"conflicts.d\" is not an array"
        );
    }
}

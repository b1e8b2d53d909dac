//! Looking at all of a run.

use state_cache_document::{as_number, as_string, elements, is_negative, members};

use crate::error::{Problem, ShapeError};
use crate::fields;
use crate::labels::{Counter, Label};
use crate::record::{Run, conflict_ids, sensitivity};

/// Members of `resourceLimits` that bound no counter.
pub const OTHER_LIMITS: [&str; 3] = ["maxMemoryMB", "priorityBonus", "emergencyReserve"];

/// The names of all members of `resourceLimits`, for error messages.
pub const LIMITS: &str = "maxCredits, maxToolCalls, maxDurationMs, maxConcurrentBranches, maxMemoryMB, \
                      priorityBonus, emergencyReserve";

impl Run<'_> {
    /// Looks at every field that is known, in every section.
    ///
    /// # Errors
    /// A [`ShapeError`] that names the first field that is not as it must be.
    pub fn check_all(&self) -> Result<(), ShapeError> {
        for name in ["routineId", "parentRunId", "swarmId", "step"] {
            self.text_field(name)?;
        }
        for name in ["createdAt", "completedAt"] {
            fields::timestamp(self.document(), name)?;
        }
        self.each_element("permissions", |permission| {
            as_string(permission)
                .map(drop)
                .ok_or_else(|| fields::null_or(permission, Problem::NotText))
        })?;
        self.each_element("sharedLimits", |counter| {
            fields::as_label::<Counter>(counter).map(drop)
        })?;
        self.in_section("resourceLimits", limits)?;
        self.in_section("usage", counters)?;
        self.in_section("reservations", |reservations| {
            for (child, allotted) in fields::objects(reservations)? {
                counters(allotted).map_err(|error| error.within(child))?;
            }
            Ok(())
        })?;
        self.in_section("sensitivityMap", |floors| {
            for (name, floor) in members(floors)? {
                sensitivity(&floor).map_err(|problem| ShapeError::new(name, problem))?;
            }
            Ok(())
        })?;
        self.in_section("conflicts", |conflicts| {
            for (name, ids) in members(conflicts)? {
                conflict_ids(ids).map_err(|error| error.within(name))?;
            }
            Ok(())
        })?;
        self.variables()?;
        self.exports()?;
        Ok(())
    }

    fn in_section(
        &self,
        name: &str,
        check: impl Fn(&[u8]) -> Result<(), ShapeError>,
    ) -> Result<(), ShapeError> {
        self.section(name)?
            .map_or(Ok(()), check)
            .map_err(|error| error.within(name.as_bytes()))
    }

    fn each_element(
        &self,
        name: &str,
        check: impl Fn(&[u8]) -> Result<(), Problem>,
    ) -> Result<(), ShapeError> {
        self.in_section(name, |section| {
            for (place, element) in elements(section)?.iter().enumerate() {
                check(element)
                    .map_err(|problem| ShapeError::whole(problem).within_element(place))?;
            }
            Ok(())
        })
    }
}

/// Numbers under the names of counters; an alias is none, since nobody would look for it there.
fn counters(section: &[u8]) -> Result<(), ShapeError> {
    numbers(section, &Counter::known(), |name| {
        Counter::parse(name).is_some_and(|counter| counter.name().as_bytes() == name)
    })
}

/// Numbers under the names of limits. A name that is none is refused: who misspelled a limit believes in one.
fn limits(section: &[u8]) -> Result<(), ShapeError> {
    numbers(section, LIMITS, |name| {
        let of_counters = Counter::ALL.iter().map(|counter| counter.limit());
        of_counters
            .chain(OTHER_LIMITS)
            .any(|limit| limit.as_bytes() == name)
    })
}

fn numbers(
    section: &[u8],
    known: &str,
    is_known: impl Fn(&[u8]) -> bool,
) -> Result<(), ShapeError> {
    for (name, value) in members(section)? {
        if !is_known(name) {
            return Err(ShapeError::new(
                name,
                Problem::UnknownName {
                    known: known.to_owned(),
                },
            ));
        }
        if as_number(&value).is_none() {
            let problem = fields::null_or(&value, Problem::NotNumber);
            return Err(ShapeError::new(name, problem));
        }
        if is_negative(&value) {
            return Err(ShapeError::new(name, Problem::Negative));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::support::jsonb;
    use serde_json::{Value, json};

    fn whole() -> Value {
        json!({
            "runId": "r", "routineId": "ro", "parentRunId": "p", "swarmId": "s", "status": "running",
            "permissions": ["read", "write"],
            "resourceLimits": {"maxCredits": 1, "maxToolCalls": 2, "maxDurationMs": 3, "maxConcurrentBranches": 4,
                "maxMemoryMB": 5, "priorityBonus": 0.5, "emergencyReserve": 7},
            "usage": {"credits": 1, "toolCalls": 2, "durationMs": 3, "branches": 4},
            "reservations": {"child": {"credits": 10}},
            "sharedLimits": ["branches"],
            "variables": {"x": {"key": "x", "value": 1}},
            "intermediate": {"anything": null},
            "exports": [{"key": "x", "destination": "blackboard", "sensitivity": "internal", "item": {}}],
            "sensitivityMap": {"x": "secret"},
            "conflicts": {"x": [1]},
            "createdAt": "2026-11-21T09:17:05Z", "completedAt": "2026-11-21T09:17:05Z"
        })
    }

    fn check(document: &Value) -> Result<(), ShapeError> {
        let document = jsonb(document);
        Run::open(&document, b"r")?.check_all()
    }

    #[test]
    fn a_whole_run_is_sound() {
        assert_eq!(check(&whole()), Ok(()));
        assert_eq!(check(&json!({"runId": "r", "variables": {}})), Ok(()));
        for name in Counter::ALL.iter().map(|counter| counter.limit()) {
            assert!(LIMITS.contains(name));
        }
    }

    #[test]
    fn the_first_bad_field_is_named() {
        for (path, bad, field, problem) in [
            ("/routineId", json!(1), "routineId", "is not a string"),
            ("/parentRunId", json!(null), "parentRunId", "is null"),
            ("/swarmId", json!([]), "swarmId", "is not a string"),
            (
                "/createdAt",
                json!("now"),
                "createdAt",
                "is not a timestamp of RFC 3339",
            ),
            ("/completedAt", json!(1), "completedAt", "is not a string"),
            (
                "/permissions/1",
                json!(1),
                "permissions.1",
                "is not a string",
            ),
            ("/permissions/0", json!(null), "permissions.0", "is null"),
            (
                "/sharedLimits/0",
                json!("time"),
                "sharedLimits.0",
                "is \"time\", which is none of credits, toolCalls, durationMs, branches",
            ),
            (
                "/resourceLimits/maxCredits",
                json!("1"),
                "resourceLimits.maxCredits",
                "is not a number",
            ),
            (
                "/usage",
                json!({"tool_calls": 1}),
                "usage.tool_calls",
                "is none of credits, toolCalls, durationMs, branches",
            ),
            ("/usage/credits", json!(null), "usage.credits", "is null"),
            (
                "/reservations/child",
                json!(1),
                "reservations.child",
                "is not an object",
            ),
            (
                "/usage/credits",
                json!(-0.5),
                "usage.credits",
                "is negative",
            ),
            (
                "/reservations/child/credits",
                json!([]),
                "reservations.child.credits",
                "is not a number",
            ),
            (
                "/sensitivityMap/x",
                json!("top"),
                "sensitivityMap.x",
                "is \"top\", which is none of public, internal, confidential, pii, secret",
            ),
            ("/conflicts/x", json!({}), "conflicts.x", "is not an array"),
            (
                "/conflicts/x/0",
                json!(true),
                "conflicts.x.0",
                "is not a number",
            ),
            (
                "/variables/x/value",
                json!(null),
                "variables.x.value",
                "is null",
            ),
            (
                "/exports/0/item",
                json!(1),
                "exports.0.item",
                "is not an object",
            ),
        ] {
            let mut document = whole();
            *document.pointer_mut(path).unwrap() = bad;
            let error = check(&document).unwrap_err();
            assert_eq!(error.to_string(), format!("field \"{field}\" {problem}"));
        }
        let mut document = whole();
        document["resourceLimits"]["maxCredit"] = json!(5);
        let error = check(&document).unwrap_err();
        assert_eq!(error.field, "resourceLimits.maxCredit");
        assert_eq!(error.known(), Some(LIMITS));
    }
}

//! What of a run may be shown.

use state_cache_document::{array, members, object, update, without};

use crate::error::ShapeError;
use crate::labels::Sensitivity;
use crate::record::{Run, sensitivity};
use crate::variables::own_sensitivity;
use state_cache_memory::{Grow, copy, with_capacity};

/// The document of the run `key` without what is more sensitive than `max`.
///
/// A variable is as sensitive as its record says, or its declared floor if that is more. Those above `max` are left
/// out, and so is whatever has their name, or a name whose floor is above: exports, conflicts, floors, intermediate
/// values. An export that is itself above is left out too. All else is as it was.
///
/// # Errors
/// A [`ShapeError`] if something that is looked at is not as it must be, an unknown sensitivity among it: what cannot
/// be told to be harmless is not shown.
pub fn visible(document: &[u8], key: &[u8], max: Sensitivity) -> Result<Vec<u8>, ShapeError> {
    let run = Run::open(document, key)?;

    let mut hidden = Vec::new();
    for (name, floor) in run.sensitivity_map().map_or(Ok(Vec::new()), members)? {
        let floor = sensitivity(&floor)
            .map_err(|problem| ShapeError::new(name, problem).within(b"sensitivityMap"))?;
        if floor > max {
            hidden.try_push(name)?;
        }
    }
    for (name, record) in run.records()? {
        let own =
            own_sensitivity(record).map_err(|error| error.within(name).within(b"variables"))?;
        if own > max {
            hidden.try_push(name)?;
        }
    }
    // A name may be there twice, which does no harm.
    hidden.sort_unstable();

    let mut sections = Vec::new();
    if !hidden.is_empty() {
        for (name, section) in [
            ("variables", Some(run.variables_section())),
            ("sensitivityMap", run.sensitivity_map()),
            ("conflicts", run.conflicts()),
            ("intermediate", run.section("intermediate")?),
        ] {
            if let Some(section) = section {
                sections.push((name, without(section, &hidden)?));
            }
        }
    }
    let exports = run.exports()?;
    let mut shown = with_capacity(exports.len())?;
    for export in &exports {
        let is_hidden = hidden.binary_search(&export.key.as_slice()).is_ok();
        if !is_hidden && export.sensitivity <= max {
            shown.push(export.raw);
        }
    }
    if shown.len() < exports.len() {
        sections.push(("exports", array(&shown)?));
    }

    if sections.is_empty() {
        return Ok(copy(document)?);
    }
    Ok(update(Some(document), &object(&sections)?)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::support::{jsonb, value};
    use Sensitivity::{Confidential, Internal, Pii, Public, Secret};
    use serde_json::{Value, json};

    fn document() -> Value {
        let variable = |name, level| json!({"key": name, "value": name, "sensitivity": level});
        json!({
            "runId": "r", "usage": {"credits": 1}, "custom": {"secret": 1},
            "variables": {
                "public": variable("public", "public"),
                "default": {"key": "default", "value": 1},
                "floored": variable("floored", "public"),
                "lowered": variable("lowered", "secret"),
                "pii": variable("pii", "pii"),
            },
            "sensitivityMap": {"floored": "confidential", "lowered": "public", "not yet": "secret"},
            "conflicts": {"public": [1], "pii": [2], "not yet": [3]},
            "intermediate": {"public": 1, "floored": 2, "lowered": 3, "else": 4},
            "exports": [
                {"key": "public", "destination": "blackboard", "sensitivity": "public"},
                {"key": "public", "destination": "external_system", "sensitivity": "pii"},
                {"key": "lowered", "destination": "blackboard", "sensitivity": "public"},
                {"key": "not yet", "destination": "blackboard", "sensitivity": "public"},
                {"key": "nowhere", "destination": "blackboard", "sensitivity": "public"},
            ],
        })
    }

    fn shown(document: &Value, max: Sensitivity) -> Value {
        value(&visible(&jsonb(document), b"r", max).unwrap())
    }

    fn names(section: &Value) -> Vec<&str> {
        section
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect()
    }

    #[test]
    fn what_is_above_the_limit_is_gone_wherever_it_is_named() {
        let all = document();
        let shown = shown(&all, Public);
        assert_eq!(names(&shown["variables"]), ["public"]);
        assert_eq!(names(&shown["sensitivityMap"]), Vec::<&str>::new());
        assert_eq!(names(&shown["conflicts"]), ["public"]);
        assert_eq!(names(&shown["intermediate"]), ["else", "public"]);
        assert_eq!(
            shown["exports"],
            json!([all["exports"][0], all["exports"][4]])
        );
        for name in ["runId", "usage", "custom"] {
            assert_eq!(shown[name], all[name]);
        }
    }

    #[test]
    fn each_limit_shows_more() {
        let all = document();
        let variables = |max| {
            names(&shown(&all, max)["variables"])
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(variables(Internal), ["default", "public"]);
        assert_eq!(variables(Confidential), ["default", "floored", "public"]);
        assert_eq!(variables(Pii), ["default", "floored", "pii", "public"]);
        assert_eq!(shown(&all, Secret), all);
    }

    #[test]
    fn an_export_alone_may_be_above() {
        let mut document = document();
        document["variables"] = json!({});
        document["sensitivityMap"] = json!({});
        let shown = shown(&document, Confidential);
        assert_eq!(shown["exports"].as_array().unwrap().len(), 4);
        document["exports"].as_array_mut().unwrap().remove(1);
        assert_eq!(shown, document);
    }

    #[test]
    fn an_unknown_sensitivity_is_never_shown() {
        for (path, field) in [
            (
                "/variables/public/sensitivity",
                "variables.public.sensitivity",
            ),
            ("/sensitivityMap/floored", "sensitivityMap.floored"),
            ("/exports/0/sensitivity", "exports.0.sensitivity"),
        ] {
            let mut document = document();
            *document.pointer_mut(path).unwrap() = json!("harmless");
            let error = visible(&jsonb(&document), b"r", Secret).unwrap_err();
            assert_eq!(error.field, field);
        }
        assert!(visible(&jsonb(&document()), b"other", Secret).is_err());
    }
}

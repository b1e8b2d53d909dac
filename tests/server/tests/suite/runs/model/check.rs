//! What the server says of a whole history, compared with the model.

use super::history::History;
use super::model::{INTERNAL, LEVELS, Model, Run, Time, Variable};
use super::step::fixed;
use serde_json::{Value, json};
use state_cache_server_tests::Sql;

impl History {
    /// What both sessions see of every run.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let (now, committed) = (self.now.clone(), self.committed.clone());
        self.look(&now, true)?;
        // Nothing new is committed while a transaction goes on; but it must not show either.
        match self.in_transaction && !self.step.is_multiple_of(4) {
            true => Ok(()),
            false => self.look(&committed, false),
        }
    }

    fn look(&mut self, model: &Model, is_main: bool) -> Result<(), String> {
        let names: Vec<_> = model
            .runs
            .iter()
            .map(|run| format!("'{}'", run.name))
            .collect();
        let kept: Vec<_> = model.kept.keys().map(|key| format!("'{key}'")).collect();
        let prefix = &self.prefix;
        let sql = format!(
            "SELECT jsonb_build_object(
                'runs', (SELECT jsonb_agg(state_context_get(r) ORDER BY n) FROM unnest(ARRAY[{runs}]) WITH \
                ORDINALITY r(r, n)),
                'visible', (SELECT jsonb_agg(state_context_visible(r, '{level}') ORDER BY n)
                    FROM unnest(ARRAY[{runs}]) WITH ORDINALITY r(r, n)),
                'tree', (SELECT jsonb_agg(jsonb_build_array(run_id, parent_run_id, depth, status) ORDER BY run_id)
                    FROM state_context_tree('{prefix}0')),
                'conflicts', (SELECT jsonb_agg(to_jsonb(c) ORDER BY id) FROM state_conflict c WHERE run_id LIKE \
                '{prefix}%'),
                'outbox', (SELECT jsonb_agg(jsonb_build_array(run_id, key, target, target_key, value, sensitivity) \
                ORDER BY id)
                    FROM state_outbox WHERE run_id LIKE '{prefix}%'),
                'board', (SELECT jsonb_agg(jsonb_build_array(k, v -> 'value', v -> 'createdBy', v -> 'type', v -> \
                'accessLevel') ORDER BY k)
                    FROM jsonb_each(state_get('{prefix}swarm', 'swarm') -> 'blackboard') b(k, v)),
                'kept', (SELECT jsonb_agg(state_get(k, 'kept') ORDER BY n) FROM unnest(ARRAY[{kept}]::text[]) WITH \
                ORDINALITY k(k, n)))",
            runs = names.join(","),
            level = LEVELS[self.shown()],
            kept = kept.join(","),
        );
        let session = if is_main {
            &mut self.main
        } else {
            &mut self.other
        };
        let said: Value = serde_json::from_str(&session.text(&sql)).unwrap();
        let who = if is_main {
            "the session"
        } else {
            "another session"
        };
        self.compare(model, &said)
            .map_err(|what| self.differs(&format!("{who} sees {what}")))
    }

    /// The sensitivity up to which this step looks at what is visible.
    fn shown(&self) -> usize {
        (self.step % LEVELS.len() as u64) as usize
    }

    fn compare(&mut self, model: &Model, said: &Value) -> Result<(), String> {
        let none = Vec::new();
        let list = |name: &str| said[name].as_array().unwrap_or(&none).clone();
        let conflicts = list("conflicts");
        let ids: Vec<&Value> = conflicts.iter().map(|row| &row["id"]).collect();
        let stored: Vec<Value> = conflicts.iter().map(conflict_as_said).collect();
        let opened: Vec<Value> = model.conflicts.iter().map(|conflict| {
            json!({
                "run_id": model.runs[conflict.run].name, "child_run_id": model.runs[conflict.child].name,
                "variable": conflict.variable, "base_value": conflict.base, "parent_value": conflict.parent,
                "child_value": conflict.theirs, "sensitivity": LEVELS[conflict.level], "status": conflict.status,
                "superseded_by": conflict.superseded_by.and_then(|number| ids.get(number).copied()),
                "resolved_value": conflict.resolved,
            })
        }).collect();
        equal("state_conflict", &stored.into(), &opened.into())?;

        for (run, document) in model.runs.iter().zip(list("runs")) {
            self.compare_run(run, &document, &ids)?;
        }
        let max = self.shown();
        for (run, document) in model.runs.iter().zip(list("visible")) {
            let what = format!("{} up to {}", run.name, LEVELS[max]);
            equal(&what, &seen(&document), &visible_of(model, run, max))?;
        }
        let mut tree: Vec<Value> = model
            .runs
            .iter()
            .map(|run| {
                json!([
                    run.name,
                    run.parent.map(|parent| &model.runs[parent].name),
                    run.depth,
                    run.status
                ])
            })
            .collect();
        tree.sort_by_key(Value::to_string);
        equal("state_context_tree()", &list("tree").into(), &tree.into())?;
        let outbox: Vec<Value> = model
            .outbox
            .iter()
            .map(|(run, key, value, level)| {
                let name = &model.runs[*run].name;
                json!([
                    name,
                    key,
                    "mail",
                    format!("{name}/{key}"),
                    value,
                    LEVELS[*level]
                ])
            })
            .collect();
        equal("state_outbox", &list("outbox").into(), &outbox.into())?;
        let board: Vec<Value> = model
            .board
            .iter()
            .map(|(key, (value, run))| json!([key, value, model.runs[*run].name, "data", "group"]))
            .collect();
        equal("the blackboard", &list("board").into(), &board.into())?;
        let kept: Vec<Value> = model.kept.values().cloned().collect();
        equal("class kept", &list("kept").into(), &kept.into())
    }

    fn compare_run(&mut self, run: &Run, document: &Value, ids: &[&Value]) -> Result<(), String> {
        let name = &run.name;
        equal(
            &format!("the status of {name}"),
            &document["status"],
            &run.status.into(),
        )?;
        let waiting: serde_json::Map<_, _> = run
            .waiting
            .iter()
            .map(|(name, numbers)| {
                let ids: Value = numbers
                    .iter()
                    .map(|number| ids.get(*number).map_or(Value::Null, |id| (*id).clone()))
                    .collect();
                (name.clone(), ids)
            })
            .collect();
        let said = document
            .get("conflicts")
            .cloned()
            .unwrap_or_else(|| json!({}));
        equal(&format!("the conflicts of {name}"), &said, &waiting.into())?;
        let exports: Value = run
            .exports
            .iter()
            .map(|export| {
                json!([
                    export.key,
                    export.destination,
                    LEVELS[export.level],
                    export.takes_member
                ])
            })
            .collect();
        let said: Value = document["exports"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|export| {
                json!([
                    export["key"],
                    export["destination"],
                    export["sensitivity"],
                    !export["transformation"].is_null()
                ])
            })
            .collect();
        equal(&format!("the exports of {name}"), &said, &exports)?;
        let said = document["variables"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        if !said.keys().eq(run.variables.keys()) {
            return Err(format!(
                "variables {:?} in {name}, and not {:?}",
                said.keys(),
                run.variables.keys()
            ));
        }
        for (key, variable) in &run.variables {
            let record = &said[key];
            equal(
                &format!("{key} of {name}"),
                &record_as_said(record),
                &record_of(key, variable),
            )?;
            self.compare_time(
                &format!("{key} of {name}"),
                variable.time,
                &record["timestamp"],
            )?;
        }
        Ok(())
    }

    /// The server's clock is read once for each step and goes forward from step to step.
    fn compare_time(&mut self, what: &str, time: Time, said: &Value) -> Result<(), String> {
        let step = match time {
            Time::Unknown => return equal(&format!("the time of {what}"), said, &Value::Null),
            Time::Fixed(second) => {
                return equal(&format!("the time of {what}"), said, &fixed(second).into());
            }
            Time::Server(step) => step,
        };
        let Some(said) = said.as_str() else {
            return Err(format!("no time of {what}"));
        };
        if let Some(known) = self.clock.get(&step) {
            return equal(
                &format!("the time of {what}"),
                &said.into(),
                &known.clone().into(),
            );
        }
        let before = self.clock.range(..step).next_back();
        let after = self.clock.range(step..).next();
        if before.is_some_and(|(_, before)| **before >= *said)
            || after.is_some_and(|(_, after)| **after <= *said)
        {
            return Err(format!(
                "{what} set at {said}, which is not in the order of the steps: {before:?}, {after:?}"
            ));
        }
        self.clock.insert(step, said.to_owned());
        Ok(())
    }
}

fn equal(what: &str, said: &Value, expected: &Value) -> Result<(), String> {
    match said == expected {
        true => Ok(()),
        false => Err(format!("{what} as\n    {said}\nand not\n    {expected}")),
    }
}

/// A record with the defaults of what it leaves out.
fn record_as_said(record: &Value) -> Value {
    let or = |name: &str, default: Value| record.get(name).cloned().unwrap_or(default);
    json!([
        record["key"],
        record["value"],
        or("source", "step".into()),
        or("sensitivity", LEVELS[INTERNAL].into()),
        or("mutable", true.into()),
    ])
}

fn record_of(name: &str, variable: &Variable) -> Value {
    json!([
        name,
        variable.value,
        variable.source,
        LEVELS[variable.level],
        variable.mutable
    ])
}

/// A row of `state_conflict` without what no model knows.
fn conflict_as_said(row: &Value) -> Value {
    let mut row = row.clone();
    let decided = row["status"] == "resolved";
    let audited = row["resolved_by"] == "postgres"
        && row["reason"] == "decided"
        && row["resolved_at"].is_string();
    if let Some(members) = row.as_object_mut() {
        for name in [
            "id",
            "opened_at",
            "parent_timestamp",
            "child_timestamp",
            "reason",
            "resolved_by",
            "resolved_at",
        ] {
            members.remove(name);
        }
        if decided != audited {
            members.insert("audited".into(), audited.into());
        }
    }
    row
}

/// Names of the variables, the exports and the conflicts that a document shows.
fn seen(document: &Value) -> Value {
    let names = |section: &str| {
        let members = document[section].as_object();
        members.map_or(json!([]), |members| members.keys().cloned().collect())
    };
    let exports: Value = document["exports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|export| export["key"].clone())
        .collect();
    json!([names("variables"), exports, names("conflicts")])
}

fn visible_of(model: &Model, run: &Run, max: usize) -> Value {
    let is_shown = |name: &String| model.effective(name, run.variables.get(name)) <= max;
    let variables: Value = run
        .variables
        .keys()
        .filter(|name| is_shown(name))
        .cloned()
        .collect();
    let exports: Value = run
        .exports
        .iter()
        .filter(|export| is_shown(&export.key) && export.level <= max)
        .map(|export| export.key.clone())
        .collect();
    let conflicts: Value = run
        .waiting
        .keys()
        .filter(|name| is_shown(name))
        .cloned()
        .collect();
    json!([variables, exports, conflicts])
}

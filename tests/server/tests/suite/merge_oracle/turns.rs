//! The turns of a history: some changes, and then something that merges.

use super::family::{Conflict, Family, Row, Run};
use super::oracle::{Base, Outcome, Record};
use super::values::{inner, literal, patch, value_for};
use serde_json::Value;
use std::collections::BTreeMap;

const TURNS: u64 = 40;
/// Runs of a family at most.
const RUNS: usize = 7;
const NAMES: [&str; 6] = ["o1", "o2", "a1", "a2", "v1", "v2"];
const STRATEGIES: [&str; 7] = [
    "parent_wins",
    "child_wins",
    "keep_latest",
    "timestamp_latest",
    "merge_objects",
    "array_concat",
    "manual_review",
];

/// The name of which a strategy's may be an alias.
fn real_name(strategy: &'static str) -> &'static str {
    match strategy {
        "timestamp_latest" => "keep_latest",
        name => name,
    }
}

impl Family<'_> {
    /// All turns; the first difference.
    pub fn play(mut self) -> Result<BTreeMap<String, u64>, String> {
        self.create()?;
        for _ in 0..TURNS {
            // What is merged may be staged only.
            let is_one = self.dice.roll(4) == 0;
            if is_one {
                self.say("BEGIN")?;
            }
            self.change()?;
            match self.dice.roll(10) {
                0..2 if self.runs.len() < RUNS => self.child()?,
                0..7 => self.merge()?,
                7 => self.complete()?,
                _ => self.resolve()?,
            }
            if is_one {
                self.say("COMMIT")?;
                self.compare()?;
            }
        }
        Ok(self.counts)
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.dice.roll(among.len() as u64) as usize]
    }

    fn inputs(&mut self) -> BTreeMap<&'static str, Value> {
        let mut inputs = BTreeMap::new();
        for name in NAMES {
            if self.dice.roll(2) == 0 {
                inputs.insert(name, value_for(&mut self.dice, name));
            }
        }
        inputs
    }

    fn create(&mut self) -> Result<(), String> {
        let inputs = self.inputs();
        let name = self.prefix.clone();
        self.say(&format!(
            "SELECT state_context_create('{name}', inputs => {})",
            literal(&serde_json::json!(inputs))
        ))?;
        self.runs.push(Run {
            name,
            parent: None,
            is_running: true,
            records: BTreeMap::new(),
            base: BTreeMap::new(),
            removed: Vec::new(),
        });
        self.read_back()
    }

    /// A child has all that its parent has, and may begin with something else.
    fn child(&mut self) -> Result<(), String> {
        let running = self.running();
        let parent = if self.dice.roll(3) > 0 {
            0
        } else {
            self.pick(&running)
        };
        let mut inputs = self.inputs();
        if self.dice.roll(2) == 0 {
            inputs.clear();
        }
        // What is immutable has no other value in a child.
        let records = self.runs[parent].records.clone();
        inputs.retain(|name, _| records.get(*name).is_none_or(|record| record.mutable));
        let name = format!("{}/{}", self.prefix, self.runs.len());
        self.say(&format!(
            "SELECT state_context_child('{}', '{name}', {})",
            self.runs[parent].name,
            literal(&serde_json::json!(inputs))
        ))?;
        let names = records
            .keys()
            .map(String::as_str)
            .chain(inputs.keys().copied());
        let base = names.map(|name| {
            let ours = records.get(name).map(|record| record.value.clone());
            let theirs = inputs.get(name).cloned().or_else(|| ours.clone());
            let base = Base {
                parent: ours,
                child: theirs,
            };
            (name.to_owned(), base)
        });
        let base: BTreeMap<String, Base> = base.collect();
        self.runs.push(Run {
            name,
            parent: Some(parent),
            is_running: true,
            records: BTreeMap::new(),
            base,
            removed: Vec::new(),
        });
        self.read_back()?;
        let last = self.runs.len() - 1;
        for (name, base) in &self.runs[last].base {
            let value = self.runs[last]
                .records
                .get(name)
                .map(|record| &record.value);
            if value != base.child.as_ref() {
                return Err(self.differs(&format!("the child begins with {name} as {value:?}")));
            }
        }
        Ok(())
    }

    fn running(&self) -> Vec<usize> {
        let all = 0..self.runs.len();
        all.filter(|run| self.runs[*run].is_running).collect()
    }

    /// Some changes of any runs.
    fn change(&mut self) -> Result<(), String> {
        let mut touched = Vec::new();
        let mut statements = Vec::new();
        for _ in 0..2 + self.dice.roll(12) {
            let mut run = self.dice.roll(self.runs.len() as u64) as usize;
            if self.dice.roll(3) == 0 {
                run = 0;
            }
            let name = self.pick(&NAMES);
            let record = self.runs[run].records.get(name).cloned();
            let is_fixed = record.as_ref().is_some_and(|record| !record.mutable)
                || self.is_blocked(run, name)
                || self.runs[run].removed.iter().any(|removed| removed == name);
            if is_fixed || touched.contains(&(run, name)) {
                continue;
            }
            if let Some(statement) = self.change_of(run, name, record.as_ref()) {
                touched.push((run, name));
                statements.push(statement);
            }
        }
        if !statements.is_empty() {
            self.say(&statements.join(";\n"))?;
            self.read_back()?;
        }
        Ok(())
    }

    fn change_of(&mut self, run: usize, name: &str, record: Option<&Record>) -> Option<String> {
        let id = self.runs[run].name.clone();
        let by_hand = |value: &Value| {
            let record = serde_json::json!({ name: { "key": name, "value": value } });
            format!(
                "SELECT state_update_section('{id}', 'variables', {})",
                literal(&record)
            )
        };
        let seen = self.seen.get(name).cloned().unwrap_or_default();
        let value = match self.dice.roll(3) {
            // One that it had, or that another has.
            0 if !seen.is_empty() => seen[self.dice.roll(seen.len() as u64) as usize].clone(),
            _ => value_for(&mut self.dice, name),
        };
        if !self.runs[run].is_running {
            return (self.dice.roll(4) == 0).then(|| by_hand(&value));
        }
        let old = record.map(|record| &record.value);
        Some(match self.dice.roll(20) {
            0..9 if old.is_none_or(Value::is_array) && name.starts_with('a') => format!(
                "SELECT state_context_append('{id}', '{name}', {})",
                literal(&inner(&mut self.dice, 1))
            ),
            0..9 if old.is_some_and(Value::is_object) => format!(
                "SELECT state_context_patch('{id}', '{name}', {})",
                literal(&patch(&mut self.dice, 2))
            ),
            9 => by_hand(&value),
            10 if record.is_some() => {
                if run > 0 {
                    self.runs[run].removed.push(name.to_owned());
                }
                format!(
                    "SELECT state_merge('{id}', '{{\"variables\": {{\"{name}\": null}}}}', 'run')"
                )
            }
            11 if self.dice.roll(8) == 0 => format!(
                "SELECT state_context_set('{id}', '{name}', {}, mutable => false)",
                literal(&value)
            ),
            _ => format!(
                "SELECT state_context_set('{id}', '{name}', {})",
                literal(&value)
            ),
        })
    }

    /// A child whose parent runs.
    fn some_child(&mut self, running_only: bool) -> Option<usize> {
        let all = 1..self.runs.len();
        let runs = &self.runs;
        let parent_runs = |run: &usize| {
            runs[*run]
                .parent
                .is_some_and(|parent| runs[parent].is_running)
        };
        let fitting: Vec<usize> = all
            .filter(parent_runs)
            .filter(|run| !running_only || runs[*run].is_running)
            .collect();
        (!fitting.is_empty()).then(|| self.pick(&fitting))
    }

    fn merge(&mut self) -> Result<(), String> {
        let Some(child) = self.some_child(false) else {
            return Ok(());
        };
        let strategy = self.pick(&STRATEGIES);
        let mut per_variable = BTreeMap::new();
        for _ in 0..self.dice.roll(4) {
            per_variable.insert(self.pick(&NAMES), self.pick(&STRATEGIES));
        }
        let rows = self.say(&format!(
            "SELECT variable, value, strategy, reason, conflict FROM state_context_merge('{}', '{strategy}', {})",
            self.runs[child].name,
            literal(&serde_json::json!(per_variable))
        ))?;
        self.count("merge");
        if !self.runs[child].is_running {
            self.count("merged after the end");
        }
        let mut expected = Vec::new();
        for (name, record) in self.runs[child].records.clone() {
            let strategy = per_variable.get(&*name).copied().unwrap_or(strategy);
            let said = rows.iter().find(|row| row[0].as_ref() == Some(&name));
            let id = said.and_then(|row| row[4].as_deref());
            if let Some(outcome) = self.settle(child, &name, &record, real_name(strategy), id) {
                expected.push((name, outcome));
            }
        }
        self.conflicts
            .sort_by_key(|conflict| conflict.id.parse::<i64>().unwrap_or(-1));
        // Of what the child has no more nothing is merged, and what comes later is new.
        let run = &mut self.runs[child];
        run.base.retain(|name, _| run.records.contains_key(name));
        self.compare_rows(&rows, &expected)?;
        self.compare()
    }

    fn compare_rows(&self, rows: &[Row], expected: &[(String, Outcome)]) -> Result<(), String> {
        let said: BTreeMap<_, _> = rows
            .iter()
            .map(|row| {
                let value: Option<Value> = row[1]
                    .as_deref()
                    .map(|text| serde_json::from_str(text).unwrap());
                let name = row[0].clone().unwrap_or_default();
                (
                    name,
                    (value, row[2].clone(), row[3].clone(), row[4].is_some()),
                )
            })
            .collect();
        let known: BTreeMap<_, _> = expected
            .iter()
            .map(|(name, outcome)| {
                let value = outcome.becomes.as_ref().map(|record| record.value.clone());
                let strategy = outcome.strategy.map(str::to_owned);
                let reason = Some(outcome.reason.to_owned());
                (name.clone(), (value, strategy, reason, outcome.opens))
            })
            .collect();
        if said != known {
            return Err(self.differs(&format!(
                "the merge says\n    {said:?}\nand not\n    {known:?}"
            )));
        }
        Ok(())
    }

    /// A child is marked, ended and exported.
    fn complete(&mut self) -> Result<(), String> {
        let Some(child) = self.some_child(true) else {
            return Ok(());
        };
        let has_children = |run: &Run| run.parent == Some(child) && run.is_running;
        let mut conflicts = self.conflicts.iter();
        let is_waiting = conflicts.any(|conflict| conflict.run == child);
        if self.runs.iter().any(has_children) || is_waiting {
            return Ok(());
        }
        let id = self.runs[child].name.clone();
        let mut exported = Vec::new();
        for (name, record) in self.runs[child].records.clone() {
            let part = record
                .value
                .get("a")
                .filter(|part| !part.is_null())
                .cloned();
            let (path, travels) = match (part, self.dice.roll(3)) {
                (_, 0) => continue,
                (Some(part), 1) => {
                    self.count("transformed");
                    let travels = Record {
                        value: part,
                        ..record
                    };
                    ("'$.a'", travels)
                }
                _ => ("NULL", record),
            };
            self.say(&format!(
                "SELECT state_context_mark_export('{id}', '{name}', 'parent_context', {path})"
            ))?;
            exported.push((name, travels));
        }
        let strategy = self.pick(&STRATEGIES);
        let rows = self.say(&format!(
            "SELECT key, strategy, reason FROM state_context_complete('{id}', 'completed', '{strategy}')"
        ))?;
        // The ids of conflicts that it has opened are not among its rows.
        let opened = self.say(&format!(
            "SELECT variable, max(id) FROM state_conflict WHERE child_run_id = '{id}' AND status = 'open' GROUP BY 1"
        ))?;
        self.runs[child].is_running = false;
        for (name, travels) in exported {
            let id = opened.iter().find(|row| row[0].as_ref() == Some(&name));
            let id = id.and_then(|row| row[1].as_deref());
            let outcome = self.settle(child, &name, &travels, real_name(strategy), id);
            let (strategy, reason) = outcome
                .map_or((None, "not changed by the child"), |outcome| {
                    (outcome.strategy.map(str::to_owned), outcome.reason)
                });
            self.count(reason);
            self.count("export");
            let known: Row = vec![Some(name.clone()), strategy, Some(reason.to_owned())];
            if !rows.contains(&known) {
                return Err(
                    self.differs(&format!("the completion says {rows:?}, and not {known:?}"))
                );
            }
        }
        self.conflicts
            .sort_by_key(|conflict| conflict.id.parse::<i64>().unwrap_or(-1));
        self.compare()
    }

    /// A conflict is decided. What others wait for goes on under new ids, against what was decided.
    fn resolve(&mut self) -> Result<(), String> {
        let runs = &self.runs;
        let open: Vec<Conflict> = self
            .conflicts
            .iter()
            .filter(|it| runs[it.run].is_running)
            .cloned()
            .collect();
        if open.is_empty() {
            return Ok(());
        }
        let conflict = open[self.dice.roll(open.len() as u64) as usize].clone();
        let value = match (self.dice.roll(3), &conflict.parent) {
            (0, _) => {
                self.count("resolved to the child's");
                conflict.theirs.clone()
            }
            (1, Some(parent)) => parent.clone(),
            _ => value_for(&mut self.dice, &conflict.variable),
        };
        self.say(&format!(
            "SELECT state_conflict_resolve({}, {}, 'decided')",
            conflict.id,
            literal(&value)
        ))?;
        self.count("resolved");
        let (run, name) = (conflict.run, conflict.variable.clone());
        self.resolved.push((run, conflict.child, name.clone()));
        let opened = self.say(&format!(
            "SELECT id, child_run_id FROM state_conflict
                WHERE run_id = '{}' AND variable = '{name}' AND status = 'open' ORDER BY id",
            self.runs[run].name
        ))?;
        let mut ids = opened.into_iter();
        self.conflicts.retain(|other| other.id != conflict.id);
        for other in &mut self.conflicts {
            if other.run == run && other.variable == name {
                let id = ids.next().and_then(|row| row.into_iter().next()).flatten();
                other.id = id.unwrap_or_default();
                other.parent = Some(value.clone());
                *self.counts.entry("superseded".to_owned()).or_default() += 1;
            }
        }
        self.conflicts
            .sort_by_key(|conflict| conflict.id.parse::<i64>().unwrap_or(-1));
        // When it was decided only the server knows.
        let decided = self.say(&format!(
            "SELECT state_context_get('{}')#>>'{{variables,{name},timestamp}}'",
            self.runs[run].name
        ))?;
        let timestamp = decided.into_iter().flatten().next().flatten();
        let records = &mut self.runs[run].records;
        let before = records.get(&name);
        if before.is_some_and(|before| before.timestamp >= timestamp) {
            return Err(self.differs(&format!("{name} was decided at {timestamp:?}")));
        }
        let record = Record {
            value,
            source: "user".to_owned(),
            timestamp,
            mutable: before.is_none_or(|before| before.mutable),
        };
        records.insert(name, record);
        self.compare()
    }
}

//! A family of runs: what its documents have, what the oracle knows of it, and whether the two agree.

use super::oracle::{Base, Outcome, Record, merged};
use postgres::{Client, SimpleQueryMessage};
use serde_json::{Value, json};
use state_cache_server_tests::{Dice, Sql};
use std::collections::BTreeMap;

pub type Records = BTreeMap<String, Record>;

/// A row of answers, as text.
pub type Row = Vec<Option<String>>;

/// A run of the family.
pub struct Run {
    pub name: String,
    pub parent: Option<usize>,
    pub is_running: bool,
    /// What its document has.
    pub records: Records,
    /// The oracle's base, by variable.
    pub base: BTreeMap<String, Base>,
    /// Variables that were removed from it by hand: nothing more is done to them.
    pub removed: Vec<String>,
}

/// An open conflict of the oracle.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    pub id: String,
    pub run: usize,
    pub child: usize,
    pub variable: String,
    pub base: Option<Value>,
    pub parent: Option<Value>,
    pub theirs: Value,
}

pub struct Family<'a> {
    pub client: &'a mut Client,
    pub dice: Dice,
    pub prefix: String,
    pub runs: Vec<Run>,
    pub conflicts: Vec<Conflict>,
    /// Values that variables have had, to be set back to.
    pub seen: BTreeMap<String, Vec<Value>>,
    /// Conflicts that were resolved: parent, child, variable.
    pub resolved: Vec<(usize, usize, String)>,
    pub log: Vec<String>,
    pub counts: BTreeMap<String, u64>,
}

impl<'a> Family<'a> {
    pub fn new(client: &'a mut Client, seed: u64) -> Self {
        Self {
            client,
            dice: Dice::new(seed),
            prefix: format!("{seed}"),
            runs: Vec::new(),
            conflicts: Vec::new(),
            seen: BTreeMap::new(),
            resolved: Vec::new(),
            log: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    pub fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    pub fn differs(&self, what: &str) -> String {
        format!("{what}\nthe history:\n{}", self.log.join("\n"))
    }

    /// Rows of statements that must succeed.
    pub fn say(&mut self, sql: &str) -> Result<Vec<Row>, String> {
        self.log.push(format!("{sql};"));
        let messages = self.client.simple_query(sql);
        let messages = messages.map_err(|error| self.differs(&format!("{sql}: {error:?}")))?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|column| row.get(column).map(str::to_owned))
                    .collect(),
            ),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }

    /// What the documents have now: records by run, the variables that are blocked, and the open conflicts.
    fn look(&mut self) -> (Vec<Records>, Vec<Vec<String>>, Value) {
        let names: Vec<_> = self
            .runs
            .iter()
            .map(|run| format!("'{}'", run.name))
            .collect();
        let text = self.client.text(&format!(
            "SELECT jsonb_build_object(
                'runs', (SELECT jsonb_agg(state_context_get(r) ORDER BY n)
                    FROM unnest(ARRAY[{}]) WITH ORDINALITY r(r, n)),
                'conflicts', (SELECT jsonb_agg(jsonb_build_array(id::text, run_id, child_run_id, variable,
                        base_value, parent_value, child_value) ORDER BY id)
                    FROM state_conflict WHERE status = 'open' AND (run_id = '{1}' OR run_id LIKE '{1}/%')))",
            names.join(","),
            self.prefix
        ));
        let said: Value = serde_json::from_str(&text).unwrap();
        let documents = said["runs"].as_array().cloned().unwrap_or_default();
        let records = documents.iter().map(read_records).collect();
        let blocked = documents.iter().map(|document| {
            let conflicts = document["conflicts"].as_object().into_iter().flatten();
            let waiting =
                conflicts.filter(|(_, ids)| ids.as_array().is_some_and(|ids| !ids.is_empty()));
            waiting.map(|(name, _)| name.clone()).collect()
        });
        (records, blocked.collect(), said["conflicts"].clone())
    }

    /// After changes, which the oracle takes as they are.
    pub fn read_back(&mut self) -> Result<(), String> {
        let (all, ..) = self.look();
        for (number, records) in all.into_iter().enumerate() {
            for (name, record) in &records {
                let seen = self.seen.entry(name.clone()).or_default();
                if !seen.contains(&record.value) {
                    seen.push(record.value.clone());
                }
            }
            self.runs[number].records = records;
        }
        self.compare()
    }

    /// After a merge, an export or a resolution: all must be as the oracle has it.
    pub fn compare(&mut self) -> Result<(), String> {
        let (all, blocked, open) = self.look();
        for (run, (records, blocked)) in self.runs.iter().zip(all.iter().zip(&blocked)) {
            let name = &run.name;
            let variables = run.records.keys().chain(records.keys());
            for variable in variables {
                let (said, known) = (records.get(variable), run.records.get(variable));
                if said != known {
                    return Err(self.differs(&format!(
                        "{variable} of {name} is\n    {said:?}\nand not\n    {known:?}"
                    )));
                }
            }
            let mut waiting: Vec<_> = self
                .conflicts
                .iter()
                .filter(|conflict| self.runs[conflict.run].name == *name)
                .map(|conflict| conflict.variable.clone())
                .collect();
            waiting.sort();
            waiting.dedup();
            let mut blocked = blocked.clone();
            blocked.sort();
            if waiting != blocked {
                return Err(self.differs(&format!(
                    "{name} is blocked by {blocked:?}, not {waiting:?}"
                )));
            }
        }
        let known: Vec<Value> = self
            .conflicts
            .iter()
            .map(|conflict| {
                json!([
                    conflict.id,
                    self.runs[conflict.run].name,
                    self.runs[conflict.child].name,
                    conflict.variable,
                    conflict.base,
                    conflict.parent,
                    conflict.theirs
                ])
            })
            .collect();
        let open = open.as_array().cloned().unwrap_or_default();
        if open != known {
            return Err(self.differs(&format!("open are\n    {open:?}\nand not\n    {known:?}")));
        }
        Ok(())
    }

    pub fn is_blocked(&self, run: usize, variable: &str) -> bool {
        let mut conflicts = self.conflicts.iter();
        conflicts.any(|conflict| conflict.run == run && conflict.variable == variable)
    }

    /// What the oracle says of a variable of a child that is merged, as it is or as an export has made
    /// it. The parent, and the base, become what they are after it. `id` is the conflict that was
    /// opened, if one was.
    pub fn settle(
        &mut self,
        child: usize,
        variable: &str,
        travels: &Record,
        strategy: &'static str,
        id: Option<&str>,
    ) -> Option<Outcome> {
        let parent = self.runs[child].parent?;
        let base = self.runs[child]
            .base
            .get(variable)
            .cloned()
            .unwrap_or_default();
        let ours = self.runs[parent].records.get(variable).cloned();
        let is_blocked = self.is_blocked(parent, variable);
        let outcome = merged(&base, ours.as_ref(), travels, is_blocked, strategy);
        let own = self.runs[child].records.get(variable);
        let own = own.map(|record| record.value.clone());
        let Some(outcome) = outcome else {
            // An export may have made the value that there was of one that has changed.
            let base = self.runs[child]
                .base
                .entry(variable.to_owned())
                .or_default();
            base.child = own;
            return None;
        };
        let both = [ours.as_ref().map(|ours| &ours.value), Some(&travels.value)];
        self.count_outcome(&base, both, outcome.reason);
        if self
            .resolved
            .contains(&(parent, child, variable.to_owned()))
        {
            self.count("changed after the resolution");
        }
        if outcome.opens {
            self.conflicts.push(Conflict {
                id: id.unwrap_or("none").to_owned(),
                run: parent,
                child,
                variable: variable.to_owned(),
                base: base.child,
                parent: ours.map(|ours| ours.value),
                theirs: travels.value.clone(),
            });
        }
        let records = &mut self.runs[parent].records;
        match &outcome.becomes {
            Some(record) => records.insert(variable.to_owned(), record.clone()),
            None => records.remove(variable),
        };
        let becomes = outcome.becomes.as_ref().map(|record| record.value.clone());
        let now = Base {
            parent: becomes,
            child: own,
        };
        self.runs[child].base.insert(variable.to_owned(), now);
        Some(outcome)
    }

    fn count_outcome(&mut self, base: &Base, [ours, theirs]: [Option<&Value>; 2], reason: &str) {
        self.count("histories");
        self.count(reason);
        let added = |now: Option<&Value>, old: &Option<Value>| {
            let count = |value: Option<&Value>| value.and_then(Value::as_array).map(Vec::len);
            count(now) > count(old.as_ref()).or(Some(0)) && count(now).is_some()
        };
        if added(ours, &base.parent) && added(theirs, &base.child) {
            self.count("appended by both");
        }
        if ours.is_none() && base.parent.is_some() {
            self.count("removed from the parent");
        }
        if ours == base.child.as_ref() && base.parent != base.child {
            self.count("set back by the parent");
        }
    }
}

fn read_records(document: &Value) -> Records {
    let variables = document["variables"].as_object().into_iter().flatten();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    variables
        .map(|(name, record)| {
            let read = Record {
                value: record["value"].clone(),
                source: text(&record["source"]).unwrap_or_else(|| "step".to_owned()),
                timestamp: text(&record["timestamp"]),
                mutable: record["mutable"] != false,
            };
            (name.clone(), read)
        })
        .collect()
}

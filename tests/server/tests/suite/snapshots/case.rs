//! One state with a generated history: random steps, done by the server and by the model, and compared.
//!
//! The table `truth` holds what each version should be, as the server's own jsonb of the text.

use super::model::{Model, SKIPPABLE, Version};
use super::quoted;
use postgres::{Client, SimpleQueryMessage};
use state_cache_histories::history;
use state_cache_server_tests::{Dice, Server};
use std::collections::BTreeMap;
use std::fmt::Debug;

/// Documents of a history; a case makes more versions than these where it goes back.
const DOCUMENTS: usize = 20;
/// Steps between two looks at all versions.
const STEPS_BETWEEN_LOOKS: usize = 5;

/// What a case needs in the database.
pub const TRUTH: &str =
    "CREATE TABLE truth (key text, version bigint, document jsonb, PRIMARY KEY (key, version))";

const TYPES: [&str; 5] = [
    "auto",
    "intermediate",
    "pipeline_complete",
    "manual",
    "critical",
];
const PHASES: [&str; 2] = ["triage", "reporting"];
const KINDS: [&str; 3] = ["restart", "resume", "rollback"];
const CHAINS: [i64; 5] = [0, 1, 4, 16, 100];

pub type Rows = Vec<Vec<String>>;

/// A state, two sessions, and what is known of it. The class is this case's alone.
pub struct Case {
    main: Client,
    other: Client,
    seed: u64,
    pub class: String,
    pub key: String,
    dice: Dice,
    documents: Vec<String>,
    next: usize,
    pub model: Model,
    /// Statements so far.
    log: Vec<String>,
    /// What was seen: encodings, and ways a step can go.
    pub seen: BTreeMap<String, usize>,
}

impl Case {
    /// A case with a state of its own, in a class that nobody else uses meanwhile.
    pub fn new(server: &Server, seed: u64, class: &str) -> Self {
        let documents = history(seed, DOCUMENTS);
        Self {
            main: server.connect(),
            other: server.connect(),
            seed,
            class: class.to_owned(),
            key: format!("history {seed}"),
            dice: Dice::new(seed),
            documents: documents.iter().map(ToString::to_string).collect(),
            next: 0,
            model: Model::default(),
            log: Vec::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Runs all steps; `Err` is the first difference.
    pub fn run(&mut self) -> Result<(), String> {
        self.redefine()?;
        let mut steps = 0;
        while self.next < self.documents.len() {
            self.step()?;
            self.look_at_current()?;
            steps += 1;
            if steps % STEPS_BETWEEN_LOOKS == 0 {
                self.look_at_all()?;
            }
        }
        self.look_at_all()?;
        self.end()
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.dice.roll(sides as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.roll(among.len())]
    }

    pub fn saw(&mut self, what: &str) {
        *self.seen.entry(what.to_owned()).or_default() += 1;
    }

    pub fn differs(&self, what: &str) -> String {
        format!(
            "{what}\nSTATE_CACHE_HISTORY_SEED={}, {:#?}; the statements:\n{}",
            self.seed,
            self.model,
            self.log.join(";\n")
        )
    }

    pub fn check<T: PartialEq + Debug>(
        &self,
        what: &str,
        found: T,
        wanted: T,
    ) -> Result<(), String> {
        if found == wanted {
            return Ok(());
        }
        Err(self.differs(&format!("{what}: {found:?} and not {wanted:?}")))
    }

    pub fn ask(&mut self, sql: &str) -> Result<Rows, String> {
        self.log.push(sql.to_owned());
        ask(&mut self.main, sql).map_err(|error| self.differs(&error))
    }

    /// Asked by either session, so that L1 serves some of it.
    pub fn read(&mut self, sql: &str) -> Result<Rows, String> {
        if self.roll(2) == 0 {
            return self.ask(sql);
        }
        ask(&mut self.other, sql).map_err(|error| self.differs(&error))
    }

    fn one(&mut self, sql: &str) -> Result<String, String> {
        Ok(self.ask(sql)?.swap_remove(0).swap_remove(0))
    }

    /// `key, class` as arguments.
    pub fn state(&self) -> String {
        format!("{}, class => {}", quoted(&self.key), quoted(&self.class))
    }

    fn step(&mut self) -> Result<(), String> {
        let has_current = self.model.current.is_some();
        match self.roll(100) {
            0..35 => self.save().map(|_| ()),
            35..50 => self.set(),
            50..60 if has_current => self.update(),
            60..66 => self.restore(),
            66..70 => self.recover(),
            70..73 if has_current => self.delete(),
            73..80 => self.transaction(),
            80..86 => self.prune(),
            86..92 => self.redefine(),
            92..96 => self.settings(),
            96.. => self.clear(),
            _ => self.save().map(|_| ()),
        }
    }

    fn next_document(&mut self) -> String {
        let document = self.documents[self.next.min(self.documents.len() - 1)].clone();
        self.next += 1;
        document
    }

    fn hash(&mut self, document: &str) -> Result<String, String> {
        let sql = format!("SELECT encode(state_hash({}), 'hex')", quoted(document));
        Ok(ask(&mut self.main, &sql)?.swap_remove(0).swap_remove(0))
    }

    /// A version was made, or not: the model and the table `truth` say so too.
    fn made(&mut self, document: &str, version: Version, stored: bool) -> Result<(), String> {
        self.model.make(version, stored);
        let sql = format!(
            "INSERT INTO truth VALUES ({}, {}, {})",
            quoted(&self.key),
            self.model.last,
            quoted(document)
        );
        ask(&mut self.main, &sql).map(|_| ())
    }

    fn save(&mut self) -> Result<(), String> {
        let document = self.next_document();
        let hash = self.hash(&document)?;
        let kind = if self.roll(3) == 0 {
            self.pick(&TYPES)
        } else {
            "auto"
        };
        let phase = (self.roll(4) == 0).then(|| self.pick(&PHASES));
        let recovery_point = self.roll(8) == 0;
        let label = (kind.to_owned(), phase.map(str::to_owned));
        let is_same = self
            .model
            .current()
            .is_some_and(|(_, version)| version.hash == hash);
        let is_repeated = is_same
            && !recovery_point
            && SKIPPABLE.contains(&kind)
            && self
                .model
                .current()
                .is_some_and(|(_, version)| version.label == label);
        let is_urgent = kind != "auto" || recovery_point || phase.is_some();
        let row = self.ask(&format!(
            "SELECT action, version FROM state_save({}, {}, {}, {}, {recovery_point}, class => {})",
            quoted(&self.key),
            quoted(&document),
            quoted(kind),
            phase.map_or("NULL".to_owned(), quoted),
            quoted(&self.class)
        ))?;
        let (action, number) = (row[0][0].as_str(), row[0][1].as_str());
        self.saw(action);
        let newer = (self.model.last + 1).to_string();
        match action {
            "saved" | "deferred" => {
                self.check("the saved version", number, &newer)?;
                let may_defer = self.model.behind && !is_urgent;
                self.check(
                    "saved",
                    is_repeated || action == "deferred" && !may_defer,
                    false,
                )?;
                let version = Version {
                    hash,
                    label,
                    recovery_point,
                    required: true,
                    stored: false,
                };
                self.made(&document, version, action == "saved")
            }
            // What was left to the worker has no label until it is written.
            _ => {
                let may_be = is_repeated || is_same && self.model.behind && !is_urgent;
                self.check("unchanged", may_be, true)?;
                let current = self.model.current.map(|number| number.to_string());
                self.check("the unchanged version", Some(number.to_owned()), current)
            }
        }
    }

    /// A plain change leads to this document, unless it is the one that is current.
    fn changed(&mut self, document: &str) -> Result<(), String> {
        let hash = self.hash(document)?;
        if self
            .model
            .current()
            .is_some_and(|(_, version)| version.hash == hash)
        {
            self.saw("skipped");
            return Ok(());
        }
        let label = ("auto".to_owned(), None);
        let version = Version {
            hash,
            label,
            recovery_point: false,
            required: true,
            stored: false,
        };
        let stored = !self.model.behind;
        self.made(document, version, stored)
    }

    fn set(&mut self) -> Result<(), String> {
        let document = self.next_document();
        self.ask(&format!(
            "SELECT state_set({}, {}, class => {})",
            quoted(&self.key),
            quoted(&document),
            quoted(&self.class)
        ))?;
        self.changed(&document)
    }

    fn update(&mut self) -> Result<(), String> {
        let updates = self.next_document();
        let truth = self.truth(self.model.last);
        let merged = self.one(&format!(
            "SELECT CASE WHEN jsonb_typeof({truth}) = 'object' AND jsonb_typeof({0}) = 'object' THEN {truth} || {0} \
                END",
            format_args!("{}::jsonb", quoted(&updates))
        ))?;
        if merged == "NULL" {
            return Ok(());
        }
        self.saw("update");
        self.ask(&format!(
            "SELECT state_update({}, {}, class => {})",
            quoted(&self.key),
            quoted(&updates),
            quoted(&self.class)
        ))?;
        self.changed(&merged)
    }

    pub fn truth(&self, version: i64) -> String {
        format!(
            "(SELECT document FROM truth WHERE key = {} AND version = {version})",
            quoted(&self.key)
        )
    }

    /// A version has the content of an earlier one.
    fn reinstated(&mut self, from: i64) -> Result<(), String> {
        let document = self.one(&format!("SELECT {}", self.truth(from)))?;
        let source = &self.model.versions[&from];
        let label = ("recovery".to_owned(), source.label.1.clone());
        let hash = source.hash.clone();
        let version = Version {
            hash,
            label,
            recovery_point: false,
            required: true,
            stored: false,
        };
        self.made(&document, version, true)
    }

    fn restore(&mut self) -> Result<(), String> {
        let versions = &self.model.versions;
        let sure: Vec<i64> = versions
            .iter()
            .filter(|(_, version)| version.required)
            .map(|(number, _)| *number)
            .collect();
        if sure.is_empty() {
            return Ok(());
        }
        let from = self.pick(&sure);
        self.saw("restored");
        let number = self.one(&format!(
            "SELECT state_restore({}, version => {from})",
            self.state()
        ))?;
        self.reinstated(from)?;
        self.check("the restored version", number, self.model.last.to_string())
    }

    fn recover(&mut self) -> Result<(), String> {
        self.settle()?;
        let kind = self.pick(&KINDS);
        let Some(from) = self.model.chosen(kind) else {
            return Ok(());
        };
        let row = self.ask(&format!(
            "SELECT action, version, from_version FROM state_recover({}, kind => '{kind}')",
            self.state()
        ))?;
        let action = if self.model.current == Some(from) {
            "unchanged"
        } else {
            self.reinstated(from)?;
            "recovered"
        };
        self.saw(action);
        let wanted = vec![
            action.to_owned(),
            self.model.last.to_string(),
            from.to_string(),
        ];
        self.check(kind, row, vec![wanted])
    }

    fn delete(&mut self) -> Result<(), String> {
        self.saw("deleted");
        self.ask(&format!("SELECT state_delete({})", self.state()))?;
        self.model.delete();
        Ok(())
    }

    /// Several versions in one transaction, of which a part, or all, may be undone.
    fn transaction(&mut self) -> Result<(), String> {
        let before = self.model.clone();
        self.ask("BEGIN")?;
        self.save()?;
        if self.roll(2) == 0 {
            let inner = self.model.clone();
            self.ask("SAVEPOINT s")?;
            self.save()?;
            self.restore()?;
            if self.roll(2) == 0 {
                self.saw("undone");
                self.ask("ROLLBACK TO s")?;
                self.model = inner;
            }
        }
        self.save()?;
        let number = self.model.last;
        let state = self.state();
        let same = self.one(&format!(
            "SELECT state_at({state}, version => {number}) = {}",
            self.truth(number)
        ))?;
        self.check("an own version", same.as_str(), "t")?;
        if self.roll(4) == 0 {
            self.saw("undone");
            self.ask("ROLLBACK")?;
            self.model = before;
        } else {
            self.ask("COMMIT")?;
        }
        Ok(())
    }

    fn prune(&mut self) -> Result<(), String> {
        self.settle()?;
        let keep = 1 + self.roll(6);
        let recovery_points = self.roll(4) == 0;
        let pruned = self.one(&format!(
            "SELECT state_prune({}, keep => {keep}, recovery_points => {recovery_points})",
            quoted(&self.class)
        ))?;
        let wanted = self.model.prune(keep, recovery_points).to_string();
        self.saw(if pruned == "0" {
            "nothing to prune"
        } else {
            "pruned"
        });
        self.check("pruned", pruned, wanted)
    }

    fn redefine(&mut self) -> Result<(), String> {
        if self.model.last > 0 {
            self.settle()?;
        }
        let keep = self.pick(&[0, 0, 1, 2, 3, 5]);
        let mode = self.pick(&["through", "through", "behind"]);
        let compression = self.roll(4) > 0;
        self.ask(&format!(
            "SELECT state_class_define({}, keep => {keep}, compression => {compression}, write_mode => '{mode}')",
            quoted(&self.class)
        ))?;
        self.saw(mode);
        let wanted = (keep > 0).then_some(keep);
        let keeps_fewer = match (self.model.keep, wanted) {
            (before, Some(keep)) => before.is_none_or(|before| before > keep),
            (_, None) => false,
        };
        if keeps_fewer && self.model.last > 0 {
            self.model.prune(keep, false);
        }
        self.model.keep = wanted;
        self.model.behind = mode == "behind";
        Ok(())
    }

    fn settings(&mut self) -> Result<(), String> {
        let chain = self.pick(&CHAINS);
        let compression = if self.roll(4) == 0 { "off" } else { "on" };
        self.ask(&format!(
            "SET state_cache.max_delta_chain = {chain}; SET state_cache.compression = {compression}"
        ))?;
        Ok(())
    }

    fn clear(&mut self) -> Result<(), String> {
        self.ask(&format!(
            "SELECT state_cache_clear({})",
            quoted(&self.class)
        ))?;
        Ok(())
    }

    /// Makes room for the next case, which begins with version 1.
    fn end(&mut self) -> Result<(), String> {
        self.ask(&format!(
            "SELECT state_class_define({class}, write_mode => 'through');
             BEGIN; DELETE FROM state_head WHERE class = {class}; DELETE FROM state_snapshot WHERE class = {class}; \
             COMMIT;
             DELETE FROM state_floor WHERE class = {class}",
            class = quoted(&self.class)
        ))?;
        Ok(())
    }
}

/// All rows of a query, a NULL as "NULL"; or what went wrong.
fn ask(client: &mut Client, sql: &str) -> Result<Rows, String> {
    let messages = client
        .simple_query(sql)
        .map_err(|error| format!("{sql}: {error:?}"))?;
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|column| row.get(column).unwrap_or("NULL").to_owned())
                .collect(),
        ),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(row).collect())
}

//! A history: random steps, done by the server and by the model, and compared.

use super::answer::{answered, expected_answer, rows};
use super::model::{Flaw, LEVELS, Model};
use super::pick::{NAMES, value_for};
use super::step::{Answer, Outcome, Step, object, quoted};
use postgres::Client;
use state_cache_server_tests::{Dice, Server, Sql, code};
use std::collections::BTreeMap;

/// Steps of a history.
pub const STEPS: u64 = 60;

/// Two sessions, the model, and what was said so far.
pub struct History {
    pub(super) main: Client,
    /// Sees what is committed.
    pub(super) other: Client,
    pub(super) dice: Dice,
    seed: u64,
    pub(super) prefix: String,
    flaw: Flaw,
    pub(super) committed: Model,
    pub(super) now: Model,
    pub(super) in_transaction: bool,
    /// What the server's clock said at each step, as far as documents have shown it.
    pub(super) clock: BTreeMap<u64, String>,
    pub(super) step: u64,
    log: Vec<String>,
    /// How often each kind of thing happened, so that a test can tell that it did.
    pub counts: BTreeMap<String, u64>,
}

impl History {
    /// A history of runs of its own.
    pub fn new(server: &Server, seed: u64, flaw: Flaw) -> Self {
        let mut dice = Dice::new(seed);
        let prefix = format!("{seed}{flaw:?}-");
        let permissions = ["read:pii", "read:secret", "write"];
        let held = dice.roll(4) as usize;
        let mut floors = BTreeMap::new();
        if dice.roll(2) == 0 {
            floors.insert(
                NAMES[dice.roll(4) as usize].to_owned(),
                dice.roll(4) as usize,
            );
        }
        let root = format!("{prefix}0");
        let inputs: Vec<_> = (0..dice.roll(5))
            .map(|place| NAMES[place as usize])
            .map(|name| (name.to_owned(), value_for(&mut dice, name)))
            .collect();
        let map: Vec<_> = floors
            .iter()
            .map(|(name, level)| (name.clone(), LEVELS[*level]))
            .collect();
        let mut history = Self {
            main: server.connect(),
            other: server.connect(),
            seed,
            flaw,
            committed: Model::new(&root, &inputs, &permissions[..held], floors.clone(), flaw),
            now: Model::new(&root, &inputs, &permissions[..held], floors, flaw),
            dice,
            prefix,
            in_transaction: false,
            clock: BTreeMap::new(),
            step: 0,
            log: Vec::new(),
            counts: BTreeMap::new(),
        };
        history.run(&format!(
            "SELECT state_context_create('{root}', inputs => {}, permissions => '{{{}}}', swarm_id => '{}swarm',
                sensitivity_map => {})",
            quoted(&object(&inputs)),
            permissions[..held].join(","),
            history.prefix,
            quoted(&object(&map)),
        ));
        history
    }

    /// All steps; the first difference.
    pub fn play(mut self) -> Result<BTreeMap<String, u64>, String> {
        self.check()?;
        while self.step < STEPS {
            self.step += 1;
            match self.dice.roll(12) {
                0 if !self.in_transaction => self.begin(),
                0 | 1 if self.in_transaction => self.end()?,
                _ => self.one_step()?,
            }
            self.check()?;
        }
        if self.in_transaction {
            self.end()?;
        }
        self.check()?;
        Ok(self.counts)
    }

    /// What a difference is reported with.
    pub(super) fn differs(&self, what: &str) -> String {
        format!(
            "{what}\nSTATE_CACHE_MODEL_SEED={}, model {:?}; the history:\n{}",
            self.seed,
            self.flaw,
            self.log.join("\n")
        )
    }

    fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    fn run(&mut self, sql: &str) {
        self.log.push(format!("{sql};"));
        self.main.run(sql);
    }

    fn begin(&mut self) {
        let levels = ["READ COMMITTED", "REPEATABLE READ"];
        let sql = format!(
            "BEGIN ISOLATION LEVEL {}",
            levels[self.dice.roll(2) as usize]
        );
        self.run(&sql);
        self.in_transaction = true;
    }

    fn end(&mut self) -> Result<(), String> {
        let commits = self.dice.roll(4) > 0;
        let sql = if commits { "COMMIT" } else { "ROLLBACK" };
        self.log.push(format!("{sql};"));
        self.main
            .batch_execute(sql)
            .map_err(|error| self.differs(&format!("{sql}: {error:?}")))?;
        self.in_transaction = false;
        match commits {
            true => self.committed = self.now.clone(),
            false => self.now = self.committed.clone(),
        }
        self.count(sql);
        Ok(())
    }

    fn one_step(&mut self) -> Result<(), String> {
        let Some(step) = self.pick_step() else {
            return Ok(());
        };
        let sql = step.sql(&self.now, &self.prefix);
        let expected = self.now.after(&step, self.step);
        if self.in_transaction {
            self.run("SAVEPOINT s");
        }
        self.log.push(format!("{sql};"));
        match (expected, self.main.simple_query(&sql)) {
            (Ok((next, answer)), Ok(messages)) => {
                let given = answered(&step, &rows(messages));
                if given != expected_answer(&answer) {
                    return Err(
                        self.differs(&format!("{sql} answers {given:?} and not {answer:?}"))
                    );
                }
                self.count_answer(&step, &answer);
                // At times what was done is undone.
                if self.in_transaction && self.dice.roll(10) == 0 {
                    self.run("ROLLBACK TO s");
                    self.count("undone");
                } else {
                    self.now = next;
                }
            }
            (Err(broken), Err(error)) => {
                let code = code(&error);
                self.log.push(format!(
                    "-- {code}: {}",
                    error.as_db_error().map_or("", |error| error.message())
                ));
                if !broken.contains(&*code) {
                    return Err(self.differs(&format!("{sql}: {code}, and not {broken:?}")));
                }
                self.count(&code);
                if self.in_transaction {
                    self.run("ROLLBACK TO s");
                }
            }
            // Where there is nothing to merge, an ended parent may be named or not.
            (Ok((_, Answer::Merged(outcomes))), Err(error))
                if outcomes.is_empty() && code(&error) == "55000" && self.is_under_ended(&step) =>
            {
                if self.in_transaction {
                    self.run("ROLLBACK TO s");
                }
            }
            (Ok(_), Err(error)) => return Err(self.differs(&format!("{sql}: {error:?}"))),
            (Err(broken), Ok(_)) => {
                return Err(self.differs(&format!("{sql} succeeds in spite of {broken:?}")));
            }
        }
        if !self.in_transaction {
            self.committed = self.now.clone();
        }
        Ok(())
    }

    /// Whether it merges into a run that has ended.
    fn is_under_ended(&self, step: &Step) -> bool {
        let Step::Merge { child, .. } = step else {
            return false;
        };
        let parent = self.now.runs[*child].parent;
        parent.is_some_and(|parent| self.now.runs[parent].status != "running")
    }

    fn count_answer(&mut self, step: &Step, answer: &Answer) {
        let kind = format!("{step:?}");
        let kind = kind
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned();
        self.count(&kind);
        let outcomes: Vec<Outcome> = match answer {
            Answer::Nothing => Vec::new(),
            Answer::Merged(outcomes) => outcomes.values().cloned().collect(),
            Answer::Exported(arrived) => {
                for (_, destination, _) in arrived {
                    self.count(destination);
                }
                arrived
                    .iter()
                    .filter_map(|(_, _, outcome)| outcome.clone())
                    .collect()
            }
        };
        for outcome in outcomes {
            self.count(outcome.reason);
        }
    }
}

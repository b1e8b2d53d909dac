//! What the sessions of the stress know together: what was acknowledged to them, and what they found wrong.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// A run by its number.
pub type Number = usize;

/// A run that somebody has created.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its id.
    pub name: String,
    /// The run it is a child of.
    pub parent: Option<Number>,
    /// Steps to its root.
    pub depth: usize,
}

/// Shared by all sessions of a round.
#[derive(Default)]
pub struct Board {
    over: AtomicBool,
    runs: Mutex<Vec<Known>>,
    abandoned: Mutex<Vec<Number>>,
    variables: Mutex<HashMap<(Number, String), i64>>,
    logged: Mutex<Vec<(Number, String)>>,
    items: Mutex<Vec<String>>,
    cents: Mutex<HashMap<Number, i64>>,
    tokens: Mutex<HashMap<Number, i64>>,
    answers: Mutex<BTreeMap<String, u64>>,
    differences: Mutex<Vec<String>>,
}

impl Board {
    /// The workers have done their share.
    pub fn finish(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Whether they have.
    pub fn over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// A run was created.
    pub fn created(&self, name: String, parent: Option<Number>) {
        let mut runs = self.runs.lock().unwrap();
        let depth = parent.map_or(0, |parent| runs[parent].depth + 1);
        runs.push(Known {
            name,
            parent,
            depth,
        });
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.runs.lock().unwrap().len()
    }

    /// One of them.
    pub fn run(&self, number: Number) -> Known {
        self.runs.lock().unwrap()[number].clone()
    }

    /// A run ended without being merged.
    pub fn abandon(&self, run: Number) {
        self.abandoned.lock().unwrap().push(run);
    }

    /// The root of a run, if all that it has travels there.
    fn destination(&self, run: Number) -> Option<Number> {
        let (runs, abandoned) = (self.runs.lock().unwrap(), self.abandoned.lock().unwrap());
        let mut at = run;
        loop {
            if abandoned.contains(&at) {
                return None;
            }
            match runs[at].parent {
                Some(parent) => at = parent,
                None => return Some(at),
            }
        }
    }

    /// A variable that nobody else sets was set.
    pub fn set(&self, run: Number, variable: String, value: i64) {
        let mut variables = self.variables.lock().unwrap();
        variables.insert((run, variable), value);
    }

    /// The variables that a root must have in the end.
    pub fn variables_of(&self, root: Number) -> Vec<(String, i64)> {
        let variables = self.variables.lock().unwrap();
        let mine = variables
            .iter()
            .filter(|((run, _), _)| self.destination(*run) == Some(root));
        let mut mine: Vec<_> = mine
            .map(|((_, name), value)| (name.clone(), *value))
            .collect();
        mine.sort();
        mine
    }

    /// An entry was appended to the log of a run.
    pub fn log(&self, run: Number, entry: String) {
        self.logged.lock().unwrap().push((run, entry));
    }

    /// The entries that the log of a root must have in the end, sorted.
    pub fn log_of(&self, root: Number) -> Vec<String> {
        let logged = self.logged.lock().unwrap();
        let mine = logged
            .iter()
            .filter(|(run, _)| self.destination(*run) == Some(root));
        let mut mine: Vec<_> = mine.map(|(_, entry)| entry.clone()).collect();
        mine.sort();
        mine
    }

    /// Entries whose run was abandoned: they may be in the log of a root or not.
    pub fn log_in_doubt(&self) -> Vec<String> {
        let logged = self.logged.lock().unwrap();
        let lost = logged
            .iter()
            .filter(|(run, _)| self.destination(*run).is_none());
        lost.map(|(_, entry)| entry.clone()).collect()
    }

    /// So much was charged to a run itself.
    pub fn spent(&self, run: Number, cents: i64) {
        *self.cents.lock().unwrap().entry(run).or_default() += cents;
    }

    /// What was charged to a run and all below it.
    pub fn cents_of(&self, run: Number) -> i64 {
        let (runs, cents) = (self.runs.lock().unwrap(), self.cents.lock().unwrap());
        let is_below = |below: Number| {
            let mut at = Some(below);
            while let Some(number) = at.filter(|number| *number != run) {
                at = runs[number].parent;
            }
            at.is_some()
        };
        let charged = cents.iter().filter(|(charged, _)| is_below(**charged));
        charged.map(|(_, cents)| cents).sum()
    }

    /// A token was given out.
    pub fn gave(&self, run: Number, token: i64) {
        let mut tokens = self.tokens.lock().unwrap();
        let newest = tokens.entry(run).or_default();
        *newest = token.max(*newest);
    }

    /// The newest token of a run that was given out before now.
    pub fn newest(&self, run: Number) -> i64 {
        *self.tokens.lock().unwrap().get(&run).unwrap_or(&0)
    }

    /// An item was put on the blackboard.
    pub fn added(&self, item: String) {
        self.items.lock().unwrap().push(item);
    }

    /// The items that were, sorted.
    pub fn items(&self) -> Vec<String> {
        let mut items = self.items.lock().unwrap().clone();
        items.sort();
        items
    }

    /// A call was answered, with an error or without.
    pub fn answered(&self, what: &str, answer: &str) {
        let mut answers = self.answers.lock().unwrap();
        *answers.entry(format!("{what} {answer}")).or_default() += 1;
    }

    /// How often calls were answered how.
    pub fn answers(&self) -> BTreeMap<String, u64> {
        self.answers.lock().unwrap().clone()
    }

    /// Something was not as it must be.
    pub fn differs(&self, difference: String) {
        self.differences.lock().unwrap().push(difference);
    }

    /// What was not.
    pub fn differences(&self) -> Vec<String> {
        self.differences.lock().unwrap().clone()
    }
}

//! What a history consists of: who did what, when it was asked and when it was answered.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Instant;

/// What a list consists of. Each number is written once in a whole run.
pub type Element = u64;

/// A state of the history by its number.
pub type State = usize;

/// Isolation level of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Each statement has a snapshot of its own.
    Committed,
    /// All statements have one snapshot.
    Repeatable,
    /// That, and the transaction is as if alone.
    Serializable,
}

impl Level {
    /// As SQL names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Committed => "READ COMMITTED",
            Self::Repeatable => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        }
    }
}

/// What a class promises to its readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Reads are those of the tables under the same snapshot. A crash loses nothing.
    Through,
    /// Reads are of the newest acknowledged version, at any isolation level. A crash may lose the newest.
    Behind,
    /// The class is now the one and now the other. Reads are of the newest acknowledged version at READ
    /// COMMITTED. With an older snapshot no order is promised.
    Switching,
}

/// A stretch of time, in nanoseconds since the run began: when something was asked and when answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Before the statement was sent.
    pub from: u64,
    /// After the answer came.
    pub to: u64,
}

/// One change of one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The list gets one more element, at its end.
    Append(Element),
    /// The list is replaced by one of this element alone.
    Set(Element),
    /// The state is deleted.
    Delete,
    /// Its rows are deleted by hand, in this version if the class is a `through` class.
    Remove(Option<i64>),
}

/// What a read found of one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which state.
    pub state: State,
    /// The version, unless the read did not ask for it.
    pub version: Option<i64>,
    /// The list; nothing if the state was absent.
    pub value: Option<Vec<Element>>,
}

/// What one statement did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// It read states, under one snapshot where the class has such.
    Read(Vec<Seen>),
    /// It changed a state, or staged that.
    Change(State, Change),
    /// It flushed what was staged, and said which versions that made.
    Flushed(Vec<(State, i64)>),
    /// It set a savepoint or began a batch.
    Mark,
    /// It undid everything since the last mark, and the mark is gone.
    Undo,
    /// The last mark is gone and nothing undone.
    Release,
    /// It did nothing, or failed; the transaction has a snapshot now.
    Nothing,
}

/// One statement that was answered without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub span: Span,
    /// What.
    pub act: Act,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its COMMIT was acknowledged.
    Committed,
    /// It was rolled back, or failed, or its session ended before COMMIT was sent.
    Aborted,
    /// The connection was lost while COMMIT was under way.
    Unknown,
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Who ran it, and what it was about.
    pub who: String,
    /// Its isolation level.
    pub level: Level,
    /// Its statements in order.
    pub steps: Vec<Step>,
    /// When its COMMIT was sent and answered; of a single statement, that statement.
    pub end: Span,
    /// What became of it.
    pub outcome: Outcome,
    /// It emptied the tables with TRUNCATE, which older snapshots see too.
    pub wipes: bool,
}

/// What a crash of the server allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crash {
    /// From here on changes of `behind` classes may be lost: the moment of the crash less the interval and
    /// one flush.
    pub from: u64,
    /// States that the tables had not accepted, however old.
    pub parked: BTreeSet<State>,
}

/// Everything between two moments at which nothing is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Name and promise of each state.
    pub states: Vec<(String, Promise)>,
    /// What was there before; one entry per state.
    pub first: Vec<Seen>,
    /// What was done.
    pub transactions: Vec<Transaction>,
    /// What was there afterwards, for whoever asked; one entry per state.
    pub last: Vec<Seen>,
    /// When that was asked.
    pub last_span: Span,
    /// The crash that ended it, if one did.
    pub crash: Option<Crash>,
}

/// Time since the run began.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Begins now.
    pub fn new() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since it began.
    pub fn now(self) -> u64 {
        self.0.elapsed().as_nanos().try_into().unwrap()
    }
}

/// Microseconds, as a person reads them.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{} us", self.from / 1000, self.to / 1000)
    }
}

/// All of it, in the order in which transactions ended.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |all: &[Seen]| all.iter().map(|seen| self.seen(seen)).collect::<Vec<_>>();
        writeln!(f, "before: {:#?}", all(&self.first))?;
        let mut order: Vec<usize> = (0..self.transactions.len()).collect();
        order.sort_by_key(|number| self.transactions[*number].end.to);
        for number in order {
            writeln!(f, "{}", self.shown(number, &[]))?;
        }
        writeln!(f, "afterwards, {}: {:#?}", self.last_span, all(&self.last))?;
        writeln!(f, "{:?}", self.crash)
    }
}

impl History {
    /// The name of a state.
    pub fn name(&self, state: State) -> &str {
        &self.states[state].0
    }

    /// What a class of this state promises.
    pub fn promise(&self, state: State) -> Promise {
        self.states[state].1
    }

    /// Statements that read or changed something.
    pub fn operations(&self) -> u64 {
        let steps = self
            .transactions
            .iter()
            .flat_map(|transaction| &transaction.steps);
        steps
            .filter(|step| matches!(step.act, Act::Read(_) | Act::Change(..)))
            .count() as u64
    }

    /// What a read found, for a person.
    pub fn seen(&self, seen: &Seen) -> String {
        let version = seen.version.map(|v| format!(" v{v}")).unwrap_or_default();
        let value = match &seen.value {
            None => "absent".into(),
            // The end of a list tells which version it is.
            Some(list) if list.len() > 6 => {
                format!(
                    "[.. {} more .. {:?}",
                    list.len() - 6,
                    &list[list.len() - 6..]
                )
            }
            Some(list) => format!("{list:?}"),
        };
        format!("{}{version} {value}", self.name(seen.state))
    }

    /// A transaction, for a person: what it did to these states, or all if none is named.
    pub fn shown(&self, number: usize, states: &[State]) -> String {
        let transaction = &self.transactions[number];
        let mut text = format!(
            "T{number} {} {} {:?}, ended {}",
            transaction.who,
            transaction.level.name(),
            transaction.outcome,
            transaction.end
        );
        let concerned = |state: &State| states.is_empty() || states.contains(state);
        for step in &transaction.steps {
            let kept = match &step.act {
                Act::Read(seen) => seen.iter().any(|seen| concerned(&seen.state)),
                Act::Change(state, _) => concerned(state),
                _ => true,
            };
            if !kept {
                continue;
            }
            let act = match &step.act {
                Act::Read(seen) => {
                    let all: Vec<String> = seen.iter().map(|seen| self.seen(seen)).collect();
                    format!("read {}", all.join(", "))
                }
                Act::Change(state, change) => format!("{change:?} of {}", self.name(*state)),
                Act::Flushed(versions) => {
                    let all: Vec<String> = versions
                        .iter()
                        .map(|(state, version)| format!("{} v{version}", self.name(*state)))
                        .collect();
                    format!("flushed {}", all.join(", "))
                }
                other => format!("{other:?}"),
            };
            text.push_str(&format!("\n      {} {act}", step.span));
        }
        text
    }
}

//! Finds what no history may contain, in the spirit of Elle: the order of versions is told by the lists
//! themselves and by version numbers, then who must have come before whom is a graph without cycles.
//!
//! - `replay`: what each transaction did, as seen from within and from outside.
//! - `values`: what one read shows by itself: elements that nobody wrote, that were aborted or not yet
//!   committed, that are there twice, that the transaction's own changes contradict.
//! - `order`: the order of the versions of each state.
//! - `points`: a graph of moments. A commit is one moment for all `through` states; so is a snapshot. A state of
//!   another class has moments of its own. A read that finds a version is before the commit of the next version,
//!   and of a `through` state after the commit of that version; what was answered before something else was
//!   asked is before it.
//! - `cycles`: cycles in such a graph, and what they are called.
//! - `lost`: writes that nothing shows, and states that are absent though nobody deleted them.
//!
//! What is unknown (a COMMIT whose answer was lost) counts as committed once somebody has seen it.

mod cycles;
mod lost;
mod order;
mod points;
mod replay;
#[cfg(test)]
mod tests;
mod values;

use super::record::{Element, History, Outcome, Seen, Span, State};
use replay::{Own, Replay, replay};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An element that nobody wrote to this state, in this history or before.
    Garbage,
    /// An element of a transaction that did not commit, or of a part of it that was undone.
    AbortedRead,
    /// An element read before its COMMIT was sent. Whatever cycle there is of transactions that read what another
    /// wrote, one of its reads is of this kind.
    DirtyRead,
    /// A version that its transaction has replaced itself before it committed.
    IntermediateRead,
    /// An element that is there twice.
    Duplicate,
    /// Two lists of which neither continues the other.
    Order,
    /// A read that does not show what its own transaction did before.
    OwnChanges,
    /// An acknowledged write that is nowhere.
    LostWrite,
    /// A version number that means two things, or numbers that contradict the lists.
    Version,
    /// A state that is absent though nobody deleted it.
    Absent,
    /// A cycle of writes.
    WriteCycle,
    /// A snapshot that sees one part of a transaction, or of what it builds upon, and not another.
    BrokenSnapshot,
    /// A cycle that takes what was acknowledged before something else was asked: a stale read, in most cases.
    Stale,
    /// SERIALIZABLE transactions that no order explains.
    NotSerializable,
}

/// Something that no history may contain.
#[derive(Debug, Clone)]
pub struct Anomaly {
    /// What it is.
    pub kind: Kind,
    /// Which operations show it.
    pub text: String,
}

/// Who wrote an element.
#[derive(Debug, Clone, Copy)]
struct Writer {
    transaction: usize,
    state: State,
    /// The transaction keeps it: neither undone nor replaced by itself.
    kept: bool,
    /// The last that the transaction wrote to the state and kept.
    last: bool,
    /// It is the first of its list.
    begins: bool,
}

/// A read of what others have committed.
#[derive(Debug, Clone)]
struct Observation<'a> {
    /// Who read; nobody in particular at the end.
    reader: Option<usize>,
    step: usize,
    span: Span,
    state: State,
    /// Only where the reader had not changed the state itself.
    version: Option<i64>,
    /// What it found, less what the reader itself had appended.
    value: Option<&'a [Element]>,
    /// The reader had appended to it.
    own: bool,
}

/// What all parts of the check ask for.
struct Index<'a> {
    history: &'a History,
    replays: Rc<Vec<Replay<'a>>>,
    writers: HashMap<Element, Writer>,
    /// What was in the lists before.
    ancient: HashSet<(State, Element)>,
    observations: Vec<Observation<'a>>,
    /// Somebody has seen what the transaction wrote.
    proved: Vec<bool>,
    anomalies: Vec<Anomaly>,
}

impl<'a> Index<'a> {
    fn new(history: &'a History) -> Self {
        let replays: Vec<Replay<'a>> = history.transactions.iter().map(replay).collect();
        let mut writers = HashMap::new();
        for (transaction, played) in replays.iter().enumerate() {
            for (state, element) in &played.written {
                let kept: &[Element] = match played.does.get(state) {
                    Some(Own::Suffix(list) | Own::Whole(list)) => list,
                    _ => &[],
                };
                let whole = matches!(played.does.get(state), Some(Own::Whole(_)));
                let writer = Writer {
                    transaction,
                    state: *state,
                    kept: kept.contains(element),
                    last: kept.last() == Some(element),
                    begins: whole && kept.first() == Some(element),
                };
                writers.insert(*element, writer);
            }
        }
        let mut ancient = HashSet::new();
        for seen in &history.first {
            let elements = seen.value.iter().flatten();
            ancient.extend(elements.map(|element| (seen.state, *element)));
        }
        let proved = vec![false; history.transactions.len()];
        Self {
            history,
            replays: Rc::new(replays),
            writers,
            ancient,
            observations: Vec::new(),
            proved,
            anomalies: Vec::new(),
        }
    }

    /// Whether the transaction has taken effect, as far as anybody knows.
    fn took_effect(&self, transaction: usize) -> bool {
        match self.history.transactions[transaction].outcome {
            Outcome::Committed => true,
            Outcome::Aborted => false,
            Outcome::Unknown => self.proved[transaction],
        }
    }

    /// Whether its COMMIT was acknowledged.
    fn acknowledged(&self, transaction: usize) -> bool {
        self.history.transactions[transaction].outcome == Outcome::Committed
    }

    /// When a transaction's COMMIT was under way; open where the answer never came.
    fn end(&self, transaction: usize) -> Span {
        let transaction = &self.history.transactions[transaction];
        match transaction.outcome {
            Outcome::Unknown => Span {
                from: transaction.end.from,
                to: u64::MAX,
            },
            _ => transaction.end,
        }
    }

    fn report(&mut self, kind: Kind, what: &str, transactions: &[usize], states: &[State]) {
        let mut text = format!("{kind:?}: {what}");
        for (at, number) in transactions.iter().enumerate() {
            if !transactions[..at].contains(number) {
                text.push_str(&format!("\n    {}", self.history.shown(*number, states)));
            }
        }
        if !self.anomalies.iter().any(|anomaly| anomaly.text == text) {
            self.anomalies.push(Anomaly { kind, text });
        }
    }

    /// How a reader is called.
    fn reader(&self, observation: &Observation<'_>) -> String {
        let seen = Seen {
            state: observation.state,
            version: observation.version,
            value: observation.value.map(<[Element]>::to_vec),
        };
        let who = match observation.reader {
            Some(number) => format!("T{number} step {}", observation.step),
            None => "the last look".into(),
        };
        format!(
            "{who} ({}) found {}",
            observation.span,
            self.history.seen(&seen)
        )
    }
}

/// All that is wrong with a history.
pub fn check(history: &History) -> Vec<Anomaly> {
    let mut index = Index::new(history);
    values::check(&mut index);
    let orders = order::find(&mut index);
    lost::check(&mut index, &orders);
    points::check(&mut index, &orders);
    points::check_serializable(&mut index, &orders);
    index.anomalies
}

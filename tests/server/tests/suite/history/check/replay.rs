//! What one transaction does to each state, seen from within and from outside.

use super::super::record::{Act, Change, Element, Seen, Span, State, Transaction};
use std::collections::BTreeMap;

/// What a transaction must see of a state that it has changed itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// Whatever others have committed, and these at its end.
    Suffix(Vec<Element>),
    /// This and nothing else.
    Whole(Vec<Element>),
    /// That the state is absent.
    Gone,
}

impl Own {
    fn change(before: Option<Self>, change: &Change) -> Self {
        match (before, change) {
            (_, Change::Set(element)) => Self::Whole(vec![*element]),
            (_, Change::Delete | Change::Remove(_)) => Self::Gone,
            (Some(Self::Whole(mut list)), Change::Append(element)) => {
                list.push(*element);
                Self::Whole(list)
            }
            (Some(Self::Suffix(mut list)), Change::Append(element)) => {
                list.push(*element);
                Self::Suffix(list)
            }
            (Some(Self::Gone) | None, Change::Append(element)) => Self::Suffix(vec![*element]),
        }
    }
}

/// One read of one state.
#[derive(Debug)]
pub struct Look<'a> {
    /// Number of the step.
    pub step: usize,
    /// When.
    pub span: Span,
    /// What was found.
    pub seen: &'a Seen,
    /// What the transaction had done to that state until then.
    pub own: Option<Own>,
}

/// A transaction, played through.
#[derive(Debug)]
pub struct Replay<'a> {
    /// Its reads.
    pub looks: Vec<Look<'a>>,
    /// What it does to each state if it commits.
    pub does: BTreeMap<State, Own>,
    /// All that it ever wrote, and what of it nothing undid. A list of one state that ends with an element of
    /// this transaction ends with the last of these.
    pub written: Vec<(State, Element)>,
    /// The versions that it made, as far as it was told.
    pub versions: BTreeMap<State, i64>,
    /// Versions of the rows that it deleted by hand.
    pub removed: BTreeMap<State, i64>,
    /// When it took the snapshot that it has as a whole: between these.
    pub snapshot: Option<Span>,
}

#[derive(Default, Clone)]
struct Frame {
    own: BTreeMap<State, Own>,
    versions: BTreeMap<State, i64>,
    removed: BTreeMap<State, i64>,
}

/// Plays a transaction through.
pub fn replay(transaction: &Transaction) -> Replay<'_> {
    let (mut now, mut marks) = (Frame::default(), Vec::new());
    let (mut looks, mut written) = (Vec::new(), Vec::new());
    for (number, step) in transaction.steps.iter().enumerate() {
        match &step.act {
            Act::Read(all) => looks.extend(all.iter().map(|seen| Look {
                step: number,
                span: step.span,
                seen,
                own: now.own.get(&seen.state).cloned(),
            })),
            Act::Change(state, change) => {
                if let Change::Append(element) | Change::Set(element) = change {
                    written.push((*state, *element));
                }
                let before = now.own.remove(state);
                now.own.insert(*state, Own::change(before, change));
                now.versions.remove(state);
                match change {
                    Change::Remove(Some(version)) => now.removed.insert(*state, *version),
                    _ => now.removed.remove(state),
                };
            }
            Act::Flushed(versions) => now.versions.extend(versions.iter().copied()),
            Act::Mark => marks.push(now.clone()),
            Act::Undo => now = marks.pop().unwrap_or_default(),
            Act::Release => drop(marks.pop()),
            Act::Nothing => {}
        }
    }
    let first = transaction.steps.first();
    // A mark need not be a query that takes a snapshot.
    let query = transaction
        .steps
        .iter()
        .find(|step| !matches!(step.act, Act::Mark | Act::Undo | Act::Release));
    Replay {
        looks,
        does: now.own,
        written,
        versions: now.versions,
        removed: now.removed,
        snapshot: first.zip(query).map(|(first, query)| Span {
            from: first.span.from,
            to: query.span.to,
        }),
    }
}

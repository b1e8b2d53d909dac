//! Histories made by hand: those that hold an anomaly, which must be found and called by its name, and those
//! that look odd and are allowed.

mod behind;
mod time;
mod values;
mod writes;

use super::{Kind, check};
use crate::history::record::{
    Act, Change, Crash, Element, History, Level, Outcome, Promise, Seen, Span, State, Step,
    Transaction,
};
use std::collections::BTreeSet;

/// Two states of each class.
const X: State = 0;
const Y: State = 1;
const B: State = 2;
const B2: State = 3;
const S: State = 4;

/// A history in the making. Before it the states hold `[1]` to `[5]`, in version 1. Times are thousands; what
/// ends at the time at which something else begins was before it.
struct Made(History);

fn read(state: State, version: i64, list: &[Element]) -> Act {
    Act::Read(vec![seen(state, version, list)])
}

fn seen(state: State, version: i64, list: &[Element]) -> Seen {
    Seen {
        state,
        version: (version > 0).then_some(version),
        value: (!list.is_empty()).then(|| list.to_vec()),
    }
}

fn absent(state: State) -> Act {
    read(state, 0, &[])
}

fn change(state: State, change: Change) -> Act {
    Act::Change(state, change)
}

impl Made {
    fn new() -> Self {
        let promises = [
            ("x", Promise::Through),
            ("y", Promise::Through),
            ("b", Promise::Behind),
            ("b2", Promise::Behind),
            ("s", Promise::Switching),
        ];
        let first: Vec<Seen> = (0..promises.len())
            .map(|state| seen(state, 1, &[state as Element + 1]))
            .collect();
        Self(History {
            states: promises
                .map(|(name, promise)| (name.to_string(), promise))
                .to_vec(),
            last: Vec::new(),
            first,
            transactions: Vec::new(),
            last_span: Span {
                from: 1_000_000,
                to: 1_000_001,
            },
            crash: None,
        })
    }

    /// A transaction whose statements take one unit each from `from` on, and whose COMMIT is answered at `to`.
    fn add(mut self, level: Level, from: u64, to: u64, acts: Vec<Act>) -> Self {
        let mut now = from * 1000;
        let mut steps = Vec::new();
        for act in acts {
            let span = Span {
                from: now + 1,
                to: now + 900,
            };
            steps.push(Step { span, act });
            now += 1000;
        }
        assert!(now <= to * 1000);
        self.0.transactions.push(Transaction {
            who: format!("made {}", self.0.transactions.len()),
            level,
            steps,
            end: Span {
                from: now + 1 - 1000 * u64::from(now == to * 1000),
                to: to * 1000,
            },
            outcome: Outcome::Committed,
            wipes: false,
        });
        self
    }

    /// The last one ended otherwise.
    fn ended(mut self, outcome: Outcome) -> Self {
        self.0.transactions.last_mut().unwrap().outcome = outcome;
        self
    }

    /// The last one was a TRUNCATE.
    fn wiping(mut self) -> Self {
        self.0.transactions.last_mut().unwrap().wipes = true;
        self
    }

    fn last(mut self, last: Vec<Seen>) -> Self {
        self.0.last = last;
        self
    }

    fn crash(mut self, from: u64) -> Self {
        self.0.crash = Some(Crash {
            from: from * 1000,
            parked: BTreeSet::new(),
        });
        self
    }

    #[track_caller]
    fn holds(self, kind: Kind) {
        let found = check(&self.0);
        assert!(
            found.iter().any(|anomaly| anomaly.kind == kind),
            "{kind:?} was not found, only {found:#?}"
        );
    }

    #[track_caller]
    fn must_be_clean(self) {
        let found = check(&self.0);
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// A statement that says nothing about the states at hand.
fn elsewhere() -> Act {
    read(B, 1, &[3])
}

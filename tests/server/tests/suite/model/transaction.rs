//! The model: what the contract says that a transaction sees and leaves.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// States of a case: few, so that changes meet.
pub const KEYS: usize = 4;
/// More operations than a transaction keeps apart (`MAX_OPERATIONS` in the extension).
pub const MANY: u64 = 1010;

/// A present state.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub document: Value,
    pub expires: bool,
}

/// A row of `state_head` with its snapshot; version 0: there is none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    pub version: i64,
    pub state: Option<State>,
}

impl Row {
    /// The version of a present state, 0 for an absent one.
    pub fn ground(&self) -> i64 {
        self.state.as_ref().map_or(0, |_| self.version)
    }

    pub fn document(&self) -> Option<Value> {
        self.state.as_ref().map(|state| state.document.clone())
    }
}

#[derive(Debug, Clone)]
pub enum Operation {
    Update(Value),
    Merge(Value),
    Append(u64, u64),
}

/// Operations on a document, by serde_json and not by the extension's own code.
pub fn applied(operations: &[Operation], document: Option<Value>) -> Value {
    let mut document = document.unwrap_or_else(|| json!({}));
    for operation in operations {
        match operation {
            Operation::Update(fields) | Operation::Merge(fields) => {
                let target = document.as_object_mut().unwrap();
                for (name, value) in fields.as_object().unwrap() {
                    if value.is_null() && matches!(operation, Operation::Merge(_)) {
                        target.remove(name);
                    } else {
                        target.insert(name.clone(), value.clone());
                    }
                }
            }
            Operation::Append(value, times) => {
                let list = document["l"].as_array_mut().unwrap();
                list.extend((0..*times).map(|_| json!(value)));
            }
        }
    }
    document
}

#[derive(Debug, Clone)]
pub enum Change {
    /// Set, or deleted. `over`: last version beneath when it was staged. `folded`: made of operations.
    Replace {
        document: Option<Value>,
        over: i64,
        folded: bool,
    },
    /// `shown` is what they make of the state at `base`, over the last version `over`.
    Operations {
        operations: Vec<Operation>,
        base: i64,
        over: i64,
        shown: Value,
    },
    Touch,
}

#[derive(Debug, Clone)]
pub struct Staged {
    pub change: Change,
    /// `None` keeps what is there.
    pub expires: Option<bool>,
    pub expected: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OnConflict {
    Error,
    Reapply,
    Overwrite,
}

#[derive(Debug, Clone)]
pub struct Batch {
    pub on_conflict: OnConflict,
    pub before: [Option<Staged>; KEYS],
    /// What the batch found of each state when it first met it.
    pub bases: [Option<i64>; KEYS],
}

/// A mistake put into the model, to see that the comparison notices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Flaw {
    None,
    RollbackToKeepsStaged,
    OperationsOverwrite,
    DeleteMakesNoVersion,
    ErrorIgnoresReads,
    DuplicateIsWritten,
}

/// A conflict, 40001.
#[derive(Debug)]
pub struct Conflict;

/// What a transaction has done so far; cloned for a savepoint.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    /// Rows of its own.
    pub rows: BTreeMap<usize, Row>,
    pub staged: [Option<Staged>; KEYS],
    pub batch: Option<Batch>,
    /// States whose rows it has locked.
    pub locked: BTreeSet<usize>,
}

impl Transaction {
    pub fn row(&self, committed: &[Row; KEYS], key: usize) -> Row {
        self.rows.get(&key).unwrap_or(&committed[key]).clone()
    }

    /// Staged operations follow what others commit, unless the batch wins, or has met the state and
    /// treats that as a conflict.
    pub fn rebase(&mut self, row: &Row, key: usize) {
        let follows = self
            .batch
            .as_ref()
            .is_none_or(|batch| match batch.on_conflict {
                OnConflict::Error => batch.bases[key].is_none(),
                OnConflict::Reapply => true,
                OnConflict::Overwrite => false,
            });
        if let Some(Staged {
            change:
                Change::Operations {
                    operations,
                    base,
                    over,
                    shown,
                },
            ..
        }) = &mut self.staged[key]
            && follows
            && *base != row.ground()
        {
            (*base, *over) = (row.ground(), row.version);
            *shown = applied(operations, row.document());
        }
    }

    /// The document that the transaction sees.
    pub fn sees(&mut self, committed: &[Row; KEYS], key: usize) -> Option<Value> {
        let row = self.row(committed, key);
        self.rebase(&row, key);
        match self.staged[key].as_ref().map(|staged| &staged.change) {
            None | Some(Change::Touch) => row.document(),
            Some(Change::Replace { document, .. }) => document.clone(),
            Some(Change::Operations { shown, .. }) => Some(shown.clone()),
        }
    }

    /// The same by a statement, which an explicit batch remembers.
    pub fn reads(&mut self, committed: &[Row; KEYS], key: usize) -> Option<Value> {
        let seen = self.sees(committed, key);
        let ground = match self.staged[key].as_ref().map(|staged| &staged.change) {
            Some(Change::Replace { .. }) => return seen,
            Some(Change::Operations { base, .. }) => *base,
            None | Some(Change::Touch) => self.row(committed, key).ground(),
        };
        if let Some(batch) = &mut self.batch {
            batch.bases[key].get_or_insert(ground);
        }
        seen
    }

    /// The versions that may be shown: a staged change that makes no difference may count or not. Empty
    /// where somebody else has committed below a staged document: its version was only provisional.
    pub fn versions(&self, committed: &[Row; KEYS], key: usize) -> Vec<i64> {
        let row = self.row(committed, key);
        let (document, over) = match self.staged[key].as_ref().map(|staged| &staged.change) {
            None | Some(Change::Touch) => return vec![row.ground()],
            Some(Change::Replace { document: None, .. }) => return vec![0],
            Some(Change::Replace {
                document: Some(document),
                over,
                ..
            }) => (document, *over == row.version),
            Some(Change::Operations { shown, over, .. }) => (shown, *over == row.version),
        };
        match over {
            false => Vec::new(),
            true if row.document().as_ref() == Some(document) => vec![row.version, row.version + 1],
            true => vec![row.version + 1],
        }
    }

    /// An explicit batch that fails on conflicts remembers what a change builds upon.
    pub fn notes(&mut self, committed: &[Row; KEYS], key: usize, builds_upon_staged: bool) {
        let ground = match &self.staged[key] {
            Some(Staged {
                change: Change::Operations { base, .. },
                ..
            }) if builds_upon_staged => *base,
            _ => self.row(committed, key).ground(),
        };
        if let Some(
            batch @ Batch {
                on_conflict: OnConflict::Error,
                ..
            },
        ) = &mut self.batch
        {
            batch.bases[key].get_or_insert(ground);
        }
    }

    pub fn replace(
        &mut self,
        committed: &[Row; KEYS],
        key: usize,
        document: Option<Value>,
        expires: bool,
        expected: Option<i64>,
    ) {
        self.notes(committed, key, false);
        let expected = self.staged[key]
            .as_ref()
            .and_then(|staged| staged.expected)
            .or(expected);
        let row = self.row(committed, key);
        // All that is staged makes one version, which may have been told already.
        let over = match self.staged[key].as_ref().map(|staged| &staged.change) {
            Some(Change::Replace {
                document: Some(_),
                over,
                ..
            }) => *over,
            Some(Change::Operations { over, .. }) => *over,
            _ => row.version,
        };
        let change = Change::Replace {
            document,
            over,
            folded: false,
        };
        self.staged[key] = Some(Staged {
            change,
            expires: Some(expires),
            expected,
        });
    }

    pub fn operate(&mut self, committed: &[Row; KEYS], key: usize, operation: Operation) {
        let before = self.sees(committed, key);
        self.notes(committed, key, true);
        let row = self.row(committed, key);
        let absent = before.is_none();
        let result = applied(std::slice::from_ref(&operation), before);
        let first = |operation: &Operation, result| Change::Operations {
            operations: vec![operation.clone()],
            base: row.ground(),
            over: row.version,
            shown: result,
        };
        let many = matches!(operation, Operation::Append(_, MANY));
        let staged = self.staged[key].get_or_insert(Staged {
            change: Change::Touch,
            expires: None,
            expected: None,
        });
        match &mut staged.change {
            // A staged end is that of whatever the flush leaves, also where others deleted in between.
            Change::Touch => staged.change = first(&operation, result),
            Change::Replace { document, over, .. } => {
                if absent {
                    *over = row.version;
                }
                *document = Some(result);
            }
            Change::Operations {
                operations, shown, ..
            } => {
                operations.push(operation);
                *shown = result;
            }
        }
        if let (true, Change::Operations { shown, .. }) = (many, &staged.change) {
            let document = Some(shown.clone());
            staged.change = Change::Replace {
                document,
                over: row.version,
                folded: true,
            };
            self.locked.insert(key);
        }
    }

    pub fn touch(&mut self, committed: &[Row; KEYS], key: usize) -> bool {
        let present = self.sees(committed, key).is_some();
        self.notes(committed, key, false);
        if present {
            let staged = self.staged[key].get_or_insert(Staged {
                change: Change::Touch,
                expires: None,
                expected: None,
            });
            staged.expires = Some(true);
        }
        present
    }

    /// A change of both tables by plain SQL.
    pub fn by_hand(&mut self, committed: &[Row; KEYS], key: usize, document: Value) {
        let row = self.row(committed, key);
        let expires = row.state.as_ref().is_some_and(|state| state.expires);
        let state = Some(State { document, expires });
        self.rows.insert(
            key,
            Row {
                version: row.version + 1,
                state,
            },
        );
        self.locked.insert(key);
    }

    /// Writes what is staged; what became of each state.
    pub fn flush(
        &mut self,
        committed: &[Row; KEYS],
        flaw: Flaw,
    ) -> Result<Vec<(usize, i64, &'static str)>, Conflict> {
        let batch = self.batch.take();
        let on_conflict = batch.as_ref().map(|batch| batch.on_conflict);
        let bases = batch.map_or([None; KEYS], |batch| batch.bases);
        let mut outcomes = Vec::new();
        for (key, base) in bases.iter().enumerate() {
            let row = self.row(committed, key);
            let moved = base.is_some_and(|base| base != row.ground());
            let Some(staged) = self.staged[key].take() else {
                if moved
                    && on_conflict == Some(OnConflict::Error)
                    && flaw != Flaw::ErrorIgnoresReads
                {
                    return Err(Conflict);
                }
                continue;
            };
            let is_operation = matches!(staged.change, Change::Operations { .. });
            let relies = match on_conflict {
                Some(OnConflict::Error) => true,
                Some(OnConflict::Reapply) => !is_operation,
                Some(OnConflict::Overwrite) | None => false,
            };
            if (relies && moved)
                || staged
                    .expected
                    .is_some_and(|expected| expected != row.ground())
            {
                return Err(Conflict);
            }
            let document = match staged.change {
                Change::Touch => row.document(),
                Change::Replace { document, .. } => document,
                Change::Operations { shown, .. }
                    if on_conflict == Some(OnConflict::Overwrite)
                        || flaw == Flaw::OperationsOverwrite =>
                {
                    Some(shown)
                }
                Change::Operations { operations, .. } => Some(applied(&operations, row.document())),
            };
            let kept = row.state.as_ref().is_some_and(|state| state.expires);
            let expires = staged.expires.unwrap_or(kept);
            let same = document == row.document()
                && (flaw != Flaw::DuplicateIsWritten || document.is_none());
            let gap =
                i64::from(!same && (document.is_some() || flaw != Flaw::DeleteMakesNoVersion));
            let action = match &document {
                _ if same => "unchanged",
                None => "deleted",
                Some(_) => "written",
            };
            let state = document.map(|document| State { document, expires });
            let new = Row {
                version: row.version + gap,
                state,
            };
            // A deleted state is in the version of its tombstone.
            let shown = if same { new.ground() } else { new.version };
            outcomes.push((key, shown, action));
            // A new end is always another one.
            let renewed = staged.expires == Some(true) && new.state.is_some();
            if new != row || renewed {
                self.rows.insert(key, new);
                self.locked.insert(key);
            }
        }
        Ok(outcomes)
    }

    /// Whether an append is staged, for which the list must stay.
    pub fn appends(&self, key: usize) -> bool {
        let before = self
            .batch
            .as_ref()
            .and_then(|batch| batch.before[key].as_ref());
        [self.staged[key].as_ref(), before]
            .into_iter()
            .flatten()
            .any(|staged| match &staged.change {
                Change::Operations { operations, .. } => operations
                    .iter()
                    .any(|operation| matches!(operation, Operation::Append(..))),
                Change::Replace { .. } | Change::Touch => false,
            })
    }
}

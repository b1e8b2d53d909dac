//! Merging what a child changed into its parent.

use std::borrow::Cow;

use state_cache_document::{StackGuard, is_array, is_null, member, members};

use crate::error::ShapeError;
use crate::labels::{Sensitivity, Strategy};
use crate::record::Run;
use crate::values::{concatenate, merge_objects};
use crate::variables::Variable;
use state_cache_memory::{Grow, copy_cow};

/// What becomes of one variable that the child changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged<'a> {
    /// The variable.
    pub name: &'a [u8],
    /// The value that the parent has after the merge; `None` if it has no such variable.
    pub value: Option<Cow<'a, [u8]>>,
    /// How a conflict was settled; `None` where there was none.
    pub strategy: Option<Strategy>,
    /// Why it is that value.
    pub reason: Reason,
    /// The highest sensitivity that the variable has anywhere, declared floors among it.
    pub sensitivity: Sensitivity,
    /// What the parent's record becomes; `None` if it stays as it is.
    pub becomes: Option<Variable<'a>>,
    /// What a person has to decide.
    pub conflict: Option<Conflict<'a>>,
}

/// Two values between which a person has to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict<'a> {
    /// The value that the child began with; `None` if there was none.
    pub base: Option<Cow<'a, [u8]>>,
    /// The parent's value; `None` if it has none.
    pub parent: Option<Cow<'a, [u8]>>,
    /// The child's value.
    pub child: Cow<'a, [u8]>,
    /// When the parent's value was set, in microseconds since 1970, if that is known.
    pub parent_timestamp: Option<i64>,
    /// When the child's value was set, in microseconds since 1970, if that is known.
    pub child_timestamp: Option<i64>,
}

/// Why a merge chose a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No conflict: the parent's value is what the child began with, the child's is taken.
    OnlyChildChanged,
    /// No conflict: both have the same value.
    SameChange,
    /// No conflict: the child has the value that it began with, and a higher sensitivity.
    OnlySensitivityRose,
    /// No conflict: the parent's variable must not change.
    Immutable,
    /// There is an open conflict about the variable, so this is one more.
    Blocked,
    /// The strategy is that the parent wins.
    ParentWins,
    /// The strategy is that the child wins.
    ChildWins,
    /// The parent's value is the later one.
    ParentLater,
    /// The child's value is not older than the parent's.
    ChildLater,
    /// Both are objects, which were merged in depth.
    ObjectsMerged,
    /// Both are arrays, and the parent's got what the child had added.
    ArraysConcatenated,
    /// A person is asked.
    Review,
}

impl Reason {
    /// The reason in words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::OnlyChildChanged => "only the child changed it",
            Self::SameChange => "both made the same change",
            Self::OnlySensitivityRose => "only its sensitivity rose",
            Self::Immutable => "it is immutable in the parent",
            Self::Blocked => "it is blocked by an open conflict",
            Self::ParentWins => "both changed it, the parent wins",
            Self::ChildWins => "both changed it, the child wins",
            Self::ParentLater => "both changed it, the parent's value is later",
            Self::ChildLater => "both changed it, the parent's value is not later",
            Self::ObjectsMerged => "both changed it, the objects were merged",
            Self::ArraysConcatenated => "both changed it, the arrays were concatenated",
            Self::Review => "both changed it, a person decides",
        }
    }
}

/// What a child and its parent were when they last were one: when the child was created, or last merged.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// The child.
    pub child: Run<'a>,
    /// The values that the parent had of variables of which the child had others: an object, with `null` where the
    /// parent had none.
    pub parent: Option<&'a [u8]>,
}

impl<'a> From<Run<'a>> for Base<'a> {
    fn from(child: Run<'a>) -> Self {
        Base {
            child,
            parent: None,
        }
    }
}

impl<'a> Base<'a> {
    /// What the parent had of a variable of which the child had this.
    fn of_parent(
        &self,
        name: &[u8],
        child: Option<&Variable<'a>>,
    ) -> Result<Option<Cow<'a, [u8]>>, ShapeError> {
        let other = self.parent.map(|values| member(values, name));
        Ok(match other.transpose()?.flatten() {
            Some(value) if is_null(&value) => None,
            Some(value) => Some(value),
            None => child.map(|child| copy_cow(&child.value)).transpose()?,
        })
    }
}

/// Says by name which variables are looked at; `None` for all.
pub type Only<'a> = Option<&'a dyn Fn(&[u8]) -> bool>;

/// Finds what becomes of the parent's variables when a child is merged: one entry for each variable whose value is
/// another than in `base`, and for each whose
/// sensitivity alone rose above the parent's. They are in the order in which variables are stored.
///
/// Only what both changed, and differently, is a conflict, for which `strategy_of` is asked by name. A variable that
/// the child has no more is left alone. Sensitivity never goes down, whichever value is taken: the record that
/// results has the highest that the three have. It has the timestamp, the source and the mutability of the side whose
/// value was taken; where both had a part in the value, of the later side, and is mutable only if it is on both.
///
/// `guard` is called at each level when objects are merged. Unchanged variables cost a comparison of bytes.
///
/// # Errors
/// A [`ShapeError`] if a variable that is looked at, or what is declared about it, is not as it must be; and what
/// `guard` raises.
pub fn merge<'a>(
    bases: &Base<'a>,
    parent: &Run<'a>,
    child: &Run<'a>,
    strategy_of: &dyn Fn(&[u8]) -> Strategy,
    only: Only<'_>,
    guard: StackGuard,
) -> Result<Vec<Merged<'a>>, ShapeError> {
    let base = &bases.child;
    let floors_differ = base.sensitivity_map() != child.sensitivity_map();
    let mut merged = Vec::new();
    if base.variables_section() == child.variables_section() && !floors_differ {
        return Ok(merged);
    }
    let order = |name: &'a [u8]| (name.len(), name);
    // Unread: most of them are the same on both sides, and are compared as bytes.
    let mut before = members(base.variables_section())?.into_iter().peekable();
    for (name, record) in members(child.variables_section())? {
        while before
            .next_if(|(other, _)| order(other) < order(name))
            .is_some()
        {}
        let old = before.next_if(|(other, _)| *other == name);
        let old = old.map(|(_, record)| record);
        if only.is_some_and(|is_wanted| !is_wanted(name)) {
            continue;
        }
        if old.as_ref() == Some(&record)
            && !(floors_differ && child.floor(name)? > base.floor(name)?)
        {
            continue;
        }
        let old = old
            .map(|record| Run::variable_of_part(name, record))
            .transpose()?;
        let case = Case::new(
            name,
            bases.of_parent(name, old.as_ref())?,
            (base, old),
            (parent, parent.variable(name)?),
            (child, Run::variable_of_part(name, record)?),
        )?;
        if let Some(settled) = case.settle(strategy_of, guard)? {
            merged.try_push(settled)?;
        }
    }
    Ok(merged)
}

/// One variable of the child, and what the others have of it.
struct Case<'a> {
    name: &'a [u8],
    base: Option<Variable<'a>>,
    /// The value that the parent has started from.
    parent_base: Option<Cow<'a, [u8]>>,
    parent: Option<Variable<'a>>,
    child: Variable<'a>,
    /// Whether the parent has an open conflict about it.
    is_blocked: bool,
    /// Whether the child's sensitivity is higher than the base's.
    rose: bool,
    /// The parent's sensitivity.
    level: Sensitivity,
    /// The highest sensitivity of all.
    highest: Sensitivity,
}

impl<'a> Case<'a> {
    fn new(
        name: &'a [u8],
        parent_base: Option<Cow<'a, [u8]>>,
        (base_run, base): (&Run<'a>, Option<Variable<'a>>),
        (parent_run, parent): (&Run<'a>, Option<Variable<'a>>),
        (child_run, child): (&Run<'a>, Variable<'a>),
    ) -> Result<Self, ShapeError> {
        let level = |run: &Run<'a>, variable: Option<&Variable<'a>>| {
            // What is not there is no more sensitive than its floor.
            let own = variable.map_or(Sensitivity::Public, |variable| variable.sensitivity);
            run.effective(name, own)
        };
        let base_level = level(base_run, base.as_ref())?;
        let parent_level = level(parent_run, parent.as_ref())?;
        let child_level = level(child_run, Some(&child))?;
        Ok(Case {
            name,
            base,
            parent_base,
            parent,
            child,
            is_blocked: parent_run.is_blocked(name)?,
            rose: child_level > base_level,
            level: parent_level,
            highest: base_level.max(parent_level).max(child_level),
        })
    }

    fn settle(
        self,
        strategy_of: &dyn Fn(&[u8]) -> Strategy,
        guard: StackGuard,
    ) -> Result<Option<Merged<'a>>, ShapeError> {
        let base = self.base.as_ref().map(|variable| &variable.value);
        let parent = self.parent.as_ref().map(|variable| &variable.value);
        let child = Some(&self.child.value);
        let settled = if base == child {
            // Something else of the record may differ, which is the child's own affair.
            if !self.rose || self.parent.is_none() || self.highest <= self.level {
                return Ok(None);
            }
            self.parent_stays(None, Reason::OnlySensitivityRose)
        } else if self.is_blocked {
            self.reviewed(Reason::Blocked)
        } else if parent == child {
            self.parent_stays(None, Reason::SameChange)
        } else if self.parent.as_ref().is_some_and(|parent| !parent.mutable) {
            self.parent_stays(None, Reason::Immutable)
        } else if parent == base {
            // Also where the parent has come to it only since: by a resolution, say.
            self.child_taken(None, Reason::OnlyChildChanged)
        } else if parent == self.parent_base.as_ref() {
            self.child_changed(guard)
        } else {
            let strategy = strategy_of(self.name);
            self.conflicting(strategy, guard)
        };
        settled.map(Some)
    }

    /// What becomes of a variable that only the child changed, from another value than the parent has. It has never
    /// seen that one: what it changed is done to the parent's value as far as both have a structure that allows it.
    /// Its value as a whole would take away what the parent has beyond it.
    fn child_changed(self, guard: StackGuard) -> Result<Merged<'a>, ShapeError> {
        let base = self.base.as_ref().map(|variable| &*variable.value);
        let Some(parent) = &self.parent else {
            return self.child_taken(None, Reason::OnlyChildChanged);
        };
        let value = if parent.is_object() && self.child.is_object() {
            let bases = [self.parent_base.as_deref(), base];
            let values = (&*parent.value, &*self.child.value);
            Some(merge_objects(bases, values.0, values.1, true, guard)?)
        } else if is_array(&parent.value) && is_array(&self.child.value) {
            Some(concatenate(base, &parent.value, &self.child.value)?)
        } else {
            None
        };
        match value {
            Some(value) => self.combined(value, None, Reason::OnlyChildChanged),
            None => self.child_taken(None, Reason::OnlyChildChanged),
        }
    }

    /// What becomes of a variable that both changed.
    fn conflicting(self, strategy: Strategy, guard: StackGuard) -> Result<Merged<'a>, ShapeError> {
        let base = self.base.as_ref().map(|variable| &*variable.value);
        let child = &self.child;
        match (strategy, &self.parent) {
            (Strategy::ParentWins, _) => self.parent_stays(Some(strategy), Reason::ParentWins),
            (Strategy::ChildWins, _) => self.child_taken(Some(strategy), Reason::ChildWins),
            (Strategy::ManualReview, _) => self.reviewed(Reason::Review),
            (Strategy::MergeObjects, Some(parent)) if parent.is_object() && child.is_object() => {
                let later = self.child_is_later();
                let bases = [self.parent_base.as_deref(), base];
                let value = merge_objects(bases, &parent.value, &child.value, later, guard)?;
                self.combined(value, Some(strategy), Reason::ObjectsMerged)
            }
            (Strategy::ArrayConcat, Some(parent))
                if is_array(&parent.value) && is_array(&child.value) =>
            {
                let value = concatenate(base, &parent.value, &child.value)?;
                self.combined(value, Some(strategy), Reason::ArraysConcatenated)
            }
            (Strategy::KeepLatest | Strategy::MergeObjects | Strategy::ArrayConcat, _) => {
                if self.child_is_later() {
                    self.child_taken(Some(strategy), Reason::ChildLater)
                } else {
                    self.parent_stays(Some(strategy), Reason::ParentLater)
                }
            }
        }
    }

    /// Whether the child's value is not older than the parent's. When a variable was removed is not known, so what is
    /// there counts as later.
    fn child_is_later(&self) -> bool {
        let parent = self.parent.as_ref().and_then(|parent| parent.timestamp);
        self.child.timestamp >= parent
    }

    /// The parent's value stays; at most its sensitivity rises.
    fn parent_stays(
        self,
        strategy: Option<Strategy>,
        reason: Reason,
    ) -> Result<Merged<'a>, ShapeError> {
        let value = value_of(self.parent.as_ref())?;
        let raised = self.parent.filter(|_| self.highest > self.level);
        Ok(Merged {
            name: self.name,
            value,
            strategy,
            reason,
            sensitivity: self.highest,
            becomes: raised.map(|parent| Variable {
                sensitivity: self.highest,
                ..parent
            }),
            conflict: None,
        })
    }

    fn child_taken(
        self,
        strategy: Option<Strategy>,
        reason: Reason,
    ) -> Result<Merged<'a>, ShapeError> {
        Ok(Merged {
            name: self.name,
            value: Some(copy_cow(&self.child.value)?),
            strategy,
            reason,
            sensitivity: self.highest,
            becomes: Some(Variable {
                sensitivity: self.highest,
                ..self.child
            }),
            conflict: None,
        })
    }

    /// The value is one in which both have a part.
    fn combined(
        mut self,
        value: Vec<u8>,
        strategy: Option<Strategy>,
        reason: Reason,
    ) -> Result<Merged<'a>, ShapeError> {
        let is_later = self.child_is_later();
        let Some(parent) = self.parent.take_if(|parent| *parent.value != *value) else {
            // The child's part is in the parent's already.
            return self.parent_stays(strategy, reason);
        };
        let mutable = parent.mutable && self.child.mutable;
        let side = if is_later { self.child } else { parent };
        let value: Cow<'a, [u8]> = value.into();
        Ok(Merged {
            name: self.name,
            value: Some(copy_cow(&value)?),
            strategy,
            reason,
            sensitivity: self.highest,
            becomes: Some(Variable {
                value,
                sensitivity: self.highest,
                mutable,
                ..side
            }),
            conflict: None,
        })
    }

    /// A person is asked, and the parent's value stays until then.
    fn reviewed(self, reason: Reason) -> Result<Merged<'a>, ShapeError> {
        let conflict = Conflict {
            base: value_of(self.base.as_ref())?,
            parent: value_of(self.parent.as_ref())?,
            child: copy_cow(&self.child.value)?,
            parent_timestamp: self.parent.as_ref().and_then(|parent| parent.timestamp),
            child_timestamp: self.child.timestamp,
        };
        Ok(Merged {
            conflict: Some(conflict),
            ..self.parent_stays(Some(Strategy::ManualReview), reason)?
        })
    }
}

/// A copy of the value of a variable, if there is one.
fn value_of<'a>(variable: Option<&Variable<'a>>) -> Result<Option<Cow<'a, [u8]>>, ShapeError> {
    Ok(variable
        .map(|variable| copy_cow(&variable.value))
        .transpose()?)
}

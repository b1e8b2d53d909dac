//! What a run's document says of its limits, and what it says after a charge.

use super::error::ContextError;
use super::number::Number;
use super::run::{self, open};
use crate::cache::StateRef;
use crate::error::{Error, Result, text};
use state_cache_context::{Counter, Label, Problem, Run, ShapeError};
use state_cache_document as document;
use state_cache_memory::collect;

/// The counters that a child can be allotted, or share.
pub const SPENDABLE: [Counter; 3] = [Counter::Credits, Counter::ToolCalls, Counter::DurationMs];

/// What is charged to a run.
#[derive(Clone, Copy)]
pub enum Charge<'a> {
    /// It has used so much.
    Spend(&'a Number),
    /// A child is allotted so much.
    Reserve(&'a [u8], &'a Number),
}

impl Charge<'_> {
    /// How much it is.
    pub fn amount(&self) -> &Number {
        match self {
            Self::Spend(amount) | Self::Reserve(_, amount) => amount,
        }
    }
}

/// A run's document, looked at for its limits.
pub struct Purse<'a> {
    /// The run.
    pub run: &'a [u8],
    /// Its document.
    pub context: Run<'a>,
}

impl<'a> Purse<'a> {
    /// Opens the document of a run.
    pub fn new(state: &StateRef<'a>, document: &'a [u8]) -> Result<Self> {
        Ok(Self {
            run: state.key,
            context: open(state, document)?,
        })
    }

    fn shape(&self, field: String, error: impl Into<ShapeError>) -> Error {
        let mut error = error.into();
        if error.field.is_empty() {
            error.field = field;
        }
        run::shape(self.run, error)
    }

    fn bytes(&self, section: &str) -> Result<Option<&'a [u8]>> {
        run::section_of(self.run, &self.context, section)
    }

    /// The members of a section, none where it is not there.
    fn section(&self, name: &str) -> Result<Vec<document::Member<'a>>> {
        match self.bytes(name)? {
            Some(section) => {
                document::members(section).map_err(|error| self.shape(name.to_owned(), error))
            }
            None => Ok(Vec::new()),
        }
    }

    /// The number that a member of a section is.
    pub fn number(&self, section: &str, member: &str) -> Result<Option<Number>> {
        let Some(bytes) = self.bytes(section)? else {
            return Ok(None);
        };
        let field = || format!("{section}.{member}");
        let value = document::member(bytes, member.as_bytes())
            .map_err(|error| self.shape(field(), error))?;
        value.map(|value| self.amount(&value, field)).transpose()
    }

    /// The amount that a document is: what is negative here would be more than there is elsewhere.
    fn amount(&self, document: &[u8], field: impl Fn() -> String) -> Result<Number> {
        let problem = match Number::of_document(document) {
            Some(number) if number >= Number::zero() => return Ok(number),
            Some(_) => Problem::Negative,
            None => Problem::NotNumber,
        };
        let field = field();
        Err(run::shape(self.run, ShapeError { field, problem }))
    }

    /// The limit of a counter, if it has one.
    pub fn limit(&self, counter: Counter) -> Result<Option<Number>> {
        self.number("resourceLimits", counter.limit())
    }

    /// What the run has used of a counter.
    pub fn used(&self, counter: Counter) -> Result<Number> {
        Ok(self
            .number("usage", counter.name())?
            .unwrap_or_else(Number::zero))
    }

    /// What children were allotted, all together.
    fn reserved(&self, counter: Counter) -> Result<Number> {
        let mut sum = Number::zero();
        for (child, allotted) in self.section("reservations")? {
            sum = sum
                + self
                    .allotted(child, &allotted, counter)?
                    .unwrap_or_else(Number::zero);
        }
        Ok(sum)
    }

    /// What a child was allotted, given its member of `reservations`.
    fn allotted(&self, child: &[u8], allotted: &[u8], counter: Counter) -> Result<Option<Number>> {
        let field = || format!("reservations.{}.{}", text(child), counter.name());
        let value = document::member(allotted, counter.name().as_bytes())
            .map_err(|error| self.shape(field(), error))?;
        value.map(|value| self.amount(&value, field)).transpose()
    }

    /// What is left; `None` without a limit.
    pub fn left(&self, counter: Counter) -> Result<Option<Number>> {
        let Some(limit) = self.limit(counter)? else {
            return Ok(None);
        };
        Ok(Some(limit - self.used(counter)? - self.reserved(counter)?))
    }

    /// Whether what is charged to this run is charged to its parent too.
    pub fn shares(&self, counter: Counter) -> Result<bool> {
        let Some(shared) = self.bytes("sharedLimits")? else {
            return Ok(false);
        };
        let shared = document::elements(shared)
            .map_err(|error| self.shape("sharedLimits".to_owned(), error))?;
        Ok(shared
            .iter()
            .any(|name| document::as_string(name) == Some(counter.name().as_bytes())))
    }

    /// The run's parent, if it has one.
    pub fn parent(&self) -> Result<Option<Vec<u8>>> {
        run::text_of(self.run, &self.context, "parentRunId")
    }

    /// Raises `54000` unless so much is left; what is left after it.
    pub fn check(&self, counter: Counter, amount: &Number) -> Result<Option<Number>> {
        let (Some(limit), Some(left)) = (self.limit(counter)?, self.left(counter)?) else {
            return Ok(None);
        };
        if *amount > left {
            return Err(ContextError::Limit {
                run: text(self.run),
                counter,
                asked: amount.to_string(),
                limit: limit.to_string(),
                left: left.to_string(),
            }
            .into());
        }
        Ok(Some(left - amount.clone()))
    }

    /// The section that holds what a charge leaves.
    pub fn charged(&self, counter: Counter, charge: Charge<'_>) -> Result<Vec<u8>> {
        match charge {
            Charge::Spend(amount) => {
                let used = self.used(counter)? + amount.clone();
                self.with_member("usage", counter.name().as_bytes(), &used.document()?)
            }
            Charge::Reserve(child, amount) => {
                let before = self.section("reservations")?;
                let before = before.iter().find(|(name, _)| *name == child);
                let allotted = document::object(&[(counter.name(), amount.document()?)])
                    .and_then(|one| document::update(before.map(|(_, allotted)| &**allotted), &one))
                    .map_err(|error| self.shape("reservations".to_owned(), error))?;
                self.with_member("reservations", child, &allotted)
            }
        }
    }

    /// The updates that give a section this member.
    fn with_member(&self, section: &str, member: &[u8], value: &[u8]) -> Result<Vec<u8>> {
        let before = self.bytes(section)?;
        document::object(&[(member, value)])
            .and_then(|one| document::update(before, &one))
            .and_then(|whole| document::object(&[(section, whole)]))
            .map_err(|error| self.shape(section.to_owned(), error))
    }

    /// The children that something is reserved for.
    pub fn reserved_for(&self) -> Result<Vec<&'a [u8]>> {
        let reservations = self.section("reservations")?;
        Ok(collect(reservations.iter().map(|(child, _)| *child))?)
    }

    /// Whether anything is reserved for a child.
    pub fn has_allotted(&self, child: &[u8]) -> Result<bool> {
        Ok(self
            .section("reservations")?
            .iter()
            .any(|(name, _)| *name == child))
    }

    /// The updates that end the reservations for a child, which has used so much or all of it; `None` if there are
    /// none.
    pub fn settled(&self, child: &[u8], ended: Option<&Purse<'_>>) -> Result<Option<Vec<u8>>> {
        let reservations = self.section("reservations")?;
        let Some((_, allotted)) = reservations.iter().find(|(name, _)| *name == child) else {
            return Ok(None);
        };
        let mut usage = Vec::new();
        for counter in SPENDABLE {
            if let Some(allotted) = self.allotted(child, allotted, counter)? {
                let by_child = match ended {
                    Some(ended) => ended.used(counter)?,
                    None => allotted,
                };
                let used = self.used(counter)? + by_child;
                usage.push((counter.name(), used.document()?));
            }
        }
        let damaged = |error| self.shape("reservations".to_owned(), error);
        let rest = match self.bytes("reservations")? {
            Some(section) => document::without(section, &[child]).map_err(damaged)?,
            None => return Ok(None),
        };
        let before = self.bytes("usage")?;
        let usage = document::object(&usage)
            .and_then(|usage| document::update(before, &usage))
            .map_err(damaged)?;
        document::object(&[("reservations", rest), ("usage", usage)])
            .map(Some)
            .map_err(damaged)
    }
}

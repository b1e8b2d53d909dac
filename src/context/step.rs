//! The step that a run is in: a label of the runner's own, since the steps of runs are no fixed list.

use super::claim::{fence, under};
use super::run::{self, malformed};
use crate::call::{self, sql_functions};
use crate::error::{Error, Result};
use crate::transaction::{self, Edit, Operation};
use state_cache_context::{LONGEST, Run};
use state_cache_document as document;
use state_cache_memory::{boxed, copy};
use std::rc::Rc;

/// The field of the document.
const STEP: &str = "step";

/// A change of the step.
struct SetStep {
    run: Box<[u8]>,
    /// What it is called; `None` for none.
    label: Option<Box<[u8]>>,
    /// The token of the claim under which it is made.
    token: Option<i64>,
}

impl Edit for SetStep {
    fn apply(&self, base: Option<&[u8]>) -> Result<Vec<u8>> {
        let base = base.ok_or_else(|| run::gone(&self.run, self.token))?;
        let context = Run::open(base, &self.run).map_err(|error| run::shape(&self.run, error))?;
        run::check_running_under(&self.run, &context, self.token)?;
        if run::text_of(&self.run, &context, STEP)?.as_deref() == self.label.as_deref() {
            return Ok(copy(base)?);
        }
        match &self.label {
            None => document::without(base, &[STEP.as_bytes()]),
            Some(label) => document::string(label)
                .and_then(|label| document::object(&[(STEP, label)]))
                .and_then(|updates| document::update(Some(base), &updates)),
        }
        .map_err(malformed(&self.run))
    }

    fn bytes(&self) -> usize {
        self.label.as_deref().map_or(0, <[u8]>::len)
    }
}

sql_functions! {
    /// `state_context_step(run_id, label, token)`
    fn state_context_step(call) {
        let function = c"state_context_step()";
        let state = run::named(call, 0)?;
        let label = call.text(1);
        if label.is_some_and(|label| !(1..=LONGEST).contains(&label.len())) {
            return Err(Error::argument(format!("label must have 1 to {LONGEST} bytes")));
        }
        let token = call.bigint(2);
        transaction::check_may_change(&state, function)?;
        under(&state, token, || run::require(&state))?;
        fence(&state, token)?;
        let edit = SetStep {
            run: state.key.into(),
            label: label.map(boxed).transpose()?,
            token: transaction::fence_of(&state)?,
        };
        transaction::apply(&state, Operation::Edit(Rc::new(edit)), function)?;
        Ok(call::void_datum())
    }
}

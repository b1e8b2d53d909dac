//! The SQL functions that change states, and those that work on the batch as a whole.

use super::staged::{Operation, State};
use super::{Batch, Explicit, OnConflict, change, flush, with};
use crate::cache::StateRef;
use crate::call::{self, Call, sql_functions};
use crate::catalog;
use crate::error::{Error, Result, text};
use crate::snapshot::PushedSnapshot;
use std::collections::HashMap;
use std::rc::Rc;

/// The state that a call changes.
fn state<'a>(call: &Call<'a>, class: usize) -> Result<StateRef<'a>> {
    let key = call.required_text(0, "key")?;
    let class = call.required_text(class, "class")?;
    StateRef::new(&catalog::current(call.function())?, class, key)
}

/// An argument `path`, none of whose elements may be NULL.
fn path(call: &Call<'_>, n: usize) -> Result<Vec<Vec<u8>>> {
    let path = call
        .text_array(n)
        .ok_or_else(|| Error::null_argument("path"))?;
    let path: Option<Vec<_>> = path
        .into_iter()
        .map(|part| part.map(<[u8]>::to_vec))
        .collect();
    path.ok_or_else(|| Error::argument("path must not contain null"))
}

sql_functions! {
    /// `state_set(key, state, expected_version, ttl, class)`
    fn state_set(call) {
        let state = state(call, 4)?;
        let document = call.required_jsonb(1, "state")?;
        change::set(&state, document, call.bigint(2), call.interval(3), c"state_set()")?;
        Ok(call::void_datum())
    }

    /// `state_update(key, updates, class)`
    fn state_update(call) {
        let state = state(call, 2)?;
        let updates = call.required_jsonb(1, "updates")?.to_vec();
        change::apply(&state, Operation::Update(updates), c"state_update()")?;
        Ok(call::void_datum())
    }

    /// `state_update_section(key, section, updates, class)`
    fn state_update_section(call) {
        let state = state(call, 3)?;
        let section = call.required_text(1, "section")?.to_vec();
        let updates = call.required_jsonb(2, "updates")?.to_vec();
        change::apply(&state, Operation::UpdateSection { section, updates }, c"state_update_section()")?;
        Ok(call::void_datum())
    }

    /// `state_merge(key, patch, class)`
    fn state_merge(call) {
        let state = state(call, 2)?;
        let patch = call.required_jsonb(1, "patch")?.to_vec();
        change::apply(&state, Operation::Merge(patch), c"state_merge()")?;
        Ok(call::void_datum())
    }

    /// `state_append(key, path, value, class)`
    fn state_append(call) {
        let state = state(call, 3)?;
        let path = path(call, 1)?;
        let value = call.required_jsonb(2, "value")?.to_vec();
        change::apply(&state, Operation::Append { path, value }, c"state_append()")?;
        Ok(call::void_datum())
    }

    /// `state_delete(key, expected_version, class)`
    fn state_delete(call) {
        let state = state(call, 2)?;
        Ok(call::boolean_datum(change::delete(&state, call.bigint(1), c"state_delete()")?))
    }

    /// `state_touch(key, ttl, class)`
    fn state_touch(call) {
        let state = state(call, 2)?;
        let expires_at = match call.interval(1) {
            Some(ttl) => change::expires_after(&ttl)?,
            None => i64::MAX,
        };
        Ok(call::boolean_datum(change::touch(&state, expires_at, c"state_touch()")?))
    }

    /// `state_batch_begin(on_conflict)`
    fn state_batch_begin(call) {
        let on_conflict = match call.required_text(0, "on_conflict")? {
            b"error" => OnConflict::Error,
            b"reapply" => OnConflict::Reapply,
            b"overwrite" => OnConflict::Overwrite,
            other => {
                return Err(Error::Argument {
                    message: format!("on_conflict \"{}\" is not known", text(other)),
                    hint: Some("It is error, reapply or overwrite."),
                });
            }
        };
        with(|batch| batch.begin(on_conflict))?;
        Ok(call::void_datum())
    }

    /// `state_batch_commit()`
    fn state_batch_commit(call) {
        let outcomes = {
            let _snapshot = PushedSnapshot::transaction();
            flush::flush()?
        };
        with(Batch::end);
        let mut rows = call.rows();
        for outcome in outcomes {
            rows.push([
                Some(call::varlena_datum(&outcome.state.class.name)),
                Some(call::varlena_datum(&outcome.state.key)),
                (outcome.version > 0).then(|| call::bigint_datum(outcome.version)),
                Some(call::varlena_datum(outcome.action.name().as_bytes())),
                Some(call::count_datum(outcome.bytes as u64)),
            ]);
        }
        Ok(call::void_datum())
    }

    /// `state_batch_rollback()`
    fn state_batch_rollback(_call) {
        with(Batch::roll_back);
        Ok(call::void_datum())
    }

    /// `state_batch_status()`
    fn state_batch_status(call) {
        let mut known = with(|batch| {
            let shown = batch.states.values().filter(|state| state.is_dirty() || state.base.is_some());
            shown.cloned().collect::<Vec<_>>()
        });
        known.sort_by(|a, b| (&a.class.name, &a.key).cmp(&(&b.class.name, &b.key)));
        let mut rows = call.rows();
        for state in known {
            rows.push([
                Some(call::varlena_datum(&state.class.name)),
                Some(call::varlena_datum(&state.key)),
                Some(call::boolean_datum(state.is_dirty())),
                state.built_upon().map(call::bigint_datum),
                Some(call::count_datum(state.staged_bytes() as u64)),
            ]);
        }
        Ok(call::void_datum())
    }
}

impl Batch {
    /// Opens an explicit batch; `55000` if one is open.
    fn begin(&mut self, on_conflict: OnConflict) -> Result<()> {
        if self.scope.explicit.is_some() {
            return Err(Error::NestedBatch);
        }
        self.frames.save_scope(&self.scope);
        let staged = self.states.iter().filter(|(_, state)| state.is_dirty());
        let before: HashMap<_, _> = staged.map(|(id, state)| (*id, state.clone())).collect();
        self.scope.explicit = Some(Explicit {
            on_conflict,
            before: Rc::new(before),
        });
        Ok(())
    }

    /// Closes the explicit batch, if one is open: what it has read no longer matters.
    fn end(&mut self) {
        for (id, state) in self
            .states
            .iter_mut()
            .filter(|(_, state)| state.base.is_some())
        {
            self.frames.save(*id, Some(state), &self.scope);
            state.base = None;
        }
        self.frames.save_scope(&self.scope);
        self.scope.explicit = None;
    }

    /// Drops what the explicit batch has staged, or if none is open everything staged but what was decided for good.
    fn roll_back(&mut self) {
        let before = match &self.scope.explicit {
            Some(explicit) => Rc::clone(&explicit.before),
            None => Rc::clone(&self.scope.kept),
        };
        for (id, state) in self.states.iter_mut().filter(|(_, state)| state.is_dirty()) {
            self.frames.save(*id, Some(state), &self.scope);
            match before.get(id) {
                Some(saved) => {
                    // The transaction goes on under the token that it named last, and upon what it has flushed.
                    let (fence, flushed) = (state.fence, state.flushed.take());
                    *state = saved.clone();
                    (state.fence, state.flushed) = (fence, flushed);
                }
                None => state.unstage(),
            }
        }
        self.end();
    }
}

impl State {
    /// Version (0: absent) that the staged changes build upon, as far as it is known.
    fn built_upon(&self) -> Option<i64> {
        use super::staged::Intent;
        let pending = self.pending.as_ref();
        let staged_on = pending.and_then(|pending| match pending.intent {
            Intent::Apply { base, .. } => Some(base.number),
            _ => pending.expected,
        });
        self.base
            .as_ref()
            .map(|base| base.ground.number)
            .or(staged_on)
    }
}

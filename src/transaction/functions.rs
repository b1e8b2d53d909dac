//! The SQL functions that change states, and those that work on the batch as a whole.

use super::explicit::Whose;
use super::staged::{Operation, State};
use super::{Batch, OnConflict, change, flush, with};
use crate::cache::StateRef;
use crate::call::{self, Call, sql_functions};
use crate::catalog;
use crate::error::{self, Error, Result, text};
use crate::identity::is_sandboxed;
use crate::memory::checked;
use crate::snapshot::PushedSnapshot;
use crate::sys;
use state_cache_memory::{copy, try_collect};

/// The state that a call changes.
fn state<'a>(call: &Call<'a>, class: usize) -> Result<StateRef<'a>> {
    let key = call.required_text(0, "key")?;
    let class = call.required_text(class, "class")?;
    StateRef::new(&catalog::current(call.function())?, class, key)
}

/// An argument `path`, none of whose elements may be NULL.
fn path(call: &Call<'_>, n: usize) -> Result<Vec<Vec<u8>>> {
    let path = call
        .text_array(n)?
        .ok_or_else(|| Error::null_argument("path"))?;
    try_collect(path.into_iter().map(|part| {
        let part = part.ok_or_else(|| Error::argument("path must not contain null"))?;
        Ok(copy(part)?)
    }))
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
        let updates = call.required_jsonb(1, "updates")?;
        let updates = copy(updates)?;
        change::apply(&state, Operation::Update(updates), c"state_update()")?;
        Ok(call::void_datum())
    }

    /// `state_update_section(key, section, updates, class)`
    fn state_update_section(call) {
        let state = state(call, 3)?;
        let section = call.required_text(1, "section")?;
        let section = copy(section)?;
        let updates = call.required_jsonb(2, "updates")?;
        let updates = copy(updates)?;
        change::apply(&state, Operation::UpdateSection { section, updates }, c"state_update_section()")?;
        Ok(call::void_datum())
    }

    /// `state_merge(key, patch, class)`
    fn state_merge(call) {
        let state = state(call, 2)?;
        let patch = call.required_jsonb(1, "patch")?;
        let patch = copy(patch)?;
        change::apply(&state, Operation::Merge(patch), c"state_merge()")?;
        Ok(call::void_datum())
    }

    /// `state_append(key, path, value, class)`
    fn state_append(call) {
        let state = state(call, 3)?;
        let path = path(call, 1)?;
        let value = call.required_jsonb(2, "value")?;
        let value = copy(value)?;
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
        call.require_block("state_batch_begin()")?;
        // Its batch would outlive it.
        if is_sandboxed() {
            return Err(Error::RestrictedBatch);
        }
        with(|batch| batch.begin(on_conflict))?;
        Ok(call::void_datum())
    }

    /// `state_batch_commit()`
    fn state_batch_commit(call) {
        let outcomes = {
            let _snapshot = PushedSnapshot::transaction();
            flush::flush(Whose::Role(sys::current_user()))?
        };
        with(Batch::end)?;
        if outcomes.is_empty() && call.is_alone() {
            error::warn_no_block("state_batch_commit()");
        }
        let mut rows = call.rows()?;
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
    fn state_batch_rollback(call) {
        if !with(Batch::roll_back)? {
            match call.is_alone() {
                true => error::warn_no_block("state_batch_rollback()"),
                false => error::notice_nothing_staged(),
            }
        }
        Ok(call::void_datum())
    }

    /// `state_batch_status()`
    fn state_batch_status(call) {
        let role = sys::current_user();
        let mut known = with(|batch| {
            let shown = batch.states.values().filter(|it| it.is_staged_by(role) || it.base_of(role).is_some());
            checked(shown.cloned())
        })?;
        known.sort_unstable_by(|a, b| (&a.class.name, &a.key).cmp(&(&b.class.name, &b.key)));
        let mut rows = call.rows()?;
        for state in known {
            let staged = if state.is_staged_by(role) { state.staged_bytes() } else { 0 };
            rows.push([
                Some(call::varlena_datum(&state.class.name)),
                Some(call::varlena_datum(&state.key)),
                Some(call::boolean_datum(state.is_staged_by(role))),
                state.built_upon(role).map(call::bigint_datum),
                Some(call::count_datum(staged as u64)),
            ]);
        }
        Ok(call::void_datum())
    }
}

impl State {
    /// Version (0: absent) that a role's staged changes build upon, or that its batch has read, as far as it is known.
    fn built_upon(&self, role: pgrx::pg_sys::Oid) -> Option<i64> {
        use super::staged::Intent;
        let pending = self.pending.as_ref().filter(|it| it.stager.user == role);
        let staged_on = pending.and_then(|pending| match pending.intent {
            Intent::Apply { base, .. } => Some(base.number),
            _ => pending.expected,
        });
        self.base_of(role)
            .map(|base| base.ground.number)
            .or(staged_on)
    }
}

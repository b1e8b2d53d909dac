//! The SQL functions that work on the explicit batch of the current role as a whole.

use crate::call::{self, sql_functions};
use crate::error::{self, Error, text};
use crate::transaction::{self, OnConflict};

sql_functions! {
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
        transaction::begin_batch(on_conflict)?;
        Ok(call::void_datum())
    }

    /// `state_batch_commit()`
    fn state_batch_commit(call) {
        let outcomes = transaction::commit_batch()?;
        if outcomes.is_empty() && call.is_alone() {
            error::warn_no_block("state_batch_commit()");
        }
        let mut rows = call.rows()?;
        for outcome in outcomes {
            rows.push([
                Some(call::varlena_datum(&outcome.class.name)),
                Some(call::varlena_datum(&outcome.key)),
                (outcome.version > 0).then(|| call::bigint_datum(outcome.version)),
                Some(call::varlena_datum(<&str>::from(outcome.action).as_bytes())),
                Some(call::count_datum(outcome.bytes as u64)),
            ]);
        }
        Ok(call::void_datum())
    }

    /// `state_batch_rollback()`
    fn state_batch_rollback(call) {
        if !transaction::roll_back_batch()? {
            match call.is_alone() {
                true => error::warn_no_block("state_batch_rollback()"),
                false => error::notice_nothing_staged(),
            }
        }
        Ok(call::void_datum())
    }

    /// `state_batch_status()`
    fn state_batch_status(call) {
        let known = transaction::batch_status()?;
        let mut rows = call.rows()?;
        for state in known {
            rows.push([
                Some(call::varlena_datum(&state.class)),
                Some(call::varlena_datum(&state.key)),
                Some(call::boolean_datum(state.is_staged)),
                state.built_upon.map(call::bigint_datum),
                Some(call::count_datum(state.staged_bytes as u64)),
            ]);
        }
        Ok(call::void_datum())
    }
}

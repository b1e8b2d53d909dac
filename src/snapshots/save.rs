//! Checkpoints.

use super::labels::{check_phase, check_type};
use crate::cache::StateRef;
use crate::call::{self, Call, sql_functions};
use crate::error::Result;
use crate::store::{AUTO, Checkpoint};
use crate::transaction::{self, Saved};
use crate::{catalog, json_text};
use pgrx::pg_sys;
use state_cache_memory::{boxed, copy};
use std::ffi::CStr;

sql_functions! {
    /// `state_save(key, state, checkpoint_type, agent_phase, recovery_point, execution_context, expected_version,
    /// ttl, class)`
    fn state_save(call) {
        let class = call.required_text(8, "class")?;
        let document = call.required_jsonb(1, "state")?;
        save(call, class, document, c"state_save()")
    }

    /// `state_save_text(key, state, checkpoint_type, agent_phase, recovery_point, execution_context,
    /// expected_version, ttl, on_invalid, class)`
    fn state_save_text(call) {
        let class = call.required_text(9, "class")?;
        let document = json_text::argument(call, 1, 8)?;
        save(call, class, &document, c"state_save_text()")
    }
}

/// What both functions do with a document; their arguments up to `ttl` are the same.
fn save(
    call: &mut Call<'_>,
    class: &[u8],
    document: &[u8],
    function: &CStr,
) -> Result<pg_sys::Datum> {
    let key = call.required_text(0, "key")?;
    let state = StateRef::new(&catalog::current(call.function())?, class, key)?;
    let checkpoint = Checkpoint {
        checkpoint_type: boxed(call.text(2).unwrap_or(AUTO))?,
        recovery_point: call.boolean(4).unwrap_or(false),
        agent_phase: call.text(3).map(boxed).transpose()?,
        execution_context: call.jsonb(5).map(copy).transpose()?,
        parent: None,
    };
    check_type(&state.class, &checkpoint.checkpoint_type)?;
    if let Some(phase) = &checkpoint.agent_phase {
        check_phase(&state.class, phase)?;
    }
    let Saved { action, version } = transaction::save(
        &state,
        document,
        checkpoint,
        call.bigint(6),
        call.interval(7),
        function,
    )?;
    call.rows()?.push([
        Some(call::varlena_datum(<&str>::from(action).as_bytes())),
        Some(call::bigint_datum(version)),
    ]);
    Ok(call::void_datum())
}

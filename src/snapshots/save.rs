//! Checkpoints.

use super::labels::{check_phase, check_type};
use crate::cache::StateRef;
use crate::call::{self, Call, sql_functions};
use crate::error::{Error, Result};
use crate::snapshot::PushedSnapshot;
use crate::store::{self, AUTO, Checkpoint};
use crate::transaction::{self, Saved};
use crate::{catalog, context, json_text};
use pgrx::pg_sys;
use state_cache_memory::{boxed, copy};
use std::ffi::CStr;

sql_functions! {
    /// `state_save(key, state, checkpoint_type, agent_phase, recovery_point, execution_context, expected_version,
    /// ttl, label, parent_version, payload, class)`
    fn state_save(call) {
        let class = call.required_text(11, "class")?;
        let document = call.required_jsonb(1, "state")?;
        save(call, class, document, 8, c"state_save()")
    }

    /// `state_save_text(key, state, checkpoint_type, agent_phase, recovery_point, execution_context,
    /// expected_version, ttl, on_invalid, label, parent_version, payload, class)`
    fn state_save_text(call) {
        let class = call.required_text(12, "class")?;
        let document = json_text::argument(call, 1, 8)?;
        save(call, class, &document, 9, c"state_save_text()")
    }
}

/// The most bytes of a label: an index holds it.
const MAX_LABEL: usize = 255;

/// The label of a version, `22023` unless it has 1 to 255 bytes.
fn check_label(label: &[u8]) -> Result<()> {
    match (1..=MAX_LABEL).contains(&label.len()) {
        true => Ok(()),
        false => Err(Error::argument(format!(
            "label must have 1 to {MAX_LABEL} bytes, not {}",
            label.len()
        ))),
    }
}

/// The version that the caller says it goes on from: `22023` for a negative one, and `42704` for one that is not kept
/// when this is asked. 0 says that there is none.
fn check_made_from(state: &StateRef<'_>, version: i64) -> Result<()> {
    if version < 0 {
        return Err(Error::argument(format!(
            "parent_version must not be negative: {version}"
        )));
    }
    if version == 0 {
        // What has no parent begins a run (`lives`).
        return match context::is_run(state) {
            true => Err(Error::argument("a version of a run has a parent")),
            false => Ok(()),
        };
    }
    let _snapshot = PushedSnapshot::transaction();
    let (catalog, class) = (&*state.catalog, &*state.class.name);
    match store::label(catalog, class, state.key, version)? {
        Some(_) => Ok(()),
        None => Err(Error::VersionNotKept {
            state: state.shown(),
            version,
        }),
    }
}

/// What both functions do with a document; their arguments up to `ttl` are the same, and those from `label` on.
fn save(
    call: &mut Call<'_>,
    class: &[u8],
    document: &[u8],
    label: usize,
    function: &CStr,
) -> Result<pg_sys::Datum> {
    let key = call.required_text(0, "key")?;
    let state = StateRef::new(&catalog::current(call.function())?, class, key)?;
    let payload = call.bytea(label + 2);
    let checkpoint = Checkpoint {
        checkpoint_type: boxed(call.text(2).unwrap_or(AUTO))?,
        recovery_point: call.boolean(4).unwrap_or(false),
        agent_phase: call.text(3).map(boxed).transpose()?,
        execution_context: call.jsonb(5).map(copy).transpose()?,
        parent: None,
        label: call.text(label).map(boxed).transpose()?,
        made_from: call.bigint(label + 1),
        payload: payload.map(copy).transpose()?,
    };
    check_type(&state.class, &checkpoint.checkpoint_type)?;
    if let Some(phase) = &checkpoint.agent_phase {
        check_phase(&state.class, phase)?;
    }
    if let Some(label) = &checkpoint.label {
        check_label(label)?;
    }
    if let Some(payload) = payload {
        transaction::check_size(&state, payload)?;
    }
    if let Some(parent) = checkpoint.made_from {
        check_made_from(&state, parent)?;
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

//! Checkpoints.

use super::labels::{check_phase, check_type};
use crate::cache::StateRef;
use crate::call::{self, sql_functions};
use crate::catalog;
use crate::store::{AUTO, Checkpoint};
use crate::transaction::{self, Saved};
use state_cache_memory::{boxed, copy};

sql_functions! {
    /// `state_save(key, state, checkpoint_type, agent_phase, recovery_point, execution_context, expected_version, ttl, class)`
    fn state_save(call) {
        let key = call.required_text(0, "key")?;
        let class = call.required_text(8, "class")?;
        let state = StateRef::new(&catalog::current(call.function())?, class, key)?;
        let document = call.required_jsonb(1, "state")?;
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
        let Saved { action, version } =
            transaction::save(&state, document, checkpoint, call.bigint(6), call.interval(7), c"state_save()")?;
        call.rows()?.push([
            Some(call::varlena_datum(<&str>::from(action).as_bytes())),
            Some(call::bigint_datum(version)),
        ]);
        Ok(call::void_datum())
    }
}

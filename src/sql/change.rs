//! The SQL functions that change states.

use crate::cache::StateRef;
use crate::cache::forms::Document;
use crate::call::{self, Call, sql_functions};
use crate::catalog;
use crate::error::{Error, Result};
use crate::json_text;
use crate::store::{AUTO, Checkpoint};
use crate::transaction::{self, Operation};
use state_cache_document as document;
use state_cache_memory::{boxed, copy, try_collect};
use std::ffi::CStr;

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

/// Whether an append makes what is missing.
fn create(call: &Call<'_>) -> Result<bool> {
    call.boolean(4)
        .ok_or_else(|| Error::null_argument("create"))
}

sql_functions! {
    /// `state_set(key, state, expected_version, ttl, class)`
    fn state_set(call) {
        let state = state(call, 4)?;
        let document = call.required_document(1, "state")?;
        transaction::set(&state, document, call.bigint(2), call.interval(3), c"state_set()")?;
        Ok(call::void_datum())
    }

    /// `state_set_text(key, state, expected_version, ttl, on_invalid, class)`
    fn state_set_text(call) {
        let state = state(call, 5)?;
        let document = json_text::argument(call, 1, 4)?;
        transaction::set(&state, (&*document).into(), call.bigint(2), call.interval(3), c"state_set_text()")?;
        Ok(call::void_datum())
    }

    /// `state_update(key, updates, class)`
    fn state_update(call) {
        let state = state(call, 2)?;
        let updates = call.required_jsonb(1, "updates")?;
        let updates = copy(updates)?;
        transaction::apply(&state, Operation::Update(updates), c"state_update()")?;
        Ok(call::void_datum())
    }

    /// `state_update_section(key, section, updates, class)`
    fn state_update_section(call) {
        let state = state(call, 3)?;
        let section = call.required_text(1, "section")?;
        let section = copy(section)?;
        let updates = call.required_jsonb(2, "updates")?;
        let updates = copy(updates)?;
        transaction::apply(&state, Operation::UpdateSection { section, updates }, c"state_update_section()")?;
        Ok(call::void_datum())
    }

    /// `state_merge(key, patch, class)`
    fn state_merge(call) {
        let state = state(call, 2)?;
        let patch = call.required_jsonb(1, "patch")?;
        let patch = copy(patch)?;
        transaction::apply(&state, Operation::Merge(patch), c"state_merge()")?;
        Ok(call::void_datum())
    }

    /// `state_put(key, state, expected_version, ttl, class)`
    fn state_put(call) {
        let state = state(call, 4)?;
        let document = call.required_jsonb(1, "state")?;
        let checkpoint = Checkpoint {
            checkpoint_type: boxed(AUTO)?,
            ..Checkpoint::default()
        };
        let (expected, ttl) = (call.bigint(2), call.interval(3));
        let saved = transaction::save(&state, document, checkpoint, expected, ttl, c"state_put()")?;
        Ok(call::bigint_datum(saved.version))
    }

    /// `state_append(key, path, value, class, create)`
    fn state_append(call) {
        let state = state(call, 3)?;
        let path = path(call, 1)?;
        let value = call.required_jsonb(2, "value")?;
        let operation = match create(call)? {
            false => Operation::Append { path, value: copy(value)? },
            true => {
                let values = document::array(&[value]).map_err(|error| Error::Document {
                    state: state.shown(),
                    place: String::new(),
                    error,
                })?;
                Operation::AppendAll { path, values, create: true }
            }
        };
        transaction::apply(&state, operation, c"state_append()")?;
        Ok(call::void_datum())
    }

    /// `state_append_many(key, path, values, class, create)`
    fn state_append_many(call) {
        let state = state(call, 3)?;
        let path = path(call, 1)?;
        let values = call.required_jsonb(2, "values")?;
        if !document::is_array(values) {
            return Err(Error::argument("values must be an array"));
        }
        let operation = Operation::AppendAll { path, values: copy(values)?, create: create(call)? };
        transaction::apply(&state, operation, c"state_append_many()")?;
        Ok(call::void_datum())
    }

    /// `state_pop(key, path, class)`
    fn state_pop(call) {
        const FUNCTION: &CStr = c"state_pop()";
        let state = state(call, 2)?;
        let path = path(call, 1)?;
        // What is given to the caller must be what the flush takes off.
        transaction::lock(&state, FUNCTION)?;
        let Some((_, found)) = transaction::read_locked(&state, &mut Document)?.state() else {
            return Ok(call.null());
        };
        let operation = Operation::Pop { path };
        match operation.popped(&state, &found)? {
            None => Ok(call.null()),
            Some(popped) => {
                transaction::apply_locked(&state, operation, FUNCTION)?;
                Ok(call::varlena_datum(&popped))
            }
        }
    }

    /// `state_delete(key, expected_version, class)`
    fn state_delete(call) {
        let state = state(call, 2)?;
        Ok(call::boolean_datum(transaction::delete(&state, call.bigint(1), c"state_delete()")?))
    }

    /// `state_touch(key, ttl, class)`
    fn state_touch(call) {
        let state = state(call, 2)?;
        Ok(call::boolean_datum(transaction::touch(&state, call.interval(1), c"state_touch()")?))
    }
}

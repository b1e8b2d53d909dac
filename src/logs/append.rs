//! `state_log_append` and `state_log_erase`.

use super::lock::lock;
use crate::cache::StateRef;
use crate::call::{self, Call, sql_functions};
use crate::catalog;
use crate::error::{Error, Result, text};
use crate::store::{self, LogPlace, NewEntries};
use crate::{settings, transaction, varlena};
use pgrx::pg_sys;
use state_cache_document as document;
use std::ffi::CStr;

/// Longest `ref` and `id`, in bytes: class, key and both stand in one row of an index.
const MAX_NAME: usize = 255;
/// What an `id` that the extension makes begins with, so that no caller's is one.
const OWN_ID: u8 = b'#';

/// The state whose log a call changes.
fn changing<'a>(call: &Call<'a>, class: usize, function: &CStr) -> Result<StateRef<'a>> {
    let class = call.required_text(class, "class")?;
    let key = call.required_text(0, "key")?;
    let state = StateRef::new(&catalog::current(call.function())?, class, key)?;
    call::check_may_write(function)?;
    match state.class.source {
        None => Ok(state),
        Some(_) => Err(Error::Computed {
            state: state.shown(),
        }),
    }
}

/// What entries belong to, `""` for nothing; `22023` if it is too long.
pub(super) fn reference(given: Option<&[u8]>) -> Result<&[u8]> {
    let given = given.unwrap_or_default();
    match given.len() {
        ..=MAX_NAME => Ok(given),
        len => Err(Error::argument(format!(
            "ref must have at most {MAX_NAME} bytes: {len}"
        ))),
    }
}

/// Checks the ids of entries; how many there are.
fn check_ids(ids: &[Option<&[u8]>]) -> Result<usize> {
    for id in ids {
        let id = id.ok_or_else(|| Error::argument("ids must not contain null"))?;
        if id.is_empty() || id.len() > MAX_NAME {
            return Err(Error::argument(format!(
                "an id must have 1 to {MAX_NAME} bytes: {}",
                id.len()
            )));
        }
        if id[0] == OWN_ID {
            return Err(Error::Argument {
                message: format!("id \"{}\" begins with #", text(id)),
                hint: Some("Such ids are those of entries that were appended without ids."),
            });
        }
    }
    Ok(ids.len())
}

/// The number of elements of a `bytea[]`; `54000` for one that is too large.
fn check_payloads(state: &StateRef<'_>, payloads: pg_sys::Datum) -> Result<usize> {
    let limit = settings::max_state_size();
    // SAFETY: the SQL declaration says bytea[]; the elements live as long as the call.
    let payloads = unsafe { varlena::bytea_elements(payloads)? };
    let largest = payloads.iter().flatten().map(|payload| payload.len()).max();
    match largest {
        Some(size) if size > limit => Err(Error::TooLarge {
            state: state.shown(),
            size,
            limit,
        }),
        _ => Ok(payloads.len()),
    }
}

/// `22023` unless two lists that a call gives are of one length.
fn check_length(name: &str, length: usize, entries: usize) -> Result<()> {
    match length == entries {
        true => Ok(()),
        false => Err(Error::argument(format!(
            "{name} must have as many elements as there are entries: {length} of {entries}"
        ))),
    }
}

sql_functions! {
    /// `state_log_append(key, entries, ref, ids, replace, payloads, class)`
    fn state_log_append(call) {
        let state = changing(call, 6, c"state_log_append()")?;
        let reference = reference(call.text(2))?;
        let replace = call.boolean(4).ok_or_else(|| Error::null_argument("replace"))?;
        let entries = match call.jsonb(1) {
            None => None,
            Some(entries) => {
                transaction::check_size(&state, entries)?;
                let count = document::array_length(entries)
                    .ok_or_else(|| Error::argument("entries must be an array"))?;
                Some(count)
            }
        };
        let payloads = call.argument(5).map(|payloads| check_payloads(&state, payloads)).transpose()?;
        let Some(count) = entries.or(payloads) else {
            return Err(Error::argument("entries and payloads must not both be null"));
        };
        if let Some(payloads) = payloads {
            check_length("payloads", payloads, count)?;
        }
        if let Some(ids) = call.text_array(3)? {
            check_length("ids", check_ids(&ids)?, count)?;
        }
        if count == 0 {
            return Ok(call::bigint_datum(0));
        }
        lock(&state);
        // Whoever held the lock may have dropped the extension.
        catalog::require_same(&state.catalog)?;
        let place = LogPlace { class: &state.class.name, key: state.key };
        let new = NewEntries {
            reference,
            entries: call.argument(1),
            ids: call.argument(3),
            payloads: call.argument(5),
        };
        let stored = match replace {
            false => store::append_to_log(&state.catalog, &place, &new)?,
            true => store::replace_in_log(&state.catalog, &place, &new)?,
        };
        Ok(call::bigint_datum(stored))
    }

    /// `state_log_erase(key, refs, class)`
    fn state_log_erase(call) {
        let state = changing(call, 2, c"state_log_erase()")?;
        let place = LogPlace { class: &state.class.name, key: state.key };
        lock(&state);
        catalog::require_same(&state.catalog)?;
        let erased = match call.argument(1) {
            None => store::erase_log(&state.catalog, &place)?,
            Some(refs) => store::erase_from_log(&state.catalog, &place, refs)?,
        };
        Ok(call::bigint_datum(erased))
    }
}

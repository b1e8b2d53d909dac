//! Looking at the kept versions.

use super::damage;
use crate::cache::StateRef;
use crate::cache::forms::{Document, Head};
use crate::cache::found::Found;
use crate::call::{self, Call, sql_functions};
use crate::catalog;
use crate::error::{Error, Result};
use crate::store::{self, Contexts};
use crate::sys;
use crate::transaction;

fn state<'a>(call: &Call<'a>, class: usize) -> Result<StateRef<'a>> {
    let key = call.required_text(0, "key")?;
    let class = call.required_text(class, "class")?;
    StateRef::new(&catalog::current(call.function())?, class, key)
}

fn required_version(call: &Call<'_>, n: usize, name: &str) -> Result<i64> {
    call.bigint(n).ok_or_else(|| Error::null_argument(name))
}

/// The document of a version as the active snapshot has it: a kept one, or the current one where no row holds it
/// yet; `None` if there is neither.
pub fn document(state: &StateRef<'_>, version: i64) -> Result<Option<Vec<u8>>> {
    match store::kept_in_walk(&state.catalog, &state.class.name, state.key, version)? {
        Some(Ok(kept)) => Ok(Some(kept.document)),
        Some(Err(fault)) => Err(Error::Damaged {
            state: state.shown(),
            version,
            fault,
        }),
        // Of a version that is not kept there is nothing to say, in whatever condition the current one is.
        None if current_version(state)? != Some(version) => Ok(None),
        None => Ok(match transaction::read(state, &mut Document)? {
            Found::State(found, document) if found.number == version => Some(document),
            Found::State(..) | Found::Absent(_) => None,
        }),
    }
}

fn current_version(state: &StateRef<'_>) -> Result<Option<i64>> {
    Ok(match transaction::read(state, &mut Head)? {
        Found::State(found, ()) => Some(found.number),
        Found::Absent(_) => None,
    })
}

/// The same where the caller relies on it: `42704` if it is not kept.
pub fn required_document(state: &StateRef<'_>, version: i64) -> Result<Vec<u8>> {
    document(state, version)?.ok_or_else(|| Error::VersionNotKept {
        state: state.shown(),
        version,
    })
}

sql_functions! {
    /// `state_at(key, version, class)`
    fn state_at(call) {
        let state = state(call, 2)?;
        let version = required_version(call, 1, "version")?;
        let document = document(&state, version)?;
        Ok(call.nullable(document.map(|document| call::varlena_datum(&document))))
    }

    /// `state_diff(key, from_version, to_version, class)`
    fn state_diff(call) {
        let state = state(call, 3)?;
        let from = required_document(&state, required_version(call, 1, "from_version")?)?;
        let to = required_document(&state, required_version(call, 2, "to_version")?)?;
        let patch = state_cache_document::diff(&from, &to, sys::check_stack).map_err(|error| Error::Document {
            state: state.shown(),
            place: String::new(),
            error,
        })?;
        Ok(call::varlena_datum(&patch))
    }

    /// `state_history(key, class)`
    fn state_history(call) {
        let state = state(call, 1)?;
        let name = (&*state.class.name, state.key);
        let versions = damage::versions(&state.catalog, name, Contexts::Read)?;
        let mut rows = call.rows()?;
        for version in versions {
            let label = version.label;
            rows.push([
                Some(call::bigint_datum(version.number)),
                version.parent.map(call::bigint_datum),
                Some(call::varlena_datum(&label.checkpoint_type)),
                label.agent_phase.as_deref().map(call::varlena_datum),
                Some(call::boolean_datum(label.recovery_point)),
                label.execution_context.as_deref().map(call::varlena_datum),
                Some(call::varlena_datum(<&str>::from(version.encoding).as_bytes())),
                Some(call::bigint_datum(version.bytes_stored)),
                Some(call::bigint_datum(version.bytes)),
                Some(call::bigint_datum(version.created_at)),
            ]);
        }
        Ok(call::void_datum())
    }
}

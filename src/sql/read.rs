//! The SQL functions that read states.

use crate::cache::StateRef;
use crate::cache::forms::{Jsonb, Nothing, Path, Section, Text};
use crate::cache::found::Form;
use crate::call::{self, Call, Scratch, sql_functions};
use crate::catalog;
use crate::causal::Least;
use crate::error::{Error, Result};
use crate::{derived, transaction};
use state_cache_memory::{collect, try_collect};

/// The state that a call names; `None` for a NULL key, which names none.
fn state<'a>(call: &Call<'a>, key: usize, class: usize) -> Result<Option<StateRef<'a>>> {
    let class = call.required_text(class, "class")?;
    let Some(key) = call.text(key) else {
        return Ok(None);
    };
    StateRef::new(&catalog::current(call.function())?, class, key).map(Some)
}

/// What there is of a state, or of a document that is computed. Documents have no versions.
fn read<F: Form>(state: &StateRef<'_>, form: &mut F) -> Result<Option<(Option<i64>, F::Output)>> {
    if state.class.source.is_some() {
        return Ok(derived::read(state, form)?.map(|document| (None, document)));
    }
    let found = transaction::read(state, form)?.state();
    Ok(found.map(|(version, document)| (Some(version.number), document)))
}

/// Reads it under a snapshot that shows the version that argument `n` asks for, if it asks for one.
fn read_at_least<F: Form>(
    call: &Call<'_>,
    n: usize,
    state: &StateRef<'_>,
    form: &mut F,
) -> Result<Option<F::Output>> {
    let least = Least::of(call.bigint(n))?;
    if !least.is_none() {
        derived::check_has_versions(state)?;
    }
    let read = || Ok(read(state, form)?.map(|(_, output)| output));
    least.reading(std::slice::from_ref(state), read)
}

sql_functions! {
    /// `state_get(key, class, min_version)`
    fn state_get(call) {
        let Some(state) = state(call, 0, 1)? else { return Ok(call.null()) };
        let found = read_at_least(call, 2, &state, &mut Jsonb)?;
        Ok(call.nullable(found))
    }

    /// `state_get_text(key, class, min_version)`
    fn state_get_text(call) {
        let Some(state) = state(call, 0, 1)? else { return Ok(call.null()) };
        let found = read_at_least(call, 2, &state, &mut Text)?;
        Ok(call.nullable(found))
    }

    /// `state_get_path(key, path, class, min_version)`
    fn state_get_path(call) {
        let Some(state) = state(call, 0, 2)? else { return Ok(call.null()) };
        let Some(path) = call.text_array(1)? else { return Ok(call.null()) };
        // As with the operator #>, a NULL in the path leads nowhere.
        if path.contains(&None) { return Ok(call.null()) }
        let path = collect(path.into_iter().flatten())?;
        let mut form = Path { path: &path, state: &state };
        let found = read_at_least(call, 3, &state, &mut form)?;
        Ok(call.nullable(found.flatten()))
    }

    /// `state_get_section(key, section, class)`
    fn state_get_section(call) {
        let Some(state) = state(call, 0, 2)? else { return Ok(call.null()) };
        let name = call.required_text(1, "section")?;
        let found = read(&state, &mut Section { name, state: &state })?;
        Ok(call.nullable(found.map(|(_, section)| section)))
    }

    /// `state_get_many(keys, class, min_version)`
    fn state_get_many(call) {
        let class = call.required_text(1, "class")?;
        let least = Least::of(call.bigint(2))?;
        let catalog = catalog::current(call.function())?;
        let keys = call.text_array(0)?.unwrap_or_default();
        let mut rows = call.rows()?;
        // What a read allocates goes before the next: the document that the row has a copy of, and one in L1 that
        // turned out to be too new for the snapshot.
        let memory = Scratch::new();
        let mut push = |state: &StateRef<'_>| memory.with(|| -> Result<()> {
            if let Some((version, document)) = read(state, &mut Jsonb)? {
                rows.push([
                    Some(call::varlena_datum(state.key)),
                    version.map(call::bigint_datum),
                    Some(document),
                ]);
            }
            Ok(())
        });
        let mut states = keys.into_iter().flatten().map(|key| StateRef::new(&catalog, class, key));
        if least.is_none() {
            states.try_for_each(|state| push(&state?))?;
        } else {
            let states = try_collect(states)?;
            if let Some(state) = states.first() {
                derived::check_has_versions(state)?;
            }
            least.reading(&states, || states.iter().try_for_each(push))?;
        }
        Ok(call::void_datum())
    }

    /// `state_get_if_newer(key, version, class)`
    fn state_get_if_newer(call) {
        let state = state(call, 0, 2)?;
        let known = call.bigint(1).ok_or_else(|| Error::null_argument("version"))?;
        if let Some(state) = &state {
            derived::check_has_versions(state)?;
        }
        let mut rows = call.rows()?;
        let Some(state) = state else { return Ok(call::void_datum()) };
        // The version alone first: a poll that finds nothing new copies nothing.
        let newer = read(&state, &mut Nothing)?.is_some_and(|(found, ())| found > Some(known));
        if newer && let Some((version, document)) = read(&state, &mut Jsonb)? {
            rows.push([version.map(call::bigint_datum), Some(document)]);
        }
        Ok(call::void_datum())
    }

    /// `state_version(key, class)`
    fn state_version(call) {
        let Some(state) = state(call, 0, 1)? else { return Ok(call.null()) };
        derived::check_has_versions(&state)?;
        let found = read(&state, &mut Nothing)?;
        Ok(call.nullable(found.and_then(|(version, ())| version).map(call::bigint_datum)))
    }

    /// `state_exists(key, class)`
    fn state_exists(call) {
        let Some(state) = state(call, 0, 1)? else { return Ok(call.null()) };
        let found = read(&state, &mut Nothing)?;
        Ok(call::boolean_datum(found.is_some()))
    }
}

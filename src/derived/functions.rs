//! The SQL functions of derived classes.

use super::definition::{self, Definition};
use super::error::DerivedError;
use super::{keys, relations, watch};
use crate::call::{self, sql_functions};
use crate::catalog::{self, Catalog, Class};
use crate::error::{Error, Result, text};
use crate::store;
use crate::subtransaction::survive_failure;
use crate::transaction::definitions;
use pgrx::pg_sys::{self, Oid};
use std::ffi::CStr;
use std::rc::Rc;

/// The class that an argument names, which must be a derived one.
fn derived_class(catalog: &Catalog, name: &[u8]) -> Result<Rc<Class>> {
    let class = catalog.class(name)?;
    match class.source {
        Some(_) => Ok(class),
        None => Err(DerivedError::NotDerived { class: text(name) }.into()),
    }
}

/// The name of the triggers of a watch, but for its end.
fn trigger_name(class: &[u8], expression: Option<&CStr>) -> Vec<u8> {
    let expression = expression.map_or(&[][..], CStr::to_bytes);
    let hash = state_cache_document::hash(&[class, &[0], expression].concat());
    format!("state_watch_{:016x}", hash as u64).into_bytes()
}

fn literal(text: &[u8]) -> Vec<u8> {
    let text = catalog::c_string(text);
    // SAFETY: the text is NUL-terminated; the literal is copied.
    unsafe { CStr::from_ptr(pg_sys::quote_literal_cstr(text.as_ptr())) }
        .to_bytes()
        .to_vec()
}

/// The triggers of a relation that watch it for a class, without those that a partition has from its table.
fn triggers(catalog: &Catalog, relation: Oid, class: &[u8]) -> Result<Vec<Box<[u8]>>> {
    store::watch_triggers(catalog, relation, class)
}

sql_functions! {
    /// `state_source_changed()`: the trigger function of watches.
    fn state_source_changed(call) {
        watch::fired(call)?;
        // The server ignores the result of an AFTER trigger and of a statement trigger.
        Ok(pg_sys::Datum::from(0usize))
    }

    /// `state_watch(class, relation, keys)`
    fn state_watch(call) {
        call::check_may_write(c"state_watch()")?;
        let catalog = catalog::current(call.function())?;
        let class = derived_class(&catalog, call.required_text(0, "class")?)?;
        let relation = relations::relation_argument(call, 1)?;
        if let Some(kind) = relations::unwatchable(&catalog, relation) {
            return Err(DerivedError::Unwatchable { relation: relations::relation_name(relation), kind }.into());
        }
        let expression = call.text(2).map(|keys| keys::canonical(relation, keys)).transpose()?;
        if let Some(expression) = &expression {
            keys::compile(relation, expression)?;
        }
        let (on, name) = (relations::quoted_name(relation), trigger_name(&class.name, expression.as_deref()));
        let mut arguments = literal(&class.name);
        if let Some(expression) = &expression {
            arguments.extend(b", ");
            arguments.extend(literal(expression.to_bytes()));
        }
        definitions::note();
        store::watch(&catalog, &on, &name, &arguments)?;
        catalog.invalidate_classes();
        Ok(call::void_datum())
    }

    /// `state_unwatch(class, relation)`
    fn state_unwatch(call) {
        call::check_may_write(c"state_unwatch()")?;
        let catalog = catalog::current(call.function())?;
        let class = call.required_text(0, "class")?;
        let relation = relations::relation_argument(call, 1)?;
        let triggers = triggers(&catalog, relation, class)?;
        definitions::note();
        store::unwatch(&catalog, &relations::quoted_name(relation), &triggers)?;
        catalog.invalidate_classes();
        // Of a source that cannot be read L1 keeps nothing, and a watch on what is no more must be able to go.
        if let Ok(class) = derived_class(&catalog, class)
            && survive_failure(|| definition::read(&catalog, &class, None)).is_ok()
        {
            check_has_age(&catalog, &class)?;
        }
        Ok(call::boolean_datum(!triggers.is_empty()))
    }

    /// `state_sources()`
    fn state_sources(call) {
        let catalog = catalog::current(call.function())?;
        let classes = catalog.derived_classes()?;
        let mut rows = call.rows()?;
        for name in classes {
            let class = match catalog.class(&name) {
                Ok(class) => class,
                Err(Error::UnknownClass { .. }) => {
                    let orphan = "the class was deleted by hand: delete its row of state_source as well, or define \
                        it";
                    rows.push([
                        Some(call::varlena_datum(&name)),
                        None,
                        None,
                        Some(call::boolean_datum(false)),
                        Some(call::varlena_datum(orphan.as_bytes())),
                    ]);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(source) = &class.source else { continue };
            let found = survive_failure(|| definition::read(&catalog, &class, None));
            let (is_exact, reasons, relations) = match &found {
                Ok(known) => (
                    known.is_exact() && !known.row_security,
                    reasons(known),
                    known.relations().iter().map(|one| relations::quoted_name(*one)).collect::<Vec<_>>(),
                ),
                Err(error) => (false, vec![error.clone()], Vec::new()),
            };
            let reasons = (!reasons.is_empty()).then(|| call::varlena_datum(reasons.join("; ").as_bytes()));
            rows.push([
                Some(call::varlena_datum(&name)),
                Some(call::varlena_datum(source.query.to_bytes())),
                Some(call::varlena_datum(&relations.join(&b", "[..]))),
                Some(call::boolean_datum(is_exact)),
                reasons,
            ]);
        }
        Ok(call::void_datum())
    }
}

/// Why L1 may not answer for the class, or not for longer than its age.
fn reasons(definition: &Definition) -> Vec<String> {
    let mut reasons = definition.inexact.clone();
    if definition.row_security {
        reasons.push(
            "row-level security is switched on: the source itself answers each time".to_owned(),
        );
    }
    reasons
}

/// `55000` if L1 would serve documents of a class for ever that are not exact.
fn check_has_age(catalog: &Catalog, class: &Rc<Class>) -> Result<()> {
    let class = catalog.class(&class.name)?;
    if class.source.is_none() || class.cache_ttl.is_some() {
        return Ok(());
    }
    match definition::read(catalog, &class, None)?.inexact.first() {
        None => Ok(()),
        Some(reason) => Err(DerivedError::NeedsAge {
            class: text(&class.name),
            reason: reason.clone(),
        }
        .into()),
    }
}

/// What `state_class_define` says of the source of a class.
pub struct NewSource<'a> {
    /// The class.
    pub class: &'a [u8],
    /// The query; an empty one makes the class one of states again.
    pub query: Option<&'a [u8]>,
    /// For how long an entry may serve beyond its age; 0 takes that away.
    pub serve_stale: Option<pg_sys::Interval>,
}

/// Defines the source of a class whose row was written just now; `None` leaves the source as it is.
///
/// # Errors
/// `22023` for a query that cannot be one, `55000` for a class that has states or would be served for ever.
pub fn define(catalog: &Rc<Catalog>, new: &NewSource<'_>) -> Result<()> {
    let known = catalog.class(new.class)?;
    if known.source.is_none() && new.query.is_none_or(<[u8]>::is_empty) {
        return match new.serve_stale {
            None => Ok(()),
            Some(_) => Err(DerivedError::NotDerived {
                class: text(new.class),
            }
            .into()),
        };
    }
    definitions::note();
    match new.query {
        Some([]) => store::drop_source(catalog, new.class)?,
        Some(query) => {
            if known.source.is_none() && store::has_states(catalog, new.class)? {
                return Err(DerivedError::HasStates {
                    class: text(new.class),
                }
                .into());
            }
            store::put_source(catalog, new.class, query, &search_path())?;
        }
        None => {}
    }
    if let Some(serve_stale) = new.serve_stale {
        store::set_serve_stale(catalog, new.class, &serve_stale)?;
    }
    catalog.invalidate_classes();
    // SAFETY: what was written just now is to be seen below; inside a transaction, not in parallel mode.
    unsafe { pg_sys::CommandCounterIncrement() };
    let catalog = catalog::renewed(catalog)?;
    let class = catalog.class(new.class)?;
    if class.source.is_none() {
        return Ok(());
    }
    if class.behind {
        return Err(Error::argument(
            "a derived class cannot have the write mode behind",
        ));
    }
    let definition = definition::read(&catalog, &class, None)?;
    drop(definition);
    check_has_age(&catalog, &class)
}

/// The schemas that names are looked up in now, as a `search_path` that means the same for everybody.
fn search_path() -> Vec<u8> {
    let mut path = Vec::new();
    // SAFETY: inside a transaction; the list holds numbers, names are NUL-terminated.
    unsafe {
        if let Some(list) = pg_sys::fetch_search_path(false).as_ref() {
            let cells = std::slice::from_raw_parts(list.elements, list.length as usize);
            for cell in cells {
                let name = pg_sys::get_namespace_name(cell.oid_value);
                if !name.is_null() {
                    path.extend(CStr::from_ptr(pg_sys::quote_identifier(name)).to_bytes());
                    path.extend(b", ");
                }
            }
        }
    }
    // Else the session's temporary tables would come first.
    path.extend(b"pg_temp");
    path
}

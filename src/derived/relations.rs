//! What there is to know of relations, functions and roles.

use crate::call::Call;
use crate::catalog::Catalog;
use crate::error::{Error, Result, text};
use crate::sys;
use pgrx::pg_sys::{self, Oid};
use std::ffi::CStr;

/// What a relation is, if it is nothing that can be watched.
pub fn unwatchable(catalog: &Catalog, relation: Oid) -> Option<&'static str> {
    // SAFETY: look-ups in the system caches.
    let (kind, extension) = unsafe {
        let extension = pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, relation);
        (pg_sys::get_rel_relkind(relation) as u8, extension)
    };
    // SAFETY: as above; the name is NUL-terminated.
    let own = unsafe { pg_sys::get_extension_oid(c"state_cache".as_ptr(), true) };
    match kind {
        b'r' | b'p' => {}
        b'v' => return Some("a view"),
        b'm' => return Some("a materialized view"),
        b'f' => return Some("a foreign table"),
        b'S' => return Some("a sequence"),
        _ => return Some("no table"),
    }
    if relation.to_u32() < pg_sys::FirstNormalObjectId {
        return Some("a system catalog");
    }
    if is_temporary(relation) {
        return Some("a temporary table");
    }
    if extension != pg_sys::InvalidOid && extension == own || relation == catalog.head {
        return Some("a table of the extension");
    }
    None
}

/// Whether a relation lives in one session only.
pub fn is_temporary(relation: Oid) -> bool {
    // SAFETY: a look-up in the system cache.
    unsafe { pg_sys::get_rel_persistence(relation) as u8 == pg_sys::RELPERSISTENCE_TEMP }
}

/// Whether row-level security is switched on for a relation, whoever asks.
pub fn has_row_security(relation: Oid) -> bool {
    // SAFETY: a look-up in the system cache; the row is released again.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(relation));
        if tuple.is_null() {
            return false;
        }
        let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let on = (*row).relrowsecurity;
        pg_sys::ReleaseSysCache(tuple);
        on
    }
}

/// Whether a role may select from a relation.
pub fn may_select(relation: Oid, role: Oid) -> bool {
    let mut missing = false;
    // SAFETY: checks the system caches; raises no error for a relation that is not there.
    let answer = unsafe {
        let select = pg_sys::AclMode::from(pg_sys::ACL_SELECT);
        pg_sys::pg_class_aclcheck_ext(relation, role, select, &mut missing)
    };
    !missing && answer == pg_sys::AclResult::ACLCHECK_OK
}

/// Whether a role may call a function, which exists.
pub fn may_execute(function: Oid, role: Oid) -> bool {
    let execute = pg_sys::AclMode::from(pg_sys::ACL_EXECUTE);
    // SAFETY: checks the system caches.
    let answer = unsafe {
        #[cfg(feature = "pg15")]
        {
            pg_sys::pg_proc_aclcheck(function, role, execute)
        }
        #[cfg(not(feature = "pg15"))]
        {
            pg_sys::object_aclcheck(pg_sys::ProcedureRelationId, function, role, execute)
        }
    };
    answer == pg_sys::AclResult::ACLCHECK_OK
}

/// Whether the owner of a function is a superuser.
pub fn belongs_to_superuser(function: Oid) -> bool {
    // SAFETY: a look-up in the system cache; the row is released again.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(function));
        if tuple.is_null() {
            return false;
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>()).proowner;
        pg_sys::ReleaseSysCache(tuple);
        pg_sys::superuser_arg(owner)
    }
}

/// Whether a function is one of ours that reads states and nothing else.
pub fn reads_states(catalog: &Catalog, function: Oid) -> bool {
    const FUNCTIONS: [&CStr; 8] = [
        c"state_get",
        c"state_get_text",
        c"state_get_path",
        c"state_get_section",
        c"state_get_many",
        c"state_get_if_newer",
        c"state_version",
        c"state_exists",
    ];
    // SAFETY: look-ups in the system caches; the names are NUL-terminated.
    unsafe {
        let own = pg_sys::get_extension_oid(c"state_cache".as_ptr(), true);
        let name = pg_sys::get_func_name(function);
        own != pg_sys::InvalidOid
            && !name.is_null()
            && FUNCTIONS.contains(&CStr::from_ptr(name))
            && pg_sys::get_func_namespace(function) == catalog.namespace()
            && pg_sys::getExtensionOfObject(pg_sys::ProcedureRelationId, function) == own
    }
}

/// Schema and name of a relation as SQL has them.
pub fn quoted_name(relation: Oid) -> Vec<u8> {
    // SAFETY: look-ups in the system caches; names are NUL-terminated.
    unsafe {
        let schema = pg_sys::get_namespace_name_or_temp(pg_sys::get_rel_namespace(relation));
        let name = pg_sys::get_rel_name(relation);
        if schema.is_null() || name.is_null() {
            return relation.to_u32().to_string().into_bytes();
        }
        CStr::from_ptr(pg_sys::quote_qualified_identifier(schema, name))
            .to_bytes()
            .to_vec()
    }
}

/// The same, as messages show it.
pub fn relation_name(relation: Oid) -> String {
    text(&quoted_name(relation))
}

/// The relation that an argument of type `regclass` names.
pub fn relation_argument(call: &Call<'_>, n: usize) -> Result<Oid> {
    let relation = call
        .argument(n)
        .ok_or_else(|| Error::null_argument("relation"))?;
    let relation = Oid::from(relation.value() as u32);
    match sys::relation_exists(relation) {
        true => Ok(relation),
        false => Err(Error::argument(format!(
            "relation {} does not exist",
            relation.to_u32()
        ))),
    }
}

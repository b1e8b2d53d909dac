//! What a query depends on, as far as its parsed and rewritten form says so.

use crate::error::text;
use crate::sys;
use pgrx::pg_sys::{self, NodeTag, Oid, SQLValueFunctionOp as Value};
use std::ffi::{CStr, c_void};

/// Functions of the server that answer another session, or role, differently, whatever the settings are.
const SESSION: [&str; 10] = [
    "current_setting",
    "current_user",
    "session_user",
    "getpgusername",
    "inet_client_addr",
    "inet_client_port",
    "pg_backend_pid",
    "pg_my_temp_schema",
    "current_query",
    "row_security_active",
];

/// Functions of the server whose answers change although no table does that the query names.
const CHANGING: [&str; 16] = [
    "now",
    "transaction_timestamp",
    "statement_timestamp",
    "age",
    "pg_postmaster_start_time",
    "pg_conf_load_time",
    "pg_current_snapshot",
    "txid_current_snapshot",
    "pg_is_in_recovery",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "schema_to_xml",
    "database_to_xml",
    "obj_description",
    "col_description",
    "shobj_description",
];

/// What was found in a query.
#[derive(Default)]
pub struct Walked {
    /// Its functions, those behind operators and casts included.
    pub functions: Vec<Oid>,
    /// The tables that it reads, through views too, and everything else with rows.
    pub relations: Vec<Oid>,
    /// The relations that whoever runs it must be allowed to read.
    pub privileges: Vec<Oid>,
    /// The types to which it casts its parameter.
    pub casts: Vec<Oid>,
    /// Whether it asks who runs it.
    pub asks_role: bool,
    /// Whether it asks for the time.
    pub asks_time: bool,
    /// Whether it locks rows.
    pub locks_rows: bool,
    /// Whether it takes the next value of a sequence.
    pub takes_next_value: bool,
}

impl Walked {
    /// Walks through a query.
    ///
    /// # Safety
    /// `query` is a query, analysed and rewritten.
    pub unsafe fn query(query: *mut pg_sys::Query) -> Self {
        let mut walked = Self::default();
        // SAFETY: the caller's promise; the walker gets what it expects.
        unsafe { walk(query.cast(), (&raw mut walked).cast()) };
        for list in [
            &mut walked.functions,
            &mut walked.relations,
            &mut walked.privileges,
            &mut walked.casts,
        ] {
            list.sort_unstable_by_key(|oid| oid.to_u32());
            list.dedup();
        }
        walked
    }

    /// Walks through an expression.
    ///
    /// # Safety
    /// `expression` is an expression, analysed.
    pub unsafe fn expression(expression: *mut pg_sys::Node) -> Self {
        // SAFETY: the caller's promise; the walker takes any node.
        unsafe { Self::query(expression.cast()) }
    }

    /// The first function that answers another session differently, whatever the settings are.
    pub fn of_session(&self) -> Option<String> {
        if self.asks_role {
            return Some("current_user".to_owned());
        }
        self.named(|name| {
            let is_privilege = name.starts_with("has_") && name.ends_with("_privilege");
            SESSION.contains(&name) || is_privilege || name == "pg_has_role"
        })
    }

    /// The first function whose answer may change although no table does.
    pub fn changing(&self) -> Option<String> {
        if self.asks_time {
            return Some("current_timestamp".to_owned());
        }
        self.named(|name| CHANGING.contains(&name))
    }

    /// The first function of the server's own with such a name.
    fn named(&self, is_meant: impl Fn(&str) -> bool) -> Option<String> {
        let own = self
            .functions
            .iter()
            .filter(|function| is_built_in(**function));
        own.filter_map(|function| function_name(*function))
            .find(|name| is_meant(name))
    }

    /// The functions that are volatile, as messages name them.
    pub fn volatile(&self) -> Vec<String> {
        let mut names = Vec::new();
        if self.takes_next_value {
            names.push("nextval".to_owned());
        }
        let volatile = |function: &&Oid| volatility(**function) == b'v';
        names.extend(
            self.functions
                .iter()
                .filter(volatile)
                .map(|function| shown(*function)),
        );
        names
    }

    /// The functions that are not the server's own.
    pub fn foreign(&self) -> impl Iterator<Item = Oid> {
        let foreign = |function: &Oid| !is_built_in(*function);
        self.functions.iter().copied().filter(foreign)
    }
}

/// `i`, `s` or `v`.
pub fn volatility(function: Oid) -> u8 {
    // SAFETY: a look-up in the system cache; raises the server's own error for one that is gone.
    unsafe { pg_sys::func_volatile(function) as u8 }
}

/// Whether a function came with the server.
pub fn is_built_in(function: Oid) -> bool {
    function.to_u32() < pg_sys::FirstGenbkiObjectId
}

fn function_name(function: Oid) -> Option<String> {
    // SAFETY: a look-up in the system cache; the name is NUL-terminated.
    unsafe {
        let name = pg_sys::get_func_name(function);
        (!name.is_null()).then(|| text(CStr::from_ptr(name).to_bytes()))
    }
}

/// A function with its arguments, as messages show it.
pub fn shown(function: Oid) -> String {
    // SAFETY: look-ups in the system caches; the name is NUL-terminated.
    unsafe { text(CStr::from_ptr(pg_sys::format_procedure(function)).to_bytes()) }
}

/// Called for each node; goes on to those within.
///
/// # Safety
/// `node` is a node or null, `walked` a [`Walked`].
unsafe extern "C-unwind" fn walk(node: *mut pg_sys::Node, walked: *mut c_void) -> bool {
    // SAFETY: the caller's promise. The guard makes errors of what runs inside the server's own, which pass through
    // its frames.
    unsafe { pg_sys::submodules::panic::pgrx_extern_c_guard(|| look(node, walked)) }
}

/// # Safety
/// As for [`walk`].
unsafe fn look(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the caller's promise; each node is of the type that its tag says.
    unsafe {
        let walked = &mut *context.cast::<Walked>();
        match (*node).type_ {
            NodeTag::T_Query => {
                let query = node.cast::<pg_sys::Query>();
                walked.locks_rows |= !(*query).rowMarks.is_null();
                note_relations(query, walked);
                return sys::walk_query(query, walk, context);
            }
            NodeTag::T_SQLValueFunction => {
                match (*node.cast::<pg_sys::SQLValueFunction>()).op {
                    Value::SVFOP_CURRENT_ROLE
                    | Value::SVFOP_CURRENT_USER
                    | Value::SVFOP_USER
                    | Value::SVFOP_SESSION_USER => walked.asks_role = true,
                    // The path is fixed, and the database is one.
                    Value::SVFOP_CURRENT_SCHEMA | Value::SVFOP_CURRENT_CATALOG => {}
                    _ => walked.asks_time = true,
                }
            }
            NodeTag::T_NextValueExpr => walked.takes_next_value = true,
            NodeTag::T_CoerceViaIO => {
                let cast = &*node.cast::<pg_sys::CoerceViaIO>();
                if !cast.arg.is_null() && (*cast.arg).type_ == NodeTag::T_Param {
                    walked.casts.push(cast.resulttype);
                }
            }
            _ => {}
        }
        pg_sys::check_functions_in_node(node, Some(note_function), context);
        sys::walk_expression(node, walk, context)
    }
}

/// # Safety
/// `walked` is a [`Walked`].
unsafe extern "C-unwind" fn note_function(function: Oid, walked: *mut c_void) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*walked.cast::<Walked>()).functions.push(function) };
    // Go on.
    false
}

/// Notes what a query names itself.
///
/// # Safety
/// `query` is a query.
unsafe fn note_relations(query: *mut pg_sys::Query, walked: &mut Walked) {
    /// Needs no privilege of the reader if somebody else's count: those of a view's owner.
    fn needed(required: u64, as_user: Oid) -> bool {
        required != 0 && as_user == pg_sys::InvalidOid
    }
    // SAFETY: the caller's promise; the lists hold what their names say.
    unsafe {
        for entry in sys::pointers::<pg_sys::RangeTblEntry>((*query).rtable) {
            let entry = &*entry;
            let is_relation = entry.rtekind == pg_sys::RTEKind::RTE_RELATION;
            if is_relation && entry.relkind as u8 != pg_sys::RELKIND_VIEW {
                walked.relations.push(entry.relid);
            }
            #[cfg(feature = "pg15")]
            if is_relation && needed(u64::from(entry.requiredPerms), entry.checkAsUser) {
                walked.privileges.push(entry.relid);
            }
        }
        #[cfg(not(feature = "pg15"))]
        for info in sys::pointers::<pg_sys::RTEPermissionInfo>((*query).rteperminfos) {
            if needed((*info).requiredPerms, (*info).checkAsUser) {
                walked.privileges.push((*info).relid);
            }
        }
    }
}

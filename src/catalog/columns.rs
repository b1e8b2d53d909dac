//! The columns of `state_head` and `state_snapshot` as the installation script makes them, and whether a table is
//! still as it was made.
//!
//! A row may be written without a statement only where a statement would do nothing else than write the row: see
//! `store::rows`. So what counts here is all that users can add to a table, or change about it, and what a statement
//! would look at.

use pgrx::pg_sys;
use std::ffi::CStr;

/// A column as the installation script makes it.
pub struct Column {
    name: &'static CStr,
    of_type: pg_sys::Oid,
    /// Whether it is NOT NULL.
    is_required: bool,
    default: Default,
}

/// What a column holds in a row that does not say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Default {
    /// Whatever the table says: we always say.
    Any,
    /// `false`.
    False,
    /// What this function gives, which has no arguments.
    Call(u32),
}

const NOW: Default = Default::Call(pg_sys::F_CLOCK_TIMESTAMP);
const WRITER: Default = Default::Call(pg_sys::F_PG_CURRENT_XACT_ID);

const fn required(name: &'static CStr, of_type: pg_sys::Oid, default: Default) -> Column {
    Column {
        name,
        of_type,
        is_required: true,
        default,
    }
}

const fn nullable(name: &'static CStr, of_type: pg_sys::Oid) -> Column {
    Column {
        name,
        of_type,
        is_required: false,
        default: Default::Any,
    }
}

/// Those of `state_head`.
pub const HEAD: [Column; 16] = [
    required(c"class", pg_sys::TEXTOID, Default::Any),
    required(c"key", pg_sys::TEXTOID, Default::Any),
    required(c"version", pg_sys::INT8OID, Default::Any),
    nullable(c"hash", pg_sys::BYTEAOID),
    required(c"size", pg_sys::INT4OID, Default::Any),
    required(c"deleted", pg_sys::BOOLOID, Default::False),
    nullable(c"expires_at", pg_sys::TIMESTAMPTZOID),
    nullable(c"ttl", pg_sys::INTERVALOID),
    required(c"created_at", pg_sys::TIMESTAMPTZOID, NOW),
    required(c"updated_at", pg_sys::TIMESTAMPTZOID, NOW),
    nullable(c"parent_version", pg_sys::INT8OID),
    nullable(c"checkpoint_type", pg_sys::TEXTOID),
    nullable(c"agent_phase", pg_sys::TEXTOID),
    nullable(c"execution_context", pg_sys::JSONBOID),
    nullable(c"writer", pg_sys::XID8OID),
    nullable(c"state", pg_sys::JSONBOID),
];

/// Those of `state_snapshot`.
pub const SNAPSHOT: [Column; 15] = [
    required(c"class", pg_sys::TEXTOID, Default::Any),
    required(c"key", pg_sys::TEXTOID, Default::Any),
    required(c"version", pg_sys::INT8OID, Default::Any),
    nullable(c"parent_version", pg_sys::INT8OID),
    required(c"hash", pg_sys::BYTEAOID, Default::Any),
    required(c"checkpoint_type", pg_sys::TEXTOID, Default::Any),
    required(c"recovery_point", pg_sys::BOOLOID, Default::Any),
    nullable(c"agent_phase", pg_sys::TEXTOID),
    nullable(c"execution_context", pg_sys::JSONBOID),
    required(c"created_at", pg_sys::TIMESTAMPTZOID, NOW),
    required(c"writer", pg_sys::XID8OID, WRITER),
    nullable(c"state", pg_sys::JSONBOID),
    nullable(c"delta", pg_sys::BYTEAOID),
    nullable(c"label", pg_sys::TEXTOID),
    nullable(c"payload", pg_sys::BYTEAOID),
];

/// Those of `state_budget`.
pub const BUDGET: [Column; 10] = [
    required(c"budget", pg_sys::TEXTOID, Default::Any),
    required(c"total", pg_sys::NUMERICOID, Default::Any),
    required(c"currency", pg_sys::TEXTOID, Default::Any),
    nullable(c"parent", pg_sys::TEXTOID),
    nullable(c"period", pg_sys::INTERVALOID),
    nullable(c"soft_limit", pg_sys::NUMERICOID),
    required(c"shards", pg_sys::INT4OID, Default::Any),
    required(c"revision", pg_sys::INT8OID, Default::Any),
    required(c"defined_at", pg_sys::TIMESTAMPTZOID, Default::Any),
    nullable(c"retention", pg_sys::INTERVALOID),
];

/// Those of `state_budget_account`.
pub const ACCOUNT: [Column; 13] = [
    required(c"budget", pg_sys::TEXTOID, Default::Any),
    required(c"agent", pg_sys::TEXTOID, Default::Any),
    required(c"period", pg_sys::TIMESTAMPTZOID, Default::Any),
    required(c"shard", pg_sys::INT4OID, Default::Any),
    nullable(c"allotted", pg_sys::NUMERICOID),
    required(c"spent", pg_sys::NUMERICOID, Default::Any),
    required(c"held", pg_sys::NUMERICOID, Default::Any),
    required(c"expected", pg_sys::NUMERICOID, Default::Any),
    required(c"actual", pg_sys::NUMERICOID, Default::Any),
    required(c"compared", pg_sys::INT8OID, Default::Any),
    required(c"revision", pg_sys::INT8OID, Default::Any),
    nullable(c"judged_at", pg_sys::TIMESTAMPTZOID),
    nullable(c"quiet", pg_sys::NUMERICOID),
];

/// Those of `state_budget_hold`.
pub const HOLD: [Column; 18] = [
    required(c"hold_id", pg_sys::TEXTOID, Default::Any),
    required(c"budget", pg_sys::TEXTOID, Default::Any),
    nullable(c"agent", pg_sys::TEXTOID),
    required(c"amount", pg_sys::NUMERICOID, Default::Any),
    nullable(c"asked", pg_sys::NUMERICOID),
    required(c"ttl", pg_sys::INTERVALOID, Default::Any),
    nullable(c"owner", pg_sys::TEXTOID),
    required(c"remaining", pg_sys::NUMERICOID, Default::Any),
    required(c"scopes", pg_sys::TEXTARRAYOID, Default::Any),
    required(c"periods", pg_sys::TIMESTAMPTZARRAYOID, Default::Any),
    required(c"shards", pg_sys::INT4ARRAYOID, Default::Any),
    required(c"status", pg_sys::TEXTOID, Default::Any),
    required(c"made_at", pg_sys::TIMESTAMPTZOID, Default::Any),
    required(c"expires_at", pg_sys::TIMESTAMPTZOID, Default::Any),
    nullable(c"expired_at", pg_sys::TIMESTAMPTZOID),
    nullable(c"actual", pg_sys::NUMERICOID),
    nullable(c"resolved_at", pg_sys::TIMESTAMPTZOID),
    nullable(c"metadata", pg_sys::JSONBOID),
];

/// CHECKs that the installation script makes: what a row is asked for that is written without a statement.
const CHECKS: [&CStr; 2] = [c"state_budget_account_counters", c"state_budget_hold_sound"];

/// Whether a table has no CHECK but ours.
///
/// # Safety
/// `relation` is open and locked.
pub unsafe fn has_own_checks(relation: pg_sys::Relation) -> bool {
    // SAFETY: the caller's promise; the constraints live as long as the descriptor, each with a name.
    unsafe {
        let count = usize::try_from((*(*relation).rd_rel).relchecks).unwrap_or(0);
        let constraints = (*(*relation).rd_att).constr.as_ref();
        let all = match constraints {
            Some(constraints) if usize::from(constraints.num_check) == count && count > 0 => {
                std::slice::from_raw_parts(constraints.check, count)
            }
            _ => return count == 0,
        };
        all.iter()
            .all(|check| CHECKS.contains(&CStr::from_ptr(check.ccname)))
    }
}

/// Whether a table is an ordinary one whose first columns are these, and the first `key` of them its primary key.
///
/// # Safety
/// `relation` is open and locked.
pub unsafe fn is_readable(relation: pg_sys::Relation, columns: &[Column], key: usize) -> bool {
    // SAFETY: the caller's promise; the catalog's row and the descriptor live as long as the relation is open, and
    // the descriptor has as many columns as it says.
    unsafe {
        let about = &*(*relation).rd_rel;
        let descriptor = (*relation).rd_att;
        about.relkind == pg_sys::RELKIND_RELATION as std::ffi::c_char
            && about.relam == pg_sys::HEAP_TABLE_AM_OID
            // Heirs: a statement goes through them, too. That there are none any more is noticed by ANALYZE.
            && !about.relhassubclass
            && usize::try_from((*descriptor).natts).is_ok_and(|count| count >= columns.len())
            && columns.iter().enumerate().all(|(n, column)| {
                let found = attribute(descriptor, n);
                !found.attisdropped
                    && CStr::from_ptr(found.attname.data.as_ptr()) == column.name
                    && found.atttypid == column.of_type
                    && found.atttypmod == -1
            })
            && has_key(relation, key)
    }
}

/// Whether a readable table is as the installation script has made it: a statement that writes a row of it looks at
/// nothing else.
///
/// # Safety
/// `relation` is open and locked.
pub unsafe fn is_as_made(relation: pg_sys::Relation, columns: &[Column]) -> bool {
    // SAFETY: as in `is_readable`.
    unsafe {
        let about = &*(*relation).rd_rel;
        let descriptor = (*relation).rd_att;
        !about.relispartition
            // The flag says only that there was one once, and is cleared by VACUUM.
            && (*relation).rd_rules.is_null()
            && !about.relrowsecurity
            && has_own_checks(relation)
            && usize::try_from((*descriptor).natts) == Ok(columns.len())
            && columns.iter().enumerate().all(|(n, column)| {
                let found = attribute(descriptor, n);
                found.attnotnull == column.is_required
                    && found.attgenerated == 0
                    && found.attidentity == 0
                    && (column.default == Default::Any
                        || default_of(descriptor, n) == Some(column.default))
            })
            && has_plain_indexes(relation)
    }
}

/// Column `n` of a descriptor, counted from 0.
///
/// # Safety
/// It has one, and lives as long as what is returned.
pub unsafe fn attribute<'a>(
    descriptor: pg_sys::TupleDesc,
    n: usize,
) -> &'a pg_sys::FormData_pg_attribute {
    #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
    // SAFETY: the descriptor has so many columns, the caller says.
    unsafe {
        &(*descriptor).attrs.as_slice(n + 1)[n]
    }
    #[cfg(not(any(feature = "pg15", feature = "pg16", feature = "pg17")))]
    // SAFETY: the descriptor has so many columns, the caller says; they lie behind as many compact forms.
    unsafe {
        let compact = (*descriptor).compact_attrs.as_ptr();
        let columns = compact.add((*descriptor).natts as usize);
        &*columns.cast::<pg_sys::FormData_pg_attribute>().add(n)
    }
}

/// The default of column `n`, if the installation script could have made it.
///
/// # Safety
/// The descriptor is that of an open relation.
unsafe fn default_of(descriptor: pg_sys::TupleDesc, n: usize) -> Option<Default> {
    // SAFETY: the constraints live as long as the descriptor; each default is an expression that the server has
    // written, as a NUL-terminated text.
    unsafe {
        let constraints = (*descriptor).constr.as_ref()?;
        let count = usize::from(constraints.num_defval);
        let defaults = match count {
            0 => return None,
            count => std::slice::from_raw_parts(constraints.defval, count),
        };
        let default = defaults.iter().find(|it| it.adnum as usize == n + 1)?;
        let node = pg_sys::stringToNode(default.adbin).cast::<pg_sys::Node>();
        let found = match (*node).type_ {
            pg_sys::NodeTag::T_FuncExpr => {
                let call = &*node.cast::<pg_sys::FuncExpr>();
                call.args
                    .is_null()
                    .then_some(Default::Call(call.funcid.to_u32()))
            }
            pg_sys::NodeTag::T_Const => {
                let constant = &*node.cast::<pg_sys::Const>();
                let is_false = constant.consttype == pg_sys::BOOLOID
                    && !constant.constisnull
                    && constant.constvalue.value() & 0xff == 0;
                is_false.then_some(Default::False)
            }
            _ => None,
        };
        pg_sys::pfree(node.cast());
        found
    }
}

/// Indexes of ours that hold some rows only, or compute what they hold by functions of the server.
const COMPUTED: [&CStr; 6] = [
    c"state_head_expiring",
    c"state_head_tombstones",
    c"state_snapshot_label",
    c"state_budget_hold_open",
    c"state_budget_hold_costs",
    c"state_budget_hold_free",
];

/// Whether no index computes anything but ours, and none is checked later than at once.
///
/// # Safety
/// `relation` is open and locked.
unsafe fn has_plain_indexes(relation: pg_sys::Relation) -> bool {
    // SAFETY: the caller's promise; what is read of an index is read while it is open.
    unsafe {
        all_indexes(relation, |index| {
            let about = &*(*index).rd_index;
            let name = CStr::from_ptr((*(*index).rd_rel).relname.data.as_ptr());
            let has = |column: u32| {
                let row = (*index).rd_indextuple;
                !pg_sys::heap_attisnull(row, column as i32, std::ptr::null_mut())
            };
            let computes = (has(pg_sys::Anum_pg_index_indexprs)
                || has(pg_sys::Anum_pg_index_indpred))
                && !COMPUTED.contains(&name);
            let is_late = about.indisunique && !about.indimmediate || about.indisexclusion;
            !computes && !is_late
        })
    }
}

/// Whether the first `count` columns are the primary key, in their order.
///
/// # Safety
/// `relation` is open and locked.
unsafe fn has_key(relation: pg_sys::Relation, count: usize) -> bool {
    // SAFETY: the caller's promise; an index has as many columns as it says.
    unsafe {
        !all_indexes(relation, |index| {
            let about = &*(*index).rd_index;
            let is_it = about.indisprimary
                && !about.indisexclusion
                && about.indisvalid
                && about.indimmediate
                && about.indnkeyatts as usize == count
                && (about.indkey.values.as_slice(count).iter())
                    .zip(1..)
                    .all(|(column, n)| *column == n);
            !is_it
        })
    }
}

/// Whether all indexes of a table are such.
///
/// # Safety
/// `relation` is open and locked; `is_such` keeps nothing of the index.
unsafe fn all_indexes(
    relation: pg_sys::Relation,
    is_such: impl Fn(pg_sys::Relation) -> bool,
) -> bool {
    let lock = pg_sys::AccessShareLock as i32;
    // SAFETY: the list is a copy; an index of a locked table can be opened.
    unsafe {
        let indexes = pg_sys::RelationGetIndexList(relation);
        let count = indexes.as_ref().map_or(0, |list| list.length as usize);
        let all = (0..count).all(|n| {
            let index = pg_sys::index_open((*(*indexes).elements.add(n)).oid_value, lock);
            let is_such = is_such(index);
            pg_sys::index_close(index, lock);
            is_such
        });
        pg_sys::list_free(indexes);
        all
    }
}

//! Which statements change definitions: what a query means, or what it gives without a trigger that says so.
//!
//! A list of the statements that do not; whatever is not on it does. It costs the derived documents of the database,
//! or of all databases where the statement is not one of those that change only what its own database has: they are
//! computed anew then.

use crate::sys;
use crate::transaction::definitions::{self, Scope};
use pgrx::pg_sys::{self, NodeTag, ObjectType, TransactionStmtKind};
use std::ffi::{CStr, c_char};

static mut NEXT: pg_sys::ProcessUtility_hook_type = None;

/// Installs the hook. Without shared memory there is nothing to keep right.
pub fn init() {
    // SAFETY: `_PG_init` runs alone; the hook is chained as every extension does.
    unsafe {
        if pg_sys::process_shared_preload_libraries_in_progress {
            NEXT = pg_sys::ProcessUtility_hook;
            pg_sys::ProcessUtility_hook = Some(process_utility);
        }
    }
}

/// What a statement does to definitions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Nothing.
    None,
    /// It changes them.
    Changes(Scope),
    /// It makes a change of another transaction visible, before its own transaction ends.
    CommitsPrepared,
}

#[allow(clippy::too_many_arguments)] // The server's signature.
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the guard makes errors of what runs inside the server's own. What the next one raises passes through
    // this frame, in which nothing has a destructor.
    unsafe {
        let node = (*statement).utilityStmt;
        let effect = pg_sys::submodules::panic::pgrx_extern_c_guard(|| effect(node));
        match effect {
            Effect::None => {}
            Effect::Changes(scope) => definitions::note_of(scope),
            Effect::CommitsPrepared => definitions::raise(Scope::Server),
        }
        let next = NEXT.unwrap_or(sys::standard_process_utility);
        next(
            statement,
            text,
            read_only,
            context,
            parameters,
            environment,
            receiver,
            completion,
        );
        match effect {
            Effect::None => {}
            // The statement may have committed meanwhile, and gone on in another transaction.
            Effect::Changes(scope) => definitions::note_of(scope),
            // Subscribers are told by the transaction that the statement itself runs in.
            Effect::CommitsPrepared => definitions::note_of(Scope::Server),
        }
    }
}

/// # Safety
/// `statement` is a utility statement.
unsafe fn effect(statement: *mut pg_sys::Node) -> Effect {
    use NodeTag as Tag;
    // SAFETY: the caller's promise; each node is of the type that its tag says.
    let changes = unsafe {
        match (*statement).type_ {
            Tag::T_TransactionStmt => {
                let kind = (*statement.cast::<pg_sys::TransactionStmt>()).kind;
                return match kind {
                    TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED => Effect::CommitsPrepared,
                    _ => Effect::None,
                };
            }
            Tag::T_VariableSetStmt
            | Tag::T_VariableShowStmt
            | Tag::T_CopyStmt
            | Tag::T_ExplainStmt
            | Tag::T_PrepareStmt
            | Tag::T_ExecuteStmt
            | Tag::T_DeallocateStmt
            | Tag::T_DeclareCursorStmt
            | Tag::T_ClosePortalStmt
            | Tag::T_FetchStmt
            | Tag::T_NotifyStmt
            | Tag::T_ListenStmt
            | Tag::T_UnlistenStmt
            | Tag::T_LockStmt
            | Tag::T_CheckPointStmt
            | Tag::T_DiscardStmt
            | Tag::T_DoStmt
            | Tag::T_CallStmt
            | Tag::T_ConstraintsSetStmt
            | Tag::T_VacuumStmt
            | Tag::T_ClusterStmt
            | Tag::T_IndexStmt
            | Tag::T_ReindexStmt
            | Tag::T_LoadStmt
            | Tag::T_AlterSystemStmt
            | Tag::T_CommentStmt
            | Tag::T_SecLabelStmt
            // No class whose query reads a materialized view is exact.
            | Tag::T_RefreshMatViewStmt => false,
            Tag::T_CreateStmt => !makes_temporary((*statement.cast::<pg_sys::CreateStmt>()).relation),
            Tag::T_CreateTableAsStmt => {
                let into = (*statement.cast::<pg_sys::CreateTableAsStmt>()).into;
                into.is_null() || !makes_temporary((*into).rel)
            }
            Tag::T_AlterTableStmt => {
                !is_temporary((*statement.cast::<pg_sys::AlterTableStmt>()).relation)
            }
            Tag::T_DropStmt => {
                let drop = &*statement.cast::<pg_sys::DropStmt>();
                match drop.removeType {
                    ObjectType::OBJECT_INDEX => false,
                    ObjectType::OBJECT_TABLE => {
                        let mut names = sys::pointers::<pg_sys::List>(drop.objects);
                        !names.all(|name| is_temporary(pg_sys::makeRangeVarFromNameList(name)))
                    }
                    _ => true,
                }
            }
            // Triggers tell of others.
            Tag::T_TruncateStmt => {
                let truncate = &*statement.cast::<pg_sys::TruncateStmt>();
                sys::pointers::<pg_sys::RangeVar>(truncate.relations).any(|it| is_partition(it))
            }
            _ => true,
        }
    };
    match changes {
        // SAFETY: the caller's promise.
        true => Effect::Changes(unsafe { scope(statement) }),
        false => Effect::None,
    }
}

/// Whose definitions a statement changes that changes some.
///
/// # Safety
/// `statement` is a utility statement.
unsafe fn scope(statement: *mut pg_sys::Node) -> Scope {
    use NodeTag as Tag;
    let of = |kind: ObjectType::Type| match kind {
        ObjectType::OBJECT_ROLE | ObjectType::OBJECT_DATABASE | ObjectType::OBJECT_TABLESPACE => {
            Scope::Server
        }
        _ => Scope::Database,
    };
    // SAFETY: the caller's promise; each node is of the type that its tag says.
    unsafe {
        match (*statement).type_ {
            Tag::T_RenameStmt => of((*statement.cast::<pg_sys::RenameStmt>()).renameType),
            Tag::T_AlterOwnerStmt => of((*statement.cast::<pg_sys::AlterOwnerStmt>()).objectType),
            Tag::T_GrantStmt => of((*statement.cast::<pg_sys::GrantStmt>()).objtype),
            Tag::T_CreateStmt
            | Tag::T_CreateTableAsStmt
            | Tag::T_CreateForeignTableStmt
            | Tag::T_AlterTableStmt
            | Tag::T_AlterObjectSchemaStmt
            | Tag::T_AlterDefaultPrivilegesStmt
            | Tag::T_DropStmt
            | Tag::T_TruncateStmt
            | Tag::T_ViewStmt
            | Tag::T_RuleStmt
            | Tag::T_CreateTrigStmt
            | Tag::T_CreatePolicyStmt
            | Tag::T_AlterPolicyStmt
            | Tag::T_CreateFunctionStmt
            | Tag::T_AlterFunctionStmt
            | Tag::T_CreateSchemaStmt
            | Tag::T_CreateSeqStmt
            | Tag::T_AlterSeqStmt
            | Tag::T_CreateStatsStmt
            | Tag::T_AlterStatsStmt
            | Tag::T_CreateDomainStmt
            | Tag::T_AlterDomainStmt
            | Tag::T_CreateEnumStmt
            | Tag::T_AlterEnumStmt
            | Tag::T_CreateRangeStmt
            | Tag::T_CompositeTypeStmt
            | Tag::T_AlterTypeStmt
            | Tag::T_DefineStmt
            | Tag::T_CreateCastStmt
            | Tag::T_CreateExtensionStmt
            | Tag::T_AlterExtensionStmt
            | Tag::T_AlterExtensionContentsStmt
            | Tag::T_AlterObjectDependsStmt => Scope::Database,
            _ => Scope::Server,
        }
    }
}

/// # Safety
/// `relation` names a relation that a statement makes.
unsafe fn makes_temporary(relation: *const pg_sys::RangeVar) -> bool {
    // SAFETY: the caller's promise; the name of a schema is NUL-terminated or null.
    unsafe {
        let schema = (*relation).schemaname;
        (*relation).relpersistence as u8 == pg_sys::RELPERSISTENCE_TEMP
            || !schema.is_null() && CStr::from_ptr(schema).to_bytes().starts_with(b"pg_temp")
    }
}

/// The relation of that name; `InvalidOid` if there is none, or no way to look.
///
/// # Safety
/// `relation` names a relation.
unsafe fn find(relation: *const pg_sys::RangeVar) -> pg_sys::Oid {
    // SAFETY: the caller's promise; looks into the system caches, inside a transaction, and takes no lock.
    unsafe {
        if !pg_sys::IsTransactionState() {
            return pg_sys::InvalidOid;
        }
        pg_sys::RangeVarGetRelidExtended(
            relation,
            pg_sys::NoLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    }
}

/// # Safety
/// As for [`find`].
unsafe fn is_temporary(relation: *const pg_sys::RangeVar) -> bool {
    // SAFETY: the caller's promise.
    let found = unsafe { find(relation) };
    found != pg_sys::InvalidOid && super::relations::is_temporary(found)
}

/// # Safety
/// As for [`find`].
unsafe fn is_partition(relation: *const pg_sys::RangeVar) -> bool {
    // SAFETY: the caller's promise; a look-up in the system cache.
    unsafe {
        let found = find(relation);
        found != pg_sys::InvalidOid && pg_sys::get_rel_relispartition(found)
    }
}

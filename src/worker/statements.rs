//! Statements that need a database without sessions: its worker leaves before them, and none comes until
//! the transaction has ended.
//!
//! Only who could run the statement makes a worker leave. The statement itself is left alone: what is wrong
//! with it the server says.

use crate::callback::shielded;
use crate::latch::wait;
use crate::shared::{self, Database};
use crate::sys;
use pgrx::pg_sys::{self, NodeTag, XactEvent};
use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::time::{Duration, Instant};

/// How long a statement waits for the worker. After that it goes on, and waits as the server does.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long no worker comes if the end of the statement is missed, in microseconds.
const LONGEST_BAR: i64 = 600_000_000;
/// How often it looks whether the worker is gone.
const LOOK: Duration = Duration::from_millis(10);
/// Databases that one transaction can bar; further ones it bars for [`LONGEST_BAR`]. Only ALTER DATABASE …
/// RENAME can run more than once in a transaction.
const MOST: usize = 4;

static mut NEXT: pg_sys::ProcessUtility_hook_type = None;

/// A database that this transaction has barred, and until when.
#[derive(Clone, Copy)]
struct Bar {
    slot: &'static Database,
    until: i64,
}

thread_local! {
    static BARS: Cell<[Option<Bar>; MOST]> = const { Cell::new([None; MOST]) };
}

/// Installs the hook and the callback; called when the library is preloaded.
pub fn init() {
    // SAFETY: `_PG_init` runs alone; the hook is chained as every extension does.
    unsafe {
        NEXT = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process_utility);
        pg_sys::RegisterXactCallback(Some(transaction), std::ptr::null_mut());
    }
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
    // SAFETY: the guard makes errors of what runs inside the server's own. What the next one raises passes
    // through this frame, in which nothing has a destructor.
    unsafe {
        if is_about_a_database((*statement).utilityStmt) {
            let node = (*statement).utilityStmt;
            pg_sys::submodules::panic::pgrx_extern_c_guard(|| make_way(node));
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
    }
}

/// # Safety
/// `statement` is a utility statement.
unsafe fn is_about_a_database(statement: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller's promise.
    let tag = unsafe { (*statement).type_ };
    matches!(
        tag,
        NodeTag::T_DropdbStmt
            | NodeTag::T_CreatedbStmt
            | NodeTag::T_AlterDatabaseStmt
            | NodeTag::T_RenameStmt
    )
}

/// Has the worker of the database that a statement needs leave.
fn make_way(statement: *mut pg_sys::Node) {
    // SAFETY: a utility statement, inside a transaction (the server has started one for every statement that
    // needs one; in a failed one it refuses these before).
    let database = unsafe {
        if !pg_sys::IsTransactionState() {
            return;
        }
        needed_database(statement)
    };
    let Some(slot) = database.and_then(|oid| shared::databases()?.find(oid.to_u32())) else {
        return;
    };
    let until = sys::now() + LONGEST_BAR;
    slot.bar(until);
    let mut bars = BARS.get();
    if let Some(free) = bars.iter_mut().find(|bar| bar.is_none()) {
        *free = Some(Bar { slot, until });
        BARS.set(bars);
    }
    let start = Instant::now();
    while slot.has_worker() && start.elapsed() < PATIENCE {
        wait(LOOK);
        // SAFETY: this process's own latch; whoever else waits on it looks before waiting.
        unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
        pgrx::check_for_interrupts!();
    }
}

/// The database that a statement needs for itself, if the role might run it.
///
/// # Safety
/// `statement` is a utility statement, a transaction is open.
unsafe fn needed_database(statement: *mut pg_sys::Node) -> Option<pg_sys::Oid> {
    // SAFETY: each node is of the type that its tag says; names are NUL-terminated or null.
    unsafe {
        let (name, as_template) = match (*statement).type_ {
            NodeTag::T_DropdbStmt => ((*statement.cast::<pg_sys::DropdbStmt>()).dbname, false),
            NodeTag::T_AlterDatabaseStmt => {
                let statement = statement.cast::<pg_sys::AlterDatabaseStmt>();
                option((*statement).options, c"tablespace")?;
                ((*statement).dbname, false)
            }
            NodeTag::T_RenameStmt => {
                let statement = statement.cast::<pg_sys::RenameStmt>();
                if (*statement).renameType != pg_sys::ObjectType::OBJECT_DATABASE {
                    return None;
                }
                ((*statement).subname, false)
            }
            NodeTag::T_CreatedbStmt => {
                if !sys::may_create_databases(sys::current_user()) {
                    return None;
                }
                let options = (*statement.cast::<pg_sys::CreatedbStmt>()).options;
                let template = option(options, c"template").filter(|it| !(**it).arg.is_null());
                let name = match template {
                    Some(template) => pg_sys::defGetString(template),
                    // What the server copies where no template is named, or DEFAULT is.
                    None => c"template1".as_ptr().cast_mut(),
                };
                (name, true)
            }
            _ => return None,
        };
        if name.is_null() {
            return None;
        }
        let oid = pg_sys::get_database_oid(name, true);
        let may = oid != pg_sys::InvalidOid
            && (sys::owns_database(oid, sys::current_user()) || as_template && is_template(oid));
        may.then_some(oid)
    }
}

/// The option of that name, if the list has it.
///
/// # Safety
/// `options` is a list of `DefElem`.
unsafe fn option(options: *mut pg_sys::List, name: &CStr) -> Option<*mut pg_sys::DefElem> {
    // SAFETY: the caller's promise.
    unsafe {
        if options.is_null() {
            return None;
        }
        let cells = std::slice::from_raw_parts((*options).elements, (*options).length as usize);
        cells
            .iter()
            .map(|cell| cell.ptr_value.cast::<pg_sys::DefElem>())
            .find(|option| CStr::from_ptr((**option).defname) == name)
    }
}

/// Whether everybody who may create databases may copy this one.
fn is_template(oid: pg_sys::Oid) -> bool {
    // SAFETY: a look-up in the system cache, inside a transaction; the row is released again.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::DATABASEOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(oid));
        if tuple.is_null() {
            return false;
        }
        let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
        let is_template = (*row).datistemplate;
        pg_sys::ReleaseSysCache(tuple);
        is_template
    }
}

unsafe extern "C-unwind" fn transaction(event: XactEvent::Type, _: *mut std::ffi::c_void) {
    if matches!(
        event,
        XactEvent::XACT_EVENT_COMMIT | XactEvent::XACT_EVENT_ABORT | XactEvent::XACT_EVENT_PREPARE
    ) {
        shielded(|| {
            for bar in BARS.replace([None; MOST]).into_iter().flatten() {
                bar.slot.unbar(bar.until);
                // What the worker left undone goes on.
                if let Some(databases) = shared::databases() {
                    databases.wake_launcher();
                }
            }
        });
    }
}

//! Every hand-declared extern, and what the server's headers define as macros over its globals.

use pgrx::pg_sys;

/// Functions of the server under their own names.
mod server {
    #![allow(non_snake_case)]
    use pgrx::pg_sys;
    use std::ffi::c_char;

    /// Declares functions that the bindings have as well, behind a guard, and has the compiler compare the two.
    macro_rules! unguarded {
        ($($(#[$doc:meta])* pub fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*) => {
            unsafe extern "C-unwind" {
                $($(#[$doc])* pub fn $name($($argument: $type),*) $(-> $result)?;)*
            }
            $(const _: unsafe fn($($type),*) $(-> $result)? = pg_sys::$name;)*
        };
    }

    // Leaf functions that every read calls and that raise no errors. The bindings guard each call against
    // an error's longjmp, which would cost more than the functions do.
    unguarded! {
        /// `miscadmin.h`: the role whose privileges count now.
        pub fn GetUserId() -> pg_sys::Oid;
        /// `utils/snapmgr.h`: the top of the stack of active snapshots.
        pub fn GetActiveSnapshot() -> pg_sys::Snapshot;
        /// `access/xact.h`: when the client's statement began.
        pub fn GetCurrentStatementStartTimestamp() -> pg_sys::TimestampTz;
        /// `access/xlog.h`: whether this server is a standby or still recovering.
        pub fn RecoveryInProgress() -> bool;
        /// `storage/lwlock.h`: waits for a lock; fails only for a process that holds 200 already.
        pub fn LWLockAcquire(lock: *mut pg_sys::LWLock, mode: pg_sys::LWLockMode::Type) -> bool;
        /// `storage/lwlock.h`: fails only for a lock that is not held.
        pub fn LWLockRelease(lock: *mut pg_sys::LWLock);
        /// `storage/latch.h`: wakes whoever waits on the latch.
        pub fn SetLatch(latch: *mut pg_sys::Latch);
        /// `utils/timestamp.h`: the clock.
        pub fn GetCurrentTimestamp() -> pg_sys::TimestampTz;
        /// `mb/pg_wchar.h`: the encoding of the database.
        pub fn GetDatabaseEncoding() -> i32;
        /// `mb/pg_wchar.h`: bytes of a character, by its first byte in every encoding that a server can have.
        pub fn pg_encoding_mblen(encoding: i32, character: *const c_char) -> i32;
        /// `utils/elog.h`: the SQLSTATE of the error that is being reported.
        pub fn geterrcode() -> i32;
    }

    // What reads one row by an index, under one guard for all of it.
    unguarded! {
        /// `storage/lmgr.h`: also takes in what others have committed about relations.
        pub fn LockRelationOid(relation: pg_sys::Oid, lock: pg_sys::LOCKMODE);
        /// `access/table.h`.
        pub fn table_open(table: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Relation;
        /// `access/table.h`.
        pub fn table_close(table: pg_sys::Relation, lock: pg_sys::LOCKMODE);
        /// `access/genam.h`.
        pub fn index_open(index: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Relation;
        /// `access/genam.h`.
        pub fn index_close(index: pg_sys::Relation, lock: pg_sys::LOCKMODE);
        /// `access/skey.h`: one condition of a scan.
        pub fn ScanKeyInit(
            key: pg_sys::ScanKey,
            column: pg_sys::AttrNumber,
            strategy: pg_sys::StrategyNumber,
            function: pg_sys::RegProcedure,
            argument: pg_sys::Datum,
        );
        /// `access/genam.h`: gives the scan its conditions.
        pub fn index_rescan(
            scan: pg_sys::IndexScanDesc,
            keys: pg_sys::ScanKey,
            key_count: i32,
            orders: pg_sys::ScanKey,
            order_count: i32,
        );
        /// `access/genam.h`: where the next entry leads to, null behind the last one.
        pub fn index_getnext_tid(
            scan: pg_sys::IndexScanDesc,
            direction: pg_sys::ScanDirection::Type,
        ) -> pg_sys::ItemPointer;
        /// `access/genam.h`: puts the row there into the slot, if the snapshot sees it.
        pub fn index_fetch_heap(
            scan: pg_sys::IndexScanDesc,
            slot: *mut pg_sys::TupleTableSlot,
        ) -> bool;
        /// `access/genam.h`.
        pub fn index_endscan(scan: pg_sys::IndexScanDesc);
        /// `access/tableam.h`: a slot for rows of the table.
        pub fn table_slot_create(
            table: pg_sys::Relation,
            list: *mut *mut pg_sys::List,
        ) -> *mut pg_sys::TupleTableSlot;
        /// `executor/tuptable.h`: also lets go of the row.
        pub fn ExecDropSingleTupleTableSlot(slot: *mut pg_sys::TupleTableSlot);
        /// `executor/tuptable.h`: looks at so many columns of the row.
        pub fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, count: i32);
        /// `access/tableam.h`: the access method of ordinary tables.
        pub fn GetHeapamTableAmRoutine() -> *const pg_sys::TableAmRoutine;
        /// `storage/bufmgr.h`.
        pub fn LockBuffer(buffer: pg_sys::Buffer, mode: i32);
        /// `storage/bufmgr.h`: takes back a pin.
        pub fn ReleaseBuffer(buffer: pg_sys::Buffer);
        /// `access/heapam.h`: the row that the snapshot sees, of those that begin at this line of a locked page.
        pub fn heap_hot_search_buffer(
            line: pg_sys::ItemPointer,
            table: pg_sys::Relation,
            buffer: pg_sys::Buffer,
            snapshot: pg_sys::Snapshot,
            row: pg_sys::HeapTuple,
            all_are_dead: *mut bool,
            is_first: bool,
        ) -> bool;
        /// `executor/tuptable.h`.
        pub fn MakeSingleTupleTableSlot(
            columns: pg_sys::TupleDesc,
            kind: *const pg_sys::TupleTableSlotOps,
        ) -> *mut pg_sys::TupleTableSlot;
        /// `executor/tuptable.h`: has the slot hold a row that lives elsewhere.
        pub fn ExecStoreHeapTuple(
            row: pg_sys::HeapTuple,
            slot: *mut pg_sys::TupleTableSlot,
            is_to_be_freed: bool,
        ) -> *mut pg_sys::TupleTableSlot;
        /// `utils/palloc.h`.
        pub fn palloc(size: pg_sys::Size) -> *mut std::ffi::c_void;
        /// `utils/palloc.h`.
        pub fn pfree(memory: *mut std::ffi::c_void);
    }

    #[cfg(feature = "pg15")]
    unguarded! {
        /// `storage/bufmgr.h`: pins a buffer if it holds this page.
        pub fn ReadRecentBuffer(
            file: pg_sys::RelFileNode,
            fork: pg_sys::ForkNumber::Type,
            block: pg_sys::BlockNumber,
            buffer: pg_sys::Buffer,
        ) -> bool;
    }

    #[cfg(not(feature = "pg15"))]
    unguarded! {
        /// `storage/bufmgr.h`: pins a buffer if it holds this page.
        pub fn ReadRecentBuffer(
            file: pg_sys::RelFileLocator,
            fork: pg_sys::ForkNumber::Type,
            block: pg_sys::BlockNumber,
            buffer: pg_sys::Buffer,
        ) -> bool;
    }

    #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
    unguarded! {
        /// `utils/relcache.h`.
        pub fn RelationGetPrimaryKeyIndex(table: pg_sys::Relation) -> pg_sys::Oid;
        /// `access/genam.h`.
        pub fn index_beginscan(
            table: pg_sys::Relation,
            index: pg_sys::Relation,
            snapshot: pg_sys::Snapshot,
            key_count: i32,
            order_count: i32,
        ) -> pg_sys::IndexScanDesc;
    }

    #[cfg(not(any(feature = "pg15", feature = "pg16", feature = "pg17")))]
    unguarded! {
        /// `utils/relcache.h`.
        pub fn RelationGetPrimaryKeyIndex(table: pg_sys::Relation, deferrable: bool) -> pg_sys::Oid;
        /// `access/genam.h`.
        pub fn index_beginscan(
            table: pg_sys::Relation,
            index: pg_sys::Relation,
            snapshot: pg_sys::Snapshot,
            instruments: *mut pg_sys::IndexScanInstrumentation,
            key_count: i32,
            order_count: i32,
        ) -> pg_sys::IndexScanDesc;
    }

    // Handlers of signals, which no guard may stand around.
    unguarded! {
        /// `postmaster/interrupt.h`: has the configuration be read again.
        pub fn SignalHandlerForConfigReload(signal: i32);
        /// `postmaster/interrupt.h`: has the process end when it looks.
        pub fn SignalHandlerForShutdownRequest(signal: i32);
    }

    // Called without a guard, so that an error passes on as it is: the guard would make a new one, with less
    // in it.
    unguarded! {
        /// `tcop/utility.h`: what runs a utility statement where no extension wants to.
        pub fn standard_ProcessUtility(
            statement: *mut pg_sys::PlannedStmt,
            text: *const c_char,
            read_only: bool,
            context: pg_sys::ProcessUtilityContext::Type,
            parameters: pg_sys::ParamListInfo,
            environment: *mut pg_sys::QueryEnvironment,
            receiver: *mut pg_sys::DestReceiver,
            completion: *mut pg_sys::QueryCompletion,
        );
    }

    // Functions that the bindings lack: only a reader of headers can compare these. They are the same in 15 to 18.
    unsafe extern "C-unwind" {
        /// `utils/timeout.h`: forgets all timeouts of this process; raises no errors.
        pub fn disable_all_timeouts(keep_indicators: bool);
    }

    #[pgrx::pg_guard]
    unsafe extern "C-unwind" {
        /// `catalog/partition.h`: the table that a partition is of.
        pub fn get_partition_parent(relation: pg_sys::Oid, even_if_detached: bool) -> pg_sys::Oid;
        /// `utils/elog.h`: adds a line to the context of the error that is being made.
        pub fn errcontext_msg(format: *const c_char, ...) -> i32;
        /// `nodes/nodeFuncs.h`: calls the walker for what a query holds.
        #[cfg_attr(not(feature = "pg15"), link_name = "query_tree_walker_impl")]
        pub fn query_tree_walker(
            query: *mut pg_sys::Query,
            walker: Option<super::Walker>,
            context: *mut std::ffi::c_void,
            flags: i32,
        ) -> bool;
        /// `nodes/nodeFuncs.h`: calls the walker for what a node holds.
        #[cfg_attr(not(feature = "pg15"), link_name = "expression_tree_walker_impl")]
        pub fn expression_tree_walker(
            node: *mut pg_sys::Node,
            walker: Option<super::Walker>,
            context: *mut std::ffi::c_void,
        ) -> bool;
        /// `catalog/pg_inherits.h`: a relation and all that inherit from it, its partitions included.
        pub fn find_all_inheritors(
            relation: pg_sys::Oid,
            lock: pg_sys::LOCKMODE,
            parents: *mut *mut pg_sys::List,
        ) -> *mut pg_sys::List;
        /// `access/timeline.h`: the timelines that lead to one, and it, newest first.
        pub fn readTimeLineHistory(timeline: u32) -> *mut pg_sys::List;
        /// `access/timeline.h`: whether a timeline is in such a history.
        pub fn tliInHistory(timeline: u32, history: *mut pg_sys::List) -> bool;
        /// `access/timeline.h`: where the history left a timeline that is in it; 0 for its last one.
        pub fn tliSwitchPoint(timeline: u32, history: *mut pg_sys::List, next: *mut u32) -> u64;
        /// `access/toast_internals.h`: the value compressed, or null if that would not make it smaller.
        pub fn toast_compress_datum(value: pg_sys::Datum, method: c_char) -> pg_sys::Datum;
        /// `commands/async.h`: queues a notification of the current transaction.
        pub fn Async_Notify(channel: *const c_char, payload: *const c_char);
    }
}

/// Functions that raise errors and have no guard: whoever calls them puts one around the whole call.
pub mod unguarded {
    pub use super::server::{
        ExecDropSingleTupleTableSlot, ExecStoreHeapTuple, GetHeapamTableAmRoutine, LockBuffer,
        LockRelationOid, MakeSingleTupleTableSlot, ReadRecentBuffer, RelationGetPrimaryKeyIndex,
        ReleaseBuffer, ScanKeyInit, heap_hot_search_buffer, index_beginscan, index_close,
        index_endscan, index_fetch_heap, index_getnext_tid, index_open, index_rescan, palloc,
        pfree, slot_getsomeattrs_int, table_close, table_open, table_slot_create,
    };
}

/// Adds a line to the context of the error that is being made.
///
/// # Safety
/// Called by what stands on `error_context_stack`, and by that only.
pub unsafe fn add_error_context(line: &std::ffi::CStr) {
    // SAFETY: the caller's promise; the format takes one text, which is copied.
    unsafe { server::errcontext_msg(c"%s".as_ptr(), line.as_ptr()) };
}

/// A plain value compressed by this method of `pg_attribute.attcompression`, in the current memory; `None` if that
/// would not make it smaller.
///
/// # Safety
/// The value is a varlena that is neither compressed nor stored out of line.
pub unsafe fn compressed(value: pg_sys::Datum, method: std::ffi::c_char) -> Option<pg_sys::Datum> {
    // SAFETY: the caller's promise.
    let compressed = unsafe { server::toast_compress_datum(value, method) };
    (compressed.value() != 0).then_some(compressed)
}

/// What is called for each node of a tree; true ends the walk.
pub type Walker = unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut std::ffi::c_void) -> bool;

/// Calls a walker for what a query holds.
///
/// # Safety
/// `query` is a query; the walker takes the context, and lets no panic out.
pub unsafe fn walk_query(
    query: *mut pg_sys::Query,
    walker: Walker,
    context: *mut std::ffi::c_void,
) -> bool {
    // SAFETY: the caller's promise.
    unsafe { server::query_tree_walker(query, Some(walker), context, 0) }
}

/// Calls a walker for what a node holds.
///
/// # Safety
/// As for [`walk_query`].
pub unsafe fn walk_expression(
    node: *mut pg_sys::Node,
    walker: Walker,
    context: *mut std::ffi::c_void,
) -> bool {
    // SAFETY: the caller's promise.
    unsafe { server::expression_tree_walker(node, Some(walker), context) }
}

/// A relation and all that inherit from it, partitions included, locked as for reading until the transaction ends.
pub fn with_inheritors(relation: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // SAFETY: inside a transaction; the list holds numbers.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let list = server::find_all_inheritors(relation, lock, std::ptr::null_mut());
        let Some(list) = list.as_ref() else {
            return Vec::new();
        };
        let cells = std::slice::from_raw_parts(list.elements, list.length as usize);
        cells.iter().map(|cell| cell.oid_value).collect()
    }
}

/// The elements of a list of pointers; none of a null one.
///
/// # Safety
/// `list` is a list of pointers to `T`, or null.
pub unsafe fn pointers<T>(list: *const pg_sys::List) -> impl Iterator<Item = *mut T> {
    // SAFETY: the caller's promise.
    let cells = unsafe {
        list.as_ref().map_or(&[][..], |list| {
            std::slice::from_raw_parts(list.elements, list.length as usize)
        })
    };
    cells
        .iter()
        // SAFETY: a cell of a list of pointers holds one.
        .map(|cell| unsafe { cell.ptr_value }.cast())
}

/// Queues a notification that is sent when the transaction commits.
///
/// Raises PostgreSQL's own error for a channel of 64 bytes or a payload of 8,000 bytes and more.
pub fn async_notify(channel: &std::ffi::CStr, payload: &std::ffi::CStr) {
    // SAFETY: both are NUL-terminated and copied by the callee; we are inside a transaction.
    unsafe { server::Async_Notify(channel.as_ptr(), payload.as_ptr()) }
}

/// Whether this server is a standby or still recovering.
pub fn recovery_in_progress() -> bool {
    // SAFETY: reads a flag of this process or of shared memory.
    unsafe { server::RecoveryInProgress() }
}

/// The timeline that the server writes, or replays.
pub fn timeline() -> u32 {
    let mut timeline = 0;
    // SAFETY: each reads shared memory, and may be asked in one of the two cases only.
    unsafe {
        if recovery_in_progress() {
            pg_sys::GetXLogReplayRecPtr(&mut timeline);
            timeline
        } else {
            pg_sys::GetWALInsertionTimeLine()
        }
    }
}

/// Where the history that the server writes, or replays, has left an earlier timeline; `None` if that timeline is no
/// part of the history, or is the current one.
///
/// # Errors
/// The server's own where the file of the history cannot be read.
pub fn timeline_left(earlier: u32) -> Option<u64> {
    let current = timeline();
    if earlier == current {
        return None;
    }
    // SAFETY: the list is the server's, in the current memory context; the timeline is asked about only if it is in
    // it.
    unsafe {
        let history = server::readTimeLineHistory(current);
        server::tliInHistory(earlier, history)
            .then(|| server::tliSwitchPoint(earlier, history, std::ptr::null_mut()))
    }
}

/// Where in the WAL the next record goes.
pub fn wal_position() -> u64 {
    // SAFETY: reads shared memory.
    unsafe { pg_sys::GetXLogInsertRecPtr() }
}

/// `MAXALIGN`.
const fn maxalign(size: usize) -> u64 {
    (size as u64).next_multiple_of(pg_sys::MAXIMUM_ALIGNOF as u64)
}

/// Brings all WAL written so far to disk; the place up to which it is there. On a standby, what it has replayed is
/// there already.
pub fn flush_wal() -> u64 {
    if recovery_in_progress() {
        // SAFETY: reads shared memory; the timeline is not asked for.
        return unsafe { pg_sys::GetXLogReplayRecPtr(std::ptr::null_mut()) };
    }
    /// `SizeOfXLogShortPHD` and `SizeOfXLogLongPHD`: headers of a page, and of the first of a file.
    const HEADERS: (u64, u64) = (
        maxalign(size_of::<pg_sys::XLogPageHeaderData>()),
        maxalign(size_of::<pg_sys::XLogLongPageHeaderData>()),
    );
    let page = u64::from(pg_sys::XLOG_BLCKSZ);
    // SAFETY: reads shared memory and a global; waits for the disk.
    unsafe {
        let mut end = wal_position();
        let file = pg_sys::wal_segment_size as u64;
        let header = if end % file < page {
            HEADERS.1
        } else {
            HEADERS.0
        };
        if end % page == header {
            // The place of the next record, behind the header of a page that nobody has begun: flushing up to
            // there would be an error.
            end -= header;
        }
        pg_sys::XLogFlush(end);
        end
    }
}

/// The snapshot that the running statement sees.
pub fn active_snapshot() -> pg_sys::Snapshot {
    // SAFETY: SQL functions run with an active snapshot, and so does the flush.
    unsafe { server::GetActiveSnapshot() }
}

/// Begins a command of this transaction, and says which: what came before has other numbers.
pub fn begin_command() -> pg_sys::CommandId {
    // SAFETY: we are inside a transaction, not in parallel mode.
    unsafe {
        pg_sys::CommandCounterIncrement();
        pg_sys::GetCurrentCommandId(false)
    }
}

/// Takes an LWLock.
///
/// # Safety
/// The lock is one of ours, and this process does not hold it.
pub unsafe fn lwlock_acquire(lock: *mut pg_sys::LWLock, mode: pg_sys::LWLockMode::Type) {
    // SAFETY: the caller's promise.
    unsafe { server::LWLockAcquire(lock, mode) };
}

/// Gives an LWLock back.
///
/// # Safety
/// This process holds the lock.
pub unsafe fn lwlock_release(lock: *mut pg_sys::LWLock) {
    // SAFETY: the caller's promise.
    unsafe { server::LWLockRelease(lock) };
}

/// Wakes whoever waits on a latch. Takes no lock, cannot fail.
///
/// # Safety
/// The latch is in shared memory, or this process's own.
pub unsafe fn set_latch(latch: *mut pg_sys::Latch) {
    // SAFETY: the caller's promise.
    unsafe { server::SetLatch(latch) };
}

/// What runs a utility statement where no extension wants to. No value with a destructor may be alive in the
/// frames of the caller: an error jumps over them.
pub use server::standard_ProcessUtility as standard_process_utility;

/// The clock, in microseconds since 2000.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { server::GetCurrentTimestamp() }
}

/// A time, in microseconds since 2000, as messages show it.
pub fn timestamp_text(at: i64) -> String {
    // SAFETY: the text is NUL-terminated, in static memory of the server, and copied at once.
    let text = unsafe { std::ffi::CStr::from_ptr(pg_sys::timestamptz_to_str(at)) };
    text.to_string_lossy().into_owned()
}

/// Forgets all timeouts of this process, also those that have just come.
pub fn disable_all_timeouts() {
    // SAFETY: changes this process's timers only.
    unsafe { server::disable_all_timeouts(false) };
}

/// SIGHUP and SIGTERM set flags and this process's latch, which a background worker looks at when it can.
pub fn handle_worker_signals() {
    let handlers: [(u32, unsafe extern "C-unwind" fn(i32)); 2] = [
        (pg_sys::SIGHUP, server::SignalHandlerForConfigReload),
        (pg_sys::SIGTERM, server::SignalHandlerForShutdownRequest),
    ];
    for (signal, handler) in handlers {
        // SAFETY: the server's own handlers do what a handler may.
        unsafe {
            #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
            pg_sys::pqsignal(signal as i32, Some(handler));
            #[cfg(not(any(feature = "pg15", feature = "pg16", feature = "pg17")))]
            pg_sys::pqsignal_be(signal as i32, Some(handler));
        }
    }
}

/// Whether a role owns a database or has its owner's rights.
pub fn owns_database(database: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: looks into the system caches, inside a transaction.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::pg_database_ownercheck(database, role);
        #[cfg(not(feature = "pg15"))]
        return pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, role);
    }
}

/// Whether a role may create databases.
pub fn may_create_databases(role: pg_sys::Oid) -> bool {
    // SAFETY: looks into the system caches, inside a transaction; the row is released again.
    unsafe {
        if pg_sys::superuser_arg(role) {
            return true;
        }
        let cache = pg_sys::SysCacheIdentifier::AUTHOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(role));
        if tuple.is_null() {
            return false;
        }
        let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_authid>();
        let may = (*row).rolcreatedb;
        pg_sys::ReleaseSysCache(tuple);
        may
    }
}

/// Whether the error that is being reported says that there was no memory; asked in a callback of its context.
pub fn is_out_of_memory() -> bool {
    // SAFETY: an error is being reported.
    unsafe { server::geterrcode() == pgrx::PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY as i32 }
}

/// Whether a parallel query is running in this process.
pub fn is_in_parallel_mode() -> bool {
    // SAFETY: reads this backend's transaction state.
    unsafe { pg_sys::IsInParallelMode() }
}

/// `IsParallelWorker()`.
pub fn is_parallel_worker() -> bool {
    // SAFETY: a plain global of this process.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

/// `IsolationIsSerializable()`.
pub fn isolation_is_serializable() -> bool {
    // SAFETY: a plain global of this process.
    unsafe { pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32 }
}

/// `IsolationUsesXactSnapshot()`: REPEATABLE READ and above.
pub fn isolation_uses_transaction_snapshot() -> bool {
    // SAFETY: a plain global of this process.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// When the client's statement began; the clock that decides what has expired, so that one statement
/// has one answer.
pub fn statement_timestamp() -> i64 {
    // SAFETY: reads a global of this process.
    unsafe { server::GetCurrentStatementStartTimestamp() }
}

/// Sets a setting until the transaction ends, as SET LOCAL does.
pub fn set_local(name: &std::ffi::CStr, value: &std::ffi::CStr) {
    // SAFETY: inside a transaction; both are NUL-terminated and copied. Raises PostgreSQL's own error for what
    // it does not know.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}

/// The table that a partition belongs to in the end; any other table itself.
pub fn root_of_partition(table: pg_sys::Oid) -> pg_sys::Oid {
    let mut table = table;
    // SAFETY: look-ups in the system catalogs, inside a transaction; a partition has a parent.
    unsafe {
        while pg_sys::get_rel_relispartition(table) {
            table = server::get_partition_parent(table, true);
        }
    }
    table
}

/// Whether there is such a role.
pub fn role_exists(role: pg_sys::Oid) -> bool {
    exists(pg_sys::SysCacheIdentifier::AUTHOID, role)
}

/// Whether there is such a relation.
pub fn relation_exists(relation: pg_sys::Oid) -> bool {
    exists(pg_sys::SysCacheIdentifier::RELOID, relation)
}

/// Whether a function is there.
pub fn function_exists(function: pg_sys::Oid) -> bool {
    exists(pg_sys::SysCacheIdentifier::PROCOID, function)
}

fn exists(cache: pg_sys::SysCacheIdentifier::Type, oid: pg_sys::Oid) -> bool {
    let none = pg_sys::Datum::from(0usize);
    // SAFETY: a look-up in a system cache whose key is an OID; we are inside a transaction.
    unsafe {
        pg_sys::SearchSysCacheExists(cache as i32, pg_sys::Datum::from(oid), none, none, none)
    }
}

/// Nesting level of the running (sub)transaction: 1 for the top transaction.
pub fn nest_level() -> i32 {
    // SAFETY: reads this backend's transaction state.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() }
}

/// The role whose privileges count now.
pub fn current_user() -> pg_sys::Oid {
    // SAFETY: reads a global of this process.
    unsafe { server::GetUserId() }
}

/// The name of a role, in server encoding.
pub fn user_name(role: pg_sys::Oid) -> Vec<u8> {
    // SAFETY: raises PostgreSQL's own error for a role that is gone; the name is NUL-terminated and copied.
    unsafe { std::ffi::CStr::from_ptr(pg_sys::GetUserNameFromId(role, false)) }
        .to_bytes()
        .to_vec()
}

/// Whether text in this database is UTF-8.
pub fn database_is_utf8() -> bool {
    database_encoding() == pg_sys::pg_enc::PG_UTF8 as i32
}

/// The encoding of this database, as the server numbers encodings.
pub fn database_encoding() -> i32 {
    // SAFETY: reads a global of this process.
    unsafe { server::GetDatabaseEncoding() }
}

/// Bytes of the character at the front of a text that is not empty, in an encoding that a server can have;
/// 0 for an empty one.
pub fn character_bytes(encoding: i32, text: &[u8]) -> usize {
    if text.is_empty() {
        return 0;
    }
    // SAFETY: looks at the first byte, which is there.
    let bytes = unsafe { server::pg_encoding_mblen(encoding, text.as_ptr().cast()) };
    usize::try_from(bytes).unwrap_or(1)
}

/// A text without NUL in another encoding, of which it may take so many bytes; `None` if that encoding lacks one
/// of its characters, or the server knows no way. Called in a transaction.
pub fn convert(from: i32, to: i32, text: &[u8], most: usize) -> Option<Vec<u8>> {
    let length = i32::try_from(text.len()).ok()?;
    let room = i32::try_from(most + 1).ok()?;
    let mut converted = Vec::new();
    converted.try_reserve_exact(most + 1).ok()?;
    converted.resize(most + 1, 0);
    // SAFETY: looks the conversion up in the catalogs; it reads so many bytes, writes at most so many, a NUL
    // behind them, and the last argument has it raise no error for what it cannot convert.
    let read = unsafe {
        let conversion = pg_sys::FindDefaultConversionProc(from, to);
        if conversion == pg_sys::InvalidOid {
            return None;
        }
        pg_sys::pg_do_encoding_conversion_buf(
            conversion,
            from,
            to,
            text.as_ptr().cast_mut(),
            length,
            converted.as_mut_ptr(),
            room,
            true,
        )
    };
    if read != length {
        return None;
    }
    let end = converted.iter().position(|byte| *byte == 0)?;
    converted.truncate(end);
    Some(converted)
}

/// Whether bytes are text in the encoding of this database.
pub fn is_text(bytes: &[u8]) -> bool {
    if database_is_utf8() {
        return std::str::from_utf8(bytes).is_ok();
    }
    let Ok(length) = i32::try_from(bytes.len()) else {
        return false;
    };
    // SAFETY: looks at so many bytes; the last argument has it raise no error.
    unsafe { pg_sys::pg_verify_mbstr(database_encoding(), bytes.as_ptr().cast(), length, true) }
}

/// Raises PostgreSQL's own error when the stack is nearly used up.
pub fn check_stack() {
    // SAFETY: looks at the address of a variable of its own.
    unsafe { pg_sys::check_stack_depth() };
}

/// The database of this session.
pub fn my_database() -> u32 {
    // SAFETY: a plain global of this process.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

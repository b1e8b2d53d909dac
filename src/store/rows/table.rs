//! One open table: rows are looked up by the primary key, made, replaced and deleted.

use super::access::{self, Indexed, Place, Slot};
use crate::call::bigint_datum;
use crate::catalog::{self, Catalog};
use crate::error::Error;
use crate::{memory, sys, varlena};
use pgrx::pg_sys;
use state_cache_memory::copy;

/// How many columns a primary key has at most.
const MAX_KEY: usize = 4;

/// How rows of a table are looked up and written.
pub struct Shape {
    /// The conditions on columns of the index: the column, the strategy and the function that compares.
    pub conditions: &'static [(i16, u32, u32)],
    /// Whether rows are made unless there is one of their key: the indexes are opened for that.
    pub is_speculative: bool,
    /// Columns of indexes that no update here changes.
    pub fixed: &'static [i16],
}

/// A value, or NULL.
pub type Value = Option<pg_sys::Datum>;

/// An open table, for the changes of one statement.
pub struct Table {
    relation: pg_sys::Relation,
    /// The index that rows are looked up by: mostly that of the primary key.
    index: pg_sys::Relation,
    scan: pg_sys::IndexScanDesc,
    keys: [pg_sys::ScanKeyData; MAX_KEY],
    /// The row that was found, pinned where it is.
    found: Slot,
    /// The row to be written; null until there was one.
    new: Slot,
    indexes: Option<Indexes>,
    shape: &'static Shape,
    /// Where what lives as long as this was allocated.
    memory: pg_sys::MemoryContext,
}

/// All indexes of a table, open for new entries.
struct Indexes {
    table: *mut pg_sys::ResultRelInfo,
    executor: *mut pg_sys::EState,
}

/// Which rows of a state are looked up, by their versions, both included.
#[derive(Clone, Copy)]
pub struct Range {
    pub from: i64,
    pub to: i64,
}

/// Rows in the order of the primary key.
pub const FORWARD: pg_sys::ScanDirection::Type = pg_sys::ScanDirection::ForwardScanDirection;
/// And in the other.
pub const BACKWARD: pg_sys::ScanDirection::Type = pg_sys::ScanDirection::BackwardScanDirection;

/// What came of the attempt to replace or delete a row that was looked up.
enum Attempt {
    Done,
    /// It is gone.
    Gone,
    /// Others have changed it: what was found is its newest version now, and locked.
    Newer,
}

/// A row that was found. Its values are valid until the next one is looked up.
pub struct Found<'a> {
    slot: Slot,
    values: &'a [pg_sys::Datum],
    nulls: &'a [bool],
}

impl<'a> Found<'a> {
    /// A column, `None` for NULL.
    pub fn value(&self, column: usize) -> Value {
        (!self.nulls[column]).then(|| self.values[column])
    }

    /// A `bigint` or `timestamptz` column, 0 for NULL.
    pub fn bigint(&self, column: usize) -> i64 {
        self.value(column).map_or(0, |value| value.value() as i64)
    }

    /// When a state expires, `i64::MAX` for NULL.
    pub fn expiry(&self, column: usize) -> i64 {
        (self.value(column)).map_or(i64::MAX, |value| value.value() as i64)
    }

    /// A `boolean` column, false for NULL.
    pub fn boolean(&self, column: usize) -> bool {
        self.value(column)
            .is_some_and(|value| value.value() & 0xff != 0)
    }

    /// The transaction that wrote the row.
    pub fn xmin(&self) -> pg_sys::TransactionId {
        // SAFETY: the slot holds the row.
        unsafe { access::writer_of(self.slot) }
    }

    /// A column of variable length, copied.
    ///
    /// # Safety
    /// It is one.
    pub unsafe fn copy(&self, column: usize) -> Option<Vec<u8>> {
        // SAFETY: the caller's promise.
        let bytes = unsafe { self.bytes(column)? };
        Some(memory::or_raise(copy(bytes)))
    }

    /// A `text` or `bytea` column.
    ///
    /// # Safety
    /// It is one.
    pub unsafe fn bytes(&self, column: usize) -> Option<&'a [u8]> {
        let value = self.value(column)?;
        // SAFETY: such a column, the caller says; the row is pinned while it is found.
        Some(unsafe { varlena::detoasted_bytes(value.cast_mut_ptr()) })
    }
}

impl Table {
    /// Opens a table, locked like this; `None` if it is another one by now, or has no primary key. Raises `40001`
    /// where another transaction has dropped the tables.
    ///
    /// # Safety
    /// The conditions of the shape are those on the first columns of the table's primary key, and the table is closed
    /// by [`Table::close`] under the memory context and resource owner of now, unless there is an error.
    pub unsafe fn open(
        catalog: &Catalog,
        table: pg_sys::Oid,
        shape: &'static Shape,
        lock: u32,
    ) -> Option<Self> {
        // SAFETY: the caller's promise.
        unsafe { Self::open_by(catalog, table, shape, lock, |it| catalog::primary_key(it)) }
    }

    /// The same with the index that `index` finds for the open table.
    ///
    /// # Safety
    /// As for [`Table::open`], but with the columns of that index.
    pub unsafe fn open_by(
        catalog: &Catalog,
        table: pg_sys::Oid,
        shape: &'static Shape,
        lock: u32,
        index: impl FnOnce(pg_sys::Relation) -> pg_sys::Oid,
    ) -> Option<Self> {
        let lock = lock as i32;
        // SAFETY: the caller's promise. The slots and the scan are ended by `close`.
        unsafe {
            let relation = pg_sys::try_table_open(table, lock);
            if relation.is_null() {
                match catalog::renewed(catalog) {
                    Ok(_) => return None,
                    Err(_) => Error::Reinstalled.raise(),
                }
            }
            let index = match index(relation) {
                pg_sys::InvalidOid => {
                    pg_sys::table_close(relation, pg_sys::NoLock as i32);
                    return None;
                }
                index => pg_sys::index_open(index, lock),
            };
            let mut keys = [pg_sys::ScanKeyData::default(); MAX_KEY];
            let none = pg_sys::Datum::from(0usize);
            for (scan_key, (column, strategy, function)) in keys.iter_mut().zip(shape.conditions) {
                let (function, strategy) = ((*function).into(), *strategy as u16);
                pg_sys::ScanKeyInit(scan_key, *column, strategy, function, none);
                scan_key.sk_collation = *(*index).rd_indcollation.add(*column as usize - 1);
            }
            Some(Self {
                relation,
                index,
                scan: begin_scan(relation, index, shape.conditions.len()),
                keys,
                found: pg_sys::table_slot_create(relation, std::ptr::null_mut()),
                new: std::ptr::null_mut(),
                indexes: None,
                shape,
                memory: pg_sys::CurrentMemoryContext,
            })
        }
    }

    /// How many columns it has.
    pub fn columns(&self) -> usize {
        // SAFETY: the table is open.
        unsafe { (*(*self.relation).rd_att).natts as usize }
    }

    /// Lets go of the rows that were looked up, and of the one that was written.
    pub fn release(&mut self) {
        // SAFETY: slots are there until the table is closed.
        unsafe {
            access::clear(self.found);
            if !self.new.is_null() {
                access::clear(self.new);
            }
        }
    }

    /// Closes it; the table's lock stays until the transaction ends, as a statement's does.
    pub fn close(&mut self) {
        // SAFETY: what `open` and `indexes` have opened, in the reverse order.
        unsafe {
            if let Some(Indexes { table, executor }) = self.indexes.take() {
                pg_sys::ExecCloseIndices(table);
                pg_sys::FreeExecutorState(executor);
            }
            if !self.new.is_null() {
                pg_sys::ExecDropSingleTupleTableSlot(self.new);
            }
            pg_sys::ExecDropSingleTupleTableSlot(self.found);
            pg_sys::index_endscan(self.scan);
            pg_sys::index_close(self.index, pg_sys::NoLock as i32);
            pg_sys::table_close(self.relation, pg_sys::NoLock as i32);
        }
    }

    /// Begins to look up rows of a state, as the active snapshot sees them.
    ///
    /// # Safety
    /// The names live until the last row was found.
    pub unsafe fn look_up(&mut self, [class, key]: [pg_sys::Datum; 2], range: Option<Range>) {
        // SAFETY: the caller's promise.
        unsafe {
            match range {
                None => self.look_up_by(&[class, key]),
                Some(Range { from, to }) => {
                    self.look_up_by(&[class, key, bigint_datum(from), bigint_datum(to)]);
                }
            }
        }
    }

    /// Begins to look up rows by values for the conditions of the shape, as the active snapshot sees them.
    ///
    /// # Safety
    /// The values are of the types that the conditions compare, and live until the last row was found.
    pub unsafe fn look_up_by(&mut self, values: &[pg_sys::Datum]) {
        for (key, value) in self.keys.iter_mut().zip(values) {
            key.sk_argument = *value;
        }
        debug_assert_eq!(values.len(), self.shape.conditions.len());
        let count = self.shape.conditions.len();
        // SAFETY: the scan was begun with as many keys; the active snapshot outlives the look-up.
        unsafe {
            (*self.scan).xs_snapshot = sys::active_snapshot();
            let keys = self.keys.as_mut_ptr();
            pg_sys::index_rescan(self.scan, keys, count as i32, std::ptr::null_mut(), 0);
        }
    }

    /// The next of the rows looked up, in this direction.
    pub fn next(&mut self, direction: pg_sys::ScanDirection::Type) -> Option<Found<'_>> {
        // SAFETY: a look-up has begun. What the scan allocates meanwhile it keeps.
        let found = unsafe {
            let outer = pg_sys::MemoryContextSwitchTo(self.memory);
            let found = pg_sys::index_getnext_slot(self.scan, direction, self.found);
            pg_sys::MemoryContextSwitchTo(outer);
            found
        };
        found.then(|| self.found())
    }

    /// The row that was found last.
    pub fn found(&self) -> Found<'_> {
        // SAFETY: there is one; the slot has as many values as columns once all are looked at.
        unsafe {
            access::get_all_columns(self.found);
            let count = (*self.found).tts_nvalid as usize;
            Found {
                slot: self.found,
                values: std::slice::from_raw_parts((*self.found).tts_values, count),
                nulls: std::slice::from_raw_parts((*self.found).tts_isnull, count),
            }
        }
    }

    /// The row to be written, made in the current memory.
    fn fill<const N: usize>(&mut self, row: [Value; N]) {
        debug_assert_eq!(self.columns(), N);
        let mut nulls = row.map(|value| value.is_none());
        let mut values = row.map(|value| value.unwrap_or(pg_sys::Datum::from(0usize)));
        let memory = self.memory;
        // SAFETY: the row has as many columns as the table, which `Tables::open` has seen to. The slot frees it.
        unsafe {
            if self.new.is_null() {
                let outer = pg_sys::MemoryContextSwitchTo(memory);
                let descriptor = (*self.relation).rd_att;
                let kind = &raw const pg_sys::TTSOpsHeapTuple;
                self.new = pg_sys::MakeSingleTupleTableSlot(descriptor, kind);
                pg_sys::MemoryContextSwitchTo(outer);
            }
            let descriptor = (*self.relation).rd_att;
            if compresses_as_usual(self.relation) {
                for (n, value) in values.iter_mut().enumerate().filter(|(n, _)| !nulls[*n]) {
                    *value = compressed(*value, catalog::attribute(descriptor, n));
                }
            }
            let tuple =
                pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::ExecStoreHeapTuple(tuple, self.new, true);
        }
    }

    /// Makes a row.
    ///
    /// # Errors
    /// The server's own for a row that is there already.
    pub fn insert<const N: usize>(&mut self, row: [Value; N]) {
        self.fill(row);
        // SAFETY: the table is open and locked, the row has its columns.
        unsafe { access::insert(self.relation, self.new, pg_sys::GetCurrentCommandId(true)) };
        self.insert_into_indexes(Indexed::All, false, None);
    }

    /// Makes a row unless there is one of its key; whether it has. Others that are about to make one are waited for.
    pub fn insert_unless_there<const N: usize>(&mut self, row: [Value; N]) -> bool {
        loop {
            pgrx::check_for_interrupts!();
            self.fill(row);
            // SAFETY: as in `insert`. The token is released in every case but an error, which ends the transaction
            // or subtransaction that holds it.
            let is_made = unsafe {
                let command = pg_sys::GetCurrentCommandId(true);
                let transaction = pg_sys::GetCurrentTransactionId();
                let token = pg_sys::SpeculativeInsertionLockAcquire(transaction);
                access::insert_speculatively(self.relation, self.new, command, token);
                let mut conflicts = false;
                self.insert_into_indexes(Indexed::All, false, Some(&mut conflicts));
                access::complete(self.relation, self.new, token, !conflicts);
                pg_sys::SpeculativeInsertionLockRelease(transaction);
                !conflicts
            };
            if is_made {
                return true;
            }
            if let Some(other) = self.conflicting() {
                self.check_is_seen(other);
                return false;
            }
        }
    }

    /// Where the committed row is that has the key of the one to be written, once others that are about to make one
    /// are done.
    fn conflicting(&mut self) -> Option<Place> {
        let Indexes { table, executor } = *self.indexes();
        let mut other = Place::default();
        // SAFETY: the indexes are open; the slot holds the row.
        let is_free = unsafe {
            let arbiter = pg_sys::lappend_oid(std::ptr::null_mut(), (*self.index).rd_id);
            #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
            {
                pg_sys::ExecCheckIndexConstraints(table, self.new, executor, &mut other, arbiter)
            }
            #[cfg(not(any(feature = "pg15", feature = "pg16", feature = "pg17")))]
            {
                let mut none = Place::default();
                let (block, offset) = (pg_sys::InvalidBlockNumber, pg_sys::InvalidOffsetNumber);
                pgrx::itemptr::item_pointer_set_all(&mut none, block, offset);
                pg_sys::ExecCheckIndexConstraints(
                    table, self.new, executor, &mut other, &mut none, arbiter,
                )
            }
        };
        (!is_free).then_some(other)
    }

    /// Raises `40001` if the transaction's only snapshot does not see the row that others have made.
    fn check_is_seen(&mut self, other: Place) {
        if !sys::isolation_uses_transaction_snapshot() {
            return;
        }
        let snapshot = sys::active_snapshot();
        // SAFETY: the table is open and locked.
        let seen = unsafe { access::is_seen(self.relation, other, snapshot, self.found) };
        // SAFETY: looks at this backend's transaction state.
        let is_own = |writer| unsafe { pg_sys::TransactionIdIsCurrentTransactionId(writer) };
        match seen {
            Some((is_seen, writer)) if is_seen || is_own(writer) => {}
            Some(_) | None => Error::ConcurrentUpdate.raise(),
        }
    }

    /// Replaces the row that was found by what `row` makes of it, `None` if it is not the one that is meant. If
    /// others have changed it, `row` is asked again. Whether it was replaced.
    ///
    /// # Safety
    /// `row` keeps nothing of what it is given but values for the row that it makes.
    pub unsafe fn update<const N: usize>(
        &mut self,
        mut row: impl FnMut(Found<'_>) -> Option<[Value; N]>,
    ) -> bool {
        // SAFETY: the table is open.
        unsafe { pg_sys::CheckCmdReplicaIdentity(self.relation, pg_sys::CmdType::CMD_UPDATE) };
        while let Some(new) = row(self.found()) {
            self.fill(new);
            match self.replace() {
                Attempt::Done => return true,
                Attempt::Gone => return false,
                Attempt::Newer => {}
            }
        }
        false
    }

    fn replace(&mut self) -> Attempt {
        // SAFETY: the table is open and locked, a row was found, and the new one stands in its slot. Its values may
        // be those of the found one, which stays pinned.
        let (result, command, lock, indexed) = unsafe {
            let command = pg_sys::GetCurrentCommandId(true);
            let place = (*self.found).tts_tid;
            let snapshot = sys::active_snapshot();
            let (result, lock, indexed) =
                access::update(self.relation, place, self.new, command, snapshot);
            (result, command, lock, indexed)
        };
        let attempt = self.attempt(result, lock, command);
        if matches!(attempt, Attempt::Done) && indexed != Indexed::None {
            self.insert_into_indexes(indexed, true, None);
        }
        attempt
    }

    /// Deletes the row that was found, if `is_meant`; if others have changed it, that is asked again.
    pub fn delete(&mut self, mut is_meant: impl FnMut(Found<'_>) -> bool) {
        // SAFETY: the table is open.
        unsafe { pg_sys::CheckCmdReplicaIdentity(self.relation, pg_sys::CmdType::CMD_DELETE) };
        while is_meant(self.found()) {
            // SAFETY: the table is open and locked, and a row was found.
            let (result, command) = unsafe {
                let command = pg_sys::GetCurrentCommandId(true);
                let place = (*self.found).tts_tid;
                let snapshot = sys::active_snapshot();
                let result = access::delete(self.relation, place, command, snapshot);
                (result, command)
            };
            let lock = pg_sys::LockTupleMode::LockTupleExclusive;
            match self.attempt(result, lock, command) {
                Attempt::Done | Attempt::Gone => return,
                Attempt::Newer => {}
            }
        }
    }

    /// What an attempt came to. Where others have changed the row, its newest version is locked.
    fn attempt(
        &mut self,
        result: pg_sys::TM_Result::Type,
        lock: pg_sys::LockTupleMode::Type,
        command: pg_sys::CommandId,
    ) -> Attempt {
        let is_fixed = sys::isolation_uses_transaction_snapshot();
        match result {
            pg_sys::TM_Result::TM_Ok => Attempt::Done,
            pg_sys::TM_Result::TM_Updated if is_fixed => Error::ConcurrentUpdate.raise(),
            pg_sys::TM_Result::TM_Deleted if is_fixed => Error::ConcurrentDelete.raise(),
            pg_sys::TM_Result::TM_Updated => self.lock_newest(lock, command),
            pg_sys::TM_Result::TM_Deleted => Attempt::Gone,
            // Only this command can have changed a row since the snapshot was taken, and it writes a row once.
            _ => unexpected(result),
        }
    }

    /// Locks the newest version of the row that was found.
    fn lock_newest(
        &mut self,
        lock: pg_sys::LockTupleMode::Type,
        command: pg_sys::CommandId,
    ) -> Attempt {
        let snapshot = sys::active_snapshot();
        // SAFETY: the table is open and locked.
        let result = unsafe {
            let place = (*self.found).tts_tid;
            access::lock_newest(self.relation, place, snapshot, self.found, command, lock)
        };
        match result {
            pg_sys::TM_Result::TM_Ok => Attempt::Newer,
            pg_sys::TM_Result::TM_Deleted => Attempt::Gone,
            _ => unexpected(result),
        }
    }

    /// The indexes, opened when they are first needed: most changes of a row leave them alone.
    fn indexes(&mut self) -> &Indexes {
        let (relation, memory) = (self.relation, self.memory);
        let shape = self.shape;
        self.indexes.get_or_insert_with(|| {
            // SAFETY: the table is open and locked. What the server looks at of the node is set here: a row is of no
            // range table, and no trigger is called.
            unsafe {
                let outer = pg_sys::MemoryContextSwitchTo(memory);
                let table = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>());
                let table = table.cast::<pg_sys::ResultRelInfo>();
                (*table).type_ = pg_sys::NodeTag::T_ResultRelInfo;
                (*table).ri_RelationDesc = relation;
                pg_sys::ExecOpenIndices(table, shape.is_speculative);
                say_what_stays(table, shape.fixed);
                let executor = pg_sys::CreateExecutorState();
                pg_sys::MemoryContextSwitchTo(outer);
                Indexes { table, executor }
            }
        })
    }

    /// Makes the entries of the row just written. `is_update`: it replaces one. `conflicts`: a row of the same key is
    /// no error, but said.
    fn insert_into_indexes(
        &mut self,
        indexed: Indexed,
        is_update: bool,
        conflicts: Option<&mut bool>,
    ) {
        debug_assert_ne!(indexed, Indexed::None);
        let row = self.new;
        // SAFETY: the index is open.
        let key = unsafe { (*self.index).rd_id };
        let Indexes { table, executor } = *self.indexes();
        // SAFETY: the indexes are open; the slot holds the row and its place.
        unsafe {
            let is_speculative = conflicts.is_some();
            let arbiter = match is_speculative {
                true => pg_sys::lappend_oid(std::ptr::null_mut(), key),
                false => std::ptr::null_mut(),
            };
            let conflicts = conflicts.map_or(std::ptr::null_mut(), |it| &raw mut *it);
            #[cfg(feature = "pg15")]
            pg_sys::ExecInsertIndexTuples(
                table,
                row,
                executor,
                is_update,
                is_speculative,
                conflicts,
                arbiter,
            );
            #[cfg(not(feature = "pg15"))]
            pg_sys::ExecInsertIndexTuples(
                table,
                row,
                executor,
                is_update,
                is_speculative,
                conflicts,
                arbiter,
                indexed == Indexed::Summarizing,
            );
            if let Some(context) = (*executor).es_per_tuple_exprcontext.as_mut() {
                pg_sys::MemoryContextReset(context.ecxt_per_tuple_memory);
            }
        }
    }
}

/// `TOAST_TUPLE_THRESHOLD`: a row that is longer is made shorter.
const LONGEST_ROW: usize = {
    let header = size_of::<pg_sys::PageHeaderData>() + 4 * size_of::<pg_sys::ItemIdData>();
    (pg_sys::BLCKSZ as usize - header.next_multiple_of(8)) / 4 / 8 * 8
};

/// Whether the server compresses what makes a row too long, before all else.
///
/// # Safety
/// The table is open.
unsafe fn compresses_as_usual(table: pg_sys::Relation) -> bool {
    // SAFETY: a table's options are these, if it has any.
    let options = unsafe { (*table).rd_options.cast::<pg_sys::StdRdOptions>().as_ref() };
    options.is_none_or(|it| it.toast_tuple_target as usize == LONGEST_ROW)
}

/// A value of a column, compressed as the server will do it: where it makes a row too long by itself. The server
/// would form the row first, with the whole value, and form it again. What is not smaller then the server looks at
/// again.
///
/// # Safety
/// The value is one of the column, and not NULL.
unsafe fn compressed(
    value: pg_sys::Datum,
    column: &pg_sys::FormData_pg_attribute,
) -> pg_sys::Datum {
    let is_extended = column.attstorage == pg_sys::TYPSTORAGE_EXTENDED as std::ffi::c_char;
    // SAFETY: a value of such a column is a varlena.
    unsafe {
        let is_long = column.attlen == -1
            && is_extended
            && varlena::plain_size(value).is_some_and(|size| size > LONGEST_ROW);
        match is_long {
            true => sys::compressed(value, column.attcompression).unwrap_or(value),
            false => value,
        }
    }
}

/// Tells the indexes beforehand which of them an update of a row leaves as it was, which they take for a hint to look
/// for dead entries where a page is full. The executor finds out by the columns that the statement sets: here all but
/// those that are fixed.
///
/// # Safety
/// The indexes of `table` are open.
unsafe fn say_what_stays(table: *mut pg_sys::ResultRelInfo, fixed: &[i16]) {
    // SAFETY: the caller's promise; an index has as many columns as it says.
    unsafe {
        for n in 0..(*table).ri_NumIndices as usize {
            let index = &mut **(*table).ri_IndexRelationInfo.add(n);
            let columns = &index.ii_IndexAttrNumbers[..index.ii_NumIndexKeyAttrs as usize];
            index.ii_IndexUnchanged = columns.iter().all(|column| fixed.contains(column));
            index.ii_CheckedUnchanged = true;
        }
    }
}

/// Raises the error for what the table's access method must not answer.
fn unexpected(result: pg_sys::TM_Result::Type) -> ! {
    Error::Internal {
        message: format!("a row was changed by the command that is to change it ({result})"),
    }
    .raise()
}

/// Begins an index scan under no snapshot yet.
///
/// # Safety
/// Both are open; the scan is ended before they are closed.
unsafe fn begin_scan(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    keys: usize,
) -> pg_sys::IndexScanDesc {
    let (snapshot, keys) = (sys::active_snapshot(), keys as i32);
    #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
    // SAFETY: both relations are open, the caller says.
    unsafe {
        pg_sys::index_beginscan(table, index, snapshot, keys, 0)
    }
    #[cfg(not(any(feature = "pg15", feature = "pg16", feature = "pg17")))]
    // SAFETY: both relations are open, the caller says.
    unsafe {
        pg_sys::index_beginscan(table, index, snapshot, std::ptr::null_mut(), keys, 0)
    }
}

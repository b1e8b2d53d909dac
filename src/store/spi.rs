//! A thin layer over SPI that leaves the snapshot to us: a read runs under the active snapshot, which
//! the cache protocol depends on.

use crate::error::{Error, Result};
use crate::{memory, sys, varlena};
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use state_cache_memory::{boxed, copy};
use std::ffi::CString;

/// A statement prepared for the life of the session.
pub struct Statement(pg_sys::SPIPlanPtr);

impl Statement {
    fn prepare(schema: &[u8], sql: &str, types: &[pg_sys::Oid]) -> Result<Self> {
        let parts: Vec<&[u8]> = sql.split("@extschema@").map(str::as_bytes).collect();
        let sql = CString::new(parts.join(schema)).unwrap_or_default();
        let mut types = types.to_vec();
        // SAFETY: connected; the text is NUL-terminated, the types are as many as said; the plan is kept at once.
        unsafe {
            // All statements look up single rows by primary key: planning anew for the values at hand
            // costs a tenth of a write and never finds another plan.
            let plan = pg_sys::SPI_prepare_cursor(
                sql.as_ptr(),
                types.len() as i32,
                types.as_mut_ptr(),
                pg_sys::CURSOR_OPT_GENERIC_PLAN as i32,
            );
            if plan.is_null() {
                return Err(failed("SPI_prepare", pg_sys::SPI_result));
            }
            match pg_sys::SPI_keepplan(plan) {
                0 => Ok(Self(plan)),
                code => Err(failed("SPI_keepplan", code)),
            }
        }
    }
}

impl Statement {
    /// A query of somebody else's, prepared for the life of the session. Its text is taken as it is, and the server
    /// plans it as any prepared statement.
    ///
    /// # Errors
    /// The server raises its own for what it cannot read.
    pub fn of_text(_: &Connection, sql: &std::ffi::CStr, types: &[pg_sys::Oid]) -> Result<Self> {
        let mut types = types.to_vec();
        // SAFETY: connected; the text is NUL-terminated, the types are as many as said; the plan is kept at once.
        unsafe {
            let plan =
                pg_sys::SPI_prepare_cursor(sql.as_ptr(), types.len() as i32, types.as_mut_ptr(), 0);
            if plan.is_null() {
                return Err(failed("SPI_prepare", pg_sys::SPI_result));
            }
            match pg_sys::SPI_keepplan(plan) {
                0 => Ok(Self(plan)),
                code => Err(failed("SPI_keepplan", code)),
            }
        }
    }

    /// The statement of the text, analysed and rewritten, and what it gives (null for nothing), if the text is one
    /// statement and that is one query. Both live as long as this and until a relation changes.
    pub fn query(&self) -> Option<(*mut pg_sys::Query, pg_sys::TupleDesc)> {
        // SAFETY: the plan is kept; its sources and their queries are what the lists say.
        unsafe {
            let mut sources = sys::pointers::<pg_sys::CachedPlanSource>(
                pg_sys::SPI_plan_get_plan_sources(self.0),
            );
            let (source, None) = (sources.next()?, sources.next()) else {
                return None;
            };
            let mut queries = sys::pointers::<pg_sys::Query>((*source).query_list);
            match (queries.next(), queries.next()) {
                (Some(query), None) => Some((query, (*source).resultDesc)),
                _ => None,
            }
        }
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: kept by `prepare`, freed once; a plan in execution is reference-counted by the server.
        unsafe { pg_sys::SPI_freeplan(self.0) };
    }
}

/// An open connection to SPI; closes itself.
pub struct Connection(());

impl Connection {
    /// Connects.
    pub fn open() -> Result<Self> {
        // Whatever goes on for long goes through here.
        memory::check()?;
        // SAFETY: we are inside a transaction.
        match unsafe { pg_sys::SPI_connect() } {
            code if code == pg_sys::SPI_OK_CONNECT as i32 => Ok(Self(())),
            code => Err(failed("SPI_connect", code)),
        }
    }

    /// The statement in `slot`, prepared first if it is not yet. Its text says `@extschema@` for the
    /// schema, as an installation script does.
    pub fn prepare<'a>(
        &self,
        slot: &'a OnceCell<Statement>,
        schema: &[u8],
        sql: impl FnOnce() -> String,
        types: &[pg_sys::Oid],
    ) -> Result<&'a Statement> {
        slot.get_or_try_init(|| Statement::prepare(schema, &sql(), types))
    }

    /// Lets statements of this connection read what a trigger calls its tables of rows.
    pub fn register(&self, trigger: *mut pg_sys::TriggerData) -> Result<()> {
        // SAFETY: connected; the server has passed the trigger, which outlives the connection.
        match unsafe { pg_sys::SPI_register_trigger_data(trigger) } {
            code if code >= 0 => Ok(()),
            code => Err(failed("SPI_register_trigger_data", code)),
        }
    }

    /// Runs a query under the active snapshot; its rows.
    pub fn query<const N: usize>(
        &self,
        statement: &Statement,
        arguments: [Option<pg_sys::Datum>; N],
    ) -> Result<Rows> {
        self.execute(statement, arguments, true, 0)
    }

    /// The same, for so many rows at most.
    pub fn query_some<const N: usize>(
        &self,
        statement: &Statement,
        arguments: [Option<pg_sys::Datum>; N],
        most: std::ffi::c_long,
    ) -> Result<Rows> {
        self.execute(statement, arguments, true, most)
    }

    /// Runs a statement that writes or locks, under a new snapshot; its rows.
    pub fn modify<const N: usize>(
        &self,
        statement: &Statement,
        arguments: [Option<pg_sys::Datum>; N],
    ) -> Result<Rows> {
        self.execute(statement, arguments, false, 0)
    }

    /// Runs a query under the active snapshot and calls `each` for its rows, of which only
    /// [`ROWS_AT_A_TIME`] are in memory at a time.
    pub fn for_each<const N: usize>(
        &self,
        statement: &Statement,
        arguments: [Option<pg_sys::Datum>; N],
        mut each: impl FnMut(Row<'_>) -> Result<Proceed>,
    ) -> Result<()> {
        let (mut values, nulls) = split(arguments);
        // SAFETY: as in `execute`; the portal lives in this connection's transaction and is closed here, or by
        // the server on an error.
        let portal = unsafe {
            pg_sys::SPI_cursor_open(
                std::ptr::null(),
                statement.0,
                values.as_mut_ptr(),
                nulls.as_ptr(),
                true,
            )
        };
        let mut proceed = Proceed::On;
        while proceed == Proceed::On {
            // SAFETY: the portal is open; the rows are freed before the next are fetched.
            let rows = unsafe {
                pg_sys::SPI_cursor_fetch(portal, true, ROWS_AT_A_TIME);
                Rows {
                    table: pg_sys::SPI_tuptable,
                    count: pg_sys::SPI_processed as usize,
                }
            };
            if rows.count == 0 {
                break;
            }
            for row in rows.iter() {
                proceed = each(row)?;
                if proceed == Proceed::Stop {
                    break;
                }
            }
            // SAFETY: no row is referred to any more.
            unsafe { pg_sys::SPI_freetuptable(rows.table) };
        }
        // SAFETY: opened above.
        unsafe { pg_sys::SPI_cursor_close(portal) };
        Ok(())
    }

    fn execute<const N: usize>(
        &self,
        statement: &Statement,
        arguments: [Option<pg_sys::Datum>; N],
        read_only: bool,
        most: std::ffi::c_long,
    ) -> Result<Rows> {
        let (mut values, nulls) = split(arguments);
        // SAFETY: as many values and nulls as the statement was prepared with; rows stay valid until the
        // connection closes.
        unsafe {
            let code = pg_sys::SPI_execute_plan(
                statement.0,
                values.as_mut_ptr(),
                nulls.as_ptr(),
                read_only,
                most,
            );
            if code < 0 {
                return Err(failed("SPI_execute_plan", code));
            }
            Ok(Rows {
                table: pg_sys::SPI_tuptable,
                count: pg_sys::SPI_processed as usize,
            })
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // On an error the server closes the connection when it aborts the (sub)transaction.
        if !std::thread::panicking() {
            // SAFETY: opened by `open`, connections nest like our values do.
            unsafe { pg_sys::SPI_finish() };
        }
    }
}

/// Rows fetched from a cursor at a time.
const ROWS_AT_A_TIME: std::ffi::c_long = 500;

/// Whether more rows are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proceed {
    /// They are.
    On,
    /// They are not.
    Stop,
}

/// Arguments as SPI takes them.
fn split<const N: usize>(
    arguments: [Option<pg_sys::Datum>; N],
) -> ([pg_sys::Datum; N], [std::ffi::c_char; N]) {
    let values = arguments.map(|argument| argument.unwrap_or(pg_sys::Datum::from(0usize)));
    let nulls =
        arguments.map(|argument| if argument.is_none() { b'n' } else { b' ' } as std::ffi::c_char);
    (values, nulls)
}

/// The rows of one statement.
pub struct Rows {
    table: *mut pg_sys::SPITupleTable,
    count: usize,
}

impl Rows {
    /// The only row, or none.
    pub fn first(&self) -> Option<Row<'_>> {
        self.iter().next()
    }

    /// All rows.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        let count = if self.table.is_null() { 0 } else { self.count };
        (0..count).map(|number| Row { rows: self, number })
    }
}

/// One row; columns count from 1.
pub struct Row<'a> {
    rows: &'a Rows,
    number: usize,
}

impl Row<'_> {
    /// A column's value, `None` for NULL.
    pub fn column(&self, n: i32) -> Option<pg_sys::Datum> {
        let mut null = false;
        // SAFETY: the table has a row of that number; SPI checks the column number.
        let datum = unsafe {
            let table = self.rows.table;
            let row = *(*table).vals.add(self.number);
            pg_sys::SPI_getbinval(row, (*table).tupdesc, n, &mut null)
        };
        (!null).then_some(datum)
    }

    /// A `text` column, copied; empty for NULL.
    pub fn text(&self, n: i32) -> Box<[u8]> {
        memory::or_raise(memory::check());
        self.column(n).map_or_else(Box::default, |datum| {
            // SAFETY: the statement gives text there; copied while the rows live.
            let text = unsafe { varlena::detoasted_bytes(datum.cast_mut_ptr()) };
            memory::or_raise(boxed(text))
        })
    }

    /// A `jsonb` or `bytea` column, copied; `None` for NULL.
    pub fn bytes(&self, n: i32) -> Option<Vec<u8>> {
        self.column(n).map(|datum| {
            // SAFETY: the statement gives a varlena there; copied while the rows live.
            let bytes = unsafe { varlena::detoasted_bytes(datum.cast_mut_ptr()) };
            memory::or_raise(copy(bytes))
        })
    }

    /// A `boolean` column, false for NULL.
    pub fn boolean(&self, n: i32) -> bool {
        self.column(n)
            .is_some_and(|datum| datum.value() & 0xff != 0)
    }

    /// A `bigint` or `timestamptz` column, 0 for NULL.
    pub fn bigint(&self, n: i32) -> i64 {
        self.column(n).map_or(0, |datum| datum.value() as i64)
    }

    /// When a state expires, `i64::MAX` for NULL.
    pub fn expiry(&self, n: i32) -> i64 {
        self.column(n)
            .map_or(i64::MAX, |datum| datum.value() as i64)
    }

    /// A system column with a transaction id.
    pub fn xid(&self, n: i32) -> pg_sys::TransactionId {
        self.column(n)
            .map_or(pg_sys::InvalidTransactionId, |datum| {
                pg_sys::TransactionId::from(datum.value() as u32)
            })
    }
}

fn failed(call: &str, code: i32) -> Error {
    Error::Internal {
        message: format!("{call} failed with code {code}"),
    }
}

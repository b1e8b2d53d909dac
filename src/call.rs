//! The border to PostgreSQL's function manager: arguments in, results out, errors and panics turned
//! into PostgreSQL's own. Hot paths read their arguments in place, without a copy.

use crate::error::{Error, Result};
use crate::varlena;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::marker::PhantomData;

/// One call of an SQL function.
pub struct Call<'a> {
    fcinfo: pg_sys::FunctionCallInfo,
    lifetime: PhantomData<&'a ()>,
}

/// Declares functions in C's calling convention under their SQL names, each with the record that the
/// function manager looks for.
macro_rules! sql_functions {
    ($($(#[$doc:meta])* fn $name:ident($call:ident) $body:block)*) => {$(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name(fcinfo: ::pgrx::pg_sys::FunctionCallInfo) -> ::pgrx::pg_sys::Datum {
            fn body($call: &mut $crate::call::Call<'_>) -> $crate::error::Result<::pgrx::pg_sys::Datum> $body
            // SAFETY: the guard turns a panic into an ERROR; the function manager hands us a valid fcinfo.
            unsafe {
                ::pgrx::pg_sys::submodules::panic::pgrx_extern_c_guard(|| {
                    let mut call = $crate::call::Call::new(fcinfo);
                    match $crate::memory::guarded(|| body(&mut call)) {
                        Ok(datum) => datum,
                        Err(error) => error.raise(),
                    }
                })
            }
        }
        ::pastey::paste! {
            /// The function manager's record of the function.
            #[unsafe(no_mangle)]
            pub extern "C" fn [<pg_finfo_ $name>]() -> &'static ::pgrx::pg_sys::Pg_finfo_record {
                const V1: ::pgrx::pg_sys::Pg_finfo_record = ::pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
                &V1
            }
        }
    )*};
}
pub(crate) use sql_functions;

impl<'a> Call<'a> {
    /// # Safety
    /// `fcinfo` is what the function manager passed to the function that is running.
    pub unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        Self {
            fcinfo,
            lifetime: PhantomData,
        }
    }

    /// The function's own OID, by which its schema and thereby the extension's tables are found.
    pub fn function(&self) -> pg_sys::Oid {
        // SAFETY: SQL functions are always called with flinfo.
        unsafe { (*(*self.fcinfo).flinfo).fn_oid }
    }

    /// Whether the function is called by a statement of the client's outside a transaction block: the transaction
    /// ends with that statement. A function or `DO` block that calls it may go on with other statements of its own,
    /// and in a transaction block the client may; both are assumed to, as PostgreSQL does for its own commands.
    pub fn is_alone(&self) -> bool {
        // SAFETY: reads this backend's transaction state; the active portal, if any, lives while its statement runs.
        unsafe {
            if pg_sys::IsTransactionBlock() || pg_sys::IsSubTransaction() {
                return false;
            }
            let Some(portal) = pg_sys::ActivePortal.as_ref() else {
                return false;
            };
            // Portals of functions' cursors have names and are visible; those of the client's statements are not
            // both.
            let is_clients = !portal.visible || *portal.name == 0;
            // The executor of the portal's own statement lives in the portal's memory, one below a function does not.
            let executor = (*(*self.fcinfo).flinfo).fn_mcxt;
            is_clients && (*executor).parent == portal.portalContext
        }
    }

    /// `25P01` unless what the function does can outlast the statement.
    pub fn require_block(&self, function: &'static str) -> Result<()> {
        match self.is_alone() {
            true => Err(Error::NoBlock { function }),
            false => Ok(()),
        }
    }

    /// The node that says in what role the function is called (trigger, …).
    pub fn context(&self) -> *mut pg_sys::Node {
        // SAFETY: fcinfo is valid for the call.
        unsafe { (*self.fcinfo).context }
    }

    /// An argument as it is.
    pub fn argument(&self, n: usize) -> Option<pg_sys::Datum> {
        // SAFETY: `n` is below the number of declared arguments, all of which are present.
        unsafe {
            let args = (*self.fcinfo).args.as_slice(n + 1);
            if args[n].isnull {
                None
            } else {
                Some(args[n].value)
            }
        }
    }

    /// A `text` argument, in server encoding.
    pub fn text(&self, n: usize) -> Option<&'a [u8]> {
        // SAFETY: the SQL declaration says text, so the datum is a varlena.
        self.argument(n).map(|datum| unsafe { varlena(datum) })
    }

    /// A `text` argument that must not be NULL.
    pub fn required_text(&self, n: usize, name: &str) -> Result<&'a [u8]> {
        self.text(n).ok_or_else(|| Error::null_argument(name))
    }

    /// A `jsonb` argument in binary form: the root container, without the varlena header.
    pub fn required_jsonb(&self, n: usize, name: &str) -> Result<&'a [u8]> {
        self.jsonb(n).ok_or_else(|| Error::null_argument(name))
    }

    /// The same, and as the server has compressed it, if it has.
    pub fn required_document(&self, n: usize, name: &str) -> Result<Given<'a>> {
        let datum = self.argument(n).ok_or_else(|| Error::null_argument(name))?;
        // SAFETY: the SQL declaration says jsonb, so the datum is a varlena; what is made of it lives as long as the
        // call.
        let (binary, stored) = unsafe { varlena::with_stored(datum.cast_mut_ptr()) };
        Ok(Given { binary, stored })
    }

    /// A `jsonb` argument in binary form.
    pub fn jsonb(&self, n: usize) -> Option<&'a [u8]> {
        // SAFETY: the SQL declaration says jsonb, so the datum is a varlena.
        self.argument(n).map(|datum| unsafe { varlena(datum) })
    }

    /// A `bytea` argument.
    pub fn bytea(&self, n: usize) -> Option<&'a [u8]> {
        // SAFETY: the SQL declaration says bytea, so the datum is a varlena.
        self.argument(n).map(|datum| unsafe { varlena(datum) })
    }

    /// A `bigint` argument.
    pub fn bigint(&self, n: usize) -> Option<i64> {
        self.argument(n).map(|datum| datum.value() as i64)
    }

    /// An `integer` argument.
    pub fn integer(&self, n: usize) -> Option<i32> {
        self.argument(n).map(|datum| datum.value() as i32)
    }

    /// A `boolean` argument.
    pub fn boolean(&self, n: usize) -> Option<bool> {
        self.argument(n).map(|datum| datum.value() & 0xff != 0)
    }

    /// An `interval` argument.
    pub fn interval(&self, n: usize) -> Option<pg_sys::Interval> {
        let interval = self.argument(n)?.cast_mut_ptr::<pg_sys::Interval>();
        // SAFETY: the SQL declaration says interval, which is passed by pointer.
        Some(unsafe { *interval })
    }

    /// A `text[]` argument, element by element; arrays of several dimensions are read in storage order.
    pub fn text_array(&self, n: usize) -> Result<Option<Vec<Option<&'a [u8]>>>> {
        let Some(datum) = self.argument(n) else {
            return Ok(None);
        };
        // SAFETY: the SQL declaration says text[]; the elements live as long as the call.
        Ok(Some(unsafe { varlena::text_elements(datum)? }))
    }

    /// A `bigint[]` argument, element by element.
    pub fn bigint_array(&self, n: usize) -> Result<Option<Vec<Option<i64>>>> {
        let Some(datum) = self.argument(n) else {
            return Ok(None);
        };
        // SAFETY: the SQL declaration says bigint[].
        Ok(Some(unsafe { varlena::bigint_elements(datum)? }))
    }

    /// The result NULL.
    pub fn null(&mut self) -> pg_sys::Datum {
        // SAFETY: fcinfo is valid for the call.
        unsafe { (*self.fcinfo).isnull = true };
        pg_sys::Datum::from(0usize)
    }

    /// The result, or NULL.
    pub fn nullable(&mut self, datum: Option<pg_sys::Datum>) -> pg_sys::Datum {
        datum.unwrap_or_else(|| self.null())
    }

    /// Opens the set of rows that the function returns.
    ///
    /// # Errors
    /// `40001` if another transaction has dropped the function while this call waited for it: the server looks
    /// up what the function returns.
    pub fn rows(&mut self) -> Result<Rows> {
        if !crate::sys::function_exists(self.function()) {
            return Err(Error::Reinstalled);
        }
        // SAFETY: the SQL declaration says SETOF record; the server checks that the caller takes sets.
        unsafe {
            pg_sys::InitMaterializedSRF(self.fcinfo, 0);
            let info = (*self.fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            Ok(Rows {
                store: (*info).setResult,
                descriptor: (*info).setDesc,
            })
        }
    }
}

impl Call<'_> {
    /// The only row of a function that returns one; it has as many columns as the function declares.
    ///
    /// # Errors
    /// As for [`Call::rows`].
    pub fn record<const N: usize>(
        &self,
        columns: [Option<pg_sys::Datum>; N],
    ) -> Result<pg_sys::Datum> {
        if !crate::sys::function_exists(self.function()) {
            return Err(Error::Reinstalled);
        }
        let mut values = columns.map(|column| column.unwrap_or(pg_sys::Datum::from(0usize)));
        let mut nulls = columns.map(|column| column.is_none());
        let mut descriptor = std::ptr::null_mut();
        // SAFETY: the SQL declaration says record, with columns; the row is formed of as many.
        unsafe {
            pg_sys::get_call_result_type(self.fcinfo, std::ptr::null_mut(), &mut descriptor);
            let descriptor = pg_sys::BlessTupleDesc(descriptor);
            debug_assert_eq!((*descriptor).natts as usize, N);
            let row = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            Ok(pg_sys::HeapTupleHeaderGetDatum((*row).t_data))
        }
    }
}

/// `25006` where the transaction may not write, by the server's own error, but on a standby with a hint.
pub fn check_may_write(function: &CStr) -> Result<()> {
    if crate::sys::recovery_in_progress() {
        return Err(Error::Standby {
            function: function.to_string_lossy().into_owned(),
        });
    }
    // SAFETY: raises the server's own error; callers hold nothing yet that needs a destructor.
    unsafe { pg_sys::PreventCommandIfReadOnly(function.as_ptr()) };
    Ok(())
}

/// A document that a caller has given.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// Binary jsonb.
    pub binary: &'a [u8],
    /// The same as the server has compressed it: a value of a column, with its header.
    pub stored: Option<&'a [u8]>,
}

impl<'a> From<&'a [u8]> for Given<'a> {
    fn from(binary: &'a [u8]) -> Self {
        Self {
            binary,
            stored: None,
        }
    }
}

/// The bytes of a varlena datum, detoasted only where it is compressed or stored out of line.
unsafe fn varlena<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: the caller passes a varlena datum; what detoasting allocates lives as long as the call.
    unsafe { varlena::detoasted_bytes(datum.cast_mut_ptr()) }
}

/// The rows of a set-returning function.
pub struct Rows {
    store: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
}

impl Rows {
    /// Adds a row; it has as many columns as the function declares.
    pub fn push<const N: usize>(&mut self, columns: [Option<pg_sys::Datum>; N]) {
        let mut values = columns.map(|column| column.unwrap_or(pg_sys::Datum::from(0usize)));
        let mut nulls = columns.map(|column| column.is_none());
        // SAFETY: store and descriptor come from InitMaterializedSRF and live as long as the call; the row
        // is copied.
        unsafe {
            debug_assert_eq!((*self.descriptor).natts as usize, N);
            pg_sys::tuplestore_putvalues(
                self.store,
                self.descriptor,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
    }
}

/// Memory of PostgreSQL for one step of a loop, emptied after each.
pub struct Scratch(pg_sys::MemoryContext);

impl Scratch {
    /// Memory that goes at the latest with what was current.
    pub fn new() -> Self {
        // SAFETY: a child of the current context.
        Self(unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::CurrentMemoryContext,
                c"state_cache loop".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        })
    }

    /// Runs `f` with this as the current memory; no value that `f` allocates from PostgreSQL outlives it.
    pub fn with<R>(&self, f: impl FnOnce() -> R) -> R {
        let result = self.keeping(f);
        // SAFETY: nothing that was allocated in it is used any more.
        unsafe { pg_sys::MemoryContextReset(self.0) };
        result
    }

    /// The same, but what `f` allocates lives as long as this.
    pub fn keeping<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: the context lives as long as its parent, which was current when it was made. An error that jumps
        // over this takes the memory with the parent, and whoever catches it puts its own context back.
        unsafe {
            let outer = pg_sys::MemoryContextSwitchTo(self.0);
            let result = f();
            pg_sys::MemoryContextSwitchTo(outer);
            result
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // On an error the memory goes with its parent.
        if !std::thread::panicking() {
            // SAFETY: nothing uses it any more, and it is not current.
            unsafe { pg_sys::MemoryContextDelete(self.0) };
        }
    }
}

/// A varlena value under construction in the current memory context: room for `len` bytes.
pub struct Varlena {
    start: *mut u8,
    capacity: usize,
}

impl Varlena {
    /// Allocates room for `capacity` bytes behind the header; PostgreSQL's own error when that fails.
    pub fn with_capacity(capacity: usize) -> Self {
        // SAFETY: palloc returns that many writable bytes or raises.
        let start = unsafe { pg_sys::palloc(capacity + varlena::VARHDRSZ) }.cast::<u8>();
        Self { start, capacity }
    }

    /// The room behind the header.
    pub fn room(&mut self) -> &mut [u8] {
        // SAFETY: allocated with that capacity; u8 has no invalid values, and only written bytes are read.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(varlena::VARHDRSZ), self.capacity) }
    }

    /// Gives the room back.
    pub fn free(self) {
        // SAFETY: allocated by palloc and not used any more.
        unsafe { pg_sys::pfree(self.start.cast()) };
    }

    /// The finished value, of `len` bytes behind the header.
    pub fn finish(self, len: usize) -> pg_sys::Datum {
        debug_assert!(len <= self.capacity);
        // A document is at most 256 MiB (jsonb's own limit), far below the 30 bits of a header.
        let header = varlena::varsize_header((len + varlena::VARHDRSZ) as u32);
        // SAFETY: palloc aligns to 8 bytes.
        unsafe { self.start.cast::<u32>().write(header) };
        pg_sys::Datum::from(self.start)
    }
}

/// A `jsonb`, `text` or `bytea` result made of these bytes.
pub fn varlena_datum(bytes: &[u8]) -> pg_sys::Datum {
    let mut value = Varlena::with_capacity(bytes.len());
    value.room().copy_from_slice(bytes);
    value.finish(bytes.len())
}

/// A copy of a value of variable length, with its header.
pub fn stored_datum(value: &[u8]) -> pg_sys::Datum {
    // SAFETY: palloc returns that many writable bytes, aligned as a header wants it, or raises.
    unsafe {
        let start = pg_sys::palloc(value.len()).cast::<u8>();
        start.copy_from_nonoverlapping(value.as_ptr(), value.len());
        pg_sys::Datum::from(start)
    }
}

/// A `cstring` argument made of these bytes, which are text and hold no NUL.
pub fn cstring_datum(bytes: &[u8]) -> pg_sys::Datum {
    // SAFETY: copies the bytes behind the pointer, so many of them, and ends them with a NUL.
    unsafe {
        let text = bytes.as_ptr().cast::<std::ffi::c_char>();
        pg_sys::Datum::from(pg_sys::pnstrdup(text, bytes.len()))
    }
}

/// Gives back a value that was made in a loop and copied elsewhere, before the loop makes many.
///
/// # Safety
/// `datum` came from [`varlena_datum`] or [`Varlena::finish`] and is not used again.
pub unsafe fn free(datum: pg_sys::Datum) {
    // SAFETY: the caller's promise.
    unsafe { pg_sys::pfree(datum.cast_mut_ptr()) };
}

/// A `boolean` result.
pub fn boolean_datum(value: bool) -> pg_sys::Datum {
    pg_sys::Datum::from(usize::from(value))
}

/// An `integer` result.
pub fn integer_datum(value: i32) -> pg_sys::Datum {
    pg_sys::Datum::from(value)
}

/// An `interval` result of so many microseconds.
pub fn interval_datum(microseconds: i64) -> pg_sys::Datum {
    let interval = pg_sys::Interval {
        time: microseconds,
        day: 0,
        month: 0,
    };
    // SAFETY: palloc returns aligned memory of that size or raises.
    unsafe {
        let place = pg_sys::palloc(size_of::<pg_sys::Interval>()).cast::<pg_sys::Interval>();
        place.write(interval);
        pg_sys::Datum::from(place)
    }
}

/// A `bigint` or `timestamptz` result.
pub fn bigint_datum(value: i64) -> pg_sys::Datum {
    pg_sys::Datum::from(value)
}

/// A `bigint` result of something counted.
pub fn count_datum(value: u64) -> pg_sys::Datum {
    pg_sys::Datum::from(i64::try_from(value).unwrap_or(i64::MAX))
}

/// A `double precision` result.
pub fn double_datum(value: f64) -> pg_sys::Datum {
    pg_sys::Datum::from(value.to_bits() as i64)
}

/// The result `void`.
pub fn void_datum() -> pg_sys::Datum {
    pg_sys::Datum::from(0usize)
}

//! Where the extension is installed, and in which version, as the server's catalogs say.

use super::version;
use crate::error::Result;
use crate::varlena;
use pgrx::pg_sys;

/// The schema of the extension in this database; `None` if it is not installed. Needs a transaction.
pub fn schema() -> Option<pg_sys::Oid> {
    // SAFETY: a row of pg_extension begins with the columns of this form.
    look_up(|_, tuple| unsafe {
        (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_extension>()).extnamespace
    })
}

/// Whether this library works with the extension as it is installed, if it is. Needs a transaction.
///
/// # Errors
/// `55000` if it does not.
pub fn check_version() -> Result<()> {
    let checked = look_up(|table, tuple| {
        // SAFETY: the table and its row are given, and the row stays until this returns. All columns of
        // pg_extension are as many as the arrays hold.
        unsafe {
            let mut values = [pg_sys::Datum::null(); pg_sys::Natts_pg_extension as usize];
            let mut nulls = [true; pg_sys::Natts_pg_extension as usize];
            pg_sys::heap_deform_tuple(
                tuple,
                (*table).rd_att,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            // It may not be NULL.
            let installed = values[pg_sys::Anum_pg_extension_extversion as usize - 1];
            version::check(varlena::detoasted_bytes(installed.cast_mut_ptr()))
        }
    });
    checked.unwrap_or(Ok(()))
}

/// What `read` says of the row of the extension in pg_extension, which is open; `None` without one.
fn look_up<T>(read: impl FnOnce(pg_sys::Relation, pg_sys::HeapTuple) -> T) -> Option<T> {
    let mut wanted = pg_sys::ScanKeyData::default();
    // SAFETY: reads pg_extension by its index on names, as the server does; the row is
    // read before the scan goes on.
    unsafe {
        pg_sys::ScanKeyInit(
            &mut wanted,
            pg_sys::Anum_pg_extension_extname as i16,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::F_NAMEEQ.into(),
            pg_sys::Datum::from(c"state_cache".as_ptr()),
        );
        let lock = pg_sys::AccessShareLock as i32;
        let table = pg_sys::table_open(pg_sys::ExtensionRelationId, lock);
        let scan = pg_sys::systable_beginscan(
            table,
            pg_sys::ExtensionNameIndexId.into(),
            true,
            std::ptr::null_mut(),
            1,
            &mut wanted,
        );
        let tuple = pg_sys::systable_getnext(scan);
        let found = (!tuple.is_null()).then(|| read(table, tuple));
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(table, lock);
        found
    }
}

//! Where the extension is installed, as the server's catalogs say.

use pgrx::pg_sys;

/// The schema of the extension in this database; `None` if it is not installed. Needs a transaction.
pub fn schema() -> Option<pg_sys::Oid> {
    let mut wanted = pg_sys::ScanKeyData::default();
    // SAFETY: reads pg_extension by its index on names, as the server does; its rows have the form given
    // here, and are read before the scan goes on.
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
        let found = (!tuple.is_null()).then(|| {
            (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_extension>()).extnamespace
        });
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(table, lock);
        found
    }
}

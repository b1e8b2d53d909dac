//! What the worker has found in its audits of L1.

use super::spi::{Connection, Statement};
use crate::call;
use crate::catalog::Catalog;
use crate::error::Result;
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;

/// What an audit has found.
#[derive(Debug, Default)]
pub struct Audited {
    /// Entries that were compared.
    pub compared: u64,
    /// Entries that could not be.
    pub passed_over: u64,
    /// Entries that were not what they should be.
    pub differing: u64,
    /// Class and key of the last one of them.
    pub last: Option<(Vec<u8>, Vec<u8>)>,
    /// What the last comparison that failed has failed with.
    pub error: Option<String>,
}

/// The prepared statement of this file.
#[derive(Default)]
struct Statements {
    add: OnceCell<Statement>,
}

/// Adds what an audit has found to what earlier ones have.
pub fn add_audited(catalog: &Catalog, found: &Audited) -> Result<()> {
    const SQL: &str = "INSERT INTO @extschema@.state_audit_result AS r \
         (since, last_at, audited, passed_over, differing, last_class, last_key, last_differing_at, last_error, \
         last_error_at) \
         SELECT n.at, n.at, $1, $2, $3, $4, $5, CASE WHEN $4 IS NOT NULL THEN n.at END, $6, \
             CASE WHEN $6 IS NOT NULL THEN n.at END \
         FROM (SELECT pg_catalog.clock_timestamp()) n (at) \
         ON CONFLICT (one) DO UPDATE SET last_at = EXCLUDED.last_at, \
             audited = r.audited OPERATOR(pg_catalog.+) EXCLUDED.audited, \
             passed_over = r.passed_over OPERATOR(pg_catalog.+) EXCLUDED.passed_over, \
             differing = r.differing OPERATOR(pg_catalog.+) EXCLUDED.differing, \
             last_class = COALESCE(EXCLUDED.last_class, r.last_class), \
             last_key = CASE WHEN EXCLUDED.last_class IS NULL THEN r.last_key ELSE EXCLUDED.last_key END, \
             last_differing_at = COALESCE(EXCLUDED.last_differing_at, r.last_differing_at), \
             last_error = COALESCE(EXCLUDED.last_error, r.last_error), \
             last_error_at = COALESCE(EXCLUDED.last_error_at, r.last_error_at)";
    const TYPES: [pg_sys::Oid; 6] = [
        pg_sys::INT8OID,
        pg_sys::INT8OID,
        pg_sys::INT8OID,
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
    ];
    let connection = Connection::open()?;
    let slot = &catalog.attached::<Statements>().add;
    let statement = connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &TYPES)?;
    let (class, key) = found.last.as_ref().map(|(class, key)| (class, key)).unzip();
    let arguments = [
        Some(call::count_datum(found.compared)),
        Some(call::count_datum(found.passed_over)),
        Some(call::count_datum(found.differing)),
        class.map(|class| call::varlena_datum(class)),
        key.map(|key| call::varlena_datum(key)),
        found
            .error
            .as_ref()
            .map(|error| call::varlena_datum(error.as_bytes())),
    ];
    connection.modify(statement, arguments).map(drop)
}

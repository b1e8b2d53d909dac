//! The parameters of statements that write, as types and values.

use super::own_write::OwnWrite;
use super::spi::{Connection, Statement};
use crate::call::{bigint_datum, boolean_datum, integer_datum, varlena_datum};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::interval::Ttl;
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;

/// A parameter: its type and its value, `None` for NULL.
pub type Parameter = (pg_sys::Oid, Option<pg_sys::Datum>);

/// Runs a statement that returns the version it made. The parameters are built once SPI is connected, so
/// that they are freed with the connection.
pub fn run<const N: usize>(
    catalog: &Catalog,
    slot: &OnceCell<Statement>,
    sql: impl FnOnce() -> String,
    parameters: impl FnOnce() -> [Parameter; N],
) -> Result<Option<i64>> {
    let connection = Connection::open()?;
    let parameters = parameters();
    let types = parameters.map(|(of_type, _)| of_type);
    let statement = connection.prepare(slot, &catalog.schema, sql, &types)?;
    let _own = OwnWrite::begin();
    let rows = connection.modify(statement, parameters.map(|(_, value)| value))?;
    let version = rows.first().and_then(|row| row.column(1));
    Ok(version.map(|version| version.value() as i64))
}

/// A `text`.
pub fn text(text: &[u8]) -> Parameter {
    (pg_sys::TEXTOID, Some(varlena_datum(text)))
}

/// A `bigint`.
pub fn bigint(value: Option<i64>) -> Parameter {
    (pg_sys::INT8OID, value.map(bigint_datum))
}

/// A hash, as `bytea`.
pub fn hash(hash: Option<u128>) -> Parameter {
    let bytes = hash.map(u128::to_be_bytes);
    (pg_sys::BYTEAOID, bytes.map(|bytes| varlena_datum(&bytes)))
}

/// A `text`, or NULL.
pub fn optional_text(text: Option<&[u8]>) -> Parameter {
    (pg_sys::TEXTOID, text.map(varlena_datum))
}

/// A document, or NULL.
pub fn jsonb(document: Option<&[u8]>) -> Parameter {
    (pg_sys::JSONBOID, document.map(varlena_datum))
}

/// A `bytea`, or NULL.
pub fn bytea(bytes: Option<&[u8]>) -> Parameter {
    (pg_sys::BYTEAOID, bytes.map(varlena_datum))
}

/// A `boolean`.
pub fn boolean(value: bool) -> Parameter {
    (pg_sys::BOOLOID, Some(boolean_datum(value)))
}

/// An `integer`.
pub fn integer(value: i32) -> Parameter {
    (pg_sys::INT4OID, Some(integer_datum(value)))
}

/// The size of a document, which is at most 256 MiB.
pub fn size(document: &[u8]) -> Parameter {
    integer(document.len() as i32)
}

/// An expiry, `i64::MAX` for never.
pub fn expiry(expires_at: i64) -> Parameter {
    let ends = (expires_at != i64::MAX).then(|| bigint_datum(expires_at));
    (pg_sys::TIMESTAMPTZOID, ends)
}

/// A time to live as two parameters: the new one, and whether it is new. It points into what is given.
pub fn ttl(ttl: &Ttl) -> [Parameter; 2] {
    let value = ttl.value();
    [
        (pg_sys::INTERVALOID, value.flatten()),
        boolean(value.is_some()),
    ]
}

/// Several groups of parameters in a row. `N` is their number in all.
pub fn join<const N: usize>(groups: &[&[Parameter]]) -> [Parameter; N] {
    let mut parameters = groups.iter().copied().flatten().copied();
    std::array::from_fn(|_| parameters.next().unwrap_or((pg_sys::TEXTOID, None)))
}

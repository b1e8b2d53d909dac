//! Defining a class.

use super::spi::{Connection, Row, Statement};
use crate::catalog::Catalog;
use crate::error::{Error, Result};
use pgrx::pg_sys;

use once_cell::unsync::OnceCell;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    lock_class: OnceCell<Statement>,
    update_class: OnceCell<Statement>,
    insert_class: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// What is to become of a column of `state_class`.
#[derive(Clone, Copy)]
pub enum Setting {
    /// It stays, or gets its default in a new class.
    Unnamed,
    /// It becomes this, NULL for `None`.
    Value(Option<pg_sys::Datum>),
}

/// The settable columns, their types and the defaults of a new class.
const COLUMNS: [(&str, pg_sys::Oid, &str); 16] = [
    ("write_mode", pg_sys::TEXTOID, "'through'"),
    ("keep", pg_sys::INT4OID, "1"),
    ("dedup", pg_sys::BOOLOID, "true"),
    ("ttl", pg_sys::INTERVALOID, "NULL"),
    ("cache_ttl", pg_sys::INTERVALOID, "NULL"),
    ("max_entries", pg_sys::INT4OID, "NULL"),
    ("channel", pg_sys::TEXTOID, "'state_updated'"),
    ("keep_for", pg_sys::INTERVALOID, "NULL"),
    ("compression", pg_sys::BOOLOID, "true"),
    ("checkpoint_types", pg_sys::TEXTARRAYOID, "NULL"),
    ("agent_phases", pg_sys::TEXTARRAYOID, "NULL"),
    ("notify", pg_sys::TEXTOID, "'default'"),
    ("l2_ttl", pg_sys::INTERVALOID, "NULL"),
    ("l2_codec", pg_sys::TEXTOID, "'zstd'"),
    ("l2_above", pg_sys::INT4OID, "1024"),
    ("unique_labels", pg_sys::BOOLOID, "false"),
];

/// Parameters: the name, then for each column whether it is named, and its value.
const PARAMETERS: usize = 1 + 2 * COLUMNS.len();

/// For each column `CASE WHEN named THEN value ELSE … END`.
fn values(otherwise: impl Fn(usize) -> &'static str) -> Vec<String> {
    let value = |n: usize| {
        format!(
            "CASE WHEN ${} THEN ${} ELSE {} END",
            2 * n + 2,
            2 * n + 3,
            otherwise(n)
        )
    };
    (0..COLUMNS.len()).map(value).collect()
}

fn update_sql() -> String {
    let values = values(|n| COLUMNS[n].0);
    let set: Vec<_> = COLUMNS
        .iter()
        .zip(values)
        .map(|(column, value)| format!("{} = {value}", column.0))
        .collect();
    format!(
        "UPDATE @extschema@.state_class SET {} WHERE class OPERATOR(pg_catalog.=) $1 RETURNING class",
        set.join(", ")
    )
}

fn insert_sql() -> String {
    let names: Vec<_> = COLUMNS.iter().map(|column| column.0).collect();
    format!(
        "INSERT INTO @extschema@.state_class (class, {}) VALUES ($1, {}) \
         ON CONFLICT DO NOTHING RETURNING class",
        names.join(", "),
        values(|n| COLUMNS[n].2).join(", ")
    )
}

/// Locks the row of a class until the transaction ends: how many snapshots the class keeps (`None` for all), or
/// `None` if there is no such class.
pub fn lock(catalog: &Catalog, name: pg_sys::Datum) -> Result<Option<Option<i64>>> {
    const SQL: &str = "SELECT keep::pg_catalog.int8 FROM @extschema@.state_class \
         WHERE class OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE";
    let connection = Connection::open()?;
    let slot = &statements(catalog).lock_class;
    let statement =
        connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &[pg_sys::TEXTOID])?;
    let rows = connection.modify(statement, [Some(name)])?;
    let keep = |row: Row<'_>| row.column(1).map(|keep| keep.value() as i64);
    Ok(rows.first().map(keep))
}

/// Changes what is named of a class, or creates it.
pub fn define(
    catalog: &Catalog,
    name: pg_sys::Datum,
    settings: [Setting; COLUMNS.len()],
) -> Result<()> {
    let mut types = [pg_sys::TEXTOID; PARAMETERS];
    let mut arguments = [None; PARAMETERS];
    arguments[0] = Some(name);
    for (n, (setting, column)) in settings.iter().zip(COLUMNS).enumerate() {
        let (named, value) = match *setting {
            Setting::Unnamed => (false, None),
            Setting::Value(value) => (true, value),
        };
        (types[2 * n + 1], types[2 * n + 2]) = (pg_sys::BOOLOID, column.1);
        (arguments[2 * n + 1], arguments[2 * n + 2]) =
            (Some(crate::call::boolean_datum(named)), value);
    }
    let connection = Connection::open()?;
    let statements = statements(catalog);
    let update = connection.prepare(
        &statements.update_class,
        &catalog.schema,
        update_sql,
        &types,
    )?;
    let insert = connection.prepare(
        &statements.insert_class,
        &catalog.schema,
        insert_sql,
        &types,
    )?;
    // The insert comes to nothing if somebody else has created the class since the update looked.
    for statement in [update, insert, update] {
        if connection.modify(statement, arguments)?.first().is_some() {
            return Ok(());
        }
    }
    Err(Error::ClassSwallowed)
}

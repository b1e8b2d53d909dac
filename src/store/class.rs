//! Defining a class.

use super::own_write::OwnWrite;
use super::spi::Connection;
use crate::catalog::Catalog;
use crate::error::{Error, Result};
use pgrx::pg_sys;

/// What is to become of a column of `state_class`.
#[derive(Clone, Copy)]
pub enum Setting {
    /// It stays, or gets its default in a new class.
    Unnamed,
    /// It becomes this, NULL for `None`.
    Value(Option<pg_sys::Datum>),
}

/// The settable columns, their types and the defaults of a new class.
const COLUMNS: [(&str, pg_sys::Oid, &str); 7] = [
    ("write_mode", pg_sys::TEXTOID, "'through'"),
    ("keep", pg_sys::INT4OID, "1"),
    ("dedup", pg_sys::BOOLOID, "true"),
    ("ttl", pg_sys::INTERVALOID, "NULL"),
    ("cache_ttl", pg_sys::INTERVALOID, "NULL"),
    ("max_entries", pg_sys::INT4OID, "NULL"),
    ("channel", pg_sys::TEXTOID, "'state_updated'"),
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
         ON CONFLICT (class) DO NOTHING RETURNING class",
        names.join(", "),
        values(|n| COLUMNS[n].2).join(", ")
    )
}

const PRUNE: &str = "DELETE FROM @extschema@.state_snapshot s \
     USING @extschema@.state_head h, @extschema@.state_class c \
     WHERE c.class OPERATOR(pg_catalog.=) $1 AND s.class OPERATOR(pg_catalog.=) $1 \
     AND h.class OPERATOR(pg_catalog.=) $1 AND h.key OPERATOR(pg_catalog.=) s.key \
     AND s.version OPERATOR(pg_catalog.<=) (h.version OPERATOR(pg_catalog.-) c.keep)";

/// Deletes the snapshots that a class no longer keeps. The flush deletes one snapshot for each that it
/// writes, so this is needed only when a class keeps fewer than before.
pub fn prune_class(catalog: &Catalog, name: pg_sys::Datum) -> Result<()> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &catalog.statements.prune_class,
        &catalog.schema,
        || PRUNE.to_owned(),
        &[pg_sys::TEXTOID],
    )?;
    // No current version changes: L1 need not hear of it.
    let _own = OwnWrite::begin();
    connection.modify(statement, [Some(name)])?;
    Ok(())
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
    let statements = &catalog.statements;
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

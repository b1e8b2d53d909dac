//! Sources of derived classes, and the triggers that watch relations for them.

use super::spi::{Connection, Statement};
use crate::call;
use crate::catalog::{Catalog, c_string};
use crate::error::{Error, Result};
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use state_cache_memory::Grow;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    put: OnceCell<Statement>,
    drop: OnceCell<Statement>,
    serve_stale: OnceCell<Statement>,
    has_states: OnceCell<Statement>,
    triggers: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// Writes the source of a class.
pub fn put_source(catalog: &Catalog, class: &[u8], query: &[u8], search_path: &[u8]) -> Result<()> {
    const SQL: &str = "INSERT INTO @extschema@.state_source (class, query, search_path) VALUES ($1, $2, $3) \
         ON CONFLICT (class) DO UPDATE SET query = EXCLUDED.query, search_path = EXCLUDED.search_path";
    const TYPES: [pg_sys::Oid; 3] = [pg_sys::TEXTOID; 3];
    let connection = Connection::open()?;
    let slot = &statements(catalog).put;
    let statement = connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &TYPES)?;
    let arguments = [class, query, search_path].map(|text| Some(call::varlena_datum(text)));
    connection.modify(statement, arguments).map(drop)
}

/// Makes a class one of states again.
pub fn drop_source(catalog: &Catalog, class: &[u8]) -> Result<()> {
    const SQL: &str = "DELETE FROM @extschema@.state_source WHERE class OPERATOR(pg_catalog.=) $1";
    let connection = Connection::open()?;
    let slot = &statements(catalog).drop;
    let types = [pg_sys::TEXTOID];
    let statement = connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &types)?;
    connection
        .modify(statement, [Some(call::varlena_datum(class))])
        .map(drop)
}

/// Sets for how long entries of a class may serve beyond their age; 0 takes that away.
pub fn set_serve_stale(
    catalog: &Catalog,
    class: &[u8],
    serve_stale: &pg_sys::Interval,
) -> Result<()> {
    const SQL: &str = "UPDATE @extschema@.state_source \
         SET serve_stale = NULLIF($2, '0'::pg_catalog.interval) WHERE class OPERATOR(pg_catalog.=) $1";
    let connection = Connection::open()?;
    let slot = &statements(catalog).serve_stale;
    let types = [pg_sys::TEXTOID, pg_sys::INTERVALOID];
    let statement = connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &types)?;
    let interval = pg_sys::Datum::from(std::ptr::from_ref(serve_stale));
    let arguments = [Some(call::varlena_datum(class)), Some(interval)];
    connection.modify(statement, arguments).map(drop)
}

/// Whether a class has states that are not deleted, as far as the current role sees them.
pub fn has_states(catalog: &Catalog, class: &[u8]) -> Result<bool> {
    const SQL: &str = "SELECT EXISTS (SELECT FROM @extschema@.state_head \
         WHERE class OPERATOR(pg_catalog.=) $1 AND NOT deleted)";
    let connection = Connection::open()?;
    let slot = &statements(catalog).has_states;
    let types = [pg_sys::TEXTOID];
    let statement = connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &types)?;
    let rows = connection.modify(statement, [Some(call::varlena_datum(class))])?;
    Ok(rows.first().is_some_and(|row| row.boolean(1)))
}

/// The names of the triggers that watch a relation for a class, those of its partitions' left out.
pub fn watch_triggers(
    catalog: &Catalog,
    relation: pg_sys::Oid,
    class: &[u8],
) -> Result<Vec<Box<[u8]>>> {
    // Arguments of a trigger stand one after the other, a NUL behind each.
    const SQL: &str = "SELECT t.tgname::pg_catalog.text FROM pg_catalog.pg_trigger t \
         WHERE t.tgrelid OPERATOR(pg_catalog.=) $1 \
         AND t.tgparentid OPERATOR(pg_catalog.=) 0::pg_catalog.oid \
         AND t.tgfoid OPERATOR(pg_catalog.=) '@extschema@.state_source_changed()'::pg_catalog.regprocedure \
         AND pg_catalog.substr(t.tgargs, 1, pg_catalog.octet_length($2) OPERATOR(pg_catalog.+) 1) \
             OPERATOR(pg_catalog.=) ($2 OPERATOR(pg_catalog.||) '\\000'::pg_catalog.bytea) \
         ORDER BY t.tgname";
    let connection = Connection::open()?;
    let slot = &statements(catalog).triggers;
    let types = [pg_sys::OIDOID, pg_sys::BYTEAOID];
    let statement = connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &types)?;
    let arguments = [
        Some(pg_sys::Datum::from(relation)),
        Some(call::varlena_datum(class)),
    ];
    let mut names = Vec::new();
    for row in connection.modify(statement, arguments)?.iter() {
        names.try_push(row.text(1))?;
    }
    Ok(names)
}

/// Puts the triggers of a watch on a relation. Its name, the arguments and the name of the triggers are quoted.
pub fn watch(catalog: &Catalog, relation: &[u8], name: &[u8], arguments: &[u8]) -> Result<()> {
    const SQL: [(&str, &str); 2] = [
        (
            "_rows",
            "AFTER INSERT OR UPDATE OR DELETE ON @relation@ FOR EACH ROW",
        ),
        (
            "_statements",
            "BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON @relation@ FOR EACH STATEMENT",
        ),
    ];
    let connection = Connection::open()?;
    for (end, when) in SQL {
        let name = [name, end.as_bytes()].concat();
        let when: Vec<&[u8]> = when.split("@relation@").map(str::as_bytes).collect();
        let when = when.join(relation);
        run(
            &connection,
            &[
                b"CREATE OR REPLACE TRIGGER ",
                &name,
                b" ",
                &when,
                b" EXECUTE FUNCTION ",
                &catalog.schema,
                b".state_source_changed(",
                arguments,
                b")",
            ],
        )?;
        run(
            &connection,
            &[b"ALTER TABLE ", relation, b" ENABLE ALWAYS TRIGGER ", &name],
        )?;
        run(
            &connection,
            &[
                b"ALTER TRIGGER ",
                &name,
                b" ON ",
                relation,
                b" DEPENDS ON EXTENSION state_cache",
            ],
        )?;
    }
    Ok(())
}

/// Takes triggers of watches off a relation. Its name is quoted.
pub fn unwatch(_: &Catalog, relation: &[u8], triggers: &[Box<[u8]>]) -> Result<()> {
    let connection = Connection::open()?;
    for name in triggers {
        run(&connection, &[b"DROP TRIGGER ", name, b" ON ", relation])?;
    }
    Ok(())
}

/// Runs a command that is put together from these parts.
fn run(_: &Connection, parts: &[&[u8]]) -> Result<()> {
    let command = c_string(&parts.concat());
    // SAFETY: connected; the text is NUL-terminated.
    match unsafe { pg_sys::SPI_execute(command.as_ptr(), false, 0) } {
        code if code >= 0 => Ok(()),
        code => Err(Error::Internal {
            message: format!("SPI_execute failed with code {code}"),
        }),
    }
}

//! Conflicts that wait for a person, and exports that wait for an external system.

use super::changes::write;
use super::own_write::OwnWrite;
use super::spi::{Connection, Statement};
use crate::call::{bigint_datum, varlena_datum};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::varlena::{TEXT, array_datum};
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    open: OnceCell<Statement>,
    conflict: OnceCell<Statement>,
    lock: OnceCell<Statement>,
    resolve: OnceCell<Statement>,
    supersede: OnceCell<Statement>,
    abandon: OnceCell<Statement>,
    export: OnceCell<Statement>,
    withhold: OnceCell<Statement>,
    erase_conflicts: OnceCell<Statement>,
    erase_exports: OnceCell<Statement>,
    erase_bases: OnceCell<Statement>,
    left: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// A conflict that is to be opened.
pub struct NewConflict<'a> {
    /// The parent.
    pub run: &'a [u8],
    /// The child.
    pub child: &'a [u8],
    /// The variable.
    pub variable: &'a [u8],
    /// What both have started from, what the parent has and what the child has, as documents.
    pub base: Option<&'a [u8]>,
    /// See `base`.
    pub parent: Option<&'a [u8]>,
    /// See `base`.
    pub value: &'a [u8],
    /// When the parent set it, in microseconds since 2000.
    pub parent_timestamp: Option<i64>,
    /// When the child did.
    pub child_timestamp: Option<i64>,
    /// The highest sensitivity of the values.
    pub sensitivity: &'static str,
}

/// Opens a conflict; its id.
pub fn open_conflict(catalog: &Catalog, new: &NewConflict<'_>) -> Result<i64> {
    const SQL: &str = "INSERT INTO @extschema@.state_conflict (run_id, child_run_id, variable, base_value, \
         parent_value, child_value, parent_timestamp, child_timestamp, sensitivity) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id";
    let (text, json, time) = (pg_sys::TEXTOID, pg_sys::JSONBOID, pg_sys::TIMESTAMPTZOID);
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).open,
        &catalog.schema,
        || SQL.to_owned(),
        &[text, text, text, json, json, json, time, time, text],
    )?;
    let _own = OwnWrite::begin();
    let rows = connection.modify(
        statement,
        [
            Some(varlena_datum(new.run)),
            Some(varlena_datum(new.child)),
            Some(varlena_datum(new.variable)),
            new.base.map(varlena_datum),
            new.parent.map(varlena_datum),
            Some(varlena_datum(new.value)),
            new.parent_timestamp.map(bigint_datum),
            new.child_timestamp.map(bigint_datum),
            Some(varlena_datum(new.sensitivity.as_bytes())),
        ],
    )?;
    Ok(rows.first().map_or(0, |row| row.bigint(1)))
}

/// A conflict.
pub struct Conflict {
    /// The parent.
    pub run: Box<[u8]>,
    /// The variable.
    pub variable: Box<[u8]>,
    /// What the parent had, as a document.
    pub parent: Option<Vec<u8>>,
    /// The highest sensitivity of the values.
    pub sensitivity: Box<[u8]>,
    /// `open`, `resolved` or `superseded`.
    pub status: Box<[u8]>,
    /// Who has resolved it.
    pub resolved_by: Box<[u8]>,
    /// When, in microseconds since 2000.
    pub resolved_at: i64,
    /// The conflict that took its place, 0 for none.
    pub superseded_by: i64,
}

const CONFLICT: &str = "SELECT run_id, variable, parent_value, sensitivity, status, resolved_by, resolved_at, \
     superseded_by FROM @extschema@.state_conflict WHERE id OPERATOR(pg_catalog.=) $1";

/// A conflict, locked until the transaction ends if asked for.
pub fn conflict(catalog: &Catalog, id: i64, lock: bool) -> Result<Option<Conflict>> {
    let statements = statements(catalog);
    let (slot, clause) = match lock {
        true => (&statements.lock, " FOR UPDATE"),
        false => (&statements.conflict, ""),
    };
    let connection = Connection::open()?;
    let statement = connection.prepare(
        slot,
        &catalog.schema,
        || format!("{CONFLICT}{clause}"),
        &[pg_sys::INT8OID],
    )?;
    let _own = OwnWrite::begin();
    let rows = connection.modify(statement, [Some(bigint_datum(id))])?;
    Ok(rows.first().map(|row| Conflict {
        run: row.text(1),
        variable: row.text(2),
        parent: row.bytes(3),
        sensitivity: row.text(4),
        status: row.text(5),
        resolved_by: row.text(6),
        resolved_at: row.bigint(7),
        superseded_by: row.bigint(8),
    }))
}

/// Notes what was decided.
pub fn resolve_conflict(
    catalog: &Catalog,
    id: i64,
    value: &[u8],
    reason: &[u8],
    by: &[u8],
) -> Result<()> {
    write(
        catalog,
        &statements(catalog).resolve,
        "UPDATE @extschema@.state_conflict SET status = 'resolved', resolved_value = $2, reason = $3, \
         resolved_by = $4, resolved_at = pg_catalog.clock_timestamp() WHERE id OPERATOR(pg_catalog.=) $1",
        [
            pg_sys::INT8OID,
            pg_sys::JSONBOID,
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
        ],
        [
            Some(bigint_datum(id)),
            Some(varlena_datum(value)),
            Some(varlena_datum(reason)),
            Some(varlena_datum(by)),
        ],
    )?;
    Ok(())
}

/// Opens a conflict anew, against the value that its variable has now; its new id, `None` if it is not open.
pub fn supersede_conflict(
    catalog: &Catalog,
    id: i64,
    value: &[u8],
    sensitivity: &'static str,
) -> Result<Option<i64>> {
    const SQL: &str = "WITH old AS (SELECT * FROM @extschema@.state_conflict \
         WHERE id OPERATOR(pg_catalog.=) $1 AND status OPERATOR(pg_catalog.=) 'open' FOR UPDATE), \
         made AS (INSERT INTO @extschema@.state_conflict (run_id, child_run_id, variable, base_value, \
         parent_value, child_value, parent_timestamp, child_timestamp, sensitivity) \
         SELECT run_id, child_run_id, variable, base_value, $2, child_value, pg_catalog.clock_timestamp(), \
         child_timestamp, $3 FROM old RETURNING id), \
         done AS (UPDATE @extschema@.state_conflict SET status = 'superseded', superseded_by = made.id \
         FROM made WHERE state_conflict.id OPERATOR(pg_catalog.=) $1) \
         SELECT id FROM made";
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).supersede,
        &catalog.schema,
        || SQL.to_owned(),
        &[pg_sys::INT8OID, pg_sys::JSONBOID, pg_sys::TEXTOID],
    )?;
    let _own = OwnWrite::begin();
    let rows = connection.modify(
        statement,
        [
            Some(bigint_datum(id)),
            Some(varlena_datum(value)),
            Some(varlena_datum(sensitivity.as_bytes())),
        ],
    )?;
    Ok(rows.first().map(|row| row.bigint(1)))
}

/// Gives up the conflicts that a run waits for.
pub fn abandon_conflicts(catalog: &Catalog, run: &[u8]) -> Result<()> {
    write(
        catalog,
        &statements(catalog).abandon,
        "UPDATE @extschema@.state_conflict SET status = 'abandoned' \
         WHERE run_id OPERATOR(pg_catalog.=) $1 AND status OPERATOR(pg_catalog.=) 'open'",
        [pg_sys::TEXTOID],
        [Some(varlena_datum(run))],
    )?;
    Ok(())
}

/// Something that an external system is to fetch.
pub struct Outgoing<'a> {
    /// The run that exports it.
    pub run: &'a [u8],
    /// The variable.
    pub key: &'a [u8],
    /// The system, and the name that it has there.
    pub target: (&'a [u8], &'a [u8]),
    /// What is exported, as a document.
    pub value: &'a [u8],
    /// How sensitive it is.
    pub sensitivity: &'static str,
}

/// Puts an export where the external system fetches it.
pub fn send_out(catalog: &Catalog, export: &Outgoing<'_>) -> Result<()> {
    let text = pg_sys::TEXTOID;
    write(
        catalog,
        &statements(catalog).export,
        "INSERT INTO @extschema@.state_outbox (run_id, key, target, target_key, value, sensitivity) \
         VALUES ($1, $2, $3, $4, $5, $6)",
        [text, text, text, text, pg_sys::JSONBOID, text],
        [
            Some(varlena_datum(export.run)),
            Some(varlena_datum(export.key)),
            Some(varlena_datum(export.target.0)),
            Some(varlena_datum(export.target.1)),
            Some(varlena_datum(export.value)),
            Some(varlena_datum(export.sensitivity.as_bytes())),
        ],
    )?;
    Ok(())
}

/// Conflicts to which one of these runs has given a value that is still there. One that is open keeps its row, since
/// the document of the parent waits for it.
const GIVEN: &str = "child_run_id OPERATOR(pg_catalog.=) ANY ($1) \
     AND child_value OPERATOR(pg_catalog.<>) 'null'::pg_catalog.jsonb";
/// Conflicts that go with these runs: those that wait in them, and those that are decided or given up.
const GOING: &str = "(run_id OPERATOR(pg_catalog.=) ANY ($1) OR child_run_id OPERATOR(pg_catalog.=) ANY ($1) \
     AND status OPERATOR(pg_catalog.<>) 'open')";
const EXPORTED: &str = "run_id OPERATOR(pg_catalog.=) ANY ($1)";

/// Erases what the tables of this file, and the places of children, hold of runs that are purged.
pub fn erase_beside_runs(catalog: &Catalog, runs: &[Box<[u8]>]) -> Result<()> {
    let slots = statements(catalog);
    let steps = [
        // First, whatever the status: of a conflict that is superseded meanwhile the next round finds the new one.
        (
            &slots.withhold,
            format!(
                "UPDATE @extschema@.state_conflict SET child_value = 'null', child_timestamp = NULL \
                 WHERE {GIVEN} RETURNING 1"
            ),
        ),
        (
            &slots.erase_conflicts,
            format!("DELETE FROM @extschema@.state_conflict WHERE {GOING} RETURNING 1"),
        ),
        (
            &slots.erase_exports,
            format!("DELETE FROM @extschema@.state_outbox WHERE {EXPORTED} RETURNING 1"),
        ),
        (
            &slots.erase_bases,
            "UPDATE @extschema@.state_context SET parent_base = NULL, handed_on = NULL \
             WHERE parent_run_id OPERATOR(pg_catalog.=) ANY ($1) \
             AND (parent_base IS NOT NULL OR handed_on IS NOT NULL) RETURNING 1"
                .to_owned(),
        ),
    ];
    for (slot, sql) in steps {
        write(
            catalog,
            slot,
            &sql,
            [pg_sys::TEXTARRAYOID],
            [Some(names(runs)?)],
        )?;
    }
    Ok(())
}

/// Whether the active snapshot shows anything that [`erase_beside_runs`] erases of conflicts and exports.
pub fn is_left_beside_runs(catalog: &Catalog, runs: &[Box<[u8]>]) -> Result<bool> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).left,
        &catalog.schema,
        || {
            format!(
                "SELECT 1 WHERE EXISTS (SELECT FROM @extschema@.state_conflict WHERE {GIVEN} OR {GOING}) \
                 OR EXISTS (SELECT FROM @extschema@.state_outbox WHERE {EXPORTED})"
            )
        },
        &[pg_sys::TEXTARRAYOID],
    )?;
    Ok(connection
        .query(statement, [Some(names(runs)?)])?
        .first()
        .is_some())
}

fn names(runs: &[Box<[u8]>]) -> Result<pg_sys::Datum> {
    let names = runs.iter().map(|run| Some(varlena_datum(run)));
    Ok(array_datum(TEXT, names)?)
}

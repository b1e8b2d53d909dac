//! The rows of logs.

use super::spi::{Connection, Proceed, Statement};
use super::write::unless_taken;
use crate::call::{bigint_datum, varlena_datum};
use crate::catalog::Catalog;
use crate::error::{Error, Result};
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    append: [OnceCell<Statement>; 2],
    replace: OnceCell<Statement>,
    erase: OnceCell<Statement>,
    erase_some: OnceCell<Statement>,
    read: OnceCell<Statement>,
    read_some: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// Whose log it is.
pub struct LogPlace<'a> {
    /// The class of the state.
    pub class: &'a [u8],
    /// The key of the state.
    pub key: &'a [u8],
}

impl LogPlace<'_> {
    fn datums(&self) -> [Option<pg_sys::Datum>; 2] {
        [
            Some(varlena_datum(self.class)),
            Some(varlena_datum(self.key)),
        ]
    }
}

/// Entries that are to be appended: lists of the caller's, of one length where they are given.
pub struct NewEntries<'a> {
    /// What they belong to, `""` for nothing.
    pub reference: &'a [u8],
    /// An array, as `jsonb`.
    pub entries: Option<pg_sys::Datum>,
    /// Their ids, as `text[]`; without them each entry is a new one.
    pub ids: Option<pg_sys::Datum>,
    /// Bytes beside each, as `bytea[]`.
    pub payloads: Option<pg_sys::Datum>,
}

/// What of a log is read.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// All entries.
    All,
    /// Those that belong to this.
    Of(&'a [u8]),
}

/// The lists of a call as rows: entry, id, payload, and the place in the lists.
const GIVEN: &str = "ROWS FROM (pg_catalog.jsonb_array_elements($4), pg_catalog.unnest($5), pg_catalog.unnest($6)) \
     WITH ORDINALITY g (entry, id, payload, n)";

/// Appends the entries whose ids are not there; how many those are. Of two with one id the first counts. A number is
/// drawn only for an entry that was not seen to be there: what is skipped costs no transaction id.
///
/// The lock of the log keeps other appenders away, so the look for an id is as good as the primary key, and a plain
/// INSERT does: ON CONFLICT would write each row twice into WAL, once as a claim and once to confirm it. Where
/// policies may hide an entry from the look, the primary key is asked.
///
/// # Errors
/// `40001` if somebody who took no lock of the log has put in an entry of the same name meanwhile. Else those of the
/// statement; the table's privileges and policies are the caller's.
pub fn append_to_log(catalog: &Catalog, place: &LogPlace<'_>, new: &NewEntries<'_>) -> Result<i64> {
    let asks = catalog.logs_have_row_security();
    let slot = &statements(catalog).append[usize::from(asks)];
    let write = || store(catalog, slot, || append_sql(asks), place, new);
    match asks {
        true => write(),
        false => unless_taken("state_log_entry_pkey", || Error::ConcurrentUpdate, write),
    }
}

/// `asks`: the statement asks the primary key for each entry.
fn append_sql(asks: bool) -> String {
    let conflict = match asks {
        true => " ON CONFLICT (class, key, ref, id) DO NOTHING",
        false => "",
    };
    format!(
        "WITH stored AS (INSERT INTO @extschema@.state_log_entry (class, key, ref, id, number, entry, payload) \
         SELECT $1, $2, $3, COALESCE(d.id, '#' OPERATOR(pg_catalog.||) d.number::pg_catalog.text), d.number, \
             d.entry, d.payload \
         FROM (SELECT o.id, o.entry, o.payload, pg_catalog.nextval($7) AS number \
             FROM (SELECT DISTINCT ON (g.id, CASE WHEN g.id IS NULL THEN g.n END) g.id, g.entry, g.payload, g.n \
                 FROM {GIVEN} \
                 WHERE g.id IS NULL OR NOT EXISTS (SELECT FROM @extschema@.state_log_entry l \
                     WHERE l.class OPERATOR(pg_catalog.=) $1 AND l.key OPERATOR(pg_catalog.=) $2 \
                     AND l.ref OPERATOR(pg_catalog.=) $3 AND l.id OPERATOR(pg_catalog.=) g.id) \
                 ORDER BY g.id, CASE WHEN g.id IS NULL THEN g.n END, g.n) o ORDER BY o.n) d\
         {conflict} RETURNING number) \
         SELECT pg_catalog.count(*) FROM stored"
    )
}

/// Appends entries, or replaces those that are there by the same ids; how many rows that has written. Of two with one
/// id the last counts. An entry that is there as it is given stays untouched.
///
/// # Errors
/// Those of the statement; the table's privileges and policies are the caller's.
pub fn replace_in_log(
    catalog: &Catalog,
    place: &LogPlace<'_>,
    new: &NewEntries<'_>,
) -> Result<i64> {
    let sql = || {
        format!(
            "WITH stored AS (INSERT INTO @extschema@.state_log_entry (class, key, ref, id, number, entry, payload) \
             SELECT $1, $2, $3, COALESCE(d.id, '#' OPERATOR(pg_catalog.||) d.number::pg_catalog.text), d.number, \
                 d.entry, d.payload \
             FROM (SELECT o.id, o.entry, o.payload, COALESCE(o.number, pg_catalog.nextval($7)) AS number \
                 FROM (SELECT DISTINCT ON (g.id, CASE WHEN g.id IS NULL THEN g.n END) g.id, g.entry, g.payload, g.n, \
                         h.number, h.entry AS old_entry, h.payload AS old_payload \
                     FROM {GIVEN} LEFT JOIN @extschema@.state_log_entry h ON h.class OPERATOR(pg_catalog.=) $1 \
                         AND h.key OPERATOR(pg_catalog.=) $2 AND h.ref OPERATOR(pg_catalog.=) $3 \
                         AND h.id OPERATOR(pg_catalog.=) g.id \
                     ORDER BY g.id, CASE WHEN g.id IS NULL THEN g.n END, g.n DESC) o \
                 WHERE o.number IS NULL \
                     OR ROW(o.old_entry, o.old_payload)::pg_catalog.record OPERATOR(pg_catalog.*<>) \
                     ROW(o.entry, o.payload)::pg_catalog.record \
                 ORDER BY o.n) d \
             ON CONFLICT (class, key, ref, id) DO UPDATE SET entry = EXCLUDED.entry, payload = EXCLUDED.payload, \
                 created_at = EXCLUDED.created_at RETURNING number) \
             SELECT pg_catalog.count(*) FROM stored"
        )
    };
    store(catalog, &statements(catalog).replace, sql, place, new)
}

fn store(
    catalog: &Catalog,
    slot: &OnceCell<Statement>,
    sql: impl FnOnce() -> String,
    place: &LogPlace<'_>,
    new: &NewEntries<'_>,
) -> Result<i64> {
    let connection = Connection::open()?;
    let types = [
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::JSONBOID,
        pg_sys::TEXTARRAYOID,
        pg_sys::BYTEAARRAYOID,
        pg_sys::REGCLASSOID,
    ];
    let statement = connection.prepare(slot, &catalog.schema, sql, &types)?;
    let [class, key] = place.datums();
    let arguments = [
        class,
        key,
        Some(varlena_datum(new.reference)),
        new.entries,
        new.ids,
        new.payloads,
        Some(pg_sys::Datum::from(catalog.log_number)),
    ];
    let rows = connection.modify(statement, arguments)?;
    Ok(rows.first().map_or(0, |row| row.bigint(1)))
}

/// Erases the log of a state; how many entries that were.
///
/// # Errors
/// Those of the statement.
pub fn erase_log(catalog: &Catalog, place: &LogPlace<'_>) -> Result<i64> {
    const SQL: &str = "WITH erased AS (DELETE FROM @extschema@.state_log_entry \
         WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 RETURNING 1) \
         SELECT pg_catalog.count(*) FROM erased";
    let types = [pg_sys::TEXTOID, pg_sys::TEXTOID];
    count(
        catalog,
        &statements(catalog).erase,
        SQL,
        types,
        place.datums(),
    )
}

/// Erases the entries that belong to one of these (`text[]`, `""` for those that belong to nothing); how many those
/// were.
///
/// # Errors
/// Those of the statement.
pub fn erase_from_log(
    catalog: &Catalog,
    place: &LogPlace<'_>,
    references: pg_sys::Datum,
) -> Result<i64> {
    const SQL: &str = "WITH erased AS (DELETE FROM @extschema@.state_log_entry \
         WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 \
         AND ref OPERATOR(pg_catalog.=) ANY ($3) RETURNING 1) \
         SELECT pg_catalog.count(*) FROM erased";
    let types = [pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::TEXTARRAYOID];
    let [class, key] = place.datums();
    let slot = &statements(catalog).erase_some;
    count(catalog, slot, SQL, types, [class, key, Some(references)])
}

fn count<const N: usize>(
    catalog: &Catalog,
    slot: &OnceCell<Statement>,
    sql: &str,
    types: [pg_sys::Oid; N],
    arguments: [Option<pg_sys::Datum>; N],
) -> Result<i64> {
    let connection = Connection::open()?;
    let statement = connection.prepare(slot, &catalog.schema, || sql.to_owned(), &types)?;
    let rows = connection.modify(statement, arguments)?;
    Ok(rows.first().map_or(0, |row| row.bigint(1)))
}

/// Calls `each` with the columns of the entries behind a number, in order, at most so many: number, `ref` (NULL for
/// nothing), id, entry, payload, and when each was written.
///
/// # Errors
/// Those of the statement; the table's privileges and policies are the caller's.
pub fn read_log(
    catalog: &Catalog,
    place: &LogPlace<'_>,
    which: Which<'_>,
    after: i64,
    most: i64,
    mut each: impl FnMut([Option<pg_sys::Datum>; 6]),
) -> Result<()> {
    const COLUMNS: &str = "number, CASE WHEN ref OPERATOR(pg_catalog.<>) '' THEN ref END, id, entry, payload, \
         created_at";
    const OF_LOG: &str = "FROM @extschema@.state_log_entry WHERE class OPERATOR(pg_catalog.=) $1 \
         AND key OPERATOR(pg_catalog.=) $2 AND number OPERATOR(pg_catalog.>) $3";
    // Those that belong to nothing are read in order from an index of their own; of the others there are few, or the
    // caller says which.
    let all = || {
        format!(
            "SELECT {COLUMNS} FROM ((SELECT * {OF_LOG} AND ref OPERATOR(pg_catalog.=) '' ORDER BY number LIMIT $4) \
             UNION ALL (SELECT * {OF_LOG} AND ref OPERATOR(pg_catalog.>) '' ORDER BY number LIMIT $4)) l \
             ORDER BY number LIMIT $4"
        )
    };
    let some = || {
        format!(
            "SELECT {COLUMNS} {OF_LOG} AND ref OPERATOR(pg_catalog.=) $5 ORDER BY number LIMIT $4"
        )
    };
    let connection = Connection::open()?;
    let [class, key] = place.datums();
    let (after, most) = (Some(bigint_datum(after)), Some(bigint_datum(most)));
    let types = [
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::INT8OID,
        pg_sys::INT8OID,
        pg_sys::TEXTOID,
    ];
    let row = |row: super::spi::Row<'_>| {
        each([1, 2, 3, 4, 5, 6].map(|n| row.column(n)));
        Ok(Proceed::On)
    };
    let known = statements(catalog);
    match which {
        Which::All => {
            let slot = &known.read;
            let statement = connection.prepare(slot, &catalog.schema, all, &types[..4])?;
            connection.for_each(statement, [class, key, after, most], row)
        }
        Which::Of(reference) => {
            let slot = &known.read_some;
            let statement = connection.prepare(slot, &catalog.schema, some, &types)?;
            let reference = Some(varlena_datum(reference));
            connection.for_each(statement, [class, key, after, most, reference], row)
        }
    }
}

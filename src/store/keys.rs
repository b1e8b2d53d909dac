//! The statements on many states, or on many versions of one.
//!
//! Keys are compared byte by byte (the columns have collation C), so the keys with a prefix are a range, which the
//! primary keys of both tables give in order.

use super::changes::write;
use super::own_write::OwnWrite;
use super::spi::{Connection, Row, Statement};
use super::texts::{KEPT, OF_STATE};
use crate::call::{bigint_datum, boolean_datum, varlena_datum};
use crate::catalog::Catalog;
use crate::error::Result;
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use state_cache_memory::{collect, with_capacity};

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    list: [OnceCell<Statement>; 4],
    labelled: OnceCell<Statement>,
    twice: [OnceCell<Statement>; 2],
    live_keys: OnceCell<Statement>,
    keys: [OnceCell<Statement>; 2],
    erase: OnceCell<Statement>,
    erase_put_aside: OnceCell<Statement>,
    copy_head: OnceCell<Statement>,
    copy_snapshots: OnceCell<Statement>,
    has_log: OnceCell<Statement>,
    copy_log: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// Longer than any key that the tables take.
const BEYOND_KEYS: [u8; 2048] = [u8::MAX; 2048];

/// What all keys with this prefix are below, and no other key at or above the prefix is. These bytes are compared and
/// never shown: they need not be text.
fn beyond(prefix: &[u8]) -> Result<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX);
    let from = kept.map_or(&BEYOND_KEYS[..], |last| &prefix[..=last]);
    let mut beyond = with_capacity(from.len())?;
    beyond.extend_from_slice(from);
    if kept.is_some()
        && let Some(last) = beyond.last_mut()
    {
        *last += 1;
    }
    Ok(beyond)
}

/// Head rows of states that are there: not deleted, and not expired.
const IS_LIVE: &str = "NOT h.deleted AND (h.expires_at IS NULL \
     OR h.expires_at OPERATOR(pg_catalog.>) pg_catalog.statement_timestamp())";

/// Which states are listed.
#[derive(Debug, Clone, Copy)]
pub enum ListedWhat<'a> {
    /// The versions of this one.
    Key(&'a [u8]),
    /// The versions of all that have this prefix.
    Prefix(&'a [u8]),
}

/// Which versions are listed.
pub struct Listing<'a> {
    /// Of which states.
    pub what: ListedWhat<'a>,
    /// Only those below this one.
    pub before: Option<i64>,
    /// Only those with this label.
    pub label: Option<&'a [u8]>,
    /// Only those whose execution context contains this, in binary jsonb.
    pub filter: Option<&'a [u8]>,
    /// At most so many.
    pub limit: i64,
}

/// A version, without what may be packed.
pub struct ListedVersion {
    /// Its state.
    pub key: Box<[u8]>,
    /// Its number.
    pub version: i64,
    /// The version that it was made from.
    pub parent: Option<i64>,
    /// Its name within the state.
    pub label: Option<Box<[u8]>>,
    /// What was kept beside it, in binary jsonb.
    pub execution_context: Option<Vec<u8>>,
    /// When it was written.
    pub created_at: i64,
    /// Whether it has a payload.
    pub has_payload: bool,
}

impl ListedVersion {
    fn of(row: &Row<'_>) -> Self {
        Self {
            key: row.text(1),
            version: row.bigint(2),
            parent: row.column(3).map(|_| row.bigint(3)),
            label: row.column(4).map(|_| row.text(4)),
            execution_context: row.bytes(5),
            created_at: row.bigint(6),
            has_payload: row.boolean(7),
        }
    }
}

/// The kept versions of states that are there, under the active snapshot: of one state from the highest down, of
/// several from the one that was written last.
pub fn list(catalog: &Catalog, class: &[u8], listing: &Listing<'_>) -> Result<Vec<ListedVersion>> {
    let is_prefix = matches!(listing.what, ListedWhat::Prefix(_));
    let has_label = listing.label.is_some();
    let slot = &statements(catalog).list[usize::from(is_prefix) + 2 * usize::from(has_label)];
    let connection = Connection::open()?;
    let statement = connection.prepare(
        slot,
        &catalog.schema,
        || list_sql(is_prefix, has_label),
        &[
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::INT8OID,
            pg_sys::TEXTOID,
            pg_sys::JSONBOID,
            pg_sys::INT8OID,
        ],
    )?;
    let (first, end) = match listing.what {
        ListedWhat::Key(key) => (key, None),
        ListedWhat::Prefix(prefix) => (prefix, Some(beyond(prefix)?)),
    };
    let rows = connection.query(
        statement,
        [
            Some(varlena_datum(class)),
            Some(varlena_datum(first)),
            end.as_deref().map(varlena_datum),
            listing.before.map(bigint_datum),
            listing.label.map(varlena_datum),
            listing.filter.map(varlena_datum),
            Some(bigint_datum(listing.limit)),
        ],
    )?;
    Ok(collect(rows.iter().map(|row| ListedVersion::of(&row)))?)
}

fn list_sql(is_prefix: bool, has_label: bool) -> String {
    let (kept, order) = match is_prefix {
        // The same as of one state, but for the range.
        true => (
            KEPT.replace(
                "key OPERATOR(pg_catalog.=) $2",
                "key OPERATOR(pg_catalog.>=) $2 AND key OPERATOR(pg_catalog.<) $3",
            ),
            "kept.created_at USING OPERATOR(pg_catalog.>), kept.key, kept.version USING OPERATOR(pg_catalog.>)",
        ),
        false => (KEPT.to_owned(), "kept.version USING OPERATOR(pg_catalog.>)"),
    };
    let label = match has_label {
        true => " AND kept.label OPERATOR(pg_catalog.=) $5",
        false => "",
    };
    format!(
        "SELECT kept.key, kept.version, kept.parent_version, kept.label, kept.execution_context, kept.created_at, \
         kept.payload IS NOT NULL FROM {kept} \
         JOIN @extschema@.state_head h ON h.class OPERATOR(pg_catalog.=) kept.class \
         AND h.key OPERATOR(pg_catalog.=) kept.key WHERE {IS_LIVE} \
         AND ($4 IS NULL OR kept.version OPERATOR(pg_catalog.<) $4){label} \
         AND ($6 IS NULL OR kept.execution_context OPERATOR(pg_catalog.@>) $6) \
         ORDER BY {order} LIMIT $7"
    )
}

/// The highest version of a state that has this label, under the active snapshot.
pub fn labelled_version(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
    label: &[u8],
) -> Result<Option<i64>> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).labelled,
        &catalog.schema,
        || {
            "SELECT version FROM @extschema@.state_snapshot WHERE class OPERATOR(pg_catalog.=) $1 \
             AND key OPERATOR(pg_catalog.=) $2 AND label OPERATOR(pg_catalog.=) $3 \
             ORDER BY version USING OPERATOR(pg_catalog.>) LIMIT 1"
                .to_owned()
        },
        &[pg_sys::TEXTOID; 3],
    )?;
    let rows = connection.query(
        statement,
        [
            Some(varlena_datum(class)),
            Some(varlena_datum(key)),
            Some(varlena_datum(label)),
        ],
    )?;
    Ok(rows.first().map(|row| row.bigint(1)))
}

/// A label that several kept versions of a state have, under the active snapshot: this one, or any.
pub fn label_twice(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
    label: Option<&[u8]>,
) -> Result<Option<Box<[u8]>>> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).twice[usize::from(label.is_some())],
        &catalog.schema,
        || {
            let which = match label {
                Some(_) => "label OPERATOR(pg_catalog.=) $3",
                None => "label IS NOT NULL AND $3 IS NULL",
            };
            format!(
                "SELECT label FROM @extschema@.state_snapshot WHERE {OF_STATE} AND {which} \
                 GROUP BY label HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 1 LIMIT 1"
            )
        },
        &[pg_sys::TEXTOID; 3],
    )?;
    let rows = connection.query(
        statement,
        [
            Some(varlena_datum(class)),
            Some(varlena_datum(key)),
            label.map(varlena_datum),
        ],
    )?;
    Ok(rows.first().map(|row| row.text(1)))
}

/// Up to `limit` states that are there, whose keys have this prefix and come behind `after`: calls `each` with key,
/// version and the time of the last write.
pub fn live_keys(
    catalog: &Catalog,
    class: &[u8],
    (prefix, after): (&[u8], Option<&[u8]>),
    limit: i64,
    mut each: impl FnMut(&[u8], i64, i64),
) -> Result<()> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).live_keys,
        &catalog.schema,
        || {
            format!(
                "SELECT h.key, h.version, h.updated_at FROM @extschema@.state_head h \
                 WHERE h.class OPERATOR(pg_catalog.=) $1 AND h.key OPERATOR(pg_catalog.>=) $2 \
                 AND h.key OPERATOR(pg_catalog.<) $3 \
                 AND (NOT $4 OR h.key OPERATOR(pg_catalog.>) $2) AND {IS_LIVE} \
                 ORDER BY h.key LIMIT $5"
            )
        },
        &[
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::BOOLOID,
            pg_sys::INT8OID,
        ],
    )?;
    let end = beyond(prefix)?;
    let is_behind = after.is_some_and(|after| after >= prefix);
    let first = after.filter(|_| is_behind).unwrap_or(prefix);
    let rows = connection.query(
        statement,
        [
            Some(varlena_datum(class)),
            Some(varlena_datum(first)),
            Some(varlena_datum(&end)),
            Some(boolean_datum(is_behind)),
            Some(bigint_datum(limit)),
        ],
    )?;
    for row in rows.iter() {
        each(&row.text(1), row.bigint(2), row.bigint(3));
    }
    Ok(())
}

/// The keys with this prefix of which the tables hold a document, in the order of their bytes. `with_logs`: or a log.
pub fn keys_with_prefix(
    catalog: &Catalog,
    class: &[u8],
    prefix: &[u8],
    with_logs: bool,
) -> Result<Vec<Box<[u8]>>> {
    const OF_RANGE: &str = "class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.>=) $2 \
         AND key OPERATOR(pg_catalog.<) $3";
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).keys[usize::from(with_logs)],
        &catalog.schema,
        || {
            let logs = match with_logs {
                true => format!(" UNION SELECT key FROM @extschema@.state_log_entry WHERE {OF_RANGE}"),
                false => String::new(),
            };
            format!(
                "SELECT k.key FROM (SELECT key FROM @extschema@.state_head WHERE {OF_RANGE} AND NOT deleted \
                 UNION SELECT key FROM @extschema@.state_snapshot WHERE {OF_RANGE}{logs}) k ORDER BY k.key"
            )
        },
        &[pg_sys::TEXTOID; 3],
    )?;
    let end = beyond(prefix)?;
    let rows = connection.query(
        statement,
        [
            Some(varlena_datum(class)),
            Some(varlena_datum(prefix)),
            Some(varlena_datum(&end)),
        ],
    )?;
    Ok(collect(rows.iter().map(|row| row.text(1)))?)
}

/// Deletes all snapshot rows of a state; how many there were.
pub fn erase_snapshots(catalog: &Catalog, class: &[u8], key: &[u8]) -> Result<usize> {
    write(
        catalog,
        &statements(catalog).erase,
        &format!("DELETE FROM @extschema@.state_snapshot WHERE {OF_STATE} RETURNING version"),
        [pg_sys::TEXTOID, pg_sys::TEXTOID],
        [Some(varlena_datum(class)), Some(varlena_datum(key))],
    )
}

/// Deletes what was put aside as damaged of a state, or of one version of the state; whether there was any.
pub fn erase_put_aside(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
    version: Option<i64>,
) -> Result<bool> {
    let erased = write(
        catalog,
        &statements(catalog).erase_put_aside,
        &format!(
            "DELETE FROM @extschema@.state_damaged WHERE {OF_STATE} \
             AND ($3 IS NULL OR version OPERATOR(pg_catalog.=) $3) RETURNING version"
        ),
        [pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::INT8OID],
        [
            Some(varlena_datum(class)),
            Some(varlena_datum(key)),
            version.map(bigint_datum),
        ],
    )?;
    Ok(erased > 0)
}

/// Two keys of a class.
#[derive(Clone, Copy)]
pub struct Copied<'a> {
    /// The class of both.
    pub class: &'a [u8],
    /// What is copied.
    pub from: &'a [u8],
    /// What the copy is called.
    pub to: &'a [u8],
}

impl Copied<'_> {
    fn names(&self) -> [Option<pg_sys::Datum>; 3] {
        [self.class, self.from, self.to].map(|name| Some(varlena_datum(name)))
    }
}

/// Copies a state that is there, its rows as they are but with all numbers raised by `offset`; whether the new head
/// row was written. A tombstone up to that number gives way, and nothing else: whoever has made the state meanwhile
/// keeps what was made.
///
/// A difference names what it builds upon by the distance, so it needs no decoding.
pub fn copy_state(catalog: &Catalog, copied: &Copied<'_>, offset: i64) -> Result<bool> {
    const TYPES: [pg_sys::Oid; 4] = [
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::INT8OID,
    ];
    let [class, from, to] = copied.names();
    let arguments = [class, from, to, Some(bigint_datum(offset))];
    let columns = "version, hash, size, expires_at, ttl, parent_version, checkpoint_type, agent_phase, \
         execution_context, writer, state";
    let set: Vec<_> = columns
        .split(", ")
        .map(|column| format!("{column} = EXCLUDED.{column}"))
        .collect();
    let written = write(
        catalog,
        &statements(catalog).copy_head,
        &format!(
            "INSERT INTO @extschema@.state_head AS t (class, key, {columns}) \
             SELECT h.class, $3, h.version OPERATOR(pg_catalog.+) $4, h.hash, h.size, h.expires_at, h.ttl, \
                 h.parent_version OPERATOR(pg_catalog.+) $4, h.checkpoint_type, h.agent_phase, h.execution_context, \
                 CASE WHEN h.state IS NOT NULL THEN pg_catalog.pg_current_xact_id() END, h.state \
             FROM @extschema@.state_head h WHERE h.class OPERATOR(pg_catalog.=) $1 \
             AND h.key OPERATOR(pg_catalog.=) $2 AND {IS_LIVE} \
             ON CONFLICT (class, key) DO UPDATE SET deleted = false, created_at = EXCLUDED.created_at, \
             updated_at = EXCLUDED.updated_at, {} \
             WHERE t.deleted AND t.version OPERATOR(pg_catalog.<=) $4 RETURNING version",
            set.join(", ")
        ),
        TYPES,
        arguments,
    )?;
    if written == 0 {
        return Ok(false);
    }
    let beside = "hash, checkpoint_type, recovery_point, agent_phase, execution_context, created_at, state, delta, \
         label, payload";
    write(
        catalog,
        &statements(catalog).copy_snapshots,
        &format!(
            "INSERT INTO @extschema@.state_snapshot (class, key, version, parent_version, {beside}) \
             SELECT class, $3, version OPERATOR(pg_catalog.+) $4, parent_version OPERATOR(pg_catalog.+) $4, {beside} \
             FROM @extschema@.state_snapshot WHERE {OF_STATE} ORDER BY version RETURNING version"
        ),
        TYPES,
        arguments,
    )?;
    Ok(true)
}

/// Whether a log has entries, under the active snapshot.
pub fn has_log(catalog: &Catalog, class: &[u8], key: &[u8]) -> Result<bool> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).has_log,
        &catalog.schema,
        || format!("SELECT number FROM @extschema@.state_log_entry WHERE {OF_STATE} LIMIT 1"),
        &[pg_sys::TEXTOID, pg_sys::TEXTOID],
    )?;
    let name = [Some(varlena_datum(class)), Some(varlena_datum(key))];
    Ok(connection.query(statement, name)?.first().is_some())
}

/// Copies the entries of a log in their order, with numbers of their own; how many. The log of the copy is locked.
pub fn copy_log(catalog: &Catalog, copied: &Copied<'_>) -> Result<usize> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).copy_log,
        &catalog.schema,
        || {
            format!(
                "INSERT INTO @extschema@.state_log_entry (class, key, ref, id, number, created_at, entry, payload) \
                 SELECT l.class, $3, l.ref, l.id, pg_catalog.nextval($4), l.created_at, l.entry, l.payload \
                 FROM (SELECT * FROM @extschema@.state_log_entry WHERE {OF_STATE} ORDER BY number) l \
                 RETURNING number"
            )
        },
        &[
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::REGCLASSOID,
        ],
    )?;
    let [class, from, to] = copied.names();
    let sequence = Some(pg_sys::Datum::from(catalog.log_number));
    let _own = OwnWrite::begin();
    Ok(connection
        .modify(statement, [class, from, to, sequence])?
        .iter()
        .count())
}

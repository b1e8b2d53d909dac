//! Reading and changing the kept versions of one state.

use super::changes::write;
use super::payload::{self, pack_payload};
use super::read::again;
use super::spi::{Connection, Row, Statement};
use super::storage::{Columns, Decoding, Fault, Holder, Storage, pack, unpack};
use super::texts::{IS_KEYFRAME, KEPT, OF_STATE};
use crate::call::{bigint_datum, boolean_datum, varlena_datum};
use crate::catalog::{Catalog, Class};
use crate::error::Result;
use crate::varlena;
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use state_cache_delta::{Header, MAX_HEADER};
use state_cache_memory::collect;
use strum::IntoStaticStr;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    versions: OnceCell<Statement>,
    version: OnceCell<Statement>,
    label: OnceCell<Statement>,
    next_version: OnceCell<Statement>,
    keyframe_above: OnceCell<Statement>,
    rewrite: OnceCell<Statement>,
    delete: OnceCell<Statement>,
    lock_if_free: OnceCell<Statement>,
    prunable: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// What a snapshot says of itself beside its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Why it was taken.
    pub checkpoint_type: Box<[u8]>,
    /// Whether recovery may go back to it.
    pub recovery_point: bool,
    /// Phase of the agent.
    pub agent_phase: Option<Box<[u8]>>,
    /// Whatever else belongs to it, in binary jsonb.
    pub execution_context: Option<Vec<u8>>,
    /// Its name within the state.
    pub label: Option<Box<[u8]>>,
}

/// How a snapshot row holds its document, by the names that `state_history` uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Encoding {
    /// As jsonb.
    Whole,
    /// Compressed.
    Compressed,
    /// As the difference from that version.
    Delta(i64),
    /// In a way that cannot be read.
    Unreadable,
}

impl Encoding {
    /// The version that it builds upon, if any.
    pub fn base(self) -> Option<i64> {
        match self {
            Self::Delta(base) => Some(base),
            Self::Whole | Self::Compressed | Self::Unreadable => None,
        }
    }
}

/// A kept version, without its document.
pub struct Version {
    /// Its number.
    pub number: i64,
    /// The version that it was made from.
    pub parent: Option<i64>,
    /// What it says of itself.
    pub label: Label,
    /// How it is stored.
    pub encoding: Encoding,
    /// Bytes of the column that holds the document, as stored.
    pub bytes_stored: i64,
    /// Bytes of the document in binary form.
    pub bytes: i64,
    /// When it was written.
    pub created_at: i64,
    /// The version that its payload builds upon, if any.
    pub payload_base: Option<i64>,
}

impl Version {
    /// The versions whose rows it needs to be read.
    pub fn bases(&self) -> impl Iterator<Item = i64> + use<> {
        self.encoding.base().into_iter().chain(self.payload_base)
    }
}

/// Of a version that is held twice, as it should not be, the row that counts is first: the head row, as for who reads
/// the state, and of the rows of a partitioned table the one that was written last.
const COUNTS_FIRST: &str =
    "ORDER BY in_head USING OPERATOR(pg_catalog.>), created_at USING OPERATOR(pg_catalog.>)";

/// What becomes of the execution contexts of versions, which may be large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contexts {
    /// They are read.
    Read,
    /// They are not asked for: the labels have none.
    LeftOut,
}

/// The kept versions of a state under the active snapshot, newest first.
pub fn versions(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
    contexts: Contexts,
) -> Result<Vec<Version>> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).versions,
        &catalog.schema,
        || {
            format!(
                "SELECT version, parent_version, checkpoint_type, recovery_point, agent_phase, \
                 CASE WHEN $3 THEN execution_context END, \
                 created_at, pg_catalog.int8(COALESCE(pg_catalog.pg_column_size(state), \
                 pg_catalog.pg_column_size(delta))), state, pg_catalog.substring(delta, 1, {MAX_HEADER}), \
                 label, pg_catalog.substring(payload, 1, {MAX_HEADER}) \
                 FROM {KEPT} ORDER BY version USING OPERATOR(pg_catalog.>), \
                 in_head USING OPERATOR(pg_catalog.>), created_at USING OPERATOR(pg_catalog.>)"
            )
        },
        &[pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::BOOLOID],
    )?;
    let rows = connection.query(
        statement,
        [
            Some(varlena_datum(class)),
            Some(varlena_datum(key)),
            Some(boolean_datum(contexts == Contexts::Read)),
        ],
    )?;
    Ok(collect(rows.iter().map(|row| version_of(&row)))?)
}

/// A row of [`versions`].
pub(super) fn version_of(row: &Row<'_>) -> Version {
    let number = row.bigint(1);
    let (encoding, bytes) = match (row.column(9), row.column(10)) {
        // SAFETY: a jsonb column, of which only the header is read.
        (Some(state), _) => (Encoding::Whole, unsafe { varlena::raw_size(state) }),
        (None, Some(_)) => packed(&row.text(10), number),
        (None, None) => (Encoding::Unreadable, 0),
    };
    Version {
        number,
        parent: row.column(2).map(|_| row.bigint(2)),
        label: label_of(row, [3, 4, 5, 6, 11]),
        encoding,
        bytes_stored: row.bigint(8),
        bytes: bytes as i64,
        created_at: row.bigint(7),
        payload_base: payload::base(row, 12, number),
    }
}

/// What the header of a packed document says: its encoding and the bytes of the document.
fn packed(header: &[u8], number: i64) -> (Encoding, usize) {
    let Ok(header) = Header::read(header) else {
        return (Encoding::Unreadable, 0);
    };
    let encoding = match header.base_version(number) {
        Ok(None) => Encoding::Compressed,
        Ok(Some(base)) => Encoding::Delta(base),
        Err(_) => Encoding::Unreadable,
    };
    (encoding, header.whole_bytes as usize)
}

/// From the columns `checkpoint_type`, `recovery_point`, `agent_phase`, `execution_context` and `label`.
fn label_of(row: &Row<'_>, [kind, recovery_point, phase, context, label]: [i32; 5]) -> Label {
    Label {
        checkpoint_type: row.text(kind),
        recovery_point: row.boolean(recovery_point),
        agent_phase: row.column(phase).map(|_| row.text(phase)),
        execution_context: row.bytes(context),
        label: row.column(label).map(|_| row.text(label)),
    }
}

/// Reads the label of a version under the active snapshot; `None` if it is not kept.
pub fn label(catalog: &Catalog, class: &[u8], key: &[u8], version: i64) -> Result<Option<Label>> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).label,
        &catalog.schema,
        || {
            format!(
                "SELECT checkpoint_type, recovery_point, agent_phase, execution_context, label \
                 FROM {KEPT} WHERE version OPERATOR(pg_catalog.=) $3 {COUNTS_FIRST} LIMIT 1"
            )
        },
        &[pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::INT8OID],
    )?;
    let rows = connection.query(statement, named(class, key, version))?;
    Ok(rows.first().map(|row| label_of(&row, [1, 2, 3, 4, 5])))
}

/// Whether a snapshot row above a version is a keyframe, under the active snapshot.
pub fn has_keyframe_above(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
    version: i64,
) -> Result<bool> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).keyframe_above,
        &catalog.schema,
        || {
            format!(
                "SELECT EXISTS (SELECT FROM @extschema@.state_snapshot k \
                 WHERE k.class OPERATOR(pg_catalog.=) $1 AND k.key OPERATOR(pg_catalog.=) $2 \
                 AND k.version OPERATOR(pg_catalog.>) $3 AND {IS_KEYFRAME})"
            )
        },
        &[pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::INT8OID],
    )?;
    let rows = connection.query(statement, named(class, key, version))?;
    Ok(rows.first().is_some_and(|row| row.boolean(1)))
}

/// The lowest kept version that builds upon another one, under the active snapshot, if a snapshot row holds that:
/// what a head row holds builds upon no other. What builds upon a version is the next one, or a branch that names it
/// as its parent.
pub fn built_upon(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
    version: i64,
) -> Result<Option<i64>> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).next_version,
        &catalog.schema,
        || {
            format!(
                "SELECT version, state IS NOT NULL, pg_catalog.substring(delta, 1, {MAX_HEADER}), \
                 pg_catalog.substring(payload, 1, {MAX_HEADER}) \
                 FROM @extschema@.state_snapshot WHERE {OF_STATE} AND version OPERATOR(pg_catalog.>) $3 \
                 AND (parent_version OPERATOR(pg_catalog.=) $3 OR version OPERATOR(pg_catalog.=) \
                 (SELECT pg_catalog.min(version) FROM @extschema@.state_snapshot WHERE {OF_STATE} \
                 AND version OPERATOR(pg_catalog.>) $3)) ORDER BY version"
            )
        },
        &[pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::INT8OID],
    )?;
    let rows = connection.query(statement, named(class, key, version))?;
    let mut rows = rows.iter();
    Ok(rows.find_map(|row| {
        let number = row.bigint(1);
        let encoding = match row.boolean(2) {
            true => Encoding::Whole,
            false => packed(&row.text(3), number).0,
        };
        let is_base = |base: Option<i64>| base == Some(version);
        (is_base(encoding.base()) || is_base(payload::base(&row, 4, number))).then_some(number)
    }))
}

pub(super) fn named(class: &[u8], key: &[u8], version: i64) -> [Option<pg_sys::Datum>; 3] {
    [
        Some(varlena_datum(class)),
        Some(varlena_datum(key)),
        Some(bigint_datum(version)),
    ]
}

/// A kept version with its document.
pub struct Kept {
    /// Binary jsonb.
    pub document: Vec<u8>,
    /// Hash of the document.
    pub hash: u128,
    /// How it is stored.
    pub storage: Storage,
}

/// Reads a version under the active snapshot: `None` if it is not kept, and what is wrong with it if it is not
/// what its hash says.
pub fn kept(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
    version: i64,
) -> Result<Option<std::result::Result<Kept, Fault>>> {
    let kept = kept_once(catalog, class, key, version, Decoding::Anew)?;
    if !matches!(kept, Some(Err(_))) {
        return Ok(kept);
    }
    let again = again(|| kept_once(catalog, class, key, version, Decoding::Anew))?.flatten();
    Ok(again.filter(std::result::Result::is_ok).or(kept))
}

/// The same for who reads one version after the other: each is decoded once.
pub fn kept_in_walk(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
    version: i64,
) -> Result<Option<std::result::Result<Kept, Fault>>> {
    match kept_once(catalog, class, key, version, Decoding::Remembered)? {
        Some(Err(_)) => kept(catalog, class, key, version),
        kept => Ok(kept),
    }
}

/// A row that holds a version, copied.
struct HeldVersion {
    columns: Columns,
    hash: Box<[u8]>,
    is_recovery_point: bool,
    holder: Holder,
}

impl HeldVersion {
    /// Of a row of the statement in [`kept_once`].
    fn of(row: &Row<'_>) -> Self {
        Self {
            columns: Columns::of(row, 1, 2),
            hash: row.text(3),
            is_recovery_point: row.boolean(4),
            holder: match row.boolean(5) {
                true => Holder::Head,
                false => Holder::Snapshot,
            },
        }
    }
}

/// What the head row holds counts. Where that is damaged, and somebody has put an intact snapshot row of the version
/// beside it, the snapshot row does.
fn kept_once(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
    version: i64,
    decoding: Decoding,
) -> Result<Option<std::result::Result<Kept, Fault>>> {
    let (first, beside) = {
        let connection = Connection::open()?;
        let statement = connection.prepare(
            &statements(catalog).version,
            &catalog.schema,
            || {
                format!(
                    "SELECT state, delta, hash, recovery_point, in_head FROM {KEPT} \
                     WHERE version OPERATOR(pg_catalog.=) $3 {COUNTS_FIRST} LIMIT 2"
                )
            },
            &[pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::INT8OID],
        )?;
        let rows = connection.query(statement, named(class, key, version))?;
        let mut rows = rows.iter();
        let first = rows.next().map(|row| HeldVersion::of(&row));
        let is_in_head = first.as_ref().is_some_and(|it| it.holder == Holder::Head);
        let beside = rows.next().filter(|_| is_in_head);
        (first, beside.map(|row| HeldVersion::of(&row)))
    };
    let mut fault = None;
    for held in [first, beside].into_iter().flatten() {
        let unpacked = unpack(
            catalog,
            (class, key, version),
            held.columns,
            held.is_recovery_point,
            decoding,
            |hash| *held.hash == hash.to_be_bytes(),
        )?;
        match unpacked {
            Ok(unpacked) => {
                return Ok(Some(Ok(Kept {
                    document: unpacked.document,
                    hash: unpacked.hash,
                    storage: unpacked.storage.held_by(held.holder),
                })));
            }
            Err(found) => fault = fault.or(Some(found)),
        }
    }
    Ok(fault.map(Err))
}

/// Stores a version of a snapshot row as a keyframe, which it is not yet, with its payload.
pub fn rewrite_as_keyframe(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    version: i64,
    (kept, payload): (&Kept, Option<&[u8]>),
) -> Result<()> {
    let is_recovery_point = kept.storage.is_recovery_point();
    let packed = pack(
        catalog,
        class,
        version,
        &kept.document,
        [None; 2],
        is_recovery_point,
    );
    let whole = packed.delta.is_none().then_some(kept.document.as_slice());
    let payload = payload
        .map(|payload| pack_payload(catalog, class, key, version, payload, None))
        .transpose()?;
    let [class, key, version] = named(&class.name, key, version);
    write(
        catalog,
        &statements(catalog).rewrite,
        "UPDATE @extschema@.state_snapshot SET state = $4, delta = $5, payload = $6 \
         WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 \
         AND version OPERATOR(pg_catalog.=) $3",
        [
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::INT8OID,
            pg_sys::JSONBOID,
            pg_sys::BYTEAOID,
            pg_sys::BYTEAOID,
        ],
        [
            class,
            key,
            version,
            whole.map(varlena_datum),
            packed.delta.as_deref().map(varlena_datum),
            payload.as_deref().map(varlena_datum),
        ],
    )?;
    Ok(())
}

/// Deletes a snapshot row; whether it was there.
pub fn delete_snapshot(catalog: &Catalog, class: &[u8], key: &[u8], version: i64) -> Result<bool> {
    let deleted = write(
        catalog,
        &statements(catalog).delete,
        "DELETE FROM @extschema@.state_snapshot WHERE class OPERATOR(pg_catalog.=) $1 \
         AND key OPERATOR(pg_catalog.=) $2 AND version OPERATOR(pg_catalog.=) $3 RETURNING version",
        [pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::INT8OID],
        named(class, key, version),
    )?;
    Ok(deleted > 0)
}

/// Locks the head row until the transaction ends unless somebody else has it locked; whether nobody has.
pub fn lock_if_free(catalog: &Catalog, class: &[u8], key: &[u8]) -> Result<bool> {
    // Without a head row there is nothing to lock, and nobody who writes.
    let locked = write(
        catalog,
        &statements(catalog).lock_if_free,
        "SELECT version FROM @extschema@.state_head WHERE class OPERATOR(pg_catalog.=) $1 \
         AND key OPERATOR(pg_catalog.=) $2 FOR NO KEY UPDATE SKIP LOCKED",
        [pg_sys::TEXTOID, pg_sys::TEXTOID],
        [Some(varlena_datum(class)), Some(varlena_datum(key))],
    )?;
    Ok(locked > 0 || catalog.head_row(class, key).is_none())
}

/// Up to `limit` keys behind `after`, of states that may have more than `keep` versions or one made before `before`
/// that is not current: no snapshot row is of a state whose head row holds the document, and of a deleted state,
/// whose tombstone counts.
pub fn prunable_states(
    catalog: &Catalog,
    class: &[u8],
    after: &[u8],
    keep: Option<i64>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Box<[u8]>>> {
    const SQL: &str = "SELECT key FROM @extschema@.state_snapshot \
         WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.>) $2 GROUP BY key \
         HAVING (pg_catalog.count(*) OPERATOR(pg_catalog.>=) $3 \
         OR pg_catalog.min(created_at) OPERATOR(pg_catalog.<) $4) \
         AND (pg_catalog.count(*) OPERATOR(pg_catalog.>) COALESCE($3, 1) \
         OR $4 IS NOT NULL AND pg_catalog.count(*) OPERATOR(pg_catalog.>) 1 \
         OR EXISTS (SELECT FROM @extschema@.state_head h WHERE h.class OPERATOR(pg_catalog.=) $1 \
         AND h.key OPERATOR(pg_catalog.=) state_snapshot.key AND (h.deleted OR h.state IS NOT NULL))) \
         ORDER BY key LIMIT $5";
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).prunable,
        &catalog.schema,
        || SQL.to_owned(),
        &[
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::INT8OID,
            pg_sys::TIMESTAMPTZOID,
            pg_sys::INT8OID,
        ],
    )?;
    let rows = connection.query(
        statement,
        [
            Some(varlena_datum(class)),
            Some(varlena_datum(after)),
            keep.map(bigint_datum),
            before.map(bigint_datum),
            Some(bigint_datum(limit)),
        ],
    )?;
    Ok(collect(rows.iter().map(|row| row.text(1)))?)
}

//! Reading one state from L3.

use super::changes::head;
use super::rows::{self, Held, StoredHead};
use super::spi::{Connection, Row, Statement};
use super::storage::{Columns, Decoding, Fault, Holder, MISSING, Storage, unpack};
use crate::call::varlena_datum;
use crate::catalog::{Catalog, Class};
use crate::error::Result;
use crate::settings::{self, OnCorruption};
use crate::snapshot::PushedSnapshot;
use crate::subtransaction::survive_damage;
use crate::sys;
use crate::varlena;
use pgrx::pg_sys;
use std::cell::Cell;

use once_cell::unsync::OnceCell;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    read: OnceCell<Statement>,
    head: OnceCell<Statement>,
    lock: OnceCell<Statement>,
    target: OnceCell<Statement>,
    ttl: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// What L3 says of a state: its head row, and the document if it is not deleted.
pub struct Stored {
    /// Version of the head.
    pub version: i64,
    /// When it expires, `i64::MAX` for never.
    pub expires_at: i64,
    /// Transaction that wrote the head row.
    pub head_xid: pg_sys::TransactionId,
    /// What there is of the document.
    pub content: Content,
}

/// The document of a state, or why there is none.
pub enum Content {
    /// It is what its hashes say.
    Intact(StoredDocument),
    /// The state is deleted, or row-level security may be hiding the document.
    Absent,
    /// It is missing, or not what its hashes say.
    Damaged(Fault),
}

/// A document whose bytes agree with the hashes beside them.
pub struct StoredDocument {
    /// Binary jsonb.
    pub bytes: Vec<u8>,
    /// Hash of the bytes.
    pub hash: u128,
    /// Transaction that wrote the row that holds it.
    pub xid: pg_sys::TransactionId,
    /// How it is stored.
    pub storage: Storage,
}

/// A head row that holds its document looks for no snapshot row: NULL finds none, without a search.
macro_rules! from_head_and_snapshot {
    ($columns:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM @extschema@.state_head h LEFT JOIN @extschema@.state_snapshot s \
             ON s.class OPERATOR(pg_catalog.=) h.class AND s.key OPERATOR(pg_catalog.=) h.key \
             AND s.version OPERATOR(pg_catalog.=) CASE WHEN h.state IS NULL THEN h.version END \
             WHERE h.class OPERATOR(pg_catalog.=) $1 AND h.key OPERATOR(pg_catalog.=) $2"
        )
    };
}

const READ: &str = from_head_and_snapshot!(
    "h.version, h.deleted, h.expires_at, h.xmin, h.hash, s.version, s.xmin, s.hash, COALESCE(h.state, s.state), \
     s.delta, s.recovery_point, h.state IS NOT NULL"
);

const HEAD: &str = "SELECT version, deleted, expires_at, xmin, hash FROM @extschema@.state_head \
     WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2";

/// A version that no state ever has.
pub const BELOW_1: Fault = "its version is below 1";

thread_local! {
    static SURVIVING: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, [`read`] also survives damage that PostgreSQL finds before we do, which costs a subtransaction.
pub struct SurvivingDamage(bool);

impl SurvivingDamage {
    /// From here on.
    pub fn begin() -> Self {
        Self(SURVIVING.replace(true))
    }
}

impl Drop for SurvivingDamage {
    fn drop(&mut self) {
        SURVIVING.set(self.0);
    }
}

/// Reads a state under the active snapshot; `None` if it has no head row there. Where PostgreSQL itself finds the
/// document damaged, its error is the answer, unless this session wants to go on with such a state.
pub fn read(catalog: &Catalog, class: &Class, key: &[u8]) -> Result<Option<Stored>> {
    if !SURVIVING.get() && settings::on_corruption() == OnCorruption::Error {
        return read_plainly(catalog, class, key);
    }
    match survive_damage(|| read_plainly(catalog, class, key))? {
        Ok(stored) => Ok(stored),
        Err(_) => Ok(head(catalog, &class.name, key)?.map(|head| Stored {
            version: head.version,
            expires_at: head.expires_at,
            head_xid: head.xid,
            content: match head.deleted {
                true => Content::Absent,
                false => Content::Damaged("PostgreSQL cannot read its snapshot"),
            },
        })),
    }
}

fn read_plainly(catalog: &Catalog, class: &Class, key: &[u8]) -> Result<Option<Stored>> {
    let stored = read_once(catalog, class, key)?;
    let Some(old) = stored
        .as_ref()
        .filter(|stored| matches!(stored.content, Content::Damaged(_)))
    else {
        return Ok(stored);
    };
    // The same row of the head is the same version of the state.
    let again = again(|| read_once(catalog, class, key))?.flatten();
    let again = again.filter(|new| {
        new.head_xid == old.head_xid
            && new.version == old.version
            && matches!(new.content, Content::Intact(_))
    });
    Ok(again.or(stored))
}

/// Reads under a fresh snapshot what is not intact under the active one. A version never changes, but an older
/// snapshot does not see the row that it was moved to with what a dropped partition held (see
/// `state_partitions_drop`). `None` in a parallel query, which takes no snapshot.
pub(super) fn again<T>(read: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    if sys::is_in_parallel_mode() {
        return Ok(None);
    }
    let _fresh = PushedSnapshot::latest();
    read().map(Some)
}

fn read_once(catalog: &Catalog, class: &Class, key: &[u8]) -> Result<Option<Stored>> {
    let found = match rows::read(catalog, class, key) {
        Some(found) => found,
        None => read_by_statement(catalog, class, key)?,
    };
    let Some((head, held)) = found else {
        return Ok(None);
    };
    let hides_rows = catalog.access().row_security;
    let content = match held {
        _ if head.deleted => Content::Absent,
        Some(held) if head.version > 0 => {
            let name = (&*class.name, key, head.version);
            match document(catalog, name, head.hash, held)? {
                Ok(document) => Content::Intact(document),
                Err(MISSING) if hides_rows => Content::Absent,
                Err(fault) => Content::Damaged(fault),
            }
        }
        _ if hides_rows => Content::Absent,
        _ if head.version < 1 => Content::Damaged(BELOW_1),
        _ => Content::Damaged("its snapshot is missing"),
    };
    Ok(Some(Stored {
        version: head.version,
        expires_at: head.expires_at,
        head_xid: head.xid,
        content,
    }))
}

/// The head row of a state and the row that holds the document, read by a statement.
fn read_by_statement(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
) -> Result<Option<(StoredHead, Option<Held>)>> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).read,
        &catalog.schema,
        || READ.to_owned(),
        &[pg_sys::TEXTOID, pg_sys::TEXTOID],
    )?;
    let rows = connection.query(
        statement,
        [Some(varlena_datum(&class.name)), Some(varlena_datum(key))],
    )?;
    Ok(rows.first().map(|row| {
        let head = head_of(&row);
        let held = holder(&row, 12, 6).filter(|_| !head.deleted);
        let held = held.map(|holder| {
            let (xid, hash) = match holder {
                Holder::Head => (4, 5),
                Holder::Snapshot => (7, 8),
            };
            Held {
                holder,
                xid: row.xid(xid),
                hash: stored_hash(&row, hash),
                columns: Columns::of(&row, 9, 10),
                is_recovery_point: row.boolean(11),
            }
        });
        (head, held)
    }))
}

/// The head row of a state alone under the active snapshot, with the predicate locks and the policies of a statement
/// that reads it; `None` if there is no head row. `state` is any hash of the installation, the class and the key.
pub fn read_head(
    catalog: &Catalog,
    state: u64,
    class: &[u8],
    key: &[u8],
) -> Result<Option<StoredHead>> {
    if let Some(head) = rows::read_head(catalog, state, class, key) {
        return Ok(head);
    }
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).head,
        &catalog.schema,
        || HEAD.to_owned(),
        &[pg_sys::TEXTOID, pg_sys::TEXTOID],
    )?;
    let rows = connection.query(
        statement,
        [Some(varlena_datum(class)), Some(varlena_datum(key))],
    )?;
    Ok(rows.first().map(|row| head_of(&row)))
}

/// Of columns 1 to 5: version, whether deleted, expiry, writer and hash.
fn head_of(row: &Row<'_>) -> StoredHead {
    StoredHead {
        version: row.bigint(1),
        deleted: row.boolean(2),
        expires_at: row.expiry(3),
        xid: row.xid(4),
        hash: stored_hash(row, 5),
    }
}

fn document(
    catalog: &Catalog,
    name: (&[u8], &[u8], i64),
    head_hash: Option<u128>,
    held: Held,
) -> Result<std::result::Result<StoredDocument, Fault>> {
    let is_right = |hash| head_hash == Some(hash) && held.hash == Some(hash);
    let unpacked = unpack(
        catalog,
        name,
        held.columns,
        held.is_recovery_point,
        Decoding::Anew,
        is_right,
    )?;
    Ok(unpacked.map(|unpacked| StoredDocument {
        bytes: unpacked.document,
        hash: unpacked.hash,
        xid: held.xid,
        storage: unpacked.storage.held_by(held.holder),
    }))
}

/// The head row that a version is to be written over.
pub struct Target {
    /// The current version.
    pub version: i64,
    /// Whether that is a tombstone.
    pub deleted: bool,
    /// Hash of the document, `None` where there is none.
    pub hash: Option<u128>,
    /// When it expires, `i64::MAX` for never.
    pub expires_at: i64,
    /// Which row holds it; `None` for neither.
    pub holder: Option<Holder>,
}

const TARGET: &str = from_head_and_snapshot!(
    "h.version, h.deleted, h.hash, h.expires_at, s.version, h.state IS NOT NULL"
);

/// Reads the head row of a state under the active snapshot, whatever it holds.
pub fn target(catalog: &Catalog, class: &[u8], key: &[u8]) -> Result<Option<Target>> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).target,
        &catalog.schema,
        || TARGET.to_owned(),
        &[pg_sys::TEXTOID, pg_sys::TEXTOID],
    )?;
    let rows = connection.query(
        statement,
        [Some(varlena_datum(class)), Some(varlena_datum(key))],
    )?;
    Ok(rows.first().map(|row| Target {
        version: row.bigint(1),
        deleted: row.boolean(2),
        hash: stored_hash(&row, 3),
        expires_at: row.expiry(4),
        holder: holder(&row, 6, 5),
    }))
}

/// The time to live that a head row remembers, under the active snapshot.
pub fn remembered_ttl(
    catalog: &Catalog,
    class: &[u8],
    key: &[u8],
) -> Result<Option<pg_sys::Interval>> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).ttl,
        &catalog.schema,
        || {
            "SELECT ttl FROM @extschema@.state_head \
             WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2"
                .to_owned()
        },
        &[pg_sys::TEXTOID, pg_sys::TEXTOID],
    )?;
    let rows = connection.query(
        statement,
        [Some(varlena_datum(class)), Some(varlena_datum(key))],
    )?;
    let ttl = rows.first().and_then(|row| row.column(1));
    // SAFETY: an interval column, which is passed by pointer, read before the connection closes.
    Ok(ttl.map(|ttl| unsafe { *ttl.cast_mut_ptr::<pg_sys::Interval>() }))
}

/// Locks the head row until the transaction ends, waiting for whoever holds it; without a head row,
/// nothing.
pub fn lock(catalog: &Catalog, class: &[u8], key: &[u8]) -> Result<()> {
    let connection = Connection::open()?;
    let statement = connection.prepare(
        &statements(catalog).lock, &catalog.schema,
        || {
            "SELECT version FROM @extschema@.state_head \
             WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 FOR NO KEY UPDATE"
                .to_owned()
        },
        &[pg_sys::TEXTOID, pg_sys::TEXTOID],
    )?;
    let _own = super::own_write::OwnWrite::begin();
    connection.modify(
        statement,
        [Some(varlena_datum(class)), Some(varlena_datum(key))],
    )?;
    Ok(())
}

/// Which row holds the document, by the columns that say whether the head row does, and the snapshot row's version.
fn holder(row: &Row<'_>, in_head: i32, snapshot: i32) -> Option<Holder> {
    match (row.boolean(in_head), row.column(snapshot)) {
        (true, _) => Some(Holder::Head),
        (false, Some(_)) => Some(Holder::Snapshot),
        (false, None) => None,
    }
}

/// A hash column; `None` for NULL and for anything that is not 16 bytes.
fn stored_hash(row: &Row<'_>, column: i32) -> Option<u128> {
    let datum = row.column(column)?;
    // SAFETY: a bytea column, read before the connection closes.
    let bytes = unsafe { varlena::detoasted_bytes(datum.cast_mut_ptr()) };
    Some(u128::from_be_bytes(bytes.try_into().ok()?))
}

//! Writing one state to L3: head and snapshot in one statement, old snapshots pruned by the same.
//!
//! Every write names the version that it replaces. If that is not the current one any more nothing is
//! written, and the caller looks again.

use super::parameters::{
    Parameter, bigint, boolean, bytea, expiry, hash, join, jsonb, optional_text, run, size, text,
};
use super::pruning::{PRUNINGS, prune_gaps, pruning, pruning_sql, reach, reach_of_any};
use super::spi::Statement;
use super::storage::{Base, Packed, Storage, pack};
use super::texts::OF_STATE;
use crate::call::bigint_datum;
use crate::catalog::{Catalog, Class};
use crate::error::{Error, Result, Shown};
use pgrx::pg_sys::{self, panic::CaughtError};
use pgrx::{PgSqlErrorCode, PgTryBuilder};
use std::panic::AssertUnwindSafe;

use once_cell::unsync::OnceCell;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    insert: OnceCell<Statement>,
    replace: [OnceCell<Statement>; 2],
    update: [[OnceCell<Statement>; 2]; PRUNINGS],
    delete: [[OnceCell<Statement>; 2]; PRUNINGS],
    touch: OnceCell<Statement>,
    insert_tombstone: OnceCell<Statement>,
    expire: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// What the caller says about a snapshot beside its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Why it was taken.
    pub checkpoint_type: Box<[u8]>,
    /// Whether recovery may go back to it.
    pub recovery_point: bool,
    /// Phase of the agent.
    pub agent_phase: Option<Box<[u8]>>,
    /// Whatever else belongs to it, in binary jsonb.
    pub execution_context: Option<Vec<u8>>,
    /// The version whose content it has, where that is not the one before.
    pub parent: Option<i64>,
}

impl Checkpoint {
    /// Whether it is skipped where nothing has changed: only the types that are taken as a matter of routine.
    pub fn is_skippable(&self) -> bool {
        !self.recovery_point
            && self.parent.is_none()
            && matches!(
                &*self.checkpoint_type,
                AUTO | b"intermediate" | b"pipeline_complete"
            )
    }
}

/// The type of a snapshot of which its writer says nothing.
pub const AUTO: &[u8] = b"auto";

/// A document to be written.
#[derive(Clone, Copy)]
pub struct NewVersion<'a> {
    /// Its version, above the one to be replaced; for a state without a head row the least it may have.
    pub number: i64,
    /// Binary jsonb.
    pub document: &'a [u8],
    /// Hash of the document.
    pub hash: u128,
    /// Version that it was made from; `None` where there was no state.
    pub parent: Option<i64>,
    /// When it expires, `i64::MAX` for never.
    pub expires_at: i64,
    /// The version before, if that is at hand.
    pub base: Option<Base<'a>>,
    /// What the caller says about it.
    pub checkpoint: Option<&'a Checkpoint>,
}

/// A version that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Its number.
    pub version: i64,
    /// How it is stored.
    pub storage: Storage,
}

impl Made {
    /// One of a state that got no snapshot.
    pub fn without_snapshot(version: i64) -> Self {
        Self {
            version,
            storage: Storage::UNKNOWN,
        }
    }
}

/// What a write replaces; if it is not there any more, nothing is written.
#[derive(Clone, Copy)]
pub struct Replaced {
    /// The current version.
    pub version: i64,
    /// Hash of its document, since a change by hand may leave the version as it was; `None` where that is
    /// not known.
    pub hash: Option<u128>,
    /// When it expires, `i64::MAX` for never, where the new expiry depends on that: a touch changes neither of the
    /// others. `None` where it does not matter.
    pub expires_at: Option<i64>,
    /// Whether it is known that no version is kept above it. Else the statement looks, and writes nothing if the new
    /// one would not be the highest.
    pub is_newest: bool,
}

impl Replaced {
    /// As parameters.
    fn parameters(&self) -> [Parameter; 3] {
        // The highest timestamp is infinity.
        let expires_at = self.expires_at.map(bigint_datum);
        [
            bigint(Some(self.version)),
            hash(self.hash),
            (pg_sys::TIMESTAMPTZOID, expires_at),
        ]
    }
}

/// Its head row, if it is still the one to be replaced: that version, and that hash and that expiry unless they are
/// NULL. A tombstone has no hash, and what never expires no expiry.
fn unmoved(version: &str, hash: &str, expires_at: &str) -> String {
    format!(
        "class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 \
         AND version OPERATOR(pg_catalog.=) {version} \
         AND ({hash} IS NULL OR COALESCE(hash, '') OPERATOR(pg_catalog.=) {hash}) \
         AND ({expires_at} IS NULL OR COALESCE(expires_at, 'infinity') OPERATOR(pg_catalog.=) {expires_at})"
    )
}

/// Whether the statement looks for a kept version that the new one, $6, is not above: there is one where the head row
/// was moved back by hand.
const LOOKS: [&str; 2] = [
    " AND NOT EXISTS (SELECT FROM @extschema@.state_snapshot k \
     WHERE k.class OPERATOR(pg_catalog.=) $1 AND k.key OPERATOR(pg_catalog.=) $2 \
     AND k.version OPERATOR(pg_catalog.>=) $6)",
    "",
];

/// The version that a state without a head row begins with: none is used again.
const FIRST_VERSION: &str = "SELECT COALESCE(pg_catalog.max(version), 0) OPERATOR(pg_catalog.+) 1 \
     FROM @extschema@.state_snapshot WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2";

/// The columns of a snapshot that [`new_version`] gives, and its parameters.
const NEW_COLUMNS: &str = "class, key, version, parent_version, hash, \
     checkpoint_type, recovery_point, agent_phase, execution_context, state, delta";
const NEW_VALUES: &str = "$1, $2, version, $13, $3, $9, $10, $11, $12, $7, $8";

fn insert_sql() -> String {
    format!(
        "WITH head AS (INSERT INTO @extschema@.state_head (class, key, version, hash, size, expires_at) \
         SELECT $1, $2, GREATEST(({FIRST_VERSION}), $6), $3, $4, $5 \
         ON CONFLICT (class, key) DO NOTHING RETURNING version) \
         INSERT INTO @extschema@.state_snapshot ({NEW_COLUMNS}) \
         SELECT {NEW_VALUES} FROM head RETURNING version"
    )
}

/// What becomes of the head row.
const NEW_HEAD: &str = "version = $6, hash = $3, size = $4, deleted = false, \
     expires_at = $5, updated_at = pg_catalog.clock_timestamp()";

fn update_sql(how: usize, looks: &str) -> String {
    format!(
        "WITH head AS (UPDATE @extschema@.state_head SET {NEW_HEAD} WHERE {}{looks} RETURNING version){} \
         INSERT INTO @extschema@.state_snapshot ({NEW_COLUMNS}) \
         SELECT {NEW_VALUES} FROM head RETURNING version",
        unmoved("$14", "$15", "$16"),
        pruning_sql(how, "$6", "$17", "$18")
    )
}

/// For a class that keeps one snapshot: the row itself becomes the next version, which writes a third of
/// the WAL of a new row.
fn replace_sql(looks: &str) -> String {
    format!(
        "WITH head AS (UPDATE @extschema@.state_head SET {NEW_HEAD} WHERE {}{looks} RETURNING version) \
         UPDATE @extschema@.state_snapshot \
         SET version = $6, parent_version = $13, hash = $3, \
         checkpoint_type = $9, recovery_point = $10, agent_phase = $11, \
         execution_context = $12, created_at = DEFAULT, writer = DEFAULT, state = $7, delta = $8 \
         WHERE {OF_STATE} AND version OPERATOR(pg_catalog.=) $14 AND NOT recovery_point \
         AND EXISTS (SELECT FROM head) RETURNING version",
        unmoved("$14", "$15", "$16")
    )
}

fn delete_sql(how: usize, looks: &str) -> String {
    format!(
        "WITH head AS (UPDATE @extschema@.state_head \
         SET version = $6, hash = NULL, size = 0, deleted = true, \
         expires_at = NULL, updated_at = pg_catalog.clock_timestamp() \
         WHERE {}{looks} RETURNING version){} \
         SELECT version FROM head",
        unmoved("$3", "$4", "$5"),
        pruning_sql(how, "$6", "$7", "$8")
    )
}

fn insert_tombstone_sql() -> String {
    "INSERT INTO @extschema@.state_head (class, key, version, size, deleted) \
     VALUES ($1, $2, $3, 0, true) ON CONFLICT (class, key) DO NOTHING RETURNING version"
        .to_owned()
}

fn touch_sql() -> String {
    format!(
        "UPDATE @extschema@.state_head SET expires_at = $6 \
         WHERE {} RETURNING version",
        unmoved("$3", "$4", "$5")
    )
}

/// Writes a state that has no head row; its version (1, unless there were versions before or the caller
/// wants a higher one), or `None` when there is a head row by now.
///
/// # Errors
/// `40001` if another transaction has just written the state and deleted its head row by hand: the versions
/// that this statement saw were fewer.
pub fn insert(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    new: &NewVersion<'_>,
) -> Result<Option<Made>> {
    let packed = pack_new(catalog, class, &NewVersion { base: None, ..*new });
    let statement = || {
        run(catalog, &statements(catalog).insert, insert_sql, || {
            new_version(class, key, new, &packed)
        })
    };
    let state = Shown::new(&class.name, key);
    let made = unless_kept(statement, move |_| Error::Raced {
        state: state.clone(),
    })?;
    Ok(packed.made(made))
}

/// Runs a statement that makes a version; `error` if there is a snapshot of that already, made of the server's
/// detail about it.
pub(super) fn unless_kept<T>(
    statement: impl FnOnce() -> Result<T>,
    error: impl Fn(&str) -> Error + std::panic::UnwindSafe + std::panic::RefUnwindSafe,
) -> Result<T> {
    PgTryBuilder::new(AssertUnwindSafe(statement))
        .catch_when(
            PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
            move |raised| match &raised {
                CaughtError::PostgresError(report)
                    if report.message().contains("state_snapshot_pkey") =>
                {
                    error(report.detail().unwrap_or_default()).raise()
                }
                _ => raised.rethrow(),
            },
        )
        .execute()
}

/// Decides how a new version is stored.
pub(super) fn pack_new(catalog: &Catalog, class: &Class, new: &NewVersion<'_>) -> Packed {
    let is_recovery_point = new.checkpoint.is_some_and(|it| it.recovery_point);
    pack(
        catalog,
        class,
        new.number,
        new.document,
        new.base,
        is_recovery_point,
    )
}

impl Packed {
    /// The version that a statement has written it as.
    fn made(&self, version: Option<i64>) -> Option<Made> {
        let storage = self.storage.written_newest();
        version.map(|version| Made { version, storage })
    }
}

/// The parameters $1 to $13 of a statement that writes a version.
pub(super) fn new_version(
    class: &Class,
    key: &[u8],
    new: &NewVersion<'_>,
    packed: &Packed,
) -> [Parameter; 13] {
    let checkpoint = new.checkpoint;
    let context = checkpoint.and_then(|it| it.execution_context.as_deref());
    [
        text(&class.name),
        text(key),
        hash(Some(new.hash)),
        size(new.document),
        expiry(new.expires_at),
        bigint(Some(new.number)),
        jsonb(packed.delta.is_none().then_some(new.document)),
        bytea(packed.delta.as_deref()),
        text(checkpoint.map_or(AUTO, |it| &it.checkpoint_type)),
        boolean(checkpoint.is_some_and(|it| it.recovery_point)),
        optional_text(checkpoint.and_then(|it| it.agent_phase.as_deref())),
        jsonb(context),
        bigint(checkpoint.and_then(|it| it.parent).or(new.parent)),
    ]
}

/// Writes a version after the one to be replaced; `None` when that is not current any more, or when a version is kept
/// that the new one would not be above.
///
/// # Errors
/// `40001` if such a version was made while the statement waited, and the head row then moved back by hand.
pub fn update(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    replaced: Replaced,
    new: &NewVersion<'_>,
) -> Result<Option<Made>> {
    let packed = pack_new(catalog, class, new);
    let is_keyframe = packed.storage.depth() == 0;
    let how = pruning(catalog, class, is_keyframe);
    let parameters = || -> [Parameter; 18] {
        join(&[
            &new_version(class, key, new, &packed),
            &replaced.parameters(),
            &[
                bigint(class.keep.map(|keep| new.number - keep + 1)),
                bigint(Some(reach(new.base))),
            ],
        ])
    };
    let known = usize::from(replaced.is_newest);
    let slot = &statements(catalog).update[how][known];
    let statement = || run(catalog, slot, || update_sql(how, LOOKS[known]), parameters);
    let state = Shown::new(&class.name, key);
    let made = unless_kept(statement, move |_| Error::Raced {
        state: state.clone(),
    })?;
    if is_keyframe {
        prune_gaps(catalog, class, key, made, false)?;
    }
    Ok(packed.made(made))
}

/// Writes a version over the snapshot of the one to be replaced, which must be there and no recovery point;
/// as [`update`] otherwise.
pub fn replace(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    replaced: Replaced,
    new: &NewVersion<'_>,
) -> Result<Option<Made>> {
    let packed = pack_new(catalog, class, new);
    let known = usize::from(replaced.is_newest);
    let made = run(
        catalog,
        &statements(catalog).replace[known],
        || replace_sql(LOOKS[known]),
        || -> [Parameter; 16] {
            join(&[
                &new_version(class, key, new, &packed),
                &replaced.parameters(),
            ])
        },
    )?;
    Ok(packed.made(made))
}

/// Puts a tombstone in place of the version to be replaced; its version `number`, or `None` as for [`update`].
pub fn delete(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    replaced: Replaced,
    number: i64,
) -> Result<Option<i64>> {
    let how = pruning(catalog, class, true);
    let known = usize::from(replaced.is_newest);
    let made = run(
        catalog,
        &statements(catalog).delete[how][known],
        || delete_sql(how, LOOKS[known]),
        || -> [Parameter; 8] {
            join(&[
                &[text(&class.name), text(key)],
                &replaced.parameters(),
                &[
                    bigint(Some(number)),
                    bigint(class.keep.map(|keep| number - keep + 1)),
                    bigint(Some(reach_of_any(class))),
                ],
            ])
        },
    )?;
    prune_gaps(catalog, class, key, made, true)?;
    Ok(made)
}

/// Writes a tombstone for a state that has no head row; its version `number`, or `None` when there is a head
/// row by now.
pub fn insert_tombstone(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    number: i64,
) -> Result<Option<i64>> {
    run(
        catalog,
        &statements(catalog).insert_tombstone,
        insert_tombstone_sql,
        || [text(&class.name), text(key), bigint(Some(number))],
    )
}

/// Gives the current version another expiry; the version, or `None` as for [`update`].
pub fn touch(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    replaced: Replaced,
    expires_at: i64,
) -> Result<Option<i64>> {
    run(
        catalog,
        &statements(catalog).touch,
        touch_sql,
        || -> [Parameter; 6] {
            join(&[
                &[text(&class.name), text(key)],
                &replaced.parameters(),
                &[expiry(expires_at)],
            ])
        },
    )
}

fn expire_sql() -> String {
    format!(
        "WITH head AS (UPDATE @extschema@.state_head \
         SET version = GREATEST(version OPERATOR(pg_catalog.+) 1, ({FIRST_VERSION})), hash = NULL, size = 0, \
         deleted = true, \
         expires_at = NULL, updated_at = pg_catalog.clock_timestamp() \
         WHERE {OF_STATE} AND expires_at OPERATOR(pg_catalog.<=) $3 AND NOT deleted RETURNING version){} \
         SELECT version FROM head",
        pruning_sql(
            0,
            "head.version",
            "(head.version OPERATOR(pg_catalog.-) $4 OPERATOR(pg_catalog.+) 1)",
            "1"
        )
    )
}

/// Makes the version after the current one, or after those kept, a tombstone if the state has expired by `now`; its
/// version.
pub fn expire(catalog: &Catalog, class: &Class, key: &[u8], now: i64) -> Result<Option<i64>> {
    run(catalog, &statements(catalog).expire, expire_sql, || {
        [
            text(&class.name),
            text(key),
            (pg_sys::TIMESTAMPTZOID, Some(bigint_datum(now))),
            bigint(class.keep),
        ]
    })
}

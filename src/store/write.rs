//! Writing one state to L3 by one statement. It names the version that it replaces. If that is not the current one
//! any more nothing is written, and the caller looks again.
//!
//! # Contract
//!
//! One row holds the document of the current version ([`Holder`]):
//! - **the head row**, where the class keeps one version and the version is no recovery point. Its column `state` is
//!   set then, and no row of `state_snapshot` has that version. The next version is an update of this one row, in
//!   which no indexed column changes unless the state expires.
//! - **a snapshot row** otherwise. All columns [`HELD`] of the head row are NULL then.
//!
//! Whoever reads takes the document from the row that holds it, so a class that is redefined moves nothing. Each
//! state moves with its next write, within the statement:
//!
//! | the version before is held by | and the class keeps one version | or more |
//! | --- | --- | --- |
//! | the head row | nothing is left of it | it becomes a snapshot row, with the time and the writer that it had |
//! | a snapshot row | it is pruned, unless it is a recovery point | it is pruned when the class does not keep it |
//!
//! **Others in between.** To make a snapshot row of the version before, the statement reads the head row under its
//! own snapshot, by version and hash, and only if the UPDATE has found both in the row that it has locked. Where the
//! UPDATE had to wait for somebody who has written another version, it finds neither, and nothing is written. A
//! snapshot row of that version, which somebody has put beside the head row by hand, gives way. If the statement does
//! not see the snapshot row yet, it fails with `40001`.
//!
//! **Errors** leave everything as it was: it is one statement. A reader with an older snapshot finds the old head
//! row, with the document that it held.

use super::parameters::{Parameter, bigint, boolean, expiry, join, run, text, ttl};
use super::pruning::{prune_gaps, prunes, pruning_sql, reach, reach_of_any};
use super::rows::{self, Needs, Pruning, Tables};
use super::runs::{Before, follow_version};
use super::spi::Statement;
use super::storage::{Holder, Storage};
use super::texts::{HELD, OF_STATE, holds_nothing};
use super::version::{Made, NewVersion, Replaced, new_version, pack_new};
use crate::call::bigint_datum;
use crate::catalog::{Catalog, Class};
use crate::error::{Error, Result, Shown};
use crate::interval::Ttl;
use pgrx::pg_sys::{self, panic::CaughtError};
use pgrx::{PgSqlErrorCode, PgTryBuilder};
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe};

use once_cell::unsync::OnceCell;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    insert: [OnceCell<Statement>; 2],
    update: [[OnceCell<Statement>; 2]; Also::KINDS],
    delete: [[OnceCell<Statement>; 2]; Also::KINDS],
    touch: OnceCell<Statement>,
    insert_tombstone: OnceCell<Statement>,
    expire: [OnceCell<Statement>; 2],
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// What a statement does beside writing the head row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Also {
    /// The row that is to hold the new document.
    pub holder: Holder,
    /// Whether it makes a snapshot row of the version before, if the head row holds that.
    pub moves: bool,
    /// Whether it prunes.
    pub prunes: bool,
}

impl Also {
    /// How many there are, as [`Also::index`] numbers them.
    const KINDS: usize = 8;

    /// For what replaces a version: the new version as it is stored, `None` for a tombstone.
    pub(super) fn of(
        catalog: &Catalog,
        class: &Class,
        replaced: &Replaced,
        new: Option<Storage>,
    ) -> Self {
        let is_keyframe = new.is_none_or(|new| new.depth() == 0);
        Self {
            holder: new.and_then(Storage::holder).unwrap_or(Holder::Snapshot),
            // What is not intact, as far as is known, is not kept: PostgreSQL itself may be unable to read it.
            moves: !class.keeps_one()
                && replaced.hash.is_some()
                && replaced.holder != Some(Holder::Snapshot),
            prunes: prunes(catalog, class, is_keyframe) && !leaves_nothing(class, replaced),
        }
    }

    /// What is pruned once version `made` is made.
    fn pruning(self, class: &Class, made: i64, reach: i64) -> Option<Pruning> {
        let oldest = class.keep.map(|keep| made - keep + 1);
        oldest
            .filter(|_| self.prunes)
            .map(|oldest| Pruning { oldest, reach })
    }

    /// Which tables the change reads or writes.
    fn needs(self, replaced: &Replaced) -> Needs {
        match self {
            Self {
                holder: Holder::Head,
                moves: false,
                prunes: false,
            } if replaced.is_newest => Needs::Head,
            _ => Needs::Both,
        }
    }

    fn index(self) -> usize {
        usize::from(self.holder == Holder::Head)
            + 2 * usize::from(self.moves)
            + 4 * usize::from(self.prunes)
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
     checkpoint_type, recovery_point, agent_phase, execution_context, state, delta, label, payload";
const NEW_VALUES: &str = "$1, $2, version, $13, $3, $9, $10, $11, $12, $7, $8, $14, $15";

/// The columns [`HELD`] of a head row that holds the new document.
const HELD_VALUES: [&str; HELD.len()] = [
    "$13",
    "$9",
    "$11",
    "$12",
    "pg_catalog.pg_current_xact_id()",
    "$7",
];

/// Sets the columns [`HELD`] of the head row of a version that this row holds.
fn hold(holder: Holder) -> String {
    match holder {
        Holder::Snapshot => holds_nothing(),
        Holder::Head => {
            let set = HELD.into_iter().zip(HELD_VALUES);
            let set: Vec<_> = set
                .map(|(column, value)| format!("{column} = {value}"))
                .collect();
            set.join(", ")
        }
    }
}

/// Makes a statement of one that writes the head row of a document, and of what is done beside that.
fn with_head(head: &str, beside: &str, holder: Holder) -> String {
    match (holder, beside) {
        (Holder::Head, "") => head.to_owned(),
        (Holder::Head, _) => format!("WITH head AS ({head}){beside} SELECT version FROM head"),
        (Holder::Snapshot, _) => format!(
            "WITH head AS ({head}){beside} INSERT INTO @extschema@.state_snapshot ({NEW_COLUMNS}) \
             SELECT {NEW_VALUES} FROM head RETURNING version"
        ),
    }
}

fn insert_sql(holder: Holder) -> String {
    let (columns, values) = match holder {
        Holder::Snapshot => (String::new(), String::new()),
        Holder::Head => (
            format!(", {}", HELD.join(", ")),
            format!(", {}", HELD_VALUES.join(", ")),
        ),
    };
    let head = format!(
        "INSERT INTO @extschema@.state_head (class, key, version, hash, size, expires_at, ttl{columns}) \
         SELECT $1, $2, GREATEST(({FIRST_VERSION}), $6), $3, $4, $5, $16{values} \
         ON CONFLICT (class, key) DO NOTHING RETURNING version"
    );
    with_head(&head, "", holder)
}

/// The columns of a snapshot row that is made of what a head row holds.
const MOVED_COLUMNS: &str = "class, key, version, parent_version, hash, checkpoint_type, agent_phase, \
     execution_context, created_at, writer, state";
/// The same as they stand in the head row `h`.
const MOVED_VALUES: &str = "h.class, h.key, h.version, h.parent_version, h.hash, \
     COALESCE(h.checkpoint_type, 'auto'), h.agent_phase, h.execution_context, h.updated_at, \
     COALESCE(h.writer, '0'), h.state";

/// The part of a statement that makes a snapshot row of the version that the head row holds, once the CTE `head` has
/// replaced it. A snapshot row of the same version, which somebody has put beside it by hand, does not count, and
/// goes first: two rows of one version must not keep the state from being written.
fn moving_sql(condition: &str) -> String {
    format!(
        ", moving AS (SELECT h.* FROM @extschema@.state_head h, head \
         WHERE h.class OPERATOR(pg_catalog.=) $1 AND h.key OPERATOR(pg_catalog.=) $2 AND {condition} \
         AND h.state IS NOT NULL), \
         beside AS (DELETE FROM @extschema@.state_snapshot s USING moving h \
         WHERE s.class OPERATOR(pg_catalog.=) h.class AND s.key OPERATOR(pg_catalog.=) h.key \
         AND s.version OPERATOR(pg_catalog.=) h.version RETURNING s.version), \
         moved AS (INSERT INTO @extschema@.state_snapshot ({MOVED_COLUMNS}) \
         SELECT {MOVED_VALUES} FROM moving h, (SELECT pg_catalog.count(*) FROM beside) AS gone)"
    )
}

/// The parts of a statement that make a snapshot row of version `replaced` with this hash, and prune.
fn beside_sql(also: Also, [replaced, hash]: [&str; 2], [made, oldest, reach]: [&str; 3]) -> String {
    let moving = also.moves.then(|| {
        moving_sql(&format!(
            "h.version OPERATOR(pg_catalog.=) {replaced} AND h.hash OPERATOR(pg_catalog.=) {hash}"
        ))
    });
    let pruning = also.prunes.then(|| pruning_sql(made, oldest, reach));
    [moving, pruning].into_iter().flatten().collect()
}

fn update_sql(also: Also, looks: &str) -> String {
    let head = format!(
        "UPDATE @extschema@.state_head SET version = $6, hash = $3, size = $4, deleted = false, \
         expires_at = $5, ttl = CASE WHEN $22 THEN $21 ELSE ttl END, \
         created_at = CASE WHEN $23 THEN pg_catalog.clock_timestamp() ELSE created_at END, \
         updated_at = pg_catalog.clock_timestamp(), {} WHERE {}{looks} RETURNING version",
        hold(also.holder),
        unmoved("$16", "$17", "$18"),
    );
    let beside = beside_sql(also, ["$16", "$17"], ["$6", "$19", "$20"]);
    with_head(&head, &beside, also.holder)
}

fn delete_sql(also: Also, looks: &str) -> String {
    format!(
        "WITH head AS (UPDATE @extschema@.state_head \
         SET version = $6, hash = NULL, size = 0, deleted = true, \
         expires_at = NULL, ttl = NULL, updated_at = pg_catalog.clock_timestamp(), {} \
         WHERE {}{looks} RETURNING version){} \
         SELECT version FROM head",
        holds_nothing(),
        unmoved("$3", "$4", "$5"),
        beside_sql(also, ["$3", "$4"], ["$6", "$7", "$8"])
    )
}

fn insert_tombstone_sql() -> String {
    "INSERT INTO @extschema@.state_head (class, key, version, size, deleted) \
     VALUES ($1, $2, $3, 0, true) ON CONFLICT (class, key) DO NOTHING RETURNING version"
        .to_owned()
}

fn touch_sql() -> String {
    format!(
        "UPDATE @extschema@.state_head SET expires_at = $6, ttl = CASE WHEN $8 THEN $7 ELSE ttl END \
         WHERE {} RETURNING version",
        unmoved("$3", "$4", "$5")
    )
}

/// Writes states, one after the other: row by row where a statement would do nothing else, and else by statements.
pub struct Writer<'a> {
    catalog: &'a Catalog,
    /// Open as long as rows are written one after the other.
    tables: Option<Tables>,
}

impl<'a> Writer<'a> {
    /// One that has opened nothing yet.
    pub fn new(catalog: &'a Catalog) -> Self {
        Self {
            catalog,
            tables: None,
        }
    }

    /// The tables, if what comes next needs no statement. A statement may run code of users, which finds them closed.
    fn tables(&mut self, needs: Needs) -> Option<&mut Tables> {
        let open = match self.tables.take() {
            _ if !rows::may_write(self.catalog) => None,
            Some(open) => Some(open),
            None => Tables::open(self.catalog),
        };
        self.tables = open.and_then(|open| open.with(self.catalog, needs));
        self.tables.as_mut()
    }

    /// Writes a state that has no head row; its version (1, unless there were versions before or the caller
    /// wants a higher one), or `None` when there is a head row by now.
    ///
    /// # Errors
    /// `40001` if another transaction has just written the state and deleted its head row by hand: the versions
    /// that this statement saw were fewer.
    pub fn insert(
        &mut self,
        class: &Class,
        key: &[u8],
        new: &NewVersion<'_>,
    ) -> Result<Option<Made>> {
        let catalog = self.catalog;
        let packed = pack_new(
            catalog,
            class,
            key,
            &NewVersion {
                base: None,
                branch: None,
                ..*new
            },
        )?;
        let holder = packed.holder();
        let slot = &statements(catalog).insert[usize::from(holder == Holder::Head)];
        let write = || match self.tables(Needs::Both) {
            Some(tables) => Ok(tables.insert(class, key, new, &packed)),
            None => run(
                catalog,
                slot,
                || insert_sql(holder),
                || -> [Parameter; 16] {
                    let [ttl, _] = ttl(&new.ttl);
                    join(&[&new_version(class, key, new, &packed), &[ttl]])
                },
            ),
        };
        let made = unless_kept((class, key), holder == Holder::Snapshot, write)?;
        if made.is_some() {
            self.follow(class, key, new.document, Before::Nothing)?;
        }
        Ok(packed.made(made))
    }

    /// What lists of runs show changes with a version that was written. That takes statements, and may run code of
    /// users.
    fn follow(
        &mut self,
        class: &Class,
        key: &[u8],
        document: &[u8],
        before: Before<'_>,
    ) -> Result<()> {
        follow_version(self.catalog, class, key, document, before, || {
            self.tables = None
        })
    }

    /// Writes a version after the one to be replaced; `None` when that is not current any more, or when a version is
    /// kept that the new one would not be above.
    ///
    /// # Errors
    /// `40001` if such a version was made while the statement waited, and the head row then moved back by hand.
    pub fn update(
        &mut self,
        class: &Class,
        key: &[u8],
        replaced: Replaced,
        new: &NewVersion<'_>,
    ) -> Result<Option<Made>> {
        let catalog = self.catalog;
        let packed = pack_new(catalog, class, key, new)?;
        let also = Also::of(catalog, class, &replaced, Some(packed.storage));
        let parameters = || -> [Parameter; 23] {
            join(&[
                &new_version(class, key, new, &packed),
                &replaced.parameters(),
                &[
                    bigint(class.keep.map(|keep| new.number - keep + 1)),
                    bigint(Some(reach(new.base))),
                ],
                &ttl(&new.ttl),
                &[boolean(new.is_first)],
            ])
        };
        let known = usize::from(replaced.is_newest);
        let slot = &statements(catalog).update[also.index()][known];
        let needs = also.needs(&replaced);
        let write = || match self.tables(needs) {
            Some(tables) => {
                let pruning = also.pruning(class, new.number, reach(new.base));
                let replaced = (&replaced, also.moves);
                Ok(tables.update(class, key, replaced, (new, &packed), pruning))
            }
            None => run(catalog, slot, || update_sql(also, LOOKS[known]), parameters),
        };
        let made = unless_kept((class, key), needs == Needs::Both, write)?;
        if packed.storage.depth() == 0 && !leaves_nothing(class, &replaced) {
            prune_gaps(catalog, class, key, made, packed.holder())?;
        }
        if made.is_some() {
            let base = new.base.map(|base| base.document);
            self.follow(
                class,
                key,
                new.document,
                base.map_or(Before::Unknown, Before::Document),
            )?;
        }
        Ok(packed.made(made))
    }

    /// Puts a tombstone in place of the version to be replaced; its version `number`, or `None` as for [`update`].
    pub fn delete(
        &mut self,
        class: &Class,
        key: &[u8],
        replaced: Replaced,
        number: i64,
    ) -> Result<Option<i64>> {
        let catalog = self.catalog;
        let also = Also::of(catalog, class, &replaced, None);
        let known = usize::from(replaced.is_newest);
        let slot = &statements(catalog).delete[also.index()][known];
        let parameters = || -> [Parameter; 8] {
            join(&[
                &[text(&class.name), text(key)],
                &replaced.parameters(),
                &[
                    bigint(Some(number)),
                    bigint(class.keep.map(|keep| number - keep + 1)),
                    bigint(Some(reach_of_any(class))),
                ],
            ])
        };
        // A tombstone is in no snapshot row.
        let needs = Also {
            holder: Holder::Head,
            ..also
        }
        .needs(&replaced);
        let write = || match self.tables(needs) {
            Some(tables) => {
                let pruning = also.pruning(class, number, reach_of_any(class));
                Ok(tables.delete(class, key, (&replaced, also.moves), number, pruning))
            }
            None => run(catalog, slot, || delete_sql(also, LOOKS[known]), parameters),
        };
        let made = unless_kept((class, key), needs == Needs::Both, write)?;
        if !leaves_nothing(class, &replaced) {
            // A tombstone counts as one of those that are kept, and is in no snapshot row.
            prune_gaps(catalog, class, key, made, Holder::Head)?;
        }
        Ok(made)
    }

    /// Writes a tombstone for a state that has no head row; its version `number`, or `None` when there is a head
    /// row by now.
    pub fn insert_tombstone(
        &mut self,
        class: &Class,
        key: &[u8],
        number: i64,
    ) -> Result<Option<i64>> {
        let catalog = self.catalog;
        if let Some(tables) = self.tables(Needs::Head) {
            return Ok(tables.insert_tombstone(class, key, number));
        }
        run(
            catalog,
            &statements(catalog).insert_tombstone,
            insert_tombstone_sql,
            || [text(&class.name), text(key), bigint(Some(number))],
        )
    }

    /// Gives the current version another expiry, and perhaps another time to live; the version, or `None` as for
    /// [`update`].
    pub fn touch(
        &mut self,
        class: &Class,
        key: &[u8],
        replaced: Replaced,
        (expires_at, lives): (i64, &Ttl),
    ) -> Result<Option<i64>> {
        let catalog = self.catalog;
        if let Some(tables) = self.tables(Needs::Head) {
            return Ok(tables.touch(class, key, &replaced, (expires_at, lives)));
        }
        run(
            catalog,
            &statements(catalog).touch,
            touch_sql,
            || -> [Parameter; 8] {
                join(&[
                    &[text(&class.name), text(key)],
                    &replaced.parameters(),
                    &[expiry(expires_at)],
                    &ttl(lives),
                ])
            },
        )
    }

    /// Makes the version after the current one, or after those kept, a tombstone if the state has expired by `now`;
    /// its version.
    pub fn expire(&mut self, class: &Class, key: &[u8], now: i64) -> Result<Option<i64>> {
        let catalog = self.catalog;
        let moves = !class.keeps_one();
        let slot = &statements(catalog).expire[usize::from(moves)];
        let parameters = || {
            [
                text(&class.name),
                text(key),
                (pg_sys::TIMESTAMPTZOID, Some(bigint_datum(now))),
                bigint(class.keep),
            ]
        };
        let write = || match self.tables(Needs::Both) {
            Some(tables) => Ok(tables.expire(class, key, now, moves)),
            None => run(catalog, slot, || expire_sql(moves), parameters),
        };
        unless_kept((class, key), moves, write)
    }
}

/// Whether nothing is left of the versions before the new one, as far as the class is concerned: they were pruned
/// when the head row came to hold the one before.
fn leaves_nothing(class: &Class, replaced: &Replaced) -> bool {
    class.keeps_one() && replaced.holder == Some(Holder::Head)
}

/// Makes a version of a state. `may_keep`: a snapshot row may be made of one.
///
/// # Errors
/// `40001` if there is a snapshot of that already.
fn unless_kept<T>(
    (class, key): (&Class, &[u8]),
    may_keep: bool,
    write: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let class = &*class.name;
    let raced = move || Error::Raced {
        state: Shown::new(class, key),
    };
    match may_keep {
        true => unless_taken("state_snapshot_pkey", raced, write),
        false => write(),
    }
}

/// Writes rows.
///
/// # Errors
/// `raced` if this primary key has one of them already.
pub(super) fn unless_taken<T>(
    primary_key: &'static str,
    raced: impl Fn() -> Error + RefUnwindSafe + UnwindSafe,
    write: impl FnOnce() -> Result<T>,
) -> Result<T> {
    PgTryBuilder::new(AssertUnwindSafe(write))
        .catch_when(
            PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
            move |raised| match &raised {
                CaughtError::PostgresError(report) if report.message().contains(primary_key) => {
                    raced().raise()
                }
                _ => raised.rethrow(),
            },
        )
        .execute()
}

fn expire_sql(moves: bool) -> String {
    const EXPIRED: &str = "expires_at OPERATOR(pg_catalog.<=) $3 AND NOT deleted";
    let moving = moves.then(|| moving_sql(&format!("{EXPIRED} AND h.hash IS NOT NULL")));
    format!(
        "WITH head AS (UPDATE @extschema@.state_head \
         SET version = GREATEST(version OPERATOR(pg_catalog.+) 1, ({FIRST_VERSION})), hash = NULL, size = 0, \
         deleted = true, \
         expires_at = NULL, ttl = NULL, updated_at = pg_catalog.clock_timestamp(), {} \
         WHERE {OF_STATE} AND {EXPIRED} RETURNING version){}{} \
         SELECT version FROM head",
        holds_nothing(),
        moving.unwrap_or_default(),
        pruning_sql(
            "head.version",
            "(head.version OPERATOR(pg_catalog.-) $4 OPERATOR(pg_catalog.+) 1)",
            "1"
        )
    )
}

//! Writing many states to L3 in one statement.
//!
//! # Contract
//!
//! The statement does for each state what the statements of `write` do for one: head row, snapshot, pruning.
//! A state whose head row is not the one to be replaced any more is not written, the others are.
//!
//! **Row locks** are taken in the order of the items, whatever the planner thinks: the head rows are written by a
//! single `INSERT … ON CONFLICT DO UPDATE` fed by the items in their order, new states and known ones alike. It locks
//! also the rows that it then leaves as they are, so whoever looks at those again has them already.
//!
//! **What the row must be** that is replaced, and what is to become of it, its UPDATE can know only from the row that
//! the INSERT has proposed. So that row says more than it would as a row: its `hash` is followed by the hash of the
//! document to be replaced, and its `updated_at` is infinite.
//!
//! **A head row that is gone**, where one was to be replaced, is made by the INSERT just so. It is told by its
//! `updated_at`, which no UPDATE leaves infinite; nothing is written to its name beside it, and the caller must put
//! it right before anybody sees it ([`Wrote::Gone`]).
//!
//! **The plan** is nested loops over the items with look-ups by primary key, however small the tables are when it is
//! made: it is kept while they grow. No user code runs on the tables (the caller's promise), so nothing else is
//! planned meanwhile.

use super::own_write::OwnWrite;
use super::pruning::{IS_KEYFRAME, pruning, reach, reach_of_any};
use super::spi::{Connection, Rows, Statement};
use super::storage::Packed;
use super::write::{
    self, Made, NewVersion, Parameter, Replaced, bigint, bytea, expiry, integer, join, new_version,
    null, pack_new, text, unless_kept,
};
use crate::call;
use crate::catalog::{Catalog, Class};
use crate::error::{self, Error, Result, Shown};
use pgrx::pg_sys;
use std::cell::OnceCell;
use std::panic::AssertUnwindSafe;

/// What is to become of a state.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    /// It has no head row.
    Insert(NewVersion<'a>),
    /// The version after the one to be replaced.
    Update(Replaced, NewVersion<'a>),
    /// The same, written over the snapshot before, which must be there and no recovery point.
    Replace(Replaced, NewVersion<'a>),
    /// A tombstone with this version, the one after that to be replaced.
    Delete(Replaced, i64),
    /// Another expiry, `i64::MAX` for never.
    Touch(Replaced, i64),
}

/// A state and what is to become of it.
pub struct Item<'a> {
    /// Its class, not a `behind` class.
    pub class: &'a Class,
    /// Its key.
    pub key: &'a [u8],
    /// What is to become of it.
    pub change: Change<'a>,
}

/// What was done about a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// It was written, as this version.
    Version(Made),
    /// Its head row is not the one to be replaced; it is locked.
    Nothing,
    /// Its head row was gone. There is one now, of this version, without a snapshot.
    Gone(i64),
}

/// Statements by what they do beside inserting: write over snapshots, prune.
#[derive(Default)]
pub struct Statements([[OnceCell<Statement>; 2]; 2]);

/// The columns of an item: those that [`new_version`] gives, and what follows them.
const COLUMNS: [&str; WIDTH] = [
    "class",
    "key",
    "hash",
    "size",
    "expires_at",
    "version",
    "state",
    "delta",
    "checkpoint_type",
    "recovery_point",
    "agent_phase",
    "execution_context",
    "parent_version",
    "oldest",
    "reach",
    "kind",
];
const WIDTH: usize = 16;
/// The column `hash` among them.
const HASH: usize = 2;

/// Column `kind`.
const INSERT: i32 = 0;
const UPDATE: i32 = 1;
const REPLACE: i32 = 2;
const DELETE: i32 = 3;
const TOUCH: i32 = 4;

/// The items in their order. The version of a state without a head row is found as for a single one.
fn input_sql() -> String {
    let arrays: Vec<_> = (1..)
        .zip(COLUMNS)
        .map(|(n, column)| format!("pg_catalog.unnest(${n}) AS {column}"))
        .collect();
    let columns = COLUMNS.map(|column| match column {
        "version" => format!(
            "CASE WHEN i.kind OPERATOR(pg_catalog.=) {INSERT} THEN GREATEST((\
             SELECT COALESCE(pg_catalog.max(s.version), 0) OPERATOR(pg_catalog.+) 1 \
             FROM @extschema@.state_snapshot s \
             WHERE s.class OPERATOR(pg_catalog.=) i.class AND s.key OPERATOR(pg_catalog.=) i.key), i.version) \
             ELSE i.version END AS version"
        ),
        column => format!("i.{column}"),
    });
    format!(
        "input AS MATERIALIZED (SELECT {} FROM (SELECT {}) AS i)",
        columns.join(", "),
        arrays.join(", ")
    )
}

/// Writes the head rows of those that have not moved.
fn head_sql() -> String {
    format!(
        "head AS (INSERT INTO @extschema@.state_head AS h \
         (class, key, version, hash, size, deleted, expires_at, updated_at) \
         SELECT i.class, i.key, i.version, i.hash, i.size, i.kind OPERATOR(pg_catalog.=) {DELETE}, i.expires_at, \
         CASE WHEN i.kind OPERATOR(pg_catalog.=) {INSERT} THEN pg_catalog.clock_timestamp() \
         WHEN i.kind OPERATOR(pg_catalog.=) {TOUCH} THEN '-infinity' ELSE 'infinity' END \
         FROM input i ON CONFLICT (class, key) DO UPDATE SET \
         version = CASE WHEN {IS_TOUCH} THEN h.version ELSE excluded.version END, \
         hash = CASE WHEN {IS_TOUCH} THEN h.hash WHEN excluded.deleted THEN NULL ELSE {} END, \
         size = CASE WHEN {IS_TOUCH} THEN h.size ELSE excluded.size END, \
         deleted = excluded.deleted, expires_at = excluded.expires_at, \
         updated_at = CASE WHEN {IS_TOUCH} AND pg_catalog.isfinite(h.updated_at) THEN h.updated_at \
         ELSE pg_catalog.clock_timestamp() END \
         WHERE NOT pg_catalog.isfinite(excluded.updated_at) \
         AND h.version OPERATOR(pg_catalog.=) (excluded.version OPERATOR(pg_catalog.-) 1) \
         AND (pg_catalog.octet_length(excluded.hash) OPERATOR(pg_catalog.=) 16 \
         OR COALESCE(h.hash, '') OPERATOR(pg_catalog.=) pg_catalog.substring(excluded.hash, 17)) \
         RETURNING h.class, h.key, h.version, pg_catalog.isfinite(h.updated_at) AS was_there)",
        new_hash("excluded.hash"),
    )
}

/// Whether a row that is to be updated is to get another expiry only.
const IS_TOUCH: &str = "excluded.updated_at OPERATOR(pg_catalog.=) '-infinity'";

/// The hash of an item's own document.
fn new_hash(hash: &str) -> String {
    format!("pg_catalog.substring({hash}, 1, 16)")
}

/// Whether the head row of item `i` was written. Not a join, since the rows are to be looked up in a hash table.
const IS_WRITTEN: &str = "((ROW(i.class, i.key) OPERATOR(pg_catalog.=) ANY (\
     SELECT head.class, head.key FROM head WHERE head.was_there)) IS TRUE)";

/// What a snapshot gets from its item.
const NEW: [&str; 9] = [
    "version",
    "parent_version",
    "hash",
    "checkpoint_type",
    "recovery_point",
    "agent_phase",
    "execution_context",
    "state",
    "delta",
];

/// The same as it stands in the item.
fn new_values() -> [String; 9] {
    NEW.map(|column| match column {
        "hash" => new_hash("i.hash"),
        column => format!("i.{column}"),
    })
}

fn insert_sql() -> String {
    format!(
        "inserted AS (INSERT INTO @extschema@.state_snapshot (class, key, {}) \
         SELECT i.class, i.key, {} FROM input i \
         WHERE i.kind OPERATOR(pg_catalog.<=) {UPDATE} AND {IS_WRITTEN})",
        NEW.join(", "),
        new_values().join(", ")
    )
}

/// For classes that keep one snapshot.
fn replace_sql() -> String {
    let set: Vec<_> = NEW
        .into_iter()
        .zip(new_values())
        .map(|(column, value)| format!("{column} = {value}"))
        .collect();
    format!(
        "replaced AS (UPDATE @extschema@.state_snapshot s \
         SET {}, created_at = DEFAULT, writer = DEFAULT FROM input i \
         WHERE i.kind OPERATOR(pg_catalog.=) {REPLACE} AND {IS_WRITTEN} \
         AND s.class OPERATOR(pg_catalog.=) i.class AND s.key OPERATOR(pg_catalog.=) i.key \
         AND s.version OPERATOR(pg_catalog.=) (i.version OPERATOR(pg_catalog.-) 1) RETURNING s.version)",
        set.join(", ")
    )
}

/// The rule of `pruning::pruning_sql`, for each state that has an `oldest` version to be kept.
fn prune_sql() -> String {
    format!(
        "pruned AS (DELETE FROM @extschema@.state_snapshot s USING input i \
         WHERE i.oldest IS NOT NULL AND {IS_WRITTEN} \
         AND s.class OPERATOR(pg_catalog.=) i.class AND s.key OPERATOR(pg_catalog.=) i.key \
         AND s.version OPERATOR(pg_catalog.<) \
         CASE WHEN i.oldest OPERATOR(pg_catalog.>=) i.version THEN i.version ELSE \
         (SELECT k.version FROM @extschema@.state_snapshot k \
         WHERE k.class OPERATOR(pg_catalog.=) i.class AND k.key OPERATOR(pg_catalog.=) i.key \
         AND k.version OPERATOR(pg_catalog.<=) i.oldest \
         AND k.version OPERATOR(pg_catalog.>=) (i.oldest OPERATOR(pg_catalog.-) i.reach) AND {IS_KEYFRAME} \
         ORDER BY k.version USING OPERATOR(pg_catalog.>) LIMIT 1) END \
         AND s.version OPERATOR(pg_catalog.>=) (i.oldest OPERATOR(pg_catalog.-) i.reach) \
         AND NOT s.recovery_point)"
    )
}

/// The whole statement. Its rows are those of `head` in the order of the items, each with the number of snapshots
/// that were written over.
fn sql(replaces: bool, prunes: bool) -> String {
    let mut parts = vec![input_sql(), head_sql(), insert_sql()];
    if replaces {
        parts.push(replace_sql());
    }
    if prunes {
        parts.push(prune_sql());
    }
    let replaced = match replaces {
        true => "(SELECT pg_catalog.count(*) FROM replaced)",
        false => "0::pg_catalog.int8",
    };
    format!(
        "WITH {} SELECT h.class, h.key, h.version, h.was_there, {replaced} FROM head h",
        parts.join(", ")
    )
}

impl<'a> Change<'a> {
    /// The version to be written, of a change that has a document.
    fn new_version(&self) -> Option<NewVersion<'a>> {
        match self {
            // There is nothing yet that it could be a difference from.
            Self::Insert(new) => Some(NewVersion { base: None, ..*new }),
            Self::Update(_, new) | Self::Replace(_, new) => Some(*new),
            Self::Delete(..) | Self::Touch(..) => None,
        }
    }

    fn kind(&self) -> i32 {
        match self {
            Self::Insert(_) => INSERT,
            Self::Update(..) => UPDATE,
            Self::Replace(..) => REPLACE,
            Self::Delete(..) => DELETE,
            Self::Touch(..) => TOUCH,
        }
    }

    fn replaced(&self) -> Option<Replaced> {
        match self {
            Self::Insert(_) => None,
            Self::Update(replaced, _)
            | Self::Replace(replaced, _)
            | Self::Delete(replaced, _)
            | Self::Touch(replaced, _) => Some(*replaced),
        }
    }
}

/// An item made ready.
struct Row<'a> {
    item: &'a Item<'a>,
    new: Option<(NewVersion<'a>, Packed)>,
    /// The oldest version to be kept and how far below it is looked, if the state is pruned.
    pruning: Option<(i64, i64)>,
}

impl<'a> Row<'a> {
    fn new(catalog: &Catalog, item: &'a Item<'a>) -> Self {
        let class = item.class;
        let new = item.change.new_version().map(|new| {
            let packed = pack_new(catalog, class, &new);
            (new, packed)
        });
        let (number, reach, is_keyframe) = match (&item.change, &new) {
            (Change::Update(..), Some((new, packed))) => {
                (new.number, reach(new.base), packed.storage.depth() == 0)
            }
            (Change::Delete(_, number), _) => (*number, reach_of_any(class), true),
            // The others leave the number of snapshots as it is.
            _ => (0, 0, false),
        };
        let prunes = pruning(catalog, class, is_keyframe) == 0;
        let oldest = class.keep.map(|keep| number - keep + 1);
        Self {
            item,
            new,
            pruning: oldest.filter(|_| prunes).map(|oldest| (oldest, reach)),
        }
    }

    fn parameters(&self) -> [Parameter; WIDTH] {
        let Item { class, key, change } = self.item;
        let replaced = change.replaced();
        let version = replaced.map_or(0, |replaced| replaced.version + 1);
        let new = match (&self.new, change) {
            (Some((new, packed)), _) => new_version(class, key, new, packed),
            (None, Change::Touch(_, expires_at)) => {
                without_snapshot(class, key, version, *expires_at)
            }
            (None, _) => without_snapshot(class, key, version, i64::MAX),
        };
        let rest = [
            bigint(self.pruning.map(|(oldest, _)| oldest)),
            bigint(self.pruning.map(|(_, reach)| reach)),
            integer(change.kind()),
        ];
        let mut parameters: [Parameter; WIDTH] = join(&[&new, &rest]);
        if let Some(replaced) = replaced {
            let own = self.new.as_ref().map_or(0, |(new, _)| new.hash);
            let hashes = [Some(own), replaced.hash];
            let hashes: Vec<_> = hashes
                .into_iter()
                .flatten()
                .map(u128::to_be_bytes)
                .collect();
            parameters[HASH] = bytea(Some(hashes.as_flattened()));
        }
        parameters
    }

    /// What it is once written.
    fn made(&self, version: i64) -> Made {
        match &self.new {
            Some((_, packed)) => Made {
                version,
                storage: packed.storage,
            },
            None => Made::without_snapshot(version),
        }
    }
}

/// As [`new_version`], of a head row that gets no snapshot; without its hash.
fn without_snapshot(class: &Class, key: &[u8], version: i64, expires_at: i64) -> [Parameter; 13] {
    [
        text(&class.name),
        text(key),
        bytea(None),
        integer(0),
        expiry(expires_at),
        bigint(Some(version)),
        null(pg_sys::JSONBOID),
        bytea(None),
        null(pg_sys::TEXTOID),
        null(pg_sys::BOOLOID),
        null(pg_sys::TEXTOID),
        null(pg_sys::JSONBOID),
        bigint(None),
    ]
}

/// Writes one state by the statement for one; `None` if its head row is not the one to be replaced any more.
pub fn write_one(catalog: &Catalog, item: &Item<'_>) -> Result<Option<Made>> {
    let Item { class, key, change } = item;
    let alone = |version: Option<i64>| version.map(Made::without_snapshot);
    match change {
        Change::Insert(new) => write::insert(catalog, class, key, new),
        Change::Update(replaced, new) => write::update(catalog, class, key, *replaced, new),
        Change::Replace(replaced, new) => write::replace(catalog, class, key, *replaced, new),
        Change::Delete(replaced, number) => {
            write::delete(catalog, class, key, *replaced, *number).map(alone)
        }
        Change::Touch(replaced, expires_at) => {
            write::touch(catalog, class, key, *replaced, *expires_at).map(alone)
        }
    }
}

/// Writes states, each once, in the order in which their rows are to be locked; what was done about each.
///
/// # Errors
/// As for a single one. `40001` if a snapshot to be written over is gone.
pub fn write_many(catalog: &Catalog, items: &[Item<'_>]) -> Result<Vec<Wrote>> {
    let rows: Vec<_> = items.iter().map(|item| Row::new(catalog, item)).collect();
    let replaces = rows.iter().any(|row| row.item.change.kind() == REPLACE);
    let prunes = rows.iter().any(|row| row.pruning.is_some());
    let slot = &catalog.statements.write_many.0[usize::from(replaces)][usize::from(prunes)];
    let statement = || {
        let connection = Connection::open()?;
        let (types, values) = arrays(&rows);
        let statement =
            connection.prepare(slot, &catalog.schema, || sql(replaces, prunes), &types)?;
        let _own = OwnWrite::begin();
        let _planning = LookUps::begin();
        let written = connection.modify(statement, values)?;
        wrote(&rows, &written)
    };
    let items = AssertUnwindSafe(items);
    unless_kept(statement, move |detail| {
        let items = &items;
        kept_already(items, detail)
    })
}

/// What was done about each, given the rows of the statement.
fn wrote(rows: &[Row<'_>], written: &Rows) -> Result<Vec<Wrote>> {
    let mut wrote = vec![Wrote::Nothing; rows.len()];
    // How many snapshots are to be replaced, and were.
    let (mut wanted, mut replaced) = (0, 0);
    let mut items = rows.iter().zip(&mut wrote);
    for head in written.iter() {
        let (class, key) = (head.text(1), head.text(2));
        let is_it = |row: &Row<'_>| *row.item.key == *key && row.item.class.name == class;
        let Some((row, wrote)) = items.find(|(row, _)| is_it(row)) else {
            return Err(Error::Internal {
                message: "the states were not written in their order".to_owned(),
            });
        };
        let version = head.bigint(3);
        *wrote = match head.boolean(4) {
            true => Wrote::Version(row.made(version)),
            false => Wrote::Gone(version),
        };
        wanted += i64::from(head.boolean(4) && row.item.change.kind() == REPLACE);
        replaced = head.bigint(5);
    }
    let lacks_one = |row: &&Row<'_>| replaced < wanted && row.item.change.kind() == REPLACE;
    match rows.iter().find(lacks_one) {
        Some(row) => Err(Error::Raced {
            state: Shown::new(&row.item.class.name, row.item.key),
        }),
        None => Ok(wrote),
    }
}

/// The error for a version of which there is a snapshot already; which state it is says the server's detail.
fn kept_already(items: &[Item<'_>], detail: &str) -> Error {
    let is_it = |item: &&Item<'_>| {
        let (class, key) = (error::text(&item.class.name), error::text(item.key));
        detail.contains(&format!("=({class}, {key}, "))
    };
    let Some(item) = items.iter().find(is_it).or(items.first()) else {
        return Error::Internal {
            message: "a snapshot is in the way".to_owned(),
        };
    };
    let state = Shown::new(&item.class.name, item.key);
    match item.change {
        Change::Update(_, new) | Change::Replace(_, new) => Error::KeptAlready {
            state,
            version: new.number,
        },
        Change::Insert(_) | Change::Delete(..) | Change::Touch(..) => Error::Raced { state },
    }
}

/// The columns of the rows as arrays: their types and values.
fn arrays(rows: &[Row<'_>]) -> ([pg_sys::Oid; WIDTH], [Option<pg_sys::Datum>; WIDTH]) {
    let mut types = [pg_sys::InvalidOid; WIDTH];
    let mut columns: [Vec<Option<pg_sys::Datum>>; WIDTH] =
        std::array::from_fn(|_| Vec::with_capacity(rows.len()));
    for row in rows {
        for (n, (of_type, value)) in row.parameters().into_iter().enumerate() {
            types[n] = of_type;
            columns[n].push(value);
        }
    }
    let mut values = [None; WIDTH];
    for (n, column) in columns.into_iter().enumerate() {
        // SAFETY: the values are of the column's type, and used no more.
        (types[n], values[n]) = unsafe { array(types[n], column) };
    }
    (types, values)
}

/// An array of these values, and its type. The values are freed.
///
/// # Safety
/// The values are of that type, each allocated by itself if the type is passed by reference, and not used again.
unsafe fn array(
    of_type: pg_sys::Oid,
    values: Vec<Option<pg_sys::Datum>>,
) -> (pg_sys::Oid, Option<pg_sys::Datum>) {
    let mut nulls: Vec<bool> = values.iter().map(Option::is_none).collect();
    let mut datums: Vec<_> = values
        .iter()
        .map(|value| value.unwrap_or(pg_sys::Datum::from(0usize)))
        .collect();
    let (mut len, mut by_value, mut align) = (0, false, 0);
    let (mut count, mut first) = (values.len() as i32, 1);
    // SAFETY: as many values as said, of that type (the caller's promise); the array is a copy of them.
    unsafe {
        pg_sys::get_typlenbyvalalign(of_type, &mut len, &mut by_value, &mut align);
        let array = pg_sys::construct_md_array(
            datums.as_mut_ptr(),
            nulls.as_mut_ptr(),
            1,
            &mut count,
            &mut first,
            of_type,
            len.into(),
            by_value,
            align,
        );
        if !by_value {
            values
                .into_iter()
                .flatten()
                .for_each(|value| call::free(value));
        }
        (
            pg_sys::get_array_type(of_type),
            Some(pg_sys::Datum::from(array)),
        )
    }
}

/// While it lives, the planner joins by looking rows up.
struct LookUps([bool; 5]);

impl LookUps {
    const WANTED: [bool; 5] = [true, true, false, false, false];

    fn begin() -> Self {
        // SAFETY: plain globals of this process, which only the planner reads; put back by `drop`.
        Self(unsafe { Self::exchange(Self::WANTED) })
    }

    /// # Safety
    /// No plan is being made.
    unsafe fn exchange(to: [bool; 5]) -> [bool; 5] {
        let [nestloop, indexscan, hashjoin, mergejoin, seqscan] = to;
        // SAFETY: plain globals of this process.
        unsafe {
            [
                (&raw mut pg_sys::enable_nestloop).replace(nestloop),
                (&raw mut pg_sys::enable_indexscan).replace(indexscan),
                (&raw mut pg_sys::enable_hashjoin).replace(hashjoin),
                (&raw mut pg_sys::enable_mergejoin).replace(mergejoin),
                (&raw mut pg_sys::enable_seqscan).replace(seqscan),
            ]
        }
    }
}

impl Drop for LookUps {
    fn drop(&mut self) {
        // SAFETY: as in `begin`.
        unsafe { Self::exchange(self.0) };
    }
}

//! Writing many states to L3 in one statement.
//!
//! # Contract
//!
//! The statement does for each state what the statements of `write` do for one: head row, snapshot row, the version
//! before, pruning. A state whose head row is not the one to be replaced any more is not written, the others are.
//!
//! **Row locks** are taken in the order of the items, whatever the planner thinks: the head rows are written by a
//! single `INSERT … ON CONFLICT DO UPDATE` fed by the items in their order, new states and known ones alike. It locks
//! also the rows that it then leaves as they are, so whoever looks at those again has them already.
//!
//! **What the row must be** that is replaced, and what is to become of it, its UPDATE can know only from the row that
//! the INSERT has proposed. So that row says more than it would as a row: its `hash` is followed by the expiry and
//! the hash of the document to be replaced, and its `updated_at` is infinite.
//!
//! **A head row that is gone**, where one was to be replaced, is made by the INSERT just so. It is told by its
//! `updated_at`, which no UPDATE leaves infinite; nothing is written to its name beside it, and the caller must put
//! it right before anybody sees it ([`Wrote::Gone`]).
//!
//! **The plan** is nested loops over the items with look-ups by primary key, however small the tables are when it is
//! made: it is kept while they grow. No user code runs on the tables (the caller's promise), so nothing else is
//! planned meanwhile.

use super::own_write::OwnWrite;
use super::parameters::{Parameter, bigint, boolean, bytea, expiry, integer, join, null, text};
use super::pruning::{reach, reach_of_any};
use super::spi::{Connection, Rows, Statement};
use super::storage::{Holder, Packed};
use super::write::{self, Also, Made, NewVersion, Replaced, new_version, pack_new, unless_kept};
use super::write_many_sql::{ANY_EXPIRY, DELETE, HASH, INSERT, Parts, TOUCH, UPDATE, WIDTH, sql};
use crate::call;
use crate::catalog::{Catalog, Class};
use crate::error::{self, Error, Result, Shown};
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use state_cache_memory::{Grow, collect, filled};
use std::panic::AssertUnwindSafe;

/// What is to become of a state.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    /// It has no head row.
    Insert(NewVersion<'a>),
    /// A version above the one to be replaced.
    Update(Replaced, NewVersion<'a>),
    /// A tombstone with this version, which is above the one to be replaced.
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
    /// Its head row was gone. There is one now, of this version, and nothing beside it.
    Gone(i64),
}

/// Statements by their parts.
#[derive(Default)]
struct Statements([OnceCell<Statement>; Parts::KINDS]);

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

impl<'a> Change<'a> {
    /// The version to be written, of a change that has a document.
    fn new_version(&self) -> Option<NewVersion<'a>> {
        match self {
            // There is nothing yet that it could be a difference from.
            Self::Insert(new) => Some(NewVersion { base: None, ..*new }),
            Self::Update(_, new) => Some(*new),
            Self::Delete(..) | Self::Touch(..) => None,
        }
    }

    fn kind(&self) -> i32 {
        match self {
            Self::Insert(_) => INSERT,
            Self::Update(..) => UPDATE,
            Self::Delete(..) => DELETE,
            Self::Touch(..) => TOUCH,
        }
    }

    fn replaced(&self) -> Option<Replaced> {
        match self {
            Self::Insert(_) => None,
            Self::Update(replaced, _) | Self::Delete(replaced, _) | Self::Touch(replaced, _) => {
                Some(*replaced)
            }
        }
    }
}

/// An item made ready.
struct Row<'a> {
    item: &'a Item<'a>,
    new: Option<(NewVersion<'a>, Packed)>,
    /// The oldest version to be kept and how far below it is looked, if the state is pruned.
    pruning: Option<(i64, i64)>,
    /// Whether a snapshot row is made of the version before, if the head row holds that.
    moves: bool,
}

impl<'a> Row<'a> {
    fn new(catalog: &Catalog, item: &'a Item<'a>) -> Self {
        let class = item.class;
        let new = item.change.new_version().map(|new| {
            let packed = pack_new(catalog, class, &new);
            (new, packed)
        });
        let (replaced, number, reach) = match (&item.change, &new) {
            (Change::Update(replaced, _), Some((new, _))) => {
                (Some(replaced), new.number, reach(new.base))
            }
            (Change::Delete(replaced, number), _) => (Some(replaced), *number, reach_of_any(class)),
            // The others leave the versions before as they are.
            _ => (None, 0, 0),
        };
        let storage = new.as_ref().map(|(_, packed)| packed.storage);
        let also = replaced.map(|replaced| Also::of(catalog, class, replaced, storage));
        let oldest = class.keep.map(|keep| number - keep + 1);
        let prunes = also.is_some_and(|also| also.prunes);
        Self {
            item,
            new,
            pruning: oldest.filter(|_| prunes).map(|oldest| (oldest, reach)),
            moves: also.is_some_and(|also| also.moves),
        }
    }

    /// Whether the head row is to hold the document.
    fn is_in_head(&self) -> bool {
        let holder = self.new.as_ref().map(|(_, packed)| packed.holder());
        holder == Some(Holder::Head)
    }

    /// Whether a snapshot row is to hold the document.
    fn is_in_snapshot(&self) -> bool {
        self.new.is_some() && !self.is_in_head()
    }

    fn parameters(&self) -> [Parameter; WIDTH] {
        let Item { class, key, change } = self.item;
        let replaced = change.replaced();
        let version = replaced.map_or(0, |replaced| replaced.version + 1);
        let new = match (&self.new, change) {
            (Some((new, packed)), _) => new_version(class, key, new, packed),
            (None, Change::Touch(_, expires_at)) => {
                without_document(class, key, version, *expires_at)
            }
            (None, _) => without_document(class, key, version, i64::MAX),
        };
        let rest = [
            bigint(self.pruning.map(|(oldest, _)| oldest)),
            bigint(self.pruning.map(|(_, reach)| reach)),
            integer(change.kind()),
            boolean(self.is_in_head()),
            boolean(self.moves),
        ];
        let mut parameters: [Parameter; WIDTH] = join(&[&new, &rest]);
        if let Some(replaced) = replaced {
            let own = self.new.as_ref().map_or(0, |(new, _)| new.hash);
            let expires_at = replaced.expires_at.unwrap_or(ANY_EXPIRY);
            let mut conditions = own.to_be_bytes().to_vec();
            conditions.extend(expires_at.to_be_bytes());
            conditions.extend(replaced.hash.map(u128::to_be_bytes).iter().flatten());
            parameters[HASH] = bytea(Some(&conditions));
        }
        parameters
    }

    /// What it is once written.
    fn made(&self, version: i64) -> Made {
        match &self.new {
            Some((_, packed)) => Made {
                version,
                storage: packed.storage.written_newest(),
            },
            None => Made::without_document(version),
        }
    }
}

/// As [`new_version`], of a head row that gets no document; without its hash.
fn without_document(class: &Class, key: &[u8], version: i64, expires_at: i64) -> [Parameter; 13] {
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
    let alone = |version: Option<i64>| version.map(Made::without_document);
    match change {
        Change::Insert(new) => write::insert(catalog, class, key, new),
        Change::Update(replaced, new) => write::update(catalog, class, key, *replaced, new),
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
/// As for a single one.
pub fn write_many(catalog: &Catalog, items: &[Item<'_>]) -> Result<Vec<Wrote>> {
    let rows = collect(items.iter().map(|item| Row::new(catalog, item)))?;
    let is_known = |replaced: Option<Replaced>| replaced.is_none_or(|it| it.is_newest);
    let parts = Parts {
        inserts: rows.iter().any(Row::is_in_snapshot),
        moves: rows.iter().any(|row| row.moves),
        prunes: rows.iter().any(|row| row.pruning.is_some()),
        looks: !rows.iter().all(|row| is_known(row.item.change.replaced())),
    };
    let slot = &statements(catalog).0[parts.index()];
    let statement = || {
        let connection = Connection::open()?;
        let (types, values) = arrays(&rows)?;
        let statement = connection.prepare(slot, &catalog.schema, || sql(parts), &types)?;
        let _own = OwnWrite::begin();
        let _planning = LookUps::begin();
        let written = connection.modify(statement, values)?;
        wrote(&rows, &written)
    };
    let items = AssertUnwindSafe(items);
    unless_kept(statement, move |detail| {
        let items = &items;
        raced(items, detail)
    })
}

/// What was done about each, given the rows of the statement.
fn wrote(rows: &[Row<'_>], written: &Rows) -> Result<Vec<Wrote>> {
    let mut wrote = filled(Wrote::Nothing, rows.len())?;
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
    }
    Ok(wrote)
}

/// The error for a version of which there is a snapshot already that the statement does not see; which state it is
/// says the server's detail.
fn raced(items: &[Item<'_>], detail: &str) -> Error {
    let is_it = |item: &&Item<'_>| {
        let (class, key) = (error::text(&item.class.name), error::text(item.key));
        detail.contains(&format!("=({class}, {key}, "))
    };
    match items.iter().find(is_it).or(items.first()) {
        Some(item) => Error::Raced {
            state: Shown::new(&item.class.name, item.key),
        },
        None => Error::Internal {
            message: "a snapshot is in the way".to_owned(),
        },
    }
}

/// The columns of the rows as arrays: their types and values.
fn arrays(rows: &[Row<'_>]) -> Result<([pg_sys::Oid; WIDTH], [Option<pg_sys::Datum>; WIDTH])> {
    let mut types = [pg_sys::InvalidOid; WIDTH];
    let mut columns: [Vec<Option<pg_sys::Datum>>; WIDTH] = std::array::from_fn(|_| Vec::new());
    for column in &mut columns {
        column.try_room(rows.len())?;
    }
    for row in rows {
        for (n, (of_type, value)) in row.parameters().into_iter().enumerate() {
            types[n] = of_type;
            columns[n].push(value);
        }
    }
    let mut values = [None; WIDTH];
    for (n, column) in columns.into_iter().enumerate() {
        // SAFETY: the values are of the column's type, and used no more.
        (types[n], values[n]) = unsafe { array(types[n], column)? };
    }
    Ok((types, values))
}

/// An array of these values, and its type. The values are freed.
///
/// # Safety
/// The values are of that type, each allocated by itself if the type is passed by reference, and not used again.
unsafe fn array(
    of_type: pg_sys::Oid,
    values: Vec<Option<pg_sys::Datum>>,
) -> Result<(pg_sys::Oid, Option<pg_sys::Datum>)> {
    let mut nulls = collect(values.iter().map(Option::is_none))?;
    let datum = |value: &Option<pg_sys::Datum>| value.unwrap_or(pg_sys::Datum::from(0usize));
    let mut datums = collect(values.iter().map(datum))?;
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
        Ok((
            pg_sys::get_array_type(of_type),
            Some(pg_sys::Datum::from(array)),
        ))
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

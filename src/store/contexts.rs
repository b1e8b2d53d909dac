//! The tables that hold what a run's document cannot: its place in the hierarchy and who owns it.

use super::changes::write;
use super::own_write::OwnWrite;
use super::spi::{Connection, Row, Rows, Statement};
use crate::call::{bigint_datum, varlena_datum};
use crate::catalog::Catalog;
use crate::error::Result;
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use state_cache_context::{Label, Status};
use state_cache_memory::collect;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    lock_place: [OnceCell<Statement>; 3],
    put_place: OnceCell<Statement>,
    set_base: OnceCell<Statement>,
    children: OnceCell<Statement>,
    base_version: OnceCell<Statement>,
    count_children: OnceCell<Statement>,
    subtree: OnceCell<Statement>,
    delete_place: OnceCell<Statement>,
    delete_children: OnceCell<Statement>,
    delete_claim: OnceCell<Statement>,
    claim: OnceCell<Statement>,
    lock_claim: [OnceCell<Statement>; 2],
    take_claim: OnceCell<Statement>,
    renew_claim: OnceCell<Statement>,
    release_claim: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// Where a run stands in the hierarchy.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The run that it is a child of.
    pub parent: Option<Box<[u8]>>,
    /// Steps to the root.
    pub depth: i32,
    /// Version that the next merge into the parent compares with.
    pub base_version: i64,
    /// Values that the parent had then of variables of which the run had others: an object, null for none.
    pub parent_base: Option<Vec<u8>>,
    /// Records of variables that were exported to the parent since, which it compares with instead: an object.
    pub handed_on: Option<Vec<u8>>,
}

impl Place {
    fn of(row: &Row<'_>) -> Self {
        Self {
            parent: row.column(1).map(|_| row.text(1)),
            depth: row.bigint(2) as i32,
            base_version: row.bigint(3),
            parent_base: row.bytes(4),
            handed_on: row.bytes(5),
        }
    }
}

/// How a run's place is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceLock {
    /// It neither ends nor goes while this is held.
    Stays,
    /// Beside that, no other transaction adds a child.
    Branches,
    /// Nobody else holds a lock on it.
    Ends,
}

impl PlaceLock {
    const fn clause(self) -> &'static str {
        match self {
            Self::Stays => "FOR KEY SHARE",
            Self::Branches => "FOR NO KEY UPDATE",
            Self::Ends => "FOR UPDATE",
        }
    }
}

const PLACE: &str = "SELECT parent_run_id, depth::pg_catalog.int8, base_version, parent_base, handed_on \
     FROM @extschema@.state_context WHERE run_id OPERATOR(pg_catalog.=) $1";

/// Locks the place of a run until the transaction ends, if it has one.
pub fn lock_place(catalog: &Catalog, run: &[u8], lock: PlaceLock) -> Result<Option<Place>> {
    let connection = Connection::open()?;
    let slot = &statements(catalog).lock_place[lock as usize];
    let statement = connection.prepare(
        slot,
        &catalog.schema,
        || format!("{PLACE} {}", lock.clause()),
        &[pg_sys::TEXTOID],
    )?;
    let _own = OwnWrite::begin();
    let rows = connection.modify(statement, [Some(varlena_datum(run))])?;
    Ok(rows.first().as_ref().map(Place::of))
}

/// Gives a run a place, in place of one that a run of the same name had which is gone.
pub fn put_place(catalog: &Catalog, run: &[u8], place: &Place) -> Result<()> {
    write(
        catalog,
        &statements(catalog).put_place,
        "INSERT INTO @extschema@.state_context AS c (run_id, parent_run_id, depth, base_version, parent_base) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (run_id) DO UPDATE SET parent_run_id = excluded.parent_run_id, \
         depth = excluded.depth, base_version = excluded.base_version, parent_base = excluded.parent_base, \
         handed_on = NULL, created_at = excluded.created_at",
        [
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::INT4OID,
            pg_sys::INT8OID,
            pg_sys::JSONBOID,
        ],
        [
            Some(varlena_datum(run)),
            place.parent.as_deref().map(varlena_datum),
            Some(pg_sys::Datum::from(place.depth)),
            Some(bigint_datum(place.base_version)),
            place.parent_base.as_deref().map(varlena_datum),
        ],
    )?;
    Ok(())
}

/// Notes what the next merge of a run compares with: the base of its place.
pub fn set_base(catalog: &Catalog, run: &[u8], place: &Place) -> Result<()> {
    write(
        catalog,
        &statements(catalog).set_base,
        "UPDATE @extschema@.state_context SET base_version = $2, parent_base = $3, handed_on = $4 \
         WHERE run_id OPERATOR(pg_catalog.=) $1",
        [
            pg_sys::TEXTOID,
            pg_sys::INT8OID,
            pg_sys::JSONBOID,
            pg_sys::JSONBOID,
        ],
        [
            Some(varlena_datum(run)),
            Some(bigint_datum(place.base_version)),
            place.parent_base.as_deref().map(varlena_datum),
            place.handed_on.as_deref().map(varlena_datum),
        ],
    )?;
    Ok(())
}

/// The children of a run, those that have ended included.
pub fn children(catalog: &Catalog, run: &[u8]) -> Result<Vec<Box<[u8]>>> {
    const SQL: &str = "SELECT run_id FROM @extschema@.state_context \
         WHERE parent_run_id OPERATOR(pg_catalog.=) $1 ORDER BY run_id";
    let connection = Connection::open()?;
    let slot = &statements(catalog).children;
    let statement =
        connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &[pg_sys::TEXTOID])?;
    let rows = connection.query(statement, [Some(varlena_datum(run))])?;
    Ok(collect(rows.iter().map(|row| row.text(1)))?)
}

/// How many children a run has, those that have ended included; not counted beyond `most`.
pub fn count_children(catalog: &Catalog, run: &[u8], most: i64) -> Result<i64> {
    const SQL: &str = "SELECT pg_catalog.count(*) FROM (SELECT FROM @extschema@.state_context \
         WHERE parent_run_id OPERATOR(pg_catalog.=) $1 LIMIT $2) c";
    let connection = Connection::open()?;
    let slot = &statements(catalog).count_children;
    let types = [pg_sys::TEXTOID, pg_sys::INT8OID];
    let statement = connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &types)?;
    let rows = connection.query(
        statement,
        [Some(varlena_datum(run)), Some(bigint_datum(most))],
    )?;
    Ok(rows.first().map_or(0, |row| row.bigint(1)))
}

/// The version that the next merge of a run compares with, if it has a place.
pub fn base_version(catalog: &Catalog, run: &[u8]) -> Result<Option<i64>> {
    const SQL: &str = "SELECT base_version FROM @extschema@.state_context \
         WHERE run_id OPERATOR(pg_catalog.=) $1";
    let connection = Connection::open()?;
    let slot = &statements(catalog).base_version;
    let statement =
        connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &[pg_sys::TEXTOID])?;
    let rows = connection.query(statement, [Some(varlena_datum(run))])?;
    Ok(rows.first().map(|row| row.bigint(1)))
}

/// A run of a hierarchy.
pub struct Node {
    /// Its id.
    pub run: Box<[u8]>,
    /// The run that it is a child of.
    pub parent: Option<Box<[u8]>>,
    /// Steps to the run that was asked for.
    pub depth: i32,
    /// Who has claimed it, also where the lease is over.
    pub owner: Option<Box<[u8]>>,
    /// When it was created; `None` for a run without a place.
    pub created_at: Option<i64>,
}

/// A run and all below it, parents before their children and those in the order of their creation.
pub fn subtree(catalog: &Catalog, run: &[u8]) -> Result<Vec<Node>> {
    const SQL: &str = "WITH RECURSIVE tree AS (\
         SELECT r.run_id, c.parent_run_id, 0 AS depth, c.created_at, ARRAY[]::pg_catalog.timestamptz[] AS \
         path_times, \
         ARRAY[]::pg_catalog.text[] COLLATE pg_catalog.\"C\" AS path \
         FROM (VALUES ($1 COLLATE pg_catalog.\"C\")) r (run_id) LEFT JOIN @extschema@.state_context c ON c.run_id \
         OPERATOR(pg_catalog.=) r.run_id \
         UNION ALL \
         SELECT c.run_id, c.parent_run_id, t.depth OPERATOR(pg_catalog.+) 1, c.created_at, \
         t.path_times OPERATOR(pg_catalog.||) c.created_at, t.path OPERATOR(pg_catalog.||) c.run_id \
         FROM tree t JOIN @extschema@.state_context c ON c.parent_run_id OPERATOR(pg_catalog.=) t.run_id \
         WHERE c.run_id OPERATOR(pg_catalog.<>) $1 AND c.run_id OPERATOR(pg_catalog.<>) ALL (t.path)) \
         SELECT t.run_id, t.parent_run_id, t.depth::pg_catalog.int8, o.owner, t.created_at FROM tree t \
         LEFT JOIN @extschema@.state_claim o ON o.run_id OPERATOR(pg_catalog.=) t.run_id \
         ORDER BY t.path_times, t.path";
    let connection = Connection::open()?;
    let slot = &statements(catalog).subtree;
    let statement =
        connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &[pg_sys::TEXTOID])?;
    let rows = connection.query(statement, [Some(varlena_datum(run))])?;
    let nodes = rows.iter().map(|row| Node {
        run: row.text(1),
        parent: row.column(2).map(|_| row.text(2)),
        depth: row.bigint(3) as i32,
        owner: row.column(4).map(|_| row.text(4)),
        created_at: row.column(5).map(|at| at.value() as i64),
    });
    Ok(collect(nodes)?)
}

/// Deletes the places of the children of a run that is gone: another of the same name does not inherit them.
pub fn delete_children(catalog: &Catalog, run: &[u8]) -> Result<()> {
    write(
        catalog,
        &statements(catalog).delete_children,
        "DELETE FROM @extschema@.state_context WHERE parent_run_id OPERATOR(pg_catalog.=) $1",
        [pg_sys::TEXTOID],
        [Some(varlena_datum(run))],
    )?;
    Ok(())
}

/// Deletes the place and the claim of a run that is gone; the conflicts that it waits for are abandoned.
pub fn delete_place(catalog: &Catalog, run: &[u8]) -> Result<()> {
    super::abandon_conflicts(catalog, run)?;
    let run = Some(varlena_datum(run));
    write(
        catalog,
        &statements(catalog).delete_place,
        "DELETE FROM @extschema@.state_context WHERE run_id OPERATOR(pg_catalog.=) $1",
        [pg_sys::TEXTOID],
        [run],
    )?;
    write(
        catalog,
        &statements(catalog).delete_claim,
        "DELETE FROM @extschema@.state_claim WHERE run_id OPERATOR(pg_catalog.=) $1",
        [pg_sys::TEXTOID],
        [run],
    )?;
    Ok(())
}

/// Who owns a run.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Its token; the next claim has a greater one.
    pub token: i64,
    /// The owner, `None` once it has released the run.
    pub owner: Option<Box<[u8]>>,
    /// Until when nobody else can claim the run.
    pub expires_at: i64,
    /// How far the run is.
    pub status: Status,
}

fn claim_of(rows: &Rows) -> Option<Claim> {
    rows.first().map(|row| Claim {
        token: row.bigint(1),
        owner: row.column(2).map(|_| row.text(2)),
        expires_at: row.bigint(3),
        // The column holds what such a word was written as.
        status: Status::parse(&row.text(4)).unwrap_or(Status::Running),
    })
}

const CLAIM_COLUMNS: &str = "token, owner, expires_at, status";

const CLAIM: &str = "SELECT token, owner, expires_at, status FROM @extschema@.state_claim \
     WHERE run_id OPERATOR(pg_catalog.=) $1";

/// The claim on a run under the active snapshot.
pub fn claim(catalog: &Catalog, run: &[u8]) -> Result<Option<Claim>> {
    let connection = Connection::open()?;
    let slot = &statements(catalog).claim;
    let statement = connection.prepare(
        slot,
        &catalog.schema,
        || CLAIM.to_owned(),
        &[pg_sys::TEXTOID],
    )?;
    let rows = connection.query(statement, [Some(varlena_datum(run))])?;
    Ok(claim_of(&rows))
}

/// How a claim is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimLock {
    /// Nobody can take it over. It can be renewed, since the token, which is part of a unique index, does not change
    /// by that.
    Shared,
    /// Nobody else holds a lock on it.
    Alone,
}

impl ClaimLock {
    pub(super) const fn clause(self) -> &'static str {
        match self {
            Self::Shared => "FOR KEY SHARE",
            Self::Alone => "FOR UPDATE",
        }
    }
}

/// The claim on a run, locked until the transaction ends.
pub fn lock_claim(catalog: &Catalog, run: &[u8], lock: ClaimLock) -> Result<Option<Claim>> {
    let connection = Connection::open()?;
    let slot = &statements(catalog).lock_claim[lock as usize];
    let statement = connection.prepare(
        slot,
        &catalog.schema,
        || format!("{CLAIM} {}", lock.clause()),
        &[pg_sys::TEXTOID],
    )?;
    let _own = OwnWrite::begin();
    let rows = connection.modify(statement, [Some(varlena_datum(run))])?;
    Ok(claim_of(&rows))
}

/// Claims a run that nobody else holds and that has a row; `None` if there is no such. The token is drawn once the
/// row is locked, so that no claim that came before this one has a greater.
pub fn take_claim(
    catalog: &Catalog,
    run: &[u8],
    owner: &[u8],
    lease: &pg_sys::Interval,
) -> Result<Option<Claim>> {
    let sql = || {
        format!(
            "UPDATE @extschema@.state_claim SET token = DEFAULT, owner = $2, \
             expires_at = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) $3, \
             claimed_at = pg_catalog.clock_timestamp() \
             WHERE run_id OPERATOR(pg_catalog.=) $1 AND (owner IS NULL OR owner OPERATOR(pg_catalog.=) $2 \
             OR expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()) RETURNING {CLAIM_COLUMNS}"
        )
    };
    let connection = Connection::open()?;
    let types = [pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::INTERVALOID];
    let slot = &statements(catalog).take_claim;
    let statement = connection.prepare(slot, &catalog.schema, sql, &types)?;
    let _own = OwnWrite::begin();
    let rows = connection.modify(
        statement,
        [
            Some(varlena_datum(run)),
            Some(varlena_datum(owner)),
            Some(pg_sys::Datum::from(std::ptr::from_ref(lease))),
        ],
    )?;
    Ok(claim_of(&rows))
}

/// Prolongs a claim, also one whose lease is over as long as nobody has taken the run; `None` if it is not the
/// current one.
pub fn renew_claim(
    catalog: &Catalog,
    run: &[u8],
    token: i64,
    lease: &pg_sys::Interval,
) -> Result<Option<Claim>> {
    const SQL: &str = "UPDATE @extschema@.state_claim \
         SET expires_at = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) $3 \
         WHERE run_id OPERATOR(pg_catalog.=) $1 AND token OPERATOR(pg_catalog.=) $2 AND owner IS NOT NULL \
         RETURNING token, owner, expires_at, status";
    let connection = Connection::open()?;
    let slot = &statements(catalog).renew_claim;
    let statement = connection.prepare(
        slot,
        &catalog.schema,
        || SQL.to_owned(),
        &[pg_sys::TEXTOID, pg_sys::INT8OID, pg_sys::INTERVALOID],
    )?;
    let _own = OwnWrite::begin();
    let rows = connection.modify(
        statement,
        [
            Some(varlena_datum(run)),
            Some(bigint_datum(token)),
            Some(pg_sys::Datum::from(std::ptr::from_ref(lease))),
        ],
    )?;
    Ok(claim_of(&rows))
}

/// Gives a claim up; whether it was the current one.
pub fn release_claim(catalog: &Catalog, run: &[u8], token: i64) -> Result<bool> {
    let released = write(
        catalog,
        &statements(catalog).release_claim,
        "UPDATE @extschema@.state_claim SET owner = NULL, expires_at = pg_catalog.clock_timestamp() \
         WHERE run_id OPERATOR(pg_catalog.=) $1 AND token OPERATOR(pg_catalog.=) $2 AND owner IS NOT NULL \
         RETURNING token",
        [pg_sys::TEXTOID, pg_sys::INT8OID],
        [Some(varlena_datum(run)), Some(bigint_datum(token))],
    )?;
    Ok(released > 0)
}

//! What lists of runs and the queue of waiting runs are read from: the rows of `state_claim`.
//!
//! # Contract
//!
//! There is one row for each state of class `run` whose document is that of a run, whether the run was made by
//! `state_context_create` or by `state_set`. The row repeats what the document says ([`Listed`]), and beside that it
//! holds the claim.
//!
//! **Who changes what.** Whoever writes a version of a run writes the row in the same transaction, if what the row
//! repeats has changed; no other write of a run touches the row, so a step of a run costs what a step of any state
//! costs, and updates of `state_head` stay HOT. Whether it has changed is seen from the document before, which the
//! writer has at hand where it stores a difference; else the row is looked up. A delete takes the row with it
//! (`delete_place`). A change by hand of `state_head` or `state_snapshot` is followed up before the commit
//! ([`follow`], [`follow_all`]): until then the rows are as they were. So under any snapshot the row and the state
//! tell the same, but for what the transaction itself has changed by hand.
//!
//! **Locks.** A claim locks the row before anything else. The write of a version locks the row after the head row,
//! but only where the row changes: then whoever ends a run by a function has locked the claim before, and for the
//! others PostgreSQL ends a deadlock with 40P01. [`take_waiting`] waits for nobody.
//!
//! **Errors** leave everything as it was: each step is one statement. The rows are written as their owner.

use super::changes::write;
use super::own_write::OwnWrite;
use super::read::{Content, Stored, read, target};
use super::spi::{Connection, Row, Statement};
use crate::call::{bigint_datum, varlena_datum};
use crate::catalog::{Catalog, Class};
use crate::error::Result;
use crate::identity::Impersonation;
use crate::snapshot::PushedSnapshot;
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use state_cache_context::{Label, Listed, Status, listed};
use state_cache_memory::collect;

/// The class of runs.
const RUN: &[u8] = b"run";

/// Forms of the statement that reads a list, see [`Filter::form`].
const FORMS: usize = 48;

/// Rows that a walk looks at before it asks for more.
const PAGE: i64 = 500;

/// The most rows of a list, or of the queue, that are read by one statement. It is written into the statement: of a
/// LIMIT that it does not know the planner takes it that much is wanted, and sorts.
const AT_A_TIME: usize = 100;

/// The prepared statements of this file.
struct Statements {
    put: OnceCell<Statement>,
    delete: OnceCell<Statement>,
    delete_gone: OnceCell<Statement>,
    heads: OnceCell<Statement>,
    head: OnceCell<Statement>,
    row: OnceCell<Statement>,
    list: [OnceCell<Statement>; FORMS],
    waiting: [OnceCell<Statement>; 3],
    lock_waiting: OnceCell<Statement>,
    lock_place: OnceCell<Statement>,
}

impl Default for Statements {
    fn default() -> Self {
        Self {
            put: OnceCell::new(),
            delete: OnceCell::new(),
            delete_gone: OnceCell::new(),
            heads: OnceCell::new(),
            head: OnceCell::new(),
            row: OnceCell::new(),
            list: [const { OnceCell::new() }; FORMS],
            waiting: [const { OnceCell::new() }; 3],
            lock_waiting: OnceCell::new(),
            lock_place: OnceCell::new(),
        }
    }
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// A version of a state was written whose document follows `base`, if that is known: what lists show of it changes
/// with it. `close` is called before a statement runs for that.
pub(super) fn follow_version(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    document: &[u8],
    base: Before<'_>,
    close: impl FnOnce(),
) -> Result<()> {
    if *class.name != *RUN {
        return Ok(());
    }
    let now = listed(document, key)?;
    let is_known = match base {
        Before::Nothing => now.is_none(),
        Before::Document(base) => listed(base, key)? == now,
        Before::Unknown => false,
    };
    if is_known {
        return Ok(());
    }
    close();
    put_or_delete(catalog, key, now.as_ref())
}

/// What was there before a version that is written.
#[derive(Clone, Copy)]
pub(super) enum Before<'a> {
    /// No state.
    Nothing,
    /// This document.
    Document(&'a [u8]),
    /// Something.
    Unknown,
}

/// Makes the row of a state as its document says, `None` for one that is no run.
fn put_or_delete(catalog: &Catalog, run: &[u8], now: Option<&Listed>) -> Result<()> {
    let _owner = Impersonation::owner_of(catalog.context);
    match now {
        Some(now) => put_run(catalog, run, now),
        None => delete_run(catalog, run),
    }
}

/// Makes the row of a run tell what its document says; a row that does so is left alone. OFFSET 0 keeps the planner,
/// which knows nothing of a table that fills, from looking for the row by its status.
pub fn put_run(catalog: &Catalog, run: &[u8], now: &Listed) -> Result<()> {
    let text = |text: &Option<Vec<u8>>| text.as_deref().map(varlena_datum);
    write(
        catalog,
        &statements(catalog).put,
        "INSERT INTO @extschema@.state_claim AS c \
         (run_id, token, status, parent_run_id, swarm_id, routine_id, step) \
         SELECT $1, 0, $2, $3, $4, $5, $6 WHERE NOT EXISTS (SELECT FROM (SELECT * FROM @extschema@.state_claim r \
         WHERE r.run_id OPERATOR(pg_catalog.=) $1 OFFSET 0) s WHERE s.status OPERATOR(pg_catalog.=) $2 \
         AND COALESCE(s.parent_run_id, '') OPERATOR(pg_catalog.=) COALESCE($3, '') \
         AND COALESCE(s.swarm_id, '') OPERATOR(pg_catalog.=) COALESCE($4, '') \
         AND COALESCE(s.routine_id, '') OPERATOR(pg_catalog.=) COALESCE($5, '') \
         AND COALESCE(s.step, '') OPERATOR(pg_catalog.=) COALESCE($6, '')) \
         ON CONFLICT (run_id) DO UPDATE SET status = excluded.status, parent_run_id = excluded.parent_run_id, \
         swarm_id = excluded.swarm_id, routine_id = excluded.routine_id, step = excluded.step",
        [pg_sys::TEXTOID; 6],
        [
            Some(varlena_datum(run)),
            Some(varlena_datum(now.status.name().as_bytes())),
            text(&now.parent),
            text(&now.swarm),
            text(&now.routine),
            text(&now.step),
        ],
    )?;
    Ok(())
}

fn delete_run(catalog: &Catalog, run: &[u8]) -> Result<()> {
    write(
        catalog,
        &statements(catalog).delete,
        "DELETE FROM @extschema@.state_claim WHERE run_id OPERATOR(pg_catalog.=) $1",
        [pg_sys::TEXTOID],
        [Some(varlena_datum(run))],
    )?;
    Ok(())
}

/// A run was changed by hand: its row is made as the document says that is there now. Where the document is not
/// intact, or there is no head row that could have been deleted (`may_be_gone`), the row stays: a restore brings the
/// rows of the tables in any order.
pub fn follow(catalog: &Catalog, run: &[u8], may_be_gone: bool) -> Result<()> {
    let class = catalog.class_or_default(RUN)?;
    let now = {
        let _owner = Impersonation::owner_of(catalog.head);
        let _snapshot = PushedSnapshot::latest();
        match target(catalog, RUN, run)? {
            None if !may_be_gone => return Ok(()),
            None => None,
            Some(head) if head.deleted => None,
            Some(_) => match read(catalog, &class, run)? {
                Some(Stored {
                    content: Content::Intact(document),
                    ..
                }) => listed(&document.bytes, run)?,
                _ => return Ok(()),
            },
        }
    };
    put_or_delete(catalog, run, now.as_ref())
}

/// The same where any run may have been changed by hand, and head rows may be gone or not.
pub fn follow_all(catalog: &Catalog, may_be_gone: bool) -> Result<()> {
    if may_be_gone {
        let _owner = Impersonation::owner_of(catalog.context);
        write(
            catalog,
            &statements(catalog).delete_gone,
            "DELETE FROM @extschema@.state_claim c WHERE NOT EXISTS (SELECT FROM @extschema@.state_head h \
             WHERE h.class OPERATOR(pg_catalog.=) 'run' AND h.key OPERATOR(pg_catalog.=) c.run_id \
             AND NOT h.deleted)",
            [],
            [],
        )?;
    }
    let mut after: Box<[u8]> = Box::default();
    loop {
        let keys = heads_after(catalog, &after)?;
        let Some(last) = keys.last() else {
            return Ok(());
        };
        after = last.clone();
        for key in &keys {
            follow(catalog, key, false)?;
        }
    }
}

/// The next keys of class `run` that are not deleted.
fn heads_after(catalog: &Catalog, after: &[u8]) -> Result<Vec<Box<[u8]>>> {
    const SQL: &str = "SELECT key FROM @extschema@.state_head WHERE class OPERATOR(pg_catalog.=) 'run' \
         AND key OPERATOR(pg_catalog.>) $1 AND NOT deleted ORDER BY key LIMIT $2";
    let _owner = Impersonation::owner_of(catalog.head);
    let _snapshot = PushedSnapshot::latest();
    let connection = Connection::open()?;
    let types = [pg_sys::TEXTOID, pg_sys::INT8OID];
    let slot = &statements(catalog).heads;
    let statement = connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &types)?;
    let arguments = [Some(varlena_datum(after)), Some(bigint_datum(PAGE))];
    let rows = connection.query(statement, arguments)?;
    Ok(collect(rows.iter().map(|row| row.text(1)))?)
}

/// While it lives, what is planned is read from an index in its order. Of a table that nobody has analysed yet the
/// planner takes it that little is in it, and that sorting all of it costs nothing.
struct InOrder([bool; 3]);

impl InOrder {
    /// From here on.
    fn begin() -> Self {
        // SAFETY: plain globals of this process, put back by `drop`.
        unsafe {
            Self([
                (&raw mut pg_sys::enable_bitmapscan).replace(false),
                (&raw mut pg_sys::enable_seqscan).replace(false),
                (&raw mut pg_sys::enable_sort).replace(false),
            ])
        }
    }
}

impl Drop for InOrder {
    fn drop(&mut self) {
        // SAFETY: as in `begin`.
        unsafe {
            [
                pg_sys::enable_bitmapscan,
                pg_sys::enable_seqscan,
                pg_sys::enable_sort,
            ] = self.0;
        }
    }
}

/// Which runs a list shows; what is `None` does not matter.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// Those of this status.
    pub status: Option<Status>,
    /// Those of this swarm.
    pub swarm: Option<&'a [u8]>,
    /// The children of this run.
    pub parent: Option<&'a [u8]>,
    /// Those that this owner was the last to claim.
    pub owner: Option<&'a [u8]>,
    /// Those whose claim is in force, or the others.
    pub claimed: Option<bool>,
}

/// Whether the claim of row `c` is in force.
const CLAIMED: &str = "c.owner IS NOT NULL AND c.status OPERATOR(pg_catalog.=) 'running' \
     AND c.expires_at OPERATOR(pg_catalog.>) pg_catalog.statement_timestamp()";

/// The columns of [`ListedRun`].
const COLUMNS: &str =
    "c.run_id, c.parent_run_id, c.status, c.owner, c.expires_at, c.step, c.created_at, c.swarm_id";

impl Filter<'_> {
    /// Which statement reads the list: one for each set of conditions, each planned for the index that it needs.
    fn form(&self) -> usize {
        let claimed = match self.claimed {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        };
        let given = [
            self.status.is_some(),
            self.swarm.is_some(),
            self.parent.is_some(),
            self.owner.is_some(),
        ];
        let given = given
            .iter()
            .fold(0, |bits, given| 2 * bits + usize::from(*given));
        16 * claimed + given
    }

    /// The statement: $1 to $4 are status, swarm, parent and owner, $5 and $6 the place behind which the page begins.
    fn sql(&self) -> String {
        let mut conditions = String::new();
        let mut add = |condition: &str| {
            conditions.push_str(" AND ");
            conditions.push_str(condition);
        };
        if self.swarm.is_some() {
            add("c.swarm_id OPERATOR(pg_catalog.=) $2");
        }
        if self.parent.is_some() {
            add("c.parent_run_id OPERATOR(pg_catalog.=) $3");
        }
        if self.owner.is_some() {
            add("c.owner OPERATOR(pg_catalog.=) $4");
        }
        match self.claimed {
            None => {}
            Some(true) => add(CLAIMED),
            Some(false) => add(&format!("NOT ({CLAIMED})")),
        }
        let part = |status: Option<&str>| {
            let status =
                status.map(|status| format!(" AND c.status OPERATOR(pg_catalog.=) {status}"));
            format!(
                "(SELECT {COLUMNS} FROM @extschema@.state_claim c \
                 WHERE ROW(c.created_at, c.run_id) OPERATOR(pg_catalog.<) ROW($5, $6){conditions}{} \
                 ORDER BY c.created_at DESC, c.run_id DESC LIMIT {AT_A_TIME})",
                status.unwrap_or_default()
            )
        };
        if self.status.is_some() {
            return part(Some("$1"));
        }
        // Their indexes need no status.
        if self.parent.is_some() || self.claimed == Some(true) {
            return part(None);
        }
        let parts: Vec<_> = Status::ALL
            .iter()
            .map(|status| part(Some(&format!("'{}'", status.name()))))
            .collect();
        format!(
            "SELECT * FROM ({}) c ORDER BY c.created_at DESC, c.run_id DESC LIMIT {AT_A_TIME}",
            parts.join(" UNION ALL ")
        )
    }
}

/// A place in the order of a list, newest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListPlace {
    /// When the run was first written.
    pub created_at: i64,
    /// Its name.
    pub run: Box<[u8]>,
}

/// A row that a list may show.
#[derive(Debug)]
pub struct ListedRun {
    /// Where it stands.
    pub place: ListPlace,
    /// What the document says; the routine is not looked at.
    pub listed: Listed,
    /// Who was the last to claim it, unless it was released.
    pub owner: Option<Box<[u8]>>,
    /// Until when nobody else can claim it.
    pub expires_at: i64,
}

impl ListedRun {
    fn of(row: &Row<'_>) -> Self {
        let text = |n| row.column(n).map(|_| row.text(n).into_vec());
        Self {
            place: ListPlace {
                run: row.text(1),
                created_at: row.bigint(7),
            },
            listed: Listed {
                parent: text(2),
                // The column holds what such a word was written as.
                status: Status::parse(&row.text(3)).unwrap_or(Status::Running),
                swarm: text(8),
                routine: None,
                step: text(6),
            },
            owner: row.column(4).map(|_| row.text(4)),
            expires_at: row.bigint(5),
        }
    }
}

/// Up to `most` rows behind a place, as their owner and under the active snapshot, and whether there may be more.
pub fn list_runs(
    catalog: &Catalog,
    filter: &Filter<'_>,
    after: &ListPlace,
    most: usize,
) -> Result<(Vec<ListedRun>, bool)> {
    let _owner = Impersonation::owner_of(catalog.context);
    let connection = Connection::open()?;
    let slot = &statements(catalog).list[filter.form()];
    let text = pg_sys::TEXTOID;
    let types = [text, text, text, text, pg_sys::TIMESTAMPTZOID, text];
    let statement = connection.prepare(slot, &catalog.schema, || filter.sql(), &types)?;
    let status = filter.status.map(|status| status.name().as_bytes());
    let most = most.min(AT_A_TIME);
    let _in_order = InOrder::begin();
    let rows = connection.query_some(
        statement,
        [
            status.map(varlena_datum),
            filter.swarm.map(varlena_datum),
            filter.parent.map(varlena_datum),
            filter.owner.map(varlena_datum),
            Some(bigint_datum(after.created_at)),
            Some(varlena_datum(&after.run)),
        ],
        most as std::ffi::c_long,
    )?;
    let rows = collect(rows.iter().map(|row| ListedRun::of(&row)))?;
    let has_more = rows.len() == most;
    Ok((rows, has_more))
}

/// The row of one run, as its owner and under the active snapshot.
pub fn listed_run(catalog: &Catalog, run: &[u8]) -> Result<Option<ListedRun>> {
    let _owner = Impersonation::owner_of(catalog.context);
    let connection = Connection::open()?;
    let slot = &statements(catalog).row;
    let sql = || {
        format!(
            "SELECT {COLUMNS} FROM @extschema@.state_claim c WHERE c.run_id OPERATOR(pg_catalog.=) $1"
        )
    };
    let statement = connection.prepare(slot, &catalog.schema, sql, &[pg_sys::TEXTOID])?;
    let rows = connection.query(statement, [Some(varlena_datum(run))])?;
    Ok(rows.first().map(|row| ListedRun::of(&row)))
}

/// Version of a state of class `run`, and when it was written, as the current role sees it under the active snapshot;
/// `None` where there is none, or none any more.
pub fn run_head(catalog: &Catalog, run: &[u8]) -> Result<Option<(i64, i64)>> {
    const SQL: &str = "SELECT version, updated_at FROM @extschema@.state_head \
         WHERE class OPERATOR(pg_catalog.=) 'run' AND key OPERATOR(pg_catalog.=) $1 AND NOT deleted \
         AND (expires_at IS NULL OR expires_at OPERATOR(pg_catalog.>) pg_catalog.statement_timestamp())";
    let connection = Connection::open()?;
    let slot = &statements(catalog).head;
    let statement =
        connection.prepare(slot, &catalog.schema, || SQL.to_owned(), &[pg_sys::TEXTOID])?;
    let rows = connection.query(statement, [Some(varlena_datum(run))])?;
    Ok(rows.first().map(|row| (row.bigint(1), row.bigint(2))))
}

/// A run that waits, and since when.
pub struct Waiting {
    /// The run.
    pub run: Box<[u8]>,
    /// Since when anybody could claim it.
    pub since: i64,
}

/// Runs that wait at the time `now`, those first that wait longest, behind `after`; of a swarm, or of a routine, or
/// both. Not all at once: more may follow those that come.
pub fn waiting_runs(
    catalog: &Catalog,
    (swarm, routine): (Option<&[u8]>, Option<&[u8]>),
    now: i64,
    after: &Waiting,
) -> Result<Vec<Waiting>> {
    let condition = match (swarm, routine) {
        (None, None) => "",
        (Some(_), None) => " AND swarm_id OPERATOR(pg_catalog.=) $4",
        (_, Some(_)) => {
            " AND routine_id OPERATOR(pg_catalog.=) $5 AND ($4 IS NULL OR swarm_id OPERATOR(pg_catalog.=) $4)"
        }
    };
    let form = usize::from(swarm.is_some()).max(2 * usize::from(routine.is_some()));
    let sql = || {
        format!(
            "SELECT run_id, expires_at FROM @extschema@.state_claim \
             WHERE status OPERATOR(pg_catalog.=) 'running' AND expires_at OPERATOR(pg_catalog.<=) $1 \
             AND ROW(expires_at, run_id) OPERATOR(pg_catalog.>) ROW($2, $3){condition} \
             ORDER BY expires_at, run_id LIMIT {AT_A_TIME}"
        )
    };
    let _owner = Impersonation::owner_of(catalog.context);
    let connection = Connection::open()?;
    let (time, text) = (pg_sys::TIMESTAMPTZOID, pg_sys::TEXTOID);
    let types = [time, time, text, text, text];
    let slot = &statements(catalog).waiting[form];
    let statement = connection.prepare(slot, &catalog.schema, sql, &types)?;
    let _in_order = InOrder::begin();
    let rows = connection.query(
        statement,
        [
            Some(bigint_datum(now)),
            Some(bigint_datum(after.since)),
            Some(varlena_datum(&after.run)),
            swarm.map(varlena_datum),
            routine.map(varlena_datum),
        ],
    )?;
    let waiting = rows.iter().map(|row| Waiting {
        run: row.text(1),
        since: row.bigint(2),
    });
    Ok(collect(waiting)?)
}

/// Locks the row of a run that waits, and its place if it has one; whether that was possible at once. COALESCE, which
/// changes nothing, keeps the planner from looking for the row by its status.
pub fn lock_waiting_run(catalog: &Catalog, run: &[u8]) -> Result<bool> {
    const ROW: &str = "SELECT run_id FROM @extschema@.state_claim WHERE run_id OPERATOR(pg_catalog.=) $1 \
         AND COALESCE(status, '') OPERATOR(pg_catalog.=) 'running' \
         AND (owner IS NULL OR expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()) \
         FOR UPDATE SKIP LOCKED";
    const PLACE: &str = "SELECT run_id FROM @extschema@.state_context WHERE run_id OPERATOR(pg_catalog.=) $1 \
         FOR KEY SHARE SKIP LOCKED";
    let _owner = Impersonation::owner_of(catalog.context);
    let connection = Connection::open()?;
    let lock = |slot, sql: &str| -> Result<bool> {
        let statement =
            connection.prepare(slot, &catalog.schema, || sql.to_owned(), &[pg_sys::TEXTOID])?;
        let _own = OwnWrite::begin();
        let rows = connection.modify(statement, [Some(varlena_datum(run))])?;
        Ok(rows.first().is_some())
    };
    let statements = statements(catalog);
    if !lock(&statements.lock_waiting, ROW)? {
        return Ok(false);
    }
    if lock(&statements.lock_place, PLACE)? {
        return Ok(true);
    }
    // Somebody has locked the place, unless there is none.
    let _snapshot = PushedSnapshot::latest();
    Ok(super::base_version(catalog, run)?.is_none())
}

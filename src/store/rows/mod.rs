//! Rows of the tables, written without a statement: through the access method of the table and the machinery of the
//! indexes, as logical replication's apply worker does. Those of states are written here, those of budgets by
//! `store::budgets::rows` with the same open table.
//!
//! A statement is parsed once, but set up for each execution: its plan and its locks are looked at, nodes of the
//! executor are made for each CTE, expressions are compiled, and all is taken down again. `docs/development.md` says
//! what that costs.
//!
//! # Contract
//!
//! **When.** [`Tables::open`] opens the tables only where a statement would do nothing else than write the row, and
//! where the current role has all privileges that the statement asks for. Elsewhere the caller takes the statement,
//! which runs what users have put on the tables, and raises the server's errors. A table is locked as by the
//! statement, and then looked at, so what was found holds until the transaction ends, unless this transaction changes
//! the tables itself; it cannot while they are open here. `state_snapshot` is opened for changes that have to do with
//! its rows ([`Needs`]), before anything is written: from then on there is no way back to the statement. Our own
//! triggers on the tables do nothing for our own writes (`own_write`), so they are not called.
//!
//! **Snapshot and command.** As SPI does for a statement that writes: rows are looked up under a new snapshot of the
//! transaction (at REPEATABLE READ and above: its only one), which sees what the transaction has done before; they
//! are written under the command of then; the next command begins behind the write.
//!
//! **A row is replaced or deleted** where it is still what the change means. Between the look-up and the write others
//! can lock, replace or delete it. The server waits for them. If they have committed a change:
//! - at REPEATABLE READ and above, the error is `40001`, in the server's words;
//! - else the newest version of the row is locked and asked again whether it is meant, as EvalPlanQual does. If it is
//!   not, nothing is written, and the row stays locked until the transaction ends, as it does after a statement;
//! - if the row is gone, nothing is written.
//!
//! **A head row is made** speculatively, as by ON CONFLICT DO NOTHING: if the index has another row of the state,
//! ours is taken back before anybody sees it, whoever makes the other one is waited for, and if that one is
//! committed, nothing is written (at REPEATABLE READ and above, if the snapshot does not see it: `40001`).
//!
//! **What is stored** is what the server would store. A long value is compressed before the row is formed, by the
//! method of its column, and what comes compressed already is stored as it is, as where a statement copies it.
//!
//! **On ERROR** the server releases what is open here when it aborts the (sub)transaction.

mod access;
mod columns;
mod glance;
mod places;
mod read;
pub mod table;
mod write;

use crate::call::Scratch;
use crate::catalog::Catalog;
use crate::snapshot::PushedSnapshot;
use crate::sys;
use pgrx::pg_sys;
use table::Table;

pub use glance::StoredHead;
pub use read::{Held, read, read_head};
pub use write::Pruning;

/// The tables, open for writing.
pub struct Tables {
    head: Table,
    /// Open once a change has needed it.
    snapshot: Option<Table>,
    /// For what is used for one change only.
    row: Scratch,
    /// For what lives as long as this, and goes with it.
    memory: Scratch,
}

/// Which tables a change reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// `state_head` alone: no version is in `state_snapshot` that the change has to do with.
    Head,
    /// `state_snapshot` too.
    Both,
}

impl Tables {
    /// Opens `state_head` for changes that need no statement; `None` if they do.
    pub fn open(catalog: &Catalog) -> Option<Self> {
        if !may_write(catalog) {
            return None;
        }
        let memory = Scratch::new();
        let head = open(catalog, &memory, catalog.head, columns::HEAD)?;
        let row = memory.keeping(Scratch::new);
        Some(Self {
            head,
            snapshot: None,
            row,
            memory,
        })
    }

    /// The same with what a change needs beside `state_head`; `None` if it needs a statement.
    pub fn with(mut self, catalog: &Catalog, needs: Needs) -> Option<Self> {
        if needs == Needs::Both && self.snapshot.is_none() {
            let (table, columns) = (catalog.snapshot, columns::SNAPSHOT);
            self.snapshot = Some(open(catalog, &self.memory, table, columns)?);
        }
        Some(self)
    }

    /// Runs a change as a command of its own.
    fn change<T>(&mut self, change: impl FnOnce(&mut Table, Snapshots<'_>) -> T) -> T {
        sys::begin_command();
        let Self {
            head,
            snapshot,
            row,
            ..
        } = self;
        let done = {
            let _snapshot = PushedSnapshot::transaction();
            row.with(|| {
                let done = change(head, Snapshots(snapshot.as_mut()));
                head.release();
                if let Some(snapshot) = snapshot {
                    snapshot.release();
                }
                done
            })
        };
        sys::begin_command();
        done
    }
}

/// `state_snapshot`, where the change needs it.
struct Snapshots<'a>(Option<&'a mut Table>);

impl Snapshots<'_> {
    /// The table. The caller has asked for it by [`Tables::with`].
    fn table(&mut self) -> &mut Table {
        match &mut self.0 {
            Some(table) => table,
            None => not_asked_for(),
        }
    }
}

fn not_asked_for() -> ! {
    crate::error::Error::Internal {
        message: "a change needs state_snapshot, which is not open".to_owned(),
    }
    .raise()
}

/// Opens one of the tables, which has so many columns, for changes that need no statement; `None` if they do. What it
/// allocates lives in `memory`; [`Tables`] closes it.
fn open(catalog: &Catalog, memory: &Scratch, table: pg_sys::Oid, columns: usize) -> Option<Table> {
    let shape = match columns {
        columns::HEAD => &columns::HEADS,
        _ => &columns::SNAPSHOTS,
    };
    let lock = pg_sys::RowExclusiveLock;
    // SAFETY: it is one of the tables. It is closed here, or by whoever drops `Tables`.
    let mut table = memory.keeping(|| unsafe { Table::open(catalog, table, shape, lock) })?;
    // Whoever held a lock until now may have changed it.
    if table.columns() == columns && may_write(catalog) {
        return Some(table);
    }
    table.close();
    None
}

impl Drop for Tables {
    fn drop(&mut self) {
        // On an error the server closes them when it aborts the (sub)transaction.
        if !std::thread::panicking() {
            if let Some(snapshot) = &mut self.snapshot {
                snapshot.close();
            }
            self.head.close();
        }
    }
}

/// Whether the current role may write rows without a statement, as far as is known.
pub fn may_write(catalog: &Catalog) -> bool {
    match crate::fault::way_of_writing!() {
        Some(forced) => forced,
        None => catalog.takes_rows(),
    }
}

/// Whether the current role may read rows without a statement, as far as is known.
fn may_read(catalog: &Catalog) -> bool {
    match crate::fault::way_of_writing!() {
        Some(forced) => forced,
        None => catalog.shows_rows(),
    }
}

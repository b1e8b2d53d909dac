//! Rows of the tables, written without a statement: through the access method of the table and the machinery of the
//! indexes, as logical replication's apply worker does.
//!
//! A statement is parsed once, but set up for each execution: its plan and its locks are looked at, nodes of the
//! executor are made for each CTE, expressions are compiled, and all is taken down again. `docs/development.md` says
//! what that costs.
//!
//! # Contract
//!
//! **When.** [`Tables::open`] opens the tables only where a statement would do nothing else than write the row, and
//! where the current role has all privileges that the statement asks for. Elsewhere the caller takes the statement,
//! which runs what users have put on the tables, and raises the server's errors. The tables are locked as by the
//! statement, and then looked at, so what was found holds until the transaction ends, unless this transaction changes
//! the tables itself; it cannot while they are open here. Our own triggers on the tables do nothing for our own
//! writes (`own_write`), so they are not called.
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
//! **On ERROR** the server releases what is open here when it aborts the (sub)transaction.

mod access;
mod columns;
mod read;
mod table;
mod write;

use crate::call::Scratch;
use crate::catalog::Catalog;
use crate::snapshot::PushedSnapshot;
use crate::sys;
use pgrx::pg_sys;
use table::Table;

pub use read::{Held, StoredHead, read, read_head};
pub use write::Pruning;

/// The tables, open for writing.
pub struct Tables {
    head: Table,
    snapshot: Table,
    /// For what is used for one change only.
    row: Scratch,
    /// For what lives as long as this, and goes with it.
    _memory: Scratch,
}

impl Tables {
    /// Opens them for changes that need no statement; `None` if they do.
    pub fn open(catalog: &Catalog) -> Option<Self> {
        if !may_write(catalog) {
            return None;
        }
        let memory = Scratch::new();
        // SAFETY: these are the tables; `drop` closes them.
        let (head, snapshot) = memory.keeping(|| unsafe {
            let lock = pg_sys::RowExclusiveLock;
            (
                Table::open(catalog, catalog.head, 2, lock),
                Table::open(catalog, catalog.snapshot, 4, lock),
            )
        });
        match (head, snapshot) {
            (Some(head), Some(snapshot)) => {
                let row = memory.keeping(Scratch::new);
                let tables = Self {
                    head,
                    snapshot,
                    row,
                    _memory: memory,
                };
                // Whoever held a lock until now may have changed them.
                let is_as_made = tables.head.columns() == columns::HEAD
                    && tables.snapshot.columns() == columns::SNAPSHOT;
                (is_as_made && may_write(catalog)).then_some(tables)
            }
            (head, snapshot) => {
                for mut table in head.into_iter().chain(snapshot) {
                    table.close();
                }
                None
            }
        }
    }

    /// Runs a change as a command of its own.
    fn change<T>(&mut self, change: impl FnOnce(&mut Table, &mut Table) -> T) -> T {
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
                let done = change(head, snapshot);
                head.release();
                snapshot.release();
                done
            })
        };
        sys::begin_command();
        done
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        // On an error the server closes them when it aborts the (sub)transaction.
        if !std::thread::panicking() {
            self.snapshot.close();
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

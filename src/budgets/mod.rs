//! Budgets: limits, holds on them, and costs.
//!
//! # Contract
//!
//! **Tables.** `state_budget` and `state_budget_agent` say what may be spent. `state_budget_account` has the
//! counters: a row for each budget and each of its agents, period and shard. `state_budget_hold` has a row for each
//! hold, `state_budget_cost` for each cost that nothing was held for, `state_budget_pruned` the sums of those that
//! were deleted after their retention. What the counters say is what these three add up to: each statement that
//! changes one of them changes the other in the same transaction. So nothing is lost or counted twice by an error, a
//! ROLLBACK (also to a savepoint) or a crash: there is no point between the two at which anything is committed.
//!
//! **Scopes.** A hold is counted in the account of its agent, in that of its budget, and in that of each budget
//! above, up to the root; all of them or none, since the first that refuses ends the statement. The hold keeps which
//! accounts these are, with their periods and shards: it is settled, voided and taken out there, whatever the clock
//! says then, and however the budget was redefined.
//!
//! **Who may.** The functions work as their caller, who needs the privileges on the tables that the statements need,
//! and is under the tables' row-level security: what it hides is not there. A budget above that is hidden is `42704`,
//! and no hold is granted without it. Only the lock that keeps a budget from being redefined is taken as the owner.
//!
//! # Locks, in this order
//!
//! 1. The row of the hold: the insert of a new one waits for another of the same name, `settle`, `void`, `extend` and
//!    the worker lock it.
//! 2. Rows of accounts: that of the agent (several agents in the order of their names), then that of the budget, and
//!    so on to the root, which is locked last and so for the shortest time. The order of a budget and one above it
//!    cannot turn round: a budget gets another parent only while nothing is spent or held in it. Rows of one account
//!    in the order of shards; who holds one of several asks for no other, but who holds the first: a quick attempt at
//!    another runs in a subtransaction, which is rolled back before all of them are locked. Rows that are missing are
//!    made before any of their account is locked, all of them by one session.
//! 3. The row of a definition: shared by who adds a row to an account (a new period, a new shard, a new agent), alone
//!    by who redefines, before the accounts of that budget in both cases: who adds a row holds none of the budget, or
//!    has added one before. (With an agent's row comes that of its budget; who charges several agents takes the
//!    definition first.) Redefining is one at a time (a lock on the table), and locks accounts of one budget only.
//! 4. `state_budget_reached`: the insert of a level that is reached waits for who inserts the same.
//!
//! All are held until the transaction ends. A transaction that calls several functions may meet another in a
//! deadlock, which PostgreSQL ends with `40P01`.
//!
//! **What two sessions see.** At READ COMMITTED a statement that has waited for a row of an account decides by the
//! row as it is then: the condition is part of the UPDATE, and what it compares is in that row only, the limit
//! (`allotted`) included. Where more is looked at, it is looked at by a later statement, whose snapshot is taken when
//! the locks are held. At REPEATABLE READ the server ends it with `40001` if the row has changed since the snapshot;
//! each change of a hold changes a row that is locked here, so what the snapshot shows of holds is right if the row
//! was. `revision` in a row of an account is that of the definition it was allotted under; who finds another than it
//! has read begins anew or gives up with `40001`.
//!
//! # Expiry
//!
//! A hold is over when the clock (`clock_timestamp()`: a long transaction or an old snapshot keeps no money) is at
//! its end. From then on nobody counts it, though the counters do until the worker takes it out: who finds no room by
//! the counters adds up what has expired, with the account locked, and grants upon that. Who reads does the same.
//! Only `extend` could make such a hold count again, and it locks the hold's accounts before it looks at the clock,
//! and also at `judged_at`: up to there somebody has judged, whatever the clock says now. A hold that is settled
//! after its time charges what it has cost.
//!
//! # Shards
//!
//! With `shards` above 1 an account has several rows, each with a part of the limit; a session takes the row that its
//! process has. `state_cache_budget::allot` says how parts are made, and why one row alone may grant. Where a row has
//! no room, or a cost is more than its row has room for, all rows are locked and the parts made anew. So nothing is
//! refused while there is room anywhere, and nothing granted where there is none.
//!
//! # What is told
//!
//! Each row says below what its charges reach nothing that is told (`quiet`): parts of what is missing to the next
//! level, so that no sum reaches it while every row keeps below its part. A charge that would not keep below locks
//! all rows, finds exactly what is spent, tells what it crosses, and makes the parts anew. So of charges made at once
//! one tells, and most look at one row.
//!
//! # Summaries
//!
//! L1 keeps the document of a summary under a name that no state has. A commit that changes a budget raises that
//! name's mark before its commit record and takes the document out (`transaction::note_dependents`), so the argument
//! of `derived` holds here: a hit finds the marks quiet and a document that was computed under a snapshot which the
//! caller's sees all of. A document serves until the next hold ends or the period does, by the clock. Changes by hand
//! raise the mark of all budgets (`state_budget_watch`).
//!
//! # By hand
//!
//! Rows that somebody changes by hand are not added to counters, since COPY restores both. CHECKs forbid what is no
//! amount and no hold; `state_budget_verify()` compares counters with holds and costs, and puts them right.

mod account;
mod cached;
mod costs;
mod define;
mod error;
mod estimate;
mod expire;
mod hold;
mod json;
mod path;
mod prune;
mod run;
mod sound;
mod summary;
mod told;
mod verify;

pub use expire::Expired;
pub use prune::Pruned;
pub use run::{Spent, check_exists, spend};

use crate::call::{self, Call, sql_functions};
use crate::catalog::{self, Catalog};
use crate::error::Result;
use crate::transaction::{self, Concerned};
use pgrx::pg_sys;
use std::ffi::CStr;
use std::rc::Rc;

/// The class under which L1 keeps summaries; no class of a user has such a name.
const SUMMARIES: &[u8] = b"\0budget";

/// A budget changes with this transaction.
fn note_change(catalog: &Rc<Catalog>, budget: &[u8]) -> Result<()> {
    transaction::note_dependents(catalog, SUMMARIES, &Concerned::Key(budget))
}

/// The installation that a function of this room belongs to, which is about to write.
///
/// # Errors
/// The server's own in a transaction that is read-only, and in a parallel query.
fn check_may_write(call: &Call<'_>, function: &CStr) -> Result<Rc<Catalog>> {
    call::check_may_write(function)?;
    // SAFETY: raises PostgreSQL's own error; the name is NUL-terminated.
    unsafe { pg_sys::PreventCommandIfParallelMode(function.as_ptr()) };
    catalog::current(call.function())
}

sql_functions! {
    /// `state_budget_watch()`: the trigger function on the tables of budgets.
    fn state_budget_watch(call) {
        let catalog = catalog::current(call.function())?;
        transaction::note_dependents(&catalog, SUMMARIES, &Concerned::Class)?;
        // The server ignores what an AFTER trigger and a statement trigger return.
        Ok(pg_sys::Datum::from(0usize))
    }
}

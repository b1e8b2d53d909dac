//! Jobs: states of class `job` that count their tasks, which are rows of `state_task`.
//!
//! # Contract
//!
//! A job *is* a state: a small document of `attributes`, which are the caller's, and `summary`, which says how many
//! tasks there are of each status. Batches, versions, L1, snapshots and messages hold for it unchanged, so who polls
//! a summary reads L1 and no task. **The summary is exact under every snapshot**: it says what a count of the rows
//! under that snapshot says, in the transaction that changes tasks too, and from the next command on.
//!
//! **Counts are increments.** A function that changes tasks locks their rows, writes them at once, and stages what
//! that does to the counts as an [`Edit`]: so many more of this status, so many fewer of that. An edit is applied to
//! the version of the job that is current when its head row is locked, which is at the flush of the commit. So
//! - sessions that change tasks of one job lose nothing of each other, and meet only at their commits: the head row
//!   is locked from the flush to the end of the commit, and not while tasks are worked upon;
//! - rows and summary become visible together, since one commit writes both;
//! - one version of the job and one message come of a transaction, however many tasks it has changed;
//! - what a transaction or a savepoint takes back, it takes back of both, and after a crash neither is there. What
//!   `state_batch_rollback()` drops does not include these edits ([`transaction::keep_for_commit`]): the rows are
//!   written. For the same reason they are never deferred in a `behind` class.
//!
//! **Order of locks:** rows of tasks, in the order of their names, then head rows, in the order of keys. One call
//! locks its tasks in this order, so calls do not deadlock. Transactions of several calls can, and PostgreSQL ends
//! one of them with 40P01; so can those that write a job early: `state_batch_commit()`, another role that reads what
//! this one has staged, and more calls in one transaction than [`Operation`]s are kept apart (1,000).
//!
//! **Two sessions and one task.** The second waits until the first has ended, then decides upon the row as it is: the
//! status that is asked for may be there (nothing to do), be allowed, or be refused (55000). At REPEATABLE READ and
//! SERIALIZABLE it fails with 40001, as any UPDATE does; and so does a commit there if the job's head has moved since
//! the snapshot, also by tasks that this transaction has not touched.
//!
//! **Adding, cancelling, deleting** meet in the job's document, at the flush. Tasks added to a job that was cancelled
//! meanwhile: 55000. A cancel that did not see tasks which were added meanwhile: 40001, since the job is to be
//! cancelled whole. A job that was deleted meanwhile: 42704. Whoever fails there takes its rows back with it.
//!
//! **A job that is gone** takes its tasks along: a bounded number at once, of those that nobody has locked, and the
//! rest by the worker. Whoever has one of these locked fails at its commit (42704) and never waits for us. A task
//! belongs to nobody, and may be deleted by anyone here, if the snapshot that shows it shows no head row of its job,
//! or a tombstone: both are in one snapshot, so a job that was created anew is never taken for the former one.
//!
//! **The end of a job** is the version in which every task has ended, or that of its cancel: the flush stores it as a
//! recovery point, and lets the state expire after the `keep_for` of its class ([`Jobs`]). Upkeep removes it then.
//! Tasks that are added open the job again. A job without tasks is not complete.
//!
//! **Whose privileges.** Who may change the state may change its tasks, who may read it may read them: these rows are
//! written and read as their owner, once the job was read as the caller. Where row-level security of `state_task`
//! applies to the caller, statements run as the caller ([`rows::of_tasks`]), who needs privileges of its own and sees
//! what the policies show.
//!
//! **The rest of the document.** `state_update`, `state_merge` and `state_append` change `attributes` and nothing
//! else of a job that is there. A document cannot be replaced as a whole, nor a version restored: what a summary said
//! once is not what it says now (55000).
//!
//! [`Edit`]: crate::transaction::Edit
//! [`Operation`]: crate::transaction::Operation
//! [`transaction::keep_for_commit`]: crate::transaction::keep_for_commit

mod by_hand;
mod claim;
mod class;
mod edit;
mod error;
mod functions;
mod job;
mod rows;
mod rules;
mod update;
mod upkeep;
mod verify;

pub use rules::Jobs;
pub use upkeep::Leftovers;

//! The batch: what this transaction has staged, flushed and seen, and the transaction callbacks.
//!
//! # Contract
//!
//! A change is staged in this backend's memory and written to L3 by a flush: at COMMIT
//! (`XACT_EVENT_PRE_COMMIT`) or by `state_batch_commit()`. Staged changes behave like rows of a table
//! that this transaction has changed:
//!
//! - **Commands.** Each carries the command id under which it was made; a snapshot sees it if its own
//!   command id is higher. So a cursor does not see what was staged after it was opened.
//! - **Subtransactions.** Before a subtransaction first changes what is known of a state, the old
//!   knowledge goes into its frame (`frames`). An abort puts it back; a commit hands it to the parent.
//!   Abort callbacks only move values back into places that exist; commit callbacks move frames into
//!   room reserved at `SUBXACT_EVENT_PRE_COMMIT_SUB`.
//! - **Privileges.** The flush runs as the role that staged the change. Before another role reads or
//!   changes the state it is flushed, so that the tables' privileges and policies have answered. A role that
//!   may not read the tables is refused before that.
//!
//! **Whose it is.** What is staged belongs to the role that was current when it was staged, as does an explicit
//! batch (`explicit`) with its rule and what it has read. A transaction with several roles (SECURITY DEFINER, SET
//! ROLE, code that a command runs as a table's owner) has one of each for each role, side by side; being a superuser,
//! or a member of the role, changes nothing.
//! - What a role stages or reads while another role's batch is open is no part of that batch and not under its rule.
//! - `state_batch_status`, `_commit` and `_rollback` show, flush and drop what the current role has staged, and
//!   nothing else. `_begin` is refused only where the current role's own batch is open.
//! - COMMIT flushes all that is staged, each role's by the rule of its batch, and so does a transaction that runs out
//!   of memory, but for what explicit batches hold.
//! - A state that one role's batch has staged is refused to another role until that batch is ended: flushing it would
//!   tear the batch apart.
//! - What the transaction itself has written is no conflict for any of its batches.
//! - In a security-restricted operation (REFRESH MATERIALIZED VIEW, CREATE INDEX, ANALYZE, ... of somebody else's
//!   objects) nothing is put off: a change is written there and then, and a batch cannot begin. The server forbids
//!   deferred triggers there for the same reason: what runs at COMMIT runs outside.
//!
//! **At COMMIT** (`commit`), in this order: flush until nothing is staged, firing deferred triggers
//! after each round, since what the flush writes may violate deferred constraints and the triggers may
//! stage again; reserve L1 memory and raise the marks (`cache::publish`); queue the notifications (`notify`).
//! All of that may fail, and then the transaction aborts. After it nothing can be staged any more.
//! `XACT_EVENT_COMMIT` and `XACT_EVENT_ABORT` publish or take back the marks and forget everything;
//! they allocate nothing and cannot fail.
//!
//! **Row locks** are taken by the flush, states in the order of class and key, so that two flushes cannot wait for
//! each other. Only a state with more staged operations than [`operation::MAX_OPERATIONS`] is locked earlier.
//!
//! **Dropping** what is staged (`state_batch_rollback`) goes back to what was staged when the explicit batch began;
//! without one, to what was decided for good ([`keep`]). What is flushed is not dropped.
//!
//! **Write-behind** (`behind` says more). A flush of a state of a `behind` class may decide the version and write
//! nothing: the version is *deferred*. It stays in the batch until COMMIT, where L1 takes it or the tables do
//! (`deferred`). The transaction reads its deferred versions in the batch, never in the tables.
//!
//! **Memory.** A transaction that holds more than [`batch::MAX_HELD`] bytes of documents flushes early; a role with
//! an explicit batch, which must be able to drop what it staged, is refused more. From then on the tables tell what
//! was flushed, and no later flush looks at those states unless they are changed again (`states`).
//!
//! The batch is one thread-local value. It is borrowed for moments only, never across SQL: a statement of
//! ours may fire a user's trigger that calls us again.
//!
//! # The stair
//!
//! A file calls files of lower steps only, and within a step those that stand to its right. No file below calls
//! `commit` or `callbacks`. This file holds the contract and hands names on; it has no code.
//!
//! | step | files | may know |
//! | --- | --- | --- |
//! | driven by PostgreSQL | `callbacks`, `commit` | the end of a transaction, and the order of all that it needs |
//! | before the commit | `commit_by_hand` | which dirty versions a change by hand overrules |
//! | one call | `save`, `renew`, `lock`, `explicit_batch`, `keep`, `change`, `stage`, `view` | one state, one way |
//! | one class | `redefine` | that dirty versions of the class go first |
//! | meeting a state | `meet` | that another role's change is written first |
//! | flush | `flush`, `alone` | the order of row locks, and attempts at one state |
//! | deferred | `deferred` | what L1 takes at COMMIT, and what the tables must take |
//! | plan | `plan`, `current`, `row_change` | what is there, and what is to be done about one state; takes no lock |
//! | writing back | `write_back` | that L3 holds a dirty version now, once the transaction commits |
//! | beneath | `beneath`, `recovery`, `overrule`, `concern` | what is committed or flushed; what is changed by hand |
//! | record | `record` | what a flush takes out of the batch, and what it puts back |
//! | batch | `effect`, `batch`, `frames`, `states`, `scope`, `explicit`, `by_hand`, `dependents`, `known` | data |
//!
//! Beside the stair stands `capability`: what the rooms above add to a step, without their names.
//!
//! What a flush makes of a staged change has a name at each step. `Taken` is the change as it leaves the batch;
//! `Plan` is what is to be done about it, as a rule a `RowChange`; `Made` is the version that was written (`store`);
//! `Effect` is what became of the state; `Flushed` is what the batch keeps of that until the transaction ends;
//! `Outcome` is what callers are told.

mod alone;
mod batch;
mod beneath;
mod by_hand;
mod callbacks;
mod capability;
mod change;
mod commit;
mod commit_by_hand;
mod concern;
mod current;
mod deferred;
pub mod definitions;
mod dependents;
mod effect;
mod explicit;
mod explicit_batch;
mod flush;
mod frames;
mod keep;
mod known;
mod lock;
mod meet;
mod operation;
mod overrule;
mod plan;
mod record;
mod recovery;
mod redefine;
mod renew;
mod row_change;
mod save;
mod scope;
mod stage;
mod states;
mod view;
mod write_back;

pub use by_hand::{Bucket, ChangedByHand, Untraced};
pub use callbacks::init;
pub use capability::check_may_replace;
pub use capability::{Capability, Wanted};
pub use change::{
    apply, begin as check_may_change, check_may_write, delete, expire, expires_after, set,
};
pub use concern::{
    Concerned, has_touched, is_class_noted, needs_worker_by, note_dependents, note_touched,
};
pub use deferred::write_all_deferred;
pub use explicit_batch::{batch_status, begin_batch, commit_batch, roll_back_batch};
pub use flush::write_staged;
pub use keep::{keep, keep_for_commit, keep_staged};
pub use known::OnConflict;
pub use lock::{
    apply_locked, fence, fence_from_here, fence_of, is_staged, lock, note_claim, read_locked,
    staged_keys, write_before_recovery,
};
pub use operation::{Edit, Operation, check_size};
pub use overrule::{ChangeByHand, note_by_hand, note_change_by_hand, own_floor};
pub use redefine::{before_all_classes_go, before_class_changes};
pub use renew::touch;
pub use save::{Saved, save};
pub use view::{has_changes, read, read_latest, read_newest};
pub use write_back::{write_all_back, write_back};

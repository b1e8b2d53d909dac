//! Runs: states of class `run` whose documents have a shape and rules (RunContexts).
//!
//! # Contract
//!
//! A run *is* a state: its document is changed through the batch like any other, and batches, versions, L1,
//! snapshots and notifications hold for it unchanged. What a document cannot say about itself is in tables of its
//! own (`store::contexts`), which are written as their owner: whoever may change the state may do this too.
//!
//! **Two kinds of change.** Variables, exports to come and items of a blackboard are [`Edit`]s: staged, applied to
//! the version that is current when the row is locked, and checked again there, so that a commit fails rather than
//! break a rule. That is so in every explicit batch, also in one that overwrites what others have changed: who sets a
//! variable has not looked at the rest of the document. What must be decided when it is called (a child, a merge, a
//! completion, a resolution, a spending, going back to a version) locks the row first ([`crate::transaction::lock`]),
//! so that the answer it gives still holds at COMMIT. Nothing that was read before the lock is part of a decision,
//! but for which rows to lock; that is looked at again once they are.
//!
//! **A decision is whole.** What a function has decided is in several rooms: the run's document, those of its
//! parents, the blackboard, stored exports, the tables. It stays or goes as a whole. Parts of it are written at once,
//! and must be (rows of tables, a checkpoint), so none of it is part of what `state_batch_rollback()` drops: each
//! state that a decision changes is kept ([`crate::transaction::keep`]), with what the transaction had staged of it
//! before, since that is what was decided upon. ROLLBACK, also to a savepoint, takes back all of it. An explicit
//! batch writes it at once; but for items of a blackboard, whose row nobody needs to wait for before the commit.
//!
//! **The place of a run** in the hierarchy is a row of `state_context`. It never changes but for the version that
//! merges compare with; it is what the rules between parent and child are locked by:
//! - who adds a child holds the parent's row so that it cannot end or go, and nobody else adds one (`Branches`);
//! - so does who completes a child, who may complete the parent next, and must not have to wait for a sibling then;
//! - who claims a run holds its row so that it cannot end or go (`Stays`);
//! - who completes, merges or deletes a run holds its row alone (`Ends`), and then looks at its children under a
//!   snapshot taken after that. Whether a child has ended its document says, nothing else.
//!
//! **Lists and the queue** of waiting runs are read from the rows of claims, which repeat what the documents say
//! (`store::runs`, [`list`]): whoever ends a run locks its claim first, since the end is written there too.
//!
//! **Order of locks:** claims, then places, then head rows. A run's place before its parent's; head rows in the order
//! of keys, which is that of the flush. A transaction that calls several functions, or one after it has staged
//! changes of its own, may still meet another in a deadlock, which PostgreSQL ends with 40P01; it is repeated like a
//! 40001.
//!
//! **Claims.** A claim's token is checked when a call names it, and again by the flush that writes the run, under a
//! lock that keeps others from claiming the run until the transaction has ended. Between the two nothing is locked: a
//! runner that hangs in a transaction keeps nobody from taking over when its lease is over, and its commit fails.
//! Functions that lock the run at once lock the claim too. A run that has ended or is gone has no owner: to whoever
//! names a token that is 40001 as well ([`claim::under`]). What is staged of a run is staged under one token: naming
//! another voids it, since the first was superseded then, and who claims the run again writes it before. No token is
//! given out twice, whatever is restored or promoted (`draw`). States of other shapes and classes are claimed alike
//! by room `claims`; a run is claimed as a run there too.
//!
//! [`Edit`]: crate::transaction::Edit

mod base;
mod blackboard;
mod books;
mod claim;
mod complete;
mod conflict;
mod draw;
mod error;
mod exports;
mod hierarchy;
mod lifecycle;
mod limits;
mod list;
mod merge;
mod number;
mod outcome;
mod purge;
mod purse;
mod rules;
mod run;
mod step;
mod variables;

pub use books::{check_may_return, with_books_of, with_place_lost};
pub use claim::{
    claim_run, fence_run, is_of_run, is_there_as_run, lease, owner, release_run, renew_run, token,
};
pub use draw::draw;
pub use error::Holder;
pub use hierarchy::base_version;
pub use purge::purge_beside;
pub use rules::Runs;
pub use run::{RUN, is_run};

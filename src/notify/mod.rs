//! Telling subscribers what a transaction changed, in few messages.
//!
//! # Contract
//!
//! The messages of a database are numbered 1, 2, 3 … (`seq`) in the order in which they are delivered,
//! without gaps, over all channels; a new run of numbers has another `epoch`. All messages up to a `seq` that
//! was read belong to commits that a snapshot taken afterwards sees, and what that snapshot does not see is
//! told with a higher one.
//!
//! **With the commit** (`state_cache.notify = commit`). NOTIFY takes a lock of its own late in a commit, which
//! it holds until the transaction has ended: that makes the order of delivery that of the commits. We take the
//! same lock a little earlier, at the end of our work before the commit record ([`Prepared::send`]), give the
//! messages the next numbers, and store the last of them when the commit has become visible ([`commit`]):
//! before the lock is released, since transactions run their callbacks before they release their locks.
//! A transaction that fails on the way stores nothing, so there is no gap.
//!
//! Whatever runs between our callback and the commit record holds up all commits that notify. That is little:
//! the server calls the callback registered last first, and ours was registered when the server started, so
//! it comes after those of libraries that are loaded later, or that wait for a first use to register theirs.
//! In a session that has loaded the library itself there are no numbers and the lock is not taken early.
//! Where another library changes the tables after our callback all the same, everything is told to be dropped
//! ([`tell_late`]); it continues the transaction's numbers.
//!
//! **By the worker** (`state_cache.notify = auto` or `worker`, and for changes that are left to the worker in any
//! case: NOTIFY needs a transaction id and a commit record, which they do without). Before the commit record the
//! changes are encoded; when it is visible and L1 shows it, they are appended to the ring in shared memory, under
//! one lightweight lock. The worker ([`Teller`]) merges them and sends the messages in a transaction of its own,
//! numbered like any other. It hears of changes in the order in which they were published, and tells of no change
//! that is not visible. If it falls behind by more than the ring holds, it begins a new epoch and tells subscribers
//! to drop everything.
//!
//! **When a commit leaves its messages to the worker.** Only where a worker is in its place at that moment and says
//! that it tells (`Database::begin_handing_over`). That a worker could be started is not enough: nobody knows
//! whether it will come (`max_workers` may be 0, all its places taken, the server without a process to spare, the
//! last worker dead and the next one in a pause, the database barred), and until then subscribers would hear
//! nothing and not know it. So where there is none, the commit sends its messages itself and asks for a worker; the
//! first commit after it has come leaves them to it. A commit that hands over holds the worker until its changes
//! are in the ring: a worker that leaves says first that it no longer tells, then waits for those commits, and
//! tells what they have left. It waits 5 seconds without progress at most (a commit may wait for a standby for
//! ever). A commit that comes later than that calls a worker, and one is started for what is in the ring even where
//! `max_workers` is 0. If the worker dies alone, the next one goes on where it was. If the server crashes, the ring
//! is gone, and so is the connection of every listener.
//!
//! `auto` chooses so for each commit, if the worker can tell all of it as exactly as the commit could. Else it
//! tells all of it with the commit: what changed items of a blackboard (see below), since NOTIFY's lock is taken
//! anyway, and what takes more than a quarter of the ring, of which the worker could tell only the classes.
//! `worker` leaves those to the worker as well, except for the items: its commits take NOTIFY's lock as seldom as
//! possible.
//!
//! **Classes that are not told** (`notify` = `off` in `state_class`). Their changes are left out before anything
//! else is decided, by whichever way; `state_changes` reports them all the same. `state_invalidate` is told, since
//! somebody has asked for it, and so is what is about the whole database. Where `state_class_define` switches a
//! class off, it has subscribers drop what they hold of the class.
//!
//! The two ways may be mixed, in one transaction too. A change may then be told before one that is older, of
//! the same state; it has the higher version.
//!
//! **Items of a blackboard.** A change that the blackboard functions made names them: `"items":["plan-a"]` beside
//! key and version. A list says that the transaction changed nothing else of the state, but that items whose time
//! was over may be gone. `null` says that items were changed, and more than is named may have been: there are too
//! many of them, the state was changed in other ways too, or it is new after its end. Without `items` the state was
//! changed in other ways. The ring has no room for items, so such a change is told with the commit whatever the
//! setting, and the batch does not leave it to the worker.
//!
//! **Without shared memory**, or a place for the database in it, nobody numbers messages: `seq` and `epoch` are null,
//! and all goes with the commit.

mod held;
mod message;
mod messages;
mod news;
mod outbox;
mod prepare;
mod requests;
mod teller;
mod touched;

pub use message::quoted;
pub use news::News;
pub use outbox::{clear, commit, tell_late};
pub use prepare::{Prepared, prepare};
pub use requests::{
    has_requests, request_invalidation, requested, subtransaction_aborted, subtransaction_commits,
    subtransaction_committed,
};
pub use state_cache_ring::Change;
pub use teller::Teller;
pub use touched::Touched;

//! Catch-up: what became visible since a subscriber last asked.
//!
//! # Contract
//!
//! A cursor (`state_cache_formats::Cursor`) is a snapshot in full transaction ids. `state_changes(since)` takes
//! a new snapshot and tells of every state whose change the new one sees and the old one did not, then gives
//! the new one as the next cursor. A transaction that was in progress when the old one was taken is thereby
//! told of once it has committed, however late; a number or a time in each row would have passed it over.
//!
//! - **What changed** is told by `xmin` of the head row: every change of a state writes it. That holds for
//!   replication, restored dumps and changes by hand too, and costs no column and no index. Ids of rows are 32
//!   bits wide; where one is taken for a later one than it was, a state is told of without need.
//! - **In doubt, too much.** A subscriber that hears of a state again looks at its version and finds nothing
//!   new. So a snapshot that does not list every subtransaction becomes a cursor that has seen nothing from its
//!   `xmin` on, and what the asking transaction has written itself is told now and again the next time.
//! - **What no head row tells** is kept in two tables: `state_trace`, written with the commit (`trace`) where a
//!   head row is deleted or a document replaced by hand; and `state_horizon`, which says up to which
//!   transaction the worker has dropped tombstones and traces. A cursor that may not see all of these
//!   transactions is refused. The worker drops nothing that a snapshot of now might not see, so that a new
//!   cursor is never refused for what was dropped before it.
//! - **Ids are not given out again** between a cursor and its use, or the cursor is refused. A crash gives out again
//!   the ids that no WAL on disk mentions: so the WAL is flushed before a cursor is handed out, which covers every
//!   transaction that had ended. A promotion and a restored backup begin another timeline, which the cursor names. It
//!   is good there if the history left the cursor's timeline at or behind the cursor's place: then all WAL that the
//!   cursor covers was replayed, with every id that had ended, and no such id is given out anew. Else it is refused.
//!   A copy of the data directory that was put back goes on under the same timeline: its starts are others, which the
//!   cursor names too (`starts`). What cannot be told is a virtual machine that was set back with its memory, once it
//!   has written as much WAL as there was.
//!
//! **Messages and cursor.** `state_cursor()` reads the number of the last message first and takes its snapshot
//! after: messages are numbered after their commit became visible, so the cursor covers every message up to
//! that number, and what it does not cover comes with a higher one.

mod functions;
mod starts;
mod trace;

pub use functions::parse as cursor;
pub use starts::Starts;
pub use trace::Traces;

//! Logs: entries beside a state, each of them once.
//!
//! # Contract
//!
//! A log belongs to the name of a state, whether or not there is a state of that name. An entry is a row of
//! `state_log_entry`: no version, no snapshot, nothing in L1. What names an entry is class, key, `ref` and `id`.
//!
//! - **Who may.** The statements run as the caller: the privileges and policies of the table decide.
//! - **Once.** An entry whose `id` is there already is skipped, or replaced where the caller asks for it; a replaced
//!   entry keeps its number, and so its place. What is skipped, or would be replaced by the same bytes, costs no
//!   row, no WAL and no transaction id. Whoever appends looks under the log's lock, so nobody else appends the same
//!   entry between the look and the row; the primary key decides against rows that somebody puts in by hand, and
//!   against an entry that the snapshot of a REPEATABLE READ transaction does not show: that is 40001. Where policies
//!   hide entries from the caller, each entry is put to the primary key, and one that is hidden is skipped.
//! - **Order.** Numbers grow in the order in which transactions commit, within a log: whoever appends holds the lock
//!   of the log (`lock`) from before the first number is drawn until the transaction has ended, and PostgreSQL makes
//!   a transaction visible before it releases locks. So a reader that goes on behind the last number it has seen
//!   passes over nothing. Numbers come from one sequence for all logs: within one log there are gaps.
//! - **Locks.** A transaction that appends to logs A and B waits for others as one that updates two rows would; two
//!   that take them in opposite orders end with 40P01. Appending takes no lock of the state, and nothing that changes
//!   states takes the lock of a log. Erasing takes it too, or an entry could be
//!   skipped against one that goes. Reading takes none. The worker, which drops a log with its tombstone, leaves
//!   both for later where somebody else has the lock.
//! - **Going with the state.** A deleted state keeps its log as it keeps its snapshots; where its tombstone is
//!   dropped, its log goes too (`store::drop_tombstone`).
//!
//! On an ERROR the server takes back the rows and releases the locks. Nothing is kept in this backend's memory.

mod append;
mod lock;
mod read;

pub use lock::{lock, lock_if_free};

//! What a worker does: tasks, each called again and again.

use crate::error::Result;

/// When a task wants to be called again; it is called earlier if the worker is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once: it has stopped in the middle to let others work.
    Now,
    /// At this time, in microseconds since 2000.
    At(i64),
    /// Only when the worker is woken.
    Woken,
}

/// One call of a task.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// When the round began, in microseconds since 2000.
    pub now: i64,
    /// The worker is about to leave: what can be done at once is done now, what can wait is left.
    pub leaving: bool,
    /// The extension may have been dropped, and created anew, since the last round.
    pub recheck: bool,
}

/// Something that a worker does for its database. It is called outside a transaction and runs its own, short
/// ones (`worker::transaction`). An error ends the call, is shown in `state_cache_workers`, and the task is
/// called again after a pause; the other tasks go on.
pub trait Task {
    /// As `pg_stat_activity` shows it.
    fn name(&self) -> &'static str;

    /// Does what is due.
    ///
    /// # Errors
    /// Whatever kept it from that; a transaction that is open is aborted by the caller.
    fn run(&mut self, round: Round) -> Result<Next>;

    /// Whether it writes nothing, and does its work on a standby too.
    fn works_in_recovery(&self) -> bool {
        false
    }

    /// Whether the worker must stay, however long nothing happens: something is left that only it can do.
    fn holds_work(&self) -> bool;
}

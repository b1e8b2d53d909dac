//! What the rooms above have the workers do.

#[cfg(feature = "fault_injection")]
use super::probe::Probe;
use super::task::Task;
#[cfg(feature = "fault_injection")]
use crate::fault::injection::{Probe as Order, probe};
use std::io;
use std::sync::OnceLock;

/// All that the launcher and the workers do for others.
pub struct Work {
    /// One for each task that somebody waits for: makes that task for a worker that begins. Those that matter least
    /// come last.
    pub tasks: &'static [fn() -> Box<dyn Task>],
    /// The same for the tasks that nobody waits for, which come after the others.
    pub upkeep: &'static [fn() -> Box<dyn Task>],
    /// What the launcher does.
    pub errands: &'static [Errand],
}

/// Something that the launcher does when the server has started, and when it stops in order. It has no database, and
/// runs no transaction.
pub struct Errand {
    /// What a warning in the server's log is about when the errand fails.
    pub about: &'static str,
    /// Called at the start.
    pub at_start: fn() -> io::Result<()>,
    /// Called at the stop.
    pub at_stop: fn() -> io::Result<()>,
}

/// Makes a task, as an element of [`Work::tasks`].
pub fn new_task<T: Task + Default + 'static>() -> Box<dyn Task> {
    Box::<T>::default()
}

impl Work {
    /// New tasks for a worker, for one of a standby those that write nothing.
    pub(super) fn new_tasks(&self, in_recovery: bool) -> impl Iterator<Item = Box<dyn Task>> {
        #[cfg(not(feature = "fault_injection"))]
        let upkeep = self.upkeep;
        #[cfg(feature = "fault_injection")]
        let upkeep = match probe() {
            Order::NoUpkeep => &[],
            _ => self.upkeep,
        };
        let tasks = self.tasks.iter().chain(upkeep).map(|new| new());
        #[cfg(feature = "fault_injection")]
        let tasks = tasks.chain([new_task::<Probe>()]);
        tasks.filter(move |task| !in_recovery || task.works_in_recovery())
    }
}

static WORK: OnceLock<&'static Work> = OnceLock::new();

/// Called once, when the library is loaded.
pub(super) fn register(work: &'static Work) {
    // A second call finds the same one.
    let _ = WORK.set(work);
}

/// What there is to do.
pub(super) fn work() -> &'static Work {
    const NOTHING: &Work = &Work {
        tasks: &[],
        upkeep: &[],
        errands: &[],
    };
    WORK.get().copied().unwrap_or(NOTHING)
}

//! How far commands that walk the tables have come, for the view `state_progress`.
//!
//! Contract. A slot belongs to the process whose id it holds, and is free when that is 0. It is taken, and its
//! texts are written and read, under the lock of the slots. It is given back by one atomic store, when the
//! [`Progress`] is dropped (the command has ended or failed) or when the process leaves without unwinding. When all
//! slots are taken, and without shared memory, a command runs and is not seen.

use super::block::{slots_lock, state};
use super::layout::{CLASS, CommandSlot, CommandSlots, KEY};
use super::locks::OtherLock;
use super::report::Copied;
use crate::sys;
use pgrx::pg_sys;
use std::cell::Cell;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use strum::{FromRepr, IntoStaticStr};

/// A command that shows its progress, by the names that `state_progress` uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRepr, IntoStaticStr)]
#[repr(u32)]
pub enum Command {
    /// `state_verify`
    #[strum(to_string = "state_verify")]
    Verify,
    /// `state_verify` with `repair`
    #[strum(to_string = "state_verify with repair")]
    Repair,
    /// `state_prune`
    #[strum(to_string = "state_prune")]
    Prune,
}

thread_local! {
    static LEAVES_TIDY: Cell<bool> = const { Cell::new(false) };
}

/// The progress of a command of this process; seen as long as the value lives.
pub struct Progress {
    slot: Option<&'static CommandSlot>,
}

impl Progress {
    /// A command begins that will look at about so many states.
    pub fn begin(command: Command, total: u64) -> Self {
        let Some(CommandSlots(slots)) = state().map(|state| &state.progress) else {
            return Self { slot: None };
        };
        if !LEAVES_TIDY.replace(true) {
            // SAFETY: registered once in this process; the callback stays where it is.
            unsafe { pg_sys::before_shmem_exit(Some(departed), pg_sys::Datum::from(0usize)) };
        }
        let (pid, now) = (my_pid(), sys::now());
        let take = || {
            let lock = slots_lock()?;
            let _alone = lock.exclusive();
            let slot = slots.iter().find(|slot| slot.pid.load(SeqCst) == 0)?;
            slot.database.store(sys::my_database(), Relaxed);
            slot.command.store(command as u32, Relaxed);
            slot.started_at.store(now, Relaxed);
            slot.done.store(0, Relaxed);
            slot.total.store(total, Relaxed);
            slot.class.set_bytes(&[]);
            slot.key.set_bytes(&[]);
            slot.pid.store(pid, SeqCst);
            Some(slot)
        };
        Self { slot: take() }
    }

    /// The command comes to a state.
    pub fn at(&self, class: &[u8], key: &[u8]) {
        if let (Some(slot), Some(lock)) = (self.slot, slots_lock()) {
            let _alone = lock.exclusive();
            slot.class.set_bytes(class);
            slot.key.set_bytes(key);
        }
    }

    /// It is done with a state.
    pub fn advance(&self) {
        if let Some(slot) = self.slot {
            slot.done.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            slot.pid.store(0, SeqCst);
        }
    }
}

fn my_pid() -> u32 {
    // SAFETY: a plain global of this process.
    unsafe { pg_sys::MyProcPid as u32 }
}

/// This process ends, maybe in the middle of a command.
unsafe extern "C-unwind" fn departed(_: i32, _: pg_sys::Datum) {
    if let Some(CommandSlots(slots)) = state().map(|state| &state.progress) {
        let mine = |slot: &&CommandSlot| slot.pid.load(SeqCst) == my_pid();
        slots
            .iter()
            .filter(mine)
            .for_each(|slot| slot.pid.store(0, SeqCst));
    }
}

/// A running command as it was seen.
pub struct Running {
    /// Process that runs it.
    pub pid: u32,
    /// What it is.
    pub command: Command,
    /// When it began, in microseconds since 2000.
    pub started_at: i64,
    /// States that it is done with.
    pub done: u64,
    /// States that it will look at, about.
    pub total: u64,
    /// The state that it has come to.
    pub class: Copied<CLASS>,
    /// Its key.
    pub key: Copied<KEY>,
}

/// The running commands of this session's database.
pub fn running() -> impl Iterator<Item = Running> {
    let slots = state().map_or(&[][..], |state| &state.progress.0);
    let lock = slots_lock();
    slots.iter().filter_map(move |slot| {
        let _readers = lock.as_ref().map(OtherLock::shared);
        let pid = slot.pid.load(SeqCst);
        let is_ours = pid != 0 && slot.database.load(Relaxed) == sys::my_database();
        let command = Command::from_repr(slot.command.load(Relaxed))?;
        is_ours.then(|| Running {
            pid,
            command,
            started_at: slot.started_at.load(Relaxed),
            done: slot.done.load(Relaxed),
            total: slot.total.load(Relaxed),
            class: slot.class.copy(),
            key: slot.key.copy(),
        })
    })
}

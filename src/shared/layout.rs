//! What lies in the block in front of L1 beside the slots of the databases.

use super::databases::Launcher;
use super::fates;
use super::recent;
use super::report::Text;
use super::tags::Tags;
use pgrx::pg_sys;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::SeqCst};

/// What stands in front of L1.
#[repr(C, align(128))]
pub(super) struct ServerState {
    /// When this memory was set up, in microseconds since 2000: tells one run of the server from the next.
    pub start: AtomicU64,
    /// Which start of the server this is.
    pub starts: StartSlot,
    /// Whose latch is the launcher's.
    pub launcher: Launcher,
    /// Commands that show their progress.
    pub progress: CommandSlots,
    /// What derived documents depend on beside their own keys.
    pub tags: Tags,
    /// The last changes of derived documents.
    pub recent: recent::Ring,
    /// What became of those that L1 held.
    pub fates: fates::Fates,
}

/// What all processes know of this start of the server.
#[repr(C)]
pub(super) struct StartSlot {
    pub name: AtomicU64,
    pub number: AtomicU64,
    /// 0 until it is known; set last.
    pub position: AtomicU64,
}

impl StartSlot {
    /// Gives this start a name; called in the postmaster, in memory that is all zeros.
    pub fn init(&self, now: u64) {
        let mut name = 0_u64;
        // SAFETY: writes as many bytes as the number has.
        let random = unsafe { pg_sys::pg_strong_random((&raw mut name).cast(), size_of::<u64>()) };
        if !random || name == 0 {
            name = now;
        }
        self.name.store(name, SeqCst);
    }
}

/// Commands that can be seen at a time, in all databases.
const COMMANDS: usize = 64;

/// Bytes of the name of a class.
pub(super) const CLASS: usize = 64;
/// Bytes of a key.
pub(super) const KEY: usize = 256;

/// One running command.
#[repr(C, align(128))]
pub(super) struct CommandSlot {
    /// The process that runs it, 0 for a free slot.
    pub pid: AtomicU32,
    pub database: AtomicU32,
    pub command: AtomicU32,
    /// When it began, in microseconds since 2000.
    pub started_at: AtomicI64,
    pub done: AtomicU64,
    pub total: AtomicU64,
    pub class: Text<CLASS>,
    pub key: Text<KEY>,
}

/// All running commands; all bytes are zero at first.
#[repr(C)]
pub(super) struct CommandSlots(pub [CommandSlot; COMMANDS]);

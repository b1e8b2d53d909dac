//! The settings `state_cache.*`. The paragraph above each one matches README's section on settings.

use pgrx::pg_sys;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

/// How subscribers hear of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum Notify {
    /// With the commit, through NOTIFY.
    #[name = c"commit"]
    Commit,
    /// Not at all.
    #[name = c"off"]
    Off,
}

/// (default, least, most) of `state_cache.memory`, in kB.
const MEMORY_KB: (i32, i32, i32) = (64 * 1024, 1024, i32::MAX / 2);
/// (default, least, most) of `state_cache.max_state_size`, in kB. The most is jsonb's own limit.
const MAX_STATE_SIZE_KB: (i32, i32, i32) = (16 * 1024, 1, 255 * 1024);

static MEMORY: GucSetting<i32> = GucSetting::<i32>::new(MEMORY_KB.0);
static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static DEDUP: GucSetting<bool> = GucSetting::<bool>::new(true);
static NOTIFY: GucSetting<Notify> = GucSetting::<Notify>::new(Notify::Commit);
static MAX_STATE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(MAX_STATE_SIZE_KB.0);
static TRACK_TIMING: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Shared memory for L1, in bytes.
pub fn memory() -> usize {
    usize::try_from(MEMORY.get()).unwrap_or(0) * 1024
}

/// Whether this session reads from L1. Its commits keep L1 right all the same.
pub fn enabled() -> bool {
    ENABLED.get()
}

/// Whether a change that leaves the document as it is stored is skipped.
pub fn dedup() -> bool {
    DEDUP.get()
}

/// How subscribers hear of this session's changes.
pub fn notify() -> Notify {
    NOTIFY.get()
}

/// The largest document that may be written, in bytes of its binary form.
pub fn max_state_size() -> usize {
    usize::try_from(MAX_STATE_SIZE.get()).unwrap_or(0) * 1024
}

/// Whether reads and flushes are timed.
pub fn track_timing() -> bool {
    TRACK_TIMING.get()
}

/// Registers the settings and reserves their prefix.
pub fn init() {
    // SAFETY: a plain global of this process.
    let preloading = unsafe { pg_sys::process_shared_preload_libraries_in_progress };
    GucRegistry::define_int_guc(
        c"state_cache.memory",
        c"Shared memory for the cache.",
        c"Holds the index, the states and their text forms. Can only be set at server start.",
        &MEMORY,
        MEMORY_KB.1,
        MEMORY_KB.2,
        // The server takes no new setting of the first kind once it runs; without preloading the value
        // means nothing, but the configuration file may name it.
        if preloading {
            GucContext::Postmaster
        } else {
            GucContext::Sighup
        },
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_bool_guc(
        c"state_cache.enabled",
        c"Reads states from the cache.",
        c"When off, every read goes to the tables; commits keep the cache right all the same.",
        &ENABLED,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"state_cache.dedup",
        c"Skips changes that leave the state as it is stored.",
        c"A class can switch it off for itself.",
        &DEDUP,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"state_cache.notify",
        c"How subscribers hear of changes.",
        c"commit sends notifications with the commit, off sends none.",
        &NOTIFY,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"state_cache.max_state_size",
        c"The largest state that may be written.",
        c"Counted in bytes of the binary form of the document.",
        &MAX_STATE_SIZE,
        MAX_STATE_SIZE_KB.1,
        MAX_STATE_SIZE_KB.2,
        GucContext::Suset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_bool_guc(
        c"state_cache.track_timing",
        c"Times reads and flushes.",
        c"The view state_cache_stats shows the sums.",
        &TRACK_TIMING,
        GucContext::Suset,
        GucFlags::default(),
    );
    #[cfg(feature = "fault_injection")]
    crate::fault::init();
    // SAFETY: the prefix is a NUL-terminated static; called once, after all definitions.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"state_cache".as_ptr()) };
}

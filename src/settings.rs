//! The settings `state_cache.*`. The paragraph above each one matches docs/reference/settings.md.

use pgrx::pg_sys;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use state_cache_context::{Destination, Sensitivity};
use std::time::Duration;

/// How subscribers hear of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum Notify {
    /// Each commit chooses: by the worker where one is there and can tell all of it, else with the commit.
    #[name = c"auto"]
    Auto,
    /// With the commit, through NOTIFY.
    #[name = c"commit"]
    Commit,
    /// By the worker of the database, soon after the commit; with the commit only where no worker is there, and
    /// what only a commit can tell.
    #[name = c"worker"]
    Worker,
    /// Not at all.
    #[name = c"off"]
    Off,
}

/// What a read does that meets a damaged version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum OnCorruption {
    /// It fails.
    #[name = c"error"]
    Error,
    /// It answers with the newest intact version, and a warning.
    #[name = c"recover"]
    Recover,
}

/// The most sensitive value that a destination of exports takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum MaxSensitivity {
    /// Public ones only.
    #[name = c"public"]
    Public,
    /// Up to internal ones.
    #[name = c"internal"]
    Internal,
    /// Up to confidential ones.
    #[name = c"confidential"]
    Confidential,
    /// Up to data about persons.
    #[name = c"pii"]
    Pii,
    /// All.
    #[name = c"secret"]
    Secret,
}

impl From<MaxSensitivity> for Sensitivity {
    fn from(most: MaxSensitivity) -> Self {
        match most {
            MaxSensitivity::Public => Self::Public,
            MaxSensitivity::Internal => Self::Internal,
            MaxSensitivity::Confidential => Self::Confidential,
            MaxSensitivity::Pii => Self::Pii,
            MaxSensitivity::Secret => Self::Secret,
        }
    }
}

/// (default, least, most) of `state_cache.memory`, in kB.
const MEMORY_KB: (i32, i32, i32) = (64 * 1024, 1024, i32::MAX / 2);
/// (default, least, most) of `state_cache.max_state_size`, in kB. The most is jsonb's own limit.
const MAX_STATE_SIZE_KB: (i32, i32, i32) = (16 * 1024, 1, 255 * 1024);

/// (default, least, most) of `state_cache.flush_interval`, in milliseconds.
const FLUSH_INTERVAL_MS: (i32, i32, i32) = (2000, 10, 3_600_000);
/// (default, least, most) of `state_cache.notify_interval`, in milliseconds.
const NOTIFY_INTERVAL_MS: (i32, i32, i32) = (1, 0, 60_000);
/// (default, least, most) of `state_cache.wait_timeout`, in milliseconds.
const WAIT_TIMEOUT_MS: (i32, i32, i32) = (5000, 0, 3_600_000);
/// (default, least, most) of `state_cache.notify_buffer`, in kB.
const NOTIFY_BUFFER_KB: (i32, i32, i32) = (1024, 16, 1024 * 1024);
/// (default, least, most) of `state_cache.max_databases`.
const MAX_DATABASES: (i32, i32, i32) = (128, 1, 65_536);
/// (default, least, most) of `state_cache.max_workers`.
const MAX_WORKERS: (i32, i32, i32) = (4, 0, 128);
/// (default, least, most) of `state_cache.worker_idle_timeout`, in seconds.
const WORKER_IDLE_TIMEOUT_S: (i32, i32, i32) = (300, 1, 86_400);
/// (default, least, most) of `state_cache.tombstone_retention`, in seconds.
const TOMBSTONE_RETENTION_S: (i32, i32, i32) = (7 * 86_400, 0, i32::MAX);

/// (default, least, most) of `state_cache.audit_rate`, in entries per minute.
const AUDIT_RATE_BOUNDS: (i32, i32, i32) = (0, 0, 60_000);

/// (default, least, most) of `state_cache.max_delta_chain`. With 24 a cold read replays 12 deltas on average and
/// takes hardly longer than one of a whole document; the recorded sessions take a fifteenth less than with 16. 0
/// stores no deltas. The most is what L1 can carry along.
const MAX_DELTA_CHAIN_BOUNDS: (i32, i32, i32) = (24, 0, 100);

/// (default, least, most) of `state_cache.max_context_depth`.
const MAX_CONTEXT_DEPTH_BOUNDS: (i32, i32, i32) = (16, 0, 1000);
/// (default, least, most) of `state_cache.max_context_children`.
const MAX_CONTEXT_CHILDREN_BOUNDS: (i32, i32, i32) = (1000, 0, 1_000_000);

static MEMORY: GucSetting<i32> = GucSetting::<i32>::new(MEMORY_KB.0);
static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static COMPRESSION: GucSetting<bool> = GucSetting::<bool>::new(true);
static MAX_DELTA_CHAIN: GucSetting<i32> = GucSetting::<i32>::new(MAX_DELTA_CHAIN_BOUNDS.0);
static ON_CORRUPTION: GucSetting<OnCorruption> =
    GucSetting::<OnCorruption>::new(OnCorruption::Error);
static MAX_CONTEXT_DEPTH: GucSetting<i32> = GucSetting::<i32>::new(MAX_CONTEXT_DEPTH_BOUNDS.0);
static MAX_CONTEXT_CHILDREN: GucSetting<i32> =
    GucSetting::<i32>::new(MAX_CONTEXT_CHILDREN_BOUNDS.0);
static BLACKBOARD_SENSITIVITY: GucSetting<MaxSensitivity> =
    GucSetting::<MaxSensitivity>::new(MaxSensitivity::Confidential);
static STORE_SENSITIVITY: GucSetting<MaxSensitivity> =
    GucSetting::<MaxSensitivity>::new(MaxSensitivity::Pii);
static EXTERNAL_SENSITIVITY: GucSetting<MaxSensitivity> =
    GucSetting::<MaxSensitivity>::new(MaxSensitivity::Internal);
static DEDUP: GucSetting<bool> = GucSetting::<bool>::new(true);
static NOTIFY: GucSetting<Notify> = GucSetting::<Notify>::new(Notify::Auto);
static MAX_STATE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(MAX_STATE_SIZE_KB.0);
static TRACK_TIMING: GucSetting<bool> = GucSetting::<bool>::new(false);
static FLUSH_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(FLUSH_INTERVAL_MS.0);
static NOTIFY_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(NOTIFY_INTERVAL_MS.0);
static WAIT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(WAIT_TIMEOUT_MS.0);
static NOTIFY_BUFFER: GucSetting<i32> = GucSetting::<i32>::new(NOTIFY_BUFFER_KB.0);
static DATABASES: GucSetting<i32> = GucSetting::<i32>::new(MAX_DATABASES.0);
static WORKERS: GucSetting<i32> = GucSetting::<i32>::new(MAX_WORKERS.0);
static WORKER_IDLE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(WORKER_IDLE_TIMEOUT_S.0);
static TOMBSTONE_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(TOMBSTONE_RETENTION_S.0);
static AUDIT_RATE: GucSetting<i32> = GucSetting::<i32>::new(AUDIT_RATE_BOUNDS.0);
static WARM_ON_START: GucSetting<bool> = GucSetting::<bool>::new(false);

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

/// Whether snapshots are packed in classes that want it.
pub fn compression() -> bool {
    COMPRESSION.get()
}

/// How many deltas a read of a version may have to replay.
pub fn max_delta_chain() -> u32 {
    u32::try_from(MAX_DELTA_CHAIN.get()).unwrap_or(0)
}

/// How many steps a run may be away from its root.
pub fn max_context_depth() -> i32 {
    MAX_CONTEXT_DEPTH.get()
}

/// How many children a run may have, those that have ended included.
pub fn max_context_children() -> i64 {
    i64::from(MAX_CONTEXT_CHILDREN.get())
}

/// The most sensitive value that a destination of exports takes.
pub fn max_sensitivity(destination: Destination) -> Sensitivity {
    match destination {
        Destination::ParentContext => Sensitivity::Secret,
        Destination::Blackboard => BLACKBOARD_SENSITIVITY.get().into(),
        Destination::PersistentStore => STORE_SENSITIVITY.get().into(),
        Destination::ExternalSystem => EXTERNAL_SENSITIVITY.get().into(),
    }
}

/// What a read does that meets a damaged version.
pub fn on_corruption() -> OnCorruption {
    ON_CORRUPTION.get()
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

/// How old a change in a `behind` class may become before it is written, in microseconds.
pub fn flush_interval() -> i64 {
    i64::from(FLUSH_INTERVAL.get()) * 1000
}

/// The least time between two notifications of the worker, in microseconds.
pub fn notify_interval() -> i64 {
    i64::from(NOTIFY_INTERVAL.get()) * 1000
}

/// How long a read with `min_version` waits on a standby.
pub fn wait_timeout() -> Duration {
    Duration::from_millis(u64::try_from(WAIT_TIMEOUT.get()).unwrap_or(0))
}

/// Shared memory for changes that the workers have not told yet, in bytes.
pub fn notify_buffer() -> usize {
    usize::try_from(NOTIFY_BUFFER.get()).unwrap_or(0) * 1024
}

/// Databases that can have messages numbered and a worker. The value at server start.
pub fn max_databases() -> usize {
    usize::try_from(DATABASES.get()).unwrap_or(0)
}

/// Workers that may run at a time.
pub fn max_workers() -> usize {
    usize::try_from(WORKERS.get()).unwrap_or(0)
}

/// How long a worker without work stays, in microseconds.
pub fn worker_idle_timeout() -> i64 {
    i64::from(WORKER_IDLE_TIMEOUT.get()) * 1_000_000
}

/// How long a tombstone stays, in microseconds.
pub fn tombstone_retention() -> i64 {
    i64::from(TOMBSTONE_RETENTION.get()) * 1_000_000
}

/// Whether L1 is filled after a start with what it held at the last clean shutdown.
pub fn warm_on_start() -> bool {
    WARM_ON_START.get()
}

/// How many entries of L1 the worker compares in a minute; 0 for none.
pub fn audit_rate() -> u32 {
    u32::try_from(AUDIT_RATE.get()).unwrap_or(0)
}

/// A setting in whole numbers that a reload of the configuration changes.
fn define_sighup_int(
    name: &'static std::ffi::CStr,
    short: &'static std::ffi::CStr,
    long: &'static std::ffi::CStr,
    value: &'static GucSetting<i32>,
    bounds: (i32, i32, i32),
    unit: GucFlags,
) {
    let (_, least, most) = bounds;
    GucRegistry::define_int_guc(
        name,
        short,
        long,
        value,
        least,
        most,
        GucContext::Sighup,
        unit,
    );
}

/// The settings of the workers.
fn define_worker_settings(preloading: bool) {
    define_sighup_int(
        c"state_cache.flush_interval",
        c"How old a change in a behind class may become before it is written.",
        c"What a crash may lose of such classes.",
        &FLUSH_INTERVAL,
        FLUSH_INTERVAL_MS,
        GucFlags::UNIT_MS,
    );
    define_sighup_int(
        c"state_cache.notify_interval",
        c"The least time between two notifications of a worker.",
        c"Changes in between are told together.",
        &NOTIFY_INTERVAL,
        NOTIFY_INTERVAL_MS,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"state_cache.notify_buffer",
        c"Shared memory for changes that the workers have not told yet.",
        c"When a worker falls further behind, subscribers are told to drop everything. Can only be set at server \
            start.",
        &NOTIFY_BUFFER,
        NOTIFY_BUFFER_KB.1,
        NOTIFY_BUFFER_KB.2,
        if preloading {
            GucContext::Postmaster
        } else {
            GucContext::Sighup
        },
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"state_cache.max_databases",
        c"Databases that can have numbered messages and a worker.",
        c"The others are served as without preloading. Can only be set at server start.",
        &DATABASES,
        MAX_DATABASES.1,
        MAX_DATABASES.2,
        if preloading {
            GucContext::Postmaster
        } else {
            GucContext::Sighup
        },
        GucFlags::default(),
    );
    define_sighup_int(
        c"state_cache.max_workers",
        c"Workers that may run at a time, one for each database.",
        c"They count towards max_worker_processes.",
        &WORKERS,
        MAX_WORKERS,
        GucFlags::default(),
    );
    define_sighup_int(
        c"state_cache.worker_idle_timeout",
        c"How long a worker without work stays.",
        c"It is started again when there is work.",
        &WORKER_IDLE_TIMEOUT,
        WORKER_IDLE_TIMEOUT_S,
        GucFlags::UNIT_S,
    );
    define_sighup_int(
        c"state_cache.tombstone_retention",
        c"How long the tombstone of a deleted state stays.",
        c"A subscriber that was away for longer is told to drop what it holds.",
        &TOMBSTONE_RETENTION,
        TOMBSTONE_RETENTION_S,
        GucFlags::UNIT_S,
    );
    define_sighup_int(
        c"state_cache.audit_rate",
        c"How many entries of the cache the worker of a database compares in a minute with what they are copies of.",
        c"The view state_audits shows what it has found. 0 for none.",
        &AUDIT_RATE,
        AUDIT_RATE_BOUNDS,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"state_cache.warm_on_start",
        c"Fills the cache after a start with what it held at the last clean shutdown.",
        c"The worker of each database does it.",
        &WARM_ON_START,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

/// The settings of snapshots.
fn define_snapshot_settings() {
    GucRegistry::define_bool_guc(
        c"state_cache.compression",
        c"Stores snapshots as deltas and compressed keyframes.",
        c"A class can switch it off for itself; what is stored already can be read in any case.",
        &COMPRESSION,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"state_cache.wait_timeout",
        c"How long a read with min_version waits on a standby.",
        c"A primary waits for nothing.",
        &WAIT_TIMEOUT,
        WAIT_TIMEOUT_MS.1,
        WAIT_TIMEOUT_MS.2,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"state_cache.max_delta_chain",
        c"How many deltas a read of a version may have to replay.",
        c"More of them store a history in less space and make cold reads slower; 0 stores no deltas.",
        &MAX_DELTA_CHAIN,
        MAX_DELTA_CHAIN_BOUNDS.1,
        MAX_DELTA_CHAIN_BOUNDS.2,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"state_cache.on_corruption",
        c"What a read does that meets a damaged version.",
        c"error raises an error, recover answers with the newest intact version and a warning.",
        &ON_CORRUPTION,
        GucContext::Userset,
        GucFlags::default(),
    );
}

/// The settings of runs. Those who run the database set how far values may travel.
fn define_context_settings() {
    GucRegistry::define_int_guc(
        c"state_cache.max_context_depth",
        c"How many steps a run may be away from its root.",
        c"A child beyond that is refused.",
        &MAX_CONTEXT_DEPTH,
        MAX_CONTEXT_DEPTH_BOUNDS.1,
        MAX_CONTEXT_DEPTH_BOUNDS.2,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"state_cache.max_context_children",
        c"How many children a run may have.",
        c"Those that have ended count until they are deleted.",
        &MAX_CONTEXT_CHILDREN,
        MAX_CONTEXT_CHILDREN_BOUNDS.1,
        MAX_CONTEXT_CHILDREN_BOUNDS.2,
        GucContext::Suset,
        GucFlags::default(),
    );
    let destinations = [
        (
            c"state_cache.blackboard_sensitivity",
            c"The most sensitive value that a run may export to a blackboard.",
            &BLACKBOARD_SENSITIVITY,
        ),
        (
            c"state_cache.store_sensitivity",
            c"The most sensitive value that a run may export to a state of another class.",
            &STORE_SENSITIVITY,
        ),
        (
            c"state_cache.external_sensitivity",
            c"The most sensitive value that a run may export to an external system.",
            &EXTERNAL_SENSITIVITY,
        ),
    ];
    for (name, short, value) in destinations {
        GucRegistry::define_enum_guc(
            name,
            short,
            c"The order is public, internal, confidential, pii, secret.",
            value,
            GucContext::Suset,
            GucFlags::default(),
        );
    }
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
        c"auto leaves them to the worker of the database where one is there and can tell all that the commit \
          changed, and else sends them with the commit; commit sends all with the commit; worker leaves all that \
          can be left to a worker that is there; off sends none.",
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
    define_snapshot_settings();
    define_context_settings();
    define_worker_settings(preloading);
    #[cfg(feature = "fault_injection")]
    crate::fault::init();
    // SAFETY: the prefix is a NUL-terminated static; called once, after all definitions.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"state_cache".as_ptr()) };
}

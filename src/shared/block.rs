//! The block: how much of it is asked for, where it is mapped, and what is found in it.

use super::databases::{Database, Databases};
use super::fates::Fate;
use super::layout::ServerState;
use super::locks::{LwLocks, OtherLock};
use super::recent::Recent;
use super::report::{Activity, ErrorText};
use super::tags::{Tag, Tags};
use crate::error::{Error, Result};
use crate::sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, function_name, pg_sys};
use state_cache_l1::{Geometry, Key, KeyId, L1, MAX_KEY};
use state_cache_ring::Ring;
use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

/// L1 as the backends use it.
pub type SharedL1 = L1<LwLocks>;

/// The ring of changes that the workers have not told yet.
pub type SharedRing = Ring<LwLocks>;

/// Name of the memory block and of the lock tranche, as `pg_shmem_allocations` and `pg_stat_activity`
/// show them.
const NAME: &CStr = c"state_cache";
/// L1 wants its memory aligned to two cache lines, so that partitions do not share one.
const ALIGNMENT: usize = 128;
/// Locks of the tranche behind those of L1, and which one guards what.
const OTHER_LOCKS: usize = 3;
const SLOTS_LOCK: usize = 0;
const RING_LOCK: usize = 1;
const RECENT_LOCK: usize = 2;

/// Where the block is mapped. Written by [`startup`] only, in the postmaster: at the start and, because
/// the memory is set up anew, after a crash. Backends inherit it.
static MAPPED: Mapping = Mapping(UnsafeCell::new(None));

struct Mapping(UnsafeCell<Option<Mapped>>);

struct Mapped {
    state: NonNull<ServerState>,
    databases: Databases,
    l1: SharedL1,
    ring: SharedRing,
    slots_lock: OtherLock,
    recent_lock: OtherLock,
}

// SAFETY: a PostgreSQL process has one thread that runs our code.
unsafe impl Sync for Mapping {}

fn mapped() -> Option<&'static Mapped> {
    // SAFETY: written before this process was forked, and never while a reference is in use.
    unsafe { (*MAPPED.0.get()).as_ref() }
}

static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

/// Asks for the memory, if the library is being preloaded; later there is none to be had.
pub(super) fn init() {
    // SAFETY: `_PG_init` runs alone; hooks are chained as every extension does.
    unsafe {
        if pg_sys::process_shared_preload_libraries_in_progress {
            check_addin_shmem_init_lock();
            PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
            pg_sys::shmem_request_hook = Some(request);
            PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
            pg_sys::shmem_startup_hook = Some(startup);
        }
    }
}

/// L1, if the library was preloaded.
pub fn l1() -> Option<&'static SharedL1> {
    mapped().map(|mapped| &mapped.l1)
}

/// The ring of changes, if the library was preloaded.
pub fn ring() -> Option<&'static SharedRing> {
    mapped().map(|mapped| &mapped.ring)
}

pub(super) fn state() -> Option<&'static ServerState> {
    // SAFETY: the block outlives the process and holds only atomics.
    mapped().map(|mapped| unsafe { mapped.state.as_ref() })
}

/// What derived documents depend on beside their own keys, if the library was preloaded.
pub fn tags() -> Option<&'static Tags> {
    state().map(|state| &state.tags)
}

/// All documents of a derived class, likewise.
pub fn class_tag(database: u32, incarnation: u64, class: &[u8]) -> Option<&'static Tag> {
    tags().map(|tags| tags.class(key(database, incarnation, class, &[]).id.0))
}

/// A transaction is about to commit a change of a derived document; with an empty key of any of the class, with an
/// empty class of any of the database, with database 0 of any. Allocates nothing, cannot fail.
pub fn note_recent(xid: u64, database: u32, class: &[u8], key: &[u8]) {
    if let (Some(state), Some(mapped)) = (state(), mapped()) {
        let _alone = mapped.recent_lock.exclusive();
        state.recent.append(xid, database, class, key);
    }
}

/// A derived document was put into L1.
pub fn note_filled(id: KeyId) {
    if let Some(state) = state() {
        state.fates.fill(id);
    }
}

/// A change has taken a derived document out of L1. For commit callbacks.
pub fn note_changed(id: KeyId) {
    if let Some(state) = state() {
        state.fates.change(id);
    }
}

/// What became of a derived document that L1 does not hold, as far as is known.
pub fn fate(id: KeyId) -> Fate {
    state().map_or(Fate::Unknown, |state| state.fates.of(id))
}

/// The last changes of derived documents; `None` without shared memory. Asked after a snapshot was taken.
///
/// # Errors
/// `53200`.
pub fn recent() -> Result<Option<Recent>> {
    let (Some(state), Some(mapped)) = (state(), mapped()) else {
        return Ok(None);
    };
    // Nothing is allocated under the lock.
    let room = super::recent::Ring::room()?;
    let _readers = mapped.recent_lock.shared();
    Ok(Some(state.recent.copy(room)))
}

/// When this run of the server began, in microseconds since 2000; `None` without shared memory.
pub fn server_start() -> Option<u64> {
    state().map(|state| state.start.load(Ordering::Relaxed))
}

/// What is shared about this session's database; `None` without shared memory, or when more databases than
/// `state_cache.max_databases` are in use.
pub fn database() -> Option<&'static Database> {
    thread_local! {
        static MINE: std::cell::Cell<Option<&'static Database>> = const { std::cell::Cell::new(None) };
    }
    if let Some(mine) = MINE.get() {
        return Some(mine);
    }
    let (mapped, all, oid) = (mapped()?, databases()?, sys::my_database());
    let known = all.find(oid).is_some();
    let mine = all.find_or_take(oid, &mapped.slots_lock, mapped.ring.head())?;
    MINE.set(Some(mine));
    if !known {
        // A worker looks what there is to do from now on.
        mine.wake_worker();
    }
    Some(mine)
}

/// Says once in a session that there is no place for its database, if there is none.
pub fn warn_if_no_place() {
    thread_local! {
        static SAID: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
    if mapped().is_some() && database().is_none() && !SAID.replace(true) {
        let most = crate::settings::max_databases();
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("all {most} places for databases with state_cache are taken"),
            function_name!(),
        )
        .set_detail("Messages of this database carry no numbers, it has no worker, and behind classes are written \
            through.")
        .set_hint("Raise state_cache.max_databases and start the server anew.")
        .report(PgLogLevel::WARNING);
    }
}

/// This process becomes the worker of a database; whether it may.
pub fn claim(database: &Database, now: i64) -> bool {
    // SAFETY: plain globals of this process; its latch is in shared memory.
    let (pid, latch) = unsafe { (pg_sys::MyProcPid as u32, pg_sys::MyLatch) };
    let Some(lock) = slots_lock() else {
        return false;
    };
    let _alone = lock.exclusive();
    database.claim(pid, latch, now)
}

/// Says what the worker of a database is doing; an empty text for nothing.
pub fn set_activity(database: &Database, activity: &str) {
    if let Some(lock) = slots_lock() {
        let _alone = lock.exclusive();
        database.report.set_activity(activity);
    }
}

/// Counts an error of the worker of a database, to be shown in its view.
pub fn set_error(database: &Database, error: &str) {
    let now = sys::now();
    if let Some(lock) = slots_lock() {
        let _alone = lock.exclusive();
        database.report.set_error(error, now);
    }
}

/// What the worker of a database is doing, and its last error.
pub fn texts(database: &Database) -> Option<(Activity, ErrorText)> {
    let lock = slots_lock()?;
    let _readers = lock.shared();
    Some(database.report.texts())
}

/// Gives back the slot of a database that no longer exists. For commit callbacks.
pub(super) fn free_slot(oid: u32) {
    if let (Some(lock), Some(databases)) = (slots_lock(), databases()) {
        databases.free(oid, &lock);
    }
}

/// The lock of the slots; `None` without shared memory.
pub(super) fn slots_lock() -> Option<OtherLock> {
    mapped().map(|mapped| mapped.slots_lock)
}

/// What is shared about all databases; `None` without shared memory.
pub fn databases() -> Option<&'static Databases> {
    mapped().map(|mapped| &mapped.databases)
}

/// The document of a derived class as L1 knows it. No state has this name, whether the class was one of states before
/// or not: no two installations of a database have tables whose numbers are each other's complement.
///
/// A class whose name begins with NUL is none of a user's: its documents are the extension's own, and stand under an
/// incarnation of which nobody lists the entries. No two tables of a database have the same number.
pub fn derived_key<'a>(database: u32, incarnation: u64, class: &'a [u8], key: &'a [u8]) -> Key<'a> {
    let under = match class.first() {
        Some(0) => !incarnation.rotate_left(32),
        _ => incarnations(incarnation)[1],
    };
    self::key(database, under, class, key)
}

/// What is noted in L1 of the states that a document was computed from. No state has this name: no two tables of a
/// database have the same number.
pub fn reads_key<'a>(database: u32, incarnation: u64, class: &'a [u8], key: &'a [u8]) -> Key<'a> {
    self::key(database, incarnation.rotate_left(32), class, key)
}

/// Under which incarnations the entries of an installation stand in L1: its states, its derived documents.
pub fn incarnations(incarnation: u64) -> [u64; 2] {
    [incarnation, !incarnation]
}

/// The key of a state as L1 knows it. Class and key travel with their hash, so that two states with
/// the same hash are still two.
pub fn key<'a>(database: u32, incarnation: u64, class: &'a [u8], key: &'a [u8]) -> Key<'a> {
    /// What comes before a key: classes are at most 63 bytes, and text has no NUL byte.
    const BEFORE: usize = 12 + 64;
    /// A key that most are no longer than: the room for it is filled with zeros first, at each look-up.
    const SHORT: usize = 256;
    let parts = [
        &database.to_ne_bytes()[..],
        &incarnation.to_ne_bytes(),
        class,
        &[0],
        key,
    ];
    let hash = match key.len() {
        ..=SHORT => hash_of::<{ BEFORE + SHORT }>(parts),
        _ => hash_of::<{ BEFORE + MAX_KEY }>(parts),
    };
    Key {
        id: KeyId(hash),
        db: database,
        incarnation,
        class,
        key,
    }
}

/// The hash of the parts behind one another, of which the first `ROOM` bytes count.
fn hash_of<const ROOM: usize>(parts: [&[u8]; 5]) -> u128 {
    let mut bytes = [0u8; ROOM];
    let mut len = 0;
    for part in parts {
        let part = &part[..part.len().min(ROOM - len)];
        bytes[len..len + part.len()].copy_from_slice(part);
        len += part.len();
    }
    state_cache_document::hash(&bytes[..len])
}

/// Bytes of L1, rounded up so that what follows is aligned.
fn l1_bytes() -> usize {
    Geometry::for_memory(crate::settings::memory())
        .bytes()
        .next_multiple_of(ALIGNMENT)
}

/// Bytes of what is shared about each database; every slot is aligned as the block is.
fn slots_bytes() -> usize {
    crate::settings::max_databases() * size_of::<Database>()
}

/// The block: the server's state, the slots of the databases, L1, the ring.
fn bytes() -> usize {
    let ring = SharedRing::bytes(crate::settings::notify_buffer());
    size_of::<ServerState>() + slots_bytes() + l1_bytes() + ring + ALIGNMENT
}

unsafe extern "C-unwind" fn request() {
    // SAFETY: called by the postmaster at the time for requests.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST {
            previous();
        }
        pg_sys::RequestAddinShmemSpace(bytes());
        let locks = Geometry::for_memory(crate::settings::memory()).locks() + OTHER_LOCKS;
        pg_sys::RequestNamedLWLockTranche(NAME.as_ptr(), locks as i32);
    }
}

/// `AddinShmemInitLock` of `lwlocknames.h`, a macro without binding: its number among the server's own locks.
const ADDIN_SHMEM_INIT_LOCK: u16 = 21;

const _: () = assert!((ADDIN_SHMEM_INIT_LOCK as u32) < pg_sys::NUM_INDIVIDUAL_LWLOCKS);

/// Refuses a server whose lock of that number is another one.
fn check_addin_shmem_init_lock() {
    // SAFETY: the names of the server's own locks are in static memory.
    let name = unsafe {
        let name = pg_sys::GetLWLockIdentifier(pg_sys::PG_WAIT_LWLOCK, ADDIN_SHMEM_INIT_LOCK);
        CStr::from_ptr(name)
    };
    if name != c"AddinShmemInit" {
        let message =
            format!("this server's lock {ADDIN_SHMEM_INIT_LOCK} is {name:?}, not AddinShmemInit");
        Error::Internal { message }.raise();
    }
}

unsafe extern "C-unwind" fn startup() {
    // SAFETY: called with shared memory mapped; AddinShmemInitLock orders us among extensions.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            previous();
        }
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(usize::from(ADDIN_SHMEM_INIT_LOCK))).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let mut found = false;
        let block = pg_sys::ShmemInitStruct(NAME.as_ptr(), bytes(), &mut found).cast::<u8>();
        let block = block.add(block.align_offset(ALIGNMENT));
        let geometry = Geometry::for_memory(crate::settings::memory());
        let locks = LwLocks::new(pg_sys::GetNamedLWLockTranche(NAME.as_ptr()));
        let state = NonNull::new_unchecked(block.cast::<ServerState>());
        let slots = block.add(size_of::<ServerState>());
        let memory = NonNull::new_unchecked(slots.add(slots_bytes()));
        let ring = memory.add(l1_bytes());
        let l1 = if found {
            L1::attach(memory, geometry, locks)
        } else {
            std::ptr::write_bytes(block, 0, size_of::<ServerState>() + slots_bytes());
            let now = pg_sys::GetCurrentTimestamp() as u64;
            state.as_ref().start.store(now, Ordering::Relaxed);
            state.as_ref().starts.init(now);
            std::ptr::write_bytes(ring.as_ptr(), 0, SharedRing::bytes(0));
            L1::init(memory, geometry, locks)
        };
        let ring_lock = geometry.locks() + RING_LOCK;
        let ring = Ring::attach(ring, crate::settings::notify_buffer(), locks, ring_lock);
        let slots = std::slice::from_raw_parts(slots.cast(), crate::settings::max_databases());
        *MAPPED.0.get() = Some(Mapped {
            state,
            databases: Databases::new(slots, &(*state.as_ptr()).launcher),
            l1,
            ring,
            slots_lock: OtherLock::new(locks, geometry.locks() + SLOTS_LOCK),
            recent_lock: OtherLock::new(locks, geometry.locks() + RECENT_LOCK),
        });
        pg_sys::LWLockRelease(lock);
    }
}

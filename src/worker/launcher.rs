//! The launcher: the process that starts the workers. The contract is in `worker`.

use super::process::PROMOTION_WAIT;
use super::schedule::Backoff;
use super::work::work;
use crate::latch::wait;
use crate::shared::{self, Database, NEVER, Stage};
use crate::{settings, sys};
use pgrx::pg_sys::{self, BgwHandleStatus};
use pgrx::{PgLogLevel, PgSqlErrorCode, ereport};
use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, c_char};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// The longest time without a look at what is wanted.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How soon the launcher comes back when it died.
const RESTART_SECONDS: i32 = 5;
/// The longest pause after a worker died, or could not be started.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A worker that has had nothing to do for so long may go when another database wants one, in microseconds.
const IDLE_LONG_ENOUGH: i64 = 1_000_000;
/// A worker that has lived so long did not die of what it met at its start, in microseconds.
const PROVEN: i64 = 60_000_000;

/// Name and type, library and function of a background worker.
fn description(name: &CStr, function: &CStr) -> pg_sys::BackgroundWorker {
    let mut worker = pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION)
            as i32,
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_ConsistentState,
        bgw_restart_time: pg_sys::BGW_NEVER_RESTART,
        ..Default::default()
    };
    fill(&mut worker.bgw_name, name);
    fill(&mut worker.bgw_type, name);
    fill(&mut worker.bgw_library_name, c"state_cache");
    fill(&mut worker.bgw_function_name, function);
    worker
}

/// The field is zeroed and longer than the text.
fn fill(field: &mut [c_char], text: &CStr) {
    for (to, from) in field.iter_mut().zip(text.to_bytes()) {
        *to = *from as c_char;
    }
}

/// Has the server run the launcher; called when the library is preloaded.
pub fn register() {
    let mut launcher = description(c"state_cache launcher", c"state_cache_launcher_main");
    launcher.bgw_restart_time = RESTART_SECONDS;
    // SAFETY: called in the postmaster at the time for it; the description is copied. Where there is no
    // place for it the server says so in its log, and goes on.
    unsafe {
        // During pg_upgrade nobody else may be connected.
        if pg_sys::max_worker_processes > 0 && !pg_sys::IsBinaryUpgrade {
            pg_sys::RegisterBackgroundWorker(&mut launcher);
        }
    }
}

/// The launcher.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn state_cache_launcher_main(_argument: pg_sys::Datum) {
    sys::handle_worker_signals();
    // SAFETY: called by the server at the start of a background worker, in this order. Without a database
    // the shared catalogs can be read.
    unsafe {
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0);
        pg_sys::before_shmem_exit(Some(departed), pg_sys::Datum::from(0usize));
    }
    let mut in_recovery = sys::recovery_in_progress();
    if !in_recovery {
        // Before anybody can have written much.
        complain("the number of this start", shared::start::begin());
    }
    let Some(databases) = shared::databases() else {
        return;
    };
    // SAFETY: this process's own latch, which is in shared memory.
    databases.set_launcher(unsafe { pg_sys::MyLatch });
    for errand in work().errands {
        complain(errand.about, (errand.at_start)());
    }
    let mut launcher = Launcher::new(databases);
    loop {
        // SAFETY: this process's own latch; the flags are set by the handlers of signals.
        unsafe {
            pg_sys::ResetLatch(pg_sys::MyLatch);
            pgrx::check_for_interrupts!();
            if pg_sys::ShutdownRequestPending != 0 {
                for errand in work().errands {
                    complain(errand.about, (errand.at_stop)());
                }
                // Not 0, which would mean that it is not needed any more.
                pg_sys::proc_exit(1);
            }
            if std::ptr::replace(&raw mut pg_sys::ConfigReloadPending, 0) != 0 {
                pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
            }
            if pg_sys::catchupInterruptPending != 0 {
                pg_sys::ProcessCatchupInterrupt();
            }
        }
        if in_recovery && !sys::recovery_in_progress() {
            in_recovery = false;
            complain("the number of this start", shared::start::begin());
            launcher.look_into_all();
        }
        let time = launcher.look();
        wait(if in_recovery {
            time.min(PROMOTION_WAIT)
        } else {
            time
        });
    }
}

/// Warns of a file that could not be read or written. Without the number of the start, cursors of `state_changes` are
/// refused after the next one; what depends on the file of an errand, the errand says.
fn complain(what: &str, outcome: std::io::Result<()>) {
    if let Err(error) = outcome {
        pgrx::warning!("state_cache launcher: {what}: {error}");
    }
}

unsafe extern "C-unwind" fn departed(_: i32, _: pg_sys::Datum) {
    if let Some(databases) = shared::databases() {
        databases.set_launcher(std::ptr::null_mut());
    }
}

/// A worker that was asked for and has not taken its place yet.
struct Start {
    database: u32,
    handle: *mut pg_sys::BackgroundWorkerHandle,
}

struct Launcher {
    databases: &'static shared::Databases,
    /// Databases in which no worker has looked since the server's start.
    unseen: VecDeque<u32>,
    starts: Vec<Start>,
    /// Databases whose workers die.
    pauses: HashMap<u32, Backoff>,
    /// The server has no place for a process.
    exhausted: Backoff,
    /// The clock when it was last looked at, to notice when it is set back.
    clock: i64,
}

impl Launcher {
    fn new(databases: &'static shared::Databases) -> Self {
        // What an earlier launcher has begun is begun anew: a second worker leaves at once.
        for (_, slot) in databases.iter().filter(|(_, slot)| !slot.has_worker()) {
            if matches!(slot.report.stage(), Stage::Starting | Stage::Died) {
                slot.set_stage(Stage::None);
                slot.want_worker();
            }
        }
        Self {
            databases,
            unseen: connectable_databases(),
            starts: Vec::new(),
            pauses: HashMap::new(),
            exhausted: Backoff::new(LONGEST_PAUSE),
            clock: sys::now(),
        }
    }

    /// After a promotion: each database gets a worker of a primary.
    fn look_into_all(&mut self) {
        self.unseen = connectable_databases();
    }

    /// Looks at everything once; how long there is nothing more to do.
    fn look(&mut self) -> Duration {
        self.see_starts();
        self.see_deaths();
        let most = settings::max_workers();
        if most == 0 {
            // What is in the ring already only a worker can tell. When it is there it is dismissed, tells, and
            // leaves.
            let told_by_nobody = |database: &u32| {
                let slot = self.databases.find(*database);
                slot.is_some_and(Database::has_untold)
            };
            let databases: Vec<u32> = self.wanting().into_iter().filter(told_by_nobody).collect();
            for database in databases {
                self.start(database);
            }
            self.dismiss(self.busy_places(), 0);
            return LONGEST_WAIT;
        }
        self.skip_known();
        self.see_clock();
        let mut waiting = 0;
        for database in self.wanting() {
            let place = self.busy_places() < most;
            if !(place && self.start(database)) {
                waiting += 1;
                if let Some(slot) = self.databases.find(database) {
                    slot.set_stage(if place {
                        Stage::NoProcess
                    } else {
                        Stage::Queued
                    });
                }
            }
        }
        // One after the other, so that a server with many databases starts as it does without us.
        if self.starts.is_empty()
            && let Some(&database) = self.unseen.front()
        {
            if self.busy_places() < most && self.start(database) {
                self.unseen.pop_front();
            } else {
                waiting += 1;
            }
        }
        let surplus = self.busy_places().saturating_sub(most);
        let for_others = if self.busy_places() < most {
            0
        } else {
            waiting
        };
        self.dismiss(surplus, for_others);
        self.time_to_wait(for_others > 0)
    }

    /// On a clock that was set back, what is due at some time may be due long ago: the workers look.
    fn see_clock(&mut self) {
        let now = sys::now();
        if std::mem::replace(&mut self.clock, now) > now {
            for (_, slot) in self.databases.iter() {
                if slot.due() != NEVER {
                    slot.want_worker();
                }
            }
        }
    }

    /// A database that has a slot by now is served as any other: when its worker is wanted.
    fn skip_known(&mut self) {
        while let Some(slot) = self
            .unseen
            .front()
            .and_then(|oid| self.databases.find(*oid))
        {
            if !slot.has_worker() {
                slot.want_worker();
            }
            self.unseen.pop_front();
        }
    }

    /// Places that are taken: workers, and those that are on their way. One that arrives meanwhile is counted
    /// once.
    fn busy_places(&self) -> usize {
        let served: Vec<u32> = self
            .databases
            .iter()
            .filter(|(_, slot)| slot.has_worker())
            .map(|(database, _)| database)
            .collect();
        let on_their_way = self.starts.iter().map(|start| start.database);
        served.len() + on_their_way.filter(|it| !served.contains(it)).count()
    }

    fn workers(&self) -> impl Iterator<Item = &'static Database> {
        self.databases
            .iter()
            .map(|(_, slot)| slot)
            .filter(|slot| slot.has_worker())
    }

    /// Forgets the starts that have come to something.
    fn see_starts(&mut self) {
        for start in std::mem::take(&mut self.starts) {
            let slot = self.databases.find(start.database);
            let mut pid = 0;
            // SAFETY: the handle is one of this process, not freed yet.
            let status = unsafe { pg_sys::GetBackgroundWorkerPid(start.handle, &mut pid) };
            let arrived = slot.is_some_and(Database::has_worker);
            if !arrived && status != BgwHandleStatus::BGWH_STOPPED {
                self.starts.push(start);
                continue;
            }
            // SAFETY: allocated for this process, and not used again.
            unsafe { pg_sys::pfree(start.handle.cast()) };
            if let Some(slot) = slot
                && !arrived
                && slot.report.stage() == Stage::Starting
            {
                shared::set_error(
                    slot,
                    "the worker did not come up; the server's log says why",
                );
                self.pause(start.database, slot);
            }
        }
    }

    /// Lets the databases wait whose workers die, and no longer those whose workers live.
    fn see_deaths(&mut self) {
        let now = sys::now();
        for (database, slot) in self.databases.iter() {
            match slot.report.stage() {
                Stage::Died => self.pause(database, slot),
                Stage::None | Stage::NoExtension => drop(self.pauses.remove(&database)),
                Stage::Running if now - slot.report.started_at.load(SeqCst) > PROVEN => {
                    self.pauses.remove(&database);
                }
                _ => {}
            }
        }
        let databases = self.databases;
        self.pauses
            .retain(|database, _| databases.find(*database).is_some());
    }

    fn pause(&mut self, database: u32, slot: &Database) {
        self.pauses
            .entry(database)
            .or_insert_with(|| Backoff::new(LONGEST_PAUSE))
            .failed(Instant::now());
        slot.set_stage(Stage::BackingOff);
    }

    /// The databases that want a worker now.
    fn wanting(&self) -> Vec<u32> {
        let (now, instant) = (sys::now(), Instant::now());
        self.databases
            .iter()
            .filter(|(database, slot)| {
                (slot.is_wanted() || slot.due() <= now)
                    && !slot.has_worker()
                    && !slot.is_barred(now)
                    && !self.starts.iter().any(|start| start.database == *database)
                    && !self
                        .pauses
                        .get(database)
                        .is_some_and(|pause| pause.pauses(instant))
            })
            .map(|(database, _)| database)
            .collect()
    }

    /// Has the server start a worker; whether there was a place for its process.
    fn start(&mut self, database: u32) -> bool {
        if self.exhausted.pauses(Instant::now()) {
            return false;
        }
        if let Some(slot) = self.databases.find(database) {
            slot.set_stage(Stage::Starting);
        }
        let mut worker = description(c"state_cache worker", c"state_cache_worker_main");
        worker.bgw_main_arg = pg_sys::Datum::from(database as usize);
        let mut handle = std::ptr::null_mut();
        // SAFETY: the description is copied; the handle is allocated in this process, in a context that
        // lives as long.
        let registered = unsafe {
            worker.bgw_notify_pid = pg_sys::MyProcPid;
            let outer = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let registered = pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle);
            pg_sys::MemoryContextSwitchTo(outer);
            registered
        };
        if registered {
            self.exhausted.succeeded();
            self.starts.push(Start { database, handle });
        } else {
            if self.exhausted.until().is_none() {
                warn_of_exhaustion();
            }
            self.exhausted.failed(Instant::now());
        }
        registered
    }

    /// Asks workers to leave: `surplus` in any case, `for_others` more if they have nothing to do. Those that
    /// are idle longest go first.
    fn dismiss(&self, surplus: usize, for_others: usize) {
        let now = sys::now();
        let leaving = self.workers().filter(|slot| slot.is_dismissed()).count();
        let mut staying: Vec<_> = self
            .workers()
            .filter(|slot| !slot.is_dismissed())
            .map(|slot| match slot.report.idle_since.load(SeqCst) {
                0 => (NEVER, slot),
                since => (since, slot),
            })
            .collect();
        staying.sort_by_key(|(idle_since, _)| *idle_since);
        let (must, may) = (
            surplus.saturating_sub(leaving),
            (surplus + for_others).saturating_sub(leaving),
        );
        for (n, (idle_since, slot)) in staying.into_iter().enumerate() {
            let is_idle = idle_since.saturating_add(IDLE_LONG_ENOUGH) <= now;
            if n < must || n < may && is_idle {
                slot.dismiss();
            }
        }
    }

    fn time_to_wait(&self, somebody_waits: bool) -> Duration {
        let (now, instant) = (sys::now(), Instant::now());
        let due = self
            .databases
            .iter()
            .filter(|(_, slot)| !slot.has_worker())
            .flat_map(|(_, slot)| [slot.due(), slot.barred_until()])
            .filter(|time| *time > now && *time != NEVER)
            .map(|time| Duration::from_micros((time - now) as u64));
        let pauses = self
            .pauses
            .values()
            .chain([&self.exhausted])
            .filter_map(Backoff::until)
            .map(|until| until.saturating_duration_since(instant))
            .filter(|pause| !pause.is_zero());
        let settled = somebody_waits.then_some(Duration::from_micros(IDLE_LONG_ENOUGH as u64));
        due.chain(pauses)
            .chain(settled)
            .fold(LONGEST_WAIT, Duration::min)
    }
}

fn warn_of_exhaustion() {
    ereport!(
        PgLogLevel::WARNING,
        PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        "state_cache launcher: the server has no place for another background process",
        "Raise max_worker_processes; until then some databases have no state_cache worker."
    );
}

/// The databases that take connections and are no templates.
fn connectable_databases() -> VecDeque<u32> {
    let mut found = VecDeque::new();
    // SAFETY: reads a shared catalog in a transaction of its own, as the server's own launcher does; a row
    // is read before the scan goes on.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        let lock = pg_sys::AccessShareLock as i32;
        let table = pg_sys::table_open(pg_sys::DatabaseRelationId, lock);
        let scan = pg_sys::systable_beginscan(
            table,
            pg_sys::InvalidOid,
            false,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            if (*row).datallowconn && !(*row).datistemplate {
                found.push_back((*row).oid.to_u32());
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(table, lock);
        pg_sys::CommitTransactionCommand();
    }
    found
}

//! A worker: the process that serves one database. The contract is in `worker`.

use super::guard::{Failure, guarded};
use super::place::{LEAVING, SLOT, accept, activity, transaction};
use super::schedule::Scheduled;
use super::task::{Next, Round};
use super::work::work;
use crate::catalog;
use crate::error::Error;
use crate::latch::wait;
use crate::shared::{self, Database, NEVER, Stage};
use crate::{settings, sys};
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::CStr;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// The longest wait: how soon a clock that was set back, or an extension dropped unseen (by COMMIT
/// PREPARED), is noticed.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How soon a worker of a standby notices that it is promoted.
pub(super) const PROMOTION_WAIT: Duration = Duration::from_millis(200);
/// How long a worker that leaves goes on without progress.
const LEAVING_PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks meanwhile.
const LEAVING_WAIT: Duration = Duration::from_millis(50);

/// What holds in a worker whatever the configuration says: a lock that somebody else holds must not keep it
/// from noticing that it is to leave, and what it does must not depend on what users set for the database.
const SETTINGS: &[(&CStr, &CStr)] = &[
    (c"application_name", c"state_cache worker"),
    // A worker that waits for a standby does not notice that it is to leave.
    (c"synchronous_commit", c"local"),
    (c"lock_timeout", c"500ms"),
    (c"statement_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"search_path", c"pg_catalog"),
    // Policies decide where they apply to whom a change is written as.
    (c"row_security", c"on"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_deferrable", c"off"),
    (c"session_replication_role", c"origin"),
    (c"role", c"none"),
    (c"idle_session_timeout", c"0"),
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    (c"transaction_timeout", c"0"),
    // What statements mean.
    (c"transform_null_equals", c"off"),
    (c"standard_conforming_strings", c"on"),
];

/// How the worker came to leave; what its exit callback finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Departure {
    /// It has not left in order: it died.
    None,
    /// It has finished.
    Done,
    /// The extension is gone.
    NoExtension,
}

thread_local! {
    static DEPARTURE: Cell<Departure> = const { Cell::new(Departure::None) };
}

/// The worker of the database whose OID is the argument.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn state_cache_worker_main(database: pg_sys::Datum) {
    sys::handle_worker_signals();
    // SAFETY: called by the server at the start of a background worker, in this order.
    unsafe {
        pg_sys::BackgroundWorkerUnblockSignals();
        // A database that takes no connections any more may still have changes that are not written.
        pg_sys::BackgroundWorkerInitializeConnectionByOid(
            pg_sys::Oid::from(database.value() as u32),
            pg_sys::InvalidOid,
            pg_sys::BGWORKER_BYPASS_ALLOWCONN,
        );
    }
    apply_settings();
    // Asked once: what the worker takes itself for must not change by a promotion on the way.
    let in_recovery = sys::recovery_in_progress();
    let Some(slot) = take_place(in_recovery) else {
        return;
    };
    let mut worker = Worker::new(slot, in_recovery);
    let departure = worker.run();
    DEPARTURE.set(departure);
}

fn apply_settings() {
    // SAFETY: this process was authenticated as the superuser that the cluster began with, and is that again.
    unsafe { pg_sys::SetSessionAuthorization(pg_sys::BOOTSTRAP_SUPERUSERID.into(), true) };
    for (name, value) in SETTINGS {
        // SAFETY: sets this process's settings; all are known to the server, their values are valid.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

/// Becomes the worker of this database, if it has the extension and no worker yet.
fn take_place(in_recovery: bool) -> Option<&'static Database> {
    if !is_installed().unwrap_or(true) {
        // No slot is taken for a database without the extension; there may be one of earlier.
        if let Some(slot) = shared::databases().and_then(|all| all.find(sys::my_database())) {
            slot.take_wish();
            slot.set_due(NEVER);
            slot.set_stage(Stage::NoExtension);
        }
        return None;
    }
    let slot = shared::database()?;
    let now = sys::now();
    if !shared::claim(slot, now) {
        if !slot.has_worker() {
            slot.set_stage(Stage::None);
        }
        return None;
    }
    // SAFETY: registered once, in a process that ends after it.
    unsafe { pg_sys::before_shmem_exit(Some(departed), pg_sys::Datum::from(0usize)) };
    SLOT.set(Some(slot));
    slot.report.started_at.store(now, SeqCst);
    slot.report.idle_since.store(0, SeqCst);
    slot.set_telling(!in_recovery);
    slot.set_stage(Stage::Running);
    if let Some(databases) = shared::databases() {
        databases.wake_launcher();
    }
    Some(slot)
}

/// Whether the extension is there. Its tables may be renamed: then its tasks will say so.
fn is_installed() -> Result<bool, Failure> {
    guarded(|| {
        transaction(|| match catalog::installed() {
            Ok(catalog) => Ok(catalog.is_some()),
            Err(Error::NotInstalled) => Ok(true),
            Err(error) => Err(error),
        })
    })
}

/// Gives the place up, however the process ends.
unsafe extern "C-unwind" fn departed(_: i32, _: pg_sys::Datum) {
    let Some(slot) = SLOT.take() else {
        return;
    };
    slot.set_accepting(false);
    slot.set_telling(false);
    match DEPARTURE.get() {
        Departure::Done => slot.set_stage(Stage::None),
        Departure::NoExtension => slot.set_stage(Stage::NoExtension),
        Departure::None => {
            shared::set_error(slot, "the worker died; the server's log says why");
            slot.want_worker();
            slot.set_stage(Stage::Died);
        }
    }
    shared::set_activity(slot, "");
    slot.release();
    if let Some(databases) = shared::databases() {
        databases.wake_launcher();
    }
}

struct Worker {
    slot: &'static Database,
    /// It began on a standby, and leaves when that is promoted.
    in_recovery: bool,
    tasks: Vec<Scheduled>,
    /// What tasks allocate from PostgreSQL; emptied after each call.
    memory: pg_sys::MemoryContext,
    /// When something was last done.
    worked: Instant,
    /// The clock of the last round, to notice when it is set back.
    clock: i64,
    /// When the extension was last seen.
    checked: Instant,
}

impl Worker {
    fn new(slot: &'static Database, in_recovery: bool) -> Self {
        // SAFETY: a context that lives as long as the process.
        let memory = unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::TopMemoryContext,
                c"state_cache worker".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        };
        Self {
            slot,
            in_recovery,
            tasks: work().new_tasks(in_recovery).map(Scheduled::new).collect(),
            memory,
            worked: Instant::now(),
            clock: sys::now(),
            checked: Instant::now(),
        }
    }

    /// Works until it is to leave, and leaves.
    fn run(&mut self) -> Departure {
        accept(!self.in_recovery);
        activity("");
        let mut woken = true;
        loop {
            // SAFETY: this process's own latch. Reset before anything is looked at.
            unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
            let interrupted = self.handle_interrupts();
            if is_asked_to_leave(self.slot) {
                break;
            }
            if self.in_recovery && !sys::recovery_in_progress() {
                // The next one does what is to be done on a primary.
                self.slot.want_worker();
                break;
            }
            woken |= interrupted;
            woken |= self.slot.take_wish();
            let recheck = self.slot.take_recheck() || self.checked.elapsed() >= LONGEST_WAIT;
            let round = Round {
                now: sys::now(),
                leaving: false,
                recheck,
            };
            let gone =
                recheck && !self.sees_extension() || self.round(woken || recheck, round).gone;
            if gone {
                self.leave();
                return Departure::NoExtension;
            }
            if self.is_idle_for_long() && !self.slot.is_wanted() {
                break;
            }
            woken = false;
            wait(self.time_to_wait());
        }
        self.leave();
        Departure::Done
    }

    /// Serves what the server asks of every process, and reloads the settings if told to; whether it was.
    fn handle_interrupts(&mut self) -> bool {
        // Cancelling an idle worker does nothing.
        let _ = guarded(|| {
            pgrx::check_for_interrupts!();
            // SAFETY: outside a transaction; what an idle session does too.
            unsafe {
                if pg_sys::catchupInterruptPending != 0 {
                    pg_sys::ProcessCatchupInterrupt();
                }
            }
            Ok(())
        });
        // SAFETY: a flag that the signal's handler sets.
        let reload = unsafe { std::ptr::replace(&raw mut pg_sys::ConfigReloadPending, 0) != 0 };
        if reload {
            let _ = guarded(|| {
                // SAFETY: reads the configuration files, outside a transaction.
                unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
                Ok(())
            });
        }
        reload
    }

    /// Calls the tasks that are due.
    fn round(&mut self, woken: bool, round: Round) -> Outcome {
        let Round { now, leaving, .. } = round;
        // What was due at some time may be due long ago on a clock that was set back.
        let woken = woken || now < self.clock;
        self.clock = now;
        let mut outcome = Outcome::default();
        for n in 0..self.tasks.len() {
            if self.tasks[n].is_due(now, woken, leaving) {
                self.call(n, round, &mut outcome);
            }
        }
        if outcome.called {
            activity("");
        }
        if outcome.worked || self.holds_work() {
            self.worked = Instant::now();
            self.slot.report.idle_since.store(0, SeqCst);
        } else if self.slot.report.idle_since.load(SeqCst) == 0 {
            self.slot.report.idle_since.store(now, SeqCst);
            // SAFETY: outside a transaction: what was counted shows while nothing happens.
            unsafe { pg_sys::pgstat_report_stat(true) };
        }
        outcome
    }

    fn call(&mut self, n: usize, round: Round, outcome: &mut Outcome) {
        let task = &mut self.tasks[n];
        activity(task.name());
        // SAFETY: the context is this worker's own. A transaction that wrote something moves the end of the
        // last commit record.
        let written = unsafe {
            pg_sys::MemoryContextSwitchTo(self.memory);
            pg_sys::XactLastCommitEnd
        };
        let said = guarded(|| task.call(round));
        // SAFETY: as above.
        unsafe {
            pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            pg_sys::MemoryContextReset(self.memory);
            outcome.worked |= pg_sys::XactLastCommitEnd != written;
        }
        outcome.called = true;
        match said {
            Ok(next) => {
                outcome.worked |= next == Next::Now;
                task.said(Some(next));
            }
            Err(failure) => {
                task.said(None);
                // It is no error to have been called a moment too late, or while the extension was created anew. The
                // server may notice first: a statement finds that the table is gone on which it has waited.
                let no_tables = failure.not_installed || failure.is_undefined_table();
                if no_tables && !self.sees_extension() {
                    outcome.gone = true;
                } else if !no_tables || self.tasks[n].found_no_tables() {
                    self.tell(n, &failure);
                }
            }
        }
    }

    /// Shows an error, and logs it unless the task's last one was the same.
    fn tell(&mut self, n: usize, failure: &Failure) {
        let text = format!("{}: {failure}", self.tasks[n].name());
        shared::set_error(self.slot, &text);
        let task = &mut self.tasks[n];
        if task.logged.as_ref() != Some(&text) {
            let _ = guarded(|| {
                pgrx::warning!("state_cache worker: {text}");
                Ok(())
            });
            task.logged = Some(text);
        }
    }

    fn sees_extension(&mut self) -> bool {
        self.checked = Instant::now();
        // Not knowing is no reason to leave.
        is_installed().unwrap_or(true)
    }

    fn holds_work(&self) -> bool {
        self.tasks.iter().any(Scheduled::holds_work)
    }

    fn is_idle_for_long(&self) -> bool {
        let timeout = Duration::from_micros(settings::worker_idle_timeout() as u64);
        self.slot.report.idle_since.load(SeqCst) != 0 && self.worked.elapsed() >= timeout
    }

    fn time_to_wait(&self) -> Duration {
        let timeout = Duration::from_micros(settings::worker_idle_timeout() as u64);
        let now = sys::now();
        self.tasks
            .iter()
            .filter_map(|task| task.wait(now))
            .chain([timeout.saturating_sub(self.worked.elapsed()), LONGEST_WAIT])
            .chain(self.in_recovery.then_some(PROMOTION_WAIT))
            .min()
            .unwrap_or(LONGEST_WAIT)
    }

    /// Finishes what only this worker can do, as long as there is progress, and says what it leaves.
    fn leave(&mut self) {
        LEAVING.set(true);
        self.slot.set_accepting(false);
        self.slot.set_telling(false);
        self.slot.set_stage(Stage::Leaving);
        let (mut progress, mut held) = (Instant::now(), usize::MAX);
        loop {
            // SAFETY: this process's own latch.
            unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
            self.handle_interrupts();
            // Before the round: who is through by then has left behind all that it will.
            let committing = self.slot.has_committing();
            let outcome = self.round(
                true,
                Round {
                    now: sys::now(),
                    leaving: true,
                    recheck: false,
                },
            );
            let holding = self.tasks.iter().filter(|task| task.holds_work()).count();
            if holding == 0 && !committing {
                break;
            }
            if outcome.worked || holding < held {
                progress = Instant::now();
            }
            held = holding;
            if progress.elapsed() > LEAVING_PATIENCE {
                break;
            }
            if !self.tasks.iter().any(Scheduled::is_busy) {
                wait(LEAVING_WAIT);
            }
        }
        let due = self.tasks.iter().filter_map(Scheduled::due).min();
        self.slot.set_due(due.unwrap_or(NEVER));
        if self.holds_work() {
            self.slot.want_worker();
        }
    }
}

/// What came of a round.
#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    /// A task was called.
    called: bool,
    /// A task did something.
    worked: bool,
    /// The extension is gone, as a task found out.
    gone: bool,
}

fn is_asked_to_leave(slot: &Database) -> bool {
    // SAFETY: a flag that the signal's handler sets.
    let terminated = unsafe { pg_sys::ShutdownRequestPending != 0 };
    terminated || slot.is_dismissed() || slot.is_barred(sys::now())
}

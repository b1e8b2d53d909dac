//! Points at which a test can stop or kill a backend, and steps of the protocol that it can leave out.
//!
//! Compiled in with the feature `fault_injection` only; without it the macros are nothing. Each session
//! sets its own points, so that a test decides who stops where:
//!
//! - `state_cache.test_stop_at = 'marked'`: the session waits at that point for the advisory lock
//!   (5202, number of the point), which the test holds.
//! - `state_cache.test_kill_at`: it kills itself there, as `kill -9` would.
//! - `state_cache.test_fail_at`: it fails there, as it would were the notification queue full. Only for points
//!   before the commit record.
//! - `state_cache.test_panic_at`: it panics there, as a defect in our code would.
//! - `state_cache.test_refuse_memory = n`: in each call of ours the `n`-th request for more memory than the reserve
//!   serves (see `memory`) is refused.
//! - `state_cache.test_unsafe`: it leaves out a step, to show that a test notices.
//! - `state_cache.test_write_rows`: `statement`: it writes every row by a statement; `direct`: it writes none by a
//!   statement, whatever users have put on the tables, to show that a test notices.
//!
//! `state_cache.test_task`, in the configuration file, says what a task of every worker does; see
//! `worker::probe`.

/// Stops or kills the backend here if the session asked for it.
macro_rules! stop_at {
    ($point:ident) => {
        #[cfg(feature = "fault_injection")]
        $crate::fault::injection::reach($crate::fault::injection::Point::$point);
    };
}
pub(crate) use stop_at;

/// Whether the session leaves out a step of the protocol. Never without the feature.
macro_rules! leaves_out {
    ($step:ident) => {{
        #[cfg(feature = "fault_injection")]
        let left_out = $crate::fault::injection::leaves_out($crate::fault::injection::Step::$step);
        #[cfg(not(feature = "fault_injection"))]
        let left_out = false;
        left_out
    }};
}
pub(crate) use leaves_out;

/// Whether the session is told to write rows without a statement, or by one. Never without the feature.
macro_rules! way_of_writing {
    () => {{
        #[cfg(feature = "fault_injection")]
        let way = $crate::fault::injection::way_of_writing();
        #[cfg(not(feature = "fault_injection"))]
        let way: Option<bool> = None;
        way
    }};
}
pub(crate) use way_of_writing;

/// Whether the allocator refuses this request because the session asked for it.
macro_rules! refuses_memory {
    () => {{
        #[cfg(feature = "fault_injection")]
        let refuses = $crate::fault::injection::refuses_memory();
        #[cfg(not(feature = "fault_injection"))]
        let refuses = false;
        refuses
    }};
}
pub(crate) use refuses_memory;

/// From here on the requests for memory are counted, of which one is refused.
macro_rules! begin_refusing {
    () => {
        #[cfg(feature = "fault_injection")]
        $crate::fault::injection::begin_refusing();
    };
}
pub(crate) use begin_refusing;

#[cfg(feature = "fault_injection")]
pub use injection::init;

#[cfg(feature = "fault_injection")]
pub mod injection {
    //! What the macros call.

    use pgrx::pg_sys;
    use pgrx::{
        GucContext, GucFlags, GucRegistry, GucSetting, PgLogLevel, PgSqlErrorCode, PostgresGucEnum,
        ereport,
    };
    use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

    /// Where a backend can be stopped or killed. The numbers are those of the advisory locks.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
    #[repr(u32)]
    pub enum Point {
        /// Nowhere.
        #[name = c""]
        Nowhere = 0,
        /// L3 is written, nothing is marked yet.
        #[name = c"after_flush"]
        AfterFlush = 1,
        /// `writers` is raised, the commit record not written.
        #[name = c"marked"]
        Marked = 2,
        /// The commit is visible to others, L1 not yet published.
        #[name = c"visible"]
        Visible = 3,
        /// A filler has read L3 and not yet inserted.
        #[name = c"before_fill"]
        BeforeFill = 4,
        /// A flush has read a dirty version and not yet written it.
        #[name = c"before_behind"]
        BeforeBehind = 5,
        /// Messages are numbered and queued, the commit record is not written.
        #[name = c"told"]
        Told = 8,
        /// A flush has looked at a state's class and taken the locks that it calls for, and nothing else.
        #[name = c"class_known"]
        ClassKnown = 6,
        /// The row of a hold is there, no counter has counted it.
        #[name = c"hold_made"]
        HoldMade = 10,
        /// One account has counted a hold.
        #[name = c"hold_counted_once"]
        HoldCountedOnce = 11,
        /// All accounts have counted a hold.
        #[name = c"hold_counted"]
        HoldCounted = 12,
        /// The row of a hold says what it has cost, no counter does.
        #[name = c"hold_settled"]
        HoldSettled = 13,
        /// One account is charged what a hold has cost.
        #[name = c"hold_charged_once"]
        HoldChargedOnce = 14,
        /// All accounts are charged what a hold has cost.
        #[name = c"hold_charged"]
        HoldCharged = 15,
        /// A price was learned from what a hold has cost, if one was.
        #[name = c"price_learned"]
        PriceLearned = 16,
        /// Counters count expired holds no longer, whose rows do not say so.
        #[name = c"holds_released"]
        HoldsReleased = 17,
        /// The rows of expired holds say so.
        #[name = c"holds_expired"]
        HoldsExpired = 18,
        /// A budget that is redefined is locked.
        #[name = c"budget_locked"]
        BudgetLocked = 19,
        /// A budget is redefined, its allotments are not made anew.
        #[name = c"budget_defined"]
        BudgetDefined = 20,
        /// The allotments of a budget that is redefined are made anew.
        #[name = c"budget_allotted"]
        BudgetAllotted = 21,
        /// Costs are written that no counter has counted.
        #[name = c"costs_written"]
        CostsWritten = 22,
        /// Ended holds and old costs are deleted, and their sums kept.
        #[name = c"costs_pruned"]
        CostsPruned = 23,
        /// Some tasks of a job that is gone are deleted.
        #[name = c"left_tasks_deleted"]
        LeftTasksDeleted = 24,
        /// A worker has begun, and not taken the list of what L1 held before.
        #[name = c"list_wanted"]
        ListWanted = 25,
        /// The row of a version that is stored as a delta is read, those that it builds upon are not.
        #[name = c"chain"]
        Chain = 9,
    }

    /// A step of the protocol.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
    pub enum Step {
        /// None.
        #[name = c""]
        None,
        /// Raising `writers` before the commit.
        #[name = c"no_writers"]
        WritersMark,
        /// Checking the stripe before a fill.
        #[name = c"no_generation"]
        GenerationCheck,
        /// Comparing an entry with the head row before it answers a validated read.
        #[name = c"no_validation"]
        Validation,
        /// Reading the head row at SERIALIZABLE, with the predicate locks for it, before L1 answers.
        #[name = c"no_predicate_locks"]
        PredicateLocks,
        /// Filling under a snapshot of one's own.
        #[name = c"fill_under_caller_snapshot"]
        FreshSnapshot,
        /// Taking the lock of a state before its next version is decided upon.
        #[name = c"no_state_lock"]
        StateLock,
        /// Writing the rows of a state that is written by itself.
        #[name = c"no_row_write"]
        RowWrite,
        /// Looking, before the commit record, whether a class that was written through is a `behind` class
        /// now.
        #[name = c"no_class_check"]
        ClassCheck,
        /// Asking, when a commit is published, whether others have published since its mark was raised.
        #[name = c"no_publish_order"]
        PublishOrder,
        /// Asking whether the class, or a definition, has changed since an entry of a derived class was filled.
        #[name = c"no_derived_digest"]
        DerivedDigest,
        /// Asking whether the snapshot was taken before the one that an entry of a derived class was filled under.
        #[name = c"no_derived_moment"]
        DerivedMoment,
        /// Asking whether entries of a derived class were evicted by request while a document was computed.
        #[name = c"no_derived_eviction"]
        DerivedEviction,
        /// Noting what a document of a derived class depends on that is read within another one.
        #[name = c"no_derived_within"]
        DerivedWithin,
        /// Locking the accounts of a hold before its time is looked at, to be extended.
        #[name = c"no_budget_extend_lock"]
        BudgetExtendLock,
        /// Staging what a change does to the counts of a job as an increment, which is applied again at the flush.
        #[name = c"no_job_increments"]
        JobIncrements,
        /// Locking a restored job before its tasks are counted.
        #[name = c"no_job_lock"]
        JobLock,
        /// Ending the last use of the batch before the commit record.
        #[name = c"batch_in_use"]
        EndOfUse,
    }

    /// How rows are written.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
    pub enum Way {
        /// Without a statement where that comes to the same.
        #[name = c"auto"]
        Auto,
        /// By a statement.
        #[name = c"statement"]
        Statement,
        /// Without a statement, whatever comes of that.
        #[name = c"direct"]
        Direct,
    }

    /// What the probe task of a worker does.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
    pub enum Probe {
        /// Nothing.
        #[name = c"off"]
        Off,
        /// Fails with an error of the server.
        #[name = c"error"]
        Error,
        /// Panics.
        #[name = c"panic"]
        Panic,
        /// Ends its process with FATAL.
        #[name = c"fatal"]
        Fatal,
        /// Waits for the lock on a table.
        #[name = c"lock"]
        Lock,
        /// Is due two seconds after it was called.
        #[name = c"due"]
        Due,
        /// Has work until the worker leaves, and does it then.
        #[name = c"hold"]
        Hold,
        /// Has work that never ends.
        #[name = c"stuck"]
        Stuck,
        /// Nothing, and the worker has no upkeep: what is due by the clock stays until a test takes it away.
        #[name = c"no_upkeep"]
        NoUpkeep,
    }

    static PROBE: GucSetting<Probe> = GucSetting::<Probe>::new(Probe::Off);
    static STOP_AT: GucSetting<Point> = GucSetting::<Point>::new(Point::Nowhere);
    static KILL_AT: GucSetting<Point> = GucSetting::<Point>::new(Point::Nowhere);
    static PANIC_AT: GucSetting<Point> = GucSetting::<Point>::new(Point::Nowhere);
    static FAIL_AT: GucSetting<Point> = GucSetting::<Point>::new(Point::Nowhere);
    static UNSAFE: GucSetting<Step> = GucSetting::<Step>::new(Step::None);

    static WRITE_ROWS: GucSetting<Way> = GucSetting::<Way>::new(Way::Auto);
    static REFUSE: GucSetting<i32> = GucSetting::<i32>::new(0);
    /// How many requests for memory were made since the call began.
    static ASKED: AtomicI32 = AtomicI32::new(0);

    /// Whether this request for memory, which is not a small one, is the one that is refused.
    pub fn refuses_memory() -> bool {
        ASKED.fetch_add(1, Relaxed) + 1 == REFUSE.get()
    }

    /// Counts anew.
    pub fn begin_refusing() {
        ASKED.store(0, Relaxed);
    }

    /// First half of the advisory locks' keys.
    const LOCK_SPACE: u32 = 5202;

    /// Registers the settings.
    pub fn init() {
        GucRegistry::define_enum_guc(
            c"state_cache.test_stop_at",
            c"Where this session stops.",
            c"For tests of races.",
            &STOP_AT,
            GucContext::Userset,
            GucFlags::default(),
        );
        GucRegistry::define_enum_guc(
            c"state_cache.test_kill_at",
            c"Where this session kills itself.",
            c"For tests of crashes.",
            &KILL_AT,
            GucContext::Userset,
            GucFlags::default(),
        );
        GucRegistry::define_enum_guc(
            c"state_cache.test_fail_at",
            c"Where this session fails.",
            c"For tests of errors.",
            &FAIL_AT,
            GucContext::Userset,
            GucFlags::default(),
        );
        GucRegistry::define_int_guc(
            c"state_cache.test_refuse_memory",
            c"Which request for memory this session refuses in each call.",
            c"For tests of errors.",
            &REFUSE,
            0,
            i32::MAX,
            GucContext::Userset,
            GucFlags::default(),
        );
        GucRegistry::define_enum_guc(
            c"state_cache.test_panic_at",
            c"Where this session panics.",
            c"For tests of defects.",
            &PANIC_AT,
            GucContext::Userset,
            GucFlags::default(),
        );
        GucRegistry::define_enum_guc(
            c"state_cache.test_unsafe",
            c"Which step of the protocol this session leaves out.",
            c"For tests that must be able to fail.",
            &UNSAFE,
            GucContext::Userset,
            GucFlags::default(),
        );
        GucRegistry::define_enum_guc(
            c"state_cache.test_write_rows",
            c"How this session writes rows of the tables.",
            c"For tests of both ways.",
            &WRITE_ROWS,
            GucContext::Userset,
            GucFlags::default(),
        );
        GucRegistry::define_enum_guc(
            c"state_cache.test_task",
            c"What the probe task of a worker does.",
            c"For tests of workers.",
            &PROBE,
            GucContext::Sighup,
            GucFlags::default(),
        );
    }

    /// What the probe task does.
    pub fn probe() -> Probe {
        PROBE.get()
    }

    /// Whether rows are to be written without a statement, if the session says so.
    pub fn way_of_writing() -> Option<bool> {
        match WRITE_ROWS.get() {
            Way::Auto => None,
            Way::Statement => Some(false),
            Way::Direct => Some(true),
        }
    }

    /// Whether the session leaves out `step`.
    pub fn leaves_out(step: Step) -> bool {
        UNSAFE.get() == step
    }

    /// The backend is at `point`.
    pub fn reach(point: Point) {
        if KILL_AT.get() == point {
            // SAFETY: ends this process at once, which is the purpose.
            unsafe { kill(std::process::id() as i32, 9) };
        }
        if STOP_AT.get() == point {
            wait(point);
        }
        if PANIC_AT.get() == point {
            #[expect(clippy::panic, reason = "the purpose of the setting")]
            std::panic::panic_any("told to panic");
        }
        if FAIL_AT.get() == point {
            ereport!(
                PgLogLevel::ERROR,
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                "told to fail"
            );
        }
    }

    unsafe extern "C" {
        fn kill(pid: i32, signal: i32) -> i32;
    }

    /// Waits for an advisory lock that the test holds, so that it is seen to be blocked by the test.
    fn wait(point: Point) {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: crate::sys::my_database(),
            locktag_field2: LOCK_SPACE,
            locktag_field3: point as u32,
            locktag_field4: 2,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        };
        let mode = pg_sys::ExclusiveLock as i32;
        // SAFETY: a session lock needs no resource owner, so it can be had while a transaction ends.
        unsafe {
            pg_sys::LockAcquire(&tag, mode, true, false);
            pg_sys::LockRelease(&tag, mode, true);
        }
    }
}

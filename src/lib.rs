//! state_cache: a transactional state store for agent and workflow runtimes, with an exact cache in
//! shared memory. README.md and docs/ say what it does; the header of each room says how.
//!
//! Reading goes `sql` → `transaction` (the transaction's own changes) → `cache` → `store`; writing
//! goes `sql` → `transaction` → `store` → `cache` → `notify`.

mod behind;
mod budgets;
mod cache;
mod call;
mod callback;
mod catalog;
mod causal;
mod changes;
mod claims;
mod context;
mod counters;
mod derived;
mod encoding;
mod error;
mod error_context;
mod fault;
mod identity;
mod interval;
mod jobs;
mod json_text;
mod keys;
mod latch;
mod logs;
mod memory;
mod money;
mod name;
mod notify;
mod reserve;
mod settings;
mod shared;
mod snapshot;
mod snapshots;
mod sql;
mod store;
mod subtransaction;
mod sys;
mod transaction;
mod upkeep;
mod user_lock;
mod varlena;
mod versions;
mod worker;

/// What `#[pg_guard]` on a hand-declared block (in `sys`) expands to.
mod ffi {
    pub use pgrx::pg_sys::submodules::ffi::pg_guard_ffi_boundary;
}

::pgrx::pg_module_magic!(name, version);

// The installation script is written by hand: what it says is the contract with users.
::pgrx::extension_sql_file!("../sql/state_cache--0.2.0.sql", name = "install", bootstrap);

/// What takes part in a transaction beside the core: one line for each.
static CAPABILITIES: &[&dyn transaction::Capability] = &[
    &context::Runs,
    &claims::Claims,
    &jobs::Jobs,
    &changes::Traces,
    &snapshots::Recovery,
];

/// What the workers do: one line for each task.
static WORK: worker::Work = worker::Work {
    tasks: &[
        worker::new_task::<changes::Starts>,
        worker::new_task::<notify::Teller>,
        || Box::new(behind::Flusher::new(transaction::write_back)),
    ],
    upkeep: &[
        worker::new_task::<upkeep::Expiry>,
        worker::new_task::<jobs::Leftovers>,
        worker::new_task::<budgets::Expired>,
        worker::new_task::<upkeep::Retention>,
        worker::new_task::<budgets::Pruned>,
        worker::new_task::<upkeep::Warm>,
        worker::new_task::<upkeep::Protections>,
        worker::new_task::<derived::Auditor>,
    ],
    errands: &[upkeep::RESIDENT],
};

/// Called when the server loads the library: with shared memory if it is preloaded, without it later.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::init();
    shared::init();
    catalog::init();
    transaction::init(CAPABILITIES);
    worker::init(&WORK);
    derived::init();
}

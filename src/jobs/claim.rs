//! Handing tasks out to agents.
//!
//! **A claim** starts tasks under a token that was never given out, and a lease. Until the lease is over nobody else
//! can claim the tasks; after that anybody can, and what then comes under the old token fails (40001). The rows are
//! locked with SKIP LOCKED: two claims never wait for each other, and never hand out the same task.
//!
//! **In order.** Of a job first tasks whose lease is over, then those that name the agent, then those that name none,
//! each in the order in which they were added. **Fair among jobs:** a session that names no job serves one job after
//! the other, in the order of their names and beginning anywhere ([`Turn`]); a call goes on to the next job only for
//! what the job before could not give.
//!
//! **Attempts.** A task whose lease is over and that was started as often as its job allows has failed: the claim
//! that comes upon it says so in its `error`, and hands out another one.

use super::class::JOB;
use super::edit::stage;
use super::error::{JobError, of_shape};
use super::job::{self, open};
use super::rows;
use super::update::{changing, check_token, exhausted};
use crate::cache::StateRef;
use crate::call::{self, Call, Rows, sql_functions};
use crate::catalog::{self, Catalog};
use crate::context;
use crate::error::{Error, Result, text};
use crate::store::{self, TaskChange, TaskClaim, Whose};
use crate::{interval, memory, shared, sys, transaction};
use pgrx::pg_sys;
use state_cache_jobs::{Change, Counts, MAX_NAME, Status};
use state_cache_memory::{boxed, collect};
use std::cell::{OnceCell, RefCell};
use std::ffi::CStr;
use std::rc::Rc;

/// Tasks that one call hands out at most.
const MAX_TASKS: i32 = 10_000;
/// Jobs that one call looks into at most.
const MAX_JOBS: i64 = 64;
/// Leases that are over, among which a call looks for jobs.
const MAX_LAPSED: i64 = 1000;

/// The job that this session has served last, where it names none.
#[derive(Default)]
struct Turn(RefCell<Option<Box<[u8]>>>);

impl Turn {
    fn of(catalog: &Catalog) -> &Self {
        catalog.attached()
    }
}

/// What a call hands out, and under which claim.
struct Desk<'a> {
    catalog: Rc<Catalog>,
    agent: &'a [u8],
    lease: pg_sys::Interval,
    left: i64,
    now: i64,
    /// Drawn for the first task.
    token: OnceCell<i64>,
    rows: Rows,
}

impl Desk<'_> {
    fn token(&self) -> Result<i64> {
        if let Some(token) = self.token.get() {
            return Ok(*token);
        }
        let sequence = self.catalog.relation(c"state_task_token")?;
        let _owner = crate::identity::Impersonation::owner_of(self.catalog.task);
        Ok(*self.token.get_or_init(|| context::draw(sequence)))
    }

    /// Hands out tasks of a job, as many as are left to be handed out.
    fn serve(&mut self, state: &StateRef<'_>, function: &CStr) -> Result<()> {
        let max_attempts = {
            let document = job::read_latest(state)?;
            let job = open(state, &document)?;
            job.max_attempts()
                .map_err(|error| of_shape(state.key, error))?
        };
        let mut counts = Counts::default();
        {
            let _owner = rows::of_tasks(&state.catalog);
            let lapsed = store::lock_lapsed(&self.catalog, state.key, self.agent, self.left)?;
            let (failed, again): (Vec<_>, Vec<_>) = lapsed
                .into_iter()
                .partition(|task| task.attempts >= max_attempts);
            self.fail(state, &failed, &mut counts)?;
            self.start(state, &again, (Status::Running, max_attempts), &mut counts)?;
            for whose in [Whose::Own, Whose::Anyones] {
                if self.left > 0 {
                    let (key, agent) = (state.key, self.agent);
                    let waiting = store::lock_waiting(&self.catalog, key, agent, whose, self.left)?;
                    self.start(
                        state,
                        &waiting,
                        (Status::Pending, max_attempts),
                        &mut counts,
                    )?;
                }
            }
        }
        match counts.is_zero() {
            true => Ok(()),
            false => stage(state, Change::Count(counts), function),
        }
    }

    /// Starts tasks that are locked.
    fn start(
        &mut self,
        state: &StateRef<'_>,
        tasks: &[store::LockedTask],
        (before, max_attempts): (Status, i32),
        counts: &mut Counts,
    ) -> Result<()> {
        if tasks.is_empty() {
            return Ok(());
        }
        let claim = TaskClaim {
            agent: self.agent,
            token: self.token()?,
            lease_until: interval::after(self.now, &self.lease),
            now: self.now,
        };
        // If nobody claims anything any more, the worker ends what was the last attempt.
        if tasks
            .iter()
            .any(|task| task.attempts.saturating_add(1) >= max_attempts)
            && let Some(database) = shared::database()
        {
            database.need_worker_by(claim.lease_until);
        }
        let names = tasks.iter().map(|task| &*task.task_id);
        let (rows, left) = (&mut self.rows, &mut self.left);
        let mut wrong = Ok(());
        store::hand_out_tasks(
            &self.catalog,
            state.key,
            names,
            &claim,
            |status, columns| {
                match job::status(state, status) {
                    Ok(status) => counts.moves(before, status),
                    Err(error) => wrong = Err(error),
                }
                *left -= 1;
                rows.push(columns);
            },
        )?;
        wrong
    }

    /// Ends tasks that were started too often, and are locked.
    fn fail(
        &self,
        state: &StateRef<'_>,
        tasks: &[store::LockedTask],
        counts: &mut Counts,
    ) -> Result<()> {
        fail(state, tasks, self.now, counts)
    }
}

/// Ends tasks that were started too often, and are locked.
pub fn fail(
    state: &StateRef<'_>,
    tasks: &[store::LockedTask],
    now: i64,
    counts: &mut Counts,
) -> Result<()> {
    let Some(first) = tasks.first() else {
        return Ok(());
    };
    let errors = collect(tasks.iter().map(|task| exhausted(task.attempts, None)))?;
    let mut changes = state_cache_memory::with_capacity(tasks.len())?;
    for (task, error) in tasks.iter().zip(errors) {
        changes.push((task, error?));
    }
    debug_assert!(first.attempts > 0);
    let changes = collect(changes.iter().map(|(task, error)| TaskChange {
        task_id: &task.task_id,
        status: Status::Failed.name().as_bytes(),
        attempts: task.attempts,
        result: None,
        error: Some(error.as_slice()),
    }))?;
    for (_, status) in store::update_tasks(&state.catalog, state.key, &changes, now)? {
        counts.moves(Status::Running, job::status(state, &status)?);
    }
    Ok(())
}

/// The jobs that a call without a name looks into, in their turn.
fn in_turn(catalog: &Catalog, agent: &[u8]) -> Result<Vec<Box<[u8]>>> {
    let last = Turn::of(catalog).0.borrow().clone();
    let _owner = rows::of_tasks(catalog);
    let mut jobs = store::jobs_with_lapsed(catalog, MAX_LAPSED)?;
    let lapsed = jobs.len();
    let waiting = |after: &[u8]| -> Result<Vec<Box<[u8]>>> {
        let mut waiting = store::jobs_with_waiting(catalog, after, agent, Whose::Own, MAX_JOBS)?;
        waiting.extend(store::jobs_with_waiting(
            catalog,
            after,
            agent,
            Whose::Anyones,
            MAX_JOBS,
        )?);
        waiting.sort_unstable();
        waiting.dedup();
        Ok(waiting)
    };
    match last {
        Some(last) => {
            jobs.extend(waiting(&last)?);
            // From the beginning again, up to the one that was last.
            if (jobs.len() as i64) < MAX_JOBS {
                jobs.extend(waiting(b"")?);
            }
        }
        None => {
            let mut all = waiting(b"")?;
            if !all.is_empty() {
                let anywhere = (sys::now().unsigned_abs() >> 4) as usize % all.len();
                all.rotate_left(anywhere);
            }
            jobs.extend(all);
        }
    }
    // Each once; a job whose leases are over has its turn as well.
    let mut seen = std::collections::HashSet::new();
    jobs.retain(|job| seen.insert(job.clone()));
    jobs.truncate(MAX_JOBS as usize + lapsed);
    Ok(jobs)
}

/// A lease that somebody asks for.
fn lease(call: &Call<'_>, n: usize) -> Result<pg_sys::Interval> {
    let lease = call
        .interval(n)
        .ok_or_else(|| Error::null_argument("lease"))?;
    interval::check_positive("lease", &lease, "state_job_renew_tasks() prolongs a lease.")?;
    Ok(lease)
}

fn agent<'a>(call: &Call<'a>, n: usize) -> Result<&'a [u8]> {
    let agent = call.required_text(n, "agent")?;
    if agent.is_empty() || agent.len() > MAX_NAME {
        return Err(Error::argument(format!(
            "agent must have 1 to {MAX_NAME} bytes"
        )));
    }
    Ok(agent)
}

sql_functions! {
    /// `state_job_claim_tasks(agent, limit, lease, job_id)`
    fn state_job_claim_tasks(call) {
        const FUNCTION: &CStr = c"state_job_claim_tasks()";
        let agent = agent(call, 0)?;
        let limit = call.integer(1).ok_or_else(|| Error::null_argument("limit"))?;
        if !(1..=MAX_TASKS).contains(&limit) {
            return Err(Error::argument(format!("limit must be between 1 and {MAX_TASKS}: {limit}")));
        }
        let lease = lease(call, 2)?;
        let catalog = catalog::current(call.function())?;
        let named = match call.text(3) {
            Some(job) => Some(StateRef::new(&catalog, JOB, job)?),
            None => None,
        };
        transaction::check_may_write(&catalog, FUNCTION)?;
        let mut desk = Desk {
            catalog: Rc::clone(&catalog),
            agent,
            lease,
            left: i64::from(limit),
            now: sys::now(),
            token: OnceCell::new(),
            rows: call.rows()?,
        };
        if let Some(state) = named {
            transaction::check_may_change(&state, FUNCTION)?;
            desk.serve(&state, FUNCTION)?;
            return Ok(call::void_datum());
        }
        for name in in_turn(&catalog, agent)? {
            memory::check()?;
            let state = StateRef::new(&catalog, JOB, &name)?;
            // A job that the caller does not see, or that is gone and has left tasks.
            if !job::is_there(&state)? {
                continue;
            }
            transaction::check_may_change(&state, FUNCTION)?;
            let before = desk.left;
            desk.serve(&state, FUNCTION)?;
            if desk.left < before {
                Turn::of(&catalog).0.replace(Some(boxed(&name)?));
            }
            if desk.left == 0 {
                break;
            }
        }
        Ok(call::void_datum())
    }

    /// `state_job_renew_tasks(job_id, task_ids, token, lease)`
    fn state_job_renew_tasks(call) {
        const FUNCTION: &CStr = c"state_job_renew_tasks()";
        let given = call.text_array(1)?.ok_or_else(|| Error::null_argument("task_ids"))?;
        let mut names = state_cache_memory::try_collect(given.into_iter().map(|name| {
            name.ok_or_else(|| Error::argument("task_ids must not contain null"))
        }))?;
        names.sort_unstable();
        names.dedup();
        let token = call.bigint(2).ok_or_else(|| Error::null_argument("token"))?;
        let lease = lease(call, 3)?;
        let state = changing(call, FUNCTION)?;
        open(&state, &job::read_latest(&state)?)?;
        let lease_until = interval::after(sys::now(), &lease);
        let _owner = rows::of_tasks(&state.catalog);
        let found = store::lock_tasks(&state.catalog, state.key, names.iter().copied())?;
        let unknown = names.iter().filter(|name| !found.iter().any(|task| *task.task_id == ***name));
        let unknown = memory::checked(unknown.map(|name| text(name)))?;
        if !unknown.is_empty() {
            return Err(JobError::UnknownTasks { job: text(state.key), tasks: unknown }.into());
        }
        for task in &found {
            let status = job::status(&state, &task.status)?;
            check_token(&state, task, status, token)?;
            if status != Status::Running {
                return Err(JobError::ended(&state, &task.task_id, token, status));
            }
        }
        store::renew_leases(&state.catalog, state.key, names.iter().copied(), lease_until)?;
        Ok(call::bigint_datum(lease_until))
    }
}

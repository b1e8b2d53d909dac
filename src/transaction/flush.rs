//! The flush: staged changes become rows.
//!
//! A state is written by a statement that names the version it replaces; several are written by one statement
//! where they can (`flush_many`), and what is said here holds for each. The first attempt takes no
//! lock of its own and succeeds unless somebody else has just changed the state; the next ones lock the
//! row first and look again, so that they cannot lose twice. What somebody else did in between is a
//! conflict where the caller relied on a version, and otherwise the ground that operations are applied
//! to again.

use super::explicit::{Explicits, Whose};
use super::flush_many::{Group, Many};
use super::staged::{Bytes, Content, Flushed, Intent, Pending, Place, State, View};
use super::step::{Plan, Written};
use super::view::read_beneath;
use super::write::{Look, conflict, plan};
use super::{Batch, OnConflict, capability, leave, with};
use crate::cache::StateRef;
use crate::cache::forms::Head;
use crate::cache::read::Ground;
use crate::catalog::{self, Catalog};
use crate::counters::{Counter, CounterSet, Timer};
use crate::error::{Error, Result};
use crate::identity::{Identity, Impersonation};
use crate::notify::Touched;
use crate::snapshot::PushedSnapshot;
use crate::store::{self, Storage};
use crate::{behind, memory};
use pgrx::pg_sys;
use state_cache_memory::{Grow, with_capacity};
use std::rc::Rc;
use strum::IntoStaticStr;

/// Attempts at one state before giving up; each lost one means that somebody else's commit succeeded.
const MAX_ATTEMPTS: u32 = 1000;

/// Bytes of documents that a transaction leaves to the worker: it holds them until it ends. What it changes
/// beyond that is written through.
const MAX_LEFT: usize = 16 << 20;

/// What the flush made of a state.
pub struct Outcome {
    /// The state as it was staged.
    pub state: State,
    /// What was done.
    pub action: Action,
    /// Version that is current now; 0 if there is none.
    pub version: i64,
    /// Bytes of the document written.
    pub bytes: usize,
}

/// What the flush of one state came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// What was done.
    pub action: Action,
    /// Version that is current now; 0 if there is none.
    pub version: i64,
}

/// What was done, by the names that `state_batch_commit` uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Action {
    /// A new version was written.
    Written,
    /// The state is stored like that already; at most its expiry changed.
    Unchanged,
    /// A tombstone was written.
    Deleted,
}

/// Writes what is staged, each role's by the rule of its explicit batch. In one that fails on conflicts, states that
/// were only read are checked too.
pub fn flush(whose: Whose) -> Result<Vec<Outcome>> {
    let (catalog, dirty, explicit) = with(|batch| {
        let explicit = batch.scope.explicit.clone();
        (batch.scope.catalog.clone(), batch.dirty(whose), explicit)
    });
    let (Some(catalog), dirty) = (catalog, dirty?) else {
        return Ok(Vec::new());
    };
    let catalog = match catalog::renewed(&catalog) {
        Ok(catalog) => catalog,
        // The staged changes go with tables that this transaction has dropped itself.
        Err(Error::NotInstalled) if catalog.may_be_dropped_by_us() => {
            with(|batch| {
                batch.states.values_mut().for_each(State::unstage);
                batch.scope.kept = Rc::default();
            });
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    with(|batch| batch.scope.catalog = Some(Rc::clone(&catalog)));
    let timer = Timer::start();
    // What earlier commands of this transaction wrote must be visible to the reads below.
    // SAFETY: we are inside a transaction, not in parallel mode.
    unsafe { pg_sys::CommandCounterIncrement() };
    if explicit.any() {
        check_reads(&catalog, whose, &explicit)?;
    }
    let mut outcomes = with_capacity(dirty.len())?;
    let mut group = Group::new(&catalog, classes_of_many(&dirty)?);
    let is_one = dirty.len() == 1;
    for id in dirty {
        memory::check()?;
        let taken = with(|batch| batch.take_pending(id, None))?;
        let Some((known, pending, on_conflict)) = taken else {
            continue;
        };
        if Batch::id(&catalog, &known.class.name, &known.key) != id {
            // Staged before this transaction dropped the extension and created it again.
            with(|batch| batch.states.get_mut(&id).map(State::unstage));
            continue;
        }
        if is_one {
            outcomes.push(flush_state(&catalog, id, known, &pending, on_conflict)?);
        } else {
            group.flush(id, known, pending, on_conflict, &mut outcomes)?;
        }
    }
    group.write(&mut outcomes)?;
    // Where a write had to wait for DROP EXTENSION, it went to tables that were created after.
    if !catalog.is_installed() {
        return Err(Error::Reinstalled);
    }
    let wrote = outcomes
        .iter()
        .any(|outcome| outcome.action != Action::Unchanged);
    if wrote && catalog.rows_may_be_rewritten() {
        // Only the tables know what was written.
        with(|batch| batch.spill(false))?;
    }
    tell_of_deletes(&catalog, &outcomes)?;
    count(&outcomes, &timer);
    Ok(outcomes)
}

/// The classes of which very many states are to be written, and how many. Whether one is a `behind` class may
/// change until the flush comes to it.
fn classes_of_many(dirty: &[u128]) -> Result<Many> {
    let mut counts = Many::new();
    with(|batch| {
        for state in dirty.iter().filter_map(|id| batch.states.get(id)) {
            match counts.get_mut(&state.class.name) {
                Some(count) => *count += 1,
                None => {
                    memory::check()?;
                    counts.insert(state.class.name.clone(), 1);
                }
            }
        }
        Ok::<_, Error>(())
    })?;
    counts.retain(|_, states| behind::is_many(*states));
    Ok(counts)
}

/// Writes what is staged of one state, outside an explicit batch.
pub fn flush_one(state: &StateRef<'_>) -> Result<()> {
    flush_now(state, None).map(|_| ())
}

/// Writes what is staged of one state by this rule; what was done, if there was something.
pub fn flush_now(state: &StateRef<'_>, on_conflict: Option<OnConflict>) -> Result<Option<Done>> {
    let timer = Timer::start();
    // SAFETY: we are inside a transaction; PostgreSQL raises its own error in parallel mode.
    unsafe { pg_sys::CommandCounterIncrement() };
    let id = Batch::id(&state.catalog, &state.class.name, state.key);
    let taken = with(|batch| batch.take_pending(id, Some(on_conflict)))?;
    let Some((known, pending, on_conflict)) = taken else {
        return Ok(None);
    };
    let outcome = flush_state(&state.catalog, id, known, &pending, on_conflict)?;
    if outcome.action != Action::Unchanged && state.catalog.rows_may_be_rewritten() {
        with(|batch| batch.spill(false))?;
    }
    let done = Done {
        action: outcome.action,
        version: outcome.version,
    };
    let outcomes = [outcome];
    tell_of_deletes(&state.catalog, &outcomes)?;
    count(&outcomes, &timer);
    Ok(Some(done))
}

/// Tells the capabilities which states the flush has deleted.
fn tell_of_deletes(catalog: &Catalog, outcomes: &[Outcome]) -> Result<()> {
    let deleted = outcomes
        .iter()
        .filter(|outcome| outcome.action == Action::Deleted);
    for Outcome { state, .. } in deleted {
        for capability in capability::all() {
            capability.after_delete(catalog, &state.class.name, &state.key)?;
        }
    }
    Ok(())
}

/// `40001` if a state has moved that a batch which fails on conflicts has only read; asked as the role that read it.
fn check_reads(catalog: &Rc<Catalog>, whose: Whose, explicit: &Explicits) -> Result<()> {
    let is_meant =
        |role| whose.includes(role, explicit) && explicit.rule_of(role) == Some(OnConflict::Error);
    let mut read_only = Vec::new();
    with(|batch| -> Result<()> {
        for state in batch.states.values() {
            for base in &state.bases {
                let role = base.reader.user;
                if is_meant(role) && !state.is_staged_by(role) {
                    memory::check()?;
                    read_only.try_push((state.clone(), base.clone()))?;
                }
            }
        }
        Ok(())
    })?;
    // Under the transaction's own snapshot nothing moves at REPEATABLE READ.
    let _snapshot = PushedSnapshot::latest();
    for (known, base) in read_only {
        let _reader = Impersonation::begin(&base.reader, false);
        let class = Rc::clone(&known.class);
        let state = StateRef {
            catalog: Rc::clone(catalog),
            class,
            key: &known.key,
        };
        let found = read_beneath(&state, &mut Head)?.ground();
        if found != base.ground {
            return Err(conflict(&state, base.ground.number, found.number));
        }
    }
    Ok(())
}

pub(super) fn flush_state(
    catalog: &Rc<Catalog>,
    id: u128,
    known: State,
    pending: &Pending,
    on_conflict: Option<OnConflict>,
) -> Result<Outcome> {
    let key = Rc::clone(&known.key);
    let class = behind::lock(catalog, catalog.class(&known.class.name)?, &key)?;
    crate::fault::stop_at!(ClassKnown);
    let locked = class.behind;
    let state = StateRef {
        catalog: Rc::clone(catalog),
        class,
        key: &key,
    };
    leave::heed_changes_by_hand(&state)?;
    check_rules(&state, &known, pending)?;
    let runs_user_code = catalog.runs_user_code();
    // Either may have waited for somebody who dropped the tables.
    catalog::require_same(catalog)?;
    let _stager = Impersonation::begin(&pending.stager, runs_user_code);
    let is_behind = locked && crate::shared::l1().is_some();
    let is_urgent = pending.is_urgent() || known.has_told_items();
    let decide = is_behind && catalog.access().l1 && !is_urgent;
    if is_behind && !decide {
        leave::bring_down(&state, id)?;
    }
    let written = write_alone(&state, &known, pending, on_conflict, decide, 0)?;
    // What follows rows of this transaction goes with them, or a crash could keep the rows alone: a version
    // that was never committed.
    let follows_own_rows = known.is_in_tables();
    let outcome = finish(id, known, pending, written, locked)?;
    if decide && (follows_own_rows || !may_leave(&state)?) {
        leave::write_left(catalog, id)?;
    }
    Ok(outcome)
}

/// Asks the capabilities whether what is staged of a state may be written.
pub(super) fn check_rules(state: &StateRef<'_>, known: &State, pending: &Pending) -> Result<()> {
    if let Some(token) = known.fence {
        for capability in capability::all() {
            capability.check_fence(state, token)?;
        }
    }
    if matches!(pending.intent, Intent::Delete) {
        capability::check_may_delete(state)?;
    }
    Ok(())
}

/// Writes one state by a statement of its own, looking again until it is written. `attempt` counts from 0; the
/// first takes no lock of its own.
pub(super) fn write_alone(
    state: &StateRef<'_>,
    known: &State,
    pending: &Pending,
    on_conflict: Option<OnConflict>,
    decide: bool,
    mut attempt: u32,
) -> Result<Written> {
    let catalog = &state.catalog;
    let (mut class, mut look) = (Rc::clone(&state.class), Look::Quick);
    let mut locked = None;
    loop {
        if attempt > 0 {
            check_may_retry(state, attempt)?;
            store::lock(catalog, &state.class.name, state.key)?;
            catalog::require_same(catalog)?;
            locked = check_has_moved(state, attempt, locked)?;
            // Whoever held the row until now may have redefined the class.
            class = catalog::class_now(catalog, &state.class.name).unwrap_or(class);
            if class.behind && !state.class.behind {
                // What is newest only the locks of such a class tell, and they have not been taken.
                return Err(Error::ClassRedefined {
                    class: crate::error::text(&class.name),
                });
            }
            look = Look::Close;
        }
        let state = StateRef {
            catalog: Rc::clone(catalog),
            class: Rc::clone(&class),
            key: state.key,
        };
        let _snapshot = PushedSnapshot::transaction();
        let written = match plan(&state, known, pending, on_conflict, decide, look)? {
            Plan::Done(written) => Some(written),
            Plan::Write(_) if crate::fault::leaves_out!(RowWrite) => None,
            Plan::Write(step) => step.write(&state)?,
        };
        match written {
            Some(written) => return Ok(written),
            None => attempt += 1,
        }
    }
}

/// Raises where another attempt would not help, after so many.
fn check_may_retry(state: &StateRef<'_>, attempts: u32) -> Result<()> {
    let catalog = &state.catalog;
    if !catalog.is_installed() {
        return Err(Error::Reinstalled);
    }
    if attempts > 1 && catalog.access().row_security {
        return Err(Error::Hidden {
            state: state.shown(),
        });
    }
    if attempts > 2 && catalog.rows_may_be_rewritten() {
        return Err(Error::Swallowed {
            state: state.shown(),
        });
    }
    if attempts == MAX_ATTEMPTS {
        // Its row was there each time when it was written, and gone when it was to be locked.
        return Err(Error::LostTooOften {
            state: state.shown(),
            attempts,
        });
    }
    Ok(())
}

/// The version and the writer of a head row that is locked, if there is one.
type Locked = Option<(i64, pg_sys::TransactionId)>;

/// The head row that is locked now. An attempt that found it locked must have written it: nobody else can have changed
/// it since.
fn check_has_moved(state: &StateRef<'_>, attempt: u32, before: Locked) -> Result<Locked> {
    let head = state.catalog.head_row(&state.class.name, state.key);
    let now = head.map(|head| (head.version, head.xid));
    match now {
        Some((version, _)) if attempt > 3 && now == before => Err(Error::Stuck {
            state: state.shown(),
            version,
        }),
        _ => Ok(now),
    }
}

/// Remembers what was made of a state.
pub(super) fn finish(
    id: u128,
    known: State,
    pending: &Pending,
    written: Written,
    locked: bool,
) -> Result<Outcome> {
    let (action, version, bytes) = match &written {
        Written::Document { made, document, .. } => (Action::Written, made.version, document.len()),
        Written::Deleted { version } => (Action::Deleted, *version, 0),
        Written::Left {
            version,
            document,
            is_new: true,
            ..
        } => (Action::Written, *version, document.len()),
        Written::Touched { version, .. }
        | Written::Left { version, .. }
        | Written::Nothing { version } => (Action::Unchanged, *version, 0),
    };
    with(|batch| batch.flushed(id, written, &pending.stager, &pending.touched, locked))?;
    Ok(Outcome {
        state: known,
        action,
        version,
        bytes,
    })
}

/// Whether what was decided upon may be left to the worker, rather than be written now.
fn may_leave(state: &StateRef<'_>) -> Result<bool> {
    let (by_hand, left) = with(|batch| (batch.by_hand.any(), batch.left));
    // Rows made by hand in this transaction are in the tables only.
    Ok(!by_hand
        && left <= MAX_LEFT
        && !behind::is_parked(state)
        && behind::may_leave(&state.catalog))
}

impl Batch {
    /// Takes what is pending on a state, so that a flush from within the flush leaves it alone. With it goes the rule
    /// for conflicts: the one given, else that of the batch of the role that has staged it.
    fn take_pending(
        &mut self,
        id: u128,
        on_conflict: Option<Option<OnConflict>>,
    ) -> Result<Option<(State, Pending, Option<OnConflict>)>> {
        self.frames.save(id, self.states.get(&id), &self.scope)?;
        let Some(state) = self.states.get_mut(&id) else {
            return Ok(None);
        };
        let known = state.clone();
        let Some(mut pending) = state.pending.take() else {
            return Ok(None);
        };
        let of_role = || self.scope.explicit.rule_of(pending.stager.user);
        let on_conflict = on_conflict.unwrap_or_else(of_role);
        self.scope.forget_staged_before(id)?;
        if pending.overwrites(on_conflict) {
            // Whatever others have changed since goes with it.
            pending.touched = pending.touched.and(&Touched::document());
        }
        Ok(Some((known, pending, on_conflict)))
    }

    /// Remembers what was written.
    pub(super) fn flushed(
        &mut self,
        id: u128,
        written: Written,
        stager: &Identity,
        touched: &Touched,
        locked: bool,
    ) -> Result<()> {
        self.frames.save(id, self.states.get(&id), &self.scope)?;
        let explicit = self.scope.explicit.any();
        let Some(known) = self.states.get_mut(&id) else {
            return Ok(());
        };
        let left_before = known.left_bytes();
        if !known.is_dirty() {
            known.beneath = None;
        }
        let mut place = Place::Tables { locked };
        let flushed = known.flushed.as_ref();
        let before = flushed.map_or(written.before(), |flushed| flushed.before);
        let mut all_touched = flushed.map_or_else(Touched::default, |it| it.touched.clone());
        if written.is_new() {
            all_touched = all_touched.and(touched);
        }
        if written.starts_anew() {
            all_touched = all_touched.and(&Touched::document());
        }
        let (version, expires_at, content) = match written {
            Written::Nothing { .. } if known.flushed.is_none() => {
                // Others may change the state from here on.
                if !known.is_dirty() {
                    known.forget_views();
                }
                return Ok(());
            }
            Written::Nothing { version } => {
                known.correct_view(version, None, None);
                return Ok(());
            }
            Written::Document {
                made,
                document,
                hash,
                expires_at,
                ..
            } => {
                let (version, storage) = (made.version, made.storage);
                known.correct_view(version, Some(&document), Some(expires_at));
                let content = Content::Document {
                    document,
                    hash,
                    storage,
                };
                (version, expires_at, content)
            }
            Written::Left {
                version,
                document,
                hash,
                expires_at,
                base,
                is_new,
                ..
            } => {
                // A row of this transaction's own is what the tables hold then.
                let version_beneath = known.flushed.as_ref().map_or(0, Flushed::number);
                known.correct_view(version, Some(&document), Some(expires_at));
                let (base, was_news, over_own_rows) =
                    match known.flushed.take().map(|flushed| flushed.place) {
                        Some(Place::Left {
                            base,
                            is_news,
                            over_own_rows,
                            ..
                        }) => (base, is_news, over_own_rows),
                        Some(Place::Tables { .. }) => (version_beneath, true, true),
                        None => (base, false, false),
                    };
                place = Place::Left {
                    stager: stager.clone(),
                    base,
                    // SAFETY: reads this backend's transaction state.
                    command: unsafe { pg_sys::GetCurrentCommandId(false) },
                    is_news: is_new || was_news,
                    over_own_rows,
                };
                let content = Content::Document {
                    document,
                    hash,
                    storage: Storage::UNKNOWN,
                };
                (version, expires_at, content)
            }
            Written::Deleted { version } => (version, i64::MAX, Content::Deleted),
            Written::Touched {
                version,
                expires_at,
            } => {
                known.correct_view(version, None, Some(expires_at));
                let before = known.flushed.take();
                (
                    version,
                    expires_at,
                    before.map_or(Content::Touched, |flushed| flushed.content),
                )
            }
        };
        if explicit {
            let ground = match &content {
                Content::Document { hash, .. } => Some(Ground {
                    number: version,
                    hash: *hash,
                }),
                Content::Deleted => Some(Ground::ABSENT),
                // The document is the one it was.
                Content::Touched | Content::Unkept => None,
            };
            // What the transaction itself writes is no conflict with what it has read, whichever role did either.
            for base in &mut known.bases {
                base.ground = ground.unwrap_or(base.ground);
            }
        }
        known.flushed = Some(Flushed {
            version,
            expires_at,
            content,
            place,
            before,
            touched: all_touched,
        });
        self.left = (self.left + known.left_bytes()).saturating_sub(left_before);
        Ok(())
    }
}

impl State {
    /// What the transaction sees of the state turns from provisional into what was written, unless a
    /// trigger that fired during the write has staged the next change already.
    fn correct_view(&mut self, number: i64, written: Option<&Bytes>, expiry: Option<i64>) {
        if self.is_dirty() {
            return;
        }
        if let Some(View::Document {
            document,
            version,
            expires_at,
        }) = self.newest_mut()
        {
            *version = Some(number);
            if let Some(written) = written {
                *document = Rc::clone(written);
            }
            *expires_at = expiry.unwrap_or(*expires_at);
        }
    }
}

fn count(outcomes: &[Outcome], timer: &Timer) {
    let mut flushed: Vec<Rc<CounterSet>> = Vec::new();
    for outcome in outcomes {
        let counters = &outcome.state.class.counters;
        let counter = match outcome.action {
            Action::Written => Counter::StatesWritten,
            Action::Deleted => Counter::StatesDeleted,
            Action::Unchanged if outcome.state.has_document_staged() => Counter::DuplicatesSkipped,
            Action::Unchanged => continue,
        };
        counters.count(counter);
        let wrote = outcome.action != Action::Unchanged;
        if wrote && !flushed.iter().any(|known| Rc::ptr_eq(known, counters)) {
            flushed.push(Rc::clone(counters));
        }
    }
    for counters in flushed {
        counters.count(Counter::Flushes);
        timer.stop(&counters, Counter::FlushTime);
    }
}

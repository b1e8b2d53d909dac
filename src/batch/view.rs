//! Reading as this transaction sees it: its own changes first, then the cache.

use super::change::apply_all;
use super::staged::{Intent, Operation, Pending, View};
use super::{Batch, OnConflict, with};
use crate::cache::StateRef;
use crate::cache::forms::{Document, Head, SameAs};
use crate::cache::read::{self, Form, Found, Ground, Reader, Version};
use crate::cache::stats::Counter;
use crate::error::{Error, Result};
use crate::sys;
use pgrx::pg_sys;
use std::rc::Rc;

/// Staged operations, what they were applied to, and whether the tables hold rows of this
/// transaction.
type Seen = (Rc<Vec<Operation>>, Ground, bool);

/// What the transaction itself knows.
enum Own {
    /// Nothing: the committed state counts. The flag says that the transaction has rows of its own in
    /// the tables.
    Committed { own_rows: bool },
    /// What it has staged or flushed.
    View(View),
}

/// Reads a state under the active snapshot. In an explicit batch the version is remembered.
pub fn read<F: Form>(state: &StateRef<'_>, form: &mut F) -> Result<Found<F::Output>> {
    if sys::is_parallel_worker() {
        return Err(Error::ParallelWorker);
    }
    // SAFETY: the active snapshot is valid while the function runs.
    let command = unsafe { (*sys::active_snapshot()).curcid };
    rebase(state, command)?;
    let own = with(|batch| batch.own(state, command))?;
    let found = match own {
        Own::Committed { own_rows } => {
            let found = read::read(state, Reader::Caller, own_rows, form)?;
            if with(|batch| batch.explicit.is_some()) {
                note(state, &found)?;
            }
            found
        }
        Own::View(view) => {
            state.class.counters.count(Counter::BypassOwn);
            from_view(state, view, form)?
        }
    };
    Ok(found)
}

/// Reads a state as the next change finds it: the newest of this transaction's changes, whatever the
/// active snapshot sees of them.
pub fn read_newest<F: Form>(state: &StateRef<'_>, form: &mut F) -> Result<Found<F::Output>> {
    rebase(state, pg_sys::CommandId::MAX)?;
    match with(|batch| batch.own(state, pg_sys::CommandId::MAX))? {
        Own::Committed { own_rows } => read::read(state, Reader::Change, own_rows, form),
        Own::View(view) => from_view(state, view, form),
    }
}

impl Batch {
    /// The operations staged on a state; `None` if there are none that a snapshot with this command id sees in
    /// full, or if the batch does not follow what others do.
    fn operations_seen(
        &self,
        state: &StateRef<'_>,
        command: pg_sys::CommandId,
    ) -> Result<Option<Seen>> {
        let follows = self
            .explicit
            .as_ref()
            .is_none_or(|explicit| explicit.on_conflict == OnConflict::Reapply);
        if self.states.is_empty() || !follows {
            return Ok(None);
        }
        let id = Self::id(&state.catalog, &state.class.name, state.key);
        let Some(known) = self.known(id, &state.class.name, state.key)? else {
            return Ok(None);
        };
        let Some(Pending {
            intent: Intent::Apply {
                operations, base, ..
            },
            ..
        }) = &known.pending
        else {
            return Ok(None);
        };
        let own_rows = self.by_hand.any() || known.flushed.is_some();
        Ok(known
            .sees_newest(command)
            .then(|| (Rc::clone(operations), *base, own_rows)))
    }

    fn own(&self, state: &StateRef<'_>, command: pg_sys::CommandId) -> Result<Own> {
        let own_rows = self.by_hand.any();
        if self.states.is_empty() {
            return Ok(Own::Committed { own_rows });
        }
        let id = Self::id(&state.catalog, &state.class.name, state.key);
        let Some(known) = self.known(id, &state.class.name, state.key)? else {
            return Ok(Own::Committed { own_rows });
        };
        match known.view_at(command) {
            // What was flushed and then changed by hand is in the tables only.
            Ok(Some(_)) if own_rows && !known.is_dirty() => Ok(Own::Committed { own_rows }),
            Ok(Some(view)) => Ok(Own::View(view.clone())),
            // Before the changes, or after they were dropped: rows that were flushed are in the tables.
            Ok(None) => Ok(Own::Committed {
                own_rows: own_rows || known.flushed.is_some(),
            }),
            Err(()) => Err(Error::SnapshotTooOld {
                state: state.shown(),
            }),
        }
    }
}

/// Staged operations are shown on top of the version that the snapshot sees: if somebody else has changed
/// the state since they were staged, they are applied anew, as the flush will do. A batch that treats
/// such a change as a conflict, or ignores it, keeps showing what it staged.
fn rebase(state: &StateRef<'_>, command: pg_sys::CommandId) -> Result<()> {
    let Some((operations, base, own_rows)) = with(|batch| batch.operations_seen(state, command))?
    else {
        return Ok(());
    };
    if read::read(state, Reader::Change, own_rows, &mut Head)?.ground() == base {
        return Ok(());
    }
    let found = read::read(state, Reader::Change, own_rows, &mut Document)?;
    let ground = found.ground();
    let found = found.state();
    let version = found.as_ref().map_or(0, |(version, _)| version.number);
    let before = found
        .as_ref()
        .map_or(i64::MAX, |(version, _)| version.expires_at);
    let document = found.map(|(_, document)| document);
    let result = Rc::new(apply_all(state, &operations, document)?);
    with(|batch| {
        let known = batch.changing(state)?;
        let Some(pending) = &mut known.pending else {
            return Ok(());
        };
        if let Intent::Apply {
            base,
            result: staged,
            ..
        } = &mut pending.intent
        {
            (*base, *staged) = (ground, Rc::clone(&result));
        }
        let expires_at = pending.expiry.after(before);
        if let Some(view) = known.newest_mut() {
            *view = View::Document {
                document: result,
                version: Some(version + 1),
                expires_at,
            };
        }
        Ok(())
    })
}

fn from_view<F: Form>(state: &StateRef<'_>, view: View, form: &mut F) -> Result<Found<F::Output>> {
    match view {
        View::Absent(last) => Ok(Found::Absent(last.unwrap_or(0))),
        View::Document {
            document,
            version,
            expires_at,
        } => {
            if expires_at <= sys::statement_timestamp() {
                return Ok(Found::Absent(version.unwrap_or(0)));
            }
            let number = match version {
                Some(version) => version,
                None => provisional_version(state, &document)?,
            };
            Ok(Found::State(
                Version {
                    number,
                    expires_at,
                    hash: 0,
                },
                form.make(&document)?,
            ))
        }
    }
}

/// The version that a staged document will have if nobody else changes the state: found out when first
/// asked for, since most transactions never ask.
fn provisional_version(state: &StateRef<'_>, document: &[u8]) -> Result<i64> {
    let mut same = SameAs {
        document,
        hash: state_cache_document::hash(document),
    };
    let version = match read::read(state, Reader::Change, false, &mut same)? {
        Found::Absent(last) => last + 1,
        Found::State(version, true) => version.number,
        Found::State(version, false) => version.number + 1,
    };
    with(|batch| {
        let id = Batch::id(&state.catalog, &state.class.name, state.key);
        if let Some(View::Document {
            version: unknown, ..
        }) = batch
            .states
            .get_mut(&id)
            .and_then(|known| known.newest_mut())
        {
            *unknown = unknown.or(Some(version));
        }
    });
    Ok(version)
}

/// Remembers what an explicit batch found when it first met a state.
fn note<T>(state: &StateRef<'_>, found: &Found<T>) -> Result<()> {
    let ground = found.ground();
    with(|batch| {
        let known = batch.changing(state)?;
        known.base = known.base.or(Some(ground));
        Ok(())
    })
}

/// What is committed now, for a change that has not read it.
pub fn committed_ground(state: &StateRef<'_>) -> Result<Ground> {
    let own_rows = with(|batch| batch.has_own_rows(state))?;
    Ok(read::read(state, Reader::Change, own_rows, &mut Head)?.ground())
}

//! Reading as this transaction sees it: its own changes first, then the cache.

use super::staged::View;
use super::{Batch, with};
use crate::cache::StateRef;
use crate::cache::forms::{Nothing, SameAs};
use crate::cache::read::{self, Form, Found, Version};
use crate::cache::stats::Counter;
use crate::error::{Error, Result};
use crate::sys;

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
    let own = with(|batch| batch.own(state, command))?;
    let found = match own {
        Own::Committed { own_rows } => {
            let found = read::read(state, own_rows, form)?;
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
    match with(|batch| batch.own(state, pgrx::pg_sys::CommandId::MAX))? {
        Own::Committed { own_rows } => read::read(state, own_rows, form),
        Own::View(view) => from_view(state, view, form),
    }
}

impl Batch {
    fn own(&self, state: &StateRef<'_>, command: pgrx::pg_sys::CommandId) -> Result<Own> {
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
                Version { number, expires_at },
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
    let version = match read::read(state, false, &mut same)? {
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

/// Remembers the version in which an explicit batch first met a state.
fn note<T>(state: &StateRef<'_>, found: &Found<T>) -> Result<()> {
    let version = match found {
        Found::Absent(_) => 0,
        Found::State(version, _) => version.number,
    };
    with(|batch| {
        let known = batch.changing(state)?;
        known.base = known.base.or(Some(version));
        Ok(())
    })
}

/// Version in which the committed state is now, 0 if absent, for an explicit batch that stages without
/// having read.
pub fn committed_version(state: &StateRef<'_>) -> Result<i64> {
    let own_rows = with(|batch| batch.by_hand.any());
    Ok(read::read(state, own_rows, &mut Nothing)?
        .state()
        .map_or(0, |(version, ())| version.number))
}
